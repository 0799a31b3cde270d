// SPDX-License-Identifier: MIT
// In the library alone: Lua's stdin, stdout and stderr under names of our own, since Debian's liblua5.4.a, which is not
// position-independent, refers to them directly, and the linker refuses that for symbols of another library.
#include <stdio.h>

FILE *bdk_stdin, *bdk_stdout, *bdk_stderr;

__attribute__((constructor)) static void begin(void) {
  bdk_stdin = stdin;
  bdk_stdout = stdout;
  bdk_stderr = stderr;
}

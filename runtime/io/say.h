// SPDX-License-Identifier: MIT
// Output to a descriptor that is not ours alone, such as stderr, without ever waiting for whoever reads it.
#ifndef BDK_SAY_H
#define BDK_SAY_H

#include "../core/base.h"

// A line of this length or less goes into a pipe whole or not at all (PIPE_BUF).
#define BDK_SAY_WHOLE 4096

// How many of the bytes went out; 0 while the reader of a pipe or terminal does not keep up; -errno (EPIPE: there is no
// reader any more; ENOSPC: a full disk, where later there may be room again). SIGPIPE is to be ignored by the program.
int bdk_say(int fd, const void *data, size_t len);

#endif

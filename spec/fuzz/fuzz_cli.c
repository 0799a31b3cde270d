// SPDX-License-Identifier: MIT
// What the command line parses: see cli.lua.
#include "lua.h"

static lua_State *state;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  state = fuzz_lua_open("spec/fuzz/cli.lua");
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  fuzz_lua_input(state, 1, bytes, len);
  return 0;
}

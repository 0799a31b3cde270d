-- SPDX-License-Identifier: MIT
rockspec_format = "3.0"
package = "bodkin"
version = "scm-1"
source = { url = "git+https://example.org/bodkin.git" }
description = {
  summary = "Programs behind NATs talk to each other directly",
  detailed = "A networking runtime: servers that introduce, clients that punch through NATs, scripted in Lua.",
  license = "MIT",
}
dependencies = { "lua ~> 5.4" }
external_dependencies = {
  LIBEV = { header = "ev.h", library = "ev" },
  MSGPACK = { header = "msgpack.h", library = "msgpackc" },
  SODIUM = { header = "sodium.h", library = "sodium" },
  CARES = { header = "ares.h", library = "cares" },
}
build = {
  type = "make",
  build_target = "rock",
  install_target = "install-rock",
  build_variables = { LUA_INC = "-I$(LUA_INCDIR)" },
  install_variables = { LUA_INC = "-I$(LUA_INCDIR)", LUADIR = "$(LUADIR)", LIBDIR = "$(LIBDIR)" },
}

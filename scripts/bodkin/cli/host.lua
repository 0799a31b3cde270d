-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"

return {
  usage = "bodkin host [--server URL] [options]",
  summary = "open a room and talk to whoever joins",
  text = [[
Opens a room at the server and prints its code. Whoever joins with that code is talked to directly.
Lines from stdin go to every peer, theirs come to stdout. The room stays open until it is left (Ctrl-C).
With --expect: leaves with 0 when the messages came, with 3 when they did not.]],
  options = options.client("server", "address-server", "maintenance-server", "app", "name", "props", "identity",
    "token", "trust-first-use", "bind", "virtual", "send", "expect", "timeout", "trace", "why"),
  run = function(values)
    return require("bodkin.cli.talk").run(values, function(node) return node:host() end, true)
  end,
}

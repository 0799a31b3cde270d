-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"

return {
  usage = "bodkin match QUEUE [--props JSON] [--party NAME:N] [--server URL] [options]",
  summary = "wait in a queue until its policy makes a match",
  text = [[
Waits in QUEUE with the properties of --props until the server's policy for it (without one: first come, first served,
two at a time) makes a match, then talks to everyone in it: lines from stdin go to every peer, theirs come to stdout.
With --party, N who all say the same NAME are matched together, or not at all. Where the policy has players accept a
match, that is done at once; with --accept ask a line from stdin answers, y or n. Leaves with 0 when the peers left or,
with --expect, when the messages came (3 when they did not); with 4 when --timeout passed without a match.]],
  options = options.client("server", "address-server", "maintenance-server", "app", "name", "props", "party", "accept",
    "decline", "identity", "token", "trust-first-use", "bind", "virtual", "send", "expect", "timeout", "trace", "why"),
  arguments = 1,
  run = function(values, rest)
    local queue, props = rest[1], values.props
    if not queue then return nil, "match needs the name of a QUEUE", "usage" end
    if #queue < 1 or #queue > 32 then return nil, "a queue's name has 1 to 32 bytes", "usage" end
    values.props = nil -- the ticket's: in the registry nobody need see them
    local timeout_ms = values.timeout and values.timeout * 1000
    return require("bodkin.cli.talk").run(values, function(node)
      return node:match(queue, props, { timeout_ms = timeout_ms, party = values.party })
    end)
  end,
}

-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"

-- With a query in place of a code: the first entry that fits.
local function choose(node, values)
  local entries, err, code = node:list(values.query)
  if not entries then return nil, err, code end
  for _, entry in ipairs(entries) do
    if entry.id ~= node.id then return entry.id end
  end
  return nil, "nobody registered fits the query: bodkin list shows who is there", "no_match"
end

return {
  usage = "bodkin join CODE|ID [--server URL] [options]",
  summary = "join a room by its code, or a client by its id",
  text = [[
Joins the room of this CODE, or selects the client with this ID (32 digits, from bodkin list). With --query in
place of both: the first client whose properties equal it. Lines from stdin go to every peer, theirs come to
stdout. Leaves with 0 when the peers left or, with --expect, when the messages came (3 when they did not).]],
  options = options.client("server", "address-server", "maintenance-server", "app", "name", "props", "query",
    "identity", "token", "trust-first-use", "bind", "virtual", "send", "expect", "timeout", "trace", "why"),
  arguments = 1,
  run = function(values, rest)
    if not rest[1] and not values.query then
      return nil, "join needs a room's CODE, a client's ID, or --query", "usage"
    end
    if rest[1] and values.query then return nil, "give either CODE or --query, not both", "usage" end
    return require("bodkin.cli.talk").run(values, function(node)
      if rest[1] then return node:join(rest[1]) end
      local id, err, code = choose(node, values)
      if not id then return nil, err, code end
      return node:join(id)
    end)
  end,
}

-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"
local output = require "bodkin.cli.output"

local function show(out, entry)
  if out.json then
    return out:object({ event = "entry", id = entry.id, name = entry.name, props = entry.props, public = entry.pubs,
      ["local"] = entry.locals }, { "event", "id", "name", "props", "public", "local" })
  end
  local props = next(entry.props) and require("bodkin.json").encode(entry.props) or "{}"
  local where = table.concat(entry.pubs or {}, " ")
  return out:line(("%s  %-16s %s%s"):format(entry.id, output.printable(entry.name), output.printable(props),
    where ~= "" and "  " .. where or ""))
end

return {
  usage = "bodkin list [--query JSON] [--server URL] [options]",
  summary = "who is registered at the server",
  text = [=[
Prints the id, the name and the properties of each client registered under the same --app; with --query only of
those whose properties equal it, or that an expression finds, sorted, so many of them:
  --query '{"where":["and",[">=","mmr",1000],["in","mode",["a","b"]]],"sort":"-mmr","limit":20}'
There are and, or, not, =, !=, <, <=, >, >=, in, and range (from, to). With -v or --json also their addresses, where the
server exposes them.]=],
  options = options.client("server", "address-server", "app", "query", "identity", "token", "trust-first-use",
    "bind", "timeout"),
  run = function(values)
    if not values.server then
      return nil, "no server given: --server bodkin://HOST[:PORT], or set $BODKIN_SERVER", "usage"
    end
    local out = output.of(values)
    return require("bodkin.cli.process").run(values, function(p)
      local open = require("bodkin.cli.talk").open_options(values, p.env)
      open.register = false
      local node, err, code = require("bodkin").open(open)
      if not node then return nil, err, code end
      local entries
      entries, err, code = node:list(values.query, out.json or values.verbose ~= nil)
      node:close()
      out:settle(true) -- a long list may be read slowly
      if not entries then return nil, err, code end
      for _, entry in ipairs(entries) do
        if not show(out, entry) then break end
      end
      if #entries == 0 then out:say("nobody is registered%s", values.query and " that fits the query" or "") end
      return 0
    end)
  end,
}

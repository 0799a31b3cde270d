-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"
local output = require "bodkin.cli.output"
local task = require "bodkin.task"

-- event: "entry", or with --watch, what has become of it since; mark: the same for people.
local function show(out, entry, event, mark)
  if out.json then
    return out:object({ event = event or "entry", id = entry.id, name = entry.name, props = entry.props,
      public = entry.pubs, ["local"] = entry.locals }, { "event", "id", "name", "props", "public", "local" })
  end
  local name = output.printable(entry.name)
  local props = output.printable(next(entry.props) and require("bodkin.json").encode(entry.props) or "{}")
  local where = table.concat(entry.pubs or {}, " ")
  return out:line(("%s%s  %-16s %s%s"):format(mark or "", entry.id, name, props, where ~= "" and "  " .. where or ""))
end

-- In a task: until the time is over, nobody reads any more, or the command is stopped.
local function watch(p, node, values, out)
  local marks = { came = "+ ", gone = "- ", changed = "~ " }
  local stop
  local function told(change)
    for _, event in ipairs { "gone", "came", "changed" } do
      for _, entry in ipairs(change[event]) do
        local is_read = entry.id == node.id or show(out, entry, event, marks[event])
        if not is_read and stop then stop() end
      end
    end
  end
  local ended, err, code = node:watch(values.query or {}, told)
  if not ended then return nil, err, code end
  task.await(function(resume)
    stop = resume
    if values.timeout then p.env.timer(values.timeout * 1000, resume) end
  end)
  return 0
end

local known = options.client("server", "address-server", "app", "query", "identity", "token", "trust-first-use",
  "bind", "timeout")
table.insert(known, { "watch", help = "go on with who comes, goes and changes" })

return {
  usage = "bodkin list [--query JSON] [--watch] [--server URL] [options]",
  summary = "who is registered at the server",
  text = [=[
Prints the id, the name and the properties of each client registered under the same --app; with --query only of
those whose properties equal it, or that an expression finds, sorted, so many of them:
  --query '{"where":["and",[">=","mmr",1000],["in","mode",["a","b"]]],"sort":"-mmr","limit":20}'
There are and, or, not, =, !=, <, <=, >, >=, in, and range (from, to). With -v or --json also their addresses, where the
server exposes them. With --watch it goes on with who comes (+), goes (-) or changes its properties (~) as that happens,
until --timeout or Ctrl-C; neither sorted, nor with addresses.]=],
  options = known,
  run = function(values)
    if not values.server then
      return nil, "no server given: --server bodkin://HOST[:PORT], or set $BODKIN_SERVER", "usage"
    end
    local out = output.of(values)
    return require("bodkin.cli.process").run(values, function(p)
      local open = require("bodkin.cli.talk").open_options(values, p.env, function(e)
        if e.event == "error" then out:event("error", e) end
      end)
      if not values.watch then open.register = false end
      local node, err, code = require("bodkin").open(open)
      if not node then return nil, err, code end
      if values.watch then
        p.on_stop = function() node:close() end
        local status
        status, err, code = watch(p, node, values, out)
        node:close()
        return status, err, code
      end
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

-- SPDX-License-Identifier: MIT
-- A client as a process of its own that answers on a Unix socket like a server's: `status` gives its counters,
-- `send TEXT` sends to its peers, `quit` ends it.
-- usage: bodkin run agent.lua SERVER-URL ADMIN-PATH [CODE]

local url, path, code = ...
local bodkin = require "bodkin"
local json = require "bodkin.json"
local task = require "bodkin.task"

bodkin.run(function()
  local env, heard, connected = bodkin.env(), {}, 0
  local node = assert(bodkin.open {
    server = url, app = "app", bind = "127.0.0.1:0",
    on_event = function(e)
      if e.event == "message" and #heard < 100 then heard[#heard + 1] = e.data end
      if e.event == "connected" then connected = connected + 1 end
    end,
  })
  local match = assert(code and node:join(code) or node:host())
  task.await(function(quit)
    local answers = {
      status = function()
        local stats = node:stats()
        return json.encode {
          counters = env.counters:all(),
          info = {
            matches = stats.matches, sessions = stats.sessions, connected = connected,
            heard = table.concat(heard, " "),
          },
        }
      end,
      send = function(text) return json.encode { sent = match:send(text) or false } end,
      quit = function()
        env.timer(0, quit)
        return "{}"
      end,
    }
    assert(require("bodkin.cli.admin").listen(env.loop, path, nil, function(line, reply)
      local verb, rest = line:match "^(%a+) ?(.*)$"
      reply(answers[verb](rest))
    end))
    print(json.encode { code = match.code, id = node.id, public = node.addresses:public_texts() })
  end)
  node:close()
end)

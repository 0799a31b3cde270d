-- SPDX-License-Identifier: MIT
-- The production env, over loopback. Real time, a few ms of it.
local core = require "bodkin.core"
local envs = require "bodkin.env"

-- Loaded into this file's environment, where busted has its words.
local contract = assert(loadfile("spec/contract/env.lua", "t", _ENV))()

describe("env on the real loop", function()
  contract(function()
    local lines = {}
    local env = envs.new { log = core.logger { sink = function(line) table.insert(lines, line) end } }
    return {
      env = env,
      ip = "127.0.0.1",
      name = "localhost",
      lines = function() return lines end,
      close = function() end,
      wait = function(fn, ms)
        local limit
        local late = env.timer(ms, function()
          limit = true
          env.stop()
        end)
        local function poll()
          if fn() then env.stop() end
        end
        while not fn() and not limit do
          local again
          again = env.timer(0.5, function()
            poll()
            again:again(0.5)
          end)
          env.run()
          again:cancel()
        end
        late:cancel()
        return fn()
      end,
    }
  end)

  it("leaves a loop that it was given open", function()
    local loop = core.loop {}
    local env = envs.new { loop = loop }
    env.timer(1000, function() end)
    env.close()
    local fired
    loop:timer(0, function()
      fired = true
      loop:stop()
    end)
    loop:run()
    assert.is_true(fired)
    loop:close()
  end)
end)

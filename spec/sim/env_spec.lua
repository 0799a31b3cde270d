-- SPDX-License-Identifier: MIT
-- The env of a simulated host.
local worlds = require "bodkin.sim.world"

-- Loaded into this file's environment, where busted has its words.
local contract = assert(loadfile("spec/contract/env.lua", "t", _ENV))()

describe("env in the simulator", function()
  contract(function()
    local world = worlds.new { seed = 7, delay_ms = 1 }
    local host = world:host { name = "here", ip = "10.0.0.1" }
    return {
      env = host.env,
      ip = "10.0.0.1",
      name = "here",
      lines = function() return host.log end,
      close = function() world:close() end,
      wait = function(fn, ms) return world:run_until(fn, ms) end,
    }
  end)
end)

-- SPDX-License-Identifier: MIT
-- What bdk_stats shows, by the Lua half of bodkin.h.

local embed = require "bodkin.embed"

describe("the embedded node", function()
  it("counts what it sends and receives, over UDP and TCP", function()
    local half = embed.new({ server = "bodkin://127.0.0.1:9" }, {
      emit = function() end, log = function() end,
    })
    local counters = half.options.env.counters
    local by = { udp_rx = 1, udp_tx = 2, udp_rx_bytes = 3, udp_tx_bytes = 4 }
    for name, n in pairs(by) do
      counters:add(name, n)
      counters:add(name:gsub("udp", "tcp"), 10 * n)
    end
    assert.same({ 11, 22, 33, 44, 0 }, { select(4, half:stats()) })
    half:close()
  end)
end)

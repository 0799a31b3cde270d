-- SPDX-License-Identifier: MIT
-- Bad input over TCP at a real server process built with ASan and UBSan: silence, halves, nonsense, floods.

local support = require "spec.hostile.support"

describe("a server's TCP port", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  it("lives through what nobody well-meaning does, and serves others", function()
    local server = world:serve(support.asan, "address,matching,maintenance,relay", nil, "127.0.0.1:0")
    local p = world:start { "python3", "spec/hostile/tcp.py", server.tcp_port }
    local said = {}
    for name, value in p:expect("served=[^\n]+", 60000):gmatch "([%w_]+)=(%d+)" do said[name] = tonumber(value) end
    assert.equal(0, p:wait(), p:stderr())
    assert.equal(5, said.served)
    assert.equal(5, said.ended)
    assert.equal(1, said.served_after_nonsense)
    assert.equal(256, said.let_in)
    assert.equal(0, said.served_when_full) -- of this one source
    assert.equal(0, said.left)
    assert.equal(1, said.served_after)
    assert.equal(1, said.served_beside_slow)
    local counters = support.status(server)
    assert.is_true(counters.tcp_broken >= 5 + 256)
    assert.is_true(counters.tcp_refused >= 400 - 256)
    assert.equal(0, counters.handler_error)
    assert.is_true(server:rss_kb() < 500000, server:rss_kb()) -- with the sanitizer's share
    assert.equal(0, server:stop(), server:stderr())
  end)
end)

-- SPDX-License-Identifier: MIT
-- Rooms whose host leaves.
local support = require "spec.client.support"

local events = support.events

describe("a room", function()
  local s
  after_each(function() s:close() end)

  local function open(n) return s:open(s:host("h" .. n, "203.0.113." .. n)) end

  -- 1 hosts, the others join, in order. Returns nodes and matches.
  local function room(count, options)
    s = support.new(options)
    local nodes, matches = {}, {}
    for n = 1, count do nodes[n] = open(n) end
    matches[1] = s:run(function() return assert(nodes[1]:host()) end)
    for n = 2, count do
      matches[n] = s:run(function()
        local m = assert(nodes[n]:join(matches[1].code))
        assert(m:wait_connected(20000))
        return m
      end)
    end
    s.world:run(500)
    return nodes, matches
  end

  it("goes on with the member that came first when its host leaves, and all are told", function()
    local nodes, matches = room(3)
    s:run(function() matches[1]:leave() end)
    s.world:run(1000)
    assert.same({ { event = "hosting", code = matches[1].code } }, events(nodes[2], "hosting"))
    for n = 2, 3 do
      assert.same({ { event = "host", match = matches[1].id, host = nodes[2].id } }, events(nodes[n], "host"))
      assert.equal(nodes[2].id, matches[n].host)
    end
    assert.equal(1, s.server.counters:get "room_passed_on")
    -- It can be joined as before, by its code or by who hosts it.
    local d = open(4)
    local m = s:run(function() return assert(d:join(nodes[2].id)) end)
    s.world:run(1000)
    assert.equal(matches[1].id, m.id)
    assert.equal(2, #m:peers())
  end)

  it("is its new host's to open again after a restart of the server", function()
    local nodes, matches = room(3)
    s:run(function() matches[1]:leave() end)
    s.world:run(1000)
    s:kill()
    s.world:run(1000)
    s.server = s:serve(s.hub)
    s.world:run(40000)
    local d = open(4)
    local m = s:run(function() return assert(d:join(matches[1].code)) end)
    assert.equal(matches[2].id, m.id)
    assert.equal(nodes[2].id, s:run(function() return m:wait_connected(5000) and m:peers()[1].id end))
  end)

  it("passes on when its host's registration ends, too, and through loss", function()
    for seed = 1, 5 do
      local nodes, matches = room(3, { loss = 0.2, seed = seed })
      nodes[1]:close()
      s.world:run(70000) -- what it says at its end may be lost
      for n = 2, 3 do assert.equal(nodes[2].id, matches[n].host) end
      if seed < 5 then s:close() end
    end
  end)

  it("of two ends with its host, and nobody is told that it is theirs", function()
    local nodes, matches = room(2)
    s:run(function() matches[1]:leave() end)
    s.world:run(1000)
    assert.is_true(matches[2].closed)
    assert.same({}, events(nodes[2], "hosting"))
  end)
end)

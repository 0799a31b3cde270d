-- SPDX-License-Identifier: MIT
-- Handles opened, used and closed at random, above all from inside callbacks, with errors, dead coroutines and
-- collections between: nothing may be thrown through the loop, crash, or stay open. A failing seed is printed.
local core = require "bodkin.core"
local people = require "spec.people"
local addr = core.addr

local TX = ("t"):rep(12)
local ANY = addr.parse "127.0.0.1:0"
local ask = core.wire.schema {
  name = "ask", type = 70, request = true, fields = { { "tx", "bin", 12, 12 }, { "pad", "pad" } },
}

local function play(seed)
  math.randomseed(seed)
  local random = math.random
  local counters, loop = core.counters(), core.loop {}
  local socks, muxes, routers, timers, sessions = {}, {}, {}, {}, {}
  local home, number, last_reply = {}, 0, nil
  local depth = 0
  local act

  local function pick(list) return list[random(#list)] end

  -- What a callback does: some more of everything, and sometimes an error.
  local function busy()
    for _ = 1, random(3) do act() end
    local fate = random(12)
    if fate == 1 then error "a callback's" end
    if fate == 2 then error {} end
    if fate == 3 then coroutine.yield() end
  end

  local function open_udp()
    number = number + 1
    local sock = assert(loop:udp(ANY, { counters = counters, number = number }))
    socks[#socks + 1], home[sock] = sock, { sock:addr(), number }
    sock:on_packet(busy)
    if #routers > 0 then sock:router(pick(routers)) end
    if #muxes > 0 then sock:mux(pick(muxes)) end
  end

  local function open_mux()
    local mux = core.mux { seed = string.char(random(255)):rep(32), counters = counters, max_sessions = 4 }
    muxes[#muxes + 1] = mux
    mux:drive(loop, function(kind, session)
      mux:send(nil, session, kind)
      busy()
    end)
  end

  local function open_router()
    local router = core.router(counters)
    routers[#routers % 3 + 1] = router
    router:reply_schemas { ask }
    router:on(ask, nil, function(reply)
      last_reply = reply
      reply:proven()
      reply("ask", TX)
      busy()
    end)
  end

  -- Two sockets' muxes are told of each other.
  local function join()
    local a, b, one, two = pick(socks), pick(socks), pick(muxes), pick(muxes)
    pcall(a.mux, a, one)
    pcall(b.mux, b, two)
    local id = string.char(random(8)):rep(16)
    local function add(mux, me, peer, from, to)
      sessions[random(8)] = { mux, mux:add(nil, people.keys({
        match = id, key = id .. id, self = me:rep(16), peer = peer:rep(16), start_in_ms = random(0, 3),
        candidates = { { home[to][1], "srflx", home[from][2] } },
      }, me, peer)) }
    end
    add(one, "a", "b", a, b)
    add(two, "b", "a", b, a)
  end

  local function drop(list)
    local handle = table.remove(list, random(#list))
    if random(4) > 1 then handle:close() end -- else it is garbage, and open
  end

  local acts = {
    open_udp, open_udp, open_mux, open_router, join, join, join,
    function() timers[random(8)] = loop:timer(random(0, 3), busy) end,
    function() timers[random(8)] = loop:timer(random(0, 3), busy) end,
    function() pick(timers):again(random(0, 3)) end,
    function() pick(timers):cancel() end,
    function() pick(socks):send(home[pick(socks)][1], ask:encode(TX)) end,
    function() pick(socks):send(home[pick(socks)][1], ("x"):rep(random(0, 1200))) end,
    function() local s = pick(sessions) s[1]:send(nil, s[2], "x") s[1]:paths(s[2]) end,
    function() local s = pick(sessions) s[1]:leave(nil, s[2]) end,
    function() if #socks > 4 then drop(socks) end end,
    function() if #muxes > 2 then drop(muxes) end end,
    function() collectgarbage(random(8) == 1 and "collect" or "step") end,
    function() coroutine.wrap(busy)() end,
    function() last_reply("ask", TX) end,
    function() pick(routers):input({ send = busy }, ANY, ask:encode(TX)) end,
    function() if random(100) == 1 then loop:close() end end,
  }

  function act()
    if depth >= 4 then return end
    depth = depth + 1
    pcall(acts[random(#acts)]) -- what is closed or not there yet throws, rightly
    depth = depth - 1
  end

  for _ = 1, 20 do act() end
  local turns = 0
  local function turn()
    for _ = 1, 6 do act() end
    turns = turns + 1
    if turns < 60 then pcall(loop.timer, loop, 0, turn) else pcall(loop.stop, loop) end
  end
  pcall(function()
    loop:timer(0, turn)
    if random(2) == 1 then loop:run() else coroutine.wrap(function() loop:run() end)() end
  end)
  loop:close()
  return loop:handles()
end

describe("callbacks that do anything", function()
  local before
  setup(function() before = core.on_error(function() end) end)
  teardown(function() core.on_error(before) end)

  it("break nothing", function()
    for seed = 1, 12 do assert.equal(0, play(seed), "seed " .. seed) end
    collectgarbage()
  end)
end)

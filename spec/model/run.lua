-- SPDX-License-Identifier: MIT
-- Runs a scenario: two muxes by their raw verbs, on the simulated network, watched at every event and held against
-- the theory. Returns { violations = { text, ... }, verdict =, outcome =, digest = integer, packets =, lines = trace }.
local core = require "bodkin.core"
local nats = require "bodkin.sim.nat"
local nets = require "bodkin.sim.net"
local people = require "spec.people"
local random = require "bodkin.sim.random"
local traces = require "bodkin.sim.trace"

local clocks = dofile "spec/model/clock.lua"
local invariants = dofile "spec/model/invariants.lua"
local oracle = dofile "spec/model/oracle.lua"

local addr = core.addr

local M = {}

local BEGIN_US = 1000000
local ARMED_US = BEGIN_US + 1000000 -- both know their addresses by then; starts count from here
local LONG_US = 200000000 -- by then everything has come to an end

local function at(text)
  return assert(addr.parse(text, 0))
end

local SERVER = at "198.51.100.10:4433"
local ATTACKER, VICTIMS = at "198.51.100.60", { at "198.51.100.66:1", at "198.51.100.66:2", at "198.51.100.67:9" }
local NOBODY = at "198.51.100.77"
local ELSEWHERE = { a = at "192.0.2.50", b = at "192.0.2.60" }
local FULL = { EI = "endpoint_independent", AD = "address_dependent", APD = "address_and_port_dependent" }
local FRAME, SELECT, SELECT_ACK, CLOSE = 0xc1, 1, 2, 5 -- first byte, and kinds
local counters = core.counters()

-- --- the world

local function model(run, box, ip, name)
  local ips = { at(ip) }
  if box.ips then ips[2] = at((ip:gsub("%d+$", function(n) return "1" .. n end))) end
  return nats.new {
    kind = box.kind, mapping = FULL[box.mapping], filtering = FULL[box.filtering], ports = box.ports, ips = ips,
    pooling = box.pooling, timeout_ms = box.timeout_ms, refresh_inbound = box.refresh_inbound or nil,
    hairpin = box.hairpin, random = random.new(run.s.seed, name),
  }
end

local function both_ways(value, s, other)
  local row_a, row_b = { B = value, b = value }, { A = value, a = value }
  local t = { A = row_a, a = row_a, B = row_b, b = row_b, default = other }
  if value == "delay" then
    row_a.B, row_a.b, row_b.A, row_b.a = s.delay_ab, s.delay_ab, s.delay_ba, s.delay_ba
  end
  return t
end

local function network_of(s)
  return {
    delay_ms = both_ways("delay", s, 1), loss = both_ways(s.loss, s, 0), jitter_ms = both_ways(s.jitter_ms, s, 0),
    duplicate = both_ways(s.duplicate, s, 0), reorder = both_ways(s.reorder, s, 0), reorder_ms = s.reorder_ms,
    attack = s.mitm and function(from, to) return from ~= "S" and to ~= "S" and s.mitm or 0 end,
  }
end

-- Inside a NAT that both are behind: directly as outside, by way of the NAT likewise (two crossings, two losses).
local function shared_network(s)
  return {
    delay_ms = { A = { B = s.delay_ab }, a = { b = s.delay_ab }, B = { A = s.delay_ba }, b = { a = s.delay_ba },
      default = math.min(s.delay_ab, s.delay_ba) / 2 + 1 },
    loss = s.loss / 2, jitter_ms = s.jitter_ms, duplicate = s.duplicate, reorder = s.reorder, reorder_ms = s.reorder_ms,
    isolated = s.together.isolated,
  }
end

local NO_NETWORK = {}

local function place(run, side, shared)
  local s, net, n, boxes = run.s, run.net, side.number, side.plan.boxes
  local behind, public = shared, not shared
  for i = #boxes - (shared and 1 or 0), 1, -1 do
    local name = i == #boxes and side.upper or side.name .. i
    if s.together and s.together.at == "carrier" then name = side.upper end
    local ip = (public and "203.0.113.%d" or "100.64.0.%d"):format(n)
    local m = model(run, boxes[i], ip, name)
    if m.ips then public = false end
    behind = net:box(name, m, NO_NETWORK, behind)
    side.outermost = side.outermost or behind
  end
  local ip = public and "192.0.2.%d" or "192.168.1.%d"
  side.ip = at(ip:format(s.same_host_ip and 2 or n + 1))
  side.node = net:host(behind and side.name or side.upper, { side.ip }, behind)
end

local function new_side(run, name, number)
  local s = run.s
  local controls = (name == "a") == s.a_controls
  return {
    name = name, upper = name:upper(), number = number, plan = s[name], texts = {}, said = 0, genuine = {},
    controls = controls, select_n = 0, selects = {}, -- the frames of each selection -> its number
    accepted_n = 0, -- of the selections this side acknowledged
    id = (controls and "\1" or "\2"):rep(16), peer_id = (controls and "\2" or "\1"):rep(16),
    start_us = ARMED_US + s[name].start_ms * 1000,
    mux = core.mux { seed = string.pack("<i8i8i8i8", s.seed, number, 0, 0), counters = counters, max_sessions = 1 },
  }
end

-- --- driving a mux

local function fold(run, x)
  run.digest = (run.digest ~ x) * 0x100000001b3
end

local drain

local function forge(run, side, to, bytes)
  local r = run.attacker_random
  if run.forged >= 60 or r:float() > 0.2 then return end
  run.forged = run.forged + 1
  local how = (r:integer() >> 1) % 4
  local src, dst = side.public, to
  if how == 0 then
    local i = 1 + (r:integer() >> 1) % #bytes
    bytes = bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ (1 << ((r:integer() >> 1) % 8))) .. bytes:sub(i + 1)
  elseif how == 1 then
    src = VICTIMS[1 + (r:integer() >> 1) % #VICTIMS]
  elseif how == 2 then
    src, dst = to, side.public
  end
  run.clock:timer(r:float() * 30, function() run.net:inject(run.attacker, src, dst, bytes) end)
end

local function send(run, side, to, bytes, ttl)
  side.watch:send(run.clock.us, to, bytes)
  run.packets = run.packets + 1
  fold(run, run.clock.us)
  fold(run, string.unpack("<i8", bytes, #bytes - 7))
  if run.attacker then
    side.genuine[bytes] = true
    if run.attacker_random then forge(run, side, to, bytes) end
  end
  if bytes:byte(1) == FRAME then
    local kind = bytes:byte(6)
    if kind == SELECT then side.selects[bytes] = side.select_n end
    if kind == SELECT_ACK and side.select_heard then
      side.accepted_n = math.max(side.accepted_n, side.select_heard)
    end
  end
  side.sock:send(to, bytes, ttl)
end

local function say(run, side)
  side.said = side.said + 1
  local text = side.name .. side.said
  side.texts[text] = true
  return side.mux:send(run.clock.us, side.session, text)
end

local function event(run, side, kind, x)
  side.watch:event(kind, x, side.peer.texts)
  fold(run, #kind)
  if run.lines then
    run.lines[#run.lines + 1] = ("%d %s %s %s"):format(run.clock.us, side.name, kind,
      type(x) == "table" and addr.format(x.remote) or x or "")
  end
  side[kind] = x
  if kind == "path" and side.controls then side.select_n = side.select_n + 1 end
  if kind == "message" then
    side.message_from = side.current_from
    side.heard_n = math.max(side.heard_n or 0, math.tointeger(x:sub(2)))
  elseif kind == "connected" and run.s.early_data then
    for _ = 1, 20 do say(run, side) end
  end
end

local function fire(run, side)
  return function()
    if side.armed ~= run.clock.us then return end -- another, sooner one took its place
    side.armed = nil
    if side.asleep then return end
    local due = side.mux:deadline()
    if not due then return end
    if due <= run.clock.us then
      side.watch:tick(run.clock.us)
      side.mux:tick(run.clock.us)
    end
    drain(run, side)
  end
end

function drain(run, side)
  local mux = side.mux
  local kind, x, y, z, ttl = mux:next()
  while kind do
    if kind == "send" then send(run, side, y, z, ttl) else event(run, side, kind, y) end
    kind, x, y, z, ttl = mux:next()
  end
  local _ = x
  local due = mux:deadline()
  side.watch:deadline(run.clock.us, due)
  if due and (not side.armed or due < side.armed) then
    side.armed = math.max(due, run.clock.us)
    run.clock:at(side.armed, side.fire)
  end
end

local function selected_path(side)
  for _, path in ipairs(side.mux:paths(side.session) or {}) do
    if path.selected then return path end
  end
end

-- The mux gets a datagram; if that is an older selection than one it accepted, it must not follow.
local function feed(run, side, from, bytes)
  local n = side.peer.selects[bytes]
  local stale = n and n < side.accepted_n and selected_path(side)
  side.select_heard = n
  side.mux:input(run.clock.us, 1, from, nil, bytes)
  drain(run, side)
  side.select_heard = nil
  if not stale or stale.remote == from then return end
  local now = selected_path(side)
  if now and now.remote == from then run.report(side.name .. ": an old SELECT moved the selection") end
end

local function input(run, side)
  return function(from, bytes)
    if from == SERVER then
      side.public = bytes
    elseif side.session then
      side.current_from = from
      local genuine = not run.attacker or side.peer.genuine[bytes] or false
      side.watch:input(from, bytes, genuine)
      if genuine and bytes:byte(1) == FRAME and bytes:byte(6) == CLOSE then side.told_to_close = true end
      feed(run, side, from, bytes)
    end
  end
end

local function candidates(run, side)
  local s, peer = run.s, side.peer
  local list = { { peer.public, "srflx", 1 } }
  if addr.same_ip(peer.public, side.public) then list[2] = { peer.node.ips[1]:sub(1, -3) .. peer.port, "host", 1 } end
  for i = 1, s.bogus and s.bogus.n or 0 do
    local ip = s.bogus.one_ip and NOBODY or at("198.51.100." .. 77 + i)
    list[#list + 1] = { addr.with_port(ip, 1000 + i), "srflx", 1 }
  end
  return list
end

local function start(run, side)
  return function()
    local list = candidates(run, side)
    local listed = {}
    for _, c in ipairs(list) do listed[c[1]] = true end
    side.watch = invariants.new(function(text) run.report(side.name .. ": " .. text) end, listed, run.clock.us)
    side.session = assert(side.mux:add(run.clock.us, people.keys({
      match = string.pack("<i8i8", run.s.seed, 1), key = string.pack("<i8i8i8i8", run.s.seed, 2, 3, 4),
      self = side.id, peer = side.peer_id, candidates = list,
    }, side.name, side.peer.name)))
    drain(run, side)
  end
end

-- Keeps the mapping to the server, as a client would.
local function maintain(run, side)
  local function again()
    if run.over then return end
    side.sock:send(SERVER, "maintain")
    run.clock:timer(side.public and 7000 or 50, again)
  end
  again()
end

local function build(s, options)
  local run = { s = s, violations = {}, digest = s.seed, packets = 0, forged = 0, clock = clocks.new(BEGIN_US) }
  function run.report(text)
    run.violations[#run.violations + 1] = ("%d %s"):format(run.clock.us, text)
  end
  run.lines = options.trace and {} or nil
  local network = network_of(s)
  network.loop, network.seed = run.clock, s.seed
  network.record = run.lines and traces.recorder(run.clock, run.lines) or nil
  run.net = nets.new(network)
  local server = run.net:host("S", { SERVER })
  local sock
  sock = assert(run.net:bind(server, SERVER, function(from) sock:send(from, from) end))
  if s.mitm then
    run.attacker = true
  elseif s.attack then
    run.attacker, run.attacker_random = run.net:host("E", { ATTACKER }), random.new(s.seed, "attacker")
  end
  run.a, run.b = new_side(run, "a", 1), new_side(run, "b", 2)
  if run.lines then -- what each machine saw and did, as `bodkin replay` reads it
    run.machines = { a = {}, b = {} }
    for name, lines in pairs(run.machines) do
      run[name].mux:trace(function(line) lines[#lines + 1] = line end)
    end
  end
  local shared
  if s.together then
    local boxes = s.a.boxes
    shared = run.net:box("C", model(run, boxes[#boxes], "203.0.113.9", "C"), shared_network(s))
  end
  for _, side in ipairs { run.a, run.b } do
    side.peer = side == run.a and run.b or run.a
    place(run, side, shared)
    side.fire = fire(run, side)
    side.port = string.pack(">I2", side.plan.port)
    side.sock = assert(run.net:bind(side.node, "\0\0\0\0" .. side.port, input(run, side)))
    maintain(run, side)
    run.clock:at(side.start_us, start(run, side))
  end
  return run
end

-- --- the course of a run

local function run_until(run, done, limit_us)
  local clock = run.clock
  while not done() do
    if #run.violations > 0 or not clock:step(limit_us) then return done() end
  end
  return true
end

local function run_for(run, ms)
  local limit_us = run.clock.us + ms * 1000 // 1
  run_until(run, function() return false end, math.tointeger(limit_us))
end

local function both_closed(run)
  return run.a.closed and run.b.closed
end

local function selected(side)
  local path = selected_path(side)
  return path and path.state == "valid" and path.remote or nil
end

-- Each hears the other from where it would send: one pair of addresses.
local function same_pair(run)
  local a, b = run.a, run.b
  return a.message_from and b.message_from and a.message_from == selected(a) and b.message_from == selected(b)
end

-- Both talk until what each says now is heard, by one pair; false when they do not get there in time.
local function talk(run, limit_us, every_ms)
  local a, b = run.a, run.b
  local mark_a, mark_b = a.said, b.said
  while run.clock.us < limit_us and #run.violations == 0 do
    for _, side in ipairs { a, b } do
      if not side.closed and not side.asleep then
        say(run, side)
        drain(run, side)
      end
    end
    run_for(run, every_ms)
    if both_closed(run) then return false end
    if (b.heard_n or 0) > mark_a and (a.heard_n or 0) > mark_b and same_pair(run) then return true end
  end
  return false
end

local function happens(run, what, side)
  if run.lines then run.lines[#run.lines + 1] = ("%d %s %s"):format(run.clock.us, side.name, what.what) end
  if what.what == "roam" then
    run.net:move(side.node, { ELSEWHERE[side.name] })
  elseif what.what == "sleep" then
    side.asleep = true
    run.net:sleep(side.node, true)
    run_for(run, what.ms)
    run.net:sleep(side.node, false)
    side.asleep = false
    if not side.armed then
      side.armed = run.clock.us
      run.clock:at(run.clock.us, side.fire)
    end
  elseif side.outermost then
    side.outermost.model[what.what](side.outermost.model)
  end
end

local function mid_session(run)
  local what = run.s.event
  local x = run[what.side]
  local verdict = oracle.after(what, x.plan, x.peer.plan)
  if run.verdict ~= "yes" or verdict == "no" and run.attacker then verdict = "may" end
  happens(run, what, x)
  local again = talk(run, run.clock.us + LONG_US, 1000)
  if again and verdict == "no" then run.report("goes on after " .. what.what .. ", which theory excludes") end
  if not again and verdict == "yes" then run.report("does not go on after " .. what.what) end
  if not again and not both_closed(run) then run.report("after " .. what.what .. ": neither goes on nor closes") end
  return again
end

local function in_flight_ms(s)
  return math.max(s.delay_ab, s.delay_ba) + s.jitter_ms + s.reorder_ms
end

local function leave(run)
  local side = run[run.s.leaver]
  side.mux:leave(run.clock.us, side.session)
  drain(run, side)
  if side.closed ~= "closed" then run.report("left, but closed with " .. tostring(side.closed)) end
  run_for(run, 2 * in_flight_ms(run.s) + 1000)
  if side.peer.told_to_close and side.peer.closed ~= "left" then run.report("the peer left, and it was not told") end
end

local function connected(run)
  run.outcome = "connected"
  run_for(run, 2 * in_flight_ms(run.s) + 100) -- selections settle
  -- A path that only an attacker's copies made valid holds until its consent runs out.
  local patience_us = run.verdict == "yes" and not run.attacker and 10000000 or LONG_US
  if not talk(run, run.clock.us + patience_us, 100 + in_flight_ms(run.s)) then
    local kept_apart = (run.s.mitm or 0) > 0.3 -- by who does something to most of what they send
    if run.verdict == "yes" or not (both_closed(run) or kept_apart) then
      run.report("at rest, the two sides are not on the same pair")
    end
    return
  end
  if not run.s.event or mid_session(run) then leave(run) end
end

local function verdict_of(s)
  local extra = s.jitter_ms + (s.reorder > 0 and s.reorder_ms or 0)
  return oracle.verdict(s.a, s.b, {
    min_ms = { ab = s.delay_ab, ba = s.delay_ba },
    max_ms = { ab = s.delay_ab + extra, ba = s.delay_ba + extra },
    lossless = s.loss == 0, together = s.together,
  })
end

-- options: trace (bool).
function M.run(s, options)
  local run = build(s, options or {})
  local a, b = run.a, run.b
  run.verdict = verdict_of(s)
  -- Who repeats packets from other addresses than they left from may be a relay, for a while, where theory says no;
  -- and the first unknown input, where that makes the race.
  -- And who stands in the way may drop or spoil what he likes.
  if s.mitm or run.attacker and (run.verdict == "no" or oracle.side(s.a).race or oracle.side(s.b).race) then
    run.verdict = "may"
  end
  run_until(run, function() return a.session and b.session end, ARMED_US + 1000000)
  local function both_paths() return a.path and b.path end
  local sure = run.verdict == "yes"
  local limit_us = sure and math.max(a.start_us, b.start_us) + 10000000 or LONG_US
  run_until(run, function() return both_paths() or both_closed(run) end, limit_us)
  if both_paths() and run.verdict ~= "no" then
    connected(run)
  else
    run.outcome = "none"
    if sure then run.report("does not connect, though it can") end
    if run.verdict == "no" and (a.path or b.path) then run.report("claims a path that theory excludes") end
    if not sure and not both_closed(run) then run.report("neither connected nor closed") end
  end
  run.over = true
  a.mux:close()
  b.mux:close()
  return run
end

return M

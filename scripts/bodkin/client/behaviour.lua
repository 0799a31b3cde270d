-- SPDX-License-Identifier: MIT
-- What the NAT in front of this host does, in the words of RFC 4787, found out in the spirit of RFC 5780 with a server
-- that is at several addresses: two IPs of two ports each tell everything, two ports the dependence on ports alone;
-- what cannot be told stays open. Three sockets of its own: the quiet one sends to the server's first address alone,
-- for whatever is sent opens a filter; the loud one sends to all; between it and the third, hairpinning is tried.

local core = require "bodkin.core"
local message = require "bodkin.message"
local task = require "bodkin.task"

local addr = core.addr

local M = {}

local REPEATS_MS = { 0, 200, 600, 1100, 1600, 2100, 2600 } -- of a question, until it is answered
local UNASKED_MS = { 0, 150, 300, 450 }  -- at these, the server is told to send from elsewhere
local PATIENCE_MS = 600                  -- and is that not here so long after the last, and two round trips: filtered
local OTHERS_MAX = 3                     -- addresses that a server may have us ask, besides its own
local HAIRPIN_MS = { 0, 100, 200 }
local LATE_MS = { 0, 100, 200 }          -- copies of a request answered after a silence, which begins with the last
local RIPE_MS = 2500
local STEPS_S = { 15, 25, 35, 50, 70, 100, 130 } -- of silence: usual time-outs are 30, 60, 120 s
local STEP_MAX = 8                       -- between ports of a NAT that counts, with other hosts behind it

-- --- what was seen -> what it means

local function count(set)
  local n = 0
  for _ in pairs(set) do n = n + 1 end
  return n
end

-- The mappings that explain `seen`, a list of { to =, mapped = } of one socket, as a set of "EI", "AD", "APD".
function M.mapping(seen)
  local of_ip, mapped, ports = {}, {}, 0
  for _, s in ipairs(seen) do
    local ip = s.to:sub(1, -3)
    of_ip[ip] = of_ip[ip] or { n = 0, mapped = {} }
    of_ip[ip].n, of_ip[ip].mapped[s.mapped], mapped[s.mapped] = of_ip[ip].n + 1, true, true
    ports = math.max(ports, of_ip[ip].n)
  end
  for _, group in pairs(of_ip) do
    if count(group.mapped) > 1 then return { APD = true } end
  end
  if count(mapped) == 1 then
    if count(of_ip) > 1 then return { EI = true } end
    return ports > 1 and { EI = true, AD = true } or { EI = true, AD = true, APD = true }
  end
  return ports > 1 and { AD = true } or { AD = true, APD = true }
end

-- The filters that explain what came unasked: from another IP, from another port; nil: that was not tried.
function M.filtering(other_ip, other_port)
  if other_ip then return { EI = true } end
  if other_port == nil and other_ip == nil then return { EI = true, AD = true, APD = true } end
  if other_port == nil then return { AD = true, APD = true } end
  if not other_port then return { APD = true } end
  return other_ip == nil and { EI = true, AD = true } or { AD = true }
end

-- How outer ports are chosen: of `first` mappings, { inner port, outer port } of each socket, and `later` outer ports.
function M.ports(first, later)
  local kept, list, have = true, {}, {}
  local function add(port)
    if not have[port] then have[port], list[#list + 1] = true, port end
  end
  for _, pair in ipairs(first) do
    kept = kept and pair[1] == pair[2]
    add(pair[2])
  end
  if kept then return "preserved" end
  for _, port in ipairs(later) do add(port) end
  if #list < 3 then return "unknown" end
  for i = 2, #list do
    local step = list[i] - list[i - 1]
    if step < 1 or step > STEP_MAX then return "random" end
  end
  return "sequential"
end

-- --- asking

local Probe = {}
Probe.__index = Probe

local function open(env, server, bind)
  local at = bind or addr.parse(addr.family(server) == 4 and "0.0.0.0" or "::", 0)
  local sock, err, code = env.udp(at)
  if not sock then return nil, ("cannot use %s: %s"):format(addr.format(at), err), code end
  local self = setmetatable({ env = env, sock = sock, waiting = {} }, Probe)
  local router = core.router(env.counters)
  local function answered(tx, ...)
    local fn = self.waiting[tx]
    if fn then fn(...) else env.counters:add "drop_reply" end
  end
  router:on(message.address_report, nil, function(_, from, tx, xaddr, proof)
    answered(tx, from, addr.mask(xaddr, tx), proof)
  end)
  router:on(message.probe_report, nil, function(_, from, tx, via, others) answered(tx, from, via, others) end)
  router:stun(nil, function(from, tx, mapped) answered(tx, from, mapped) end)
  sock:router(router)
  return self
end

function Probe:close()
  self.waiting = {}
  self.sock:close()
end

Probe.__close = Probe.close

-- In a task: sends build(tx) to `to` at each of `times_ms`, and returns what fn(from, …) makes of the first answer that
-- it takes; nil after `last_ms`.
function Probe:ask(to, build, times_ms, last_ms, fn)
  local tx = self.env.random(12)
  return task.await(function(resume)
    local timers = {}
    local function over(...)
      self.waiting[tx] = nil
      for _, timer in ipairs(timers) do timer:cancel() end
      resume(...)
    end
    self.waiting[tx] = function(from, ...)
      local result = table.pack(fn(from, ...))
      if result[1] ~= nil then over(table.unpack(result, 1, result.n)) end
    end
    for _, ms in ipairs(times_ms) do
      timers[#timers + 1] = self.env.timer(ms, function() self.sock:send(to, build(tx)) end)
    end
    timers[#timers + 1] = self.env.timer(last_ms, function() over() end)
    return function()
      self.waiting[tx] = nil
      for _, timer in ipairs(timers) do timer:cancel() end
    end
  end)
end

-- In a task: our address as `to` sees it and its proof, or nil. place: { addr =, stun = }.
function Probe:mapped(place, timeout_ms)
  local to = place.addr
  return self:ask(to, place.stun and core.stun.request or function(tx) return message.address_request:encode(tx) end,
    REPEATS_MS, timeout_ms, function(from, public, proof)
      if from == to and type(public) == "string" and #public == #to then return public, proof end
    end)
end

-- In a task: the server's other addresses, or nil where it says nothing of them.
function Probe:others(server, proof)
  return self:ask(server, function(tx) return message.probe_request:encode(tx, proof, 0, 0) end, REPEATS_MS, 3000,
    function(from, via, others)
      if from == server and via == 0 and type(others) == "table" then return others end
    end)
end

-- In a task: whether an answer comes from its address number `via`, where this socket never sent anything.
function Probe:lets_in(server, proof, via, other, rtt_ms)
  local last_ms = UNASKED_MS[#UNASKED_MS] + PATIENCE_MS + 2 * rtt_ms
  return self:ask(server, function(tx) return message.probe_request:encode(tx, proof, via, 0) end, UNASKED_MS, last_ms,
    function(from, said) return from == other and said == via or nil end) or false
end

-- In a task: each function of the list as a task of its own; when all are done, what they returned.
local function together(list)
  local tasks, results = {}, {}
  for i, fn in ipairs(list) do tasks[i] = task.spawn(fn) end
  local _ <close> = setmetatable({}, { __close = function() for _, t in ipairs(tasks) do t:cancel() end end })
  for i, t in ipairs(tasks) do results[i] = select(2, t:join()) end
  return results
end

-- Which of a server's addresses to ask by: { via =, addr = }, or nil: one of another port, one of another IP. A public
-- server has us send to public addresses alone, so that it cannot point us at the inside of a network.
local function choose(server, others)
  local port, ip, chosen = nil, nil, {}
  for via, a in ipairs(others) do
    if #a == #server and a ~= server and addr.port(a) > 0 and addr.class(a) == addr.class(server)
      and #chosen < OTHERS_MAX then
      local one = { via = via, addr = a }
      chosen[#chosen + 1] = one
      if addr.same_ip(a, server) then port = port or one else ip = ip or one end
    end
  end
  return chosen, port, ip
end

-- --- all of it

local function is_own(env, sock, public)
  for _, i in ipairs(env.interfaces()) do
    if addr.same_ip(i.addr, public) then return addr.port(public) == addr.port(sock:addr()) end
  end
  return false
end

local function hairpin(one, other, at_one, at_other)
  local function to(probe, from, target)
    return function()
      local heard = false
      local tx = from.env.random(12)
      probe.waiting[tx] = function() heard = true end
      local bytes = message.probe_report:encode(tx, 0, {})
      for i, ms in ipairs(HAIRPIN_MS) do
        task.sleep(from.env, ms - (HAIRPIN_MS[i - 1] or 0))
        from.sock:send(target, bytes)
      end
      task.sleep(from.env, 200)
      probe.waiting[tx] = nil
      return heard
    end
  end
  local heard = together { to(one, other, at_one), to(other, one, at_other) }
  return heard[1] or heard[2]
end

-- In a task: what the quiet socket sees: { mapped =, others =, port =, ip = (see choose), from_ip =, from_port =
-- whether what came unasked from there got in, nil: not tried }, or nil, message, code.
local function listen(quiet, server, timeout_ms)
  local began = quiet.env.now()
  local mapped, proof = quiet:mapped({ addr = server }, timeout_ms)
  if not mapped then
    return nil, ("no answer from %s after %g s: is the server running, and UDP %d open there?"):format(
      addr.format(server), timeout_ms / 1000, addr.port(server)), "timeout"
  end
  local rtt_ms = (quiet.env.now() - began) / 1000
  local others, port, ip = choose(server, quiet:others(server, proof) or {})
  local function came(one)
    return function() return one and quiet:lets_in(server, proof, one.via, one.addr, rtt_ms) end
  end
  local heard = together { came(ip), came(port) }
  if others[1] and not quiet:others(server, proof) then -- silence means something while the server is heard
    heard = { heard[1] or nil, heard[2] or nil }
  end
  return { mapped = mapped, others = others, port = port, ip = ip, from_ip = heard[1],
    from_port = heard[2] }
end

-- Toward an address whose packets were kept out, the mapping of the quiet socket is still what it was, unless they made
-- the NAT move it. nil: that cannot be told.
local function moved(quiet, at_quiet, result)
  if not result.nat then return false end
  local kept_out = at_quiet.ip and at_quiet.from_ip == false and at_quiet.ip
    or at_quiet.port and at_quiet.from_port == false and at_quiet.port
  if not kept_out then
    if at_quiet.from_ip or at_quiet.from_port then return false end
    return nil
  end
  if not result.mapping.EI or result.mapping.APD or result.mapping.AD and kept_out ~= at_quiet.port then return nil end
  local again = quiet:mapped({ addr = kept_out.addr }, 3000)
  if again then return again ~= at_quiet.mapped end
end

-- Asks by the loud socket at all places; adds to the result what was seen. Returns the outer ports in order.
local function ask_around(loud, at_loud, places, result)
  local seen, ports = { { to = at_loud.to, mapped = at_loud.mapped } }, {}
  for _, place in ipairs(places) do
    local mapped = loud:mapped(place, 3000)
    if mapped then
      seen[#seen + 1] = { to = place.addr, mapped = mapped }
      ports[#ports + 1] = addr.port(mapped)
      result.asked[#result.asked + 1] = addr.format(place.addr)
      if addr.format(mapped) ~= result.public[#result.public] then
        result.public[#result.public + 1] = addr.format(mapped)
      end
    end
  end
  result.mapping = result.nat and M.mapping(seen) or { EI = true }
  return ports
end

-- In a task: what stands between this host and `server` (packed). options: bind (packed); more = other places that tell
-- an address, { addr =, stun = }, …; timeout_ms (5000) for the first answer. Returns
--   { server =, public = { text, … }, nat = bool, mapping =, filtering = (sets, as above), ports = "preserved",
--     "sequential", "random" or "unknown", hairpin = bool or nil, race = bool or nil (what comes unasked moves the
--     mapping), asked = { text, … }: addresses that answered }
-- where nil is "can't tell"; or nil, message, code.
function M.discover(env, server, options)
  options = options or {}
  local any_port = options.bind and addr.with_port(options.bind, 0)
  local quiet, loud, third, err, code
  quiet, err, code = open(env, server, options.bind)
  if not quiet then return nil, err, code end
  local _ <close> = quiet
  loud, err, code = open(env, server, any_port)
  if not loud then return nil, err, code end
  local _ <close> = loud
  third, err, code = open(env, server, any_port)
  if not third then return nil, err, code end
  local _ <close> = third

  local at_quiet
  at_quiet, err, code = listen(quiet, server, options.timeout_ms or 5000)
  if not at_quiet then return nil, err, code end
  local at_loud = loud:mapped({ addr = server }, 5000)
  local at_third = at_loud and third:mapped({ addr = server }, 5000)
  if not at_third then return nil, ("%s stopped answering"):format(addr.format(server)), "timeout" end
  local result = { server = addr.format(server), asked = { addr.format(server) }, public = { addr.format(at_loud) },
    nat = not is_own(env, quiet.sock, at_quiet.mapped), filtering = M.filtering(at_quiet.from_ip, at_quiet.from_port) }

  local places = table.move(at_quiet.others, 1, #at_quiet.others, 1, {})
  for _, one in ipairs(options.more or {}) do
    if #one.addr == #server and one.addr ~= server then places[#places + 1] = one end
  end
  local later = ask_around(loud, { to = server, mapped = at_loud }, places, result)
  local function pair(probe, mapped) return { addr.port(probe.sock:addr()), addr.port(mapped) } end
  result.ports = M.ports({ pair(quiet, at_quiet.mapped), pair(loud, at_loud), pair(third, at_third) }, later)
  result.race = moved(quiet, at_quiet, result)
  -- As in choose: a public server has us send to no inside of a network, whatever it says of where it sees us.
  local class = addr.class(server)
  local alike = addr.class(at_loud) == class and addr.class(at_third) == class
  if result.nat and alike and count(result.mapping) < 3 and not result.mapping.APD then
    result.hairpin = hairpin(loud, third, at_loud, at_third)
    if not result.hairpin and not result.mapping.EI then result.hairpin = nil end
  end
  return result
end

-- In a task: who reaches the socket bound to `bind` from outside: its filtering, as a set; or nil, message, code.
function M.reachable(env, server, bind, timeout_ms)
  local quiet, err, code = open(env, server, bind)
  if not quiet then return nil, err, code end
  local _ <close> = quiet
  local seen
  seen, err, code = listen(quiet, server, timeout_ms)
  if not seen then return nil, err, code end
  return M.filtering(seen.from_ip, seen.from_port)
end

-- In a task: whether a mapping of a socket of its own outlives a silence: true or false, nil where it could not be
-- tried; ripe: after packets both ways for more than two seconds, since many a NAT (Linux) then keeps it for longer.
-- Silence is also what a server says that has too much to do. options: bind, ripe.
function M.outlives(env, server, silence_s, options)
  local probe = open(env, server, options.bind and addr.with_port(options.bind, 0))
  if not probe then return nil end
  local _ <close> = probe
  local mapped, proof = probe:mapped({ addr = server }, 5000)
  if mapped and options.ripe then
    task.sleep(env, RIPE_MS)
    mapped, proof = probe:mapped({ addr = server }, 5000)
  end
  if not mapped then return nil end
  return probe:ask(server, function(tx) return message.probe_request:encode(tx, proof, 0, silence_s) end, LATE_MS,
    silence_s * 1000 + LATE_MS[#LATE_MS] + 2000, function(from) return from == server or nil end) or false
end

-- In a task: how long a mapping lives in which the server has answered: { at_least_s = the longest silence after which
-- its answer came in, 0: none did; below_s = the shortest above that after which none did, or nil }, or nil, message,
-- code. It takes as long as the longest step, and a socket for each. options: bind, steps_s.
function M.lifetime(env, server, options)
  options = options or {}
  local list, steps, result = {}, options.steps_s or STEPS_S, { at_least_s = 0 }
  for i, silence_s in ipairs(steps) do
    list[i] = function() return M.outlives(env, server, silence_s, { bind = options.bind }) end
  end
  local heard = together(list)
  for i, silence_s in ipairs(steps) do
    if heard[i] then result.at_least_s, result.below_s = silence_s, nil end
    if heard[i] == false then result.below_s = result.below_s or silence_s end
  end
  if result.at_least_s == 0 and not result.below_s then
    return nil, ("%s stopped answering"):format(addr.format(server)), "timeout"
  end
  return result
end

return M

-- SPDX-License-Identifier: MIT
-- One program's run on a simulated host: its env, the driver contract that scripts/bodkin/env.lua offers over
-- the real one, and everything it has open. Made by sim/world.lua.

local core = require "bodkin.core"
local tcps = require "bodkin.sim.tcp"

local addr = core.addr

local M = {}

local EPOCH_S = 1767225600 -- 2026-01-01, when each world begins

-- Where, outside this file, a handle is being made: for the report of leaks.
local function caller()
  for level = 3, 8 do
    local info = debug.getinfo(level, "Sl")
    if not info then break end
    if info.currentline > 0 and not info.source:find("sim/process.lua", 1, true) then
      return ("%s:%d"):format(info.short_src, info.currentline)
    end
  end
  return "?"
end

local function open(proc, handle, what)
  proc.count = proc.count + 1
  handle.proc = proc
  proc.open[handle] = { n = proc.count, text = ("%s made at %s"):format(what, caller()) }
  return handle
end

local function check(handle)
  if handle.closed then error("closed " .. handle.kind, 3) end
end

-- timer: cancel(), again(ms); one shot. "Open" while it is set.

local Timer = {}
Timer.__index = Timer

function Timer:cancel()
  self.parked = nil
  self.raw:cancel()
  self.proc.open[self] = nil
end

function Timer:again(ms)
  self.parked = nil
  self.raw:again(ms)
  self.proc.open[self] = self.mark
end

Timer.close = Timer.cancel

local function new_timer(proc, ms, fn)
  local timer = open(proc, setmetatable({}, Timer), "timer")
  timer.mark = proc.open[timer]
  local function fire()
    proc.open[timer] = nil
    fn()
  end
  timer.raw = proc.loop:timer(ms, function()
    if not proc.host.asleep then return fire() end
    local parked = {}
    timer.parked = parked
    table.insert(proc.host.asleep, function()
      if timer.parked == parked then fire() end
    end)
  end)
  return timer
end

-- udp, and tcp, its like: a datagram is offered to the mux, then to the router, then to on_packet's function.

local Udp = { kind = "socket" }
Udp.__index = Udp
Udp.__name = "bodkin.sim.udp"

local function input(sock, from, bytes, to)
  local counters = sock.counters
  if sock.over_tcp then
    counters:add "tcp_rx"
    counters:add("tcp_rx_bytes", #bytes)
  else
    counters:add "udp_rx"
    counters:add("udp_rx_bytes", #bytes)
  end
  if #bytes > sock.raw.max_bytes then return counters:add "udp_rx_truncated" end
  if sock.to_mux and sock.to_mux:input(sock, from, to, bytes) then return end
  if sock.closed or sock.to_router and sock.to_router:input(sock, from, bytes) then return end
  if sock.to_fn then return sock.to_fn(from, bytes, to) end
  if not sock.to_router then counters:add("drop_unknown") end
end

local function keep(proc, sock, address, options, raw, err)
  if not raw then return nil, ("cannot bind %s: %s"):format(addr.format(address), err), "invalid" end
  proc.sockets = proc.sockets + 1
  sock.raw, sock.mux_number = raw, options.number or proc.sockets
  return open(proc, sock, "socket " .. addr.format(raw.address))
end

local function new_udp(proc, address, options)
  options = options or {}
  local sock = setmetatable({ counters = options.counters or proc.env.counters }, Udp)
  return keep(proc, sock, address, options, proc.net:bind(proc.host.node, address, function(from, bytes, to)
    input(sock, from, bytes, to)
  end, options.max_bytes))
end

local function new_tcp(proc, address, options)
  options = options or {}
  local sock = setmetatable({ counters = options.counters or proc.env.counters, over_tcp = true }, Udp)
  return keep(proc, sock, address, options, tcps.bind(proc.net, proc.host.node, address, {
    port = options.port, max = options.max, max_each = options.max_each,
    on_packet = function(from, bytes, to) input(sock, from, bytes, to) end,
    count = function(name, by) sock.counters:add(name, by) end,
  }))
end

function Udp:send(to, bytes, ttl, own)
  check(self)
  local ok, err, code = self.raw:send(to, bytes, ttl, own)
  if err then return nil, ("cannot send to %s: %s"):format(addr.format(to), err), code or "invalid" end
  if self.over_tcp then return true end
  self.counters:add(ok and "udp_tx" or "udp_tx_unreachable")
  if ok then self.counters:add("udp_tx_bytes", #bytes) end
  return true
end

function Udp:addr()
  check(self)
  return self.raw.address
end

function Udp:number()
  return self.mux_number
end

function Udp:router(router)
  check(self)
  self.to_router = router
  return self
end

function Udp:mux(mux)
  check(self)
  if self.to_mux then error("the socket has a mux already", 2) end
  if mux.sockets[self.mux_number] then error("the mux has a socket number " .. self.mux_number, 2) end
  self.to_mux, mux.sockets[self.mux_number] = mux, self
  return self
end

function Udp:on_packet(fn)
  check(self)
  self.to_fn = fn
  return self
end

function Udp:close()
  if self.closed then return end
  self.closed = true
  self.raw:close()
  if self.to_mux then self.to_mux.sockets[self.mux_number] = nil end
  self.proc.open[self] = nil
end

Udp.__close = Udp.close

-- mux: core's decisions with this world's timers and sockets. Outputs are drained after every verb; a verb
-- called in an event only adds to what is being drained.

local Mux = { kind = "mux" }
Mux.__index = Mux
Mux.__name = "bodkin.sim.mux"

local function set_timer(mux)
  local due = mux.raw:deadline()
  if due == mux.due then return end
  mux.due = due
  if due then mux.timer:again(math.max(0, due - mux.proc.loop:now()) / 1000) else mux.timer:cancel() end
end

local function tell(mux, kind, session, x)
  local ok, err = xpcall(mux.on, debug.traceback, kind, session, x)
  if ok then return end
  mux.proc.env.counters:add("handler_error")
  mux.proc.host.world.on_error(err)
end

local function drain(mux)
  if mux.draining then return end
  mux.draining = true
  while not mux.closed do
    local kind, a, b, c, d, own = mux.raw:next()
    if not kind then break end
    if kind ~= "send" then
      tell(mux, kind, a, b)
    else
      local sock = mux.sockets[a]
      if sock then sock:send(b, c, d, own) end
    end
  end
  mux.draining = false
  if not mux.closed then set_timer(mux) end
end

local function drained(mux, ...)
  drain(mux)
  return ...
end

local function new_mux(proc, options)
  local mux = setmetatable({ sockets = {}, on = options.on }, Mux)
  mux.raw = core.mux { seed = options.seed, counters = proc.env.counters, max_sessions = options.max_sessions }
  if options.trace then mux.raw:trace(options.trace) end
  local function tick()
    if mux.closed then return end
    mux.due = nil
    mux.raw:tick(proc.loop:now())
    drain(mux)
  end
  mux.timer = proc.loop:timer(0, function()
    if proc.host.asleep then table.insert(proc.host.asleep, tick) else tick() end
  end)
  mux.timer:cancel()
  return open(proc, mux, "mux")
end

function Mux:input(sock, from, to, bytes)
  check(self)
  return drained(self, self.raw:input(self.proc.loop:now(), sock.mux_number, from, to, bytes))
end

function Mux:add(match)
  check(self)
  return drained(self, self.raw:add(self.proc.loop:now(), match))
end

function Mux:renew(session, renewal)
  check(self)
  return drained(self, self.raw:renew(self.proc.loop:now(), session, renewal))
end

function Mux:send(session, bytes)
  check(self)
  return drained(self, self.raw:send(self.proc.loop:now(), session, bytes))
end

function Mux:hello(session)
  check(self)
  return self.raw:hello(session)
end

function Mux:relay(session, sock, at, channel, hello)
  check(self)
  return drained(self, self.raw:relay(self.proc.loop:now(), session, sock.mux_number, at, channel, hello))
end

function Mux:listed(session, candidates)
  check(self)
  return drained(self, self.raw:listed(self.proc.loop:now(), session, candidates))
end

function Mux:moved(left)
  check(self)
  return drained(self, self.raw:moved(self.proc.loop:now(), left))
end

function Mux:leave(session)
  check(self)
  return drained(self, self.raw:leave(self.proc.loop:now(), session))
end

function Mux:paths(session)
  check(self)
  return self.raw:paths(session)
end

function Mux:attach(sock)
  check(self)
  sock:mux(self)
end

function Mux:close()
  if self.closed then return end
  self.closed = true
  self.timer:cancel()
  for _, sock in pairs(self.sockets) do sock.to_mux = nil end
  self.raw:close()
  self.proc.open[self] = nil
end

Mux.__close = Mux.close

-- A name is asked of world.names; the answer never comes before resolve returned.
local function resolve(proc, name, port, fn)
  local list = {}
  local address = addr.parse(name, port)
  for i, known in ipairs(address and { address } or proc.host.world.names[name] or {}) do
    list[i] = addr.with_port(known, port)
  end
  proc.loop:timer(0, function()
    if proc.env.closed then return end
    if list[1] then fn(list) else fn(nil, ("%s: no such name in this world"):format(name)) end
  end)
end

local function interfaces(proc)
  local list, has_ipv6 = { { name = "lo", addr = addr.parse("127.0.0.1", 0), up = true, loopback = true } }, false
  for i, ip in ipairs(proc.host.node.ips) do
    list[i + 1] = { name = "eth0", addr = ip, up = true, loopback = false }
    if #ip ~= 6 then has_ipv6 = true end
  end
  if has_ipv6 then list[#list + 1] = { name = "lo", addr = addr.parse("::1", 0), up = true, loopback = true } end
  return list
end

local function source(proc, to)
  if addr.class(to) == "loopback" then return addr.with_port(to, 0) end
  for _, ip in ipairs(proc.host.node.ips) do
    if addr.family(ip) == addr.family(to) then return ip end
  end
end

local function logger(proc)
  local host, world = proc.host, proc.host.world
  return core.logger {
    level = "debug",
    sink = function(line)
      line = ("%d %s %s"):format(proc.loop:now(), host.name, line:match("^%S+ (.*)$"))
      table.insert(host.log, line)
      if world.log then world.log(line) end
    end,
  }
end

-- Gives the host a new, empty env.
function M.start(host)
  local env = { kind = "env", counters = core.counters() }
  local proc = { host = host, env = env, net = host.world.net, loop = host.world.loop }
  proc.open, proc.count, proc.sockets = {}, 0, 0
  host.proc, host.env = proc, env

  local function wrap(fn)
    return function(...)
      check(env)
      return fn(proc, ...)
    end
  end
  env.now = wrap(function() return proc.loop:now() end)
  env.random = wrap(function(_, n) return host.random:bytes(n) end)
  env.timer, env.udp, env.tcp, env.mux = wrap(new_timer), wrap(new_udp), wrap(new_tcp), wrap(new_mux)
  env.resolve, env.interfaces, env.source = wrap(resolve), wrap(interfaces), wrap(source)
  env.time = wrap(function() return EPOCH_S + proc.loop:now() // 1000000 end)
  env.log = logger(proc)
  -- Closes whatever is open, quietly.
  function env.close()
    if env.closed then return end
    env.closed = true
    for handle in pairs(proc.open) do handle:close() end
  end
end

-- host:kill(): the program dies without a word; host.env is a new one for its next run.
function M.kill(host)
  host.env.close()
  M.start(host)
end

-- What is open, oldest first, as lines of text.
function M.leaks(host)
  local list = {}
  for _, mark in pairs(host.proc.open) do table.insert(list, mark) end
  table.sort(list, function(a, b) return a.n < b.n end)
  for i, mark in ipairs(list) do list[i] = ("%s left open a %s"):format(host.name, mark.text) end
  return list
end

return M

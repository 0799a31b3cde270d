-- SPDX-License-Identifier: MIT
-- The driver contract over the real thing: all that client and servers get to see of the world. The other
-- implementation is scripts/bodkin/sim; spec/contract/env.lua holds for both.
--
--   env.now() -> µs                       of this turn of the loop, monotonic
--   env.time() -> s                       since 1970, about the same on all machines
--   env.timer(ms, fn) -> timer            one shot; timer:cancel(), timer:again(ms)
--   env.random(n) -> n bytes
--   env.log                               :debug :info :warn :error (format, ...)
--   env.counters                          :add(name [, n]) :get(name) :all()
--   env.udp(addr [, { number =, counters =, max_bytes = }]) -> sock | nil, message, code
--       sock:send(to, bytes [, ttl]) :addr() :router(router) :on_packet(fn(from, bytes, to)) :close()
--       a datagram is offered to the mux, then to the router, then to fn; number is for the mux (1, 2, ...);
--       max_bytes of a datagram, either way: 1200, at most 2232
--   env.tcp(addr, { port =, number =, counters =, max =, max_each = }) -> the same over TCP, each remote a connection.
--       Without port it listens, and sends to whom it has a connection with; with one it connects to that port of
--       whom it sends to, whom it knows by the address it was given. Reliable and in order, but what does not fit in
--       64 KiB a connection is dropped, as all is that is for nobody; no TTL. See runtime/io/tcp.h
--   env.mux { seed = 32 bytes, on = fn(kind, session, x) [, max_sessions =, trace = fn(line)] } -> mux
--       mux:add(match) :renew(session, renewal) :send(session, bytes) :hello(session)
--         :relay(session, sock, addr, channel, hello | nil) :listed(session, candidates) :moved(left) :leave(session)
--         :paths(session) :attach(sock) :close()
--   env.resolve(host, port, fn(addrs | nil, err))
--   env.interfaces() -> array of { name, addr, up, loopback }; where they cannot be listed, those of the last time
--   env.source(to) -> addr of ours from which what is sent there leaves now; nil: there is no way
--   env.close()                           closes all of these, quietly
-- and here alone:
--   env.run(), env.stop(), env.loop

local core = require "bodkin.core"

local M = {}

local Mux = {}
Mux.__index = Mux
Mux.__name = "bodkin.mux"

function Mux:add(match) return self.raw:add(nil, match) end

function Mux:send(session, bytes) return self.raw:send(nil, session, bytes) end

function Mux:renew(session, renewal) return self.raw:renew(nil, session, renewal) end

function Mux:hello(session) return self.raw:hello(session) end

function Mux:relay(session, sock, at, channel, hello)
  return self.raw:relay(nil, session, sock:number(), at, channel, hello)
end

function Mux:listed(session, candidates) self.raw:listed(nil, session, candidates) end

function Mux:moved(left) self.raw:moved(nil, left) end

function Mux:leave(session) return self.raw:leave(nil, session) end

function Mux:paths(session) return self.raw:paths(session) end

function Mux:attach(sock) sock:mux(self.raw) end

function Mux:close() self.raw:close() end

Mux.__close = Mux.close

-- options: log_level ("info"); log = a logger of one's own; loop = one to share, which close then leaves open;
-- random = fn(n) in place of the system's.
function M.new(options)
  options = options or {}
  local loop = options.loop or core.loop {}
  local open = setmetatable({}, { __mode = "k" }) -- all that was made here and may still be open
  local sockets = 0
  local env = {
    loop = loop,
    log = options.log or core.logger { level = options.log_level },
    counters = core.counters(),
    time = os.time,
    random = options.random or core.crypto.random,
  }
  local interfaces = {}

  local function keep(handle, ...)
    if handle then open[handle] = true end
    return handle, ...
  end

  function env.now() return loop:now() end

  function env.timer(ms, fn) return keep(loop:timer(ms, fn)) end

  function env.udp(address, opts)
    sockets = sockets + 1
    return keep(loop:udp(address, {
      counters = opts and opts.counters or env.counters,
      number = opts and opts.number or sockets,
      max_bytes = opts and opts.max_bytes,
    }))
  end

  function env.tcp(address, opts)
    sockets = sockets + 1
    return keep(loop:tcp(address, {
      counters = opts and opts.counters or env.counters,
      number = opts and opts.number or sockets,
      port = opts and opts.port, max = opts and opts.max, max_each = opts and opts.max_each,
    }))
  end

  function env.mux(opts)
    local raw = core.mux { seed = opts.seed, counters = env.counters, max_sessions = opts.max_sessions }
    if opts.trace then raw:trace(opts.trace) end
    raw:drive(loop, opts.on)
    return keep(setmetatable({ raw = raw }, Mux))
  end

  -- Listing them takes a descriptor.
  function env.interfaces()
    interfaces = core.interfaces() or interfaces
    return interfaces
  end

  function env.source(to) return core.source(to) end

  function env.resolve(host, port, fn)
    local ok, err = loop:resolve(host, port, fn)
    if not ok then env.timer(0, function() fn(nil, err) end) end -- too many at once
  end

  function env.run() loop:run() end

  function env.stop() loop:stop() end

  function env.close()
    for handle in pairs(open) do handle:close() end
    if not options.loop then loop:close() end
  end

  return env
end

return M

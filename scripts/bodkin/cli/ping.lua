-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"
local output = require "bodkin.cli.output"

local NAMES = { EI = "anybody", AD = "asked_ips", APD = "asked_addresses" }
local probes, pause_ms, silence_ms = 4, 200, 1000

-- An answer that took longer than this to come is not waited for once another came.
local Ping = {}
Ping.__index = Ping

local function open(env, server, bind)
  local core, message = require "bodkin.core", require "bodkin.message"
  local at = bind or (core.addr.family(server) == 4 and "0.0.0.0:0" or "[::]:0")
  local sock, err, code = env.udp(core.addr.parse(at, 0))
  if not sock then return nil, ("cannot use %s: %s"):format(at, err), code end
  local self = setmetatable({ env = env, core = core, message = message, sock = sock, server = server, sent = {},
    rtts = {}, tried = 0 }, Ping)
  local router = core.router(env.counters)
  router:on(message.address_report, nil, function(_, from, tx, xaddr) self:answer(from, tx, xaddr) end)
  sock:router(router)
  return self
end

function Ping:answer(from, tx, xaddr)
  local at = self.sent[tx]
  if not at or from ~= self.server then return end
  self.sent[tx] = nil
  self.rtts[#self.rtts + 1] = (self.env.now() - at) / 1000
  self.public = self.core.addr.mask(xaddr, tx)
  if self.wake then self.wake(true) end
end

-- In a task: one request; true once it is answered.
function Ping:probe(wait_ms)
  local tx = self.env.random(12)
  self.sent[tx] = self.core.now()
  self.tried = self.tried + 1
  self.sock:send(self.server, self.message.address_request:encode(tx))
  return require("bodkin.task").await(function(resume)
    self.wake = resume
    local timer = self.env.timer(wait_ms, function() resume(false) end)
    return function() timer:cancel() end
  end)
end

local function is_local(core, env, public)
  for _, i in ipairs(env.interfaces()) do
    if core.addr.same_ip(i.addr, public) then return true end
  end
  return false
end

local function report(self, out, last)
  local format = self.core.addr.format
  if out.json then
    out:object({ event = "pong", addr = format(self.server), public = { format(self.public) }, rtt_ms = last },
      { "event", "addr", "public", "rtt_ms" })
  else
    out:line(("answer from %s: %.1f ms"):format(format(self.server), last))
  end
end

local function summary(self, out)
  table.sort(self.rtts)
  local rtts, core = self.rtts, self.core
  if out.json then return end
  out:line(("%d of %d answered; %.1f / %.1f / %.1f ms (least, median, most)"):format(#rtts, self.tried, rtts[1],
    rtts[(#rtts + 1) // 2], rtts[#rtts]))
  out:line(("your public address is %s (%s)"):format(core.addr.format(self.public),
    is_local(core, self.env, self.public) and "your own: no NAT between" or "behind a NAT"))
end

local OPEN = {
  EI = "anybody", AD = "the IPs that you send to, and nobody else",
  APD = "the addresses that you send to, and nobody else",
}

-- In a task: who reaches the port that was pinged from, when nothing is sent to them. The socket is closed before.
local function reachable(self, out, timeout_ms)
  local addr = self.core.addr
  local bound = self.sock:addr()
  self.sock:close()
  local set = require("bodkin.client.behaviour").reachable(self.env, self.server, bound, timeout_ms) or {}
  local one = next(set)
  local known = one and not next(set, one) and one or nil
  if out.json then
    return out:object({ event = "reachable", port = addr.port(bound), by = known and NAMES[known] or "unknown" },
      { "event", "port", "by" })
  end
  if known then return out:line(("your UDP port %d is reached by %s"):format(addr.port(bound), OPEN[known])) end
  out:line(("can't tell who else reaches your UDP port %d: the server has too few addresses"):format(addr.port(bound)))
end

-- In a task: the first address of each family that a URL's host has, of that of `bind` alone where it is given; or nil,
-- message, code.
local function resolve(env, text, bind)
  local where, err, code = require("bodkin.url").parse(text)
  if not where then return nil, err, code end
  local addrs, why = require("bodkin.task").await(function(resume) env.resolve(where.host, where.port, resume) end)
  if not addrs or #addrs == 0 then
    return nil, ("no address found for %s: %s; is the name right?"):format(where.host, why or "it has none"), "invalid"
  end
  local addr = require("bodkin.core").addr
  local from = bind and addr.parse(bind, 0)
  local list, have = {}, {}
  for _, a in ipairs(addrs) do
    local family = addr.family(a)
    if not have[family] and (not from or family == addr.family(from)) then have[family], list[#list + 1] = true, a end
  end
  if list[1] then return list end
  return nil, ("%s has no address of the family of --bind %s"):format(where.host, bind), "invalid"
end

-- In a task: the addresses of all URLs, in their order; nil, message, code where there is none.
local function resolve_all(env, urls, bind)
  local list, err, code = {}, nil, nil
  for _, text in ipairs(urls) do
    local addrs, why, what = resolve(env, text, bind)
    if addrs then table.move(addrs, 1, #addrs, #list + 1, list) else err, code = err or why, code or what end
  end
  if list[1] then return list end
  return nil, err, code
end

-- In a task: requests to the server until enough of them are answered, or `deadline`; false where the first answer is
-- not there at `first`. self.no_way: the kernel did not let one out.
function Ping:run(out, first, deadline)
  local refused = self.env.counters:get "udp_tx_unreachable"
  while self.tried < probes or #self.rtts == 0 do
    local left_ms = ((#self.rtts == 0 and first or deadline) - self.env.now()) / 1000
    if left_ms <= 0 then break end
    if self:probe(math.min(silence_ms, left_ms)) then
      report(self, out, self.rtts[#self.rtts])
      if self.tried < probes then require("bodkin.task").sleep(self.env, pause_ms) end
    end
  end
  self.no_way = self.env.counters:get "udp_tx_unreachable" > refused
  return #self.rtts > 0
end

-- What is said where none of these answered.
local function silence(servers, no_way, timeout_ms)
  local addr, texts, ports = require("bodkin.core").addr, {}, {}
  for i, server in ipairs(servers) do
    texts[i], ports[addr.port(server)] = addr.format(server), true
  end
  local all = table.concat(texts, " or ")
  if no_way then
    return ("this host's network knows no way to %s: %s"):format(all, addr.family(servers[1]) == 6
      and "has it IPv6? Else try the server's IPv4" or "is it up?")
  end
  local port = next(ports)
  return ("no answer from %s after %g s: is the server running, and UDP%s open there?"):format(all, timeout_ms / 1000,
    next(ports, port) and "" or " " .. port)
end

return {
  usage = "bodkin ping [URL] [options]",
  summary = "ask an address server: round-trip time, your public address, who reaches it",
  text = [[
Sends address requests to the server and prints how long each answer took, the public address that the server saw,
and who reaches this UDP port (--bind ADDR:PORT says which) from outside without being sent to first: the server answers
from its other addresses, where it has such (serve --listen several times). bodkin netcheck says more of the NAT. A
server with IPv4 and IPv6 addresses, and several URLs, are tried one after another until one answers; fails with 1 when
none did within --timeout (5 s).]],
  options = options.client("server", "bind", "timeout"),
  arguments = 1,
  run = function(values, rest)
    local text = rest[1] or values.server
    if not text then return nil, "ping needs a URL: bodkin://HOST[:PORT]", "usage" end
    local urls, err, code = require("bodkin.url").list(text)
    if not urls then return nil, err, code end
    local out, timeout_ms = output.of(values), (values.timeout or 5) * 1000
    return require("bodkin.cli.process").run(values, function(p)
      local servers, cause, kind = resolve_all(p.env, urls, values.bind)
      if not servers then return nil, cause, kind end
      local deadline, no_way, opened = p.env.now() + timeout_ms * 1000, true, false
      for i, server in ipairs(servers) do
        local now, self, why, what = p.env.now(), open(p.env, server, values.bind)
        if self and self:run(out, now + (deadline - now) // (#servers - i + 1), deadline) then
          summary(self, out)
          reachable(self, out, timeout_ms)
          return 0
        end
        if self then
          self.sock:close()
          opened, no_way = true, no_way and self.no_way
        else
          err, code = err or why, code or what
        end
      end
      if not opened then return nil, err, code end
      return nil, silence(servers, no_way, timeout_ms), "timeout"
    end)
  end,
}

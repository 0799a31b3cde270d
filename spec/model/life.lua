-- SPDX-License-Identifier: MIT
-- What befalls two who talk, in the simulated internet: NATs that restart or map anew, hosts that go elsewhere or
-- sleep, servers and relays that die, a network that is gone for a while. A seed says where and behind what they are.

local core = require "bodkin.core"
local invariants = dofile "spec/model/invariants.lua"
local node = require "bodkin.client.node"
local random = require "bodkin.sim.random"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local M = {}

local KEY = ("k"):rep(32)
local SERVER, RELAYS = "198.51.100.10", { "198.51.100.20", "198.51.100.21" }
local EVERY_MS = 20
M.LIMIT_MS = 2000 -- from when a path exists again until both hear each other, with round trips of 200 ms at most
local BEFORE_MS, AFTER_MS = 1500, 4000 -- of traffic
local KINDS = { "none", "firewall", "full_cone", "address_restricted", "port_restricted" }
-- And behind these two who lost each other may find no way but a relay: the ports that a NAT gives, or spoils when it
-- forgot what was asked for (the race in docs/NAT.md), no server sees.
local RELAYED_KINDS = { "plain_linux", "symmetric_random", "symmetric_sequential", "address_dependent",
  table.unpack(KINDS) }

local function pick(rng, list) return list[1 + rng:integer() % #list] end

local Life = {}
Life.__index = Life

local function behind(self, name, ip, kind)
  local options = { name = name, kind = kind, ip = kind ~= "none" and kind ~= "firewall" and ip or nil }
  options.timeout_ms = pick(self.rng, { 30000, 120000 })
  return self.world:nat(options), options.ip and "192.168.1.2" or ip
end

local function serve(self, host, roles)
  local at = core.addr.format(core.addr.with_port(host.node.ips[1], 4433))
  self.servers[host] = assert(servers.open(host.env, { listen = { at }, roles = roles, keys = { KEY },
    relays = self.relay and RELAYS or nil }))
end

local function kill(self, host)
  host:kill()
  self.servers[host] = nil
end

-- Each of the two, in turn: { host =, nat =, node =, match =, texts = what it sent, got = { [text] = how often },
-- at = { { when it came, when it was sent }, … } }.
local function side(self, i, kind)
  local s = { name = ("ab"):sub(i, i), got = {}, at = {}, kind = kind }
  local nat, ip = behind(self, "nat" .. i, "203.0.113." .. i, kind)
  s.nat, s.host = nat, self.world:host { name = s.name, ip = ip, behind = nat }
  s.texts, s.listed = {}, {}
  s.watch = invariants.new(function(text)
    self.violated[#self.violated + 1] = s.name .. ": " .. text
  end, s.listed, self.world:now())
  self[i] = s
end

local function candidates(s, text)
  for address in text:gmatch "%S+ %S+ (%S+)" do s.listed[core.addr.parse(address)] = true end
end

local function inner(hex) -- without a relay's head
  local bytes = core.crypto.unhex(hex)
  return bytes:byte() == 0x40 and bytes:sub(6) or bytes
end

-- What the watch is told of a line of the trace, by its word that says of what: of what the machines put out, and of
-- what they are given. fn(side, the rest of the line, what the peer sent)
local outputs, inputs = {}, {}

function outputs.send(s, rest)
  local to, hex = rest:match "^%S+ (%S+) %S+ (%S+)"
  s.watch:send(s.now_us, core.addr.parse(to), inner(hex))
end

function outputs.message(s, rest, texts) s.watch:event("message", core.crypto.unhex(rest:match "%S+"), texts) end
function outputs.closed(s, rest, texts) s.watch:event("closed", rest:match "%S+", texts) end
function outputs.doubt(s, _, texts) s.watch:event("doubt", nil, texts) end

for _, kind in ipairs { "connected", "path" } do
  outputs[kind] = function(s, rest, texts)
    s.watch:event(kind, { remote = core.addr.parse(rest:match "^%S+ %S+ (%S+)") }, texts)
  end
end

function inputs.input(s, rest)
  local from, hex = rest:match "^%S+ (%S+) %S+ (%S+)"
  local bytes = inner(hex)
  if bytes ~= "" then s.watch:input(core.addr.parse(from), bytes, true) end
end

function inputs.relay(s, rest)
  local text, hex = rest:match "^%S+ %S+ (%S+) %S+ (%S+)"
  local at = core.addr.parse(text)
  s.listed[at] = true
  if hex ~= "-" then s.watch:input(at, core.crypto.unhex(hex), true) end
end

function inputs.tick(s) s.watch:tick(s.now_us) end
function inputs.add(s, rest) candidates(s, rest:match("^" .. ("%S+ "):rep(10) .. "(.*)") or "") end
function inputs.listed(s, rest) candidates(s, rest:match "^%S+ (.*)" or "") end
function inputs.renew(s, rest) candidates(s, rest:match("^" .. ("%S+ "):rep(4) .. "(.*)") or "") end

-- Shows a line of the trace of a side's machines to its watch (see invariants.lua).
local function watch(s, peer, line)
  local kind, rest = line:match "^> %S+ (%S+) ?(.*)"
  if kind then
    local fn = outputs[kind]
    return fn and fn(s, rest, peer.texts)
  end
  local now
  now, kind, rest = line:match "^(%S+) (%S+) ?(.*)"
  s.now_us = math.tointeger(tonumber(now))
  local fn = inputs[kind]
  if fn then fn(s, rest) end
end

local function open(self, s)
  s.node = assert(node.open {
    env = s.host.env, server = ("bodkin://%s:4433"):format(SERVER), server_keys = { (core.crypto.keypair(KEY)) },
    app = "life/1",
    trace = function(line) watch(s, s == self[1] and self[2] or self[1], line) end,
  })
end

local function run(self, fn, ms)
  local t = task.spawn(fn)
  self.world:run_until(function() return t:done() end, ms)
  assert(t:done(), "does not end in time")
  local ok, err = t:join()
  assert(ok, err)
end

-- Both say something each 20 ms, until told to stop.
local function talk(self, s)
  s.match:on_data(function(_, data)
    s.got[data] = (s.got[data] or 0) + 1
    s.at[#s.at + 1] = { self.world:now(), tonumber(data) }
  end)
  local timer
  local function say()
    if self.silent then return end
    local text = tostring(self.world:now())
    s.texts[text] = true
    s.match:send(text)
    timer:again(EVERY_MS)
  end
  timer = s.host.env.timer(0, say)
end

-- The worlds' delays: one way, so that a round trip takes 200 ms at most.
local function delays(self)
  local near, far = {}, {}
  for i = 1, 2 do
    near[i] = 2 + self.rng:float() * 48
    for _, other in ipairs { "server", "relay1", "relay2" } do far[i .. other] = 2 + self.rng:float() * 98 end
  end
  return function(from, to)
    local a, b = from:match "%d$", to:match "%d$"
    local is_relay = from:find "^relay" and from or to:find "^relay" and to
    if is_relay or not (a and b) then
      local i = (is_relay == from or not a) and b or a
      return far[i .. (is_relay or "server")]
    end
    return near[tonumber(a)] + near[tonumber(b)]
  end
end

-- options: relay (true: two relays apart from the server), kinds (of NATs, of one or both; drawn where nil).
function M.new(seed, options)
  local self = setmetatable({ rng = random.new(seed, "life"), servers = {}, relay = options.relay, violated = {} },
    Life)
  self.world = worlds.new { seed = seed, delay_ms = delays(self), jitter_ms = 2, trace = options.trace or false,
    loss = function() return self.dead and 1 or 0 end }
  self.hub = self.world:host { name = "server", ip = SERVER }
  serve(self, self.hub, { "address", "matching", "maintenance" })
  self.relays = {}
  if self.relay then
    for i, ip in ipairs(RELAYS) do
      self.relays[i] = self.world:host { name = "relay" .. i, ip = ip }
      serve(self, self.relays[i], { "relay" })
    end
  end
  local kinds = options.relay and RELAYED_KINDS or KINDS
  for i = 1, 2 do side(self, i, options.kinds[i] or pick(self.rng, kinds)) end
  run(self, function()
    for i = 1, 2 do open(self, self[i]) end
    self[1].match = assert(self[1].node:host())
    self[2].match = assert(self[2].node:join(self[1].match.code))
    for i = 1, 2 do assert(self[i].match:wait_connected(20000)) end
  end, 30000)
  for i = 1, 2 do talk(self, self[i]) end
  self.world:run(BEFORE_MS)
  return self
end

function Life:run(ms) self.world:run(ms) end

-- From now on a path exists again. Lets the two talk on, and tells what they heard.
-- Returns { gap_ms = by side, the longest silence from now on; twice = how many came twice }.
function Life:recover()
  local began = self.world:now()
  self.world:run(AFTER_MS)
  local ends, out = self.world:now(), { twice = 0, gap_ms = {}, late_ms = {} }
  for i = 1, 2 do
    local last, gap, fresh = began, 0, nil
    for _, a in ipairs(self[i].at) do
      if a[1] > began then
        if not fresh and a[2] >= began then fresh = a[1] end
        gap = math.max(gap, a[1] - last)
        last = a[1]
      end
    end
    out.gap_ms[i] = math.max(gap, ends - last, (fresh or ends) - began) / 1000
    for _, times in pairs(self[i].got) do out.twice = out.twice + times - 1 end
  end
  return out
end

function Life:close()
  self.silent = true
  for i = 1, 2 do task.spawn(function() self[i].node:close() end) end
  self.world:run(3000)
  for _, server in pairs(self.servers) do server:close() end
  self.world:close()
end

-- Sides to which it happens: 1, 2, or both.
local function each(self, which, fn)
  for i = 1, 2 do
    if which == i or which == 3 then fn(self[i], i) end
  end
end

local function move(self, s, i)
  local nat, ip = behind(self, "other" .. i, "203.0.113.10" .. i, self.moves_to or s.kind)
  if ip == "192.168.1.2" and self.rng:float() < 0.5 then ip = "192.168.7.3" end -- else no interface tells of it
  s.host:move(ip, nat)
  s.nat = nat
end

local function relay_in_use(self)
  local path = self[1].match:peers()[1]
  for _, host in ipairs(self.relays) do
    if path.path == "relay" and path.remote == core.addr.format(core.addr.with_port(host.node.ips[1], 4433)) then
      return host
    end
  end
  return self.relays[1]
end

-- What can happen, each in the middle of a session: fn(life, sides) returns when a path exists again.
M.events = {
  reboot = function(self, which) each(self, which, function(s) s.nat.reboot() end) end,
  rebind = function(self, which) each(self, which, function(s) s.nat.rebind() end) end,
  move = function(self, which) each(self, which, function(s, i) move(self, s, i) end) end,
  relay_killed = function(self)
    local host = relay_in_use(self)
    kill(self, host)
    self.killed = host
  end,
  server_killed = function(self) kill(self, self.hub) end,
  server_restarted = function(self)
    kill(self, self.hub)
    self.world:run(5000)
    serve(self, self.hub, { "address", "matching", "maintenance" })
  end,
  loss = function(self)
    self.dead = true
    self.world:run(30000)
    self.dead = false
  end,
  sleep = function(self, which)
    each(self, which, function(s) s.host:sleep() end)
    self.world:run(60000)
    each(self, which, function(s) s.host:wake() end)
  end,
}

M.names = { "reboot", "rebind", "move", "loss", "sleep", "relay_killed", "server_killed", "server_restarted" }
local ONCE = { loss = true, relay_killed = true, server_killed = true, server_restarted = true }
local SIDES = { "a", "b", "both" }

-- What a seed is about: name of the event, sides (1, 2, 3: both), whether there are relays. The first 48 are all of it.
function M.draw(seed)
  local n = seed - 1
  local name = M.names[1 + n % #M.names]
  return name, ONCE[name] and 1 or 1 + n // #M.names % 3, name == "relay_killed" or n // (3 * #M.names) % 2 == 0
end

-- One seed: what it was, and { gap_ms =, twice = } as recover gives it; what is wrong with it, or nil.
function M.play(seed)
  local name, which, relay = M.draw(seed)
  -- Between two such NATs all goes by a relay; elsewhere it is there in case.
  local symmetric = name == "relay_killed" and seed // #M.names % 2 == 0 and "symmetric_random" or nil
  local self = M.new(seed, { relay = relay, kinds = { symmetric, symmetric } })
  M.events[name](self, which)
  local result = self:recover()
  self:close()
  local text = ("seed %d: %s%s, %s behind %s and %s, gaps %.0f and %.0f ms"):format(seed, name,
    ONCE[name] and "" or " of " .. SIDES[which], relay and "relays" or "no relay", self[1].kind, self[2].kind,
    result.gap_ms[1], result.gap_ms[2])
  local wrong = self.violated
  if math.max(table.unpack(result.gap_ms)) > M.LIMIT_MS then wrong[#wrong + 1] = "too long" end
  if result.twice > 0 then wrong[#wrong + 1] = result.twice .. " delivered twice" end
  for i = 1, 2 do
    local seen = self[i].watch
    if not seen.connected or not next(seen.messages) then wrong[#wrong + 1] = "nothing was watched" end
  end
  return text, result, wrong[1] and table.concat(wrong, ", ", 1, math.min(4, #wrong)) or nil
end

return M

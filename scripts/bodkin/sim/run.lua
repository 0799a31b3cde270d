-- SPDX-License-Identifier: MIT
-- Plays a scenario: the unchanged server and client scripts on a virtual network, for as many virtual seconds as it
-- says, and notes what becomes of each client, ticket and pair. sim/stats.lua makes a report of that.

local core = require "bodkin.core"
local delays = require "bodkin.sim.delays"
local nats = require "bodkin.sim.nat"
local random = require "bodkin.sim.random"
local task = require "bodkin.task"
local token = require "bodkin.token"
local worlds = require "bodkin.sim.world"

local M = {}
local SERVER_IP = "198.51.100.10"
local END_MS = 3000 -- for the last goodbyes
local HOME_MAX = 100 -- clients behind one NAT
local TOKEN_SEED, TOKEN_S = ("t"):rep(32), 86400 -- of the game's backend, and how long its tokens are good

-- --- who there is
local function draw_weighted(rng, list)
  local sum = 0
  for _, one in ipairs(list) do sum = sum + one[2] end
  local at = rng:float() * sum
  for _, one in ipairs(list) do
    at = at - one[2]
    if at < 0 then return one[1] end
  end
  return list[#list][1]
end

local function draw_property(rng, d)
  if d.shape == "constant" then return d.value end
  if d.shape == "chance" then return rng:float() < d.a end
  if d.shape == "weights" then return draw_weighted(rng, d.list) end
  local v
  if d.shape == "uniform" then
    v = d.a + (d.b - d.a) * rng:float()
  else -- Box and Muller
    v = d.a + d.b * math.sqrt(-2 * math.log(1 - rng:float())) * math.cos(2 * math.pi * rng:float())
  end
  v = math.max(d.min or v, math.min(d.max or v, v))
  return d.whole and math.floor(v + 0.5) or v
end

local function new_client(self, n, rng)
  local scenario = self.scenario
  self.arrive_ms = self.arrive_ms - 1000 * math.log(1 - rng:float()) / scenario.arrive_per_s
  local client = { n = n, arrive_ms = self.arrive_ms, kind = draw_weighted(rng, scenario.nats), matches = {} }
  local is_shared = rng:float() < scenario.together
  if scenario.match then
    client.props, client.claims = {}, {}
    for _, d in ipairs(scenario.match.props) do client.props[d.name] = draw_property(rng, d) end
    for _, d in ipairs(scenario.match.claims) do client.claims[d.name] = draw_property(rng, d) end
  end
  if is_shared and self.last_home and self.last_home.count < HOME_MAX then
    client.home = self.last_home
    client.kind = client.home.kind
  end
  return client
end

local function connect_to_world(self, client)
  local n, world = client.n, self.world
  local ip = ("203.%d.%d.%d"):format(n >> 16 & 255, n >> 8 & 255, n & 255)
  local behaviour = nats.kinds[client.kind]
  local options = { name = "client" .. n, ip = ip }
  self.place[options.name] = n
  if client.home then
    local home = client.home
    home.count = home.count + 1
    options.behind, options.ip = home.box, "192.168.1." .. 1 + home.count
  elseif client.kind ~= "none" then
    local translates = behaviour.mapping ~= nil
    local box = world:nat { name = "nat" .. n, kind = client.kind, ip = translates and ip or nil, delay_ms = 0 }
    self.place["nat" .. n] = n
    options.behind = box
    if translates then
      options.ip = "192.168.1.2"
      client.home = { kind = client.kind, box = box, count = 1 }
      self.last_home = client.home
    end
  end
  client.env = world:host(options).env
end

-- --- what they do
local function leave(client)
  if client.closed then return end
  client.closed = true
  if client.leaving then client.leaving:cancel() end
  if client.node then client.node:close() end
end

-- It leaves some time after it knows of everyone in its match whether they are connected.
local function settled(self, client)
  if client.leaving then
    client.leaving:cancel()
    client.leaving = nil
  end
  local open, met = 0, 0
  for _, pair in pairs(client.matches) do
    met = met + 1
    if not pair.over and not (pair.confirmed[1] and pair.confirmed[2]) then open = open + 1 end
  end
  if client.closed or open > 0 or met == 0 or met < client.expected then return end
  client.leaving = client.env.timer(self.scenario.stay_s * 1000, function()
    client.leaving = nil
    task.spawn(leave, client)
  end)
end

local function now_ms(self) return self.world:now() / 1000 end

-- The pair of this client and a peer in a match; both ends share it.
local function pair_of(self, client, match, peer_id)
  local peer = self.by_id[peer_id]
  if not peer then return nil end
  local a, b = client, peer
  if a.n > b.n then a, b = b, a end
  local key = ("%s %d %d"):format(match, a.n, b.n)
  local pair = self.by_key[key]
  if not pair then
    pair = { a = a, b = b, heard = {}, confirmed = {}, together = a.home ~= nil and a.home == b.home }
    self.by_key[key] = pair
    self.pairs[#self.pairs + 1] = pair
  end
  client.matches[key] = pair
  return pair, client == a and 1 or 2
end

local on = {}

function on.matched(self, client, e)
  if client.asked_ms and not client.wait_ms then client.wait_ms = now_ms(self) - client.asked_ms end
  for _, peer in ipairs(e.peers) do
    if pair_of(self, client, e.match, peer) and #e.peers > client.expected then client.expected = #e.peers end
  end
  settled(self, client)
end

function on.connected(self, client, e)
  local pair, side = pair_of(self, client, e.match, e.peer)
  if not pair then return end
  if pair.heard[side] then return end
  pair.heard[side] = true
  table.insert(self.first_ms, e.first_ms)
end

function on.path(self, client, e)
  local pair, side = pair_of(self, client, e.match, e.peer)
  if not pair then return end
  pair.path = e.path
  if not pair.confirmed[side] then
    pair.confirmed[side] = true
    table.insert(self.confirmed_ms, e.confirmed_ms)
  end
  settled(self, pair.a)
  settled(self, pair.b)
end

function on.closed(self, client, e)
  local pair = pair_of(self, client, e.match, e.peer)
  if not pair then return end
  if not pair.over and not self.ending then pair.over = e.reason end
  settled(self, client)
end

-- What the game's backend would have given it, where the scenario says that there is one.
local function token_of(client)
  if not client.claims or not next(client.claims) then return nil end
  client.claims.exp = client.claims.exp or client.env.time() + TOKEN_S
  return token.issue(TOKEN_SEED, client.claims)
end

local function open_node(self, client)
  local shown, err, code = token_of(client)
  if err then return nil, err, code end
  local node
  node, err, code = require("bodkin.client.node").open {
    env = client.env, server = "bodkin://server", server_keys = self.server.public_keys, app = "sim/1",
    name = "c" .. client.n, token_text = shown,
    behaviour = false, adapt = false, -- of one server's address they would learn next to nothing
    on_event = function(e)
      if on[e.event] then on[e.event](self, client, e) end
    end,
  }
  if not node then return nil, err, code end
  client.node = node
  self.by_id[node.id] = client
  self.registered = self.registered + 1
  return node
end

local function failed(self, client, code)
  if client.closed then return end
  self.failures[code] = (self.failures[code] or 0) + 1
end

local plays = {}

function plays.match(self, client, node)
  client.asked_ms = now_ms(self)
  self.asked = self.asked + 1
  local match, _, code = node:match(self.scenario.match.queue, client.props)
  if not match then failed(self, client, code) end
end

-- Neighbours in order of arrival share a room; the first of them opens it, the others know its code from him.
function plays.rooms(self, client, node)
  local size = self.scenario.rooms.size
  local number = (client.n - 1) // size
  local room = self.rooms[number]
  if not room then
    room = { waiting = {} }
    self.rooms[number] = room
  end
  client.expected = math.min(size, self.scenario.clients - number * size) - 1
  local match, code, _
  if (client.n - 1) % size == 0 then
    match, _, code = node:host()
    if not match then return failed(self, client, code) end
    room.code = match.code
    for _, resume in ipairs(room.waiting) do resume() end
    return
  end
  if not room.code then task.await(function(resume) table.insert(room.waiting, resume) end) end
  if client.closed then return end
  client.asked_ms = now_ms(self)
  self.asked = self.asked + 1
  match, _, code = node:join(room.code)
  if not match then failed(self, client, code) end
end

local function live(self, client)
  task.sleep(client.env, client.arrive_ms)
  self.arrived = self.arrived + 1
  local node, _, code = open_node(self, client)
  if not node then return failed(self, client, code) end
  if client.closed then return node:close() end
  plays[self.scenario.match and "match" or "rooms"](self, client, node)
end

-- --- all of it
local function open_server(self)
  local match = self.scenario.match
  local host = self.world:host { name = "server", ip = SERVER_IP }
  self.place.server = 0
  return require("bodkin.servers").open(host.env, {
    listen = { SERVER_IP .. ":4433" },
    roles = { "address", "matching", "maintenance" }, -- no relay: what is counted is which NATs can be passed
    -- The policy of all queues, since that one is asked of clients, too.
    queues = match and match.policy and { ["*"] = { policy = match.policy } } or nil,
    token_keys = { (core.crypto.sign_keypair(TOKEN_SEED)) }, limits = self.limits, on_record = self.on_record,
  })
end

local function new_world(self, delay)
  local scenario, place = self.scenario, self.place
  self.world = worlds.new {
    seed = scenario.seed, trace = false, loss = scenario.loss, jitter_ms = scenario.jitter_ms,
    delay_ms = function(from, to) return delay(place[from], place[to]) end,
    log = function(line)
      local us, text = line:match "^(%d+) server error (.*)$"
      if us then table.insert(self.server_errors, { at_s = (us - self.start_us) / 1000000, text = text }) end
    end,
  }
end

local function finish(self)
  self.ending = true
  local world, clients = self.world, self.clients
  for _, client in ipairs(clients) do
    if client.task then client.task:cancel() end
    task.spawn(leave, client)
  end
  world:run(END_MS)
  for _, client in ipairs(clients) do client.env.close() end
  self.server:close()
  world:close()
end

-- scenario: checked (see scenario.lua); options: limits of the server, on_record (see servers/policies.lua). Returns
-- what was noted, for sim/stats.lua, or nil, message, code.
function M.play(scenario, options)
  local self = {
    limits = options and options.limits, on_record = options and options.on_record,
    scenario = scenario, place = {}, clients = {}, by_id = {}, by_key = {}, pairs = {}, rooms = {}, failures = {},
    first_ms = {}, confirmed_ms = {}, arrived = 0, registered = 0, asked = 0, arrive_ms = 0, server_errors = {},
  }
  local delay, why = delays.new(scenario.delay_ms, scenario.seed)
  if not delay then return nil, why, "invalid" end
  new_world(self, delay)
  self.start_us = self.world:now()
  local code
  self.server, why, code = open_server(self)
  if not self.server then
    self.world:close()
    return nil, why, code
  end
  local rng = random.new(scenario.seed, "population")
  for n = 1, scenario.clients do
    local client = new_client(self, n, rng)
    client.expected = 1
    self.clients[n] = client
    connect_to_world(self, client)
    client.task = task.spawn(live, self, client)
  end
  self.world:run(scenario.duration_s * 1000)
  self.server_status = self.server:status()
  finish(self)
  return self
end

return M

-- SPDX-License-Identifier: MIT
-- Bad input at real server processes built with ASan and UBSan, one for each role alone and one with all, on
-- loopback: they live, every datagram is counted by its cause, and they serve as before. Memory is watched in the
-- release build. SOAK=1 does the same at greater length.

local core = require "bodkin.core"
local input = require "spec.hostile.input"
local message = require "bodkin.message"
local support = require "spec.hostile.support"

local soak = os.getenv "SOAK"
-- Messages up to this length get all 255 changes of each byte: by what else there is to do.
local WHOLE, WHOLE_LONE, WHOLE_RSS = soak and 1200 or 64, soak and 64 or 40, 0
local NOISE = soak and 10000000 or 1000000
-- Lua's collector lets garbage come to about as much as what lives (some 700 KB here) before it collects.
local GROWTH_KB = 256
local SHAPES = soak and 100000 or 5000

local lone, all = { "address", "matching", "maintenance" }, "address,matching,maintenance"

-- The schemas of the messages that these roles handle, by type: what they tell a router.
local function handled_by(world, roles)
  local by_type, names, real = {}, {}, core.router
  for name in roles:gmatch "%a+" do names[#names + 1] = name end
  local function nothing() end
  local sock = { addr = function() return core.addr.parse "127.0.0.1:1" end, router = nothing, close = nothing }
  core.router = function()
    return { on = function(_, schema) by_type[schema.type] = schema end, refuse = nothing, reply_schemas = nothing }
  end
  local env = setmetatable({ udp = function() return sock end }, { __index = world.env })
  local server = assert(require("bodkin.servers").open(env, { roles = names, listen = { "127.0.0.1:1" } }))
  core.router = real
  server:close()
  assert(next(by_type), "no handler was seen")
  return by_type
end

local TOO_OLD = math.abs(core.errors.too_old.value)

-- Feeds one server and keeps the books: how many datagrams of each cause, and that no reply is more than its request.
local Books = {}
Books.__index = Books

local function books(world, server, roles)
  local self = setmetatable({
    world = world, server = server, handled = handled_by(world, roles), causes = {}, asked = {}, too_old = 0,
    stream = input.stream("books " .. roles), before = support.status(server),
  }, Books)
  self.feeder = world:feeder(server.at, function(bytes) self:reply(bytes) end)
  self.from = self.feeder.from
  return self
end

-- A sender that has not proved its address gets at most one reply to a request, and no more bytes than it sent.
function Books:reply(bytes)
  local tx = bytes:sub(input.TX_FROM, input.TX_TO)
  local left = self.asked[tx]
  self.asked[tx] = 0
  local _, code = message.refused:decode(bytes)
  if code == TOO_OLD then self.too_old = self.too_old + 1 end
  if self.proven or self.wrong or (left and left >= #bytes) then return end
  self.wrong = ("a reply of %d bytes, type %d, to %s"):format(#bytes, bytes:byte(2),
    not left and "no request" or left == 0 and "a request answered before" or ("a request of %d"):format(left))
end

function Books:send(bytes)
  local cause, tx = input.cause(bytes, self.handled)
  self.causes[cause] = (self.causes[cause] or 0) + 1
  if tx then self.asked[tx] = #bytes end
  self.feeder:send(bytes)
end

-- Every mutation of a message, each with a transaction id of its own so that its reply is known.
function Books:mutate(m, whole)
  local function renamed(bytes)
    return bytes:sub(1, input.TX_FROM - 1) .. self.stream(12) .. bytes:sub(input.TX_TO + 1)
  end
  local has_tx = not input.peer[m.name]
  input.mutations(has_tx and renamed(m.bytes) or m.bytes, whole, function(bytes, at)
    local touched = #bytes < input.TX_TO or at and at >= input.TX_FROM and at <= input.TX_TO
    self:send(has_tx and not touched and renamed(bytes) or bytes)
  end)
end

-- Datagrams longer than any of ours; our own sockets send none.
function Books:too_long()
  for _, size in ipairs { 1201, 9000, 60000 } do
    local script = "head -c %d /dev/zero | dd bs=%d iflag=fullblock status=none >/dev/udp/127.0.0.1/%d"
    local text, ok = support.run { "bash", "-c", script:format(size, size, core.addr.port(self.server.at)) }
    assert(ok, text)
    self.causes.udp_rx_truncated = (self.causes.udp_rx_truncated or 0) + 1
    self.feeder.sent = self.feeder.sent + 1
  end
end

-- All of it, from a sender that proved nothing.
function Books:storm(whole, noise_bytes)
  for _, m in ipairs(input.messages { from = self.from }) do self:mutate(m, whole) end
  for _, bomb in ipairs(input.bombs()) do self:send(bomb) end
  self:too_long()
  local noise = self.feeder.bytes
  input.noise(self.stream, noise_bytes, false, function(bytes) self:send(bytes) end)
  noise = self.feeder.bytes - noise
  input.noise(self.stream, noise_bytes, true, function(bytes) self:send(bytes) end)
  input.shapes(self.stream, SHAPES, function(bytes) self:send(bytes) end)
  return noise
end

-- Holds the server's counters against the books: returns by how much each grew.
function Books:settle()
  self.feeder:finish()
  local _, lost = support.backlog(self.server.at)
  local grown = support.growth(self.before, (support.status(self.server)))
  self.feeder:drain()
  assert.equal(0, lost, "the kernel dropped datagrams: paced too fast")
  assert.equal(self.feeder.sent, grown.udp_rx)
  assert.equal(0, grown.handler_error)
  local sum = self.causes.handled or 0
  for name, value in pairs(grown) do
    if name:find "^drop_" and name ~= "drop_reply" or name == "udp_rx_truncated" then
      assert.equal(self.causes[name] or 0, value, name)
      sum = sum + value
    end
  end
  assert.equal(self.feeder.sent, sum, "datagrams that no counter accounts for")
  assert.is_nil(self.wrong)
  if self.proven then return grown end
  assert.equal(grown.udp_tx, self.feeder.got, "replies that did not come here")
  -- What was handled was answered, or refused an answer, or is of a kind that has none.
  assert.equal(self.causes.handled or 0, self.feeder.got - self.too_old + grown.refuse_reply + grown.drop_reply
    + grown.maintained - grown.maintained_confirmed)
  return grown
end

function Books:report(title, grown, start_us)
  local f = self.feeder
  support.say("%s: %d datagrams, %d bytes in %.1f s; %d replies, %d bytes", title, f.sent, f.bytes,
    (core.now() - start_us) / 1e6, f.got, f.got_bytes)
  support.say("%s: %d handled; %s", title, self.causes.handled or 0, support.listed(grown, "^[^au]"))
end

local function alive_and_clean(server)
  assert.is_nil(server:code(), "it ended: " .. server:stderr())
  assert.equal("", server:stderr())
end

-- Stops a server; at its end the leak checker has its say, too.
local function clean_end(server)
  assert.equal(0, server:stop())
  assert.equal("stopped\n", server:stderr())
end

-- The service is as before: an address is told, and two clients find each other and talk.
local function serves(world, address, matching, maintenance)
  local text, ok = support.run { support.release, "ping", "--json", address.url }
  assert(ok, text)
  local servers = { "--server", matching.url, "--address-server", address.url, "--maintenance-server", maintenance.url,
    "--json", "--send", "hello", "--expect", "1", "--timeout", "10" }
  local host = world:start { support.release, "host", table.unpack(servers) }
  -- From another address: the wrong codes of a storm count against the one they came from.
  local join = world:start { support.release, "join", host:expect '"code":"([^"]+)"', "--bind", "127.0.0.2:0",
    table.unpack(servers) }
  assert.equal(0, host:wait(12000), host:stdout() .. host:stderr())
  assert.equal(0, join:wait(12000), join:stdout() .. join:stderr())
  assert.matches('"event":"message".-"data":"hello"', host:stdout())
  assert.matches('"event":"message".-"data":"hello"', join:stdout())
end

local function storm(world, server, roles, title, whole)
  local start, b = core.now(), books(world, server, roles)
  local noise = b:storm(whole, NOISE)
  assert.is_true(noise >= NOISE)
  local grown = b:settle()
  b:report(title, grown, start)
  for _, name in ipairs { "udp_rx_truncated", "drop_short", "drop_stun", "drop_frame", "drop_msgpack", "drop_unknown",
    "drop_version", "drop_field" } do
    assert.is_true(grown[name] > 0, name .. " did not move")
  end
  assert.is_true(b.feeder.got_bytes < b.feeder.bytes)
  alive_and_clean(server)
  b.feeder:close()
end

-- A proof of the address it is asked from, of whoever reports addresses; nil where nobody does.
local function proof_of(f, roles)
  if roles == "maintenance" then return nil end
  local request = roles == "matching" and message.lookup:encode(("q"):rep(12), nil, ("i"):rep(16))
    or message.address_request:encode(("q"):rep(12))
  return f:ask(request, function(reply) return select(3, message.address_report:decode(reply)) end)
end

-- Each request once from one who proved nothing: without a proof, with a changed one, with that of another address.
-- Returns { title =, schema =, asked = its bytes, replies = { bytes, … } }, …
local function amplification(world, server, roles)
  local f, other, stream = world:feeder(server.at), world:feeder(server.at), input.stream "amplification"
  local own, list, by_tx = proof_of(f, roles), {}, {}
  local proofs = { ["no proof"] = false }
  if own then
    proofs["a changed proof"] = own:sub(1, 19) .. string.char(own:byte(20) ~ 1)
    proofs["another's proof"] = proof_of(other, roles)
  end
  f.on_reply = function(bytes)
    local entry = assert(by_tx[bytes:sub(input.TX_FROM, input.TX_TO)], "a reply to no request")
    entry.replies[#entry.replies + 1] = bytes
  end
  for which, proof in pairs(proofs) do
    for _, m in ipairs(input.messages { from = f.from, proof = proof or nil }) do
      if m.schema.request then
        local tx = stream(12)
        local entry = { title = m.name .. " with " .. which, schema = m.schema, asked = #m.bytes, replies = {} }
        by_tx[tx], list[#list + 1] = entry, entry
        f:send(m.bytes:sub(1, input.TX_FROM - 1) .. tx .. m.bytes:sub(input.TX_TO + 1))
      end
    end
  end
  f:finish()
  support.status(server)
  f:drain()
  f:close()
  other:close()
  return list
end

-- Registers a client from a socket of its own and opens a room: its code. What is pushed to it is acknowledged.
local function host_of(world, server, who)
  local f = world:feeder(server.at)
  local function ask(name, ...)
    local bytes = assert(message[name]:encode(...))
    return table.unpack(f:ask(bytes, function(reply)
      local schema = input.schemas[reply:byte(2)]
      return table.pack(schema:decode(reply))
    end))
  end
  local _, _, proof = ask("address_request", ("1"):rep(12))
  local empty = core.wire.encode {}
  ask("register", ("2"):rep(12), proof, who.key, who.secret, {}, {}, "app", "host", empty)
  local _, code = ask("room_open", ("3"):rep(12), proof, who.id, who.secret, nil, nil)
  f.on_reply = function(bytes)
    if bytes:byte(2) ~= message.matched.type then return end
    f.sock:send(server.at, message.matched_ack:encode(bytes:sub(input.TX_FROM, input.TX_TO)))
    f.sent = f.sent + 1
  end
  return f, code, proof
end

-- The same mutations from one whose address is proven, who may register, search, open rooms and select.
local function believed(world, server)
  local start = core.now()
  local host, code = host_of(world, server, input.who(3))
  local b = books(world, server, all)
  b.proven = true
  local already = host.sent
  local proof = b.feeder:ask(message.address_request:encode(("p"):rep(12)), function(reply)
    return select(3, message.address_report:decode(reply))
  end)
  b.causes.handled = 1
  local list = input.messages { from = b.from, proof = proof, code = code, target = input.who(3).id }
  -- Last those that would end the registration.
  table.sort(list, function(x, y) return (x.ends and 1 or 0) * 128 + x.type < (y.ends and 1 or 0) * 128 + y.type end)
  for _, m in ipairs(list) do
    if m.schema.request then
      b:send(m.bytes)
      b:mutate(m, 0)
    end
  end
  host:finish()
  b.feeder.sent, b.causes.handled = b.feeder.sent + host.sent - already, b.causes.handled + host.sent - already
  local grown = b:settle()
  b:report("all roles, proven", grown, start)
  local _, info = support.status(server)
  support.say("all roles, proven: registered %d, rooms %d, matched unacknowledged %d", info.registered, info.rooms,
    info.matched_pending)
  for _, name in ipairs { "registered", "listed", "room_opened", "selected", "matched_sent", "matched_acked",
    "registration_refused", "room_guess_wrong", "address_cookie_bad" } do
    assert.is_true(grown[name] > 0, name .. " did not move")
  end
  alive_and_clean(server)
  host:close()
  b.feeder:close()
end

describe("bad input at server processes", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  it("of one role each: they live, count every datagram by its cause, leak nothing, and serve", function()
    local config, servers = world.dir .. "/config.lua", {}
    assert(core.file.write(world.dir .. "/key", ("k"):rep(32)))
    support.write_file(config, ("return require('bodkin').config { key_file = '%s/key' }"):format(world.dir))
    for _, role in ipairs(lone) do
      servers[role] = world:serve(support.asan, role, config)
    end
    for _, role in ipairs(lone) do storm(world, servers[role], role, role .. " alone", WHOLE_LONE) end
    serves(world, servers.address, servers.matching, servers.maintenance)
    for _, server in pairs(servers) do clean_end(server) end
  end)

  it("of all roles: the same", function()
    local server = world:serve(support.asan, all)
    storm(world, server, all, "all roles", WHOLE)
    believed(world, server)
    serves(world, server, server, server)
    clean_end(server)
  end)

  it("answer who proved nothing with at most one reply a request, and never a longer one", function()
    for _, roles in ipairs { "address", "matching", "maintenance", all } do
      local server, told = world:serve(support.release, roles), {}
      for _, entry in ipairs(amplification(world, server, roles)) do
        local reply = entry.replies[1] or ""
        assert.is_true(#entry.replies <= 1, entry.title .. " has several replies")
        assert.is_true(#reply <= entry.asked, ("%s: %d bytes, answered by %d"):format(entry.title, entry.asked,
          #reply))
        if entry.schema.fields[2] and entry.schema.fields[2][1] == "proof" and #reply > 0 then
          assert.equal(message.address_report.type, reply:byte(2), entry.title .. " is believed")
        end
        told[#told + 1] = ("%s %d>%d"):format(entry.title, entry.asked, #reply)
      end
      table.sort(told)
      support.say("%s, bytes asked > answered: %s", roles, table.concat(told, "; "))
    end
  end)

  it("does not make them grow", function()
    for _, roles in ipairs { "address", "matching", "maintenance", all } do
      local server = world:serve(support.release, roles)
      local b = books(world, server, roles)
      local idle = server:rss_kb()
      b:storm(WHOLE_RSS, NOISE)
      b.feeder:finish()
      local half, sent = server:rss_kb(), b.feeder.sent
      b:storm(WHOLE_RSS, NOISE)
      b:settle()
      local whole = server:rss_kb()
      support.say("%s: RSS %d KB idle, %d KB after %d datagrams, %d KB after %d", roles, idle, half, sent, whole,
        b.feeder.sent)
      assert.is_true(whole - half <= GROWTH_KB, ("%s grew by %d KB"):format(roles, whole - half))
      b.feeder:close()
    end
  end)
end)

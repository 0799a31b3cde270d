-- SPDX-License-Identifier: MIT
-- Bad input at real server processes built with ASan and UBSan, one for each role alone and one with all, on
-- loopback: they live, every datagram is counted by its cause, and they serve as before. Memory is watched in the
-- release build. SOAK=1 does the same at greater length.

local core = require "bodkin.core"
local input = require "spec.hostile.input"
local member = require "spec.hostile.member"
local message = require "bodkin.message"
local support = require "spec.hostile.support"

local soak = os.getenv "SOAK"
-- Messages up to this length get all 255 changes of each byte: by what else there is to do.
local WHOLE, WHOLE_LONE, WHOLE_RSS = soak and 1200 or 64, soak and 64 or 40, 0
local NOISE = soak and 10000000 or 1000000
-- Lua's collector lets garbage come to about as much as what lives (some 700 KB here) before it collects: an address
-- server is at its most after three storms, 300 KB above the first. A leak of 8 bytes a datagram would show.
local GROWTH_KB = 384
local SHAPES = soak and 100000 or 5000

local lone, all = { "address", "matching", "maintenance", "relay" }, "address,matching,maintenance,relay"

-- What these roles tell a router: the schemas of the messages that they handle, by type, and whether it is to know
-- associations.
local function handled_by(world, roles)
  local by_type, names, real, place = {}, {}, core.router, {}
  for name in roles:gmatch "%a+" do names[#names + 1] = name end
  local function nothing() end
  local sock = { addr = function() return core.addr.parse "127.0.0.1:1" end, router = nothing, close = nothing }
  core.router = function()
    return {
      on = function(_, schema) by_type[schema.type] = schema end, refuse = nothing, reply_schemas = nothing,
      assocs = function() place.associations = true end, stun = function() place.stun = true end,
      relay = function() place.relay = true end,
    }
  end
  local env = setmetatable({ udp = function() return sock end }, { __index = world.env })
  local server = assert(require("bodkin.servers").open(env, { roles = names, listen = { "127.0.0.1:1" } }))
  core.router = real
  server:close()
  assert(next(by_type), "no handler was seen")
  return by_type, place
end

local TOO_OLD = math.abs(core.errors.too_old.value)

-- Feeds one server and keeps the books: how many datagrams of each cause, and that no reply is more than its request.
local Books = {}
Books.__index = Books

-- `of`: a member, in whose name things are sent, after all that it sent before.
local function books(world, server, roles, of)
  local handled, place = handled_by(world, roles)
  local self = setmetatable({
    world = world, server = server, handled = handled, place = place, causes = {}, asked = {}, heads = {}, too_old = 0,
    member = of, proven = of ~= nil, stream = input.stream("books " .. roles), before = support.status(server),
    more = 0, -- causes than datagrams
  }, Books)
  self.feeder = of and of.f or world:feeder(server.at, function(bytes) self:reply(bytes) end)
  self.feeder.sent, self.feeder.bytes, self.feeder.got, self.feeder.got_bytes = 0, 0, 0, 0
  self.from = self.feeder.from
  return self
end

function Books:count(cause, n) self.causes[cause] = (self.causes[cause] or 0) + (n or 1) end

-- A sender that has not proved its address gets at most one reply to a request, and no more bytes than it sent.
function Books:reply(bytes)
  if bytes:byte() == 0x40 then
    local owed = self.heads[bytes] or 0
    self.heads[bytes] = owed - 1
    if owed < 1 then self.wrong = self.wrong or "a channel that was never asked about, or answered twice" end
    return
  end
  if bytes:byte() <= 3 then -- of STUN's no answer has more than 44 bytes
    if #bytes > 44 then self.wrong = ("a STUN answer of %d bytes"):format(#bytes) end
    return
  end
  local tx = bytes:sub(input.TX_FROM, input.TX_TO) -- where a message has it that is short
  local left = self.asked[tx]
  self.asked[tx] = 0
  local _, code = message.refused:decode(bytes)
  if code == TOO_OLD then self.too_old = self.too_old + 1 end
  if self.proven or self.wrong or (left and left >= #bytes) then return end
  self.wrong = ("a reply of %d bytes, type %d, to %s"):format(#bytes, bytes:byte(2),
    not left and "no request" or left == 0 and "a request answered before" or ("a request of %d"):format(left))
end

function Books:send(bytes)
  local cause, tx = input.cause(bytes, self.handled, self.place)
  self:count(cause)
  if cause == "relay_lost" then
    self.heads[tx] = (self.heads[tx] or 0) + 1
  elseif tx then
    self.asked[tx] = #bytes
  end
  self.feeder:send(bytes)
end

-- Messages, or what pretends to be some, in an association.
function Books:say(plain)
  local list = member.causes(plain, self.handled)
  for _, cause in ipairs(list) do self:count(cause) end
  self.more = self.more + #list - 1
  self.feeder:send(self.member:seal(plain))
end

-- Every mutation of a message, each with a transaction id of its own so that its reply is known.
function Books:mutate(m, whole)
  local function renamed(bytes)
    return bytes:sub(1, input.TX_FROM - 1) .. self.stream(12) .. bytes:sub(input.TX_TO + 1)
  end
  local has_tx = not input.peer[m.name]
  input.mutations(has_tx and renamed(m.bytes) or m.bytes, whole, function(bytes, at)
    local touched = #bytes < input.TX_TO or at and at >= input.TX_FROM and at <= input.TX_TO
    bytes = has_tx and not touched and renamed(bytes) or bytes
    if self.member then self:say(bytes) else self:send(bytes) end
  end)
end

-- Datagrams longer than any of ours; our own sockets send none.
function Books:too_long()
  for _, size in ipairs { 1201, 9000, 60000 } do
    local script = "head -c %d /dev/zero | dd bs=%d iflag=fullblock status=none >/dev/udp/127.0.0.1/%d"
    local text, ok = support.run { "bash", "-c", script:format(size, size, core.addr.port(self.server.at)) }
    assert(ok, text)
    self:count "udp_rx_truncated"
    self.feeder.sent = self.feeder.sent + 1
  end
end

-- All of it, from a sender that proved nothing.
function Books:storm(whole, noise_bytes)
  for _, m in ipairs(input.messages { from = self.from }) do self:mutate(m, whole) end
  for _, bomb in ipairs(input.bombs()) do self:send(bomb) end
  for _, bytes in ipairs(input.stuns()) do
    self:send(bytes)
    input.mutations(bytes, whole, function(changed) self:send(changed) end)
  end
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
    local counts = name:find "^drop_" and name ~= "drop_reply" or name == "udp_rx_truncated"
    if counts or name == "association_lost" or name == "relay_lost" then
      assert.equal(self.causes[name] or 0, value, name)
      sum = sum + value
    end
  end
  local stuns = grown.stun_answered + grown.stun_limited
  assert.equal(self.causes.stun_answered or 0, stuns)
  sum = sum + stuns
  assert.equal(self.feeder.sent + self.more, sum, "datagrams that no counter accounts for")
  assert.is_nil(self.wrong)
  if self.proven then return grown end
  assert.equal(grown.udp_tx, self.feeder.got, "replies that did not come here")
  -- What was handled was answered, or refused an answer, or is of a kind that has none.
  assert.equal(self.causes.handled or 0, self.feeder.got - self.too_old - grown.association_lost - grown.relay_lost
    - grown.stun_answered + grown.refuse_reply + grown.drop_reply + grown.maintained - grown.maintained_confirmed)
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
  for _, name in ipairs(b.place.associations and { "drop_unsealed", "association_lost" } or {}) do
    assert.is_true(grown[name] > 0, name .. " did not move")
  end
  if b.place.stun then assert.is_true(grown.stun_answered > 0 and grown.stun_limited > 0) end
  assert.is_true(b.feeder.got_bytes < b.feeder.bytes)
  alive_and_clean(server)
  b.feeder:close()
end

-- Each request once from one who proved nothing: without a proof, with a changed one, with that of another address.
-- Returns { title =, schema =, asked = its bytes, replies = { bytes, … } }, …
local function amplification(world, server, roles)
  local f, other, stream = world:feeder(server.at), world:feeder(server.at), input.stream "amplification"
  local own, list, by_tx = roles ~= "maintenance" and member.proof(f, roles), {}, {}
  local proofs = { ["no proof"] = false }
  if own then
    proofs["a changed proof"] = own:sub(1, 19) .. string.char(own:byte(20) ~ 1)
    proofs["another's proof"] = member.proof(other, roles)
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
  for _, size in ipairs { 29, 30, 1200 } do -- frames of nobody's
    local tx = stream(12)
    local entry = { title = "a frame", schema = { fields = {} }, asked = size, replies = {} }
    by_tx[tx], list[#list + 1] = entry, entry
    f:send("\xc1" .. tx .. stream(size - 13))
  end
  f:finish()
  support.status(server)
  f:drain()
  f:close()
  other:close()
  return list
end

-- A client that is registered and has opened a room: a member, and the code. It acknowledges what is pushed to it.
local function host_of(world, server, who)
  local host = member.new(world, server, who)
  assert.equal("registered", host:register "host")
  local _, code = host:ask("room_open", nil, nil)
  host.on_message = function(name, values)
    if name ~= "matched" then return end
    host.f.sock:send(server.at, host:seal(message.matched_ack:encode(values[1])))
    host.f.sent = host.f.sent + 1
  end
  return host, code
end

-- The mutations once more from one who has an association, and may register, search, open rooms and select; what no
-- mutation is, too.
local function believed(world, server)
  local start = core.now()
  local host, code = host_of(world, server, input.who(3))
  local m = member.new(world, server, input.who(1))
  local b, already = books(world, server, all, m), host.f.sent
  local list = input.messages { from = b.from, proof = m.proof, code = code, target = input.who(3).id }
  -- Last those that would end the registration.
  table.sort(list, function(x, y) return (x.ends and 1 or 0) * 128 + x.type < (y.ends and 1 or 0) * 128 + y.type end)
  for _, one in ipairs(list) do
    b:say(one.bytes)
    b:mutate(one, 0)
  end
  for _, bomb in ipairs(input.bombs()) do b:say(bomb:sub(1, 1171)) end
  local function say(bytes) b:say(bytes:sub(1, 1171)) end
  input.noise(b.stream, NOISE // 4, true, say)
  input.shapes(b.stream, SHAPES, say)
  for i = 1, 200 do -- several at once, up to one that is none
    local some = {}
    for k = 1, 1 + i % 5 do some[k] = list[1 + b.stream.below(#list)].bytes end
    say(table.concat(some) .. (i % 2 == 0 and b.stream(b.stream.below(20)) or ""))
  end
  host.f:finish()
  b.feeder.sent = b.feeder.sent + host.f.sent - already
  b:count("handled", host.f.sent - already)
  local grown = b:settle()
  b:report("all roles, in an association", grown, start)
  local _, info = support.status(server)
  support.say("all roles, in an association: registered %d, rooms %d, matched unacknowledged %d", info.registered,
    info.rooms, info.matched_pending)
  for _, name in ipairs { "registered", "listed", "room_opened", "selected", "matched_sent", "matched_acked",
    "registration_refused", "room_guess_wrong", "address_cookie_bad", "maintained_confirmed", "drop_stun", "drop_short",
    "drop_msgpack", "drop_unknown", "drop_version", "drop_field" } do
    assert.is_true(grown[name] > 0, name .. " did not move")
  end
  assert.equal(0, grown.drop_unsealed)
  alive_and_clean(server)
  host:close()
  m:close()
end

-- Every change of a frame that is authentic: none is taken for it. Then it itself is, once.
local function changed_frames(b, m)
  local before = b.causes.handled or 0
  local frame = m:seal(message.list:encode(("l"):rep(12), "app", core.wire.encode {}, nil, false))
  local counter = string.unpack(">I7", frame, 7)
  input.mutations(frame, soak and 1200 or 0, function(bytes, at)
    if #bytes < 29 or at and at < 6 then return b:send(bytes) end
    b:count(string.unpack(">I7", bytes, 7) < counter and "drop_replay" or "drop_frame")
    b.feeder:send(bytes)
  end)
  assert.equal(before, b.causes.handled or 0)
  b:count "handled"
  b.feeder:send(frame)
  b:count "drop_replay"
  b.feeder:send(frame)
end

-- A member's frames from another place: it is asked there, in no more bytes than it sent, and nothing is acted on until
-- it has answered there.
local function moved(world, b, m)
  local other, asked, replies = world:feeder(b.server.at), {}, {}
  other.on_reply = function(bytes) replies[#replies + 1] = bytes end
  local function from_there(bytes, cause)
    other:send(bytes)
    other:finish()
    b.feeder.sent = b.feeder.sent + 1
    if cause then b:count(cause) else b.more = b.more - 1 end
  end
  for size = 0, 20 do -- an empty message is the shortest frame
    local frame, before = m:seal(("\x90"):rep(size)), #replies
    from_there(frame, size < 8 and "drop_state")
    support.status(b.server)
    other:drain()
    assert.equal(size < 8 and before or before + 1, #replies, size)
    if replies[before + 1] then
      assert.is_true(#replies[before + 1] <= #frame)
      asked[#asked + 1] = replies[before + 1]
    end
  end
  local answers = {}
  for i = 1, 3 do
    local kind, answer = m.raw:read(asked[i])
    assert.equal("challenge", kind)
    answers[i] = answer
  end
  b:count "drop_state" -- from where it always was
  b.feeder:send(answers[1])
  b.feeder:finish()
  input.mutations(answers[2], 0, function(bytes, at)
    if not at or at < 6 or at >= 7 and at <= 13 then return end
    from_there(bytes, "drop_frame")
  end)
  from_there(answers[2]) -- and now it is there
  from_there(answers[2], "drop_replay")
  from_there(answers[3], "drop_state")
  from_there(m:seal(message.unregister:encode(("u"):rep(12))), "handled")
  other:close()
end

-- Handshakes with a proof that is good: every change of a first message, changed requests in one, a second time, and
-- one inside the other.
local function handshakes(b, m)
  local who, n = input.who(5), 0
  local function open(noise, tx)
    n = n + 1
    return assert(message.open:encode(tx or ("%012d"):format(n), m.proof, noise))
  end
  local raw, noise = member.handshake(b.server, who, message.list:encode(("l"):rep(12), "app", "\x80", nil, false))
  input.mutations(noise, 0, function(bytes)
    if #bytes < 100 then return end -- no `open` has so few
    b:count "handled"
    b.feeder:send(open(bytes))
  end)
  local opening, answers = open(noise, ("o"):rep(12)), {}
  b.feeder:finish()
  local before, read = support.status(b.server), b.feeder.on_reply
  b.feeder.on_reply = function(bytes)
    read(bytes)
    local tx, answer = message.opened:decode(bytes)
    if tx == ("o"):rep(12) then answers[#answers + 1] = answer end
  end
  local function again(bytes)
    b:count "handled"
    b.feeder:send(bytes)
    b.feeder:finish()
    support.status(b.server)
    b.feeder:drain()
  end
  b:count "handled" -- the list in it
  b.more = b.more + 1
  again(opening)
  again(opening)
  assert.equal(2, #answers)
  assert.equal(answers[1], answers[2])
  local messages = assert(raw:answered(answers[1]))
  assert.is_truthy(message.page:decode(messages))
  b:count "handled"
  b.feeder:send(raw:write(message.list:encode(("k"):rep(12), "app", "\x80", nil, false)))
  again(opening) -- it was used meanwhile, so this is a copy
  assert.equal(2, #answers)
  local grown = support.growth(before, (support.status(b.server)))
  assert.equal(1, grown.associated)
  assert.equal(1, grown.association_refused)
  -- One in a frame, and one in another's first message: whoever is asked has an association already.
  local _, inner = member.handshake(b.server, who, "", "inner")
  local refused
  m.on_message = function(name, values) refused = refused or name == "refused" and values[2] end
  b:say(open(inner))
  local outer_raw, outer = member.handshake(b.server, who, open(inner), "outer")
  b.more = b.more + 1
  b:count "handled"
  again(open(outer, ("o"):rep(12)))
  assert.equal(math.abs(core.errors.invalid.value), refused)
  local _, code = message.refused:decode(assert(outer_raw:answered(answers[3])))
  assert.equal(math.abs(core.errors.invalid.value), code)
  -- Bad messages in it, each in an association of its own.
  local bytes = input.messages { from = b.from, me = who }
  for _, one in ipairs(bytes) do
    if one.name == "register" or one.name == "select" then
      local i = 0
      input.mutations(one.bytes, 0, function(changed)
        i = i + 1
        if i % (soak and 1 or 5) ~= 0 then return end
        local list = changed == "" and {} or member.causes(changed, b.handled)
        for _, cause in ipairs(list) do b:count(cause) end
        b.more = b.more + #list
        b:count "handled"
        b.feeder:send(open(select(2, member.handshake(b.server, who, changed, one.name .. i))))
      end)
    end
  end
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

  it("take no change of a handshake or of a frame for authentic, and follow nobody who has not answered", function()
    local config = world.dir .. "/config.lua"
    support.write_file(config, "return require('bodkin').config { limits = { handshakes = 1000000, "
      .. "handshakes_each = 1000000, associations_each = 1000000 } }")
    local server, start = world:serve(support.asan, all, config), core.now()
    local m = member.new(world, server, input.who(1))
    assert.equal("registered", m:register "ann")
    local b = books(world, server, all, m)
    changed_frames(b, m)
    handshakes(b, m)
    moved(world, b, m)
    local grown = b:settle()
    b:report("handshakes and frames", grown, start)
    support.say("handshakes and frames: %s", support.listed(grown, "^associat"))
    assert.equal(1, grown.client_moved)
    assert.equal(1, grown.unregistered)
    m:close()
    serves(world, server, server, server)
    clean_end(server)
  end)

  it("answer who proved nothing with at most one reply a request, and never a longer one", function()
    for _, roles in ipairs { "address", "matching", "maintenance", "relay", all } do
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
    for _, roles in ipairs { "address", "matching", "maintenance", "relay", all } do
      local server = world:serve(support.release, roles)
      local b = books(world, server, roles)
      local idle = server:rss_kb()
      b:storm(WHOLE_RSS, NOISE)
      b.feeder:finish()
      -- What leaks does so each time; what the machine's other work makes resident does not.
      local before, grown, sent = server:rss_kb(), nil, b.feeder.sent
      for _ = 1, 3 do
        b:storm(WHOLE_RSS, NOISE)
        b.feeder:finish()
        local after = server:rss_kb()
        support.say("%s: RSS %d KB idle, %d KB after %d datagrams, %d KB after %d", roles, idle, before, sent, after,
          b.feeder.sent)
        before, grown, sent = after, after - before, b.feeder.sent
        if grown <= GROWTH_KB then break end
      end
      b:settle()
      assert.is_true(grown <= GROWTH_KB, ("%s grew by %d KB"):format(roles, grown))
      b.feeder:close()
    end
  end)
end)

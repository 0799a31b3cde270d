-- SPDX-License-Identifier: MIT
-- Bad input at real clients built with ASan and UBSan, on loopback: from strangers, from a peer that holds the match
-- key, from the server's own address, and from the server itself.

local addresses = require "bodkin.servers.addresses"
local core = require "bodkin.core"
local input = require "spec.hostile.input"
local member = require "spec.hostile.member"
local message = require "bodkin.message"
local servers = require "bodkin.servers"
local url = require "bodkin.url"
local support = require "spec.hostile.support"

local addr = core.addr
local soak = os.getenv "SOAK"
local WHOLE = soak and 64 or 40
local NOISE = soak and 10000000 or 1000000
local SHAPES = soak and 100000 or 5000

-- What a client reads from servers: what its managers tell a router. And from peers.
local replies, probes = {}, {}
local router = { on = function(_, schema) replies[schema.type] = schema end }
function router.reply_schemas() end
function router.frames() end
function router.stun() end
require("bodkin.client.request").new { router = router }
require("bodkin.client.association").new { router = router, identity = { key = "", key_secret = "" } }
require("bodkin.client.sharing").new { router = router }
require("bodkin.client.relays").new { router = router }
require("bodkin.client.roaming").new { router = router }
for _, schema in pairs(input.peer) do probes[schema.type] = schema end

-- What a client must count a stranger's datagram as. All are dropped: replies answer no request of ours to there,
-- and probes are not authentic.
local function cause_of(bytes)
  local first, second = bytes:byte(1, 2)
  local probe = second and first & 0xf0 == 0x90 and probes[second]
  local cause = input.cause(bytes, probe and probes or replies, { sessions = true })
  if cause ~= "handled" then return cause end
  return probe and "drop_probe" or "drop_reply"
end

local dropping = { "drop_short", "drop_stun", "drop_msgpack", "drop_unknown", "drop_version", "drop_field",
  "drop_unsealed", "drop_probe", "drop_confirm", "drop_frame", "drop_replay", "drop_state", "drop_reply",
  "udp_rx_truncated" }

local function dropped(grown)
  local sum = 0
  for _, name in ipairs(dropping) do sum = sum + grown[name] end
  return sum
end

-- All that a stranger can throw, through send(bytes).
local function storm(from, stream, send)
  for _, m in ipairs(input.messages { from = from }) do input.mutations(m.bytes, WHOLE, send) end
  for _, bomb in ipairs(input.bombs()) do send(bomb) end
  input.noise(stream, NOISE, false, send)
  input.noise(stream, NOISE, true, send)
  input.shapes(stream, SHAPES, send)
end

describe("bad input at a client process", function()
  local world, server
  before_each(function()
    world = support.world()
    server = world:serve(support.release, "address,matching,maintenance")
  end)
  after_each(function() world:close() end)

  -- A client that tells its counters: .at, .code.
  local function agent(binary, code, at)
    local admin = ("%s/agent-%d"):format(world.dir, #world.processes + 1)
    local p = world:start { binary, "run", "spec/hostile/agent.lua", at or server.url, admin, code }
    p.at, p.admin = assert(addr.parse(p:expect '"public":%["([^"]+)"')), admin
    p.id = core.crypto.unhex(p:stdout():match '"id":"([^"]+)"')
    p.room = p:stdout():match '"code":"([^"]+)"'
    return p
  end

  local function tell(p, line)
    local answer
    local stream = assert(world.env.loop:connect(p.admin))
    stream:on_line(function(text) answer = answer or text or "closed" end)
    stream:write(line .. "\n")
    world:wait("an answer to " .. line, 3000, function() return answer end)
    stream:close()
    return answer
  end

  -- The agent ends with all its memory given back and nothing said.
  local function clean_end(p)
    assert.is_nil(p:code(), p:stderr())
    tell(p, "quit")
    assert.equal(0, p:wait(), p:stderr())
    assert.equal("", p:stderr())
  end

  it("from strangers: bodkin host lives, answers none of it, and is joined", function()
    local flags = { "--server", server.url, "--json", "--send", "hello", "--expect", "1", "--timeout", "600" }
    local host = world:start { support.asan, "host", "--bind", "127.0.0.1:0", table.unpack(flags) }
    local code = host:expect '"code":"([^"]+)"'
    local f = world:feeder(assert(addr.parse(host:expect '"public":%["([^"]+)"')))
    local start = core.now()
    storm(f.from, input.stream "host", function(bytes) f:send(bytes) end)
    f:finish()
    local _, lost = support.backlog(f.to)
    support.say("bodkin host: %d datagrams, %d bytes in %.1f s, %d lost; %d replies", f.sent, f.bytes,
      (core.now() - start) / 1e6, lost, f.got)
    assert.equal(0, f.got)
    assert.is_nil(host:code(), host:stderr())
    local join = world:start { support.release, "join", code, table.unpack(flags) }
    assert.equal(0, host:wait(12000), host:stdout() .. host:stderr())
    assert.equal(0, join:wait(12000), join:stdout() .. join:stderr())
    assert.matches('"data":"hello"', host:stdout())
    assert.equal("", host:stderr())
  end)

  it("from strangers: every datagram is counted by its cause", function()
    local client = agent(support.asan)
    local f, causes, before = world:feeder(client.at), {}, support.status(client)
    storm(f.from, input.stream "agent", function(bytes)
      local cause = cause_of(bytes)
      causes[cause] = (causes[cause] or 0) + 1
      f:send(bytes)
    end)
    f:finish()
    local grown = support.growth(before, (support.status(client)))
    support.say("client: %d datagrams; %s", f.sent, support.listed(grown, "^drop"))
    for _, name in ipairs(dropping) do assert.equal(causes[name] or 0, grown[name], name) end
    assert.equal(f.sent, dropped(grown))
    local own = grown.udp_rx - f.sent -- its server's confirmations, meanwhile
    assert.is_true(own >= 0 and own <= 8, own .. " datagrams of others")
    assert.equal(0, grown.handler_error)
    assert.equal(0, f.got)
    clean_end(client)
  end)

  it("from strangers: it does not grow", function()
    local client = agent(support.release)
    local f, stream = world:feeder(client.at), input.stream "growth"
    local function half()
      storm(f.from, stream, function(bytes) f:send(bytes) end)
      f:finish()
      return client:rss_kb()
    end
    local idle, first, sent, second = client:rss_kb(), half(), f.sent, half()
    support.say("client: RSS %d KB idle, %d KB after %d datagrams, %d KB after %d", idle, first, sent, second, f.sent)
    assert.is_true(second - first <= 256, ("it grew by %d KB"):format(second - first))
  end)

  describe("from a peer that holds the match key:", function()
    local client, peer, f, mux, session, inbox, outbox

    -- Selects the client's room, as a client would, and makes a session of our own by hand.
    local function meet()
      client = agent(support.asan)
      inbox, outbox, peer = {}, {}, input.who(7)
      local m, told = member.new(world, server, peer), nil
      m.on_message = function(name, values) told = told or name == "matched" and values end
      m:ask("select", peer.ephemeral, nil, client.room, {}, {}, "app", "", core.wire.encode {}, nil)
      world:wait("a match", 3000, function() return told end)
      local _, match, key, peer_key, peer_ephemeral = table.unpack(told)
      f = m.f
      f.to = client.at
      f.on_reply = function(bytes) inbox[#inbox + 1] = bytes end
      mux = core.mux { seed = ("s"):rep(32), counters = core.counters() }
      session = assert(mux:add(core.now(), {
        match = match, key = key, self = peer.id, peer = core.crypto.id(peer_key), own = peer.key .. peer.secret,
        own_ephemeral = peer.ephemeral .. peer.ephemeral_secret, peer_key = peer_key, peer_ephemeral = peer_ephemeral,
        candidates = { { client.at, "host", 1 } },
      }))
    end

    -- What came goes into the mux, and out what it has to say, but for what is `wanted`: the first is returned.
    local function pump(wanted)
      local taken
      for _, bytes in ipairs(inbox) do
        local first = bytes:byte()
        if first == 0xc1 or first & 0xf0 == 0x90 then mux:input(core.now(), 1, client.at, nil, bytes) end
      end
      inbox = {}
      mux:tick(core.now())
      while true do
        local kind, _, x, bytes = mux:next() -- x: where to, or an event's
        if not kind then break end
        if kind == "send" and x == client.at then outbox[#outbox + 1] = bytes end
        if kind == "message" then peer.heard = x end
        if kind == "connected" then peer.connected = true end
        if kind == "path" then peer.confirmed = true end
      end
      for _, bytes in ipairs(outbox) do
        if wanted and wanted(bytes) then taken = taken or bytes else f.sock:send(client.at, bytes) end
      end
      outbox = {}
      return taken
    end

    local function await(what, fn)
      return world:wait(what, 5000, function() return pump() or fn() end)
    end

    local function count(name) return (support.status(client))[name] end

    -- Sends every change of an authentic datagram: all are dropped, none as authentic, and `counter` does not move.
    local function try(name, bytes, counter)
      f:finish() -- what was sent before is not counted here
      local before, sent = support.status(client), 0
      input.mutations(bytes, 1200, function(changed)
        f:send(changed)
        sent = sent + 1
      end)
      f:finish()
      local grown = support.growth(before, (support.status(client)))
      support.say("%s of %d bytes: %d changes; %s", name, #bytes, sent, support.listed(grown, "^drop"))
      assert.equal(sent, dropped(grown), name)
      assert.equal(0, grown.drop_confirm + grown.drop_state, name)
      assert.equal(0, grown[counter], counter)
      assert.equal(0, grown.handler_error)
    end

    -- The same, and that it itself is taken then.
    local function try_all(name, bytes, counter)
      try(name, bytes, counter)
      local before = count(counter)
      f:send(bytes)
      f:finish()
      assert.is_true(count(counter) > before, "the unchanged " .. name .. " was not taken")
    end

    local function is_probe(kind)
      return function(bytes) return bytes:byte() == 0x90 | #input.peer[kind].fields + 2 and
        bytes:byte(2) == input.peer[kind].type end
    end

    it("no change of a test, confirm or frame is taken for authentic", function()
      meet()
      local test = assert(pump(is_probe "test"))
      try_all("test", test, "test_received")
      local confirm = world:wait("a confirm of ours", 5000, function() return pump(is_probe "confirm") end)
      try("confirm", confirm, "confirm_received") -- it may be too old by then; later ones are taken
      await("connected and confirmed", function() return peer.connected and peer.confirmed end)
      await("a confirm of ours taken", function() return count "confirm_received" > 0 end)
      assert(mux:send(core.now(), session, "true words"))
      local frame = assert(pump(function(bytes) return bytes:byte() == 0xc1 and bytes:byte(6) == 0 end))
      try_all("data frame", frame, "frame_received")
      local _, info = support.status(client)
      assert.equal("true words", info.heard)
      assert.matches("true", tell(client, "send well heard"))
      await("an answer", function() return peer.heard == "well heard" end)
      mux:leave(core.now(), session)
      local close = assert(pump(function(bytes) return bytes:byte() == 0xc1 and bytes:byte(6) == 5 end))
      try_all("close frame", close, "session_closed")
      clean_end(client)
    end)
  end)

  -- Between a client and its server; says everything the server says, but changed as well.
  local function liar()
    local queue, lied, causes, sent, frames = {}, {}, {}, 0, {}
    local down, up
    local eavesdropper = world:feeder()
    down = world:feeder(nil, function(bytes, from)
      down.to = down.to or from
      if bytes:byte() == 0xc1 then frames[#frames + 1] = bytes end
      up.sock:send(server.at, bytes)
    end)
    up = world:feeder(server.at, function(bytes, from)
      if from == server.at then queue[#queue + 1] = bytes end
    end)
    local function count(cause)
      causes[cause], sent = (causes[cause] or 0) + 1, sent + 1
    end
    local function lie(bytes)
      local cause = cause_of(bytes)
      if cause == "drop_reply" then return false end
      count(cause)
      down:send(bytes)
      return true
    end
    -- How often each was changed: frames several times, since much is in them.
    local function is_new(bytes)
      local what, most = bytes:byte(2), 1
      if bytes:byte() == 0xc1 then what, most = "frame", 6 end
      lied[what] = (lied[what] or 0) + 1
      return lied[what] <= most
    end
    -- First what cannot be read, and an answer to the handshake that is forged; then the truth, then what can be read,
    -- which comes too late.
    local function relay(bytes)
      local readable = {}
      if is_new(bytes) then
        -- Who sees the transaction id but sends from elsewhere is not believed either.
        eavesdropper.to = down.to
        eavesdropper:send(message.refused:encode(bytes:sub(input.TX_FROM, input.TX_TO), 1001, "go away"))
        eavesdropper:finish()
        local last = bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1)
        input.mutations(bytes, WHOLE, function(changed)
          if changed == last and message.opened:decode(bytes) then
            down:send(changed)
          elseif not lie(changed) then
            readable[#readable + 1] = changed
          end
        end)
      end
      down:send(bytes)
      for _, changed in ipairs(readable) do down:send(changed) end
      if #readable > 0 then down:finish() end
    end
    world.idle = function()
      while queue[1] do relay(table.remove(queue, 1)) end
    end
    return down, causes, function() return sent end, frames
  end

  local function info_of(p) return select(2, support.status(p)) end

  local function both_connected(one, other)
    world:wait("both are connected", 8000, function()
      return info_of(one).connected > 0 and info_of(other).connected > 0
    end)
  end

  local function hears(p, from, text)
    assert.matches("true", tell(from, "send " .. text))
    world:wait(text, 3000, function() return info_of(p).heard:find(text, 1, true) end)
  end

  it("from its server's address: it registers, hosts, is matched and keeps its peer all the same", function()
    local down, causes, sent, frames = liar()
    local start, before = core.now(), support.status(server)
    local client = agent(support.asan, nil, url.format("127.0.0.1", addr.port(down.from), { server.key }))
    assert.is_true(core.now() - start < 2500000, "what was forged held it up")
    assert.equal(1, support.growth(before, (support.status(server))).associated)
    local peer = agent(support.release, client.room)
    both_connected(client, peer)
    for _, m in ipairs(input.messages { from = down.from }) do -- in the plain
      input.mutations(m.bytes, 0, function(changed)
        local cause = cause_of(changed)
        causes[cause] = (causes[cause] or 0) + 1
        down:send(changed)
      end)
    end
    down:finish()
    local counters = support.status(client)
    support.say("client of a liar: %d lies; %s", sent(), support.listed(counters, "^drop"))
    assert.is_true(causes.drop_unsealed > 1000 and causes.drop_frame > 1000)
    for _, name in ipairs(dropping) do
      -- Changed replies that can be read answer no request any more; the peer's tests may come before `matched`.
      local also = name == "drop_reply" or name == "drop_probe"
      assert.is_true(counters[name] == (causes[name] or 0) or also and counters[name] > (causes[name] or 0), name)
    end
    hears(client, peer, "still there")
    clean_end(client)
    clean_end(peer)
    assert.is_true(#frames > 2)
  end)

  it("that its association is lost: it opens another, at most one a second, and stays registered", function()
    local down, _, _, frames = liar()
    local client = agent(support.asan, nil, url.format("127.0.0.1", addr.port(down.from), { server.key }))
    local before, start = support.status(server), core.now()
    local function grown(name) return support.growth(before, (support.status(server)))[name] end
    while core.now() - start < 3000000 do
      for i = 1, 20 do down:send(message.lost:encode(frames[math.max(1, #frames - i)]:sub(2, 13))) end
      world:turn(50)
      if world.idle then world.idle() end
    end
    world:wait("it to be registered", 5000, function() return grown "registered" >= 1 end)
    local seconds = (core.now() - start) / 1e6
    support.say("client told in vain that its association is lost, for %.1f s: %d others opened, %d registrations",
      seconds, grown "associated", grown "registered")
    assert.is_true(grown "associated" >= 1 and grown "associated" <= seconds + 1)
    local peer = agent(support.release, client.room)
    both_connected(client, peer)
    clean_end(client)
    clean_end(peer)
  end)

  -- A server in this process, who says what he likes to a client that trusts his key: through .f, sealed for `client`,
  -- once aim() has found it.
  local function traitor()
    local self = { server = assert(servers.open(world.env, { listen = { "127.0.0.1:0" } })), f = world:feeder() }
    local s = self.server
    self.url = url.format("127.0.0.1", addr.port(s:addresses()[1]), s.public_keys)
    function self.aim(client)
      local sock = self.f.sock
      self.sink, self.f.to = sock:addr(), client.at
      self.f.sock = {
        send = function(_, _, bytes)
          local assoc, ephemeral = addresses.unpack(s.registry:get(client.id).addrs)
          self.ephemeral = ephemeral
          return s:push_bytes(assoc, bytes)
        end,
        close = function() sock:close() end,
      }
    end
    return self
  end

  it("from its server itself: it counts what it cannot read, bears false matches, and keeps its peer", function()
    local t = traitor()
    local client = agent(support.asan, nil, t.url)
    local peer = agent(support.release, client.room, t.url)
    both_connected(client, peer)
    t.aim(client)
    local before, causes, stream = support.status(client), {}, input.stream "traitor"
    -- What a server tells unasked, here of tickets, rooms and watches that the client does not have.
    local function of_nothing(bytes)
      for _, name in ipairs { "proposed", "waiting", "ended", "room_host", "changed" } do
        if message[name]:decode(bytes) then return "of nothing" end
      end
    end
    local function say(plain)
      if #plain > 1171 then return end
      local list, pieces = member.causes(plain, replies)
      for i, cause in ipairs(list) do
        if cause == "handled" then
          cause = message.matched:decode(pieces[i]) and "a match" or message.whereabouts:decode(pieces[i]) and "told"
            or of_nothing(pieces[i]) or "drop_reply"
        end
        causes[cause] = (causes[cause] or 0) + 1
      end
      t.f:send(plain)
    end
    t.f:send(assert(message.done:encode(("0"):rep(12)))) -- and now the client's ephemeral is known
    causes.drop_reply = 1
    local me = setmetatable({ ephemeral = t.ephemeral }, { __index = input.who(1) })
    local list, matched = input.messages { from = t.sink, me = me }, nil
    for _, m in ipairs(list) do
      if m.name == "matched" then matched = m.bytes end
      say(m.bytes)
      input.mutations(m.bytes, 0, say)
    end
    for _, bomb in ipairs(input.bombs()) do say(bomb) end
    input.noise(stream, NOISE // 4, true, say)
    input.shapes(stream, SHAPES, say)
    for i = 1, 200 do
      local some = {}
      for k = 1, 1 + i % 5 do
        local m = list[1 + stream.below(#list)]
        some[k] = m.name == "matched" and "" or m.bytes
      end
      say(table.concat(some) .. (i % 2 == 0 and stream(stream.below(20)) or ""))
    end
    t.f:finish()
    local grown = support.growth(before, (support.status(client)))
    support.say("client of a traitor: %d messages; %s", t.f.sent, support.listed(grown, "^drop"))
    -- Where the peer of a false match is the client hears while it looks for that one.
    local told = grown.drop_reply - causes.drop_reply
    assert.is_true(told >= 0 and told <= causes.told, told .. " of " .. causes.told)
    grown.drop_reply = causes.drop_reply
    for _, name in ipairs(dropping) do assert.equal(causes[name] or 0, grown[name], name) end
    -- Matches with nobody, as many as there are ways to say so.
    local false_matches = 0
    input.mutations(matched, 0, function(changed, at)
      if at and at < input.MATCHED_TX_FROM then return end
      if #changed < #matched or not message.matched:decode(changed) then return end
      t.f:send(changed:sub(1, input.MATCHED_TX_FROM - 1) .. stream(12) .. changed:sub(input.MATCHED_TX_TO + 1))
      false_matches = false_matches + 1
    end)
    t.f:finish()
    local info = info_of(client)
    support.say("client of a traitor: %d false matches; %d matches, %d sessions", false_matches, info.matches,
      info.sessions)
    assert.is_true(false_matches > 500)
    assert.is_true(info.sessions > 100 and info.sessions <= 256)
    hears(client, peer, "still there")
    assert.equal(0, (support.status(client)).handler_error)
    if soak then -- after 10 s all of them are given up, and there is room for others
      world:wait("an end of the false matches", 20000, function() return info_of(client).sessions == 1 end)
      local other = agent(support.release, client.room, t.url)
      world:wait("another peer", 8000, function() return info_of(other).connected > 0 end)
      clean_end(other)
    end
    clean_end(client)
    clean_end(peer)
    t.server:close()
  end)
end)

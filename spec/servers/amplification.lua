-- SPDX-License-Identifier: MIT
-- What comes back for each byte from an address that proved nothing: every message, in every size, at a server and at
-- a client, on virtual time; and what an eavesdropper overheard between two peers, sent again from elsewhere. What is
-- sent to anybody counts, and what is sent later, too.
--
--   local rows = amplification.measure()
--   print(amplification.markdown(rows), amplification.worst(rows))

local core = require "bodkin.core"
local input = require "spec.hostile.input"
local message = require "bodkin.message"
local node = require "bodkin.client.node"
local servers = require "bodkin.servers"
local support = require "spec.servers.support"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local addr = core.addr

local M = {}

local DATAGRAM = 1200
local LATER_MS = 12000 -- repeats of `matched` end before
local STUN = input.STUN
local NETWORKS = 200 -- that ask by STUN, so that each keeps within what it may
local OTHER_VERSION = "\x02"

-- The message without its pad, or nil when it has none: a pad is the last field, a bin of zeros.
local function without_pad(m)
  local last = m.schema.fields[#m.schema.fields]
  if not last or last[2] ~= "pad" then return nil end
  for n = 0, 255 do
    local tail = "\xc4" .. string.char(n) .. ("\0"):rep(n)
    if m.bytes:sub(-#tail) == tail then return m.bytes:sub(1, -#tail - 1) end
  end
end

-- Calls fn(bytes) for a message in every size it may have, in this version and another; then, if `malformed`, cut and
-- lengthened to every size there is.
local function each_size(m, stream, malformed, fn)
  local bare = without_pad(m)
  local function both(bytes)
    fn(bytes)
    fn(bytes:sub(1, 2) .. OTHER_VERSION .. bytes:sub(4))
  end
  both(m.bytes)
  for n = 0, bare and DATAGRAM - #bare - 2 or -1 do
    local head = n < 256 and string.pack(">BB", 0xc4, n) or string.pack(">BI2", 0xc5, n)
    if #bare + #head + n <= DATAGRAM then both(bare .. head .. ("\0"):rep(n)) end
  end
  for n = 0, malformed and DATAGRAM or -1 do
    fn(#m.bytes >= n and m.bytes:sub(1, n) or m.bytes .. stream(n - #m.bytes))
  end
end

-- Frames and random bytes of every size.
local function each_random(stream, first, fn)
  first = first or ""
  for n = #first, DATAGRAM do fn(first .. stream(n - #first)) end
end

-- A row of the table. fed: datagrams; request: the shortest that was answered; reply: the longest sent for one;
-- ratio: the worst, of bytes sent to bytes received.
local function new_row(place, name)
  return { place = place, name = name, fed = 0, reply = 0, ratio = 0 }
end

local function add(row, asked, sent)
  row.fed = row.fed + 1
  if sent == 0 then return end
  row.request = math.min(row.request or asked, asked)
  row.reply = math.max(row.reply, sent)
  row.ratio = math.max(row.ratio, asked > 0 and sent / asked or math.huge)
end

-- STUN requests of every size, whose attribute may be skipped, and whose must be understood; cut and lengthened; over
-- IPv4 and IPv6.
local function each_stun(fn)
  local turn = 0
  local function both(bytes)
    turn = turn + 1
    fn(bytes, support.addr(("100.64.%d.1:9"):format(turn % NETWORKS)))
    fn(bytes, support.addr(("[2001:db8:0:%x00::1]:9"):format(turn % NETWORKS)))
  end
  both(STUN)
  for n = 0, DATAGRAM - #STUN - 4, 4 do
    for _, attribute in ipairs { "\x80\x22", "\x40\x01" } do
      both("\0\1" .. string.pack(">I2", n + 4) .. STUN:sub(5) .. attribute .. string.pack(">I2", n) .. ("\0"):rep(n))
    end
  end
  for n = 0, DATAGRAM do both(#STUN >= n and STUN:sub(1, n) or STUN .. ("\0"):rep(n - #STUN)) end
end

-- --- the server

-- A server with clients; what each of its messages needs to succeed, for input.messages.
local function populated()
  local s = support.server { expose_addresses = true }
  local one, two = support.addr "198.51.100.1:4001", support.addr "198.51.100.2:4001"
  s:register(support.who(1), one)
  s:register(support.who(2), two)
  local room = s:room(support.who(1), one)
  return s, { me = support.who(1), target = support.who(2).id, code = room.code, match = room.match, other = two }
end

-- Each datagram comes from an address of its own, so that no bound on one address spares the answer.
local function stranger(turn)
  return addr.with_port(support.addr(("203.0.113.%d:1"):format(1 + turn // 60000)), 1024 + turn % 60000)
end

local function feed(s, row, turn, bytes, from)
  local sent = 0
  s.env.sent = {}
  s.env.socks[1].to_router:input(s.env.socks[1], from or stranger(turn), bytes)
  for _, d in ipairs(s.env.sent) do sent = sent + #d.bytes end
  add(row, #bytes, sent)
end

-- After all of it: what a server was made to send later must not be for nothing.
local function later(s, row)
  s.env.sent = {}
  s.env.loop:advance(LATER_MS * 1000)
  for _, d in ipairs(s.env.sent) do row.ratio, row.reply = math.huge, math.max(row.reply, #d.bytes) end
end

-- Both ends of a pair open a server's relay; their channels.
local function relayed(s)
  local out, tickets = {}, table.pack(s.server.tickets:make(("p"):rep(16)))
  for i, at in ipairs { support.addr "198.51.100.1:4001", support.addr "198.51.100.2:4001" } do
    local open = message.relay_open:encode(("t"):rep(12), s:proof(at), tickets[i], i, "hello")
    s.env.sent = {}
    s.env.socks[1].to_router:input(s.env.socks[1], at, assert(open))
    out[i] = select(2, assert(message.relay_opened:decode(s.env.sent[1].bytes)))
  end
  return out
end

-- From those who know nothing, those who know what a client knows, and those with the proof of another's address.
local stances = {
  function() return {} end,
  function(_, known) return known end,
  function(s, known) return setmetatable({ proof = s:proof(known.other) }, { __index = known }) end,
}

function M.at_server(rows)
  local stream = input.stream "amplification"
  local turn = 0
  local function batch(row, s, each)
    each(function(bytes, from)
      turn = turn + 1
      feed(s, row, turn, bytes, from)
    end)
    later(s, row)
    s.server:close()
  end
  for i, m in ipairs(input.messages { from = stranger(0) }) do
    local row = new_row("server", m.name)
    rows[#rows + 1] = row
    for k, stance in ipairs(stances) do
      local s, known = populated()
      local options = setmetatable({ from = stranger(0) }, { __index = stance(s, known) })
      batch(row, s, function(fn) each_size(input.messages(options)[i], stream, k == 2, fn) end)
    end
  end
  local function others(name, each, exempt)
    rows[#rows + 1] = new_row("server", name)
    rows[#rows].exempt = exempt
    batch(rows[#rows], populated(), each)
  end
  others("STUN Binding", each_stun, true)
  -- A client lets others seem to send what it seals itself.
  local s = populated()
  local raw = s:assoc(support.who(1), support.addr "198.51.100.1:4001").raw
  rows[#rows + 1] = new_row("server", "frame of a client, from elsewhere")
  batch(rows[#rows], s, function(fn)
    for n = 0, DATAGRAM - 29 do fn(raw:write(("\xc0"):rep(n))) end
  end)
  others("relayed (0x40)", function(fn) each_random(stream, "\x40", fn) end)
  s = populated()
  local channels = relayed(s)
  rows[#rows + 1] = new_row("server", "relayed, on a channel of others")
  batch(rows[#rows], s, function(fn)
    for _, channel in ipairs(channels) do each_random(stream, (">Bc4"):pack(0x40, (">I4"):pack(channel)), fn) end
  end)
  others("frame (0xC1)", function(fn) each_random(stream, "\xc1", fn) end)
  others("random bytes", function(fn) each_random(stream, nil, fn) end)
  others("bombs", function(fn)
    for _, bomb in ipairs(input.bombs()) do
      if bomb ~= STUN then fn(bomb) end
    end
  end)
end

-- --- the client

local SERVER = addr.parse("198.51.100.10:4433", 0)

-- How many bytes `from` sent to each address, by a world's record of datagrams.
local function watch(world)
  local sent, record = {}, world.net.record
  world.net.record = function(event, src, dst, bytes)
    record(event, src, dst, bytes)
    if event == "send" then
      sent[src] = sent[src] or {}
      sent[src][dst] = (sent[src][dst] or 0) + #bytes
    end
  end
  return function(src, dst) return sent[src] and sent[src][dst] or 0 end
end

-- Two clients that have met; the world, the first of them, its host's counters, and fn() to end it all.
local function with_clients()
  local world = worlds.new { seed = 7, delay_ms = 0, trace = false }
  local server = assert(servers.open(world:host({ name = "server", ip = "198.51.100.10" }).env, {
    listen = { "198.51.100.10:4433" },
  }))
  local nodes, hosts = {}, {}
  for i = 1, 2 do
    hosts[i] = world:host { name = "client" .. i, ip = "203.0.113." .. i }
    task.spawn(function()
      nodes[i] = assert(node.open { env = hosts[i].env, server = "bodkin://server", server_keys = server.public_keys,
        app = "x/1" })
      if i == 2 then assert(nodes[2]:join(nodes[1].id)) end
    end)
    world:run(1000)
  end
  assert(next(nodes[1].sessions), "the two have not met")
  return world, nodes[1], hosts[1].env.counters, function()
    for i = 1, 2 do task.spawn(function() nodes[i]:close() end) end
    world:run(5000)
    server:close()
    world:close()
  end
end

-- All of it from strangers, and as if from its server. Beside answers, what is sent to an address that the message
-- told of counts.
function M.at_client(rows)
  local world, client, counters, finish = with_clients()
  local stream, sent_to = input.stream "client", watch(world)
  local at = addr.parse("203.0.113.1", addr.port(client.socks[4]:addr()))
  local outside = world:host({ name = "outside", ip = "192.0.2.66" }).node
  local told, turn = support.addr "203.0.113.77:7777", 0

  local function one(row, from, bytes)
    -- What the server is told besides, on a schedule of its own, does not come within this moment.
    local before = sent_to(at, from)
    world.net:inject(outside, from, at, bytes)
    world:run(0.001)
    add(row, #bytes, sent_to(at, from) - before)
  end

  local function batch(name, length, each)
    local row, first, heard, named = new_row("client", name), turn + 1, counters:get "udp_rx", sent_to(at, told)
    rows[#rows + 1] = row
    each(function(bytes)
      turn = turn + 1
      one(row, stranger(turn), bytes)
      one(row, SERVER, bytes)
    end)
    assert(counters:get "udp_rx" >= heard + row.fed, "it did not hear all of it")
    local function to_strangers()
      local sum = 0
      for i = first, turn do sum = sum + sent_to(at, stranger(i)) end
      return sum
    end
    local before = to_strangers()
    world:run(LATER_MS)
    local later_sent = to_strangers() - before + sent_to(at, told) - named
    if later_sent == 0 then return end
    row.request, row.reply = math.min(row.request or length, length), row.reply + later_sent
    row.ratio = row.ratio + later_sent / length
  end

  for _, m in ipairs(input.messages { from = told, seat = false }) do
    batch(m.name, #m.bytes, function(fn) each_size(m, stream, true, fn) end)
  end
  batch("frame (0xC1)", 1, function(fn) each_random(stream, "\xc1", fn) end)
  batch("relayed (0x40)", 1, function(fn) each_random(stream, "\x40", fn) end)
  batch("random bytes", 1, function(fn) each_random(stream, nil, fn) end)
  finish()
end

-- --- what was overheard

local function overheard_name(bytes)
  local names = { [0] = "data", "select", "select_ack", "consent", "consent_answer", "close", "rekey", "rekey_answer" }
  if bytes:byte() == 0xc1 then return "frame: " .. names[bytes:byte(6) & 0x7f] end
  for name, schema in pairs(input.peer) do
    if bytes:byte(2) == schema.type then return name end
  end
end

-- public .. secret
local function pair(name) return table.concat { core.crypto.keypair(core.crypto.mac(("k"):rep(16), name, 32)) } end

-- Two muxes that meet and talk for a while; then fn(world, b, heard, names), heard being the first datagram of each
-- kind that the other sent b.
local function with_peers(fn)
  local world = worlds.new { seed = 3, delay_ms = 10 }
  local heard, order = {}, {}
  local function peer(name, ip)
    local p = { name = name, at = addr.parse(ip, 5000), host = world:host { name = name, ip = ip } }
    p.sock = assert(p.host.env.udp(p.at))
    p.mux = p.host.env.mux { seed = p.host.env.random(32), on = function() end }
    p.mux:attach(p.sock)
    return p
  end
  local a, b = peer("a", "203.0.113.1"), peer("b", "203.0.113.2")
  local record = world.net.record
  world.net.record = function(event, src, dst, bytes)
    record(event, src, dst, bytes)
    local name = event == "send" and src == a.at and overheard_name(bytes)
    if name and not heard[name] then
      heard[name], order[#order + 1] = bytes, name
    end
  end
  for p, other in pairs { [a] = b, [b] = a } do
    p.session = assert(p.mux:add {
      match = ("m"):rep(16), key = ("k"):rep(32), self = p.name:rep(16), peer = other.name:rep(16), start_in_ms = 0,
      own = pair(p.name), own_ephemeral = pair(p.name .. "e"), peer_key = pair(other.name):sub(1, 32),
      peer_ephemeral = pair(other.name .. "e"):sub(1, 32),
      candidates = { { other.at, "srflx", p.sock:number() } },
    })
  end
  world:run(500)
  a.mux:send(a.session, "hello")
  world:run(30000)
  fn(world, b, heard, order)
  for _, p in ipairs { a, b } do
    p.mux:close()
    p.sock:close()
  end
  world:close()
end

-- Each again, from a stranger's address: once, and a hundred times; then what comes back for one of them counts.
function M.at_peer(rows)
  with_peers(function(world, b, heard, order)
    local to = watch(world)
    local outside = world:host({ name = "outside", ip = "192.0.2.66" }).node
    table.sort(order)
    for i, name in ipairs(order) do
      local row = new_row("peer", name .. ", overheard")
      rows[#rows + 1] = row
      for k, times in ipairs { 1, 100 } do
        local from = addr.parse("192.0.2.66", 1000 + 2 * i + k)
        for _ = 1, times do
          world.net:inject(outside, from, b.at, heard[name])
          world:run(100)
        end
        world:run(30000)
        add(row, #heard[name], math.ceil(to(b.at, from) / times))
      end
    end
  end)
end

-- All rows, of servers, clients and peers.
function M.measure()
  local rows = {}
  M.at_server(rows)
  M.at_client(rows)
  M.at_peer(rows)
  return rows
end

-- The worst ratio of those that are not exempt.
function M.worst(rows)
  local worst = 0
  for _, row in ipairs(rows) do
    if not row.exempt then worst = math.max(worst, row.ratio) end
  end
  return worst
end

-- What is never answered stands in one line for each place.
function M.markdown(rows)
  local out = { "| at a | message | datagrams tried | shortest answered | longest answer | worst ratio |",
    "|---|---|---|---|---|---|" }
  local silent, places = {}, {}
  for _, row in ipairs(rows) do
    if row.request then
      out[#out + 1] = ("| %s | `%s` | %d | %d | %d | %.2f |"):format(row.place, row.name, row.fed, row.request,
        row.reply, row.ratio)
    else
      local of = silent[row.place]
      if not of then
        of = { fed = 0 }
        silent[row.place], places[#places + 1] = of, row.place
      end
      of.fed, of[#of + 1] = of.fed + row.fed, ("`%s`"):format(row.name)
    end
  end
  for _, place in ipairs(places) do
    out[#out + 1] = ("| %s | %s | %d | none | – | 0.00 |"):format(place, table.concat(silent[place], ", "),
      silent[place].fed)
  end
  return table.concat(out, "\n")
end

return M

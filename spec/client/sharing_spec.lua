-- SPDX-License-Identifier: MIT

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.client.support"
local task = require "bodkin.task"

describe("C3 sharing manager", function()
  local s
  after_each(function() s:close() end)

  local function host(n)
    return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, ("203.0.113.%d"):format(n)))
  end

  it("receives the whole registry table, page by page", function()
    s = support.new()
    local ids = {}
    for n = 1, 30 do
      local client = s:open(host(n), { name = ("player %02d"):format(n), props = { text = ("x"):rep(100), n = n } })
      ids[client.id] = n
    end
    local list = s:run(function() return assert(s.nodes[1]:list()) end)
    assert.equal(30, #list)
    assert.is_true(s.server.counters:get("listed") > 2)
    for _, e in ipairs(list) do
      local n = assert(ids[e.id], "an entry twice, or of nobody")
      ids[e.id] = nil
      assert.equal(("player %02d"):format(n), e.name)
      assert.equal(n, e.props.n)
      assert.is_nil(e.pubs)
    end
    local greatest = s:run(function() return assert(s.nodes[1]:list { sort = "-n", limit = 2 }) end)
    assert.same({ 30, 29 }, { greatest[1].props.n, greatest[2].props.n })
  end)

  it("receives no page for ever from a server that always says that there is this one more", function()
    s = support.new()
    local a, asked = s:open(host(1)), 0
    local call = a.requests.call
    a.requests.call = function(_, spec)
      assert.equal("page", spec.expect)
      asked = asked + 1
      return true, "\x90", a.identity.id
    end
    assert.same({}, s:run(function() return a:list() end))
    a.requests.call = call
    assert.equal(2, asked)
  end)

  it("searches it by query, among clients of the same application", function()
    s = support.new()
    s:open(host(1), { props = { map = "dust", mode = "ctf" } })
    s:open(host(2), { props = { map = "dust", mode = "duel" } })
    s:open(host(3), { props = { map = "dust", mode = "duel" }, app = "other/1" })
    local function found(query)
      return s:run(function() return assert(s.nodes[1]:list(query)) end)
    end
    assert.equal(2, #found { map = "dust" })
    assert.equal(s.nodes[2].id, found({ map = "dust", mode = "duel" })[1].id)
    assert.same({}, found { map = "ice" })
    assert.equal(2, #found())
  end)

  it("searches it by expressions, sorted, so many of them", function()
    s = support.new()
    for n = 1, 6 do
      s:open(host(n), { name = "n" .. n, props = { mmr = n * 100, mode = n % 2 == 0 and "a" or "b" } })
    end
    local function names(query)
      local out = {}
      for i, e in ipairs(s:run(function() return assert(s.nodes[1]:list(query)) end)) do out[i] = e.name end
      return table.concat(out, " ")
    end
    assert.equal("n3 n4 n5 n6", names { where = { ">=", "mmr", 300 }, sort = "mmr" })
    local both = { "and", { ">=", "mmr", 300 }, { "in", "mode", { "a", "c" } } }
    assert.equal("n6 n4", names { where = both, sort = "-mmr" })
    assert.equal("n6 n5", names { sort = "-name", limit = 2 })
    assert.equal("n2 n3", names { where = { "range", "mmr", 150, 300 }, sort = "mmr" })
    assert.equal("n1 n3 n5", names { where = { mode = "b" }, sort = "name" })
    assert.equal("", names { where = { "or" } })
    assert.equal(6, #s:run(function() return assert(s.nodes[1]:list { where = { "and" } }) end))
    local function refusal(query)
      return select(2, s:run(function() return s.nodes[1]:list(query) end))
    end
    assert.equal("where[2][1]: no such operator", (refusal { where = { "not", { "like", "a", 1 } } }))
    assert.equal("a query has no field 'by': it is where, sort, limit", (refusal { sort = "a", by = 1 }))
    assert.equal("invalid", select(2, refusal { where = { ">", "mmr" } }))
  end)

  it("is told when what it watches has changed", function()
    s = support.new()
    local a = s:open(host(1), { props = { mode = "x" } })
    local seen = {}
    local function text(change)
      local out = {}
      for _, what in ipairs { "came", "gone", "changed" } do
        for _, e in ipairs(change[what]) do out[#out + 1] = what .. " " .. e.name end
      end
      table.sort(out)
      return table.concat(out, ", ") .. " of " .. #change.entries
    end
    local function watch(query) return a:watch(query, function(change) seen[#seen + 1] = text(change) end) end
    local stop = s:run(function() return assert(watch { where = { "in", "mode", { "a", "b" } } }) end)
    local b = s:open(host(2), { name = "bob", props = { mode = "a" } })
    s.world:run(2000)
    assert.same({ "came bob of 1" }, seen)
    s:open(host(3), { name = "cid", props = { mode = "c" } })
    s:open(host(4), { name = "dan", props = { mode = "b" } })
    s:open(host(5), { name = "eve", props = { mode = "b" } })
    s.world:run(2000)
    local all = table.concat(seen, "; ", 2)
    assert.is_true(all:find "came dan" and all:find "came eve" and all:find "of 3$" and not all:find "cid", all)
    s:run(function() b:close() end)
    s.world:run(2000)
    assert.equal("gone bob of 2", seen[#seen])
    -- A server that began anew is asked to watch again.
    s:kill()
    s.world:run(1000)
    s.server = s:serve(s.hub)
    s.world:run(40000)
    local before = #seen
    s:open(host(6), { name = "fay", props = { mode = "a" } })
    s.world:run(3000)
    assert.matches("came fay", seen[#seen], 1, true)
    assert.is_true(#seen > before)
    stop()
    s.world:run(1000)
    assert.equal(0, s.server:status().info.watches)
    local _, err = s:run(function() return watch { where = { "like" } } end)
    assert.equal("where[1]: no such operator", err)
  end)

  it("is told of a change once it can be read", function()
    s = support.new()
    local a, changes = s:open(host(1)), {}
    s:run(function() return assert(a:watch({}, function(change) changes[#changes + 1] = change end)) end)
    s.world:run(3000)
    a.sharing.list = function(sharing)
      sharing.list = nil
      return nil, "no answer", "timeout"
    end
    s:open(host(2))
    s.world:run(31000)
    assert.equal(2, #changes)
    assert.equal(1, #changes[2].came)
  end)

  it("is told of what changed while it read, and of a property more or less", function()
    s = support.new()
    local a, names = s:open(host(1)), {}
    local env, list, slow = a.env, a.sharing.list, true
    function a.sharing.list(...)
      local entries = list(...)
      if slow then task.sleep(env, 2500) end
      return entries
    end
    s:run(function()
      assert(a:watch({}, function(change)
        for _, what in ipairs { "came", "changed" } do
          for _, e in ipairs(change[what]) do names[#names + 1] = what .. " " .. e.name end
        end
      end))
    end)
    s.world:run(500)
    local b = s:open(host(2), { name = "bob", props = { n = 1 } })
    s.world:run(5500)
    assert.same({ "came ", "came bob" }, names)
    slow = false
    for i, props in ipairs { { n = 1, m = 1 }, { m = 1 } } do
      b.registration.props = core.wire.encode(props)
      s.world:run(31000) -- it is told with the next registration
      assert.equal("changed bob", names[2 + i])
    end
  end)

  it("gets addresses with the list, or by separate request, where the server shows them", function()
    s = support.new { expose_addresses = true }
    s:open(host(1))
    local b = s:open(host(2))
    local public = b.addresses:public_texts()
    s:run(function()
      local list = assert(s.nodes[1]:list({}, true))
      local entry = list[1].id == b.id and list[1] or list[2]
      assert.same(public, entry.pubs)
      local found = assert(s.nodes[1]:lookup(b.id))
      assert.equal(b.id, found.id)
      assert.same(public, found.pubs)
    end)
  end)

  it("gets none where it does not", function()
    s = support.new()
    s:open(host(1))
    local _, err, code = s:run(function() return s.nodes[1]:lookup(s.nodes[1].id) end)
    assert.equal("this server shows no addresses", err)
    assert.equal("refused", code)
    assert.is_nil(s:run(function() return assert(s.nodes[1]:list({}, true)) end)[1].pubs)
  end)

  it("selects a client by its id", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    local m = s:run(function()
      local m = assert(b:join(a.id))
      assert(m:wait_connected(5000))
      return m
    end)
    assert.equal(1, #support.events(a, "matched"))
    assert.same({ event = "matched", match = m.id, peers = { b.id } }, support.events(a, "matched")[1])
  end)

  it("selects a room by its code, however it is typed", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    local room = s:run(function() return assert(a:host()) end)
    assert.same({ { event = "hosting", code = room.code } }, support.events(a, "hosting"))
    local m = s:run(function() return assert(b:join(room.code:upper():gsub("-", " "))) end)
    assert.equal(room.id, m.id)
  end)

  it("selects without being registered", function()
    s = support.new()
    local a = s:open(host(1))
    local b = s:open(host(2), { register = false })
    assert.equal(1, s.server.registry:count())
    local room = s:run(function() return assert(a:host()) end)
    s:run(function()
      local m = assert(b:join(room.code))
      assert(m:wait_connected(5000))
      assert(m:send("hello"))
      assert.equal("hello", room:messages()().data)
    end)
    assert.equal(1, s.server.registry:count())
  end)

  it("says when nobody has the code or id", function()
    s = support.new()
    local a = s:open(host(1))
    local _, err, code = s:run(function() return a:join("lusab-babad-gutih") end)
    assert.equal("no room has this code", err)
    assert.equal("no_match", code)
    _, err, code = s:run(function() return a:join(("0"):rep(32)) end)
    assert.equal("nobody has this id", err)
    assert.equal("no_match", code)
  end)

  -- A `matched` of somebody new, for the match `m`.
  local function late(node, m, raw)
    return assert(message.matched:encode(("t"):rep(12), raw or m.raw, ("k"):rep(32), core.crypto.keypair(("p"):rep(32)),
      core.crypto.keypair(("q"):rep(32)), node.ephemerals:public():sub(1, 8), "", "\x80",
      { core.addr.parse("203.0.113.9:9") }, {}, 2, 0, 0, "\xc0", nil, {}, nil, 0))
  end

  -- Acknowledgements that came, of what the server does not know.
  local function acknowledged() return s.server.counters:get("drop_reply") end

  it("acknowledges each copy of matched, and begins one session", function()
    s = support.new { loss = 0.3, seed = 7 }
    local a, b = s:open(host(1)), s:open(host(2))
    local room = s:pair(a, b)
    assert.equal(1, #support.events(a, "matched"))
    assert.equal(1, a:stats().sessions)
    -- The same again, as a late repeat would be, and not in the association.
    local bytes = late(a, room)
    local unsealed = a.env.counters:get("drop_unsealed")
    for _, from in ipairs { core.addr.parse("203.0.113.66:1"), a.server } do
      a.router:input({ send = function() error("it is not answered") end }, from, bytes)
    end
    assert.equal(unsealed + 2, a.env.counters:get("drop_unsealed"))
    local before = acknowledged()
    for _ = 1, 3 do a.router:inner(a.server, bytes) end
    assert.equal(2, a:stats().sessions)
    -- A repeat begins no second session when the first has ended.
    s.world:run(15000)
    assert.equal(1, a:stats().sessions)
    a.router:inner(a.server, bytes)
    assert.equal(1, a:stats().sessions)
    s.world:run(1000)
    assert.is_true(acknowledged() > before)
  end)

  it("acknowledges a matched for a match that was left, and nothing more", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    local m = s:pair(a, b)
    s:run(function() m:leave() end)
    s.world:run(1000)
    local before = acknowledged()
    a.router:inner(a.server, late(a, m))
    s.world:run(1000)
    assert.equal(before + 1, acknowledged())
    assert.equal(1, #support.events(a, "matched"))
    assert.equal(0, a:stats().sessions)
  end)

  it("leaves a match in which the client it asked for is not", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    -- Who answers has another key, as if the server had put somebody in the middle.
    local inner = b.sharing.on_matched
    b.sharing.on_matched = function(m)
      m.peer_key = core.crypto.keypair(("m"):rep(32))
      m.peer = core.crypto.id(m.peer_key)
      return inner(m)
    end
    local m = s:run(function() return assert(b:join(a.id)) end)
    s.world:run(5000)
    assert.is_true(m.closed)
    assert.equal("bad_key", support.events(b, "error")[1].code)
    assert.equal(0, #support.events(b, "connected"))
  end)

  it("leaves a match alone whose ephemeral is erased", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    local m = s:pair(a, b)
    local bytes = late(a, m, ("r"):rep(16))
    s.world:run(200000)
    a.router:inner(a.server, bytes)
    assert.equal(1, a:stats().sessions)
    assert.equal("no_path", support.events(a, "closed")[1].reason)
    assert.matches("too late for its keys", support.events(a, "error")[1].message)
  end)

  it("opens the room again with its code and match id after a restart of the server", function()
    s = support.new()
    local a, b = s:open(host(1)), s:open(host(2))
    local room = s:run(function() return assert(a:host()) end)
    s:kill()
    s.world:run(5000)
    s.server = s:serve(s.hub)
    s.world:run(40000)
    s:run(function()
      local m = assert(b:join(room.code))
      assert.equal(room.id, m.id)
      assert(m:wait_connected(5000))
    end)
  end)

  for case, key in pairs { ["that share a key"] = true, ["each with a secret of its own"] = false } do
    it("works with three separate server processes, " .. case, function()
      s = support.new { roles = { "matching" } }
      s:serve(s:host("address", "198.51.100.20"), { "address" }, { key and support.key or ("a"):rep(32) })
      s:serve(s:host("upkeep", "198.51.100.30"), { "maintenance" }, { key and support.key or ("m"):rep(32) })
      local where = { address_server = "bodkin://198.51.100.20", maintenance_server = "bodkin://198.51.100.30" }
      local a, b = s:open(host(1), where), s:open(host(2), where)
      assert.equal(key and 0 or 4, s.server.counters:get("address_cookie_bad"))
      s:pair(a, b)
      s.world:run(120000)
      assert.equal(2, s.server.registry:count())
    end)
  end
end)

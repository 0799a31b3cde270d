-- SPDX-License-Identifier: MIT
-- The life of tickets end to end in the simulated world: parties, several queues at once, expiry, accepting.
local client = dofile "spec/client/support.lua"
local policy = dofile "spec/policy/support.lua"
local servers = require "bodkin.servers"
local task = require "bodkin.task"

local events = client.events

describe("tickets", function()
  local s

  -- A world whose server has these policies: { queue or "*" = policy }.
  local function world(policies, options) s = policy.world(client, policies, options) end

  local function open(n, options)
    return s:open(s:host("h" .. n, "203.0.113." .. n), options)
  end

  -- Begins to wait; .result is filled when that ends.
  local function wait(node, queue, options, props)
    local w = {}
    task.spawn(function() w.result = table.pack(node:match(queue, props, options)) end)
    return w
  end

  local function count(name) return s.server.counters:get(name) end
  local function last(node, name)
    local list = events(node, name)
    return list[#list]
  end
  local function said(pattern)
    local n = 0
    for _, line in ipairs(s.hub.log) do
      if line:find(pattern, 1, true) then n = n + 1 end
    end
    return n
  end

  after_each(function()
    if s then s:close() end
    s = nil
  end)

  describe("of one client in several queues", function()
    it("end with the first match, in the same moment", function()
      world {}
      local a, b, c = open(1), open(2), open(3)
      local one, two = wait(a, "one"), wait(a, "two")
      s.world:run(500)
      local wb = wait(b, "one")
      s.world:run(60)
      local wc = wait(c, "two")
      s.world:run_until(function() return one.result end, 3000)
      assert.equal("closed", two.result and two.result[3])
      s.world:run(3000)
      assert.equal(one.result[1].id, wb.result[1].id)
      assert.same({ nil, "matched in another queue", "closed" }, { table.unpack(two.result, 1, 3) })
      assert.is_nil(wc.result)
      assert.equal(1, count "match_formed")
      assert.equal(1, s.server:status().info.tickets)
    end)

    it("are in one match only, also where both queues look in the same turn", function()
      world {}
      local a, b, c = open(1), open(2), open(3)
      local waits = { wait(a, "one"), wait(a, "two"), wait(b, "one"), wait(c, "two") }
      s.world:run(5000)
      assert.equal(1, count "match_formed")
      assert.equal(1, #events(a, "matched"))
      assert.equal(1, s.server:status().info.tickets)
      local matched, closed = 0, 0
      for i = 1, 2 do
        if waits[i].result[1] then matched = matched + 1 end
        if waits[i].result[3] == "closed" then closed = closed + 1 end
      end
      assert.same({ 1, 1 }, { matched, closed })
    end)

    it("are one in each: another takes its place", function()
      world {}
      local a, b = open(1), open(2)
      local old = wait(a, "one")
      s.world:run(300)
      local new = wait(a, "one")
      s.world:run(1000)
      assert.same({ nil, "queued again with another ticket", "closed" }, { table.unpack(old.result, 1, 3) })
      assert.is_nil(new.result)
      local wb = wait(b, "one")
      s.world:run(1000)
      assert.equal(new.result[1].id, wb.result[1].id)
    end)
  end)

  describe("of a party", function()
    local teams = "return bodkin.policy { teams = { 2, 2 }, party = 2 }"
    local function pair(id) return { party = { id = id, size = 2 } } end

    it("wait until all of it are there, and are on one side", function()
      world { team = teams }
      local n, w = {}, {}
      for i = 1, 4 do n[i] = open(i) end
      w[1] = wait(n[1], "team", pair "us")
      w[3], w[4] = wait(n[3], "team"), wait(n[4], "team")
      s.world:run(2000)
      assert.is_nil(w[1].result)
      assert.same({ 1, 2 }, { last(n[1], "queued").present, last(n[1], "queued").of })
      w[2] = wait(n[2], "team", pair "us")
      s.world:run(3000)
      for i = 2, 4 do assert.equal(w[1].result[1].id, w[i].result[1].id) end
      assert.equal(w[1].result[1].team, w[2].result[1].team)
      assert.equal(w[3].result[1].team, w[4].result[1].team)
      assert.are_not.equal(w[1].result[1].team, w[3].result[1].team)
      assert.equal(6, #w[1].result[1]:peers() + #w[2].result[1]:peers())
      assert.equal(0, s.server:status().info.tickets)
    end)

    it("are taken back when one leaves, and wait for it to be whole again", function()
      world { team = teams }
      local n, w = {}, {}
      for i = 1, 5 do n[i] = open(i) end
      w[1], w[2] = wait(n[1], "team", pair "us"), wait(n[2], "team", pair "us")
      s.world:run(500)
      assert.same({ 2, 2 }, { last(n[1], "queued").present, last(n[1], "queued").of })
      n[2]:cancel(events(n[2], "queued")[1].ticket)
      s.world:run(300)
      assert.equal(1, last(n[1], "queued").present)
      assert.equal("one of the party left", last(n[1], "queued").reason)
      w[3], w[4] = wait(n[3], "team"), wait(n[4], "team")
      s.world:run(1500)
      assert.is_nil(w[1].result)
      assert.is_nil(w[3].result)
      w[5] = wait(n[5], "team", pair "us")
      s.world:run(1500)
      assert.equal(w[1].result[1].team, w[5].result[1].team)
      assert.equal(w[1].result[1].id, w[3].result[1].id)
    end)

    it("are withdrawn with it where one of them is matched elsewhere", function()
      world { team = teams }
      local n, w = {}, {}
      for i = 1, 3 do n[i] = open(i) end
      w[1], w[2] = wait(n[1], "team", pair "us"), wait(n[2], "team", pair "us")
      local other = wait(n[2], "duel")
      s.world:run(300)
      w[3] = wait(n[3], "duel")
      s.world:run(1500)
      assert.equal(other.result[1].id, w[3].result[1].id)
      assert.equal("closed", w[2].result[3])
      assert.is_nil(w[1].result)
      assert.equal("one of the party found a match elsewhere", last(n[1], "queued").reason)
    end)

    it("hear why the policy does not take them, and what is wrong with them", function()
      world { team = teams, solo = "return bodkin.policy { size = 4 }",
        large = "return bodkin.policy { size = 4, party = 3 }" }
      local n, w = {}, {}
      for i = 1, 3 do n[i] = open(i) end
      -- Too large: who comes first need not wait for the others to hear that.
      w[1], w[2] = wait(n[1], "solo", pair "us"), wait(n[2], "team", { party = { id = "us", size = 3 } })
      s.world:run(500)
      assert.same({ nil, "no parties here", "refused" }, { table.unpack(w[1].result, 1, 3) })
      assert.same({ nil, "at most 2 in a party here", "refused" }, { table.unpack(w[2].result, 1, 3) })
      w[1] = wait(n[1], "large", { party = { id = "us", size = 3 } })
      s.world:run(200)
      w[2] = wait(n[2], "large", pair "us")
      s.world:run(200)
      assert.same({ nil, "this party is of 3", "invalid" }, { table.unpack(w[2].result, 1, 3) })
      w[1] = wait(n[1], "team", pair "us")
      s.world:run(200)
      w[2] = wait(n[2], "team", pair "us")
      s.world:run(200)
      w[3] = wait(n[3], "team", pair "us")
      s.world:run(200)
      assert.same({ nil, "the party is complete already", "limit" }, { table.unpack(w[3].result, 1, 3) })
    end)

    it("are matched though they are more than one datagram tells", function()
      world { team = [[return bodkin.policy { teams = { 12, 2 }, party = 12, compatible = function(a, b)
        return a.size + b.size == 14 or a.members[12].props.name:sub(1, 3) == "12x"
      end }]] }
      local w = {}
      for i = 1, 14 do
        local party = i <= 12 and { id = "us", size = 12 } or { id = "you", size = 2 }
        w[i] = wait(open(i), "team", { party = party }, { name = i .. ("x"):rep(110) })
      end
      s.world:run(3000)
      for i = 1, 14 do
        assert.equal(w[1].result[1].id, w[i].result[1].id)
        assert.equal(w[i].result[1].team, w[i <= 12 and 1 or 14].result[1].team)
      end
    end)

    it("hear of it where their policy cannot be told of them", function()
      world { team = teams, solo = "return bodkin.policy {}" }
      local n, w, deep = {}, {}, 1
      for _ = 1, 6 do deep = { deep = deep } end
      for i = 1, 3 do n[i] = open(i) end
      w[1], w[2] = wait(n[1], "team", pair "us"), wait(n[2], "team", pair "us", deep)
      w[3] = wait(n[3], "solo", nil, deep)
      s.world:run(500)
      for i = 1, 3 do
        assert.same({ nil, "its properties nest too deep", "refused" }, { table.unpack(w[i].result, 1, 3) })
      end
      assert.equal(0, s.server:status().info.tickets)
      assert.equal(2, said "a ticket is refused, its policy cannot be told of it: nested deeper than 8")
    end)

    it("are queued again together after a restart of the server", function()
      world { team = teams }
      local n, w = {}, {}
      for i = 1, 4 do n[i] = open(i) end
      w[1], w[2] = wait(n[1], "team", pair "us"), wait(n[2], "team", pair "us")
      s.world:run(500)
      s:kill()
      s.world:run(1000)
      s.server = assert(servers.open(s.hub.env, { listen = { "198.51.100.10:4433" }, keys = { client.key },
        queues = { team = { policy = policy.source(teams) } } }))
      s.servers[s.hub] = s.server
      s.world:run(32000)
      assert.equal(2, s.server:status().info.tickets)
      w[3], w[4] = wait(n[3], "team"), wait(n[4], "team")
      s.world:run(1500)
      assert.equal(w[1].result[1].team, w[2].result[1].team)
      assert.equal(w[1].result[1].id, w[3].result[1].id)
    end)
  end)

  describe("that wait too long", function()
    it("end with no_match, and the policy hears of it", function()
      world { duel = [[return bodkin.policy { expire_ms = 2000, on_expire = function(t)
        print("expired " .. t.props.n .. tostring(t.waited_ms >= 1900)) end }]] }
      local a = open(1)
      local w = wait(a, "duel", {}, { n = 7 })
      s.world:run(1900)
      assert.is_nil(w.result)
      s.world:run(500)
      assert.same({ nil, "no match came about in time; try again?", "no_match" }, { table.unpack(w.result, 1, 3) })
      assert.equal(1, said "expired 7")
      assert.equal(1, count "ticket_expired")
      assert.equal(0, s.server:status().info.tickets)
    end)

    it("end as a party, whole or not", function()
      world { team = "return bodkin.policy { teams = { 2, 2 }, party = 2, expire_ms = 3000 }" }
      local n, w = {}, {}
      for i = 1, 3 do n[i] = open(i) end
      w[1] = wait(n[1], "team", { party = { id = "a", size = 2 } })
      w[2] = wait(n[2], "team", { party = { id = "a", size = 2 } })
      w[3] = wait(n[3], "team", { party = { id = "b", size = 2 } })
      s.world:run(3500)
      for i = 1, 3 do assert.equal("no_match", w[i].result[3]) end
    end)
  end)

  describe("whose match is to be accepted", function()
    local asks = [[
      local function told(what) return function(t) print(what, type(t) == "table" and t.id or t) end end
      return bodkin.policy { size = 2, accept_ms = 3000, on_accept = told "accepts", on_decline = told "declines",
        on_match = function(m) print("match " .. #m.teams[1]) end }]]

    it("are asked, and matched once all have accepted", function()
      world { duel = asks }
      local a, b = open(1), open(2, { accept = "ask" })
      local wa, wb = wait(a, "duel"), wait(b, "duel")
      s.world:run(1000)
      assert.is_nil(wa.result)
      local e = events(b, "proposed")[1]
      assert.same({ 2, events(b, "queued")[1].ticket }, { e.players, e.ticket })
      assert.is_true(e.accept_ms <= 3000 and e.accept_ms > 2900)
      assert.equal(1, s.server:status().info.proposals)
      assert.is_true(b:accept(e.ticket))
      assert.is_false(b:accept(e.ticket))
      s.world:run(1000)
      assert.equal(wa.result[1].id, wb.result[1].id)
      assert.equal(2, said "accepts")
      assert.equal(1, said "match 2")
      assert.equal(1, count "match_formed")
    end)

    it("end with a decline; who is not to blame is the first to be matched again", function()
      world { duel = asks }
      local a, b, c, d = open(1), open(2, { accept = "ask" }), open(3), open(4)
      local wa, wb = wait(a, "duel"), wait(b, "duel")
      s.world:run(1000)
      local wc = wait(c, "duel")
      s.world:run(300)
      assert.is_true(b:decline(events(b, "proposed")[1].ticket))
      local wd = wait(d, "duel")
      s.world:run(1500)
      assert.same({ nil, "you declined the match", "closed" }, { table.unpack(wb.result, 1, 3) })
      assert.equal("somebody did not accept the match", events(a, "queued")[2].reason)
      assert.equal(wa.result[1].id, wc.result[1].id)
      assert.is_nil(wd.result)
      assert.equal(1, said "declines")
      assert.equal(1, count "match_declined")
    end)

    it("end with silence, too", function()
      world { duel = asks }
      local a, b = open(1), open(2, { accept = "ask" })
      local wa, wb = wait(a, "duel"), wait(b, "duel")
      s.world:run(2500)
      assert.is_nil(wb.result)
      s.world:run(1000)
      assert.same({ nil, "you did not accept in time", "closed" }, { table.unpack(wb.result, 1, 3) })
      assert.is_nil(wa.result)
      assert.equal(1, s.server:status().info.tickets)
      assert.is_false(b:accept(events(b, "proposed")[1].ticket))
    end)

    it("are not in another match meanwhile, and wait on there when it comes to nothing", function()
      world { duel = asks }
      local a, b, c = open(1), open(2, { accept = "ask" }), open(3)
      local wa = wait(a, "duel")
      wait(b, "duel")
      s.world:run(500)
      local other = wait(a, "other")
      local wc = wait(c, "other")
      s.world:run(1000)
      assert.is_nil(other.result)
      assert.is_nil(wc.result)
      b:decline(events(b, "proposed")[1].ticket)
      s.world:run(1000)
      assert.equal(other.result[1].id, wc.result[1].id)
      assert.equal("closed", wa.result[3])
    end)

    it("are withdrawn with a client that goes away", function()
      world { duel = asks }
      local a, b = open(1), open(2, { accept = "ask" })
      local wa = wait(a, "duel")
      wait(b, "duel")
      s.world:run(500)
      b:close()
      s.world:run(500)
      assert.is_nil(wa.result)
      assert.equal(1, s.server:status().info.tickets)
      local c = open(3)
      local wc = wait(c, "duel")
      s.world:run(1000)
      assert.equal(wa.result[1].id, wc.result[1].id)
    end)

    it("keep a party together: one declines, the others wait for it", function()
      world { team = "return bodkin.policy { teams = { 2, 2 }, party = 2, accept_ms = 2000 }" }
      local n, w = {}, {}
      for i = 1, 4 do n[i] = open(i, { accept = i == 2 and "ask" or nil }) end
      w[1] = wait(n[1], "team", { party = { id = "us", size = 2 } })
      w[2] = wait(n[2], "team", { party = { id = "us", size = 2 } })
      w[3], w[4] = wait(n[3], "team"), wait(n[4], "team")
      s.world:run(1000)
      n[2]:decline(events(n[2], "proposed")[1].ticket)
      s.world:run(1000)
      assert.equal("closed", w[2].result[3])
      assert.equal("one of the party did not accept", last(n[1], "queued").reason)
      assert.equal(1, last(n[1], "queued").present)
      for _, i in ipairs { 1, 3, 4 } do assert.is_nil(w[i].result) end
      assert.equal(3, s.server:status().info.tickets)
    end)

    it("come through loss", function()
      for seed = 1, 10 do
        world({ duel = asks }, { loss = 0.3, seed = seed })
        local a, b = open(1), open(2)
        local wa, wb = wait(a, "duel"), wait(b, "duel")
        s.world:run(40000)
        assert.equal(wa.result[1].id, wb.result[1].id)
        s:close()
      end
      s = nil
    end)
  end)

  describe("of a running match that is filled up", function()
    local fills = [[return bodkin.policy { teams = { 1, 2 }, party = 2, props = { mode = "string?" },
      form = function(a, near)
        local two = near[1]
        if not two or a.props.mode then return nil end
        if a.size == 2 then a, two = two, a end
        if two.size == 2 then return { teams = { { a }, { two } }, host = a, data = "arena" } end
        if near[2] then return { teams = { { a }, { near[1], near[2] } }, host = a, data = "arena" } end
      end,
      on_backfill = function(match, near)
        local teams = {}
        for i, free in ipairs(match.seats) do
          teams[i] = {}
          for _, t in ipairs(near) do
            if not t.taken_by and free > 0 and t.size <= free and match.props.mode == t.props.mode then
              teams[i][#teams[i] + 1], free, t.taken_by = t, free - t.size, true
            end
          end
        end
        return { teams = teams }
      end }]]

    local n, w
    -- Three in a match whose host is the first; the third has left.
    local function running(more)
      world { arena = fills .. (more or "") }
      n, w = {}, {}
      for i = 1, 6 do n[i] = open(i) end
      w[1] = wait(n[1], "arena")
      s.world:run(100)
      w[2], w[3] = wait(n[2], "arena"), wait(n[3], "arena")
      s.world:run(2000)
      assert.equal(n[1].id, w[3].result[1].host)
      w[3].result[1]:leave()
      s.world:run(500)
      return w[1].result[1]
    end

    it("get into it, and are connected with all who are there", function()
      local match = running()
      local code = select(3, s:run(function() return w[2].result[1]:backfill { seats = { 0, 1 } } end))
      assert.equal("refused", code)
      code = select(3, s:run(function() return match:backfill { seats = { 1, 1 } } end))
      assert.equal("invalid", code)
      assert.is_true(s:run(function() return assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end))
      w[4] = wait(n[4], "arena", {}, { mode = "x" })
      s.world:run(3000)
      local new = w[4].result[1]
      assert.equal(match.id, new.id)
      assert.same({ n[1].id, "arena", 2 }, { new.host, new.data, new.team })
      assert.equal(2, #new:peers())
      for _, peer in ipairs(new:peers()) do assert.is_true(peer.connected) end
      for _, i in ipairs { 1, 2 } do
        local peers = w[i].result[1]:peers()
        assert.same({ n[4].id, true, 2 }, { peers[3].id, peers[3].connected, peers[3].team })
      end
      assert.equal(1, count "match_joined")
      assert.equal(0, s.server:status().info.tickets)
      -- The seat is taken.
      w[5] = wait(n[5], "arena", {}, { mode = "x" })
      s.world:run(1000)
      assert.is_nil(w[5].result)
    end)

    it("do not, once its host takes that back, or the match is over", function()
      local match = running()
      s:run(function() assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end)
      s:run(function() assert(match:stop_backfill()) end)
      w[4] = wait(n[4], "arena", {}, { mode = "x" })
      s.world:run(1000)
      assert.is_nil(w[4].result)
      n[4]:cancel(events(n[4], "queued")[1].ticket)
      s:run(function() assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end)
      for i = 1, 2 do w[i].result[1]:leave() end
      s.world:run(500)
      w[5] = wait(n[5], "arena", {}, { mode = "x" })
      s.world:run(1000)
      assert.is_nil(w[5].result)
    end)

    it("do not bring back who left as they came", function()
      local match = running()
      s:run(function() assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end)
      w[4] = wait(n[4], "arena", {}, { mode = "x" })
      s.world:run_until(function() return count "match_joined" == 1 end, 3000)
      local before = #events(n[1], "matched")
      match:leave()
      s.world:run(3000)
      assert.equal(before, #events(n[1], "matched"))
      assert.equal(2, #w[4].result[1]:peers())
      assert.equal(0, n[1]:stats().sessions)
      assert.same({}, n[1].queues.tickets)
    end)

    it("may be those who left it before", function()
      local match = running()
      s:run(function() assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end)
      w[4] = wait(n[3], "arena", {}, { mode = "x" })
      s.world:run(3000)
      local new = w[4].result and w[4].result[1]
      assert.equal(match.id, new and new.id)
      assert.is_true(new:peers()[1].connected and new:peers()[2].connected)
      assert.is_true(new ~= w[3].result[1])
    end)

    it("are asked first where they are to accept", function()
      fills = fills:gsub("party = 2", "party = 2, accept_ms = 2000")
      local match = running()
      s:run(function() assert(match:backfill { seats = { 0, 1 }, props = { mode = "x" } }) end)
      local d = open(7, { accept = "ask" })
      local wd = wait(d, "arena", {}, { mode = "x" })
      s.world:run(500)
      d:decline(events(d, "proposed")[1].ticket)
      s.world:run(500)
      assert.equal("closed", wd.result[3])
      w[4] = wait(n[4], "arena", {}, { mode = "x" })
      s.world:run(2500)
      assert.equal(match.id, w[4].result[1].id)
    end)

    it("leave the rest of the seats to others, a party whole", function()
      world { arena = [[return bodkin.policy { size = { 2, 4 }, party = 2,
        form = function(a, near)
          if near[1] and not a.props.late and not near[1].props.late then
            return { teams = { { a, near[1] } }, host = a }
          end
        end,
        on_backfill = function(match, near)
          for _, t in ipairs(near) do
            if t.size <= match.seats[1] then return { teams = { { t } } } end
          end
        end }]] }
      n, w = {}, {}
      for i = 1, 6 do n[i] = open(i) end
      w[1] = wait(n[1], "arena")
      s.world:run(100)
      w[2] = wait(n[2], "arena")
      s.world:run(1000)
      local match = w[1].result[1]
      s:run(function() assert(match:backfill { seats = { 2 } }) end)
      local late = { late = true }
      w[3] = wait(n[3], "arena", {}, late)
      s.world:run(1000)
      assert.equal(match.id, w[3].result[1].id)
      for i = 4, 5 do w[i] = wait(n[i], "arena", { party = { id = "p", size = 2 } }, late) end
      s.world:run(1000)
      assert.is_nil(w[4].result)
      w[6] = wait(n[6], "arena", {}, late)
      s.world:run(1000)
      assert.equal(match.id, w[6].result[1].id)
      assert.equal(3, #match:peers())
      assert.is_nil(w[5].result)
      assert.equal(2, s.server:status().info.tickets)
    end)
  end)

  describe("of on_search", function()
    local function names(node, query)
      local list, err, code = s:run(function() return node:list(query) end)
      if not list then return err, code end
      local out = {}
      for i, e in ipairs(list) do out[i] = e.name end
      table.sort(out)
      return table.concat(out, " ")
    end

    it("is what is listed, in place of what was asked for", function()
      world { ["*"] = [[return bodkin.policy { on_search = function(client, query)
        if client.props.banned then return false, "you are banned" end
        if client.props.admin then return true end
        return { "and", query, { "=", "hidden", false } }
      end }]] }
      local a = open(1, { name = "a", props = { hidden = false } })
      open(2, { name = "b", props = { hidden = true } })
      local c = open(3, { name = "c", props = { hidden = false, banned = true } })
      local d = open(4, { name = "d", props = { admin = true } })
      assert.equal("a c", names(a))
      assert.equal("c", names(a, { banned = true }))
      assert.equal("a b c d", names(d))
      assert.same({ "you are banned", "refused" }, { names(c) })
    end)

    -- What a node hears of by watching.
    local function watched(node, query)
      local seen = {}
      local stop, err, code = s:run(function()
        return node:watch(query, function(change)
          for _, what in ipairs { "came", "gone", "changed" } do
            for _, e in ipairs(change[what]) do seen[#seen + 1] = what .. " " .. e.name end
          end
        end)
      end)
      return stop and seen, err, code
    end

    it("is what is watched, too", function()
      world { ["*"] = [[return bodkin.policy { on_search = function(client, query)
        if client.props.banned then return false, "you are banned" end
        return { "and", query, { "=", "hidden", false } }
      end }]] }
      local a = open(1, { name = "a" })
      local seen = assert(watched(a, {}))
      s.world:run(2000)
      local listed = count "listed" -- as it does whenever it is told of something
      assert.equal(1, listed)
      local b = open(2, { name = "b", props = { hidden = true } })
      s.world:run(2000)
      b:close()
      s.world:run(2000)
      assert.equal(listed, count "listed")
      open(3, { name = "c", props = { hidden = false } })
      s.world:run(2000)
      assert.same({ "came c" }, seen)
      assert.same({ nil, "you are banned", "refused" }, { watched(open(4, { props = { banned = true } }), {}) })
      assert.equal(1, s.server:status().info.watches)
      s.world:run(60000) -- asked again with each registration: nothing is new
      assert.equal(1, s.server:status().info.watches)
    end)

    it("fails closed: on an error, on what is no query, and when its process dies", function()
      world { ["*"] = [[return bodkin.policy { on_search = function(client, query)
        if query.x == 1 then error "no" end
        return { "like" }
      end }]] }
      local a = open(1)
      assert.same({ "cannot decide now, try again", "refused" }, { names(a, { x = 1 }) })
      assert.same({ "cannot decide now, try again", "refused" }, { names(a) })
      assert.truthy(said "on_search failed: policy.lua:3: no" > 0)
    end)

    it("is asked also where client and query are more than a datagram", function()
      world { ["*"] = [[return bodkin.policy { on_search = function(client, query)
        return { "or", query, { "=", "n", client.props.n } }
      end }]] }
      local a = open(1, { name = ("a"):rep(32), props = { n = 1, s = ("x"):rep(118) } })
      s.server.admission.of = function() return ("\x81\xa1c\xda\x01\xf0" .. ("y"):rep(496)) end
      assert.equal(("a"):rep(32), names(a, { "=", "s", ("z"):rep(503) }))
    end)

    it("is not asked where the policy has none", function()
      world { ["*"] = "return bodkin.policy { size = 2 } -- on_search" }
      local a = open(1, { name = "a" })
      assert.equal("a", names(a))
    end)
  end)
end)

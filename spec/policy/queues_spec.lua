-- SPDX-License-Identifier: MIT
-- Queues end to end in the simulated world: the unchanged server and client.
local client = dofile "spec/client/support.lua"
local policy = dofile "spec/policy/support.lua"
local servers = require "bodkin.servers"
local task = require "bodkin.task"

local events = client.events

describe("a queue", function()
  local s

  local function world(policies, options) s = policy.world(client, policies, options) end

  local function open(n, options)
    return s:open(s:host("h" .. n, "203.0.113." .. n), options)
  end

  -- Begins to wait; .result is filled when that ends.
  local function wait(node, queue, props, timeout_ms)
    local w = {}
    task.spawn(function() w.result = table.pack(node:match(queue, props, { timeout_ms = timeout_ms })) end)
    return w
  end

  local function count(name) return s.server.counters:get(name) end
  local function logged(pattern)
    for _, line in ipairs(s.hub.log) do
      if line:find(pattern, 1, true) then return line end
    end
  end

  after_each(function()
    if s then s:close() end
    s = nil
  end)

  it("without a policy is first come, first served, and the match works", function()
    world()
    local a, b = open(1), open(2)
    local wa = wait(a, "duel")
    s.world:run(500)
    assert.is_nil(wa.result)
    assert.equal(1, #events(a, "queued"))
    assert.equal(32, #events(a, "queued")[1].ticket)
    local wb = wait(b, "duel")
    s.world:run(3000)
    local ma, mb = wa.result[1], wb.result[1]
    assert.equal(ma.id, mb.id)
    assert.equal(1, #events(a, "connected"))
    assert.equal(1, #events(b, "connected"))
    local got
    s:run(function()
      assert(ma:send "hello")
      got = mb:messages()().data
    end)
    assert.equal("hello", got)
    assert.equal(1, count "match_formed")
    assert.equal(0, s.server:status().info.tickets)
  end)

  it("tells every member its team, the host and the data, and connects all pairs", function()
    world { team = [[
      return bodkin.policy { teams = { 2, 2 }, props = { n = "integer" },
        form = function(a, near)
          local all = { a, near[1], near[2], near[3] }
          table.sort(all, function(x, y) return x.props.n < y.props.n end)
          return { teams = { { all[1], all[4] }, { all[2], all[3] } }, host = all[2], data = { map = "dust" } }
        end }]] }
    local nodes, waits = {}, {}
    for n = 1, 4 do
      nodes[n] = open(n, { name = "n" .. n })
      waits[n] = wait(nodes[n], "team", { n = n })
    end
    assert.is_true(s.world:run_until(function() return count "match_formed" == 1 end, 4000))
    assert.equal(12, count "matched_sent") -- all at once, nobody's after another's
    s.world:run(4000)
    local teams = { 1, 2, 2, 1 }
    for n = 1, 4 do
      local match = waits[n].result[1]
      assert.equal(teams[n], match.team)
      assert.equal(nodes[2].id, match.host)
      assert.same({ map = "dust" }, match.data)
      assert.equal(3, #events(nodes[n], "matched"))
      local last = events(nodes[n], "matched")[3]
      assert.equal(3, #last.peers)
      assert.same({ teams[n], nodes[2].id, { map = "dust" } }, { last.team, last.host, last.data })
      for _, peer in ipairs(match:peers()) do
        assert.is_true(peer.connected)
        assert.equal(teams[tonumber(peer.name:sub(2))], peer.team)
      end
    end
  end)

  it("times out with no_match, and the ticket is gone", function()
    world()
    local a, b = open(1), open(2)
    local match, err, code = s:run(function() return a:match("duel", {}, { timeout_ms = 3000 }) end)
    assert.is_nil(match)
    assert.matches("no match in queue duel within 3 s", err, 1, true)
    assert.equal("no_match", code)
    s.world:run(500)
    assert.equal(1, count "ticket_cancelled")
    assert.equal("no_match", select(3, s:run(function() return b:match("duel", {}, { timeout_ms = 1000 }) end)))
  end)

  it("gives a ticket back on cancel", function()
    world()
    local a = open(1)
    local w = wait(a, "duel")
    s.world:run(300)
    local ticket = events(a, "queued")[1].ticket
    assert.is_false(a:cancel(("0"):rep(32)))
    assert.is_true(a:cancel(ticket))
    assert.is_false(a:cancel(ticket))
    assert.same({ nil, "the ticket was taken back", "closed" }, { table.unpack(w.result, 1, 3) })
    s.world:run(300)
    assert.equal(0, s.server:status().info.tickets)
  end)

  it("does not match one that took its ticket back while `matched` was on its way", function()
    world()
    local a, b = open(1), open(2)
    local wa = wait(a, "duel")
    s.world:run(300)
    wait(b, "duel")
    s.world:run_until(function() return count "match_formed" == 1 end, 2000)
    a:cancel(events(a, "queued")[1].ticket)
    s.world:run(15000)
    assert.equal("closed", wa.result[3])
    assert.equal(0, #events(a, "matched"))
    assert.equal("no_path", events(b, "closed")[1].reason)
  end)

  it("refuses what its policy does not admit, and wrong names", function()
    world { duel = "skill" }
    local a = open(1)
    local function refusal(...)
      local arguments = table.pack(...)
      local _, err, code = s:run(function() return a:match(table.unpack(arguments, 1, 2)) end)
      return err, code
    end
    assert.same({ "mmr is missing, and no token claims it", "refused" }, { refusal("duel", {}) })
    assert.same({ "mmr must be a number", "refused" }, { refusal("duel", { mmr = "x" }) })
    assert.same({ "no queue's name", "invalid" }, { refusal("*", {}) })
    assert.same({ "props do not fit in 128 bytes; say less", "limit" }, { refusal("duel", { x = ("x"):rep(200) }) })
    assert.equal(3, count "ticket_refused")
  end)

  it("holds to its limits", function()
    world({}, { limits = { tickets_each = 2, tickets = 3, queues = 2 } })
    local a, b = open(1), open(2)
    for _, name in ipairs { "one", "two" } do wait(a, name) end
    s.world:run(500)
    assert.same({ "you wait in too many queues", "limit" },
      { select(2, s:run(function() return a:match("one") end)) })
    assert.same({ "too many queues here", "limit" }, { select(2, s:run(function() return b:match("three") end)) })
    wait(b, "two", {}) -- matched
    s.world:run(500)
    assert.equal(1, count "match_formed")
  end)

  it("drops the tickets of a client whose registration ended", function()
    world()
    local a, b, c = open(1), open(2), open(3)
    wait(a, "duel")
    s.world:run(200)
    a:close()
    s.world:run(200)
    assert.equal(1, count "ticket_dropped")
    local wb = wait(b, "duel")
    s.world:run(1000)
    assert.is_nil(wb.result)
    local wc = wait(c, "duel")
    s.world:run(1000)
    assert.equal(wb.result[1].id, wc.result[1].id)
  end)

  it("keeps apps apart", function()
    world()
    local a, b = open(1), open(2, { app = "other/1" })
    local wa, wb = wait(a, "duel", {}, 2000), wait(b, "duel", {}, 2000)
    s.world:run(5000)
    assert.equal("no_match", wa.result[3])
    assert.equal("no_match", wb.result[3])
  end)

  it("takes a ticket back for good when it was queued only after that", function()
    s = client.new {}
    local nat = s:nat("nat", "203.0.113.1")
    local a = s:open(s:host("h", "192.168.1.2", nat))
    nat.blocks = "udp"
    local w = wait(a, "duel", {}, 100)
    s.world:run(50)
    nat.blocks = nil
    s.world:run(3000)
    assert.equal("no_match", w.result[3])
    assert.equal(1, count "ticket_queued")
    assert.equal(0, s.server:status().info.tickets)
  end)

  it("does not queue again, after a restart of the server, what was taken back meanwhile", function()
    for asked = 0, 1 do
      world()
      local a = open(1)
      local w = { wait(a, "duel"), wait(a, "team") }
      s.world:run(500)
      s:kill()
      s.server = s:serve(s.hub)
      s.world:run_until(function() return count "ticket_queued" == 1 end, 60000)
      local raws = {}
      for raw in pairs(a.queues.tickets) do raws[#raws + 1] = raw end
      table.sort(raws) -- in which order they are asked for
      -- The one that is being asked for, or the next.
      assert.is_true(a:cancel(a.queues.tickets[raws[1 + asked]].id))
      s.world:run(5000)
      assert.equal(1, s.server:status().info.tickets, asked)
      assert.not_equal(w[1].result == nil, w[2].result == nil)
      s:close()
    end
    s = nil
  end)

  it("survives a restart of the server: who waits is queued again, untold", function()
    world()
    local a, b = open(1), open(2)
    local wa = wait(a, "duel")
    s.world:run(500)
    s:kill()
    s.world:run(1000)
    s.server = s:serve(s.hub)
    s.world:run(32000)
    assert.equal(1, s.server:status().info.tickets)
    for _, e in ipairs(events(a, "queued")) do assert.equal(e ~= events(a, "queued")[1], e.waited_ms ~= nil) end
    local wb = wait(b, "duel")
    s.world:run(1000)
    assert.equal(wa.result[1].id, wb.result[1].id)
  end)

  it("throws at its caller what options cannot be", function()
    world()
    local a = open(1)
    for message, options in pairs {
      ["options is a table"] = 5,
      ['there is no option "timeoutms": it is timeout_ms, party, accept'] = { timeoutms = 1 },
      ["timeout_ms is a number of milliseconds above 0"] = { timeout_ms = 0 },
      ['accept is "auto" or "ask"'] = { accept = "sometimes" }, ["party is { id"] = { party = { id = "us" } },
    } do
      s:run(function()
        local ok, err = pcall(function() a:match("duel", {}, options) end)
        assert.is_false(ok)
        assert.matches("queues_spec.lua:%d+: ", err)
        assert.truthy(err:find(message, 1, true), err)
      end)
    end
    assert.is_false((pcall(a.match, a, "duel", {}, { timeout_ms = "x" })))
  end)

  it("is told of after the registration that it was asked for with", function()
    for seed = 1, 10 do
      world(nil, { loss = 0.3, seed = seed })
      for n, begin in pairs {
        function(node) node:match("duel") end,
        function(node) node:host() end,
      } do
        local node = open(n, { register = "together" })
        task.spawn(begin, node)
        s.world:run(5000)
        local names = {}
        for i, e in ipairs(node.log) do names[i] = e.event end
        local list = table.concat(names, " ")
        assert.matches("^registered", list)
        assert.matches(n == 1 and "queued" or "hosting", list)
      end
      s:close()
    end
    s = nil
  end)

  it("takes who waits again as soon as there is a match", function()
    world()
    local a, b, second = open(1), open(2), nil
    task.spawn(function()
      assert(a:match("duel"))
      second = table.pack(a:match("duel"))
    end)
    local wb = wait(b, "duel")
    s.world:run(1000)
    assert(wb.result[1])
    assert.is_nil(second)
    local wc = wait(open(3), "duel")
    s.world:run(1000)
    assert.equal(wc.result[1].id, second[1].id)
  end)

  it("gives back the ticket of a task that is cancelled", function()
    world()
    local waits = task.spawn(function(node) node:match "duel" end, open(1))
    s.world:run(500)
    assert.equal(1, s.server:status().info.tickets)
    waits:cancel()
    s.world:run(500)
    assert.equal(0, s.server:status().info.tickets)
  end)

  it("answers a repeated request as before, also after the match", function()
    world(nil, { loss = 0.3, seed = 7 })
    local a, b = open(1), open(2)
    local wa, wb = wait(a, "duel"), wait(b, "duel")
    s.world:run(20000)
    assert.equal(wa.result[1].id, wb.result[1].id)
    assert.equal(1, count "match_formed")
    assert.equal(2, count "ticket_queued")
    assert.equal(0, s.server:status().info.tickets)
  end)

  it("tells data as deep as can be, also to on_match", function()
    world { duel = [[
      return bodkin.policy { size = 2, form = function(a, near)
        return { teams = { { a, near[1] } }, data = {{{{{{ 7 }}}}}} }
      end, on_match = function(m) print("made of " .. m.data[1][1][1][1][1][1]) end }]] }
    local one = wait(open(1), "duel")
    wait(open(2), "duel")
    s.world:run(2500)
    assert.same({ { { { { { 7 } } } } } }, one.result[1].data)
    assert.truthy(logged "made of 7")
  end)

  describe("whose policy is another", function()
    local path, nodes, waits
    local function write(text) policy.write(path, text) end
    before_each(function()
      path, nodes, waits = os.tmpname(), {}, {}
      write "return bodkin.policy { size = 2, compatible = function() return false end }"
      world { ["*"] = path }
      for n = 1, 5 do nodes[n] = open(n) end
      waits[1], waits[2] = wait(nodes[1], "duel", { mmr = 1 }), wait(nodes[2], "duel")
      s.world:run(500)
    end)
    after_each(function() os.remove(path) end)

    it("goes on with those that this one takes, and ends the others with its reason", function()
      write "return bodkin.policy { size = 2, props = { mmr = 'number' } }"
      s.server:reload()
      s.world:run(500)
      assert.same({ nil, "the property mmr is missing", "refused" }, { table.unpack(waits[2].result, 1, 3) })
      assert.is_nil(waits[1].result)
      assert.equal(1, s.server:status().info.tickets)
      local ended
      s.server:why_waits(nodes[2].id, function(list) ended = list[1] end)
      assert.equal("the property mmr is missing", ended.how)
      waits[3] = wait(nodes[3], "duel", { mmr = 2 })
      s.world:run(2000)
      assert.equal(waits[1].result[1].id, waits[3].result[1].id)
      assert.equal(1, count "ticket_refused")
    end)

    it("ends nobody because of a version that serves but for a while", function()
      local function failing(text)
        write("return bodkin.policy { size = 4, party = 2, compatible = function(a, b) " .. text .. " end }")
        s.server:reload()
      end
      failing "if a.size + b.size > 2 then error 'x' end"
      for n = 3, 4 do
        waits[n] = {}
        task.spawn(function()
          waits[n].result = table.pack(nodes[n]:match("duel", {}, { party = { id = "us", size = 2 } }))
        end)
      end
      s.world:run(700)
      assert.truthy(logged ":2: x; ")
      assert.is_nil(waits[3].result)
      assert.equal(waits[1].result[1].id, waits[2].result[1].id) -- by first_come, which takes no parties
      failing "return true"
      waits[5], waits[6] = wait(nodes[5], "duel"), wait(open(6), "duel")
      s.world:run(3000)
      for n = 4, 6 do assert.equal(waits[3].result[1].id, waits[n].result[1].id) end
    end)
  end)

  describe("whose policy fails", function()
    local failing = [[
      local n = 0
      return bodkin.policy { size = 2, window_ms = 100, form = function(a, near)
        n = n + 1
        if n > 1 then error "no more" end
        return { teams = { { a, near[1] } }, data = n }
      end }]]

    local function four()
      local nodes, waits = {}, {}
      for n = 1, 4 do nodes[n] = open(n) end
      for n = 1, 4 do
        waits[n] = wait(nodes[n], "duel")
        s.world:run(n == 2 and 500 or 50)
      end
      return waits
    end

    it("is served by first_come in the next pass, and the log says the line", function()
      world { duel = failing }
      local waits = four()
      assert.equal(1, waits[1].result[1].data)
      s.world:run(400)
      assert.equal(waits[3].result[1].id, waits[4].result[1].id)
      assert.is_nil(waits[3].result[1].data)
      assert.equal(1, count "policy_failed")
      assert.truthy(logged "policy.lua failed: policy.lua:5: no more; first_come serves, it is tried again in 1 s")
      s.world:run(2000)
      local e, f = open(5), open(6)
      local we, wf = wait(e, "duel"), wait(f, "duel")
      s.world:run(500)
      -- A new instance of it: it works again, once.
      assert.equal(1, we.result[1].data)
      assert.equal(we.result[1].id, wf.result[1].id)
    end)

    it("is served by first_come also where what it made or said is more than can be told", function()
      for text, expect in pairs {
        ["return { teams = { { a, near[1] } }, data = {{{{{{{1}}}}}}} }"] = "not told: nested deeper than 6",
        ["error(('x'):rep(1200))"] = "policy.lua:2: " .. ("x"):rep(900),
      } do
        world { duel = "return bodkin.policy { size = 2, form = function(a, near) " .. text .. " end }" }
        local one, two = wait(open(1), "duel"), wait(open(2), "duel")
        s.world:run(2500)
        assert.truthy(logged(expect))
        assert.equal(one.result[1].id, two.result[1].id)
        s:close()
        s = nil
      end
    end)

    it("is served by the last good version", function()
      local path = os.tmpname()
      local function write(text) policy.write(path, text) end
      write [[
        return bodkin.policy { size = 2, form = function(a, near)
          return { teams = { { a, near[1] } }, data = 'good' }
        end }]]
      world { ["*"] = path }
      local a, b = open(1), open(2)
      local wa = wait(a, "duel")
      wait(b, "duel")
      s.world:run(500)
      assert.equal("good", wa.result[1].data)
      write "return bodkin.policy { size = 2, form = function(a, near) error 'bad' end }"
      s.server:reload()
      assert.truthy(logged "loaded, it serves every queue without its own")
      local c, d = open(3), open(4)
      local wc = wait(c, "duel")
      wait(d, "duel")
      s.world:run(1000)
      assert.equal("good", wc.result[1].data)
      assert.truthy(logged ":2: bad; the version before it serves")
      write "syntax error"
      s.server:reload()
      assert.truthy(logged ":2: syntax error near 'error'; the version before it stays")
      os.remove(path)
      s.server:reload()
      assert.truthy(logged "No such file or directory; the version before it stays")
      s.world:run(3000)
      local e, f = open(5), open(6)
      local we = wait(e, "duel")
      wait(f, "duel")
      s.world:run(1000)
      assert.equal("good", we.result[1].data)
    end)

    it("in an index, is asked no more: the next version admits", function()
      world { duel = "return bodkin.policy { size = 2, index = function() error 'on admission' end }" }
      local a, b = open(1), open(2)
      local wa, wb = wait(a, "duel"), wait(b, "duel")
      s.world:run(1000)
      assert.equal(wa.result[1].id, wb.result[1].id)
      assert.truthy(logged "policy.lua:2: on admission; first_come serves")
    end)

    it("at one ticket after it let others in, refuses that one and goes on", function()
      for _, text in ipairs {
        "admit = function(t) if t.props.bad then error 'on admission' end return true end",
        "index = function(t) if t.props.bad then error 'on admission' end return 1 end",
      } do
        -- One whose properties are not as declared says nothing of it.
        world { duel = "return bodkin.policy { size = 2, window_ms = 100, form = function(a, near)\n"
          .. "return { teams = { { a, near[1] } }, data = 'by it' } end, " .. text .. " }" }
        local nodes, waits = {}, {}
        for n = 1, 3 do
          nodes[n] = open(n)
          waits[n] = wait(nodes[n], "duel", n == 2 and { bad = true } or nil)
          s.world:run(20)
        end
        s.world:run(500)
        assert.same({ nil, "the policy failed: try again in a while", "refused" },
          { table.unpack(waits[2].result, 1, 3) })
        assert.equal("by it", waits[1].result[1].data)
        assert.equal(waits[1].result[1].id, waits[3].result[1].id)
        assert.truthy(logged "queue duel: policy policy.lua failed: policy.lua:3: on admission; that ticket is refused")
        s:close()
        s = nil
      end
    end)

    it("at many tickets says so five times a second, and counts all", function()
      world { duel = "return bodkin.policy { size = 2, admit = function(t) assert(not t.props.bad) return true end }" }
      wait(open(1), "duel")
      s.world:run(100)
      local node = open(2)
      s.world:run(1000 - s.world:now() // 1000 % 1000)
      for _ = 1, 20 do wait(node, "duel", { bad = true }) end
      s.world:run(500)
      local lines = 0
      for _, line in ipairs(s.hub.log) do lines = lines + (line:find("that ticket is refused", 1, true) and 1 or 0) end
      assert.equal(5, lines)
      assert.equal(20, count "policy_failed")
    end)

    it("is tried again at a time when no other is", function()
      local bad = "return bodkin.policy { size = 2, window_ms = 10, index = function() error 'no' end }"
      world { one = bad, two = bad }
      for i, queue in ipairs { "one", "two" } do wait(open(i), queue) end
      local times, before = {}, 0
      for ms = 10, 4000, 10 do
        s.world:run(10)
        for _ = before + 1, count "policy_failed" do times[#times + 1] = ms end
        before = #times
      end
      assert.is_true(#times >= 6, #times)
      for i = 3, #times do -- the first two failed with their tickets
        assert.is_true(times[i] - times[i - 1] >= 200, times[i])
      end
    end)

    it("again after it did well for a while is tried again as soon as the first time", function()
      world { duel = [[return bodkin.policy { size = 2, compatible = function(a, b)
        if a.props.bad or b.props.bad then error "oops" end
      end }]] }
      for n = 1, 4 do -- two at a time: first_come matches them
        wait(open(n), "duel", { bad = n % 2 == 0 or nil })
        s.world:run(3000)
      end
      local times = 0
      for _, line in ipairs(s.hub.log) do
        times = times + (line:find("oops; first_come serves, it is tried again in 1 s", 1, true) and 1 or 0)
      end
      assert.same({ 2, 2 }, { times, count "policy_failed" })
    end)

    it("by using up what it may, is tried with less", function()
      local d = policy.desk [[return bodkin.policy { size = 2, compatible = function(a, b)
        if a.props.good then return true end
        local n = 0
        while true do
          n = n + 1
          if n % 100000 == 0 then print(n) end
        end
      end }]]
      local function tried()
        local said = 0
        for _, m in ipairs(d:tell { "tick", "q", 1, 1, 1000 }) do said = said + (m[1] == "said" and 1 or 0) end
        return said
      end
      for _ = 1, 2 do assert.truthy(d:add {}) end
      local all = tried()
      assert.is_true(all >= 8, all)
      local list = {}
      for i = 1, 4 do list[i] = tried() end
      for i, part in ipairs { 1 / 8, 1 / 4, 1 / 2, 1 } do
        assert.is_true(math.abs(list[i] - all * part) <= 1, list[i])
      end
      for no = 1, 2 do d:tell { "drop", "q", no } end
      assert.same({}, d:tick(1000)) -- it got through all who wait
      for _ = 1, 2 do assert.truthy(d:add {}) end
      assert.is_true(math.abs(tried() - all) <= 1)
      d:tell { "renew", 1 }
      assert.is_true(math.abs(tried() - all) <= 1)
    end)

    it("at one that stands far behind is tried with less until it gets there", function()
      local d = policy.desk [[return bodkin.policy { size = 2, compatible = function(a)
        if a.props.bad then while true do end end
        for _ = 1, 20 do end
        return false
      end }]]
      for i = 1, 800 do assert.truthy(d:add { bad = i == 500 or nil }) end
      local order = {}
      for i = 1, 12 do
        local told = d:tell { "tick", "q", 1, i, i }
        local last = told[#told]
        order[i] = last[1] == "failed" and "f" or last[5] and "w" or "p"
      end
      assert.matches("^fp+f+$", table.concat(order))
    end)

    it("leaves its place to the last good one also where a pass ends before what it fails at", function()
      local path = os.tmpname()
      local function write(text) policy.write(path, text) end
      write "return bodkin.policy { size = 2, window_ms = 100, compatible = function() return false end }"
      world { duel = path }
      local waits = {}
      for i = 1, 60 do waits[i] = wait(open(i), "duel", { bad = i > 58 or nil }, 60000) end
      s.world:run(500)
      write [[return bodkin.policy { size = 2, window_ms = 100, compatible = function(a)
        if a.props.bad then error "at last" end
        for _ = 1, 2000 do end
        return false
      end }]]
      s.server:reload()
      s.world:run(20000)
      os.remove(path)
      assert.truthy(logged ":3: at last; the version before it serves, it is tried again in 4 s")
      assert.is_nil(logged "first_come serves" or nil)
      for i = 1, 60 do assert.is_nil(waits[i].result) end
    end)

    it("and which says who may wait, lets nobody in meanwhile; who waits is matched", function()
      for _, text in ipairs {
        "admit = function(t) if t.props.bad then while true do end end return true end",
        "claims = { mmr = 'number?' }, compatible = function(a, b) if b.props.bad then error 'x' end return false end",
      } do
        world { duel = "return bodkin.policy { size = 2, window_ms = 100, " .. text .. " }" }
        local nodes, waits = {}, {}
        for n = 1, 4 do nodes[n] = open(n) end
        waits[1] = wait(nodes[1], "duel")
        s.world:run(150)
        waits[2] = wait(nodes[2], "duel", { bad = true })
        s.world:run(200)
        waits[3] = wait(nodes[3], "duel")
        s.world:run(400)
        local refused = { nil, "the policy failed: try again in a while", "refused" }
        assert.same(refused, { table.unpack(waits[3].result, 1, 3) })
        if text:find "admit" then
          assert.is_nil(waits[1].result)
          s.world:run(1000)
          waits[4] = wait(nodes[4], "duel")
          s.world:run(2000)
          assert.equal(waits[1].result[1].id, waits[4].result[1].id)
        else
          assert.equal(waits[1].result[1].id, waits[2].result[1].id)
        end
        s:close()
        s = nil
      end
    end)

    it("at the start, is an error of the start", function()
      world()
      for text, expect in pairs {
        ["return bodkin.policy { size = 1 }"] = "the policy does not load: policy.lua:2: policy: size must be",
        ["return 1"] = "returns a number, not a policy",
      } do
        local server, err, code = servers.open(s.hub.env, { listen = { "198.51.100.10:5000" },
          queues = { duel = { policy = policy.source(text) } } })
        assert.is_nil(server)
        assert.matches(expect, err, 1, true)
        assert.equal("invalid", code)
      end
    end)
  end)
end)

-- SPDX-License-Identifier: MIT
-- What is said of matches: that it is true, in the simulator, of each two kinds of NAT; and how it looks.
local diagnosis = require "bodkin.cli.diagnosis"
local nats = require "bodkin.sim.nat"
local stories = require "bodkin.cli.story"
local story = require "spec.cli.story"
local support = require "spec.client.support"
local theory = require "bodkin.sim.theory"
local why = require "bodkin.cli.why"

local AD, APD, EI = "address_dependent", "address_and_port_dependent", "endpoint_independent"
local SHORT = { EI = EI, AD = AD, APD = APD }
local LONG = { [EI] = "endpoint", [AD] = "address", [APD] = "address_port" }

local function nat(name)
  if nats.kinds[name] then return { kind = name } end
  local mapping, filtering = name:match "^(%u+)/(%u+)$"
  return { mapping = SHORT[mapping], filtering = SHORT[filtering] }
end

-- Whether it may use another port toward a peer than toward the server.
local function is_by_destination(name)
  local b = nats.kinds[name] or nat(name)
  return b.race or b.ports ~= "overload" and (b.mapping or EI) ~= EI
end

-- Codes with the side they are about, sorted: "silent 1".
local function codes(d)
  local out = {}
  for i, f in ipairs(d.findings) do out[i] = f.code .. (f.side and " " .. f.side or "") end
  table.sort(out)
  return table.concat(out, ", ")
end

local function text(d)
  local out = {}
  for i, f in ipairs(d.findings) do out[i] = f.text end
  return table.concat(out, "\n")
end

-- Two NATs, and what is said of the pair: one of each letter of docs/NAT.md.
local EXPECTED = {
  { "full_cone", "symmetric_random", "connected", "moved_port 2, path 1, path 2" },
  { "port_restricted", "port_restricted", "connected", "path 1, path 2" },
  { "AD/AD", "APD/EI", "connected", "moved_port 1, moved_port 2, path 1, path 2" },
  { "port_restricted", "APD/EI", "failed", "silent 1, unconfirmed 2" },
  { "port_restricted", "symmetric_random", "failed", "filtered, silent 1, silent 2" },
  { "symmetric_random", "APD/EI", "failed", "moved_port 1, silent 1, unconfirmed 2" },
  { "APD/EI", "APD/EI", "failed", "moved_port 1, moved_port 2, unconfirmed 1, unconfirmed 2" },
  { "firewall", "symmetric_sequential", "failed", "filtered, silent 1, silent 2" },
  { "address_dependent", "port_restricted", "failed", "filtered, silent 1, silent 2" },
}

describe("the diagnosis", function()
  for _, case in ipairs(EXPECTED) do
    it(("of %s and %s"):format(case[1], case[2]), function()
      local records = story.play(nat(case[1]), nat(case[2]))
      local d = diagnosis.of(story.pair(table.unpack(records)))
      local got = codes(d):gsub("heard %d, ", "")
      assert.same({ case[3], case[4] }, { d.verdict, got })
    end)
  end

  it("of two that met by a relay says so", function()
    local records = story.play(nat "port_restricted", nat "symmetric_random", { relay = true })
    local d = diagnosis.of(story.pair(table.unpack(records)))
    assert.same({ "connected", "path 1, path 2" }, { d.verdict, codes(d) })
    for _, f in ipairs(d.findings) do assert.matches("over a relay, confirmed after", f.text, 1, true) end
  end)

  it("of two whose relays did not answer, or refused, says so", function()
    local records, answer = story.play(nat "port_restricted", nat "symmetric_random", {
      relay = { "198.51.100.20", "198.51.100.21" },
      prepare = function(s) s:serve(s:host("relay", "198.51.100.21"), { "relay" }, { ("x"):rep(32) }) end,
    })
    local own, m = story.pair(table.unpack(records)), answer.ends
    if m[1].self ~= records[1].self then m[1], m[2] = m[2], m[1] end
    for _, pair in ipairs { own, story.pair(table.unpack(m)) } do
      local d = diagnosis.of(pair)
      assert.equal("failed", d.verdict)
      assert.matches("relay_no_answer 1, relay_no_answer 2, relay_refused 1, relay_refused 2", codes(d), 1, true)
      assert.matches("The relay 198.51.100.20:4433 did not answer bob.", text(d), 1, true)
      assert.matches("The relay 198.51.100.21:4433 refused ann: has it the deployment's key file", text(d), 1, true)
      assert.matches("^The relay that was named.*\nAt the relay the key file", table.concat(d.help, "\n"))
      assert.is_nil(table.concat(d.help, "\n"):find("A relay: it works", 1, true))
      local lines = table.concat((stories.text(pair)), "\n")
      assert.matches("relay  198.51.100.20:4433         0 tests   failed: the relay did not answer", lines, 1, true)
      assert.matches("relay  198.51.100.21:4433         0 tests   failed: the relay refused", lines, 1, true)
    end
  end)

  it("of one whose network lets no UDP out says so, and blames no NAT", function()
    local blocked = { kind = "port_restricted", blocks = "udp" }
    local records, answer = story.play(blocked, nat "port_restricted", { relay = true, tcp = true })
    local d = diagnosis.of(story.pair(table.unpack(records)))
    assert.same({ "connected", "path 1, path 2, udp_blocked 1" }, { d.verdict, codes(d) })
    assert.matches("path 1, path 2, udp_blocked [12]", codes(diagnosis.of(story.pair(table.unpack(answer.ends)))))
    records = story.play(blocked, nat "full_cone", { tcp = true })
    d = diagnosis.of(story.pair(table.unpack(records)))
    assert.equal("failed", d.verdict)
    assert.matches("ann reached the server over TCP alone", text(d), 1, true)
    assert.is_nil(text(d):find("UDP as such is not blocked", 1, true))
    -- Whatever the other one's NAT lets in.
    records, answer = story.play(blocked, nat "full_cone", { tcp = true, known = true })
    assert.is_nil(records[1].behaviour)
    assert.equal("endpoint", records[2].behaviour.filtering)
    for _, list in ipairs { records, { records[1] }, { records[2] }, answer.ends } do
      assert.is_nil(text(diagnosis.of(story.pair(table.unpack(list)))):find("theory", 1, true))
    end
  end)

  it("of two who met inside a network that lets no UDP out does not say that a relay is all that is left", function()
    local records = story.play(nil, nil, { shared = { kind = "port_restricted", blocks = "udp" }, relay = true,
      tcp = true })
    for _, list in ipairs { records, { records[1] }, { records[2] } } do
      local said = text(diagnosis.of(story.pair(table.unpack(list))))
      assert.matches("reached the server over TCP alone: its network lets no UDP out.", said, 1, true)
      assert.matches("inside their network, by a local address", said, 1, true)
      assert.is_nil(said:find("is a relay", 1, true), said)
    end
  end)

  it("says nothing untrue of any two kinds of NAT, from both ends or one", function()
    local names = { "none", "firewall", "plain_linux", "symmetric_sequential" }
    for _, mapping in ipairs { "EI", "AD", "APD" } do
      for _, filtering in ipairs { "EI", "AD", "APD" } do names[#names + 1] = mapping .. "/" .. filtering end
    end
    local failed, claims = 0, 0
    for i, a in ipairs(names) do
      for k = i, #names do
        local b = names[k]
        local kinds = { a, b }
        local records = story.play(a ~= "none" and nat(a), b ~= "none" and nat(b))
        for _, ends in ipairs { records, { records[1] }, { records[2] } } do
          local order = ends[1] == records[1] and kinds or { b, a }
          local pair = story.pair(table.unpack(ends))
          local d = diagnosis.of(pair)
          local what = ("%s and %s, %d ends: %s"):format(order[1], order[2], #ends, text(d))
          local works = records[1].confirmed_ms and records[2].confirmed_ms
          assert.equal(works and "connected" or "failed", d.verdict, what)
          for _, f in ipairs(d.findings) do
            if f.by_destination then
              claims = claims + 1
              assert.is_true(is_by_destination(order[f.side]), what)
            end
            if f.code == "filtered" then
              assert.is_true(is_by_destination(a) or is_by_destination(b), what)
            end
          end
          assert.is_true(#d.findings > 0, what)
          assert.equal(d.verdict == "failed", #d.help > 0, what)
        end
        failed = failed + (records[1].reason == "no_path" and 1 or 0)
      end
    end
    assert.is_true(failed > 20 and claims > 40, failed .. " failed, claims: " .. claims)
  end)

  it("has the theory, where behaviour is known", function()
    local function behaviour(name)
      local b = nat(name)
      return { mapping = LONG[b.mapping], filtering = LONG[b.filtering] }
    end
    for _, case in ipairs { { "EI/APD", "APD/EI", "d" }, { "EI/APD", "APD/APD", "e" }, { "EI/EI", "APD/APD", "a" } } do
      local records = story.play(nat(case[1]), nat(case[2]), { prepare = function(_, na, nb)
        support.knows(na, behaviour(case[1]))
        support.knows(nb, behaviour(case[2]))
      end })
      local d = diagnosis.of(story.pair(table.unpack(records)))
      local verdict, letter = theory.of(behaviour(case[1]), behaviour(case[2]))
      assert.equal(case[3], letter)
      local last = d.findings[#d.findings]
      assert.equal("theory_" .. verdict, last.code)
      assert.matches("docs/NAT.md, case " .. letter, last.text, 1, true)
    end
  end)

  it("says what both NATs do where that was found out, and infers it no more", function()
    local function finding(d, code, side)
      for _, f in ipairs(d.findings) do
        if f.code == code and f.side == side then return f.text end
      end
    end
    local records = story.play(nat "port_restricted", nat "symmetric_random", { known = true })
    for _, ends in ipairs { records, { records[1] } } do
      local pair = story.pair(table.unpack(ends))
      local d = diagnosis.of(pair)
      assert.equal("ann's NAT keeps one port for all destinations, and lets in only the ports that were sent to, as "
        .. "its client found out.", finding(d, "nat", 1))
      assert.equal("bob's NAT uses another port for another destination, and lets in only the ports that were sent to, "
        .. "as its client found out.", finding(d, "nat", 2))
      assert.matches("case e", finding(d, "theory_no"), 1, true)
      assert.is_nil((finding(d, "filtered") or ""):find("at least one of the two", 1, true))
      assert.matches("^For bob another router", d.help[#ends == 2 and 3 or 4])
      local lines = table.concat((stories.text(pair)), "\n")
      assert.matches("NAT          one port for all; lets in ports sent to", lines, 1, true)
      assert.matches(#ends == 2 and "a port for each destination; lets in ports sent to"
        or "peer's NAT   a port for each destination; lets in ports sent to", lines, 1, true)
    end
    -- Both could, by the theory, and a firewall between drops all.
    local d = diagnosis.of(story.pair({ match = ("1"):rep(32), self = ("a"):rep(32), peer = ("b"):rep(32),
      state = "closed", reason = "no_path", lasted_ms = 10000, paths = { { remote = "203.0.113.2:5", tests = 9 } },
      behaviour = { mapping = "endpoint", filtering = "endpoint", nat = true } }, { match = ("1"):rep(32),
      self = ("b"):rep(32), peer = ("a"):rep(32), state = "closed", reason = "no_path", lasted_ms = 10000,
      paths = { { remote = "203.0.113.1:5", tests = 9 } }, behaviour = { mapping = "endpoint", nat = false } }))
    assert.matches("Both NATs keep one port for all destinations, so something else drops", finding(d, "filtered"))
    assert.matches("So something else was in the way", finding(d, "theory_yes"))
  end)

  it("says nothing untrue of what was found out, either", function()
    local kinds = { "none", "firewall", "full_cone", "address_restricted", "port_restricted", "address_dependent",
      "symmetric_sequential", "symmetric_random" }
    for i, a in ipairs(kinds) do
      local b = kinds[#kinds - i + 1]
      local records = story.play(a ~= "none" and nat(a), b ~= "none" and nat(b), { known = true })
      local d, verdict = diagnosis.of(story.pair(table.unpack(records))), theory.verdict(a, b)
      local what = ("%s and %s: %s"):format(a, b, text(d))
      assert.equal(verdict == "yes" and "connected" or "failed", d.verdict, what)
      assert.truthy(text(d):find(verdict == "yes" and "theory says: a direct path" or "theory says: no direct path", 1,
        true), what)
      for _, f in ipairs(d.findings) do
        if f.by_destination then assert.is_true(is_by_destination(f.side == 1 and a or b), what) end
      end
    end
  end)

  it("knows two behind one NAT whose hosts are kept apart", function()
    local records = story.play(nil, nil, { shared = { kind = "port_restricted", isolated = true } })
    local d = diagnosis.of(story.pair(table.unpack(records)))
    assert.same({ "failed", "local_failed 1, no_hairpin 1, same_nat 1" }, { d.verdict, codes(d) })
    d = diagnosis.of(story.pair(records[2]))
    assert.same("local_failed 1, no_hairpin 1, one_end 1, same_nat 1", codes(d))
    records = story.play(nil, nil, { shared = { kind = "port_restricted" } })
    assert.equal("connected", diagnosis.of(story.pair(table.unpack(records))).verdict)
  end)

  it("blames no NAT where one was gone", function()
    local open = nat "full_cone"
    local records, m = story.play(open, open, { meanwhile = function(s, _, nb)
      s:run(function() nb:close() end)
    end })
    local d = diagnosis.of(story.pair(table.unpack(records)))
    assert.same({ "failed", "left_early 2" }, { d.verdict, codes(d) })
    assert.equal("failed", m.verdict)
    -- One that is killed says nothing any more; the server has one end.
    records, m = story.play(open, open, { killed = true, meanwhile = function(s)
      s.world:run(10) -- its tests are on their way, its confirms will not be
      table.remove(s.nodes)
      s.world.hosts[3]:kill()
    end })
    assert.same({ "no_path", "number" }, { records[1].reason, type(records[1].first_ms) })
    d = diagnosis.of(story.pair(table.unpack(m.ends)))
    assert.matches("no_report", codes(d))
    for _, f in ipairs(d.findings) do assert.is_not_true(f.by_destination, f.text) end
  end)

  it("tells a path that was lost from one that never was", function()
    local open = nat "full_cone"
    local records = story.play(open, open, { ms = 120000, killed = true, meanwhile = function(s)
      s.world:run(2000)
      table.remove(s.nodes)
      s.world.hosts[3]:kill()
    end })
    local d = diagnosis.of(story.pair(records[1]))
    assert.same({ "lost", "lost, path 1" }, { d.verdict, codes(d) })
    assert.matches("a relay, which takes over then", table.concat(d.help, "\n"), 1, true)
  end)

  it("says what stood in the way of one who could not begin", function()
    local a, b = ("a"):rep(32), ("b"):rep(32)
    local function one(more)
      local r = { match = ("1"):rep(32), self = a, peer = b, state = "closed", reason = "no_path", lasted_ms = 0 }
      for k, v in pairs(more) do r[k] = v end
      return diagnosis.of(story.pair(r))
    end
    local d = one { note = "the match came too late for its keys" }
    assert.equal("aaaaaaaa did not try: the match came too late for its keys.", text(d))
    assert.equal("no_candidate 1", codes(one {}))
    d = one { note = require("bodkin.outcome").NO_ADDRESS }
    assert.equal("no_candidate 1", codes(d))
    assert.matches("IPv4 or IPv6", d.help[1])
    local relay = { remote = "192.0.2.1:1", via = "relay", state = "failed", reason = "no_answer", tests = 0 }
    assert.equal("no_candidate 1, relay_no_answer 1", codes(one { paths = { relay } }))
    d = one { public = { "127.0.0.1:1" }, ["local"] = { "127.0.0.1:1" }, peer_public = { "127.0.0.1:2" },
      paths = { { remote = "127.0.0.1:2", via = "host", state = "probing", tests = 25 } } }
    assert.same({ "one_end 1, same_machine 1, silent 1", 1 }, { codes(d), #d.help })
    d = one { paths = {
      { remote = "[2001:db8::1]:1", via = "ipv6", state = "failed", reason = "unreachable", tests = 1 },
    } }
    assert.equal("unreachable 1", codes(d))
    assert.matches("IPv4 or IPv6", d.help[1])
  end)

  it("concludes nothing that the records do not show", function()
    local a, b = ("a"):rep(32), ("b"):rep(32)
    local silent = { { remote = "203.0.113.9:5", via = "srflx", state = "failed", reason = "no_answer", tests = 25 } }
    -- One record, or those of both ends; what is not said is of two that sought for 10 s, and heard nothing.
    local function of(...)
      local list = {}
      for i, more in ipairs { ... } do
        local r = { match = ("1"):rep(32), self = i == 1 and a or b, peer = i == 1 and b or a, state = "closed",
          reason = "no_path", lasted_ms = 10000, public = { ("203.0.113.%d:5"):format(i) },
          peer_public = { ("203.0.113.%d:5"):format(3 - i) }, paths = silent }
        for k, v in pairs(more) do r[k] = v end
        list[i] = r
      end
      local d = diagnosis.of(story.pair(table.unpack(list)))
      return codes(d), d
    end
    assert.equal("filtered, silent 1, silent 2", (of({}, {})))
    -- What came from a local address of the peer's is no other way out.
    local near = { { remote = "192.168.1.9:5", via = "prflx", state = "usable", tests = 5 } }
    assert.equal("heard 1, unconfirmed 1", (of { paths = near, peer_local = { "192.168.1.9:5" } }))
    assert.equal("moved_ip 2, unconfirmed 1", (of { paths = near }))
    -- Who left after long enough was not gone too soon.
    assert.equal("left_early 2", (of({}, { reason = "closed", lasted_ms = 4900 })))
    assert.equal("filtered, silent 1, silent 2", (of({}, { reason = "closed", lasted_ms = 5100 })))
    -- Who could send no UDP was stopped by that, and by no filter.
    assert.equal("silent 1, silent 2, udp_blocked 1", (of({ over = "tcp", public = {} }, { peer_public = {} })))
    -- One NAT is in front of both: of two such ones there is no theory. Nor did it use another port for the other.
    local nat_kind = { nat = true, mapping = "endpoint", filtering = "address_port" }
    local shared = { peer_public = { "203.0.113.1:6" }, behaviour = nat_kind, peer_behaviour = nat_kind }
    assert.is_nil(of(shared):find "theory")
    shared.reason, shared.via, shared.confirmed_ms = "left", "prflx", 40
    shared.paths = { { remote = "203.0.113.1:7", via = "prflx", state = "valid", tests = 1 } }
    assert.equal("path 1", (of(shared)))
    -- A relay that was open did answer; and where there was one, another would not have helped.
    local relay = { remote = "198.51.100.1:1", via = "relay", state = "failed", reason = "no_answer", tests = 7 }
    local said, d = of { reason = "consent_lost", via = "srflx", confirmed_ms = 40, paths = { silent[1], relay } }
    assert.same({ "lost, path 1", {} }, { said, d.help })
    -- Who never heard of the match did not fail to say how it went.
    assert.equal("not_told 2", (of({}, { state = "unknown", reason = false, acknowledged = false })))
  end)

  it("is the same of the server's records as of the clients' own", function()
    local own, m = story.play(nat "port_restricted", nat "symmetric_random")
    local own_text = stories.text(story.pair(table.unpack(own)))
    local told = stories.text(story.pair(table.unpack(m.ends)))
    -- Which end the server has first is chance.
    if m.ends[1].self ~= own[1].self then told = stories.text(story.pair(m.ends[2], m.ends[1])) end
    for i, line in ipairs(own_text) do
      if not line:find "^  local" then assert.equal(line, told[i]) end
    end
    assert.equal(#own_text, #told)
  end)
end)

describe("the text", function()
  it("of docs/WHY.md is what comes out", function()
    local tables = assert(loadfile "docs/tables.lua")()
    assert.truthy(tables.why)
    assert.equal(tables.read(tables.why.file), tables.fill(tables.read(tables.why.file), tables.why.sections),
      "run `make docs`")
  end)

  it("holds what others wrote to the terminal's good", function()
    local r = { match = ("1"):rep(32), self = ("2"):rep(32), peer = ("3"):rep(32), name = "\27[2Jeve", own_name = 7,
      state = "closed\n", reason = {}, via = "\27]0;x", path = "x", lasted_ms = 0 / 0, confirmed_ms = 1,
      at = 1e300,
      public = { 1, "\27x", {} },
      paths = { 1, {}, { remote = "\27", tests = 1e300, state = "failed", reason = "\27" } },
      behaviour = { mapping = "\27" }, candidates = 1e11 }
    for _, line in ipairs(stories.text(story.pair(r))) do assert.is_nil(line:find "%c", line) end
    local no_hex = { match = ("1"):rep(32), self = ("z"):rep(32), peer = ("3"):rep(32) }
    for _, bad in ipairs { 1, "x", {}, { match = "1" }, no_hex } do
      assert.is_nil(stories.record(bad))
    end
  end)

  it("goes into a file and comes out again, with what is around it", function()
    local records = story.play(nat "port_restricted", nat "port_restricted", { ms = 2000 })
    local path = os.tmpname()
    assert(assert(why.writer(path)) { records[1] })
    local file <close> = assert(io.open(path))
    local content = file:read "a"
    assert.matches("no keys", content, 1, true)
    assert.same({ stories.record(records[1]) }, why.read(path))
    local broken = assert(io.open(path, "w"))
    broken:write("From: ann\n{ not json\n[1]\n", content:gsub("\n", "\r\n"), '{"match":1}\n')
    broken:close()
    assert.equal(records[1].match, why.read(path)[1].match)
    broken = assert(io.open(path, "w"))
    broken:close()
    local _, err = why.read(path)
    assert.matches("tells of no match", err)
    os.remove(path)
    _, err = why.read(path)
    assert.matches("cannot read", err)
    _, err = why.writer "/nowhere/at/all"
    assert.matches("is the directory there", err)
  end)

  it("takes the last that an end wrote, and tells two of one name apart", function()
    local a, b = ("a"):rep(32), ("b"):rep(32)
    local function record(more)
      local r = { match = ("1"):rep(32), self = a, peer = b, own_name = "ann", name = "ann", state = "seeking" }
      for k, v in pairs(more or {}) do r[k] = v end
      return r
    end
    local pair = story.pair(record(), record { state = "connected", confirmed_ms = 20 })
    assert.equal("connected", diagnosis.of(pair).verdict)
    assert.same({ "aaaaaaaa", "bbbbbbbb" }, pair.names)
    assert.same({ "ann", "bob" }, story.pair(record { name = "bob" }).names)
  end)

  it("lists those that failed first, else in the server's order", function()
    local admin, output, lines = require "bodkin.cli.admin", require "bodkin.cli.output", {}
    local ask, of = admin.ask, output.of
    finally(function() admin.ask, output.of, package.loaded["bodkin.cli.process"] = ask, of, nil end)
    package.loaded["bodkin.cli.process"] = { run = function(_, fn) return fn {} end }
    function admin.ask()
      local matches = {}
      for i, verdict in ipairs { "connected", "failed", "unknown", "failed" } do
        matches[i] = { match = tostring(i):rep(32), verdict = verdict, how = "room", age_s = 1, members = {} }
      end
      return { matches = matches, total = 4 }
    end
    function output.of()
      return { line = function(_, said) lines[#lines + 1] = said:sub(1, 3) end }
    end
    assert.equal(0, why.run({}, {}))
    assert.same({ "! 2", "! 4", "  1", "? 3" }, lines)
  end)
end)

-- The binary, as a player and an operator meet it.
describe("bodkin why", function()
  local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
  local dir, url, server, admin

  local function run(words, seconds)
    local command = ("cd %s && timeout %d %s %s 2>&1 </dev/null"):format(dir, seconds or 20, bodkin, words)
    local pipe = assert(io.popen(command))
    local out = pipe:read "a"
    local _, _, code = pipe:close()
    return code, out
  end

  setup(function()
    if bodkin:sub(1, 1) ~= "/" then
      local pwd <close> = assert(io.popen "pwd")
      bodkin = pwd:read "l" .. "/" .. bodkin
    end
    local made <close> = assert(io.popen "mktemp -d")
    dir = made:read "l"
    admin = "--admin " .. dir .. "/admin"
    server = assert(io.popen(("cd %s && echo $$; XDG_STATE_HOME=. exec timeout 60 %s serve --json "
      .. "--listen 127.0.0.1:0 %s 2>/dev/null </dev/null"):format(dir, bodkin, admin)))
    local pid = server:read "l"
    url = server:read "l":match '"url":"([^"]*)"'
    server = { pipe = server, pid = pid }
  end)

  teardown(function()
    os.execute("kill " .. server.pid)
    server.pipe:close()
    os.execute("rm -rf " .. dir)
  end)

  it("says that there was no match, and what it takes", function()
    assert.same({ 0, "no match was made in the last hour\n" }, { run("why " .. admin) })
    local code, out = run("why nobody " .. admin)
    assert.equal(4, code)
    assert.matches("no match or ticket of the last hour is, or had a client of the id or name, nobody", out, 1, true)
    code, out = run "why --admin nowhere"
    assert.equal(1, code)
    assert.matches("no server answers on nowhere", out, 1, true)
    assert.equal(2, (run("why one two " .. admin)))
    code, out = run "why one two"
    assert.equal(2, code)
    assert.matches("cannot read one", out, 1, true)
    assert.equal(4, (run(("join bodav-lirom-tifug --server '%s' --why none.txt"):format(url))))
    local none <close> = assert(io.open(dir .. "/none.txt"))
    assert.matches("There was no match: no room has this code\n", none:read "a", 1, true)
    code, out = run(("host --server '%s' --why nowhere/file"):format(url))
    assert.equal(2, code)
    assert.matches("cannot write the report", out, 1, true)
  end)

  it("has both ends of a match, from the server and from their files", function()
    local host = assert(io.popen(("cd %s && timeout 20 %s host --json --server '%s' --name ann --expect 1 "
      .. "--why ann.txt 2>/dev/null </dev/null"):format(dir, bodkin, url)))
    local code
    repeat code = host:read "l":match '"code":"(%l+%-%l+%-%l+)"' until code
    assert.equal(0, (run(("join %s --server '%s' --name bob --send hi --timeout 3 --why bob.txt"):format(code, url))))
    host:close()
    local status, both = run "why ann.txt bob.txt"
    assert.equal(0, status)
    local id = both:match "^match (%x+), made %d+%-%d+%-%d+ %d+:%d+:%d+ UTC: was connected, and is over\n"
    assert.truthy(id, both)
    for _, part in ipairs { "ann (", "bob (", "ann tried, to reach bob:", "bob tried, to reach ann:",
      "works, round trip ", "ann reached bob inside their network, by a local address, confirmed after " } do
      assert.truthy(both:find(part, 1, true), part .. "\n" .. both)
    end
    local _, list = run("why " .. admin)
    assert.matches("^  " .. id:sub(1, 12) .. " +%d+ s ago  room +%l+, %l+: connected\n$", list)
    for _, asked in ipairs { id, "ann", "bob" } do
      local _, told = run(("why %s %s"):format(asked, admin))
      assert.matches("match " .. id .. ", made [^\n]+ %(room%): was connected, and is over\n", told)
      assert.truthy(told:find("ann tried, to reach bob:", 1, true), told)
    end
    local _, json = run("why --json ann " .. admin)
    local n = 0
    for line in json:gmatch "[^\n]+" do
      assert.equal(id, stories.record(assert(require("bodkin.json").decode(line))).match)
      n = n + 1
    end
    assert.equal(2, n)
  end)

  it("tells who finds nobody, and the operator, of one who was gone", function()
    local host = assert(io.popen(("cd %s && echo $$; exec timeout --foreground -s KILL 20 %s host --json "
      .. "--server '%s' --name eve 2>/dev/null </dev/null"):format(dir, bodkin, url)))
    local pid = host:read "l"
    local code
    repeat code = host:read "l":match '"code":"(%l+%-%l+%-%l+)"' until code
    os.execute(("kill -KILL $(pgrep -P %s) %s"):format(pid, pid))
    host:close()
    local status, out = run(("join %s --server '%s' --name dan --timeout 2"):format(code, url))
    assert.equal(5, status)
    assert.matches("dan left after 2.%d s, before a path was found.\n"
      .. "Nothing from eve reached dan, which sent %d+ tests.\n%-%-why FILE writes what was tried, for a report\n", out)
    out = select(2, run("why eve " .. admin))
    assert.truthy(out:find("eve never confirmed that it had heard of the match", 1, true), out)
    assert.truthy(out:find("Nothing from eve reached dan", 1, true), out)
  end)
end)

-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local support = require "spec.servers.support"
local message = require "bodkin.message"

local addr, who = support.addr, support.who
local from = addr("198.51.100.7:40000")
local function text(list)
  local out = {}
  for i, a in ipairs(list) do out[i] = core.addr.format(a) end
  return table.concat(out, " ")
end

describe("S2 matching server's registry", function()
  local s
  local function open(options)
    options = options or {}
    options.roles = { "matching" }
    s = support.server(options)
  end
  local function found(id, by)
    by = by or from
    return s:one(by, "lookup", s:next_tx(), id)
  end
  -- All entries, page by page, as { [id] = entry }, and in order.
  local function all(query, options)
    options = options or {}
    local by, list, cursor, pages = options.from or from, {}, nil, 0
    repeat
      local page = s:one(by, "list", s:next_tx(), options.app or "test/1",
        core.wire.encode(query or {}), cursor, options.want_addr or false)
      assert.equal("page", page.name_of)
      assert.is_true(#page.entries <= 1100)
      for _, e in ipairs(assert(core.wire.decode(page.entries))) do list[#list + 1] = e end
      cursor, pages = page.next, pages + 1
      if options.between then options.between(pages) end
    until not cursor
    return list, pages
  end
  after_each(function() s:close() end)

  it("S2 takes one entry a client, with public and local address and properties", function()
    open { expose_addresses = true }
    local mine = { locals = { addr("192.168.1.2:5000") }, name = "ann", props = { map = "dust" } }
    local r = s:register(who(1), from, mine)
    assert.equal("registered", r.name_of)
    assert.equal(from, core.addr.mask(r.xaddr, r.tx))
    assert.equal(60, r.lifetime_s)
    assert.equal(s.server.boot, r.boot)
    local f = found(who(1).id)
    assert.equal("198.51.100.7:40000", text(f.pubs))
    assert.equal("192.168.1.2:5000", text(f.locals))
    s:register(who(1), from, { name = "ann", props = { map = "sand" } })
    local list = all()
    assert.equal(1, #list)
    assert.same({ who(1).id, "ann", { map = "sand" } }, list[1])
    assert.equal(1, s.server:status().info.registered)
  end)

  it("S2 takes what is asked in its name only in an association, and opens one only for a proven sender", function()
    open { expose_addresses = true }
    local w, empty, from6 = who(1), core.wire.encode({}), addr("[2001:db8::7]:40000")
    local plain = {
      register = { w.ephemeral, {}, {}, "", "", empty, nil, n = 7 }, list = { "", empty, nil, false, n = 4 },
      lookup = { w.id }, room_open = { nil, nil, n = 2 }, unregister = {}, leave = { w.id },
      select = { w.ephemeral, nil, nil, {}, {}, "", "", empty, nil, n = 9 }, matched_ack = {}, cancel = { w.id },
      enqueue = { w.id, "q", empty },
    }
    local count = 0
    for name, args in pairs(plain) do
      local bytes = assert(message[name]:encode(s:next_tx(), table.unpack(args, 1, args.n or #args)))
      assert.equal(0, #s:feed(from6, bytes), name)
      count = count + 1
    end
    assert.equal(count, s:count("drop_unsealed"))
    local _, noise = core.assoc(w.key .. w.key_secret, ("e"):rep(32), s.server.public_keys[1], 1, "")
    for _, proof in ipairs { false, s:proof(addr("198.51.100.7:40001")), ("x"):rep(20) } do
      local list, asked = s:ask(from6, "open", s:next_tx(), proof or nil, noise)
      assert.equal(1, #list)
      assert.equal("address_report", list[1].name_of)
      assert.is_true(list[1].length <= asked)
      assert.is_true(s.server.cookie:valid(list[1].proof, from6))
    end
    assert.equal(0, s.server.registry:count())
    assert.equal(0, s.server.assocs:count())
    assert.equal(3, s:count("address_reported"))
    assert.equal(2, s:count("address_cookie_bad"))
    assert.equal("opened", s:one(from6, "open", s:next_tx(), s:proof(from6), noise).name_of)
    assert.equal(1, s.server.assocs:count())
  end)

  it("S2 is idempotent, and nobody acts under the id of another", function()
    open { expose_addresses = true }
    local tx = s:next_tx()
    local one, two = s:register(who(1), from, { tx = tx }), s:register(who(1), from, { tx = tx })
    one.at_us, two.at_us, one.sock, two.sock = nil, nil, nil, nil
    assert.same(one, two)
    s:register(who(2), from, { name = "mallory" })
    assert.equal("", all({})[1][1] == who(1).id and all({})[1][2] or all({})[2][2])
    assert.equal("done", s:one(who(2), from, "unregister", s:next_tx()).name_of)
    assert.equal(1, s.server.registry:count())
    assert.equal(who(1).id, all()[1][1])
    -- with the public key of another and a secret that is not its own there is no association
    local _, noise = core.assoc(who(1).key .. who(2).key_secret, ("e"):rep(32), s.server.public_keys[1], 1, "")
    local r = s:one(from, "open", s:next_tx(), s:proof(from), noise)
    assert.equal(1005, r.code)
    assert.equal(1, s:count("association_refused"))
    assert.equal("done", s:one(who(1), from, "unregister", s:next_tx()).name_of)
    assert.equal(0, s.server.registry:count())
    assert.equal("done", s:one(who(1), from, "unregister", s:next_tx()).name_of)
    assert.equal(2, s:count("unregistered"))
  end)

  it("S2 lets a registration run out after 60 s, and not before", function()
    open()
    s:register(who(1), from)
    s:advance(30000)
    s:register(who(2), from)
    s:advance(29990)
    assert.equal(2, s.server.registry:count())
    s:advance(20)
    assert.equal(1, s.server.registry:count())
    s:register(who(2), from)
    s:advance(59000)
    assert.equal(1, s.server.registry:count())
    s:advance(1100)
    assert.equal(0, s.server.registry:count())
    assert.equal(2, s:count("registration_expired"))
    assert.equal(1, s.env.timers) -- that of associations
  end)

  it("S2 counts a public address only with a proof, or with the observed IP", function()
    open { expose_addresses = true }
    local other, foreign = addr("198.51.100.99:6000"), addr("198.51.100.7:6001")
    local function proven(a, proof) return a .. (proof or s:proof(a)) end
    s:register(who(1), from, { pubs = { proven(other), proven(foreign, ("x"):rep(20)) } })
    assert.equal("198.51.100.7:40000 198.51.100.99:6000 198.51.100.7:6001", text(found(who(1).id).pubs))
    s:register(who(1), from, { pubs = { proven(other, s:proof(from)), proven(from) } })
    assert.equal("198.51.100.7:40000", text(found(who(1).id).pubs))
    s:register(who(1), from, { pubs = { "", ("x"):rep(64) } })
    assert.equal("198.51.100.7:40000", text(found(who(1).id).pubs))
    assert.equal(2, s:count("address_cookie_bad"))
  end)

  it("S2 keeps local addresses of private range only; loopback for one on this machine", function()
    open { expose_addresses = true }
    local locals = { addr("192.168.1.2:1"), addr("100.64.0.9:2"), addr("8.8.8.8:3"), addr("127.0.0.1:4") }
    s:register(who(1), from, { locals = locals })
    assert.equal("192.168.1.2:1 100.64.0.9:2", text(found(who(1).id).locals))
    locals = { addr("[fd00::1]:1"), addr("169.254.1.1:2"), addr("224.0.0.1:3"), addr("10.0.0.1:0") }
    s:register(who(1), from, { locals = locals })
    assert.equal("[fd00::1]:1", text(found(who(1).id).locals))
    local here = addr("127.0.0.1:7000")
    s:register(who(2), here, { locals = { here } })
    assert.equal("127.0.0.1:7000", text(found(who(2).id, here).locals))
  end)

  it("S2 shows local addresses to the same public IP only, or always, or never", function()
    local same, other = addr("198.51.100.7:41111"), addr("198.51.100.8:40000")
    for rule, expect in pairs { ["same-public"] = { 1, 0 }, always = { 1, 1 }, never = { 0, 0 } } do
      if s then s:close() end
      open { expose_addresses = true, local_addresses = rule }
      s:register(who(1), from, { locals = { addr("192.168.1.2:1") } })
      for i, by in ipairs { same, other } do
        assert.equal(expect[i], #found(who(1).id, by).locals, rule)
        assert.equal(expect[i], #all(nil, { from = by, want_addr = true })[1][5], rule)
      end
    end
  end)

  it("S2 shows addresses only where the server exposes them, with the list and by separate request", function()
    open()
    s:register(who(1), from)
    assert.equal(1001, found(who(1).id).code)
    assert.equal(3, #all(nil, { want_addr = true })[1])
    s:close()
    open { expose_addresses = true }
    s:register(who(1), from)
    assert.equal(3, #all(nil, { want_addr = false })[1])
    assert.same({ from }, all(nil, { want_addr = true })[1][4])
    assert.equal(1002, found(who(2).id).code)
  end)

  it("S2 answers by query of equal properties, and within one application", function()
    open()
    for i = 1, 30 do
      s:register(who(i), from, { app = i % 3 == 0 and "test/2" or "test/1", props = { even = i % 2 == 0, n = i } })
    end
    assert.equal(20, #all())
    assert.equal(10, #all(nil, { app = "test/2" }))
    assert.equal(0, #all(nil, { app = "" }))
    assert.equal(10, #all({ even = true }))
    assert.equal(1, #all({ even = true, n = 2 }))
    assert.equal(0, #all({ even = false, n = 2 }))
    assert.equal(0, #all({ odd = true }))
    local r = s:one(from, "list", s:next_tx(), "", core.wire.encode("map"), nil, false)
    assert.equal(1010, r.code)
  end)

  it("S2 pages: what is there throughout comes exactly once, whatever comes and goes", function()
    open()
    local props = { text = ("p"):rep(100) }
    local function put(i) s:register(who(i), from, { name = ("n"):rep(32), props = props }) end
    for i = 1, 200 do put(i) end
    local list, pages = all(nil, { between = function(n)
      put(1000 + n)
      s:one(who(100 + n), from, "unregister", s:next_tx())
      put(n)
    end })
    assert.is_true(pages >= 200 / 7)
    local seen = {}
    for _, e in ipairs(list) do seen[e[1]] = (seen[e[1]] or 0) + 1 end
    for _, n in pairs(seen) do assert.equal(1, n) end
    for i = 1, 100 do assert.equal(1, seen[who(i).id]) end
    for i = 101 + pages, 200 do assert.equal(1, seen[who(i).id]) end
  end)

  it("S2 bounds the work of one request: a page may be empty and go on", function()
    open { limits = { page_budget = 16 } }
    for i = 1, 100 do s:register(who(i), from, { props = { n = i } }) end
    local list, pages = all({ n = 50 })
    assert.equal(1, #list)
    assert.is_true(pages >= 6 and pages <= 8)
    local many = { "or", { "=", "n", 50 } }
    for i = 3, 41 do many[i] = { "=", "other", i } end
    list, pages = all(many) -- fewer entries, of which more is asked
    assert.equal(1, #list)
    assert.is_true(pages >= 50, pages)
  end)

  it("S2 refuses a registration beyond its limit, or that is no entry", function()
    open { limits = { registrations = 2 } }
    s:register(who(1), from)
    s:register(who(2), from)
    assert.equal(1008, s:register(who(3), from).code)
    assert.equal("registered", s:register(who(2), from).name_of)
    assert.equal(1010, s:register(who(2), from, { name = "\xff" }).code)
    assert.equal(1010, s:register(who(2), from, { app = "\xff" }).code)
    assert.equal(1010, s:one(who(2), from, "register", s:next_tx(), who(2).ephemeral, {}, {}, "", "",
      core.wire.encode(7), nil).code)
    assert.equal("registered", s:one(who(2), from, "register", s:next_tx(), who(2).ephemeral, {}, {},
      "", "", "\xc0", nil).name_of)
    assert.equal(4, s:count("registration_refused"))
  end)

  it("S2 fits every answer into a datagram, whatever is registered", function()
    open { expose_addresses = true, local_addresses = "always" }
    local function six(n) return addr(("[fd00::%x:1]:%d"):format(n, n)) end
    local from6 = addr("[2001:db8::7]:40000")
    local pubs = { six(1) .. s:proof(six(1)), six(2) .. s:proof(six(2)) }
    for i = 1, 20 do
      local r = s:register(who(i), from6, {
        pubs = pubs, locals = { six(3), six(4), six(5), six(6) }, name = ("n"):rep(32), props = { p = ("q"):rep(120) },
      })
      assert.equal("registered", r.name_of)
    end
    local list = all(nil, { want_addr = true })
    assert.equal(20, #list)
    for _, e in ipairs(list) do
      assert.equal(3, #e[4])
      assert.is_true(#core.wire.encode(e) <= 256)
    end
    assert.equal(4, #found(who(1).id).locals)
  end)

  it("S2 tells a client that speaks another version so", function()
    open()
    local bytes = message.open:encode(s:next_tx(), nil, ("n"):rep(100))
    local r = s:feed(from, bytes:sub(1, 2) .. "\x02" .. bytes:sub(4))[1]
    assert.equal("refused", r.name_of)
    assert.equal(1006, r.code)
    assert.equal(1, s:count("drop_version"))
  end)
end)

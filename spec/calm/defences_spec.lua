-- SPDX-License-Identifier: MIT
-- What others may put on our terminals and into our logs; what may never leave in either; what a server tells of whom.

local core = require "bodkin.core"
local servers = require "spec.servers.support"
local support = require "spec.calm.support"

-- Clears a screen, sets a title, moves up, C1, not UTF-8, right to left, another line, invisible, tags.
local NASTY = "a\27[2J\27]0;x\7\r\n\b\127\u{9b}31m\xff\xc0\x80\u{202e}\u{2066}\u{61c}\u{2028}\u{feff}\u{200b}\u{e0041}z"

-- The first thing in a text that a terminal would obey or be fooled by. Colours are our own; lines end.
local function obeyed(text)
  text = text:gsub("\27%[%d+m", ""):gsub("\27%[0m", ""):gsub("\n", "")
  local shown = core.printable(text)
  if shown == text then return nil end
  for i = 1, #text do
    if shown:byte(i) ~= text:byte(i) then return ("%q"):format(text:sub(i, i + 8)) end
  end
end

describe("what others put into our output", function()
  local output, json, stdout, stderr, written

  setup(function()
    package.loaded["bodkin.cli.output"] = nil
    package.loaded["bodkin.host"] = { is_terminal = function() return true end }
    output, json = require "bodkin.cli.output", require "bodkin.json"
  end)
  teardown(function()
    package.loaded["bodkin.cli.output"], package.loaded["bodkin.host"] = nil, nil
  end)
  before_each(function()
    stdout, stderr, written = io.stdout, io.stderr, {}
    local sink = { write = function(self, ...)
      table.insert(written, table.concat { ... })
      return self
    end, flush = function() return true end }
    io.stdout, io.stderr = sink, sink -- luacheck: ignore 122
  end)
  local function restore() io.stdout, io.stderr = stdout, stderr end -- luacheck: ignore 122
  after_each(restore)

  local events = {
    listening = { url = NASTY, role = NASTY, addr = NASTY }, registered = { id = NASTY, public = { NASTY } },
    hosting = { code = NASTY }, queued = { ticket = NASTY }, matched = { match = NASTY, peers = { NASTY, NASTY } },
    connected = { match = NASTY, peer = NASTY, path = NASTY, via = NASTY, remote = NASTY, first_ms = 1 },
    path = { match = NASTY, peer = NASTY, path = NASTY, via = NASTY, remote = NASTY, rtt_ms = 1, why = { NASTY } },
    message = { match = NASTY, peer = NASTY, data = NASTY }, closed = { match = NASTY, peer = NASTY, reason = NASTY },
    error = { code = NASTY, message = NASTY, hint = NASTY },
  }

  local names = {}
  for name in pairs(events) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    it("of the event " .. name .. ": nothing of it is obeyed by a terminal", function()
      for _, as_json in ipairs { false, true } do
        local out = output.of { json = as_json, verbose = 2 }
        out:event(name, events[name])
        out:failure(NASTY, "invalid")
        out:say("%s and %d", NASTY, 1)
        out:detail("%s", NASTY)
      end
      restore()
      assert.is_true(#written > 6)
      for _, text in ipairs(written) do assert.is_nil(obeyed(text), text) end
    end)
  end

  it("waits for its reader, however slow, once nothing depends on a loop any more", function()
    local out, say = output.of {}, core.say
    local env = { timer = function() return { cancel = function() end } end }
    core.say = function() return 0 end -- luacheck: ignore 122
    out:attach(env)
    local line = ("x"):rep(1000)
    for _ = 1, 1500 do assert(out:line(line)) end
    assert.equal(0, #written)
    out:settle(true)
    out:settle(true)
    local kept = #written
    for _ = 1, 1500 do assert(out:line(line)) end
    core.say = say -- luacheck: ignore 122
    restore()
    assert.equal((1 << 20) // 1001, kept)
    assert.equal(kept + 1500, #written)
  end)

  it("as JSON reads back as it was", function()
    local text = "\u{202e}\u{61c}\u{200b}\u{e0041}\u{1f600}\u{d8}\27\127"
    local encoded = json.encode { name = text }
    restore()
    assert.is_nil(obeyed(encoded))
    assert.equal(text, json.decode(encoded).name)
  end)
end)

describe("what others put into our output, at real processes:", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  it("names, properties, refusals and what policies say", function()
    local short = "\27[2J\7\127\u{9b}\u{202e}\u{2066}x" -- it has to be UTF-8
    support.write_file(world.dir .. "/policy.lua", ([[
      local bodkin = require "bodkin"
      return bodkin.policy { size = 2, admit = function(t) print(%q) return false, %q end }]]):format(NASTY, short))
    support.write_file(world.dir .. "/config.lua", ([[
      return require("bodkin").config { queues = { any = { policy = "%s/policy.lua" } } }]]):format(world.dir))
    local server = world:server({}, world.dir .. "/config.lua")
    local host = world:bodkin { "host", "--server", server.url, "--bind", "127.0.0.1:0", "--name", short, "--props",
      '{"x":"\u{202e}\u{9b}"}' }
    world:heard(host, "bodkin join (%S+)", 3000)
    local list = world:bodkin { "list", "--server", server.url, "--bind", "127.0.0.1:0" }
    assert.equal(0, list:wait())
    assert.matches("\\xe2\\x80\\xae", list:stdout())
    local match = world:bodkin { "match", "any", "--server", server.url, "--bind", "127.0.0.1:0" }
    assert.equal(6, match:wait())
    assert.matches("\\xe2\\x80\\xae", match:stderr())
    assert.matches("its policy says: .*\\x1b%[2J", server:stderr())
    for _, p in ipairs { server, host, list, match } do
      assert.is_nil(obeyed(p:stdout()), p:stdout())
      assert.is_nil(obeyed(p:stderr()), p:stderr())
    end
  end)
end)

describe("secrets", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  -- Bytes that a text spells in hexadecimal or base64, and the text itself.
  local function spelled(text)
    local list = { text }
    for run in text:gmatch "%x+" do
      for from = 1, 2 do
        local hex = run:sub(from)
        if #hex >= 32 then list[#list + 1] = core.crypto.unhex(hex:lower():sub(1, #hex // 2 * 2)) end
      end
    end
    local value, alphabet = {}, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for i = 1, 64 do value[alphabet:sub(i, i)] = i - 1 end
    value["-"], value["_"] = 62, 63
    for run in text:gmatch "[%w+/_-]+" do
      for from = 1, #run >= 22 and 4 or 0 do -- it may begin anywhere
        local bytes = {}
        for at = from, #run - 3, 4 do
          local n = 0
          for i = at, at + 3 do n = n << 6 | value[run:sub(i, i)] end
          bytes[#bytes + 1] = string.pack(">I3", n)
        end
        list[#list + 1] = table.concat(bytes)
      end
    end
    return list
  end

  local LEN = 14 -- bytes of a secret that are too many to be seen

  -- All parts of that length of some texts, but for those in `except`, as a set.
  local function parts(texts, except)
    local set = {}
    for _, text in ipairs(texts) do
      for at = 1, #text - LEN + 1 do
        local part = text:sub(at, at + LEN - 1)
        set[part] = not (except and except[part]) or nil
      end
    end
    return set
  end

  -- The first part of a secret in a text, in hexadecimal.
  local function leak(text, secret_parts)
    for _, bytes in ipairs(spelled(text)) do
      for at = 1, #bytes - LEN + 1 do
        local part = bytes:sub(at, at + LEN - 1)
        if secret_parts[part] then return core.crypto.hex(part) end
      end
    end
  end

  it("are found, however they are spelled", function()
    local secret = core.crypto.random(32)
    local base64 = require("bodkin.json").base64
    for _, text in ipairs { secret, core.crypto.hex(secret), core.crypto.hex(secret):upper(), base64(secret),
      base64("xy" .. secret):gsub("+", "-"):gsub("/", "_") .. "", "key=" .. core.crypto.hex(secret:sub(5, 24)) } do
      assert.is_string(leak("x " .. text .. " y", parts { secret }))
    end
    local other = core.crypto.random(32)
    assert.is_nil(leak("x " .. core.crypto.hex(other) .. base64(other), parts { secret }))
  end)

  it("are in no log, no event, no error, no status and no list", function()
    local key = core.crypto.random(32)
    support.write_file(world.dir .. "/key", key)
    assert(os.execute("chmod 600 " .. world.dir .. "/key"))
    support.write_file(world.dir .. "/config.lua", ([[
      return require("bodkin").config { key_file = "%s/key", expose_addresses = true }]]):format(world.dir))
    local drawn = {}
    local function options()
      drawn[#drawn + 1] = ("%s/drawn-%d"):format(world.dir, #drawn + 1)
      return { random = drawn[#drawn] }
    end
    local server = world:server(options(), world.dir .. "/config.lua")
    local all = { server }
    local function bodkin(words)
      for _, word in ipairs { "--server", server.url, "-v", "-v" } do words[#words + 1] = word end
      all[#all + 1] = world:bodkin(words, options())
      return all[#all]
    end
    local host = bodkin { "host", "--json", "--send", "hello", "--trace", world.dir .. "/trace" }
    local code = host:expect '"code":"([^"]+)"'
    local join = bodkin { "join", code, "--send", "hello", "--expect", "1" }
    local queued = { bodkin { "match", "q", "--json", "--expect", "1", "--send", "x" },
      bodkin { "match", "q", "--expect", "1", "--send", "x" } }
    for _, p in ipairs { join, queued[1], queued[2] } do assert.equal(0, p:wait(), p:stderr()) end
    for _, words in ipairs { { "join", "babab-babab-babab" }, { "list", "--json" }, { "list" } } do
      bodkin(words):wait()
    end
    local function status(flag)
      return function() return (support.run { support.release, "status", "--admin", server.admin, flag }) end
    end
    all[#all + 1] = { stdout = status(), stderr = status "--json" }

    local secrets, public = { key, core.crypto.mac(key, "cookie", 32) }, {}
    for _, path in ipairs(drawn) do
      local bytes = assert(support.read_file(path))
      secrets[#secrets + 1] = bytes
      for at = 1, #bytes - 31 do -- any of it may be the seed of an identity
        secrets[#secrets + 1] = select(2, core.crypto.keypair(bytes:sub(at, at + 31)))
      end
    end
    local key_of_match = support.read_file(world.dir .. "/trace"):match("%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x+")
    assert.is_string(leak(key_of_match, parts(secrets))) -- in the trace there are some, and they are found
    -- The ids of matches and tickets are drawn, too, and no secrets.
    for _, p in ipairs(all) do
      for id in p.stdout(p):gmatch '"[mt][ai][tc][ck][he]t?":"(%x+)"' do public[#public + 1] = core.crypto.unhex(id) end
      for id in p.stderr(p):gmatch "ticket (%x+)" do public[#public + 1] = core.crypto.unhex(id) end
    end
    assert.is_true(#public > 0)
    local seen, secret_parts = 0, parts(secrets, parts(public))
    for _, p in ipairs(all) do
      for _, text in ipairs { p.stdout(p), p.stderr(p) } do
        seen = seen + #text
        assert.is_nil(leak(text, secret_parts), text)
      end
    end
    support.say("%d bytes of output hold none of %d secrets", seen, #secrets)
    assert.is_true(seen > 2000)
  end)
end)

describe("a list", function()
  it("is without addresses of anyone unless expose_addresses", function()
    for _, exposed in ipairs { false, true } do
      local s = servers.server { expose_addresses = exposed or nil }
      local from, me = servers.addr "198.51.100.7:40000", servers.who(1)
      s:register(me, from, { name = "ann", locals = { servers.addr "192.168.1.2:5000" } })
      local page = s:one(from, "list", s:next_tx(), "test/1", core.wire.encode {}, nil, true)
      local entry = assert(core.wire.decode(page.entries))[1]
      assert.equal(me.id, entry[1])
      for _, secret in ipairs { from, from:sub(1, 4), servers.addr("192.168.1.2:5000"):sub(1, 4) } do
        assert.equal(exposed, page.entries:find(secret, 1, true) ~= nil)
      end
      assert.equal(exposed and "found" or "refused", s:one(from, "lookup", s:next_tx(), me.id).name_of)
      s:close()
    end
  end)
end)

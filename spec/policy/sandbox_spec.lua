-- SPDX-License-Identifier: MIT
-- The second state: bytes in, bytes out, and no way to take more than its share.
local core = require "bodkin.core"

local wire = core.wire
local budget = 1000000

local function open(text, options)
  local sandbox = core.sandbox(options or { memory = 4 << 20, instructions = budget })
  local ok, err, code = sandbox:load(text, "@policy.lua")
  return ok and sandbox, err, code
end

-- What f(argument) of this text returns, decoded; or nil, message, code.
local function value(text, argument)
  local sandbox <close> = assert(open("return { f = function(x)\n" .. text .. "\nend }"))
  local bytes, err, code = sandbox:call("f", wire.encode(argument or 1))
  if not bytes then return nil, err, code end
  return (wire.decode(bytes))
end

describe("a sandbox", function()
  it("takes bytes and gives bytes", function()
    assert.same({ sum = 5, list = { 1, 2 } }, value("return { sum = x.a + x.b, list = { 1, 2 } }", { a = 2, b = 3 }))
    assert.equal(wire.null, value "")
    local sandbox <close> = assert(open "return { many = function(...) return select('#', ...), ... end }")
    assert.same({ wire.encode(2), wire.encode "a", wire.encode "b" },
      { sandbox:call("many", wire.encode "a", wire.encode "b") })
  end)

  it("names the file and line of an error", function()
    for text, expect in pairs {
      ["return x.a.b"] = "policy.lua:2: attempt to index a nil value (field 'a')",
      ["\nerror('my own', 0)"] = "policy.lua:3: my own",
      ["error {}"] = "policy.lua:2: an error that is a table",
      ["return print"] = "its result cannot be told: only nil",
      ["return ('x'):rep(1250)"] = "its result cannot be told: longer than 1200 bytes",
    } do
      local v, err, code = value(text, {})
      assert.is_nil(v)
      assert.matches(expect, err, 1, true)
      assert.equal("invalid", code)
    end
    local sandbox, err, code = open "return {\n  f = = 1 }"
    assert.is_nil(sandbox or nil)
    assert.matches("policy.lua:2: unexpected symbol near '='", err, 1, true)
    assert.equal("invalid", code)
  end)

  it("goes on after an error, and never after its end", function()
    local sandbox <close> = assert(open [[
      local n = 0
      return { fail = function() n = n + 1 error "no" end, get = function() return n end,
        loop = function() while true do end end }]])
    assert.is_nil(sandbox:call("fail"))
    assert.equal(wire.encode(1), sandbox:call("get"))
    assert.equal("limit", select(3, sandbox:call("loop")))
    local v, err, code = sandbox:call("get")
    assert.is_nil(v)
    assert.matches("policy.lua:3: over its budget", err, 1, true)
    assert.equal("limit", code)
  end)

  it("has neither the world nor a way to look behind", function()
    local names = value [[
      local list = {}
      for name in pairs(_G) do list[#list + 1] = name end
      return list]]
    assert.equal("_G _VERSION assert coroutine error getmetatable ipairs load math next pairs pcall print rawequal "
      .. "rawget rawlen rawset require select setmetatable state string table tonumber tostring type utf8 xpcall",
      table.concat(names, " "))
    assert.is_true(value "return string.dump == nil and math.randomseed == nil and coroutine.close == nil")
    assert.equal("function", value "return tostring(print)")
    assert.equal("table function", value "return ('%s %s'):format({}, print)")
    assert.matches("no %p in a policy", select(2, value "return ('%p'):format({})"), 1, true)
    assert.is_false(value "return getmetatable('')")
    assert.matches("text files beside it", select(2, value "require 'os'"), 1, true)
  end)

  it("takes text only", function()
    local sandbox, err = open(string.dump(function() end))
    assert.is_nil(sandbox or nil)
    assert.matches("attempt to load a binary chunk", err, 1, true)
    assert.matches("attempt to load a binary chunk", value "return select(2, load('\\27Lua'))", 1, true)
    assert.equal(7, value "return load('return a + 3', 'x', 'b', { a = 4 })()")
  end)

  it("finds the modules it was given, and runs each once", function()
    local sandbox <close> = core.sandbox {}
    sandbox:module("lib", "local n = 0 return { next = function() n = n + 1 return n end }", "@lib.lua")
    sandbox:module("bad", "local x =", "@bad.lua")
    sandbox:module("mine", assert(load "return { name = ... }"))
    assert(sandbox:load([[
      local lib = require 'lib'
      return {
        f = function() return require('lib').next() + lib.next() end,
        g = function() require 'bad' end,
        m = function() return require('mine').name end,
      }]], "@policy.lua"))
    assert.equal(wire.encode(3), sandbox:call "f")
    assert.matches("bad.lua:1: unexpected symbol", select(2, sandbox:call "g"), 1, true)
    assert.equal(wire.encode "mine", sandbox:call "m")
  end)

  it("gives its state to another, and keeps what is plain data", function()
    local first <close> = assert(open [[
      return { set = function() state.n, state.seen = 7, { a = true, [3] = 1.5, [-1] = "\xff" } state.seen.b = {} end,
        bad = function() state.f = print end, deep = function() state.me = state end,
        long = function() state.f = {} for i = 1, 4000 do state.f[i] = "0123456789abcdef" end end,
        key = function() state.f = { [1.5] = 1 } end, ok = function() state.f, state.me = nil, nil end }]])
    assert.equal("\x80", first:state())
    first:call "set"
    local bytes = first:state()
    local second <close> = core.sandbox {}
    assert.is_true(second:restore(bytes))
    assert(second:load("assert(state.n == 7) return { f = function() return state.seen[3], state.seen.b.x == nil, "
      .. "state.seen[-1] == '\\xff' and state.seen.a end }"))
    assert.same({ wire.encode(1.5), wire.encode(true), wire.encode(true) }, { second:call "f" })
    assert.equal(bytes, second:state())
    for name, why in pairs { bad = "a function cannot be kept", deep = "deeper than 16", long = "longer than 65536",
      key = "a key that is a number" } do
      first:call(name)
      assert.matches(why, select(2, first:state()), 1, true)
      first:call "ok"
    end
    assert.equal(bytes, first:state())
    local third <close> = core.sandbox {}
    assert.is_nil(third:restore "\x81\x01")
    assert.is_nil(third:restore "\x93")
  end)

  it("keeps one order of keys", function()
    assert.same({ 1, 2, 10, "a", "b", "long", false, true }, value [[
      local t, out = { [true] = 1, b = 1, [10] = 1, a = 1, long = 1, [false] = 1 }, {}
      t[1], t[2] = 1, 1
      for k in pairs(t) do out[#out + 1] = k end
      return out]])
    assert.same({ "a", "b" }, value "local t = { b = 1, a = 2 } local k = next(t) return { k, (next(t, k)) }")
    assert.is_true(value "return next({}) == nil")
    assert.matches("a table as a key has no order", select(2, value "for _ in pairs({ [{}] = 1 }) do end"), 1, true)
    -- Cleared meanwhile, and assigned to.
    assert.same({ 1, 3 }, value [[
      local t, out = { 5, 6, 7 }, {}
      for k in pairs(t) do t[2] = nil out[#out + 1] = k t[k] = 0 end
      return out]])
  end)

  it("sorts so that equal ones keep their order", function()
    assert.same({ "b1", "a1", "a2", "c2", "a3" }, value [[
      local t = { "c2", "b1", "a3", "a1", "a2" }
      table.sort(t, function(a, b) return a:sub(2) < b:sub(2) end)
      t[3], t[4] = t[4], t[3]
      return t]])
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, value "local t = { 7, 3, 5, 1, 2, 6, 4 } table.sort(t) return t")
  end)

  it("gives the same random numbers each time", function()
    assert.equal(value "return math.random(1000000)", value "return math.random(1000000)")
  end)

  it("keeps what was printed, to a bound", function()
    local sandbox <close> = assert(open "return { f = function() for i = 1, 999 do print('n', i, {}) end end }")
    sandbox:call "f"
    local said = sandbox:said()
    assert.equal("n 1 table\n", said:sub(1, 10))
    assert.is_true(#said <= 1024)
    assert.equal("", sandbox:said())
  end)

  it("is deterministic in what it spends", function()
    local function spent()
      local sandbox <close> = assert(open "return { f = function() local t = {} for i = 1, 1000 do t[i] = {} end end }")
      sandbox:call "f"
      return sandbox:spent()
    end
    assert.equal(spent(), spent())
  end)

  it("has so much memory and no more, whatever catches the error", function()
    local sandbox <close> = assert(open([[
      local t = {}
      return { f = function() while true do pcall(function() t[#t + 1] = { #t } end) end end }]],
      { memory = 1 << 20, instructions = 1 << 40 }))
    local v, err, code = sandbox:call "f"
    assert.is_nil(v)
    assert.matches("policy.lua:2: over its memory", err, 1, true)
    assert.equal("limit", code)
    local _, held = sandbox:spent()
    assert.is_true(held <= (1 << 20) + 65536)
  end)

  it("is closed once, and says so", function()
    local sandbox = core.sandbox {}
    assert.equal("sandbox (open)", tostring(sandbox))
    sandbox:close()
    sandbox:close()
    assert.equal("sandbox (closed)", tostring(sandbox))
    assert.error_matches(function() sandbox:call "f" end, "closed sandbox")
    assert.error_matches(function() core.sandbox { memory = 1 } end, "memory: an integer from")
    assert.error_matches(function() core.sandbox({}):call("f", "\xc1") end, "msgpack expected")
  end)
end)

-- Lua's own library is the oracle.
describe("patterns in a sandbox", function()
  local subjects = { "", "a", "abc", "hello world", "key = value", "  trim me  ", "x(y(z)w)v", "THE (quick) fox",
    "a,b,,c", "2026-01-31", "aaa", "%d", "[x]", "f(a)(b)", "ab12cd", "\0a\0" }
  local patterns = { "", "a", "^a", "a$", "^a$", ".", ".-", ".*", "a*", "a+", "a-", "a?", "^%s*(.-)%s*$",
    "(%w+) (%w+)", "(%w+)%s*=%s*(%w+)", "%b()", "%f[%a]%a+", "%f[%A]", "()a()", "(a)%1", "[^,]*", "[%a_][%w_]*", "[]]",
    "[^]]", "[a-c]", "[%-a]", "(%d+)-(%d+)-(%d+)", "%%", "((a)(b))", "%x%x", "[%D]", "a.c", "(.)(.)",
    "%z", "[%z]", "%S+", "^", "$", "x*$" }

  it("match as Lua's do", function()
    local sandbox <close> = core.sandbox { instructions = 1 << 30 }
    assert(sandbox:load([[
      local function all(s, p, ...)
        local out = {}
        for a, b in s:gmatch(p) do out[#out + 1] = tostring(a) .. "/" .. tostring(b) end
        return out
      end
      return { f = function(s, p)
        return { { s:find(p) }, { s:match(p) }, { s:find(p, 3) }, { s:find(p, -2, true) }, all(s, p),
          { s:gsub(p, "<%0>") }, { s:gsub(p, { a = "A" }, 2) }, { s:gsub(p, function(x) return x ~= "a" and x end) } }
      end }]], "=x"))
    for _, s in ipairs(subjects) do
      for _, p in ipairs(patterns) do
        local list = {}
        for a, b in s:gmatch(p) do list[#list + 1] = tostring(a) .. "/" .. tostring(b) end
        local expect = { { s:find(p) }, { s:match(p) }, { s:find(p, 3) }, { s:find(p, -2, true) }, list,
          { s:gsub(p, "<%0>") }, { s:gsub(p, { a = "A" }, 2) }, { s:gsub(p, function(x) return x ~= "a" and x end) } }
        local got = assert(sandbox:call("f", wire.encode(wire.bin(s)), wire.encode(p)))
        assert.equal(core.crypto.hex(wire.encode(expect)), core.crypto.hex(got), ("%q %q"):format(s, p))
      end
    end
  end)

  it("refuse what is malformed", function()
    for _, p in ipairs { "[a", "%", "(a", "a*)", "%b", "%bx", "%f", "%1", "(%1)", "[%", "[" } do
      local ok = pcall(string.find, "aaa", p)
      assert.is_false(ok, p)
      assert.equal("refused", value(("return pcall(string.find, 'aaa', %q) or 'refused'"):format(p)), p)
    end
    assert.matches("invalid use of '%'", select(2, value "return ('a'):gsub('a', '%x')"), 1, true)
    assert.matches("too many captures", select(2, value "return ('x'):rep(1200):find(('(x)'):rep(40))"), 1, true)
    assert.matches("pattern too complex", select(2, value "return ('x'):rep(900):find(('x?'):rep(600))"), 1, true)
  end)
end)

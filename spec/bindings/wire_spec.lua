-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local wire = core.wire
local hex, unhex = core.crypto.hex, core.crypto.unhex

local function refused(code, ...)
  local v, message, got = ...
  assert.is_nil(v)
  assert.equal("string", type(message))
  assert.equal(code, got)
end

describe("wire", function()
  it("encodes as msgpack says", function()
    local expected = {
      { wire.null, "c0" }, { true, "c3" }, { false, "c2" }, { 0, "00" }, { 127, "7f" }, { 128, "cc80" }, { -1, "ff" },
      { -33, "d0df" }, { 1.5, "cb3ff8000000000000" }, { math.maxinteger, "cf7fffffffffffffff" },
      { math.mininteger, "d38000000000000000" }, { "a", "a161" }, { "", "a0" }, { "\xff", "c401ff" },
      { wire.bin "a", "c40161" }, { {}, "80" }, { wire.array {}, "90" }, { { 1, "x" }, "9201a178" },
      { { a = 1 }, "81a16101" }, { { [5] = 1 }, "810501" }, { { 1, nil, 3 }, "8201010303" },
    }
    for _, e in ipairs(expected) do assert.equal(e[2], hex(assert(wire.encode(e[1])))) end
  end)

  it("sorts the keys of a map: integers, then strings by bytes", function()
    assert.equal("85ff0a02140a1ea1615aa2616264", hex(wire.encode { [10] = 30, [-1] = 10, ab = 100, [2] = 20, a = 90 }))
  end)

  it("brings back what it encoded", function()
    local value = { a = { 1, 2, { b = "x" } }, n = wire.null, f = 1.25, t = true, s = "\xc3\xa4", raw = "\xff\0",
      [3] = -7 }
    assert.same(value, wire.decode(wire.encode(value)))
    assert.equal(wire.null, wire.decode "\xc0")
    assert.equal(2.0 ^ 63, wire.decode(unhex "cf8000000000000000"))
  end)

  it("refuses what no reader would take", function()
    local deep, wide, cyclic, shared = {}, {}, {}, {}
    for _ = 1, 8 do deep = { deep } end
    for i = 1, 33 do wide["k" .. i] = i end
    cyclic[1] = cyclic
    for _ = 1, 7 do
      local row = {}
      for i = 1, 1000 do row[i] = shared end
      shared = row
    end
    for _, value in ipairs { deep, wide, cyclic, shared, ("x"):rep(1200), { ("x"):rep(1198) } } do
      refused("limit", wire.encode(value))
    end
    refused("invalid", wire.encode(print))
    refused("invalid", wire.encode { [1.5] = 1 })
    refused("invalid", wire.encode { [true] = 1 })
    refused("invalid", wire.encode(io.stdout))
    assert.has_error(function() wire.encode() end)
  end)

  it("takes seven levels of tables below one", function()
    local deep = 1
    for _ = 1, 8 do deep = { deep } end
    assert.same(deep, wire.decode(assert(wire.encode(deep))))
  end)

  it("refuses bytes that are not exactly one value within the bounds", function()
    for _, bytes in ipairs { "", "c1", "0000", "92", "9201", "a2", "ddffffffff", "dd0fffffff", "82a16101a16102",
      "c70100", "d40000", "81c001", ("91"):rep(9) .. "00", ("df0fffffff"):rep(11) .. "0a" } do
      refused("invalid", wire.decode(unhex(bytes)))
    end
    assert.has_error(function() wire.decode {} end)
  end)

  it("never fails otherwise on any short bytes", function()
    for a = 0, 255 do
      for b = 0, 255 do
        local v, message, code = wire.decode(string.char(a, b))
        assert.is_true(v ~= nil or (message ~= nil and code == "invalid"))
      end
    end
  end)
end)

describe("schema", function()
  local tx = ("t"):rep(12)
  local one = wire.schema { name = "one", type = 100, request = true, fields = {
    { "tx", "bin", 12, 12 }, { "proof", "bin?", 20, 20 }, { "name", "str", 0, 8 }, { "n", "uint", 1, 3600 },
    { "at", "addr" }, { "locals", "addrs", 0, 4 }, { "pubs", "bins", 1, 2 }, { "props", "any", 1, 16 },
    { "ok", "bool" }, { "pad", "pad" } } }
  local at, at6 = core.addr.parse "1.2.3.4:5", core.addr.parse "[::1]:7"
  local props = wire.encode { a = 1 }

  local function values() return { tx, nil, "n", 7, at, { at, at6 }, { "x" }, props, false, n = 9 } end

  local function encode(change, v)
    local t = values()
    if change then t[change] = v end
    return one:encode(table.unpack(t, 1, 9))
  end

  it("shows what it was declared with", function()
    assert.equal("one", one.name)
    assert.equal(100, one.type)
    assert.is_true(one.request)
    assert.equal(10, #one.fields)
    assert.same({ "proof", "bin?", 20, 20 }, one.fields[2])
    assert.is_nil(one.nonsense)
  end)

  it("takes and gives positional values, and pads", function()
    local bytes = assert(encode())
    assert.equal(128, #bytes)
    local got = table.pack(one:decode(bytes))
    assert.same(values(), got)
  end)

  it("refuses every field that is missing, of another kind or out of bounds, by name", function()
    local bad = { { 1, "short" }, { 1, nil }, { 1, 5 }, { 2, "x" }, { 3, ("x"):rep(9) }, { 3, 1 },
      { 4, 0 }, { 4, 3601 }, { 4, -1 }, { 4, "7" }, { 4, 1.5 }, { 5, "12345" }, { 6, { "x" } }, { 6, at },
      { 6, { at, at, at, at, at } }, { 6, { 1 } }, { 7, {} }, { 7, { "a", "b", "c" } }, { 7, { ("x"):rep(65) } },
        { 8, "" }, { 8, "\x92" }, { 8, "\xc0\xc0" },
      { 8, ("\x91"):rep(9) .. "\xc0" }, { 9, nil }, { 9, 1 } }
    for i, b in ipairs(bad) do
      local bytes, message, code = encode(b[1], b[2])
      assert.is_nil(bytes, i)
      assert.equal("invalid", code)
      assert.matches("'" .. one.fields[b[1]][1] .. "'", message)
    end
    assert.has_error(function() one:encode(tx, nil, "n", 7, at, {}, { "x" }, props, false, 1) end)
  end)

  it("refuses other messages", function()
    local bytes = encode()
    for i = 0, #bytes - 1 do assert.is_nil((one:decode(bytes:sub(1, i)))) end
    assert.is_nil((one:decode(bytes .. "\xc0")))
    assert.is_nil((one:decode(bytes:sub(1, 2) .. "\x02" .. bytes:sub(4))))
    assert.is_nil((wire.schema { name = "two", type = 101, fields = {} }:decode(bytes)))
    assert.is_nil((one:decode(("x"):rep(2000))))
  end)

  it("survives any change of any byte", function()
    local bytes = encode()
    for i = 1, #bytes do
      for _, x in ipairs { 0x01, 0x80, 0xff } do
        one:decode(bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ x) .. bytes:sub(i + 1))
      end
    end
  end)

  it("is refused itself when its declaration is wrong", function()
    local function wrong(t) assert.has_error(function() wire.schema(t) end) end
    wrong { type = 1, fields = {} }
    wrong { name = "x", fields = {} }
    wrong { name = "x", type = 128, fields = {} }
    wrong { name = "x", type = 1 }
    wrong { name = "x", type = 1, fields = { { "a", "nonsense" } } }
    wrong { name = "x", type = 1, fields = { { "a", "bin", 3, 2 } } }
    wrong { name = "x", type = 1, fields = { { "a", "bin", 0, 2000 } } }
    wrong { name = "x", type = 1, fields = { { "a", "bin" }, { "a", "bin" } } }
    wrong { name = "x", type = 1, fields = { "a" } }
    local many = {}
    for i = 1, 25 do many[i] = { "f" .. i, "bool" } end
    wrong { name = "x", type = 1, fields = many }
  end)

  it("keeps its names alive whatever happens to the tables it was made from", function()
    local fields = { { "na" .. "me" .. tostring(1), "str", 0, 8 } }
    local s = wire.schema { name = "tmp" .. tostring(2), type = 99, fields = fields }
    fields[1][1] = nil
    for i in ipairs(s.fields) do s.fields[i] = nil end
    collectgarbage()
    collectgarbage()
    local _, message = s:encode(1)
    assert.matches("^tmp2: field 'name1'", message)
  end)

  it("exports the messages between peers", function()
    assert.equal(32, wire.peer_schemas.test.type)
    assert.equal(33, wire.peer_schemas.confirm.type)
    assert.equal("match", wire.peer_schemas.test.fields[1][1])
  end)
end)

-- SPDX-License-Identifier: MIT
-- Every message, cut off everywhere and with every byte changed, at a router that handles all of them: those that are
-- sealed as they come out of an association, and once more as if somebody sent them plain.
local core = require "bodkin.core"
local message = require "bodkin.message"

local FROM = core.addr.parse "192.0.2.1:1000"
local sample = {
  uint = function(f) return f[3] end,
  bool = function() return true end,
  bin = function(f) return ("b"):rep(f[3]) end,
  str = function(f) return ("s"):rep(math.min(f[4], 5)) end,
  addr = function() return FROM end,
  addrs = function() return { FROM, core.addr.parse "[2001:db8::1]:7" } end,
  bins = function() return { ("p"):rep(26) } end,
  any = function() return core.wire.encode { a = { 1, "x" } } end,
}

local function values(schema, without_optional)
  local list, n = {}, 0
  for _, f in ipairs(schema.fields) do
    local kind = f[2]:gsub("%?", "")
    if kind ~= "pad" then
      n = n + 1
      if not (without_optional and f[2]:find "%?") then list[n] = sample[kind](f) end
    end
  end
  return table.unpack(list, 1, n)
end

describe("mutation", function()
  local schemas = { core.wire.peer_schemas.test, core.wire.peer_schemas.confirm }
  for _, s in ipairs(message.all) do schemas[#schemas + 1] = s end

  local counters, router, called, moved, unsealed
  before_each(function()
    counters, called = core.counters(), 0
    router = core.router(counters)
    router:refuse(message.refused)
    for _, s in ipairs(schemas) do router:on(s, nil, function() called = called + 1 end) end
    local total, causes = 0, {}
    local function dropped()
      local sum = 0
      for _, name in ipairs(causes) do sum = sum + counters:get(name) end
      return sum
    end
    for _, c in ipairs(counters:all()) do
      if c.name:find "^drop_" or c.name == "udp_rx_truncated" then causes[#causes + 1] = c.name end
    end
    -- Either a handler was called, or exactly one counter said why not.
    moved = function(bytes, what)
      local handled = called
      router:input({ send = function() end }, FROM, bytes)
      local sum = dropped()
      if sum - total + called - handled ~= 1 then error("no cause, or two: " .. what) end
      total = sum
    end
    -- In an association a message that ends sooner is followed by another: something of it was handled or dropped.
    unsealed = function(bytes, what)
      local handled = called
      router:inner(FROM, bytes)
      local sum = dropped()
      if sum - total + called - handled < 1 then error("no cause: " .. what) end
      total = sum
    end
  end)

  local function changed(bytes, fn)
    local step = #bytes > 150 and 7 or 1
    for i = 1, #bytes do
      for v = (i * 31) % step, 255, step do
        fn(bytes:sub(1, i - 1) .. string.char(v) .. bytes:sub(i + 1), "change at " .. i)
      end
    end
  end

  for _, schema in ipairs(schemas) do
    it(schema.name, function()
      local give = schema.sealed and unsealed or moved
      for _, without in ipairs { false, true } do
        local bytes = assert(schema:encode(values(schema, without)))
        called = 0
        give(bytes, "whole")
        assert.equal(1, called)
        called = 0
        for i = 0, #bytes - 1 do give(bytes:sub(1, i), "cut at " .. i) end
        assert.equal(0, called)
        changed(bytes, give)
        called = 0
        give(bytes .. "\0", "a byte more")
        assert.equal(schema.sealed and 1 or 0, called) -- there a second message, which is none
      end
    end)
  end

  it("of what must be sealed reaches nobody plain", function()
    local n = 0
    for _, schema in ipairs(schemas) do
      if schema.sealed then
        n = n + 1
        local bytes = assert(schema:encode(values(schema)))
        moved(bytes, "whole")
        assert.equal(n, counters:get "drop_unsealed")
        for i = 0, #bytes - 1 do moved(bytes:sub(1, i), "cut at " .. i) end
      end
    end
    assert.is_true(n >= 15)
    assert.equal(0, called)
  end)

  it("bombs of counts and depth", function()
    for _, hex in ipairs { "dd0fffffff", ("df"):rep(11) .. "0a", ("91"):rep(600) .. "c0", ("dc0001"):rep(300) .. "c0",
      "93010181" .. ("81"):rep(100), "de0020" .. ("a0c0"):rep(32) } do
      moved(core.crypto.unhex(hex), hex)
    end
    assert.equal(0, called)
  end)

  it("random bytes", function()
    for n = 0, 400 do
      moved(core.crypto.random(n * 3), "random")
      unsealed(core.crypto.random(n * 3), "random")
    end
  end)
end)

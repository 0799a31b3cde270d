-- SPDX-License-Identifier: MIT
-- Messages between a server and its policy process: in order, whole, and more of them than a stream would hold.
local core = require "bodkin.core"
local links = require "bodkin.policy.link"

describe("a link", function()
  local env, path, ends

  before_each(function()
    env = require("bodkin.env").new()
    path = os.tmpname()
    os.remove(path)
    ends = {}
  end)
  after_each(function()
    for _, link in ipairs(ends) do link:close() end
    env.close()
    os.remove(path)
  end)

  -- Two ends; heard[i] is called for what end i is told, ended[i] once the other is gone.
  local function pair(heard, ended)
    local function make(i, stream)
      ends[i] = links.new(stream, function(m) heard[i](m) end, function() if ended and ended[i] then ended[i]() end end)
    end
    local listener = assert(env.loop:listen(path, function(stream)
      make(2, stream)
      env.stop()
    end))
    make(1, assert(env.loop:connect(path)))
    env.run()
    listener:close()
    return ends[1], ends[2]
  end

  local function run(ms)
    local timer = env.timer(ms, env.stop)
    env.run()
    timer:cancel()
  end

  it("tells any message", function()
    local got = {}
    local one, two = pair { function(m) got[#got + 1] = m end, function(m) ends[2]:send(m) end }
    local messages = { { "a", 1, false, { x = "\n\\n\n" } }, { "b", core.wire.null }, { ("\n\\"):rep(300) },
      { 0, "\0" } }
    for _, m in ipairs(messages) do assert.is_true(one:send(m)) end
    run(100)
    assert.same(messages, got)
    local deep = {}
    for _ = 1, 8 do deep = { deep } end
    local ok, err, code = two:send { "a", deep }
    assert.is_nil(ok)
    assert.matches("nested deeper than 8", err, 1, true)
    assert.equal("limit", code)
    ok, err, code = two:send { ("x"):rep(1100), deep }
    assert.is_nil(ok)
    assert.is_string(err)
    assert.equal("limit", code)
    ok, err, code = two:send { ("x"):rep(2000) }
    assert.is_nil(ok)
    assert.matches("longer than 1200 bytes", err, 1, true)
    assert.equal("limit", code)
  end)

  it("tells lists that are longer than a datagram", function()
    local got, members = {}, {}
    for i = 1, 32 do members[i] = { { name = ("x"):rep(110) }, ("\n\0"):rep(250), ("y"):rep(40) } end
    local messages = { { "add", "q", 1, members, false }, { "failed", ("é"):rep(640) }, { ("\n"):rep(1280) } }
    local one = pair { function() end, function(m) got[#got + 1] = m end }
    for _, m in ipairs(messages) do assert.is_true(one:send(m)) end
    run(100)
    assert.same(messages, got)
    for i = 33, 100 do members[i] = members[1] end
    local ok, _, code = one:send { "add", "q", 1, members }
    assert.is_nil(ok)
    assert.equal("limit", code)
  end)

  it("tells many megabytes both ways at once, none lost, in order", function()
    local count, got = 20000, { 0, 0 }
    local function take(i)
      return function(m)
        assert(m[1] == got[i] + 1, "out of order")
        got[i] = m[1]
        if got[1] == count and got[2] == count then env.stop() end
      end
    end
    local one, two = pair { take(1), take(2) }
    local filler = ("x"):rep(150) .. "\n"
    for i = 1, count do
      one:send { i, filler }
      two:send { i, filler }
    end
    run(20000)
    assert.same({ count, count }, got)
  end)

  it("says when the other end is gone, once, and takes nothing more", function()
    local gone = 0
    local one, two = pair({ function() end, function() end }, { function() gone = gone + 1 end })
    two:close()
    run(100)
    assert.equal(1, gone)
    assert.same({ nil, "closed", "closed" }, { one:send { 1 } })
    one:close()
    assert.equal(1, gone)
  end)
end)

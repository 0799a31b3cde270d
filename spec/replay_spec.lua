-- SPDX-License-Identifier: MIT
-- A trace of a simulated session replays byte for byte, and what was changed in it is found.

local replay = require "bodkin.replay"
local support = require "spec.client.support"

local function iterate(lines)
  local i = 0
  return function()
    i = i + 1
    return lines[i]
  end
end

describe("replay", function()
  local traces

  setup(function()
    traces = { {}, {} }
    local s = support.new { seed = 7, loss = 0.2, delay_ms = 30 }
    local one = s:host("one", "192.168.1.2", s:nat("nat-one", "203.0.113.1"))
    local two = s:host("two", "192.168.1.2", s:nat("nat-two", "203.0.113.2"))
    local function open(host, n)
      return assert(require("bodkin.client.node").open {
        env = host.env, server = support.url, server_keys = support.keys,
        trace = function(line) table.insert(traces[n], line) end,
      })
    end
    s:run(function()
      local a, b = open(one, 1), open(two, 2)
      local hosted = assert(a:host())
      local joined = assert(b:join(hosted.code))
      assert(joined:wait_connected(10000))
      assert(hosted:wait_connected(10000))
      for i = 1, 5 do joined:send("message " .. i) end
      require("bodkin.task").sleep(one.env, 20000)
      b:close()
      require("bodkin.task").sleep(one.env, 1000)
      a:close()
    end)
    s.world:run(1000)
    for host in pairs(s.servers) do s:kill(host) end
    s.world:close()
  end)

  it("puts out what was recorded, on both sides, through loss and the end", function()
    for n = 1, 2 do
      local lines = traces[n]
      assert.is_true(#lines > 30)
      local result, err, at = replay.run(iterate(lines))
      assert(result, ("line %s: %s"):format(at, err))
      assert.equal(#lines - 1, result.inputs + result.outputs)
      assert.truthy(table.concat(lines, "\n"):find "> %d+ connected direct")
      assert.truthy(table.concat(lines, "\n"):find "> %d+ closed")
    end
  end)

  it("finds a changed byte of any output, and says which line", function()
    local lines = traces[1]
    local tried = 0
    for i, line in ipairs(lines) do
      if line:sub(1, 1) == ">" then
        local changed = table.move(lines, 1, #lines, 1, {})
        changed[i] = line:sub(1, -2) .. (line:sub(-1) == "0" and "1" or "0")
        local result, _, at = replay.run(iterate(changed))
        assert.is_nil(result)
        assert.equal(i, at)
        tried = tried + 1
      end
    end
    assert.is_true(tried > 10)
  end)

  it("finds a machine that got another input", function()
    local changed = {}
    for _, line in ipairs(traces[2]) do
      if not (line:find " input " and #changed < 12) then changed[#changed + 1] = line end
    end
    local result, _, at = replay.run(iterate(changed))
    assert.is_nil(result)
    assert.is_true(at > 1)
  end)

  it("says what is no trace, and survives any line that is damaged", function()
    for _, text in ipairs { "", "hello", "bodkin-trace 3 00 0", "bodkin-trace 2 00 0", "bodkin-trace 2" } do
      local result, err = replay.run(iterate { text })
      assert.is_nil(result)
      assert.is_string(err)
    end
    assert.is_nil(replay.run(iterate {}))
    for i = 2, #traces[1] do
      for _, damage in ipairs { "", "12", "12 add", "12 input x y z", "> ", "-1 tick", "12 send 99999999999999 zz" } do
        local changed = table.move(traces[1], 1, #traces[1], 1, {})
        changed[i] = damage
        local result, err, at = replay.run(iterate(changed))
        assert(result or (type(err) == "string" and at), "line " .. i .. ": " .. damage)
      end
      if i > 12 then break end
    end
  end)
end)

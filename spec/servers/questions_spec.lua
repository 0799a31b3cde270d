-- SPDX-License-Identifier: MIT
-- What policies are asked about clients: in which order, how much of it, and that each is answered.
local questions = require "bodkin.servers.questions"
local support = require "spec.servers.support"

describe("questions", function()
  local env, q, asked, answers, how, killed

  before_each(function()
    env, asked, answers, how, killed = support.env(1), {}, {}, "asked", 0
    q = questions.new {
      env = env,
      ask = function(serial, client)
        asked[#asked + 1] = client.name
        asked.serial = serial
        return how
      end,
      kill = function()
        killed = killed + 1
        q:lost()
      end,
    }
  end)
  after_each(function()
    q:close()
    assert.equal(0, env.timers)
  end)

  local function put(name, id, query)
    return q:put({ id = id or name, name = name, query = query }, function(ok, text)
      answers[#answers + 1] = name .. (ok and " yes" or " no: " .. tostring(text))
    end)
  end

  local function answer(ok) q:answered(asked.serial, ok) end

  it("about registrations come before searches", function()
    put("s1", nil, "q")
    put("s2", nil, "q")
    put "r1"
    put "r2"
    for _ = 1, 4 do answer(true) end
    assert.same({ "s1", "r1", "r2", "s2" }, { table.unpack(asked) })
    assert.same({ "s1 yes", "r1 yes", "r2 yes", "s2 yes" }, answers)
  end)

  it("about searches are eight a client at a time, and as many of all take nothing from registrations", function()
    for i = 1, 8 do assert.is_truthy(put("a" .. i, "one", "q")) end
    assert.is_nil(put("c", "one", "q"))
    assert.is_truthy(put("d", "two", "q"))
    answer(true)
    assert.is_truthy(put("e", "one", "q"))
    assert.is_nil(put("f", "one", "q"))
    for i = 1, 4087 do assert.is_truthy(put("x", "x" .. i, "q")) end
    assert.is_nil(put("y", "y", "q"))
    assert.is_truthy(put "r")
    env.loop:advance(2100000)
    for i = 1, 8 do assert.is_truthy(put("g" .. i, "one", "q")) end
    assert.is_true(put("i", "one", "q") == nil)
  end)

  it("that cannot be put are refused at once, and the next one is", function()
    how = "refused"
    put("a", nil, "q")
    how = "asked"
    put "b"
    answer(true)
    assert.same({ "a no: cannot decide now, try again", "b yes" }, answers)
  end)

  it("that are not answered are refused after two seconds, and keep nobody else out", function()
    put "a"
    env.loop:advance(2100000)
    assert.equal(1, killed)
    put "b"
    answer(true)
    assert.same({ "a no: cannot decide now, try again", "b yes" }, answers)
  end)
end)

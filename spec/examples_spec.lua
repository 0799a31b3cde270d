-- SPDX-License-Identifier: MIT
-- The examples as their users run them: the binary, real processes, sockets on loopback.

local core = require "bodkin.core"
local processes_of = require "spec.processes"

local bodkin = os.getenv("BODKIN") or "build/release/bodkin"

local function read_all(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

describe("example", function()
  local url, processes
  local expect = processes_of.expect

  local function start(command, input) return processes:start(bodkin .. " " .. command, input) end

  before_each(function()
    processes = processes_of.new()
    url = expect(start(("serve --listen 127.0.0.1:0 --admin %s/admin --roles address,matching,maintenance,"
      .. "examples/role.lua"):format(processes.dir)), "bodkin://127%.0%.0%.1:%d+%S*")
  end)

  after_each(function() processes:close() end)

  it("echo answers, and says how fast", function()
    local code = expect(start("run examples/echo.lua " .. url), "^%l+%-%l+%-%l+$")
    local p = start(("run examples/echo.lua %s %s 3"):format(url, code))
    for i = 1, 3 do expect(p, ("^echo %d after [%%d.]+ ms$"):format(i)) end
    assert.is_nil(p.out:read("l"))
    assert.is_true(p.out:close())
  end)

  it("chat carries lines both ways, and ends when one side does", function()
    local ann = start(("run examples/chat.lua %s ann"):format(url), true)
    local bob = start(("run examples/chat.lua %s bob %s"):format(url, expect(ann, "^code: (.*)$")), true)
    expect(ann, "^%* bob is here$")
    expect(bob, "^%* ann is here$")
    ann.input:write("hello bob\n")
    expect(bob, "^ann: hello bob$")
    bob.input:write("hello ann\n")
    expect(ann, "^bob: hello ann$")
    bob.input:close()
    bob.input = nil
    expect(ann, "^%* bob is gone %(left%)$")
    expect(bob, "^%* ann is gone")
    ann.input:close()
    ann.input = nil
    for _, p in ipairs { ann, bob } do
      while p.out:read("l") do end
      assert.is_true(p.out:close())
    end
  end)

  it("mesh connects four peers with each other", function()
    local p = start("run examples/mesh.lua " .. url)
    local pairs_heard = 0
    for line in p.out:lines() do
      if line:match("^peer %d hears: greetings from %d$") then pairs_heard = pairs_heard + 1 end
      if line == "all 4 have heard each other" then pairs_heard = pairs_heard + 100 end
    end
    assert.equal(112, pairs_heard)
    assert.is_true(p.out:close())
  end)

  it("role serves messages of its own beside the built-in ones", function()
    local role = dofile("examples/role.lua")
    local score, best = role.messages.score, role.messages.best
    local env = require("bodkin.env").new()
    local router = core.router(env.counters)
    local got
    router:on(best, nil, function(_, _, tx, name, points)
      got = { tx, name, points }
      env.stop()
    end)
    local sock = assert(env.udp(core.addr.parse("127.0.0.1", 0)))
    sock:router(router)
    local server = core.addr.parse(url:match("//([^#]*)"))
    env.timer(5000, env.stop)
    for i, case in ipairs { { "ann", 7, "ann", 7 }, { "bob", 9, "bob", 9 }, { "cid", 8, "bob", 9 } } do
      local tx = ("%012d"):format(i)
      got = nil
      sock:send(server, assert(score:encode(tx, case[1], case[2])))
      env.run()
      assert.same({ tx, case[3], case[4] }, got)
    end
    env.close()
  end)

  it("files are short and say how they are run", function()
    local count = 0
    for path in io.popen("ls examples/*.lua"):lines() do
      local text = read_all(path)
      count = count + 1
      assert.is_true(select(2, text:gsub("\n", "")) < 60, path)
      assert.matches(path:match("[^/]+$"), text, 1, true)
    end
    assert.equal(8, count)
  end)
end)

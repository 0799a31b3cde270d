-- SPDX-License-Identifier: MIT
-- bodkin tunnel as a user meets it: real processes and programs on loopback.

local core = require "bodkin.core"
local json = require "dkjson"
local processes_of = require "spec.processes"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local addr = core.addr
local expect = processes_of.expect

describe("bodkin tunnel", function()
  local processes, url, env, game

  local function start(...)
    return processes:start(table.concat({ "env BODKIN_SERVER=" .. url, bodkin, "tunnel", ... }, " "))
  end

  -- Reads to its end: its exit code, and what it still said.
  local function finish(p)
    local text = p.out:read "a"
    return select(3, p.out:close()), text
  end

  -- It alone, not also what keeps its time.
  local function interrupt(p) assert(os.execute("pkill -INT -P " .. p.pid)) end

  local function room(p) return expect(p, "run  bodkin tunnel (%S+)") end

  -- A game's server, which shouts back.
  before_each(function()
    processes = processes_of.new()
    url = expect(processes:start(("%s serve --listen 127.0.0.1:0 --admin %s/admin"):format(bodkin, processes.dir)),
      "bodkin://127%.0%.0%.1:%d+%S*")
    env = require("bodkin.env").new()
    local sock = assert(env.udp(addr.parse("127.0.0.1", 0), { max_bytes = 2232 }))
    sock:on_packet(function(from, bytes) sock:send(from, bytes:upper()) end)
    game = "udp:" .. addr.format(sock:addr())
  end)

  after_each(function()
    env.close()
    processes:close()
  end)

  -- What a program gets back that says this at an address; said again, as games do.
  local function ask(at, bytes)
    local sock, answer = assert(env.udp(addr.parse("127.0.0.1", 0), { max_bytes = 2232 })), nil
    sock:on_packet(function(from, got)
      answer = { addr.format(from), got }
      env.stop()
    end)
    local timer
    local tries = 0
    timer = env.timer(0, function()
      tries = tries + 1
      if tries == 20 then return env.stop() end
      sock:send(addr.parse(at), bytes)
      timer:again(250)
    end)
    env.run()
    timer:cancel()
    sock:close()
    return answer
  end

  it("carries an existing program's datagrams, and says what it does", function()
    local to = start("--to", game)
    local code = room(to)
    local at = start(code, "--at udp:127.0.0.1:0 --why " .. processes.dir .. "/why")
    local where = expect(at, "^listening: tunnel on (%S+)$")
    expect(at, "^datagrams to udp:" .. where:gsub("%.", "%%.") .. " go to %x+$")
    expect(to, "^udp:127%.0%.0%.1:%d+ is open to %x+$")
    assert.same({ where, "HELLO" }, ask(where, "hello"))
    local long = ("a long one "):rep(130)
    assert.same({ where, long:upper() }, ask(where, long))
    interrupt(to)
    assert.equal(130, (finish(to)))
    local status, rest = finish(at)
    assert.equal(0, status)
    assert.matches("has left", rest)
    local report <close> = assert(io.open(processes.dir .. "/why"))
    assert.matches("was connected, and is over\n", report:read "a", 1, true)
  end)

  it("answers a program from the address that it had sent to", function()
    local to = start("--to", game)
    local at = start(room(to), "--at udp:0.0.0.0:0")
    local port = expect(at, "^listening: tunnel on 0%.0%.0%.0:(%d+)$")
    assert.same({ "127.0.0.2:" .. port, "X" }, ask("127.0.0.2:" .. port, "x"))
  end)

  it("prints events alone with --json", function()
    local at = start("--json --at udp:127.0.0.1:0")
    local where = expect(at, '^{"event":"listening","role":"tunnel","addr":"(127%.0%.0%.1:%d+)"}$')
    local to = start(expect(at, '"hosting","code":"([^"]+)"'), "--json --to", game)
    assert.same({ where, "X" }, ask(where, "x"))
    interrupt(at)
    local names = {}
    local status, text = finish(to)
    assert.equal(0, status)
    for line in text:gmatch "[^\n]+" do
      local event = json.decode(line)
      if event then names[event.event] = true end
    end
    assert.is_true(names.matched and names.connected and names.path and names.closed)
    assert.is_nil(names.message)
    assert.equal(130, (finish(at)))
  end)

  it("fails when both sides have the same, and goes on waiting for another", function()
    local to = start("--to", game)
    local code = room(to)
    local status, text = finish(start(code, "--to", game))
    assert.equal(2, status)
    assert.matches("has %-%-to, as this side does: one of the two needs %-%-at", text)
    expect(to, "has %-%-to, as this side does: one of the two needs %-%-at")
    expect(start(code, "--at udp:127.0.0.1:0"), "^datagrams to .* go to")
    expect(to, "is open to")
  end)

  it("is refused where no tunnel is, has a time-out, and names a port in use", function()
    local code = expect(processes:start(("env BODKIN_SERVER=%s %s host"):format(url, bodkin)), "join (%l+%-%l+%-%l+)")
    local status, text = finish(start(code, "--at udp:127.0.0.1:0"))
    assert.equal(6, status)
    assert.matches("the same %-%-app", text)
    status, text = finish(start("--timeout 0.3 --to", game))
    assert.equal(4, status)
    assert.matches("nobody came in 0.3 s", text)
    status, text = finish(start("--at", game))
    assert.equal(1, status)
    assert.matches("cannot bind 127%.0%.0%.1:%d+: Address already in use; is another program using it%?", text)
  end)
end)

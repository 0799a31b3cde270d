-- SPDX-License-Identifier: MIT
-- The binary as a user meets it, on loopback.

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"

local function quote(words)
  local out = {}
  for i, word in ipairs(words) do out[i] = "'" .. word:gsub("'", [['\'']]) .. "'" end
  return table.concat(out, " ")
end

-- Runs to the end: exit code, stdout, stderr.
local function run(words, setting)
  local err_path = os.tmpname()
  local pipe = assert(io.popen(("%s timeout 20 %s %s 2>%s </dev/null")
    :format(setting or "", bodkin, quote(words), err_path)))
  local out = pipe:read "a"
  local _, _, code = pipe:close()
  local file = assert(io.open(err_path))
  local err = file:read "a"
  file:close()
  os.remove(err_path)
  return code, out, err
end

-- Starts in the background: an object with next(event) -> line of JSON, signal(name), finish() -> code.
local function start(...)
  local pipe = assert(io.popen(("echo $$; exec timeout --foreground 30 %s %s 2>/dev/null </dev/null")
    :format(bodkin, quote { ... })))
  local self = { pid = pipe:read "l", lines = {} }
  -- Reads to a line that has this in it.
  function self.line(text)
    for line in pipe:lines() do
      self.lines[#self.lines + 1] = line
      if line:find(text, 1, true) then return line end
    end
  end
  function self.next(event) return self.line(('"event":"%s"'):format(event)) end
  function self.signal(name) os.execute(("kill -%s %s"):format(name, self.pid)) end
  function self.finish()
    for line in pipe:lines() do self.lines[#self.lines + 1] = line end
    local _, _, code = pipe:close()
    return code
  end
  return self
end

local function field(line, name)
  return line and line:match(('"%s":"([^"]*)"'):format(name))
end

describe("bodkin", function()
  it("prints its version", function()
    local code, out = run { "version" }
    assert.equal(0, code)
    assert.truthy(out:find "^bodkin %d+%.%d+%.%d+ %(protocol 1, Lua 5%.4%)\n$", out)
    code, out = run { "version", "--json" }
    assert.equal(0, code)
    assert.truthy(out:find '^{"version":"%d+%.%d+%.%d+","protocol":1}\n$', out)
  end)

  it("says what there is", function()
    local code, out = run { "help" }
    assert.equal(0, code)
    for _, name in ipairs(require("bodkin.cli.help").order) do
      assert.truthy(out:find("\n  " .. name .. " ", 1, true), name)
      local of_code, text = run { "help", name }
      assert.equal(0, of_code)
      assert.truthy(text:find("usage: bodkin " .. name, 1, true), text)
      assert.equal(text, select(2, run { name, "--help" }))
    end
    -- All that a config may hold, and each policy that ships.
    local _, serve = run { "help", "serve" }
    local _, wrong = require("bodkin.config").check { none = 1 }
    for name in wrong:match "it is one of (.*)$":gmatch "[%w_]+" do
      local option = "--" .. name:gsub("_", "-") .. "[ ,\n]"
      assert.truthy(serve:find("%f[%w_]" .. name .. "%f[^%w_]") or serve:find((option:gsub("%-", "%%-"))), name)
    end
    local _, replay = run { "help", "replay" }
    for name in pairs(require("bodkin.policy.source").BUILTIN) do assert.truthy(replay:find(name, 1, true), name) end
  end)

  it("calls wrong usage by its name and exits with 2", function()
    for _, case in ipairs {
      { {}, "usage: bodkin COMMAND" },
      { { "joni" }, "no command joni (did you mean join?)" },
      { { "repl" }, "repl is not in this version yet" },
      { { "tunnel" }, "tunnel needs either --at" },
      { { "tunnel", "--at", "udp:127.0.0.1:1", "--to", "udp:127.0.0.1:1" }, "tunnel needs either --at" },
      { { "tunnel", "--at", "127.0.0.1:8303" }, "expected udp:ADDR:PORT" },
      { { "tunnel", "--to", "udp:127.0.0.1:0" }, "expected udp:ADDR:PORT" },
      { { "tunnel", "--to", "udp:0.0.0.0:8303" }, "expected udp:ADDR:PORT" },
      { { "tunnel", "--to", "udp:127.0.0.1:8303" }, "no server given" },
      { { "match" }, "match needs the name of a QUEUE" },
      { { "match", "q", "--party", "us" }, "expected NAME:N, such as ours:3" },
      { { "match", "q", "--accept", "no" }, "expected auto or ask" },
      { { "check" }, "check needs a FILE" },
      { { "serve", "--policy", ("q"):rep(33) .. "=x" }, "expected FILE or QUEUE=FILE" },
      { { "--json" }, "options come after a command" },
      { { "help", "serv" }, "no command serv (did you mean serve?)" },
      { { "host", "--sever", "x" }, "unknown option --sever (did you mean --server?)" },
      { { "host" }, "no server given" },
      { { "join" }, "join needs a room's CODE" },
      { { "join", "a", "b" }, "unexpected argument b" },
      { { "ping" }, "ping needs a URL" },
      { { "ping", "http://x" }, "does not begin with bodkin://" },
      { { "ping", "bodkin://127.0.0.1", "--bind", "[::1]:0" }, "127.0.0.1 has no address of the family of --bind" },
      { { "serve", "--roles", "adress" }, "did you mean address?" },
      { { "serve", "--maintenance-mode", "loud" }, "one of confirm, silent" },
      { { "run" }, "run needs a FILE" },
      { { "run", "/nonexistent.lua" }, "/nonexistent.lua" },
    } do
      local code, out, err = run(case[1], "BODKIN_SERVER=")
      assert.equal(2, code, case[2])
      assert.equal("", out)
      assert.truthy(err:find(case[2], 1, true), err)
    end
  end)

  it("runs a script with its arguments", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write 'print(arg[0] == ..., #arg, arg[1], arg[2], require("bodkin").version)\nreturn tonumber(arg[1])\n'
    file:close()
    local code, out = run { "run", path, "7", "--json" }
    assert.equal(7, code)
    assert.truthy(out:find "^false\t2\t7\t%-%-json\t%d", out)
    file = assert(io.open(path, "w"))
    file:write 'error "on purpose"\n'
    file:close()
    local failed, _, err = run { "run", path }
    os.remove(path)
    assert.equal(1, failed)
    assert.truthy(err:find "on purpose\nstack traceback:", err)
  end)

  it("leaves a script the signals that were ignored, and those after bodkin.run", function()
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write [[
      local bodkin = require "bodkin"
      local function kill(name) os.execute(("kill -%s %d"):format(name, require("bodkin.host").pid())) end
      bodkin.run(function()
        kill "HUP"
        bodkin.sleep(100)
      end)
      print "goes on"
      kill "TERM"
      while true do os.execute "sleep 0.1" end
    ]]
    file:close()
    local pipe = io.popen(("timeout 20 sh -c 'trap \"\" HUP; exec %s run %s' 2>/dev/null"):format(bodkin, path))
    local out = pipe:read "a"
    os.remove(path)
    assert.equal(143, select(3, pipe:close()))
    assert.equal("goes on\n", out)
  end)

  it("takes scripts from BODKIN_PATH before its own", function()
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute(("mkdir -p %s/bodkin/cli"):format(dir)))
    local file = assert(io.open(dir .. "/bodkin/cli/version.lua", "w"))
    file:write 'return { usage = "", summary = "", options = {}, run = function() print "mine" return 0 end }\n'
    file:close()
    local out = select(2, run({ "version" }, "BODKIN_PATH=" .. dir))
    os.execute("rm -rf " .. dir)
    assert.equal("mine\n", out)
  end)

  it("fails with 1 where nobody answers, and says what next", function()
    local code, out, err = run { "ping", "bodkin://127.0.0.1:9", "--timeout", "0.3" }
    assert.equal(1, code)
    assert.equal("", out)
    assert.truthy(err:find("no answer from 127.0.0.1:9 after 0.3 s", 1, true), err)
    code, out = run { "host", "--json", "--server", "bodkin://127.0.0.1:9", "--timeout", "0.3" }
    assert.equal(1, code)
    assert.truthy(out:find '^{"event":"error","code":"timeout","message":"[^\n]*}\n$', out)
    code, out, err = run { "status", "--admin", "/nonexistent.sock" }
    assert.equal(1, code)
    assert.equal("", out)
    assert.truthy(err:find("is one running here?", 1, true), err)
  end)
end)

describe("bodkin serve", function()
  local server, url, admin

  setup(function()
    admin = os.tmpname()
    os.remove(admin)
    server = start("serve", "--json", "--listen", "127.0.0.1:0", "--admin", admin)
    url = field(server.next "listening", "url")
  end)
  teardown(function()
    server.signal "TERM"
    server.finish()
  end)

  it("prints the URL ready to paste", function()
    assert.truthy(url:find("^bodkin://127%.0%.0%.1:%d+#" .. ("[%w_-]"):rep(43) .. "$"), url)
    assert.equal("address", field(server.lines[1], "role"))
  end)

  it("answers ping", function()
    local code, out = run { "ping", url }
    assert.equal(0, code)
    assert.truthy(out:find "4 of 4 answered", out)
    assert.truthy(out:find "your public address is 127%.0%.0%.1:%d+ %(your own: no NAT between%)", out)
    assert.truthy(out:find("\ncan't tell who else reaches your UDP port %d+: the server has too few addresses\n$"), out)
    code, out = run { "ping", "--json", "--server", url }
    assert.equal(0, code)
    assert.truthy(out:find '"rtt_ms":[%d.]+}\n{"event":"reachable","port":%d+,"by":"unknown"}\n$', out)
    assert.truthy(out:find '^{"event":"pong","addr":"127%.0%.0%.1:%d+","public":%["127%.0%.0%.1:%d+"%],"rtt_ms":', out)
  end)

  it("puts host and join together, and both messages arrive", function()
    local host = start("host", "--json", "--server", url, "--send", "from host", "--expect", "1", "--timeout", "15")
    local code = field(host.next "hosting", "code")
    local status, out = run { "join", code, "--json", "--server", url, "--send", "from join", "--expect", "1",
      "--timeout", "15" }
    assert.equal(0, status)
    for _, event in ipairs { "registered", "matched", "connected", "message" } do
      assert.truthy(event == "registered" or out:find(('"event":"%s"'):format(event), 1, true), event)
    end
    assert.truthy(out:find('"data":"from host"', 1, true), out)
    assert.equal(0, host.finish())
    local heard = table.concat(host.lines, "\n")
    assert.truthy(heard:find('"data":"from join"', 1, true), heard)
    assert.truthy(heard:find('"path":"lan"', 1, true), heard)
  end)

  it("has a party matched together, and a match accepted or declined", function()
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write 'local bodkin = require "bodkin"\nreturn bodkin.policy { size = 2, party = 2, accept_ms = 5000 }\n'
    file:close()
    local asks = start("serve", "--listen", "127.0.0.1:0", "--policy", path, "--json")
    local at = field(asks.next "listening", "url")
    local function match(...) return start("match", "q", "--json", "--server", at, "--party", "us:2", ...) end
    local a, b = match("--send", "a", "--expect", "1"), match "--decline"
    assert.truthy(b.next "proposed":find '"players":2')
    assert.equal("you declined the match", field(b.next "error", "message"))
    assert.equal(1, b.finish())
    local line
    repeat line = assert(a.next "queued") until field(line, "reason")
    assert.equal("one of the party did not accept", field(line, "reason"))
    local c = match("--send", "c", "--expect", "1")
    assert.equal("c", field(a.next "message", "data"))
    assert.equal(0, c.finish())
    assert.equal(0, a.finish())
    asks.signal "TERM"
    asks.finish()
    os.remove(path)
  end)

  it("says why there is no match, while one waits and at the end", function()
    local one = start("match", "q", "--json", "--server", url, "--timeout", "5")
    local code, _, err = run { "match", "other", "--server", url, "--timeout", "0.5" }
    assert.equal(4, code)
    assert.equal("waiting for a match\n"
      .. "bodkin: no match in queue other within 0.5 s: nobody else waits there; wait longer?\n", err)
    local line
    repeat line = assert(one.next "queued") until field(line, "reason")
    assert.equal("nobody else waits there", field(line, "reason"))
    assert.truthy(line:find '"waited_ms":%d+,"present":1,"of":1,')
    assert.equal(4, one.finish())
  end)

  it("lists who is there, and join selects by query or id", function()
    local host = start("host", "--json", "--server", url, "--name", "ann", "--props", '{"map":"dust"}',
      "--app", "list/1")
    local id = field(host.next "registered", "id")
    local code, out = run { "list", "--json", "--server", url, "--app", "list/1", "--query", '{"map":"dust"}' }
    assert.equal(0, code)
    assert.equal(('{"event":"entry","id":"%s","name":"ann","props":{"map":"dust"}}\n'):format(id), out)
    assert.equal("", select(2, run { "list", "--server", url, "--app", "list/1", "--query", '{"map":"x"}' }))
    assert.equal(4, (run { "join", "--query", '{"map":"x"}', "--server", url, "--app", "list/1" }))
    -- One who expects nothing stays until the other leaves.
    local join = start("join", id, "--json", "--server", url, "--app", "list/1")
    assert.truthy(join.next "connected")
    assert.truthy(host.next "connected")
    host.signal "INT"
    assert.equal("left", field(join.next "closed", "reason"))
    assert.equal(130, host.finish())
    assert.equal(0, join.finish())
  end)

  it("forgets a script that is interrupted while it waits in a queue", function()
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write [[
      local bodkin = require "bodkin"
      bodkin.run(function() bodkin.sleep(1) end) -- an earlier one gives the signals back
      bodkin.run(function()
        local function wait(app)
          local node = assert(bodkin.open { server = arg[1], app = app })
          node:on("queued", function() print('"event":"waits"') end)
          node:match "q"
          print "went on"
        end
        bodkin.spawn(wait, "ghost/2") -- of one in another task nothing is left, either
        wait "ghost/1"
      end)
      print "went on"
    ]]
    file:close()
    for _, name in ipairs { "INT", "TERM", "HUP" } do
      local ghost = start("run", path, url)
      for _ = 1, 2 do assert.truthy(ghost.next "waits") end
      ghost.signal(name)
      assert.equal(130, ghost.finish(), name)
      assert.equal('"event":"waits"', ghost.lines[#ghost.lines])
      for _, app in ipairs { "ghost/1", "ghost/2" } do
        assert.equal(4, (run { "match", "q", "--server", url, "--app", app, "--timeout", "0.5" }), name)
      end
    end
    os.remove(path)
  end)

  it("watches who comes and goes, until it is stopped or its time is over", function()
    local function watch(...) return start("list", "--watch", "--server", url, "--app", "watch/1", ...) end
    local text, some = watch(), watch("--json", "--query", '{"map":"dust"}')
    local other = start("host", "--json", "--server", url, "--app", "watch/1")
    local host = start("host", "--json", "--server", url, "--name", "ann", "--props", '{"map":"dust"}', "--app",
      "watch/1")
    local id = field(host.next "registered", "id")
    assert.equal(('{"event":"came","id":"%s","name":"ann","props":{"map":"dust"}}'):format(id), some.next "came")
    assert.equal(("+ %s  ann              {\"map\":\"dust\"}"):format(id), text.line(id))
    host.signal "INT"
    host.finish()
    assert.equal(id, field(some.next "gone", "id"))
    assert.equal(("- %s  ann              {\"map\":\"dust\"}"):format(id), text.line(id))
    for _, one in ipairs { text, some, other } do
      one.signal "INT"
      assert.equal(130, one.finish())
    end
    assert.equal(2, #some.lines)
    assert.equal(0, (run { "list", "--watch", "--server", url, "--app", "watch/2", "--timeout", "0.5" }))
  end)

  it("keeps an identity in a file, made at the first use", function()
    local path = os.tmpname()
    os.remove(path)
    local ids = {}
    for i = 1, 2 do
      local code, out, err = run { "host", "--json", "--server", url, "--identity", path, "--timeout", "0.3" }
      assert.equal(4, code)
      ids[i] = field(out, "id")
      assert.equal(i == 1, err:find("made the identity " .. path, 1, true) ~= nil)
    end
    assert.equal(ids[1], ids[2])
    assert(os.execute("chmod 644 " .. path))
    local code, _, err = run { "list", "--server", url, "--identity", path }
    assert.equal(2, code)
    assert.truthy(err:find("chmod 600 " .. path, 1, true), err)
    os.remove(path)
    code, _, err = run { "match", "duel", "--server", url, "--token", path }
    assert.equal(2, code)
    assert.truthy(err:find("cannot read the token " .. path, 1, true), err)
  end)

  it("tells the peer when join is interrupted, and the exit code is 130", function()
    local host = start("host", "--json", "--server", url, "--expect", "1")
    local join = start("join", field(host.next "hosting", "code"), "--json", "--server", url)
    assert.truthy(join.next "connected")
    join.signal "INT"
    assert.equal(130, join.finish())
    assert.equal("left", field(host.next "closed", "reason"))
    assert.equal(3, host.finish()) -- it expected a message
  end)

  it("has no room for a wrong code, and nobody for an empty one", function()
    local code, _, err = run { "join", "nosuch-room", "--server", url }
    assert.equal(4, code)
    assert.truthy(err:find("no room has this code", 1, true), err)
    code, _, err = run { "host", "--server", url, "--timeout", "0.3" }
    assert.equal(4, code)
    assert.truthy(err:find("nobody came in 0.3 s", 1, true), err)
  end)

  it("shows every counter with its sentence", function()
    local code, out = run { "status", "--admin", admin }
    assert.equal(0, code)
    local core = require "bodkin.core"
    for _, c in ipairs(core.counters():all()) do
      assert.truthy(out:find(c.name, 1, true) and out:find(c.text, 1, true), c.name)
    end
    code, out = run { "status", "--json", "--admin", admin }
    assert.equal(0, code)
    local status = assert(require("bodkin.json").decode(out))
    assert.equal(#core.counters():all(), #status.counters)
    assert.same({ "address", "matching", "maintenance", "relay" }, { table.unpack(status.info.roles) })
  end)

  it("says when its port is taken, and exits with 1", function()
    local port = url:match ":(%d+)#"
    local code, _, err = run { "serve", "--listen", "127.0.0.1:" .. port }
    assert.equal(1, code)
    assert.truthy(err:find("is another server running there?", 1, true), err)
  end)

  it("reads a configuration, and refuses what it does not know", function()
    local path = os.tmpname()
    local function configured(text)
      local file = assert(io.open(path, "w"))
      file:write(text)
      file:close()
    end
    configured [[
      return require("bodkin").config { listen = "127.0.0.1:0", roles = { "address" }, maintenance_mode = "silent" }
    ]]
    local other = start("serve", "--json", "--config", path, "--admin", path .. ".sock")
    local line = other.next "listening"
    assert.equal("address", field(line, "role"))
    assert.matches("^bodkin://127%.0%.0%.1:%d+$", field(line, "url")) -- no matching role, no key
    other.signal "TERM"
    assert.equal(0, other.finish())
    assert.equal(1, #other.lines)
    configured 'return require("bodkin").config { lisen = {} }'
    local code, _, err = run { "serve", "--config", path }
    assert.equal(2, code)
    assert.truthy(err:find("there is no 'lisen'", 1, true), err)
    os.remove(path)
  end)

  it("listens on TCP, where clients that get no answer over UDP find it", function()
    local path = os.tmpname()
    os.remove(path)
    local other = start("serve", "--json", "--listen", "127.0.0.1:0", "--listen-tcp", "127.0.0.1:0", "--admin", path)
    local place = field(other.next "listening", "url")
    assert.matches("^bodkin://127%.0%.0%.1:%d+%?tcp=%d+#", place)
    local _, status = run { "status", "--admin", path }
    assert.matches("over TCP: 127.0.0.1:" .. place:match "tcp=(%d+)", status, 1, true)
    local deaf = place:gsub(":%d+%?", ":1?") -- nobody is at that port over UDP
    local host = start("host", "--json", "--server", deaf, "--send", "from host", "--expect", "1", "--timeout", "20")
    local code = field(host.next "hosting", "code")
    local of_join, out = run { "join", code, "--json", "--server", deaf, "--send", "from join", "--expect", "1" }
    assert.equal(0, of_join, out)
    assert.equal(0, host.finish())
    for _, text in ipairs { out, table.concat(host.lines, "\n") } do
      assert.matches('"code":"blocked_udp","message":"UDP is not answered, TCP %d+ is: going on over that"', text)
      assert.matches('"data":"from ', text)
    end
    other.signal "TERM"
    assert.equal(0, other.finish())
  end)

  it("stops with 130 on an interrupt and leaves no socket behind", function()
    local path = os.tmpname()
    os.remove(path)
    local other = start("serve", "--json", "--listen", "127.0.0.1:0", "--admin", path)
    other.next "listening"
    assert.truthy(os.execute("test -S " .. path))
    other.signal "INT"
    assert.equal(130, other.finish())
    assert.falsy(os.execute("test -e " .. path))
  end)
end)

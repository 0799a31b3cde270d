-- SPDX-License-Identifier: MIT
-- What README.md tells its reader to type, typed.

local processes_of = require "spec.processes"

local bodkin = os.getenv("BODKIN") or "build/release/bodkin"

local function read_all(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

describe("README.md", function()
  local text = read_all "README.md"
  local dir, processes

  -- `command` is as a reader types it, but for where the binary is.
  local function start(command) return processes:start((command:gsub("^bodkin", bodkin))) end

  -- The port and key of the server that is there.
  local url_pattern = "bodkin://127%.0%.0%.1(:%d+#%S+)"
  local function to(command, at)
    local there, n = command:gsub(":4433#KEY", at)
    assert.equal(1, n)
    return there
  end

  local function block(language, pattern)
    for body in text:gmatch("```" .. language .. "\n(.-)```") do
      if body:find(pattern, 1, true) then return body end
    end
    error(("no ```%s block with %q"):format(language, pattern))
  end

  local function save(name, body)
    local path = dir .. "/" .. name
    local file <close> = assert(io.open(path, "w"))
    file:write(body)
    return path
  end

  before_each(function()
    processes = processes_of.new()
    dir = processes.dir
  end)

  after_each(function() processes:close() end)

  it("names the two commands there are", function()
    local makefile = read_all "Makefile"
    for _, target in ipairs { "demo", "test" } do
      assert.truthy(text:find("    make " .. target, 1, true))
      assert.truthy(makefile:find("\n" .. target .. ":", 1, true))
    end
  end)

  it("has three commands that connect two", function()
    local commands = {}
    for line in block("sh", "bodkin serve"):gmatch("[^\n]+") do commands[#commands + 1] = line end
    assert.equal(3, #commands)
    -- On any free port: the one written there may be in use.
    local serve, n = commands[1]:gsub(":4433", ":0")
    assert.equal(1, n)
    local at = processes_of.expect(start(serve .. " --admin " .. dir .. "/admin"), url_pattern)
    local code = processes_of.expect(start(to(commands[2], at)), "join (%l+%-%l+%-%l+)")
    processes_of.expect(start(to(commands[3]:gsub("CODE", code), at)), "^connected")
  end)

  it("has two commands that carry a game's datagrams", function()
    local first, second = block("sh", "bodkin tunnel"):match "^(bodkin tunnel %-%-to [^\n]+)\n(bodkin [^\n]+)\n$"
    local server = start(("bodkin serve --listen 127.0.0.1:0 --admin %s/admin"):format(dir))
    local where = processes_of.expect(server, url_pattern)
    local host = start(to(first, where))
    local code = processes_of.expect(host, "run  (bodkin tunnel %S+ %-%-at udp:127%.0%.0%.1:8303)"):match "tunnel (%S+)"
    local player = start((to(second, where):gsub("CODE", code):gsub("at udp:127.0.0.1:8303", "at udp:127.0.0.1:0")))
    processes_of.expect(player, "^datagrams to udp:127%.0%.0%.1:%d+ go to %x+$")
    processes_of.expect(host, "^udp:127%.0%.0%.1:8303 is open to %x+$")
  end)

  it("has a relay on another machine", function()
    local first, second = block("sh", "--roles relay"):match "^([^\n]+)\n([^\n]+)\n$"
    assert(os.execute(("%s keygen %s/server.key >/dev/null"):format(bodkin, dir)))
    local function typed(command, admin)
      local there, n = command:gsub("server%.key", dir .. "/%0"):gsub("relays%.lua", dir .. "/%0"):gsub(":443%d", ":0")
      assert.equal(1, n)
      return ("%s --admin %s/%s"):format(there, dir, admin)
    end
    local port = processes_of.expect(start(typed(first, "relay")), "^listening: relay on 127%.0%.0%.1:(%d+)")
    local config, n = block("lua", "bodkin.config"):gsub(":4434", ":" .. port)
    assert.equal(1, n)
    save("relays.lua", config)
    local url = processes_of.expect(start(typed(second, "server")), "bodkin://%S+")
    local host = start(("bodkin host --server '%s'"):format(url))
    local code = processes_of.expect(host, "join (%l+%-%l+%-%l+)")
    processes_of.expect(start(("bodkin join %s --server '%s'"):format(code, url)), "^connected")
    -- Both opened it, though they hardly need it here.
    local opened
    for _ = 1, 50 do
      local pipe <close> = assert(io.popen(("%s status --admin %s/relay"):format(bodkin, dir)))
      opened = pipe:read("a"):match "relay_opened%s+(%d+)"
      if opened == "2" then break end
      os.execute "sleep 0.1"
    end
    assert.equal("2", opened)
  end)

  it("has a client of at most twenty lines that talks to itself", function()
    local client = block("lua", "bodkin.open")
    assert.is_true(select(2, client:gsub("\n", "")) <= 20)
    local path = save("client.lua", client)
    local url = processes_of.expect(start(("bodkin serve --listen 127.0.0.1:0 --admin %s/admin"):format(dir)),
      "bodkin://127%.0%.0%.1:%d+%S*")
    local command = ("env BODKIN_SERVER=%s %s run %s"):format(url, bodkin, path)
    local code = processes_of.expect(start(command), "join with: (%S+)")
    assert.equal("well met", processes_of.expect(start(command .. " " .. code), "^%x+%s+(.*)$"))
  end)

  it("has a policy that is checked, simulated, served, edited and reloaded", function()
    local path = save("duel.lua", block("lua", "bodkin.policy"))
    local commands = {}
    for line in block("sh", "bodkin check"):gmatch("[^\n]+") do commands[#commands + 1] = line end
    assert.equal(6, #commands)
    local function typed(n) return (commands[n]:gsub("duel%.(%l+)", dir .. "/duel.%1")) end
    processes_of.expect(start(typed(1)), "tickets made up")
    local sim = start(typed(2))
    processes_of.expect(sim, "paths: direct %d+")
    sim.out:read("a") -- to its end
    assert.truthy(read_all(dir .. "/duel.svg"):find("^<"))
    local server = start(typed(3):gsub(":4433", ":0") .. " --admin " .. dir .. "/admin")
    local at = processes_of.expect(server, url_pattern)
    local one, two = start(to(typed(4), at)), start(to(typed(4), at))
    processes_of.expect(one, "^connected")
    processes_of.expect(two, "^connected")
    assert(os.execute(typed(5)))
    assert.truthy(read_all(path):find("<= 80", 1, true))
    local reload = "pkill -HUP -P " .. server.pid -- the sixth, aimed at this one alone
    assert(os.execute(reload))
    processes_of.expect(server, "duel%.lua: loaded")
    save("duel.lua", "return bodkin.policy {")
    assert(os.execute(reload))
    processes_of.expect(server, "duel%.lua:%d+:.*the version before it")
  end)

  it("has a server role of at most twenty lines that serves", function()
    local role = block("lua", "bodkin.role")
    assert.is_true(select(2, role:gsub("\n", "")) <= 20)
    local path = save("dice.lua", role)
    local serve = ("bodkin serve --listen 127.0.0.1:0 --admin %s/admin --roles %s"):format(dir, path)
    local url = processes_of.expect(start(serve), "bodkin://127%.0%.0%.1:%d+%S*")
    local core = require "bodkin.core"
    local messages = dofile(path).messages
    local env = require("bodkin.env").new()
    local router, eyes = core.router(env.counters), nil
    router:on(messages.rolled, { "eyes" }, function(_, _, n)
      eyes = n
      env.stop()
    end)
    local sock = assert(env.udp(core.addr.parse("127.0.0.1", 0)))
    sock:router(router)
    sock:send(assert(core.addr.parse(url:match("//([^#]*)"))), assert(messages.roll:encode(("x"):rep(12), 6)))
    env.timer(5000, env.stop)
    env.run()
    env.close()
    assert.is_true(eyes and eyes >= 1 and eyes <= 6)
  end)

  it("has programs that run behind two NATs, each in one command", function()
    local script, there = save("lab.sh", block("sh", "bodkin lab")), assert(bodkin:match "^(.*)/")
    local p = start(("env PATH=%s:$PATH sh -ec '. %s'"):format(there:gsub("^[^/]", "$PWD/%0"), script))
    local seen = {}
    for line in p.out:lines() do seen[line:gsub("[%d.]+ ms$", "MS")] = true end
    local _, _, code = p.out:close()
    if code == 6 then return pending "no root, and no namespaces for users" end
    assert.equal(0, code)
    for _, line in ipairs { "a| hello", "b| hello", "b| echo 5 after MS" } do assert.is_true(seen[line], line) end
  end)

  it("points only to files that are there", function()
    for path in text:gmatch("%]%(([^)#]+)%)") do
      if not path:find("://", 1, true) then
        assert.is_true(os.rename(path, path) ~= nil, path)
      end
    end
  end)
end)

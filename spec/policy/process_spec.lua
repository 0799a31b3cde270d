-- SPDX-License-Identifier: MIT
-- The policy process of the real binary: reloaded, killed, and gone with its server.
local processes_of = require "spec.processes"
local support = dofile "spec/policy/support.lua"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local expect = processes_of.expect

describe("bodkin serve --policy", function()
  local processes, path, server, url

  local function write(text) support.write(path, text) end

  local function data(value)
    return ("return bodkin.policy { size = 2, form = function(a, near)\n"
      .. "return { teams = { { a, near[1] } }, data = %q } end }"):format(value)
  end

  local function serve(policy)
    server = processes:start(("%s serve --listen 127.0.0.1:0 --admin %s/admin --policy duel=%s"):format(bodkin,
      processes.dir, policy))
    url = expect(server, "(bodkin://127%.0%.0%.1:%d+%S*)")
  end

  -- Two clients; what the match of both says.
  local function duel()
    local list = {}
    for i = 1, 2 do
      list[i] = processes:start(("%s match duel --server %s --json --send hi --expect 1 --timeout 10"):format(bodkin,
        url))
    end
    local said = {}
    for i, p in ipairs(list) do
      said[i] = expect(p, '"event":"matched".-([^:,]*)}$')
      while p.out:read "l" do end
      assert.is_true(p.out:close())
    end
    assert.equal(said[1], said[2])
    return said[1]
  end

  -- The pids of the server's children: `timeout` runs it, so of that one's child.
  local function children()
    local pipe <close> = assert(io.popen(("pgrep -P $(pgrep -P %s)"):format(server.pid)))
    local list = {}
    for pid in pipe:lines() do list[#list + 1] = pid end
    return list
  end

  local function signal(name) assert(os.execute(("kill -%s $(pgrep -P %s)"):format(name, server.pid))) end

  before_each(function()
    processes = processes_of.new()
    path = processes.dir .. "/duel.lua"
  end)
  after_each(function() processes:close() end)

  it("matches by the policy, reloads it on SIGHUP, and keeps the old one when the new one does not load", function()
    write(data "one")
    serve(path)
    assert.equal('"one"', duel())
    write(data "two")
    signal "HUP"
    expect(server, "(duel%.lua: loaded)")
    assert.equal('"two"', duel())
    write "return bodkin.policy { size = 77 }"
    signal "HUP"
    expect(server, "(error policy [^ ]*duel%.lua:2: policy: size must be [^;]*; the version before it stays)")
    assert.equal('"two"', duel())
  end)

  it("reads it again by itself with --watch", function()
    write(data "one")
    serve(path .. " --watch")
    assert.equal('"one"', duel())
    write(data "two")
    expect(server, "(duel%.lua: loaded)")
    assert.equal('"two"', duel())
    write "return bodkin.policy { size = 77 }"
    expect(server, "(error policy [^ ]*duel%.lua:2: policy: size must be [^;]*; the version before it stays)")
    assert.equal('"two"', duel())
  end)

  it("loses no ticket when its process is killed, and ends it with itself", function()
    write [[
      return bodkin.policy { size = 2, window_ms = 50, compatible = function(a, b)
        return a.waited_ms > 1500
      end }]]
    serve(path)
    local waiting = {}
    for i = 1, 2 do
      waiting[i] = processes:start(("%s match duel --server %s --json --expect 1 --send hi --timeout 15"):format(bodkin,
        url))
      expect(waiting[i], '("event":"queued")')
    end
    for _ = 1, 3 do
      local list = children()
      assert.equal(1, #list)
      assert(os.execute("kill -9 " .. list[1]))
      expect(server, "(the policy process ended; it is started again)")
      -- It is there again when the server has a child again.
      repeat os.execute "sleep 0.05" until #children() == 1
    end
    for _, p in ipairs(waiting) do
      while p.out:read "l" do end
      assert.is_true(p.out:close())
    end
    local last = children()[1]
    signal "TERM"
    expect(server, "(stopped)")
    while server.out:read "l" do end
    server.out:close()
    assert.falsy(os.execute("kill -0 " .. last .. " 2>/dev/null"))
  end)

  it("records what policies are told and tell, also when their process is killed, and that walks again", function()
    local file, late = processes.dir .. "/all.rec", processes.dir .. "/late.rec"
    local function output(command)
      local pipe = assert(io.popen(bodkin .. " " .. command .. " 2>&1"))
      local text = pipe:read "a"
      return text, select(3, pipe:close())
    end
    write(data "one")
    serve(path .. " --record " .. file)
    duel()
    assert(os.execute("kill -9 " .. children()[1]))
    expect(server, "(the policy process ended; it is started again)")
    write(data "two")
    signal "HUP"
    repeat os.execute "sleep 0.05" until #children() == 1
    local said
    repeat said = duel() until said == '"two"'
    assert.matches("bytes; walk them again with  bodkin replay",
      (output(("record %s --admin %s/admin"):format(late, processes.dir))), 1, true)
    local text, code = output("replay " .. late)
    assert.matches("^%d+ inputs, %d+ outputs.*: all as recorded\n$", text)
    assert.equal(0, code)
    signal "TERM"
    expect(server, "(stopped)")
    while server.out:read "l" do end
    server.out:close()
    assert.matches("all as recorded", (output("replay " .. file)), 1, true)
    text, code = output(("replay %s --policy skill --svg %s.svg"):format(file, file))
    assert.equal(0, code)
    assert.matches("duel +as recorded +skill\ntickets +%d+ +%d+\n.*\nmatches +%d+ +0\n", text)
    local plot <close> = assert(io.open(file .. ".svg"))
    assert.matches("^<svg.*duel: as recorded against skill", plot:read "a")
    assert.matches("--svg needs --policy", (output(("replay %s --svg x"):format(file))), 1, true)
    local f <close> = assert(io.open(file, "rb"))
    local bytes = f:read "a"
    local changed <close> = assert(io.open(late, "wb"))
    changed:write((bytes:gsub("\xa3one", "\xa3eno")))
    changed:close()
    text, code = output("replay " .. late)
    assert.equal(3, code)
    assert.matches('late.rec:%d+: recorded: match "duel" .*"eno"\nreplayed: match "duel" .*"one"\n$', text)
  end)

  it("records to a file that a server before it left with half a line", function()
    local file = processes.dir .. "/all.rec"
    local function stop()
      signal "TERM"
      expect(server, "(stopped)")
      while server.out:read "l" do end
      server.out:close()
    end
    write(data "one")
    for i = 1, 2 do
      serve(path .. " --record " .. file)
      duel()
      stop()
      if i == 1 then assert(os.execute("truncate -s -3 " .. file)) end
    end
    local pipe <close> = assert(io.popen(("%s replay %s 2>&1"):format(bodkin, file)))
    local said = pipe:read "a"
    assert.matches("all.rec:%d+: this line is incomplete and left out", said)
    assert.matches("\n%d+ inputs, %d+ outputs.*: all as recorded\n$", said)
  end)

  it("says why a ticket waits", function()
    write [[return bodkin.policy { compatible = function() return false, "never" end }]]
    serve(path)
    for _, name in ipairs { "ann", "bob" } do
      local p = processes:start(("%s match duel --server %s --name %s --json --timeout 15"):format(bodkin, url, name))
      expect(p, '"event":"queued"')
    end
    local pipe = assert(io.popen(("%s why ann --admin %s/admin 2>&1"):format(bodkin, processes.dir)))
    assert.matches("^%x+  ann: waits in duel for [%d.]+ s: never %(1 of 1%)\n$", pipe:read "a")
    assert.is_true(pipe:close())
    pipe = assert(io.popen(("%s why bob --json --admin %s/admin 2>&1"):format(bodkin, processes.dir)))
    assert.matches('^{"event":"ticket","ticket":"%x+","queue":"duel","state":"waiting",.*"reasons":%[%["never",1%]%]}}',
      pipe:read "a")
    pipe:close()
  end)

  it("kills its process when that does not answer, and goes on", function()
    write(data "yes")
    serve(path)
    assert(os.execute("kill -STOP " .. children()[1]))
    duel()
    expect(server, "(the policy process does not answer: it is killed)")
    expect(server, "(its process ended in a pass; first_come serves)")
  end)

  it("asks it of clients there, and serves the others while one of them hangs it", function()
    write [[
      return bodkin.policy { on_register = function(c)
        if c.name == "loop" then while true do end end
        if c.name == "error" then error "oops" end
        return c.name ~= "no", "not you"
      end }]]
    server = processes:start(("%s serve --listen 127.0.0.1:0 --admin %s/admin --policy %s"):format(bodkin,
      processes.dir, path))
    url = expect(server, "(bodkin://127%.0%.0%.1:%d+%S*)")
    local function list(name, text)
      local p = processes:start(("%s host --server %s --name %s --timeout 5"):format(bodkin, url, name))
      expect(p, text)
      return p
    end
    local loops = {}
    for i = 1, 4 do
      loops[i] = processes:start(("%s host --server %s --name loop --timeout 5"):format(bodkin, url))
    end
    list("yes", "(room %S+:)")
    for i = 1, 4 do expect(loops[i], "(cannot decide now, try again)") end
    list("no", "(not you)")
    list("error", "(cannot decide now, try again)")
    expect(server, "(on_register failed: %S*duel%.lua:4: oops; the client is refused)")
    assert(os.execute("kill -STOP " .. children()[1]))
    list("later", "(cannot decide now, try again)")
    expect(server, "(the policy process does not answer: it is killed)")
    repeat os.execute "sleep 0.05" until #children() == 1
    list("yes", "(room %S+:)")
  end)

  it("does not start with a policy that does not load", function()
    write "return bodkin.policy { sise = 2 }"
    local p = processes:start(("%s serve --listen 127.0.0.1:0 --policy %s"):format(bodkin, path))
    expect(p, "(duel%.lua:2: policy: has no field 'sise')")
    assert.equal(1, select(3, p.out:close()))
    p = processes:start(("%s serve --listen 127.0.0.1:0 --policy duel=/nowhere.lua"):format(bodkin))
    expect(p, "(cannot read the policy: /nowhere.lua: No such file)")
    assert.equal(1, select(3, p.out:close()))
  end)

  it("knows those that ship by name, and one for all queues", function()
    server = processes:start(("%s serve --listen 127.0.0.1:0 --admin %s/admin --policy rooms"):format(bodkin,
      processes.dir))
    url = expect(server, "(bodkin://127%.0%.0%.1:%d+%S*)")
    local p = processes:start(("%s match any --server %s --timeout 5"):format(bodkin, url))
    expect(p, "(the property room is missing)")
    assert.equal(6, select(3, p.out:close()))
    p = processes:start(([[%s match any --props '{"room":"red"}' --server %s --timeout 0.5]]):format(bodkin, url))
    expect(p, "(no match in queue any within 0.5 s)")
    assert.equal(4, select(3, p.out:close()))
  end)
end)

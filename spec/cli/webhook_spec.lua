-- SPDX-License-Identifier: MIT
-- A game's backend is told of matches: by the real binary, to a server on loopback.
local core = require "bodkin.core"
local json = require "dkjson"
local processes_of = require "spec.processes"
local webhook = require "bodkin.servers.webhook"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local expect = processes_of.expect
local SECRET = "a secret of the game's backend"

-- Answers with each of the statuses given, then with 200, and prints what it was sent: signature, then body.
local BACKEND = [==[
import http.server, sys
statuses = [int(s) for s in sys.argv[1:]]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.headers["X-Bodkin-Signature"], self.headers["Content-Type"], body.decode(), flush=True)
        self.send_response(statuses.pop(0) if statuses else 200)
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
]==]

local POLICY = [[
local bodkin = require "bodkin"
return bodkin.policy { teams = { 1, 1 }, form = function(a, near)
  return { teams = { { a }, { near[1] } }, host = a, data = { map = "dust", seeds = { 1, 2.5 } } }
end }
]]

describe("a webhook", function()
  local processes, url, server

  local function write(name, text)
    local path = processes.dir .. "/" .. name
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
    return path
  end

  local function serve(to, key)
    local policy = write("duel.lua", POLICY)
    local config = write("config.lua", ([[
      local bodkin = require "bodkin"
      return bodkin.config { queues = { duel = { policy = %q } }, webhook = { url = %q, %s } }]]):format(policy, to,
      key or ("secret = %q"):format(SECRET)))
    server = processes:start(("%s serve --listen 127.0.0.1:0 --admin %s/admin --config %s"):format(bodkin,
      processes.dir, config))
    url = expect(server, "(bodkin://127%.0%.0%.1:%d+%S*)")
  end

  local function backend(statuses)
    local p = processes:start(("python3 %s %s"):format(write("backend.py", BACKEND), statuses or ""))
    return p, ("http://127.0.0.1:%s/matches"):format(expect(p, "^port (%d+)$"))
  end

  -- The id of the match of two clients.
  local function duel()
    local list, match = {}, nil
    for i = 1, 2 do
      list[i] = processes:start(("%s match duel --server %s --name p%d --json --send hi --expect 1 --timeout 10")
        :format(bodkin, url, i))
    end
    for _, p in ipairs(list) do
      match = expect(p, '"event":"matched","match":"(%x+)"')
      while p.out:read "l" do end
      assert.is_true(p.out:close())
    end
    return match
  end

  local function count(name)
    local pipe <close> = assert(io.popen(("%s status --json --admin %s/admin"):format(bodkin, processes.dir)))
    return tonumber(pipe:read("a"):match('"name":"' .. name .. '","value":(%d+)'))
  end

  before_each(function() processes = processes_of.new() end)
  after_each(function() processes:close() end)

  it("is a signed POST, which is made again until it is taken", function()
    local p, to = backend "500 404"
    serve(to)
    local match = duel()
    for attempt = 1, 3 do
      local line = expect(p, "^(t=.*)$")
      local t, v1, body = line:match "^t=(%d+),v1=(%x+) application/json (.*)$"
      assert.is_true(math.abs(os.time() - tonumber(t)) < 30)
      assert.equal(core.crypto.hex(core.crypto.hmac_sha256(SECRET, t .. "." .. body)), v1)
      local said = json.decode(body)
      assert.same({ match, "duel", 2 }, { said.match, said.queue, #said.teams }, attempt)
      assert.same({ map = "dust", seeds = { 1, 2.5 } }, said.data)
      assert.equal(said.host, said.teams[1][1].id)
      local names = { said.teams[1][1].name, said.teams[2][1].name }
      table.sort(names)
      assert.same({ "p1", "p2" }, names)
      assert.is_true(math.abs(os.time() - said.at) < 30)
    end
    repeat os.execute "sleep 0.1" until count "webhook_posted" == 1
    assert.same({ 2, 0 }, { count "webhook_again", count "webhook_failed" })
  end)

  it("of a key file says the same, and a backend that is not there delays nothing", function()
    local key = write("key", SECRET .. "\n")
    -- Nobody answers there, not even with a refusal (RFC 5737).
    serve("http://192.0.2.1:9/matches", ("key_file = %q"):format(key))
    local began = core.now()
    duel()
    duel()
    assert.is_true(core.now() - began < 8000000)
    assert.equal(2, count "match_formed")
    assert.equal(0, count "webhook_posted")
    began = core.now()
    assert(os.execute("kill -TERM $(pgrep -P " .. server.pid .. ")"))
    expect(server, "(the backend did not confirm 2 matches: the server stops)")
    expect(server, "(stopped)")
    assert.is_true(core.now() - began < 2000000)
  end)

  it("of a host that is unreachable or refuses is made again", function()
    serve "http://127.0.0.1:9/matches"
    duel()
    expect(server, "(the backend was not told of match %x+: [^\n]*)")
    assert.is_true(count "webhook_again" >= 1)
  end)
end)

describe("what a webhook says", function()
  local players = { { id = ("a"):rep(16), name = "ann", ticket = ("t"):rep(16), team = 2 } }

  it("has data as JSON where it can be", function()
    local function body(data, more)
      local m = { match = ("m"):rep(16), queue = "q", app = "a/1", players = players, data = data,
        encoded = core.wire.encode(data) }
      for key, value in pairs(more or {}) do m[key] = value end
      return webhook.body(m, 7)
    end
    assert.matches('"at":7,"teams":%[%[%],%[{"id":"61', body(nil))
    assert.matches('"data":{"a":[1,null]}', body { a = { 1, core.wire.null } }, 1, true)
    assert.matches('"data_b64":"gaFhxAH%-"', body { a = "\xfe" })
    assert.matches('"joined":true', body(nil, { joined = true }), 1, true)
  end)

  it("is signed with HMAC-SHA256", function() -- RFC 4231, test case 2
    assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
      core.crypto.hex(core.crypto.hmac_sha256("Jefe", "what do ya want for nothing?")))
  end)

  -- A webhook whose process is not there: what it is sent, how to answer, and to end it.
  local function made()
    local world = require("bodkin.sim.world").new {}
    local env = world:host({ name = "server", ip = "198.51.100.10" }).env
    local t = { world = world, counters = core.counters(), sent = {} }
    local function none() end
    local function note(_, format, ...) t.last = format:format(...) end
    t.hook = webhook.new({ env = env, counters = t.counters, log = { warn = none, error = note } }, {
      url = "http://x/", secret = SECRET,
      open_link = function(on_message, on_end)
        t.hear, t.stop = on_message, on_end
        return { send = function(_, m) if m[1] == "post" then t.sent[#t.sent + 1] = m[2] end end, close = none }
      end })
    return t
  end

  it("is made again where it is not taken, or its process ends", function()
    local t = made()
    for i = 1, 16 do
      t.hook:matched { match = ("%016d"):format(i), queue = "q", app = "a", players = players, encoded = "\xc0" }
    end
    t.hear { "ended", t.sent[1], 302, "" } -- nothing follows it to where it may have gone
    assert.same({ 1, 0 }, { t.counters:get "webhook_again", t.counters:get "webhook_posted" })
    t.stop()
    t.world:run(5000)
    assert.equal(32, #t.sent)
    for i = 17, 32 do t.hear { "ended", t.sent[i], 200, "" } end
    assert.equal(16, t.counters:get "webhook_posted")
    t.hook:close()
    t.world:close()
  end)

  it("is bounded: what waits, attempts, requests at once", function()
    local t = made()
    local world, counters, sent, hook = t.world, t.counters, t.sent, t.hook
    local function hear(m) t.hear(m) end
    for i = 1, 1005 do
      hook:matched { match = ("%016d"):format(i), queue = "q", app = "a", players = players, encoded = "\xc0" }
    end
    assert.same({ 16, 5 }, { #sent, counters:get "webhook_failed" })
    local at = 1
    while at <= #sent do -- none of it is taken
      hear { "ended", sent[at], false, "no" }
      at = at + 1
      if at > #sent then world:run(61000) end
    end
    assert.equal(1005, counters:get "webhook_failed")
    assert.equal(8000, #sent)
    hook:matched { match = ("m"):rep(16), queue = "q", app = "a", players = players, encoded = "\xc0" }
    hear { "ended", sent[#sent], 204, "" }
    assert.equal(1, counters:get "webhook_posted")
    for i = 1, 20 do
      hook:matched { match = ("%016d"):format(i), queue = "q", app = "a", players = players, encoded = "\xc0" }
    end
    hear { "ended", sent[#sent], 200, "" }
    hook:close()
    assert.equal(1005 + 19, counters:get "webhook_failed")
    assert.equal("the backend did not confirm 19 matches: the server stops", t.last)
    world:close()
  end)
end)

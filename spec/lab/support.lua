-- SPDX-License-Identifier: MIT
-- What the lab cases share: the real binary as server, host and joiner, and what they said.

local json = require "dkjson"
local lab = require "bodkin.lab"
local shell = require "bodkin.lab.shell"

local M = {}

M.binary = os.getenv "BODKIN" or "build/release/bodkin"

-- What is left of labs of process `of`: namespaces, directories, processes.
function M.left(of)
  local _, text = shell.run(("ls -d /run/netns/bodkin-lab-%d-* /run/bodkin-lab-%d-* 2>/dev/null; "
    .. "pgrep -af 'bodkin-lab-%d-[0-9]' | grep -v pgrep"):format(of, of, of))
  return text
end

-- The shell that waited for a killed process takes a moment to go, too.
function M.nothing_left(of)
  assert(shell.await(1000, function() return M.left(of) == "" end), M.left(of))
end

-- A lab whose NATs were probed.
function M.net(options)
  local net = assert(lab.up(options))
  local found, message = net:probe()
  if not found then
    net:down()
    error(message, 2)
  end
  return net
end

-- Starts the server roles, all on one host or each on its own; sets net.urls, the options that clients need.
function M.serve(net, options)
  options = options or {}
  local function start(host, name, ...)
    local p = net[host]:start { M.binary, "serve", "--json", "--admin", net.dir .. "/" .. host .. ".admin", ... }
    net[name] = p
    return json.decode((assert(p:expect('"listening"', 5000)))).url
  end
  if not options.apart then
    net.urls = { "--server", start("server", "serving", table.unpack(options)) }
    return
  end
  assert(require("bodkin.keyfile").make(net.dir .. "/key"))
  local file = assert(io.open(net.dir .. "/config.lua", "w"))
  file:write(("return require('bodkin').config { key_file = %q }"):format(net.dir .. "/key"))
  file:close()
  local config = net.dir .. "/config.lua"
  net.urls = {
    "--server", start("server", "serving", "--roles", "matching", "--config", config),
    "--address-server", start("server2", "addressing", "--roles", "address", "--config", config),
    "--maintenance-server", start("server3", "maintaining", "--roles", "maintenance", "--config", config),
  }
end

-- The server's counters, by name.
function M.counters(net)
  local p = net.server:start { M.binary, "status", "--json", "--admin", net.dir .. "/server.admin" }
  assert(p:wait(5000) == 0, p:stderr())
  local out = {}
  for _, c in ipairs(json.decode(p:stdout()).counters) do out[c.name] = c.value end
  return out
end

-- A client command on a host of the lab.
function M.client(net, host, options, ...)
  local words = table.move(options, 1, #options, 2, { M.binary, stdin = options.stdin })
  for _, list in ipairs { net.urls, { ... } } do table.move(list, 1, #list, #words + 1, words) end
  return net[host]:start(words)
end

-- The events a --json command printed; `kind`: only those of that name.
function M.events(process, kind)
  local list = {}
  for _, line in ipairs(process:lines()) do
    local event = assert(json.decode(line), "not JSON: " .. line)
    if not kind or event.event == kind then list[#list + 1] = event end
  end
  return list
end

-- Opens a room on `host` that waits to be joined, with a message for who joins; and its code.
function M.host(net, host)
  local p = M.client(net, host, { "host", "--json" }, "--send", "from " .. host, "--expect", "1", "--timeout", "100")
  return p, M.code_of(p)
end

function M.code_of(hosting)
  return json.decode((assert(hosting:expect('"hosting"', 10000)))).code
end

-- The same for several, { host, the one who joins, … } each, which begin together: what M.join takes for each.
function M.host_all(net, pairs_of)
  local waiting = {}
  for i, pair in ipairs(pairs_of) do
    waiting[i] = { (M.client(net, pair[1], { "host", "--json" }, "--send", "from " .. pair[1], "--expect", "1",
      "--timeout", "100")), nil, pair[2], pair[1] }
  end
  for _, one in ipairs(waiting) do one[2] = M.code_of(one[1]) end
  return waiting
end

-- A meeting of each.
function M.join_all(net, waiting)
  local meetings = {}
  for i, one in ipairs(waiting) do meetings[i] = M.join(net, one[1], one[2], one[3], one[4]) end
  return meetings
end

-- Joins the room: a meeting, for M.finish. `to`: the host that waits, "a" unless said.
function M.join(net, hosting, code, from, to)
  local joining = M.client(net, from, { "join", code, "--json" }, "--send", "from " .. from, "--expect", "1",
    "--timeout", "20")
  return { hosting = hosting, joining = joining, from = from, to = to or "a" }
end

-- Waits until both have left; asserts that both were connected, talked both ways and left well. Returns the last `path`
-- event of each, with first_ms, and first_confirmed_ms of the first.
function M.finish(meeting)
  local hosting, joining = meeting.hosting, meeting.joining
  local said = { [hosting] = "from " .. meeting.from, [joining] = "from " .. meeting.to }
  local last = {}
  for i, p in ipairs { hosting, joining } do
    local status = p:wait(25000)
    local messages, paths = M.events(p, "message"), M.events(p, "path")
    local all = p:stdout() .. p:stderr()
    assert(status == 0, ("exit code %s\n%s"):format(status, all))
    assert(#messages == 1 and messages[1].data == said[p], all)
    assert(M.events(p, "connected")[1] and paths[1], all)
    last[i] = paths[#paths]
    last[i].first_ms = M.events(p, "connected")[1].first_ms
    last[i].first_confirmed_ms = paths[1].confirmed_ms
  end
  return last[1], last[2]
end

-- The machine has other work, too: measures up to three times. `measure` returns what was too late, or nil.
function M.in_time(measure)
  local late
  for _ = 1, 3 do
    late = measure()
    if not late then return end
    print("# " .. late)
  end
  error(late, 2)
end

-- Both from the beginning: a hosts, b joins.
function M.meet(net)
  local hosting, code = M.host(net, "a")
  return M.finish(M.join(net, hosting, code, "b"))
end

return M

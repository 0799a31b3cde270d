-- SPDX-License-Identifier: MIT
-- Meetings of two in the lab, many at a time, and what the server and they do about the race of docs/NAT.md taken away
-- piece by piece. As a program: race.lua server POLICY IP:PORT; race.lua a|b POLICY URL COUNT GAP-MS LAST-MS, which
-- prints "N commit-of-connected commit-of-confirmed" for each meeting once it is connected, "-" for what did not come.

local core = require "bodkin.core"

local M = {}

-- at_once: else the one who selects is told first, and its peer once it has answered: later by the way back and the way
-- to the peer. scheduled: the nearer waits; late: and for a peer that has come nearer since. opener, fresh: as in
-- docs/NAT.md.
M.policies = {
  control = {},
  at_once = { at_once = true },
  scheduled = { at_once = true, scheduled = true },
  opener = { opener = true },
  fresh = { fresh = true },
  late = { at_once = true, scheduled = true, late = true },
  late_opener = { at_once = true, scheduled = true, late = true, opener = true },
  all = { at_once = true, scheduled = true, opener = true, fresh = true },
}

local function with_rtt(person, rtt_ms)
  local copy = {}
  for field, value in pairs(person) do copy[field] = value end
  copy.rtt_ms = rtt_ms
  return copy
end

local FAR_MS, ONCE_MS = 50, 400 -- who is farther than that was once so far

local function mistaken(person)
  return (person.rtt_ms or 0) > FAR_MS and with_rtt(person, ONCE_MS) or person
end

-- Takes from the server what the policy has not.
local function change_server(policy)
  local delivery = require "bodkin.servers.delivery"
  local new = delivery.new
  function delivery.new(...)
    local real = new(...)
    local push, ack = real.push, real.ack
    local held = {} -- by pair and who is to be told first
    function real:push(d)
      if not policy.scheduled then d.to, d.peer = with_rtt(d.to, nil), with_rtt(d.peer, nil) end
      if policy.late then d.to, d.peer = mistaken(d.to), mistaken(d.peer) end
      if policy.at_once or d.again then return push(self, d) end
      -- The selected one's comes first, the selector's after it.
      local mine = d.match .. d.to.id
      if not held[mine] then
        held[d.match .. d.peer.id] = d
        return d
      end
      d.release, held[mine] = held[mine], nil
      return push(self, d)
    end
    function real:ack(id, tx)
      local d = self.by_tx[tx]
      local done = ack(self, id, tx)
      if done and d.release then
        push(self, d.release)
        d.release = nil
      end
      return done
    end
    return real
  end
end

local function change_client(node, policy)
  if not policy.opener then node.addresses.opener_ttl = function() return 0 end end
  if not policy.fresh then require("bodkin.client.fresh").open = function() end end
end

local function serve(env, policy, listen)
  change_server(policy)
  local key = env.random(32)
  assert(require("bodkin.servers").open(env, { listen = { listen }, keys = { key }, shared_clock = true,
    roles = { "address", "matching", "maintenance" } })) -- no relay, which would hide the race
  print(("bodkin://%s#%s"):format(listen, core.crypto.base64url((core.crypto.keypair(key)))))
  io.stdout:flush()
  require("bodkin.task").sleep(env, 3600000)
end

-- In the meetings of odd number a is selected, else b.
local SETTLE_MS = 1200

local function meet(env, role, policy, url, n, begin_us, last_us)
  local task = require "bodkin.task"
  local told = {}
  task.sleep(env, math.max(0, (begin_us - env.now()) / 1000 - SETTLE_MS))
  local me <close> = assert(require("bodkin.client.node").open {
    env = env, server = url, app = "race/1", props = { n = n },
    on_event = function(e)
      if e.event == "connected" then told.connected = told.connected or e.commit_ms end
      if e.event == "path" then told.path = told.path or e.commit_ms end
    end,
  })
  change_client(me, policy)
  task.sleep(env, math.max(0, (begin_us - env.now()) / 1000))
  local selects = (n % 2 == 1) == (role == "b")
  while selects and env.now() < last_us do
    local found
    for _, entry in ipairs(me:list { n = n } or {}) do
      if entry.id ~= me.id then found = entry.id end
    end
    if found then
      assert(me:join(found))
      break
    end
    task.sleep(env, 20)
  end
  task.sleep(env, math.max(0, (last_us - env.now()) / 1000))
  print(("%d %s %s"):format(n, told.connected or "-", told.path or "-"))
  io.stdout:flush()
end

local function main(what, name, where, count, gap_ms, last_ms)
  require("bodkin").run(function()
    local env, task = require("bodkin").env(), require "bodkin.task"
    local policy = assert(M.policies[name], "no such policy")
    if what == "server" then return serve(env, policy, where) end
    local tasks, start_us = {}, env.now() + SETTLE_MS * 1000
    for n = 1, math.tointeger(count) do
      local begin_us = start_us + n * math.tointeger(gap_ms) * 1000
      tasks[n] = task.spawn(meet, env, what, policy, where, n, begin_us, begin_us + math.tointeger(last_ms) * 1000)
    end
    for _, t in ipairs(tasks) do
      local ok, err = t:join()
      if not ok then error(err, 0) end
    end
  end)
end

-- Lets `count` pairs meet by a policy: an array of { connected, path }, ms from the commit until both ends were, nil
-- where one never was. options: gap_ms between two, last_ms of each.
function M.run(net, binary, name, count, options)
  M.port = (M.port or 4500) + 1
  local listen = ("%s:%d"):format(net.server.addr, M.port)
  local server = net.server:start { binary, "run", "spec/lab/race.lua", "server", name, listen,
    realtime = net.realtime }
  local url = (assert(server:expect("bodkin://", 5000)):match "bodkin://%S+")
  local sides, found = {}, {}
  for i, role in ipairs { "a", "b" } do
    sides[i] = net[role]:start { binary, "run", "spec/lab/race.lua", role, name, url, tostring(count),
      tostring(options.gap_ms), tostring(options.last_ms), realtime = net.realtime }
  end
  for _, side in ipairs(sides) do
    local code = side:wait(SETTLE_MS + count * options.gap_ms + options.last_ms + 10000)
    assert(code == 0, ("exit code %s\n%s%s"):format(code, side:stdout(), side:stderr()))
    for _, line in ipairs(side:lines()) do
      local n, connected, path = line:match "^(%d+) (%S+) (%S+)$"
      local one = found[tonumber(n)] or { connected = 0, path = 0, lost = {} }
      found[tonumber(n)] = one
      for field, text in pairs { connected = connected, path = path } do
        one[field] = tonumber(text) and one[field] and math.max(one[field], tonumber(text)) or nil
      end
    end
  end
  assert(#found == count, "not every meeting was told")
  server:kill "KILL"
  server:wait(2000)
  return found
end

if arg and arg[0] and arg[0]:find "race%.lua$" then return main(...) end
return M

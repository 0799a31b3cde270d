-- SPDX-License-Identifier: MIT
-- Every kind of NAT against every other and itself, all in one lab: direct where docs/NAT.md says so, else by the
-- relay, and that in its time. The table is printed; docs/NAT.md shows it. SOAK=n: with other ports and another seed.

local support = require "spec.lab.support"
local theory = require "bodkin.sim.theory"

local SOAK = tonumber(os.getenv "SOAK")
local KINDS = { "none", "firewall", "full_cone", "address_restricted", "port_restricted", "plain_linux",
  "symmetric_random", "symmetric_sequential", "address_dependent", "carrier", "two_addresses" }
local LINK_MS, KEEP_MS = 20, 1200
local ROUNDS = #KINDS // 2 -- of meetings: kind i with kind i + round
-- From the arrival of `matched`: proof asked for and given, and half the way to the other. With equal links, all of
-- them round trips to the relay, which is the server.
local RELAY_MS = 1.5 * 2 * LINK_MS + 2 * LINK_MS / 2 + 5

-- A carrier's NAT is none that theory knows by another rule. Behind two addresses one comes from another IP than the
-- one announced: as if it had roamed, it gets in where all do (docs/NAT.md).
local function verdict(x, y)
  if y == "two_addresses" then x, y = y, x end
  if x == "two_addresses" then return (y == "none" or y == "full_cone") and "yes" or "no" end
  local as = { carrier = "port_restricted" }
  return theory.verdict(as[x] or x, as[y] or y)
end

local function host_of(copy, i) return string.char(96 + copy * #KINDS + (i - 1) % #KINDS + 1) end

local function app_of(i, k) return ("%d-%d"):format(i, (k - 1) % #KINDS + 1) end

-- Kind i's first host meets the second host of each kind from i to i + ROUNDS: every pair once.
local function meet_all(net)
  local running, url = {}, net.urls[2]
  for i = 1, #KINDS do
    local first, second = {}, {}
    for round = 0, ROUNDS do
      first[#first + 1] = app_of(i, i + round)
      second[#second + 1] = app_of((i - round - 1) % #KINDS + 1, i)
    end
    for copy, apps in pairs { [0] = first, second } do
      local words = { support.binary, "run", "spec/lab/matrix.lua", copy == 0 and "a" or "b", url, tostring(KEEP_MS) }
      running[#running + 1] = net[host_of(copy, i)]:start(table.move(apps, 1, #apps, #words + 1, words))
    end
  end
  local results = {}
  for _, p in ipairs(running) do
    assert(p:wait(40000) == 0, p:stdout() .. p:stderr())
    for _, line in ipairs(p:lines()) do
      local app, last, first, ms = line:match "^(%S+) (%S+) (%S+) (%S+)$"
      results[app] = results[app] or {}
      table.insert(results[app], { last = last, first = first, ms = tonumber(ms) or math.huge })
    end
  end
  return results
end

local function print_table(results)
  print("# | |" .. (" %s |"):rep(#KINDS):format(table.unpack(KINDS)))
  for i = 1, #KINDS do
    local cells = {}
    for k = 1, #KINDS do
      local r = results[app_of(i, k)] or results[app_of(k, i)]
      cells[k] = ("%s %.0f"):format(r.last, r.ms)
    end
    print(("# | %s | %s |"):format(KINDS[i], table.concat(cells, " | ")))
  end
end

describe("NAT pairs", function()
  it("connect directly where theory says so, else by the relay", function()
    local options = { delay_ms = LINK_MS, seed = SOAK }
    for i = 1, #KINDS do
      for copy = 0, 1 do options[host_of(copy, i)] = KINDS[i] end
    end
    local net <close> = support.net(options)
    support.serve(net)
    local best = {} -- of each pair, its time when the machine had least else to do
    support.in_time(function()
      local results, late = meet_all(net), {}
      for i = 1, #KINDS do
        for k = i, i + ROUNDS do
          local x, y, app = KINDS[i], KINDS[(k - 1) % #KINDS + 1], app_of(i, k)
          local name, r, want = x .. "–" .. y, results[app], verdict(x, y)
          assert(r and #r == 2, name .. ": not both ended")
          for _, e in ipairs(r) do
            local expect = want == "no" and "relay" or "direct"
            assert(e.last == expect or want == "may" and e.last == "relay", ("%s: %s at the end, not %s"):format(name,
              e.last, expect))
          end
          local ms = math.max(r[1].ms, r[2].ms)
          best[app] = { last = r[1].last, ms = math.min(ms, best[app] and best[app].ms or ms) }
          if best[app].ms > RELAY_MS then
            late[#late + 1] = ("%s after %.0f ms, not %.0f"):format(name, ms, RELAY_MS)
          end
        end
      end
      return late[1] and table.concat(late, "; ")
    end)
    print_table(best)
  end)

  -- Behind one NAT, which has the two apart or not, and sends back what is for its own mappings or not. At once.
  local behind_one = {
    { "beside each other", "lan" }, { "kept apart, with hairpinning", "direct", isolated = true, hairpin = true },
    { "kept apart", "relay", isolated = true },
  }
  local nets = {}
  teardown(function()
    for _, net in ipairs(nets) do net:down() end
  end)

  local function begin(case)
    local net = support.net { a = "port_restricted", same_nat = true, isolated = case.isolated, hairpin = case.hairpin,
      delay_ms = LINK_MS }
    nets[#nets + 1] = net
    support.serve(net)
    local hosting, code = support.host(net, "a")
    case.meeting = support.join(net, hosting, code, "b")
  end

  for i, case in ipairs(behind_one) do
    it(("behind one NAT, %s: %s"):format(case[1], case[2]), function()
      if i == 1 then
        for _, one in ipairs(behind_one) do begin(one) end
      end
      for _, last in ipairs { support.finish(case.meeting) } do assert.equal(case[2], last.path) end
    end)
  end
end)

-- SPDX-License-Identifier: MIT
-- Eight players behind assorted NATs wait in a queue of two against two, whose policy is changed on disk meanwhile: two
-- matches form, each player reaches the three others of its match, and all are told what the new policy says.

local json = require "dkjson"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local NATS = { a = "none", b = "full_cone", c = "port_restricted", d = "port_restricted", e = "plain_linux",
  f = "carrier", g = "symmetric_random", h = "symmetric_sequential" }

local function policy(form)
  return ([[local bodkin = require "bodkin"
return bodkin.policy {
  teams = { 2, 2 },
  props = { mmr = "number" },
  index = "mmr",
  window_ms = 200,
  form = function(anchor, near)
    %s
  end,
}
]]):format(form)
end

local WAITS = "return nil -- until there is a better one"
local BALANCES = [[local four = { anchor }
    for i = 1, #near do
      if #four < 4 then four[#four + 1] = near[i] end
    end
    if #four < 4 then return nil end
    local teams, gap = bodkin.split(four, { 2, 2 }, "mmr")
    return { teams = teams, host = anchor, data = { version = 2, gap = gap } }]]

describe("the lab: a queue", function()
  local net
  after_each(function()
    if net then net:down() end
    net = nil
  end)

  it("makes two matches of eight once its policy is changed on disk, and all reach each other", function()
    local options = { delay_ms = 10 }
    for name, kind in pairs(NATS) do options[name] = kind end
    net = support.net(options)
    local file = net.dir .. "/two.lua"
    shell.write(file, policy(WAITS))
    support.serve(net, { "--policy", "duo=" .. file, "--watch" })
    local players, names = {}, {}
    for name in pairs(NATS) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
      local props = json.encode { mmr = 1000 + 10 * i }
      players[name] = support.client(net, name, { "match", "duo", "--json" }, "--props", props, "--name", name,
        "--send", "from " .. name, "--expect", "3", "--timeout", "40")
    end
    for _, name in ipairs(names) do assert(players[name]:expect('"queued"', 15000)) end
    shell.sleep_ms(600) -- passes of the first policy: nobody is matched
    assert.same({}, support.events(players.a, "matched"))
    shell.write(file, policy("what is no Lua"))
    assert(net.serving:expect_error("the version before it stays", 5000))
    shell.write(file, policy(BALANCES))

    local members, sent = {}, {}
    for _, name in ipairs(names) do
      local status = players[name]:wait(45000)
      local all = name .. ": " .. players[name]:stdout() .. players[name]:stderr()
      assert.equal(0, status, all)
      local matched = support.events(players[name], "matched")
      local last = matched[#matched]
      assert.same(2, last.data.version)
      assert.equal(3, #last.peers, all)
      members[last.match] = members[last.match] or {}
      table.insert(members[last.match], name)
      local heard = {}
      for _, m in ipairs(support.events(players[name], "message")) do heard[#heard + 1] = m.data end
      table.sort(heard)
      sent[name] = { match = last.match, heard = table.concat(heard, " "), team = last.team, host = last.host }
    end
    local matches = 0
    for _, four in pairs(members) do
      matches = matches + 1
      assert.equal(4, #four)
      local teams = { 0, 0 }
      for _, name in ipairs(four) do
        teams[sent[name].team] = teams[sent[name].team] + 1
        local others = {}
        for _, other in ipairs(four) do
          if other ~= name then others[#others + 1] = "from " .. other end
        end
        assert.equal(table.concat(others, " "), sent[name].heard)
        assert.equal(sent[four[1]].host, sent[name].host)
      end
      assert.same({ 2, 2 }, teams)
    end
    assert.equal(2, matches)
  end)
end)

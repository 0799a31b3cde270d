-- SPDX-License-Identifier: MIT
-- What a policy makes of what a token says: at its desk, and end to end in the simulated world.
local client = dofile "spec/client/support.lua"
local check = require "bodkin.policy.check"
local core = require "bodkin.core"
local policy = dofile "spec/policy/support.lua"
local scenarios = require "bodkin.scenario"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local token = require "bodkin.token"

local SEED = ("s"):rep(32)

describe("claims", function()
  it("are seen by admit, compatible and form, beside props", function()
    local d = policy.desk [[
      return bodkin.policy { size = 2,
        admit = function(t) return t.claims.rank ~= nil, "no rank" end,
        compatible = function(a, b) return a.claims.rank == b.claims.rank and a.props.rank ~= b.props.rank end,
        form = function(a, near)
          return { teams = { { a, near[1] } }, data = { a.claims.rank, near[1].claims.who[2] } }
        end }]]
    assert.same({ nil, "no rank" }, { d:add { rank = 1 } })
    local a = d:add({ rank = 1 }, { claims = { rank = 7 } })
    d:add({ rank = 2 }, { claims = { rank = 8 } })
    local b = d:add({ rank = 2 }, { claims = { rank = 7, who = { "x", "y" } } })
    assert.same({ { { { a, b } }, false, { 7, "y" } } }, d:tick(100))
  end)

  it("are an empty table without a token, and may be as deep as a token may", function()
    local d = policy.desk [[
      return bodkin.policy { size = 2, admit = function(t)
        return false, type(t.claims.a) == "table" and t.claims.a.a.a.a.a.a.a or tostring(next(t.claims)) end }]]
    assert.equal("nil", select(2, d:add {}))
    local deep = "deep"
    for _ = 1, 7 do deep = { a = deep } end
    assert.equal("deep", select(2, d:add({}, { claims = deep })))
  end)

  it("that are declared are required and filled in; others stay", function()
    local d = policy.desk [[
      return bodkin.policy { size = 2, claims = { mmr = { type = "number", min = 0, default = 5 }, of = "string" },
        admit = function(t) return false, t.claims.mmr .. t.claims.of .. tostring(t.claims.sub) end }]]
    local function refusal(claims) return select(2, d:add({}, { claims = claims })) end
    assert.equal("the claim of is missing", refusal(nil))
    assert.equal("of must be a string", refusal { of = 1 })
    assert.equal("mmr must be at least 0", refusal { of = "x", mmr = -1 })
    assert.equal("5.0xann", refusal { of = "x", sub = "ann" })
    assert.equal("7.0xnil", refusal { of = "x", mmr = 7 })
  end)

  it("stay with the tickets when another version takes over", function()
    local d = policy.desk "return bodkin.policy { size = 2 }"
    d:add({}, { claims = { mmr = 1 } })
    d:add({}, { claims = { mmr = 2 } })
    d:load(2, [[return bodkin.policy { size = 2, form = function(a, near)
      return { teams = { { a, near[1] } }, data = a.claims.mmr + near[1].claims.mmr } end }]])
    assert.equal(3, d:tick(100, 2)[1][3])
  end)

  it("are checked where the policy is made", function()
    for text, expect in pairs {
      ["claims = 1"] = "policy.lua:2: policy: claims must be a table of names and types",
      ["claims = { mmr = 'numbr' }"] = "policy.lua:2: policy: claims.mmr: there is no type 'numbr'",
      ["on_register = true"] = "policy.lua:2: policy: on_register must be a function",
    } do
      local kind, why = policy.desk("return bodkin.policy {}"):load(2, "return bodkin.policy { " .. text .. " }")
      assert.equal("refused", kind)
      assert.matches(expect, why, 1, true)
    end
  end)

  it("and clients are made up by the check", function()
    local function run(text) return check.run(policy.source("return bodkin.policy { " .. text .. " }"), {}) end
    local report = assert(run [[claims = { mmr = "number" }, compatible = function(a, b)
      return a.claims.mmr + b.claims.mmr end, on_register = function(c) return #c.name < 9 end]])
    assert.is_true(report.matches > 10)
    assert.is_true(report.clients > report.turned_away and report.turned_away > 0)
    assert.matches("policy.lua:2: ", select(2, run "on_register = function(c) return c.claims.mmr > 1 end"), 1, true)
    assert.matches("policy.lua:2: ", select(2, run "admit = function(t) return t.claims.mmr > 1 end"), 1, true)
  end)

  it("of a scenario come in tokens", function()
    local scenario = assert(scenarios.check { clients = 40, nats = { none = 1 }, duration_s = 20, stay_s = 1,
      match = { claims = { rank = { weights = { a = 1, b = 1 } }, banned = { chance = 0.3 } } } })
    scenario.match.policy = policy.source [[
      return bodkin.policy { size = 2, compatible = function(a, b) return a.claims.rank == b.claims.rank end,
        on_register = function(c) return not c.claims.banned end }]]
    local run = assert(require("bodkin.sim.run").play(scenario))
    local banned, rank = 0, {}
    for _, c in ipairs(run.clients) do
      if c.claims.banned then banned = banned + 1 end
      rank[c.n] = c.claims.rank
    end
    assert.is_true(banned > 0)
    assert.same({ 40, 40 - banned, banned }, { run.arrived, run.registered, run.failures.refused })
    assert.is_true(#run.pairs > 5)
    for _, pair in ipairs(run.pairs) do assert.equal(rank[pair.a.n], rank[pair.b.n]) end
    for text, bad in pairs { ["match claims must be a table"] = 1, ["match claims a has no"] = { a = { z = 1 } } } do
      assert.matches(text, select(2, scenarios.check { match = { claims = bad } }), 1, true)
    end
  end)
end)

describe("a queue of players with tokens", function()
  local s
  after_each(function() s:close() end)

  local function world(text, options)
    s = client.new()
    s.server:close()
    s.server = assert(servers.open(s.hub.env, { listen = { "198.51.100.10:4433" }, keys = { client.key },
      queues = { ["*"] = { policy = policy.source(text) } }, token_keys = { (core.crypto.sign_keypair(SEED)) },
      require_token = options and options.require_token }))
    s.servers[s.hub] = s.server
  end

  local function issue(claims)
    claims.exp = s.hub.env.time() + 3600
    return assert(token.issue(SEED, claims))
  end

  local function player(n, claims, options)
    local o = { name = "p" .. n, token_text = claims and issue(claims) }
    for k, v in pairs(options or {}) do o[k] = v end
    return s:try(s:host("h" .. n, "203.0.113." .. n), o)
  end

  local function wait(node, props)
    local w = {}
    task.spawn(function() w.result = table.pack(node:match("duel", props or {}, { timeout_ms = 5000 })) end)
    return w
  end

  it("matches by what is claimed, whatever the clients say of themselves", function()
    world([[return bodkin.policy { size = 2, claims = { mmr = "number" },
      compatible = function(a, b) return math.abs(a.claims.mmr - b.claims.mmr) <= 100 end }]],
      { require_token = true })
    local waits = {}
    for n, mmr in ipairs { 1000, 2000, 1050 } do
      waits[n] = wait(assert(player(n, { sub = "p" .. n, mmr = mmr })), { mmr = 1000 })
    end
    s.world:run(3000)
    assert.equal(waits[1].result[1].id, waits[3].result[1].id)
    assert.is_true(waits[1].result[1]:peers()[1].connected)
    s.world:run(3000)
    assert.equal("no_match", waits[2].result[3])
    local _, text, code = player(4)
    assert.same({ "a token is needed here", "refused" }, { text, code })
  end)

  it("are admitted by on_register, also together with their first request", function()
    world [[return bodkin.policy { size = 2, on_register = function(c)
      if c.props.hang then while true do end end
      return not c.claims.banned, "you are banned" end }]]
    local _, text, code = player(1, { banned = true })
    assert.same({ "you are banned", "refused" }, { text, code })
    _, text, code = player(2, {}, { props = { hang = true } })
    assert.same({ "cannot decide now, try again", "refused" }, { text, code })
    local waits = {}
    for n = 3, 4 do waits[n] = wait(assert(player(n, {}, { register = n == 3 and "together" or nil }))) end
    s.world:run(3000)
    assert.equal(waits[3].result[1].id, waits[4].result[1].id)
    local banned = assert(player(5, { banned = true }, { register = "together" }))
    local w = wait(banned)
    s.world:run(1000)
    assert.same({ "you are banned", "refused" }, { w.result[2], w.result[3] })
  end)
end)

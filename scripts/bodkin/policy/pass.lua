-- SPDX-License-Identifier: MIT
-- Runs inside the sandbox, around the policy: keeps the tickets it was told of, asks the policy's functions, and
-- says which matches they make. Whoever called checks all of it again; a policy can spoil nothing but its own run.
--
-- Oldest tickets first, each as the anchor: `near` are those it is compatible with, nearest by `index` (or oldest)
-- first, at most 32 of the 64 it is compared with. So a pass is linear in the number of tickets; one that would take
-- more than its budget stops in good time, and the next goes on from there. Looking is done in C
-- (bindings/sandbox_pass.c): most policies look at few of those they may choose from, so near is filled as it is read.

local core = ... -- encode, null, where, left, tickets, helpers: what the sandbox lends to chunks of ours

local policies = require "bodkin.policy"

local M = {}

local policy, queue
local pools, by_key = {}, {} -- { key =, app =, number = }; number: of the queue
local turn = { pool = 1, no = 0 } -- where the next pass begins
local open, running = {}, {} -- running matches, { no =, view =, pool =, since_ms =, seats = open ones }; by number

local function fail(fn, format, ...)
  error(core.where(fn) .. format:format(...), 0)
end

local function clean(props)
  local out = {}
  for k, v in pairs(props) do
    if v ~= core.null then out[k] = v end
  end
  return out
end

local function pool_of(app, props)
  local key = #app .. ":" .. app .. (policy.shard and tostring(props[policy.shard]) or "") -- both may hold any byte
  local pool = by_key[key]
  if not pool then
    pool = { key = key, app = app, number = queue:pool() }
    by_key[key], pools[#pools + 1] = pool, pool
  end
  return pool
end

-- Pools where nobody waits any more, so that shards may come and go.
local function sweep()
  for i = #pools, 1, -1 do
    local pool = pools[i]
    local wanted = false
    for _, match in ipairs(open) do wanted = wanted or match.pool == pool end
    if not wanted and queue:release(pool.number) then
      by_key[pool.key] = nil
      table.remove(pools, i)
    end
  end
end

-- What policies may call, beside bodkin.policy.
local function lend()
  local bodkin = require "bodkin"
  for name, fn in pairs(core.helpers) do bodkin[name] = fn end
  -- The tickets in whose index `ticket` stands: at most `max` (10) of those within `within` of it, the nearest first.
  function bodkin.near(ticket, options)
    if not policy.index then error("near needs a policy with an index", 2) end
    options = options or {}
    local no, within, max = type(ticket) == "table" and ticket.id, options.within or math.huge, options.max or 10
    if math.type(no) ~= "integer" or not queue:view(no) then error("near: that ticket does not wait here", 2) end
    if type(within) ~= "number" or math.type(max) ~= "integer" then error("near: within and max are numbers", 2) end
    return queue:nearest(no, within, max)
  end
end

-- Requires the policy; tells what its host has to know of it.
function M.start()
  lend()
  policy = require "policy"
  if not policies.is(policy) then
    local kind = type(policy) == "table" and policy.kind or type(policy)
    return { kind = policy == true and "nothing" or tostring(kind) } -- true: what require makes of no value
  end
  queue = core.tickets {
    indexed = policy.index ~= nil, min = policy.size[1], max = policy.size[2], party = policy.party,
    teams = policy.teams, compatible = policy.compatible, form = policy.form,
  }
  local hooks = {}
  for _, name in ipairs(policies.HOOKS) do hooks[name] = policy[name] ~= nil end
  return {
    kind = "policy", size = policy.size, teams = policy.teams, window_ms = policy.window_ms,
    on_register = policy.on_register ~= nil, on_search = policy.on_search ~= nil, party = policy.party,
    gated = policy.admit ~= nil or policy.claims ~= nil, -- it says who may wait
    accept_ms = policy.accept_ms, expire_ms = policy.expire_ms, backfill = policy.on_backfill ~= nil, hooks = hooks,
  }
end

-- What is declared of props or claims, one a result.
function M.declared(what)
  local out = {}
  for name, spec in pairs(policy[what] or {}) do out[#out + 1] = { name = name, spec = spec } end
  return table.unpack(out)
end

-- true, or false and why, of what `fn` (of this name) says to a ticket or client.
local function allowed(fn, name, view, otherwise)
  if not fn then return true end
  local ok, why = fn(view)
  if ok then return true end
  if why ~= nil and type(why) ~= "string" then fail(fn, "%s returned false and a %s", name, type(why)) end
  return false, why or otherwise
end

-- May a client { id, app, name } be registered?
function M.register(who, props, claims)
  local client = { id = who[1], app = who[2], name = who[3], props = clean(props), claims = clean(claims) }
  return allowed(policy.on_register, "on_register", client, "the server does not admit you")
end

-- By what a ticket stands in the index.
local function value_of(view)
  local index = policy.index
  if not index then return 0 end
  if type(index) ~= "function" then return view.props[index] end
  local value = index(view)
  if type(value) ~= "number" or value ~= value then fail(index, "index returned a %s, not a number", type(value)) end
  return value
end

-- A running match that wants more.
local function backfill(match)
  if not policy.on_backfill then return false, "matches are not filled up here" end
  match.view.seats = match.seats
  match.value = value_of(match.view)
  running[match.no], open[#open + 1] = match, match
  return true
end

-- The claims of all who have none: one table, which stays near at hand in a pass.
local unclaimed = setmetatable({}, { __metatable = false, __newindex = function()
  error("a ticket without claims has none to be changed", 2)
end })

-- What a ticket of one does not have of its own.
local solo = { size = 1 }
local Ticket = { __metatable = false, __name = "ticket" }
function Ticket.__index(view, field)
  if field == "members" then return { { props = view.props, claims = view.claims } } end
  return solo[field]
end

-- The members of a ticket, of the props, claims and net of each; or nil and why they are not as declared.
local function members_of(...)
  local list, given = {}, table.pack(...)
  for i = 1, given.n, 3 do
    local props, why = policies.props(policy, clean(given[i]))
    if not props then return nil, why end
    local claims
    claims, why = policies.signed(policy, clean(given[i + 1]))
    if not claims then return nil, why end
    list[#list + 1] = { props = props, claims = claims }
  end
  return list
end

-- A ticket { no, app, since_ms, asked, now_ms, seats or false } and the props, claims and net of each of its members:
-- true, or false and why it may not wait here. `asked`: it was admitted before, perhaps by another version.
function M.add(t, ...)
  local no, app, since_ms, asked, now_ms, seats = table.unpack(t)
  if running[no] or queue:view(no) then return true end
  local members, why = members_of(...)
  if not members then return false, why end
  if #members > policy.party then
    return false, policy.party == 1 and "no parties here" or ("at most %d in a party here"):format(policy.party)
  end
  local claims = members[1].claims
  local view = { id = no, props = members[1].props, waited_ms = now_ms - since_ms,
    claims = next(claims) ~= nil and claims or unclaimed }
  if #members > 1 then view.size, view.members = #members, members end
  setmetatable(view, Ticket)
  local pool = pool_of(app, view.props)
  if seats then return backfill { no = no, view = view, pool = pool, since_ms = since_ms, seats = seats } end
  if not asked then
    local ok
    ok, why = allowed(policy.admit, "admit", view, "the queue does not admit you")
    if not ok then return false, why end
  end
  queue:add(pool.number, no, since_ms, value_of(view), #members, view)
  return true
end

function M.drop(no)
  if not running[no] then return queue:drop(no) end
  for i, match in ipairs(open) do
    if match.no == no then table.remove(open, i) end
  end
  running[no] = nil
end

-- What on_backfill chose for a running match: { teams of numbers }, as its seats are.
local function chosen_for(match, made)
  local fn, out, chosen = policy.on_backfill, {}, {}
  if type(made) ~= "table" or type(made.teams) ~= "table" or #made.teams > #match.seats then
    fail(fn, "on_backfill returned a %s, not { teams = { { ticket, … }, … } } as the seats are", type(made))
  end
  for i, free in ipairs(match.seats) do
    out[i] = {}
    for k, given in ipairs(made.teams[i] or out[i]) do
      local no = type(given) == "table" and given.id or given
      local ticket = math.type(no) == "integer" and queue:view(no)
      if not ticket then fail(fn, "on_backfill returned what is no waiting ticket") end
      if chosen[no] then fail(fn, "on_backfill returned ticket %d twice", no) end
      chosen[no], free, out[i][k] = true, free - ticket.size, no
    end
    if free < 0 then fail(fn, "on_backfill returned more than the %d seats of team %d", match.seats[i], i) end
  end
  return next(chosen) and out or nil
end

-- Those waiting first go where somebody plays already. As form's results, with the match's own number at the end.
local function fill_up(now_ms, out)
  for i = #open, 1, -1 do
    local match = open[i]
    match.view.waited_ms = now_ms - match.since_ms
    local near = queue:near(match.pool.number, match.view, match.value, now_ms)
    local made = policy.on_backfill(match.view, near, now_ms)
    local teams = made and chosen_for(match, made)
    if teams then
      for _, team in ipairs(teams) do
        for _, no in ipairs(team) do queue:drop(no) end
      end
      M.drop(match.no) -- its match says what is open after that
      out[#out + 1] = { teams, false, core.null, match.no }
    end
  end
end

-- One of policies.HOOKS, with what it is told: of on_match { teams =, host =, data = } of numbers, of the others a
-- number. A ticket that waits here is given as such.
function M.event(name, what)
  local fn = policy[name]
  if not fn then return true end
  local function ticket(no) return queue:view(no) or { id = no } end
  if type(what) ~= "table" then
    fn(ticket(what))
  else
    for _, team in ipairs(what.teams or {}) do
      for i, no in ipairs(team) do team[i] = ticket(no) end
    end
    fn(clean(what))
  end
  return true
end

-- Why a ticket waits: { waited_ms =, others =, elsewhere =, fit =, reasons = { { text, count }, … } }, the commonest
-- reason first; nil where there is none of this number.
function M.explain(no, now_ms)
  local view = queue:view(no, now_ms)
  if not view then return nil end
  local others, number = queue:others(no)
  local counts, reasons, app, own = {}, {}, nil, 0
  local out = { waited_ms = view.waited_ms, others = 0, elsewhere = 0, fit = 0, reasons = reasons }
  for _, pool in ipairs(pools) do
    if pool.number == number then app, own = pool.app, queue:count(number) end
  end
  for _, pool in ipairs(pools) do
    if pool.app == app then out.others = out.others + queue:count(pool.number) end
  end
  out.others, out.elsewhere = out.others - 1, out.others - own
  for _, other in ipairs(others) do
    local ok, why = true, nil
    if policy.compatible then ok, why = policy.compatible(view, other, now_ms) end
    if ok then
      out.fit = out.fit + 1
    else
      why = type(why) == "string" and #why <= 100 and why or "not compatible"
      if not counts[why] then
        counts[why] = { why, 0 }
        reasons[#reasons + 1] = counts[why]
      end
      counts[why][2] = counts[why][2] + 1
    end
  end
  table.sort(reasons, function(a, b) return a[2] > b[2] end)
  for n = #reasons, 9, -1 do reasons[n] = nil end
  return out
end

-- One pass: tells { teams of numbers, host or false, data } each; returns those of running matches, { teams, false,
-- nothing, the number of the match that they join }.
function M.tick(now_ms)
  local out, from = {}, turn
  fill_up(now_ms, out)
  turn = { pool = 1, no = 0 }
  for i = from.pool, #pools do
    local no = queue:pass(pools[i].number, i == from.pool and from.no or 0, now_ms)
    if no then
      turn = { pool = i, no = no }
      break
    end
  end
  local whole = turn.pool == 1 and turn.no == 0
  if whole then sweep() end
  return whole, table.unpack(out)
end

return M

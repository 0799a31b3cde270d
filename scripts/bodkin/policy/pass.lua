-- SPDX-License-Identifier: MIT
-- Runs inside the sandbox, around the policy: keeps the tickets it was told of, asks the policy's functions, and
-- says which matches they make. Whoever called checks all of it again; a policy can spoil nothing but its own run.
--
-- Oldest tickets first, each as the anchor: `near` are those it is compatible with, nearest by `index` (or oldest)
-- first, at most NEAR of the LOOK it is compared with. So a pass is linear in the number of tickets; one that would
-- take more than its budget stops in good time, and the next goes on from there.

local core = ... -- encode, null, where, left: what the sandbox lends to chunks of ours

local policies = require "bodkin.policy"

local LOOK, NEAR = 64, 32
local ENOUGH = 0.4 -- of the budget left: no further anchor in this pass

local M = {}

local policy
local pools, by_key = {}, {} -- { list = tickets as they came, sorted = by index, holes = taken or dropped ones }
local tickets = {}           -- by number
local turn = { pool = 1, no = 0 } -- where the next pass begins

local function fail(fn, format, ...)
  error(core.where(fn) .. format:format(...), 0)
end

-- What the policy may see. Its functions get these, never the entries.
local function seen(entry, now_ms)
  entry.view.waited_ms = now_ms - entry.since_ms
  return entry.view
end

local function clean(props)
  local out = {}
  for k, v in pairs(props) do
    if v ~= core.null then out[k] = v end
  end
  return out
end

-- Where a ticket of this index value and number stands, or would, in a sorted list.
local function place(sorted, value, no)
  local lo, hi = 1, #sorted + 1
  while lo < hi do
    local mid = (lo + hi) // 2
    local e = sorted[mid]
    if e.value < value or e.value == value and e.no < no then lo = mid + 1 else hi = mid end
  end
  return lo
end

local function insert(entry)
  local shard = policy.shard and tostring(entry.view.props[policy.shard]) or ""
  local key = entry.app .. "\0" .. shard
  local pool = by_key[key]
  if not pool then
    pool = { list = {}, sorted = policy.index and {} or nil, holes = false, round = 0 }
    by_key[key], pools[#pools + 1] = pool, pool
  end
  entry.pool = pool
  tickets[entry.no] = entry
  -- Mostly the newest has the highest number; after a failure they come again in any order.
  local at = #pool.list + 1
  while at > 1 and pool.list[at - 1].no > entry.no do at = at - 1 end
  table.insert(pool.list, at, entry)
  if pool.sorted then
    entry.value = entry.view.props[policy.index]
    table.insert(pool.sorted, place(pool.sorted, entry.value, entry.no), entry)
  end
end

local function gone(entry)
  entry.taken = true
  entry.pool.holes = true
  tickets[entry.no] = nil
end

local function without_holes(list)
  local n = 0
  for i = 1, #list do
    local e = list[i]
    if not e.taken then
      n = n + 1
      list[n] = e
    end
  end
  for i = n + 1, #list do list[i] = nil end
end

-- Requires the policy; tells what its host has to know of it.
function M.start()
  policy = require "policy"
  if not policies.is(policy) then
    local kind = type(policy) == "table" and policy.kind or type(policy)
    return { kind = policy == true and "nothing" or tostring(kind) } -- true: what require makes of no value
  end
  return {
    kind = "policy", size = policy.size, teams = policy.teams, window_ms = policy.window_ms,
    on_register = policy.on_register ~= nil,
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

-- A ticket { no, app, since_ms, props, asked, now_ms } and its claims: true, or false and why it may not wait here.
-- `asked`: it was admitted before, perhaps by another version.
function M.add(t, signed)
  local no, app, since_ms, given, asked, now_ms = t[1], t[2], t[3], t[4], t[5], t[6]
  if tickets[no] then return true end
  local props, why = policies.props(policy, clean(given))
  if not props then return false, why end
  local claims
  claims, why = policies.signed(policy, clean(signed))
  if not claims then return false, why end
  local entry = { no = no, app = app, since_ms = since_ms,
    view = { id = no, props = props, claims = claims, waited_ms = 0 } }
  if not asked then
    local ok
    ok, why = allowed(policy.admit, "admit", seen(entry, now_ms), "the queue does not admit you")
    if not ok then return false, why end
  end
  insert(entry)
  return true
end

function M.drop(no)
  local entry = tickets[no]
  if entry then gone(entry) end
end

local function fits(anchor, other, now_ms)
  return not policy.compatible or policy.compatible(anchor, seen(other, now_ms), now_ms)
end

-- Compares the anchor with another, once.
local function look(search, e)
  if e.taken or e.seen_by == search.serial then return end
  e.seen_by = search.serial
  search.looked = search.looked + 1
  if fits(search.view, e, search.now_ms) then search.near[#search.near + 1] = e.view end
end

-- Outwards from where the anchor stands in the index.
local function look_by_index(search, sorted, anchor)
  local value = anchor.value
  local at = place(sorted, value, anchor.no)
  local lo, hi = at - 1, at + 1
  while search.looked < LOOK and #search.near < NEAR do
    local a, b = sorted[lo], sorted[hi]
    if a and (not b or value - a.value <= b.value - value) then
      look(search, a)
      lo = lo - 1
    elseif b then
      look(search, b)
      hi = hi + 1
    else
      return
    end
  end
end

-- From place `at` of the list on, around its end: as many as may still be looked at, `most` at most.
local function look_by_age(search, list, at, most)
  local n, last = #list, math.min(LOOK, search.looked + most)
  for k = 0, math.min(n, 4 * LOOK) - 1 do
    if search.looked >= last or #search.near >= NEAR then return end
    look(search, list[(at + k - 1) % n + 1])
  end
end

-- Those compatible with the anchor. Where the first who are looked at do not fit, it is other ones in each pass: so
-- nobody is out of sight for ever behind a crowd that does not fit.
local serial = 0
local function find_near(pool, anchor, view, now_ms)
  serial = serial + 1
  local search = { serial = serial, view = view, now_ms = now_ms, near = {}, looked = 0 }
  anchor.seen_by = serial
  if pool.sorted then
    look_by_index(search, pool.sorted, anchor)
    if #search.near + 1 >= policy.size[1] then return search.near end
    search.looked = LOOK // 2
  else
    look_by_age(search, pool.list, pool.first, LOOK // 2)
  end
  look_by_age(search, pool.list, pool.first + pool.round * (LOOK // 2), LOOK // 2)
  return search.near
end

-- Without form: the anchor and the first that are compatible with all chosen before.
local function fill(anchor, near, now_ms)
  local chosen = { anchor }
  for _, other in ipairs(near) do
    if #chosen == policy.size[2] then break end
    local all = true
    for i = 2, #chosen do
      all = all and (not policy.compatible or policy.compatible(chosen[i], other, now_ms))
    end
    if all then chosen[#chosen + 1] = other end
  end
  if #chosen < policy.size[1] then return nil end
  local teams, n = {}, 0
  for i, size in ipairs(policy.teams or { #chosen }) do
    teams[i] = table.move(chosen, n + 1, n + size, 1, {})
    n = n + size
  end
  return { teams = teams }
end

-- The entry that form means by a ticket or its id.
local function entry_of(given)
  local no = type(given) == "table" and given.id or given
  local entry = math.type(no) == "integer" and tickets[no]
  return entry and not entry.taken and entry or nil
end

-- Numbers in place of tickets, everything checked that can be checked here.
local function told(made, form)
  if type(made) ~= "table" or type(made.teams) ~= "table" then
    fail(form, "form returned a %s, not { teams = { { ticket, … }, … } }", type(made))
  end
  local out, members, count = {}, {}, 0
  if #made.teams < 1 or #made.teams > policy.size[2] then fail(form, "form returned %d teams", #made.teams) end
  for i, team in ipairs(made.teams) do
    if type(team) ~= "table" then fail(form, "form returned a team that is a %s", type(team)) end
    if #team > policy.size[2] then fail(form, "form returned %d players; at most %d", #team, policy.size[2]) end
    out[i] = {}
    for k, given in ipairs(team) do
      local entry = entry_of(given)
      if not entry then fail(form, "form returned what is no waiting ticket (a %s)", type(given)) end
      if members[entry.no] then fail(form, "form returned ticket %d twice", entry.no) end
      members[entry.no], count, out[i][k] = true, count + 1, entry.no
    end
    if policy.teams and #team ~= policy.teams[i] then
      fail(form, "form returned a team of %d in place of %d", #team, policy.teams[i] or 0)
    end
  end
  if policy.teams and #made.teams ~= #policy.teams or count < policy.size[1] or count > policy.size[2] then
    fail(form, "form returned %d players; a match has %d to %d", count, policy.size[1], policy.size[2])
  end
  local host = made.host and entry_of(made.host)
  if made.host and not (host and members[host.no]) then fail(form, "form returned a host that is not in the match") end
  local data, why = core.encode(made.data)
  if not data or #data > policies.DATA_MAX then
    fail(form, "form returned data that is not told: %s", why or #data .. " bytes; at most " .. policies.DATA_MAX)
  end
  return { out, host and host.no or false, made.data }
end

local function try(pool, anchor, now_ms)
  local view = seen(anchor, now_ms)
  local near = find_near(pool, anchor, view, now_ms)
  if #near + 1 < policy.size[1] then return nil end
  local form = policy.form or fill
  local made = form(view, near, now_ms)
  if made == nil or made == false then return nil end
  local match = told(made, form)
  for _, team in ipairs(match[1]) do
    for _, no in ipairs(team) do gone(tickets[no]) end
  end
  return match
end

-- Tries the anchors of a pool from number `no` on; the number of the one that has to wait for the next pass, or nil.
local function pass(pool, no, now_ms, out)
  local list = pool.list
  pool.first, pool.round = 1, pool.round + 1
  for i = 1, #list do
    local anchor = list[i]
    while list[pool.first] and list[pool.first].taken do pool.first = pool.first + 1 end
    if anchor.no >= no and not anchor.taken then
      if core.left() < ENOUGH then return anchor.no end
      out[#out + 1] = try(pool, anchor, now_ms)
    end
  end
end

-- One pass: matches { teams of numbers, host or false, data }, as separate results.
function M.tick(now_ms)
  local out, from = {}, turn
  turn = { pool = 1, no = 0 }
  for i = from.pool, #pools do
    local pool = pools[i]
    local no = pass(pool, i == from.pool and from.no or 0, now_ms, out)
    if pool.holes then
      without_holes(pool.list)
      if pool.sorted then without_holes(pool.sorted) end
      pool.holes = false
    end
    if no then
      turn = { pool = i, no = no }
      break
    end
  end
  return table.unpack(out)
end

return M

-- SPDX-License-Identifier: MIT
-- Runs inside the sandbox, around the policy: keeps the tickets it was told of, asks the policy's functions, and
-- says which matches they make. Whoever called checks all of it again; a policy can spoil nothing but its own run.
--
-- Oldest tickets first, each as the anchor: `near` are those it is compatible with, nearest by `index` (or oldest)
-- first, at most NEAR of the LOOK it is compared with. So a pass is linear in the number of tickets.

local core = ... -- encode, null, where: what the sandbox lends to chunks of ours

local policies = require "bodkin.policy"

local LOOK, NEAR = 128, 64

local M = {}

local policy
local pools, by_key = {}, {} -- { list = tickets as they came, sorted = by index, holes = taken or dropped ones }
local tickets = {}           -- by number

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
    pool = { list = {}, sorted = policy.index and {} or nil, holes = false }
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
  return { kind = "policy", size = policy.size, teams = policy.teams, window_ms = policy.window_ms }
end

-- The declared properties, one a call.
function M.declared()
  local out = {}
  for name, spec in pairs(policy.props or {}) do out[#out + 1] = { name = name, spec = spec } end
  return table.unpack(out)
end

local function admitted(view)
  if not policy.admit then return true end
  local ok, why = policy.admit(view)
  if ok then return true end
  if why ~= nil and type(why) ~= "string" then fail(policy.admit, "admit returned false and a %s", type(why)) end
  return false, why or "the queue does not admit you"
end

-- A ticket { no, app, since_ms, props, asked, now_ms }: true, or false and why it may not wait here. `asked`: it was
-- admitted before, perhaps by another version.
function M.add(t)
  local no, app, since_ms, given, asked, now_ms = t[1], t[2], t[3], t[4], t[5], t[6]
  if tickets[no] then return true end
  local props, why = policies.props(policy, clean(given))
  if not props then return false, why end
  local entry = { no = no, app = app, since_ms = since_ms, view = { id = no, props = props, waited_ms = 0 } }
  if not asked then
    local ok
    ok, why = admitted(seen(entry, now_ms))
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

-- Those compatible with the anchor, outwards from where it stands in the index.
local function near_by_index(pool, anchor, view, now_ms, near)
  local sorted, value = pool.sorted, anchor.value
  local at = place(sorted, value, anchor.no)
  local lo, hi, looked = at - 1, at + 1, 0
  while looked < LOOK and #near < NEAR do
    local a, b = sorted[lo], sorted[hi]
    local e
    if a and (not b or value - a.value <= b.value - value) then
      e, lo = a, lo - 1
    elseif b then
      e, hi = b, hi + 1
    else
      return
    end
    if not e.taken then
      looked = looked + 1
      if fits(view, e, now_ms) then near[#near + 1] = e.view end
    end
  end
end

local function near_by_age(pool, anchor, view, now_ms, near)
  local list, looked = pool.list, 0
  for i = pool.first, #list do
    if looked >= LOOK or #near >= NEAR then return end
    local e = list[i]
    if not e.taken and e ~= anchor then
      looked = looked + 1
      if fits(view, e, now_ms) then near[#near + 1] = e.view end
    end
  end
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
  local near, view = {}, seen(anchor, now_ms)
  local find = pool.sorted and near_by_index or near_by_age
  find(pool, anchor, view, now_ms, near)
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

-- One pass over all that wait: an array of matches { teams of numbers, host or false, data }, as separate results.
function M.tick(now_ms)
  local out = {}
  for _, pool in ipairs(pools) do
    local list = pool.list
    pool.first = 1
    for i = 1, #list do
      local anchor = list[i]
      while list[pool.first] and list[pool.first].taken do pool.first = pool.first + 1 end
      if not anchor.taken then out[#out + 1] = try(pool, anchor, now_ms) end
    end
    if pool.holes then
      without_holes(list)
      if pool.sorted then without_holes(pool.sorted) end
      pool.holes = false
    end
  end
  return table.unpack(out)
end

return M

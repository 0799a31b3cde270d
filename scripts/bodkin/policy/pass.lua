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

local open = {} -- running matches with seats to fill

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

local function pool_of(entry)
  local shard = policy.shard and tostring(entry.view.props[policy.shard]) or ""
  local key = entry.app .. "\0" .. shard
  local pool = by_key[key]
  if not pool then
    pool = { app = entry.app, list = {}, sorted = policy.index and {} or nil, holes = false, round = 0, first = 1 }
    by_key[key], pools[#pools + 1] = pool, pool
  end
  return pool
end

local function insert(entry)
  local pool = pool_of(entry)
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
  local hooks = {}
  for _, name in ipairs(policies.HOOKS) do hooks[name] = policy[name] ~= nil end
  return {
    kind = "policy", size = policy.size, teams = policy.teams, window_ms = policy.window_ms,
    on_register = policy.on_register ~= nil, party = policy.party, accept_ms = policy.accept_ms,
    expire_ms = policy.expire_ms, backfill = policy.on_backfill ~= nil, hooks = hooks,
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

-- A running match that wants more.
local function backfill(entry, seats)
  if not policy.on_backfill then return false, "matches are not filled up here" end
  entry.seats, entry.view.seats, entry.pool = seats, seats, pool_of(entry)
  tickets[entry.no], open[#open + 1] = entry, entry
  return true
end

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
  if tickets[no] then return true end
  local members, why = members_of(...)
  if not members then return false, why end
  if #members > policy.party then
    return false, policy.party == 1 and "no parties here" or ("at most %d in a party here"):format(policy.party)
  end
  local view = { id = no, props = members[1].props, claims = members[1].claims, waited_ms = 0 }
  if #members > 1 then view.size, view.members = #members, members end
  local entry = { no = no, app = app, since_ms = since_ms, size = #members, view = setmetatable(view, Ticket) }
  if seats then return backfill(entry, seats) end
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
  if not entry then return end
  if not entry.seats then return gone(entry) end
  tickets[no] = nil
  for i, other in ipairs(open) do
    if other == entry then return table.remove(open, i) end
  end
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
    if #search.near + 1 >= policy.size[1] and policy.party == 1 then return search.near end
    search.looked = LOOK // 2
  else
    look_by_age(search, pool.list, pool.first, LOOK // 2)
  end
  look_by_age(search, pool.list, pool.first + pool.round * (LOOK // 2), LOOK // 2)
  return search.near
end

-- Whom a ticket would be compared with first.
local function find_others(entry)
  local pool, out = entry.pool, {}
  local list, at = pool.list, 1
  if pool.sorted then
    list = pool.sorted
    at = math.max(1, place(list, entry.value, entry.no) - LOOK // 2)
  end
  for i = at, math.min(#list, at + LOOK) do
    if list[i] ~= entry and not list[i].taken then out[#out + 1] = list[i] end
  end
  return out
end

-- Whether a ticket goes with each of a list but the first, which it was compared with.
local function with_all(list, other, now_ms)
  for i = 2, #list do
    if policy.compatible and not policy.compatible(list[i], other, now_ms) then return false end
  end
  return true
end

-- Without form: the anchor and the first that are compatible with all chosen before, parties whole.
local function fill(anchor, near, now_ms)
  local sizes = policy.teams or { policy.size[2] }
  local chosen, teams, room, count = { anchor }, {}, {}, 0
  local function seat(ticket)
    for i, free in ipairs(room) do
      if free >= ticket.size then
        teams[i][#teams[i] + 1] = ticket
        room[i], count = free - ticket.size, count + ticket.size
        return true
      end
    end
  end
  for i, size in ipairs(sizes) do teams[i], room[i] = {}, size end
  if not seat(anchor) then return nil end
  for _, other in ipairs(near) do
    if count == policy.size[2] then break end
    if with_all(chosen, other, now_ms) and seat(other) then chosen[#chosen + 1] = other end
  end
  if count < policy.size[1] or policy.teams and count < policy.size[2] then return nil end
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
    local players = 0
    for k, given in ipairs(team) do
      local entry = entry_of(given)
      if not entry then fail(form, "form returned what is no waiting ticket (a %s)", type(given)) end
      if members[entry.no] then fail(form, "form returned ticket %d twice", entry.no) end
      members[entry.no], players, out[i][k] = true, players + entry.size, entry.no
    end
    count = count + players
    if policy.teams and players ~= policy.teams[i] then
      fail(form, "form returned a team of %d in place of %d", players, policy.teams[i] or 0)
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
  if policy.party == 1 and #near + 1 < policy.size[1] then return nil end
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

-- What on_backfill chose for a running match: { teams of numbers }, as its seats are.
local function chosen_for(entry, made)
  local fn, out, chosen = policy.on_backfill, {}, {}
  if type(made) ~= "table" or type(made.teams) ~= "table" or #made.teams > #entry.seats then
    fail(fn, "on_backfill returned a %s, not { teams = { { ticket, … }, … } } as the seats are", type(made))
  end
  for i, free in ipairs(entry.seats) do
    out[i] = {}
    for k, given in ipairs(made.teams[i] or out[i]) do
      local other = entry_of(given)
      if not other or other.seats then fail(fn, "on_backfill returned what is no waiting ticket") end
      if chosen[other.no] then fail(fn, "on_backfill returned ticket %d twice", other.no) end
      chosen[other.no], free, out[i][k] = true, free - other.size, other.no
    end
    if free < 0 then fail(fn, "on_backfill returned more than the %d seats of team %d", entry.seats[i], i) end
  end
  return next(chosen) and out or nil
end

-- Those waiting first go where somebody plays already. As form's results, with the match's own number at the end.
local function fill_up(now_ms, out)
  for i = #open, 1, -1 do
    local entry = open[i]
    local view = seen(entry, now_ms)
    entry.value = policy.index and view.props[policy.index]
    local made = policy.on_backfill(view, find_near(entry.pool, entry, view, now_ms), now_ms)
    local teams = made and chosen_for(entry, made)
    if teams then
      for _, team in ipairs(teams) do
        for _, no in ipairs(team) do gone(tickets[no]) end
      end
      tickets[entry.no] = nil
      table.remove(open, i) -- its match says what is open after that
      out[#out + 1] = { teams, false, core.null, entry.no }
    end
  end
end

-- One of policies.HOOKS, with what it is told: of on_match { teams =, host =, data = } of numbers, of the others a
-- number. A ticket that waits here is given as such.
function M.event(name, what)
  local fn = policy[name]
  if not fn then return true end
  local function ticket(no) return tickets[no] and tickets[no].view or { id = no } end
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
  local entry = tickets[no]
  if not entry or entry.seats then return nil end
  local view, counts, reasons = seen(entry, now_ms), {}, {}
  local out = { waited_ms = view.waited_ms, others = 0, elsewhere = 0, fit = 0, reasons = reasons }
  for _, pool in ipairs(pools) do
    if pool.app == entry.app then
      for _, e in ipairs(pool.list) do
        if e ~= entry and not e.taken then
          out.others = out.others + 1
          if pool ~= entry.pool then out.elsewhere = out.elsewhere + 1 end
        end
      end
    end
  end
  for _, e in ipairs(find_others(entry)) do
    local ok, why = fits(view, e, now_ms)
    if ok then
      out.fit = out.fit + 1
    else
      why = type(why) == "string" and why or "not compatible"
      if not counts[why] then
        counts[why] = { why, 0 }
        reasons[#reasons + 1] = counts[why]
      end
      counts[why][2] = counts[why][2] + 1
    end
  end
  table.sort(reasons, function(a, b) return a[2] > b[2] end)
  for i = #reasons, 9, -1 do reasons[i] = nil end
  return out
end

-- One pass: matches { teams of numbers, host or false, data, the number of the match that they join or nothing }, as
-- separate results.
function M.tick(now_ms)
  local out, from = {}, turn
  fill_up(now_ms, out)
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

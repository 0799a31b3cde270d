-- SPDX-License-Identifier: MIT
-- The matching server (S2): the registry of clients with their addresses, answered in pages and by query.
-- What puts clients together is in selection.lua.

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local admission = require "bodkin.servers.admission"
local associations = require "bodkin.servers.associations"
local limits = require "bodkin.servers.limits"
local network = require "bodkin.servers.network"
local page = require "bodkin.servers.page"
local people = require "bodkin.servers.people"
local policies = require "bodkin.servers.policies"
local queues = require "bodkin.servers.queues"
local questions_of = require "bodkin.servers.questions"
local registrar = require "bodkin.servers.registrar"
local selection = require "bodkin.servers.selection"
local watches = require "bodkin.servers.watches"
local role = require("bodkin.servers.role").role

local LIFETIME_S = 60
local NIL, NONE = "\xc0", "\x80" -- and an empty map

-- gone(id, its entry where that is known yet) is called when a registration ends.
local function registration(server, on, gone)
  local counters, registry, env = server.counters, server.registry, server.env
  local timer

  -- One timer for the whole table, set to its next expiry.
  local function arm()
    if timer then timer:cancel() end
    timer = nil
    local due_us = registry:deadline()
    if not due_us then return end
    timer = env.timer(math.max(1, (due_us - env.now() + 999) // 1000), function()
      timer = nil
      local id = registry:expire(env.now())
      while id do
        counters:add("registration_expired")
        gone(id)
        id = registry:expire(env.now())
      end
      arm()
    end)
  end
  server:at_close(function() if timer then timer:cancel() end end)

  local function refuse(reply, tx, code, text)
    counters:add("registration_refused")
    server:refuse(reply, tx, code, text)
  end

  -- Enters a request into the table. true, or nil, code, text.
  local function enter(r)
    local before = registry:get(r.id)
    local ok, _, code = registry:put {
      id = r.id, key = r.key, expires_us = env.now() + LIFETIME_S * 1000000, app = r.app, name = r.name,
      props = r.props, addrs = r.addrs,
    }
    if not ok then return nil, code, code == "limit" and "the registry is full" or "not a valid entry" end
    if not timer then arm() end
    server.watches:changed(before, r)
    server.admission:keep(r.id, r.claims)
    server.network:seen(people.registered(registry, r.id))
    counters:add("registered")
    return true
  end

  local function registered(r) return r.tx, core.addr.mask(r.from, r.tx), LIFETIME_S, server.boot end

  -- What the policy said of a request, perhaps a while after it came. answer(name, …) tells the client.
  local function decided(answer, r, ok, code, text)
    if ok then ok, code, text = enter(r) end
    if ok then return answer("registered", registered(r)) end
    counters:add("registration_refused")
    answer("refused", r.tx, math.abs(core.errors[code].value), text)
  end

  -- Answers at once where it can, before what came together with the request.
  local function decide(reply, r)
    local is_later = false
    server.registrar:decide(r, function(newest, ...)
      local function push(...) return server:push(newest.assoc, ...) end
      decided(is_later and push or reply, newest, ...)
    end)
    is_later = true
  end

  function on.register(reply, from, tx, ephemeral, pubs, locals, app, name, props, token, rtt_ms, nat)
    local id, key, assoc = reply:who()
    local claims, why, text = server.admission:check(id, app, name, props, token)
    if not claims then return refuse(reply, tx, why, text) end
    local own, near = addresses.collect(server, from, pubs, locals)
    local r = {
      id = id, key = key, assoc = assoc, tx = tx, from = from, app = app, name = name, props = people.map(props),
      claims = claims, addrs = addresses.pack(assoc, ephemeral, rtt_ms, nat, own, near),
    }
    if not server.registrar:settled(r) then return decide(reply, r) end
    local ok, code
    ok, code, text = enter(r)
    if not ok then return refuse(reply, tx, code, text) end
    reply("registered", registered(r))
  end

  function on.unregister(reply, _, tx)
    local id, _, assoc = reply:who()
    server.assocs:left(assoc)
    server.registrar:forget(id)
    local entry = registry:get(id)
    if registry:remove(id) then
      gone(id, entry)
      counters:add("unregistered")
    end
    reply("done", tx)
  end
end

local function questions(server, on, asked_of)
  local counters, registry = server.counters, server.registry
  local pending = {}  -- requests of which the policy has not said anything yet …
  local watching = {} -- … and the last of them to watch, by who and which

  local function visible_locals(locals, pubs, from)
    return addresses.visible(server.local_rule, locals, pubs, { from })
  end

  -- A query and how many comparisons it is, nil where it is none: that is refused.
  local function checked(reply, tx, query)
    if query == NIL then query = NONE end
    local terms, wrong, where = core.query(query)
    if terms then return query, terms end
    server:refuse(reply, tx, "invalid", policies.reason(("query%s: %s"):format(where, wrong), wrong))
  end

  local function fill(from, app, query, terms, cursor, want_addr)
    local with = want_addr and server.expose_addresses
    -- Who asks more of each entry has fewer of them looked at for a page.
    local budget = math.max(1, server.limits.page_budget // limits.weight(terms))
    counters:add("listed")
    return page.fill(registry, cursor, app, query ~= NONE and query or nil, budget, function(e)
      if not with then return page.entry(e) end
      local _, _, pubs, locals = addresses.unpack(e.addrs)
      return page.entry(e, addresses.told(pubs), visible_locals(locals, pubs, from))
    end)
  end

  -- Asks the policy first; the answer may come later, and a repeat of the request is not answered meanwhile.
  -- found(answer, query, terms), with what it lets this client look for in place of what was given; or refused(), where
  -- it lets it look for nothing.
  -- False where it cannot be asked now.
  local function search(reply, tx, app, given, found, refused)
    local id, _, assoc = reply:who()
    local key, is_later = id .. tx, false
    if pending[key] then return true end
    pending[key] = true
    local function answer(...)
      if is_later then server:push(assoc, ...) else reply(...) end
    end
    local known = registry:get(id) or { app = app, name = "", props = NONE }
    local client = { id = core.crypto.hex(id), app = known.app, name = known.name, props = known.props,
      claims = server.admission:of(id), query = given }
    local put = asked_of:allow(client, function(ok, said)
      pending[key] = nil
      local query = ok and (said or given)
      local terms = query and core.query(query)
      if ok and not terms then said = questions_of.UNDECIDED end -- what it gave is no query
      if terms then return found(answer, query, terms) end
      if refused and said ~= questions_of.UNDECIDED then refused() end
      answer("refused", tx, math.abs(core.errors.refused.value), said)
    end)
    is_later = true
    if put then return true end
    pending[key] = nil
    server:refuse(reply, tx, "limit", "too many ask at once: try again")
    return false
  end

  function on.list(reply, from, tx, app, given, cursor, want_addr)
    local query, terms = checked(reply, tx, given)
    if not query then return end
    local function found(answer, allowed, n)
      answer("page", tx, fill(from, app, allowed, n, cursor, want_addr))
    end
    if asked_of:searcher() then return search(reply, tx, app, query, found) end
    found(reply, query, terms)
  end

  function on.watch(reply, _, tx, watch, app, given, is_on)
    local id = reply:who()
    local query = checked(reply, tx, given)
    if not query then return end
    if not is_on then
      watching[id .. watch] = nil
      server.watches:clear(id, watch)
      return reply("done", tx)
    end
    if not registry:get(id) then
      if server.registrar:deciding(id) then return end
      return server:refuse(reply, tx, "refused", "not registered: register first")
    end
    local function found(answer, allowed)
      local is_set = server.watches:set(id, watch, app, allowed)
      if is_set then return answer("done", tx) end
      answer("refused", tx, math.abs(core.errors.limit.value), "too much is watched")
    end
    if not asked_of:searcher() then return found(reply, query) end
    local before = watching[id .. watch]
    watching[id .. watch] = tx
    -- Only for who is there yet, and asked for nothing else meanwhile.
    local function last()
      local is_last = watching[id .. watch] == tx
      if is_last then watching[id .. watch] = nil end
      return is_last and registry:get(id) ~= nil
    end
    local is_asked = search(reply, tx, app, query, function(answer, allowed)
      if last() then return found(answer, allowed) end
      answer("done", tx)
    end, function()
      if last() then server.watches:clear(id, watch) end
    end)
    if not is_asked then watching[id .. watch] = before end -- what it watches already, it was let
  end

  function on.lookup(reply, from, tx, id)
    if not server.expose_addresses then return server:refuse(reply, tx, "refused", "this server shows no addresses") end
    local person = people.registered(registry, id)
    if not person then return server:refuse(reply, tx, "no_match", "nobody has this id") end
    counters:add("looked_up")
    reply("found", tx, id, addresses.told(person.pubs), visible_locals(person.locals, person.pubs, from))
  end
end

return role {
  name = "matching",
  wants = { maintain = {} },
  on = function(server)
    local on = {}
    associations.install(server, on)
    server.admission = admission.new(server)
    local waiting
    server.network = network.new(server, function(...) waiting.policies:network(...) end)
    local matches = selection.install(server, on)
    waiting = queues.install(server, on, matches)
    function matches.on_left(...) waiting:left(...) end
    server.registrar = registrar.new(server, waiting.policies)
    server.watches = watches.new(server, matches.notices)
    registration(server, on, function(id, entry)
      server.watches:gone(id, entry)
      waiting:gone(id)
      matches:gone(id)
      server.admission:gone(id)
    end)
    questions(server, on, waiting.policies)
    -- Clients keep their mapping to a matching server alive, too, wherever the maintenance server is.
    if not server.has_role.maintenance then
      function on.maintain() server.counters:add("maintained") end
    end
    server:at_status(function(info) info.registered = server.registry:count() end)
    return on
  end,
}

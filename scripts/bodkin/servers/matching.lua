-- SPDX-License-Identifier: MIT
-- The matching server (S2): the registry of clients with their addresses, answered in pages and by query.
-- What puts clients together is in selection.lua.

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local admission = require "bodkin.servers.admission"
local associations = require "bodkin.servers.associations"
local network = require "bodkin.servers.network"
local page = require "bodkin.servers.page"
local people = require "bodkin.servers.people"
local queues = require "bodkin.servers.queues"
local registrar = require "bodkin.servers.registrar"
local selection = require "bodkin.servers.selection"
local role = require("bodkin.servers.role").role

local LIFETIME_S = 60

-- gone(id) is called when a registration ends.
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
    local ok, _, code = registry:put {
      id = r.id, key = r.key, expires_us = env.now() + LIFETIME_S * 1000000, app = r.app, name = r.name,
      props = r.props, addrs = r.addrs,
    }
    if not ok then return nil, code, code == "limit" and "the registry is full" or "not a valid entry" end
    if not timer then arm() end
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

  function on.register(reply, from, tx, ephemeral, pubs, locals, app, name, props, token, rtt_ms)
    local id, key, assoc = reply:who()
    local claims, why, text = server.admission:check(id, app, name, props, token)
    if not claims then return refuse(reply, tx, why, text) end
    local own, near = addresses.collect(server, from, pubs, locals)
    local r = {
      id = id, key = key, assoc = assoc, tx = tx, from = from, app = app, name = name, props = people.map(props),
      claims = claims, addrs = addresses.pack(assoc, ephemeral, rtt_ms, own, near),
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
    if registry:remove(id) then
      gone(id)
      counters:add("unregistered")
    end
    reply("done", tx)
  end
end

local function questions(server, on)
  local counters, registry = server.counters, server.registry

  local function visible_locals(locals, pubs, from)
    return addresses.visible(server.local_rule, locals, pubs, { from })
  end

  function on.list(reply, from, tx, app, query, cursor, want_addr)
    local map = people.map(query)
    if not map then return server:refuse(reply, tx, "invalid", "query must be a map") end
    local with = want_addr and server.expose_addresses
    local entries, next_cursor = page.fill(registry, cursor, app, map ~= "\x80" and map or nil,
      server.limits.page_budget, function(e)
        if not with then return page.entry(e) end
        local _, _, pubs, locals = addresses.unpack(e.addrs)
        return page.entry(e, addresses.told(pubs), visible_locals(locals, pubs, from))
      end)
    counters:add("listed")
    reply("page", tx, entries, next_cursor)
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
    registration(server, on, function(id)
      waiting:gone(id)
      matches:gone(id)
      server.admission:gone(id)
    end)
    questions(server, on)
    -- Clients keep their mapping to a matching server alive, too, wherever the maintenance server is.
    if not server.has_role.maintenance then
      function on.maintain() server.counters:add("maintained") end
    end
    server:at_status(function(info) info.registered = server.registry:count() end)
    return on
  end,
}

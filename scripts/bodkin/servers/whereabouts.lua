-- SPDX-License-Identifier: MIT
-- In the middle of a match, a client that hears nothing says where it is: its peer is told, and it hears where that
-- one is, and gets a fresh ticket for the relays of the pair, whose old one may be about to end. Only between the two
-- of a pair that was made here and of which neither has said that it is over.

local addresses = require "bodkin.servers.addresses"
local people = require "bodkin.servers.people"

local M = {}

-- A client that repeats its question has its peer told no more often: what is told counts for as long as that.
local PUSH_US = 400000

-- Adds its handler to `on`. history: see history.lua.
function M.install(server, on, history)
  local env, registry = server.env, server.registry

  -- Where a client is from now on, in the registry and in the history of its match.
  local function amend(holder, assoc, own, near)
    local _, ephemeral, _, _, rtt_ms, nat = addresses.unpack(holder.addrs)
    if server:over_tcp() then nat = nil end -- it was of datagrams
    holder.addrs = addresses.pack(assoc, ephemeral, rtt_ms, nat, own, near)
    return holder
  end

  function on.where(reply, from, tx, match, peer, pubs, locals)
    local id, _, assoc = reply:who()
    local me, other, name, role = history:pair(match, id, peer)
    if not me then return server:refuse(reply, tx, "no_match", "no such match is going on") end
    local own, near = addresses.collect(server, from, pubs, locals)
    local entry = registry:get(id)
    if entry then registry:put(amend(entry, assoc, own, near)) end -- these are fresher than the registration's
    amend(me, assoc, own, near)
    local there = people.registered(registry, peer)
    if not there then
      there = {}
      there.assoc, _, there.pubs, there.locals = addresses.unpack(other.addrs)
    end
    local rule, now = server.local_rule, env.now()
    me.told_us = me.told_us or {} -- by peer: in a room, who moves asks after all of them at once
    if now >= (me.told_us[peer] or -PUSH_US) + PUSH_US then
      me.told_us[peer] = now
      server:push(there.assoc, "whereabouts", env.random(12), match, id, addresses.told(own),
        addresses.visible(rule, near, own, there.pubs))
      server.counters:add "whereabouts_told"
    end
    reply("whereabouts", tx, match, peer, addresses.told(there.pubs),
      addresses.visible(rule, there.locals, there.pubs, own), name and server.tickets:one(name, role))
  end
end

return M

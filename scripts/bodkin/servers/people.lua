-- SPDX-License-Identifier: MIT
-- A person is what a match needs to know of a client: { id, key, ephemeral, assoc, app, name, props, pubs, locals,
-- rtt_ms or nil }, from its registration, or for a selector that is not registered from its selection. pubs[1] is where
-- it is heard from, with port 0 where that is over TCP.

local addresses = require "bodkin.servers.addresses"

local M = {}

-- The person behind a registration; nil when there is none.
function M.registered(registry, id)
  local entry = registry:get(id)
  if not entry then return nil end
  local assoc, ephemeral, pubs, locals, rtt_ms = addresses.unpack(entry.addrs)
  return {
    id = id, key = entry.key, ephemeral = ephemeral, assoc = assoc, app = entry.app, name = entry.name,
    props = entry.props, pubs = pubs, locals = locals, rtt_ms = rtt_ms,
  }
end

-- A copy of a person with the addresses that are known now: those of its registration, where it has one, and over them
-- `more`'s.
function M.now(registry, person, more)
  local copy, known = {}, M.registered(registry, person.id)
  for field, value in pairs(person) do copy[field] = value end
  for _, source in ipairs { known or {}, more or {} } do
    for _, field in ipairs { "assoc", "pubs", "locals", "rtt_ms" } do copy[field] = source[field] or copy[field] end
  end
  return copy
end

-- msgpack: an empty map stands for absent properties; nil when it is no map. The router has checked the rest.
function M.map(encoded)
  local head = encoded:byte()
  if head == 0xc0 then return "\x80" end
  if head & 0xf0 == 0x80 or head == 0xde or head == 0xdf then return encoded end
  return nil
end

-- Why these cannot be taken for a person's texts and properties, or nil.
function M.wrong(app, name, props)
  if not utf8.len(app) then return "app is not UTF-8" end
  if not utf8.len(name) then return "name is not UTF-8" end
  if not M.map(props) then return "props must be a map" end
  return nil
end

return M

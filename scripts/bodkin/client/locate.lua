-- SPDX-License-Identifier: MIT
-- Where a node's servers are and which sockets reach them: names to addresses by family, and the choice.

local core = require "bodkin.core"
local task = require "bodkin.task"
local url = require "bodkin.url"

local addr = core.addr
local M = {}

-- In a task: { [4] = addr, [6] = addr, stun = whether it speaks that alone }, the first of each family, or nil,
-- message, code.
local function resolve(env, text, parse)
  local where, err, code = (parse or url.parse)(text)
  if not where then return nil, err, code end
  local addrs, why = task.await(function(resume) env.resolve(where.host, where.port, resume) end)
  if not addrs or #addrs == 0 then
    return nil, ("no address found for %s: %s; is the name right?"):format(where.host, why or "it has none"), "invalid"
  end
  local out = { stun = where.stun }
  for _, a in ipairs(addrs) do
    local family = addr.family(a)
    out[family] = out[family] or a
  end
  return out
end

-- In a task: { matching =, address =, maintenance = or nil, loopback = } of options server, address_server
-- (default: server) and maintenance_server (default: none apart).
function M.servers(env, options)
  local out = {}
  local matching, err, code = resolve(env, options.server)
  if not matching then return nil, err, code end
  out.matching = matching
  out.address = out.matching
  if options.address_server then
    out.address, err, code = resolve(env, options.address_server, url.parse_address)
    if not out.address then return nil, err, code end
  end
  if options.maintenance_server then
    out.maintenance, err, code = resolve(env, options.maintenance_server)
    if not out.maintenance then return nil, err, code end
  end
  local some = out.matching[4] or out.matching[6]
  out.loopback = addr.class(some) == "loopback"
  return out
end

-- nil, message, code: none of a server's addresses is of a family that this host, or --bind, has.
function M.unreachable(server)
  local some = addr.format(server[4] or server[6])
  local why = server[4] and "is --bind of its family?" or "has this host IPv6, and is --bind of its family?"
  return nil, ("no socket of this host can reach %s: %s"):format(some, why), "invalid"
end

-- One of a server's addresses: of a family that has a socket and, where known, a public address; IPv4 first.
function M.choose(server, public, socks)
  for _, known in ipairs { public, socks } do
    for _, family in ipairs { 4, 6 } do
      if server[family] and socks[family] and known[family] then return server[family] end
    end
  end
  return M.unreachable(server)
end

local function has_ipv6(env, loopback)
  for _, i in ipairs(env.interfaces()) do
    local class = addr.class(i.addr)
    if i.up and addr.family(i.addr) == 6 and class ~= "link_local" and (loopback or class ~= "loopback") then
      return true
    end
  end
end

-- What to bind, by socket number: 1 is IPv4, 2 IPv6. `bind` "ADDR[:PORT]": that alone.
function M.binds(env, bind, loopback)
  if bind then
    local a = addr.parse(bind, 0)
    if not a then return nil, ("%q is no address to bind; give ADDR:PORT in numbers"):format(bind), "invalid" end
    return { [addr.family(a) == 4 and 1 or 2] = a }
  end
  return { [1] = addr.parse("0.0.0.0", 0), [2] = has_ipv6(env, loopback) and addr.parse("::", 0) or nil }
end

return M

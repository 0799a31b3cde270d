-- SPDX-License-Identifier: MIT
-- A fresh port for one match: where a session met silence, the NAT's mapping may have been spoilt by a test that came
-- before ours went out (the race in docs/NAT.md). Another socket has another mapping; its address is found and proven
-- like the first one's, and told to the server, which schedules both sides again.

local core = require "bodkin.core"
local task = require "bodkin.task"

local addr = core.addr
local M = {}

-- What comes later than the session's own end is of no use.
local timeout_ms = 3000
local NUMBER_FIRST, NUMBER_LAST = 3, 65533 -- of sockets; 1 and 2, and the last two, are the node's own

local function next_number(node)
  local taken = node.fresh_sockets
  repeat node.last_number = (node.last_number or NUMBER_LAST) < NUMBER_LAST and node.last_number + 1 or NUMBER_FIRST
  until not taken[node.last_number]
  return node.last_number
end

-- IPv4 is where NATs are.
local function family_of(node)
  for _, family in ipairs { 4, 6 } do
    if node.socks[family] and node.addresses.servers[family] then return family end
  end
end

local function open(node, family)
  local number = next_number(node)
  local sock, err, code = node.env.udp(addr.with_port(node.socks[family]:addr(), 0), { number = number })
  if not sock then return nil, err, code end
  sock:router(node.router)
  node.mux:attach(sock)
  node.fresh_sockets[number] = sock
  return sock, number
end

-- Lets go of a peer's sockets, once its session is over and nothing is asked through them.
local function release(node, peer)
  if peer.session or peer.renewing then return end
  for _, number in ipairs(peer.fresh_numbers or {}) do
    node.fresh_sockets[number]:close()
    node.fresh_sockets[number] = nil
  end
  peer.fresh_numbers, peer.fresh = nil, nil
end

M.release = release

-- In a task.
local function renew(node, match, peer, session)
  local family = family_of(node)
  local sock, number = open(node, family)
  if not sock then return end
  peer.fresh_numbers = peer.fresh_numbers or {}
  table.insert(peer.fresh_numbers, number)
  local addresses = node.addresses
  local ok, public, proof = node.requests:call(addresses:question(addresses.servers[family], timeout_ms, sock))
  if not ok or peer.session ~= session or node.closed then return end
  peer.fresh, peer.epoch = { [family] = number }, peer.epoch + 1
  node.sharing:renew(match.raw, core.crypto.unhex(peer.id), peer.epoch, { public .. (proof or "") })
end

-- Nothing was heard for a second.
function M.open(node, match, peer)
  if peer.renewing or node.carriage.over_tcp then return end
  local session = peer.session
  peer.renewing = true
  task.spawn(function()
    local _ <close> = setmetatable({}, { __close = function()
      peer.renewing = false
      release(node, peer)
    end })
    renew(node, match, peer, session)
  end)
end

-- The peer's candidates, to be tested from the fresh port where there is one.
function M.candidates(node, peer, m)
  local list = node.addresses:candidates(m.pubs, m.locals)
  for _, c in ipairs(list) do c[3] = peer.fresh and peer.fresh[addr.family(c[1])] or c[3] end
  return list
end

return M

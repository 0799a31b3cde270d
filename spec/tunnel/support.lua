-- SPDX-License-Identifier: MIT
-- Ends of tunnels, and the programs that use them, on hosts of a simulated world.

local addr = require("bodkin.core").addr
local tunnel = require "bodkin.tunnel"

local M = {}

M.GAME = addr.parse "127.0.0.1:8303"

-- A program on a host: a socket that keeps what comes, as { from =, bytes = }.
function M.program(host, port, ip)
  local self = { got = {} }
  self.sock = assert(host.env.udp(addr.parse(ip or "127.0.0.1", port or 0), { max_bytes = 2300 }))
  self.sock:on_packet(function(from, bytes) table.insert(self.got, { from = from, bytes = bytes }) end)
  function self.send(bytes, to) assert(self.sock:send(to or M.GAME, bytes)) end
  return self
end

-- A game's server: answers what comes, with `tag` before it; knows its players by address.
function M.game(host, tag, ip)
  local self = M.program(host, 8303, ip)
  self.players, self.count = {}, 0
  self.sock:on_packet(function(from, bytes)
    table.insert(self.got, { from = from, bytes = bytes })
    if not self.players[from] then self.players[from], self.count = true, self.count + 1 end
    self.send(tag .. bytes, from)
  end)
  return self
end

-- One end on a host of `s` (spec.client.support): side "at" or "to" of `address`. What it says is in said, peers that
-- do not fit are in misfits; frames counts those it sent, lose counts down those to be lost on purpose.
function M.open(s, host, side, address)
  local self = { said = {}, misfits = {}, lose = 0, frames = 0 }
  self.tunnel = assert(tunnel.open {
    env = host.env, [side] = address or M.GAME,
    send = function(peer, bytes)
      self.frames = self.frames + 1
      if self.lose > 0 then
        self.lose = self.lose - 1
        return true
      end
      return self.match:send(bytes, peer)
    end,
    say = function(...) table.insert(self.said, string.format(...)) end,
    misfit = function(peer, message, code) table.insert(self.misfits, { peer, message, code }) end,
  })
  self.node = s:open(host, { on_event = function(e, match)
    if e.event == "matched" then
      self.match = match
      match:on_data(function(peer, data) self.tunnel:input(peer, data) end)
    elseif e.event == "connected" or e.event == "closed" then
      self.tunnel[e.event](self.tunnel, e.peer)
    end
  end })
  function self.host() return s:run(function() return assert(self.node:host()).code end) end
  function self.join(code)
    s:run(function() assert(assert(self.node:join(code)):wait_connected(20000)) end)
  end
  return self
end

return M

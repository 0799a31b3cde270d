-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"

local here = "udp:ADDR:PORT, such as udp:127.0.0.1:8303"

-- The packed address of udp:ADDR:PORT.
local function endpoint(text, port_min)
  local addr = require("bodkin.core").addr
  local rest = text:match "^udp:(.*)$"
  local packed = rest and rest:find ":%d+$" and addr.parse(rest)
  if packed and addr.port(packed) >= port_min then return packed end
  return nil, here
end

local function at(text) return endpoint(text, 0) end

local function to(text)
  local packed = endpoint(text, 1)
  if packed and require("bodkin.core").addr.class(packed) ~= "none" then return packed end
  return nil, here
end

-- What talk needs of a tunnel, for each of these options one.
local function carrier(values, hosting)
  return function(talk)
    local addr, out = require("bodkin.core").addr, talk.out
    local tunnel, err, code = require("bodkin.tunnel").open {
      env = talk.env, at = values.at, to = values.to,
      send = function(peer, bytes) return talk.match:send(bytes, peer) end,
      say = function(...) out:say(...) end,
      misfit = function(_, message, why) talk:misfit(message, why) end,
    }
    if not tunnel then return nil, err, code end
    if hosting then
      local port = addr.port(values.at or values.to)
      out.join_with = ("tunnel %%s --%s udp:127.0.0.1:%d"):format(values.at and "to" or "at", port > 0 and port or 8303)
    end
    if values.at then out:event("listening", { role = "tunnel", addr = addr.format(tunnel:addr()) }) end
    local function input(peer, data) tunnel:input(peer, data) end
    return {
      matched = function(_, match) match:on_data(input) end,
      connected = function(_, peer) tunnel:connected(peer) end,
      message = function(_, peer, data) tunnel:input(peer, data) end,
      closed = function(_, peer) tunnel:closed(peer) end,
      useful = function(_, peer) return tunnel:useful(peer) end,
      close = function()
        tunnel:close()
        out:detail("%s", tunnel:summary())
      end,
    }
  end
end

local list = options.client("server", "address-server", "maintenance-server", "app", "name", "props", "identity",
  "token", "trust-first-use", "bind", "virtual", "timeout", "trace", "why")
table.insert(list, 1, { "at", arg = "udp:ADDR:PORT", kind = at, help = "listen here for programs of this machine" })
table.insert(list, 2, { "to", arg = "udp:ADDR:PORT", kind = to, help = "hand on to the program that is there" })

return {
  usage = "bodkin tunnel [CODE] --at udp:ADDR:PORT | --to udp:ADDR:PORT [--server URL] [options]",
  summary = "an existing UDP program, such as a game, through a sealed path",
  text = [[
Carries the datagrams of an unmodified UDP program. Where the game's server runs: bodkin tunnel --to udp:127.0.0.1:8303,
which opens a room and prints its code. Where a player is: bodkin tunnel CODE --at udp:127.0.0.1:8303, and the game is
told to connect to 127.0.0.1:8303. Either side may open the room; one has --to, the others have --at.

Each address that sends to --at has a socket of its own at the other end, so that the server there sees every player
apart; one that is silent for 120 s is forgotten. Up to 64 of these for each peer, datagrams of up to 2232 bytes. What
peers send goes to the address of --to alone, whatever they say. Without --app: tunnel/1.

A room stays open until it is left (Ctrl-C). Whoever joins leaves with 0 when the other side left. With --timeout it
ends after that long, with 0 if somebody was connected.]],
  options = list,
  arguments = 1,
  run = function(values, rest)
    if (values.at and values.to) or not (values.at or values.to) then
      return nil, "tunnel needs either --at (listen here for a program) or --to (a program that is there)", "usage"
    end
    values.app = values.app or "tunnel/1"
    local code = rest[1]
    return require("bodkin.cli.talk").run(values, function(node)
      if code then return node:join(code) end
      return node:host()
    end, not code, carrier(values, not code))
  end,
}

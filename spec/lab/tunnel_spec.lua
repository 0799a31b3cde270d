-- SPDX-License-Identifier: MIT
-- A real game's server, unmodified, behind one kernel NAT, and what a player's client says to it from behind another,
-- through bodkin tunnel. The names of server and map come back, and a part of the map in a datagram of 1,395 bytes.
-- What they say is the transcript in docs/TUNNEL.md, but for names and figures that differ each time.

local core = require "bodkin.core"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local SERVER, MAPS = "/usr/games/teeworlds-server", "/usr/share/games/teeworlds/data/maps/"
local GAME = "udp:127.0.0.1:8303"

-- What differs each time made the same: ids, codes, addresses on the way, times, and by which path the first one came:
-- both take as long.
local function plain(text)
  return (text:gsub("%f[%x]" .. ("%x"):rep(32) .. "%f[%X]", "ID"):gsub("%l%l%l%l%l%-%l%l%l%l%l%-%l%l%l%l%l", "CODE")
    :gsub("%(%l+ [%d.]+:%d+%)", "(VIA)"):gsub("over a relay %(VIA%)", "directly (VIA)"):gsub("[%d.]+ ms", "TIME")
    :gsub("part %x+", "part"):gsub("%l  ID is now reached [^\n]*\n", "")) -- a relay may have been there first
end

-- A command and what it said, each line after the name of its host.
local function told(host, command, text)
  return ("%s  $ %s\n%s"):format(host, command, text:gsub("[^\n]+\n", host .. "  %0"))
end

describe("bodkin tunnel", function()
  it("carries a Teeworlds server and its client across two NATs", function()
    assert(shell.read(SERVER), SERVER .. " is missing: make deps installs it")
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = 20 }
    support.serve(net)
    -- It asks for the name localhost, where the hosts file may not have it in IPv6; there is nobody to ask in the lab.
    local game = net.a:start { SERVER, "sv_name a game behind a NAT", "sv_map ctf2", "sv_register 0", "sv_port 8303",
      env = { HOME = net.dir, RES_OPTIONS = "timeout:1 attempts:1" } }
    assert(game:expect("server name is 'a game behind a NAT'", 5000))
    local hosting = support.client(net, "a", { "tunnel", "--to", GAME })
    local _, code = assert(hosting:expect_error("bodkin tunnel (%S+) %-%-at " .. GAME, 5000))
    local joining = support.client(net, "b", { "tunnel", code, "--at", GAME })
    assert(joining:expect_error("datagrams to " .. GAME .. " go to", 10000))
    local began_s = shell.uptime()
    local player = net.b:start { support.binary, "run", "spec/lab/teeworlds.lua", GAME:sub(5) }
    assert(player:wait(10000) == 0, player:stdout() .. player:stderr() .. joining:stderr() .. game:stdout())
    print(("# Teeworlds through a tunnel, 80 ms of round trip: asked, connected, a part of the map in %.1f s"):format(
      shell.uptime() - began_s))
    local lines = player:lines()
    assert.same({ "server a game behind a NAT", "map ctf2" }, { lines[1], lines[2] })
    local part = core.crypto.unhex(lines[3]:match "^part (%x+)$")
    assert.is_true(#part > 1300)
    assert.truthy(shell.read(MAPS .. "ctf2.map"):find(part, 1, true))
    -- The server knows the player by an address of the tunnel's.
    assert(game:expect("client dropped. cid=%d+ addr=127%.0%.0%.1:%d+ reason=''", 5000))
    hosting:kill "INT"
    assert.equal(130, hosting:wait(5000))
    assert.equal(0, joining:wait(5000))
    local transcript = told("a", 'teeworlds-server "sv_name a game behind a NAT" "sv_map ctf2" "sv_register 0"', "")
      .. told("a", "bodkin tunnel --to " .. GAME, hosting:stderr())
      .. told("b", ("bodkin tunnel %s --at %s"):format(code, GAME), joining:stderr())
      .. told("b", "bodkin run spec/lab/teeworlds.lua 127.0.0.1:8303", lines[1] .. "\n" .. lines[2] .. "\n"
        .. lines[3]:sub(1, 60) .. "...\n")
    local written = shell.read("docs/TUNNEL.md"):match "<!%-%- transcript %-%->\n```\n(.-)```"
    assert.equal(plain(transcript), plain(written), "docs/TUNNEL.md is to have\n" .. transcript)
  end)
end)

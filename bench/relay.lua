-- SPDX-License-Identifier: MIT
-- `make bench-relay`: CPU time a relayed datagram, throughput and loss, of Bodkin's relay and of coturn's channel data.
-- Both run at once and take turns under the same load, relay.c, on loopback. Prints the table of bench/README.md.
-- Needs BODKIN (the binary) and BENCH (the directory where relay was built); turnserver is coturn's. BEFORE names
-- another binary, to compare with. ROUNDS and DATAGRAMS (a round) make it shorter or longer.

local core = require "bodkin.core"
local keyfile = require "bodkin.keyfile"
local measure = require "bench.measure"
local shell = require "bodkin.lab.shell"
local tickets = require "bodkin.servers.tickets"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local DATAGRAMS = math.tointeger(tonumber(os.getenv "DATAGRAMS" or 100000))
local ROUNDS = tonumber(os.getenv "ROUNDS" or 7)
local TURN, RELAY = 24511, 24512 -- ports
local PAIRS = 8                  -- of relay.c
local RATE = 10000               -- datagrams a second, where all get the same
local SIZES = { 100, 1120 }

-- The servers, running, and what mints tickets for relay.c's pairs.
local function servers(place)
  local key, config = place.dir .. "/key", place.dir .. "/config.lua"
  local secret = assert(keyfile.make(key)).secrets[1]
  shell.write(config, "return require('bodkin').config { limits = { relay_rate = 1 << 30, relay_bytes = 1 << 31 } }\n")
  local list = {}
  local function bodkin_relay(name, binary, port)
    local command = ("%s serve --roles relay --listen 127.0.0.1:%d --key-file %s --config %s --admin %s/admin-%d")
      :format(binary, port, key, config, place.dir, port)
    local process = place:start(name, command, "listening", 0)
    list[#list + 1] = { name = name, kind = "bodkin", port = port, process = process }
  end
  local turn = place:start("coturn", ("turnserver -n -L 127.0.0.1 -E 127.0.0.1 -p %d --no-auth --no-tcp --no-tls "
    .. "--no-dtls --no-cli --allow-loopback-peers --no-rfc5780 --no-software-attribute "
    .. "--no-stun-backward-compatibility -m 1 --log-file %s/turn.log --pidfile %s/turn.pid"):format(TURN, place.dir,
    place.dir), nil, 0)
  list[1] = { name = "coturn, one end allocated", kind = "turn", port = TURN, process = turn }
  list[2] = { name = "coturn, both ends allocated", kind = "turn2", port = TURN, process = turn }
  bodkin_relay("bodkin", bodkin, RELAY)
  if os.getenv "BEFORE" then bodkin_relay("bodkin, before", os.getenv "BEFORE", RELAY + 1) end
  local minted = tickets.new { key = secret, time = os.time, lifetime_s = 21600 }
  return list, function() -- a new pair each time: each has its share of bytes
    local all = {}
    for _ = 1, PAIRS do
      local a, b = minted:make(core.crypto.random(16))
      all[#all + 1] = core.crypto.hex(a) .. " " .. core.crypto.hex(b)
    end
    return table.concat(all, " ")
  end
end

-- CPU µs for a datagram sent, datagrams a second that arrived, and the share that did not.
local function run(server, mint, size, datagrams, rate)
  local before_s = measure.cpu_s(server.process)
  local ok, text = shell.run(("%s%s/relay %s 127.0.0.1 %d %d %d %d %s"):format(measure.pin(1), bench, server.kind,
    server.port, size, datagrams, rate, server.kind == "bodkin" and mint() or ""))
  local came, lost, seconds = text:match "^(%d+) (%d+) ([%d.]+)"
  if not ok or not came then error(server.name .. ": " .. text, 0) end
  return (measure.cpu_s(server.process) - before_s) / (came + lost) * 1e6, came / seconds, lost / (came + lost)
end

local function row(list, cells, server, size, how)
  local function of(name, ratio)
    local mine, values = cells[server][name], {}
    for i, value in ipairs(mine) do values[i] = ratio and value / cells[ratio][name][i] or value end
    return measure.median(values)
  end
  print(("| %s | %d, %s | %.2f µs | %.2f | %.2f | %.0f | %.2f | %.2f %% |"):format(server.name, size, how, of "cost",
    of("cost", list[1]), of("cost", list[2]), of "speed", of("speed", list[1]), 100 * of "lost"))
end

return measure.run(function(place)
  local list, mint = servers(place)
  shell.sleep_ms(1500)
  print("| server | bytes, load | CPU a datagram | to coturn, one | to coturn, both | arrived a second "
    .. "| to coturn, one | lost |")
  print "|---|---|---|---|---|---|---|---|"
  for _, load in ipairs { { "flat out", 0, DATAGRAMS }, { ("%d a second"):format(RATE), RATE, DATAGRAMS // 4 } } do
    for _, size in ipairs(SIZES) do
      local cells = {}
      for _, server in ipairs(list) do
        cells[server] = { cost = {}, speed = {}, lost = {} }
        run(server, mint, size, load[3] // 10, load[2]) -- warm
      end
      for i = 1, ROUNDS do
        for _, server in ipairs(list) do
          local c = cells[server]
          c.cost[i], c.speed[i], c.lost[i] = run(server, mint, size, load[3], load[2])
        end
      end
      for _, server in ipairs(list) do row(list, cells, server, size, load[1]) end
    end
  end
  print(("\nMedians of %d rounds of %d datagrams (%d at the given rate); ratios are medians of the rounds' ratios.")
    :format(ROUNDS, DATAGRAMS, DATAGRAMS // 4))
end)

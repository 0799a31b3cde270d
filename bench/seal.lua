-- SPDX-License-Identifier: MIT
-- `make bench-seal`: what sealing costs. On the data path: path.c as it is and without AEAD, taking turns. At the
-- server: the CPU time of `bodkin serve` for a client's handshake with its registration inside, beside that of a plain
-- address report, and of a request in an association.
-- Needs BODKIN (the binary) and BENCH (the directory of path and path_plain). ROUNDS and HANDSHAKES make it shorter.

local core = require "bodkin.core"
local message = require "bodkin.message"
local shell = require "bodkin.lab.shell"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ROUNDS = tonumber(os.getenv "ROUNDS" or 7)
local HANDSHAKES = math.tointeger(tonumber(os.getenv "HANDSHAKES" or 4000))
local PORT, WINDOW = 24533, 32

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

local function data_path()
  local all = {} -- by program, by size: { cpu, trip }
  for _ = 1, ROUNDS do
    for _, program in ipairs { "path", "path_plain" } do
      local ok, text = shell.run(bench .. "/" .. program)
      if not ok then error(program .. " failed: " .. text, 0) end
      for size, cpu, trip in text:gmatch "(%d+) (%d+) (%d+)" do
        local key = program .. size
        all[key] = all[key] or { {}, {} }
        table.insert(all[key][1], tonumber(cpu))
        table.insert(all[key][2], tonumber(trip))
      end
    end
  end
  print "| bytes | CPU for a packet, sealed / plain | | round trip, sealed / plain | |"
  print "|---|---|---|---|---|"
  for _, size in ipairs { "100", "1120" } do
    local cells, ratios = {}, {}
    for i = 1, 2 do
      local sealed, plain, ratio = all["path" .. size][i], all["path_plain" .. size][i], {}
      for n = 1, ROUNDS do ratio[n] = sealed[n] / plain[n] end
      ratios[i] = median(ratio)
      cells[i] = ("%.2f / %.2f µs"):format(median(sealed) / 1000, median(plain) / 1000)
    end
    print(("| %s | %s | %.2f | %s | %.2f |"):format(size, cells[1], ratios[1], cells[2], ratios[2]))
  end
  print(("\nMedians of %d rounds; the ratios are medians of the rounds' ratios.\n"):format(ROUNDS))
end

local function cpu_s(pid)
  local stat = assert(shell.read(("/proc/%d/stat"):format(pid)), "the server has ended")
  local user, system = stat:match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)") -- see proc(5)
  return (tonumber(user) + tonumber(system)) / 100
end

-- Keeps WINDOW datagrams under way until all were answered once; a lost one is sent again. Returns how many were.
local function pour(loop, sock, to, list)
  local next_one, answered, under_way = 1, 0, 0
  local function more()
    while under_way < WINDOW and next_one <= #list do
      sock:send(to, list[next_one])
      next_one, under_way = next_one + 1, under_way + 1
    end
  end
  sock:on_packet(function()
    answered, under_way = answered + 1, math.max(under_way - 1, 0)
    more()
    if answered >= #list then loop:stop() end
  end)
  local quiet
  quiet = loop:timer(500, function()
    if answered < #list and next_one > #list then return loop:stop() end
    under_way = 0
    more()
    quiet:again(500)
  end)
  more()
  loop:run()
  quiet:cancel()
  return answered
end

local function server_costs(dir)
  local secret = ("k"):rep(32)
  local public = core.crypto.keypair(secret)
  shell.write(dir .. "/key", core.crypto.hex(secret) .. "\n")
  shell.run("chmod 600 " .. dir .. "/key")
  shell.write(dir .. "/config.lua", "local bodkin = require 'bodkin'\nreturn bodkin.config { limits = { handshakes = "
    .. "1000000, handshakes_each = 1000000, associations_each = 1000000 } }\n")
  local _, text = shell.run(("{ exec %s serve --config %s/config.lua --key-file %s/key --listen 127.0.0.1:%d --admin "
    .. "%s/admin >%s/out 2>&1 </dev/null; } & echo $!"):format(bodkin, dir, dir, PORT, dir, dir))
  local pid = math.tointeger(tonumber(text:match "%d+"))
  local ok, err = pcall(function()
    local loop = core.loop()
    local to, report = core.addr.parse("127.0.0.1:" .. PORT), nil
    local sock = assert(loop:udp(core.addr.parse "127.0.0.1:0", {}))
    local asked = loop:timer(300, function() sock:send(to, message.address_request:encode(("t"):rep(12))) end)
    sock:on_packet(function(_, bytes)
      report = bytes
      loop:stop()
    end)
    loop:run()
    asked:cancel()
    local _, _, proof = message.address_report:decode(report)
    local me = sock:addr()
    local opens, plain = {}, {}
    for i = 1, HANDSHAKES do
      local tx = core.crypto.random(12)
      local key, key_secret = core.crypto.keypair()
      local register = message.register:encode(tx, key, { me .. proof }, {}, "bench/1", "", "\x80", nil)
      local _, noise = core.assoc(key .. key_secret, core.crypto.random(32), public, 1 + i % 65535, register)
      opens[i], plain[i] = message.open:encode(tx, proof, noise), message.address_request:encode(tx)
    end
    local function cost(list)
      local before = cpu_s(pid)
      local n = pour(loop, sock, to, list)
      return (cpu_s(pid) - before) / n * 1e6, n
    end
    print "| at the server | CPU for one | a second a core |"
    print "|---|---|---|"
    local function row(what, us) print(("| %s | %.1f µs | %.0f |"):format(what, us, 1e6 / us)) end
    local many = {}
    for _ = 1, 10 do table.move(plain, 1, #plain, #many + 1, many) end
    row("address report, plain", (cost(many)))
    local us, n = cost(opens)
    row(("handshake with a registration inside (%d of %d answered)"):format(n, HANDSHAKES), us)
    -- One client's requests, in its association.
    local key, key_secret = core.crypto.keypair()
    local raw, noise = core.assoc(key .. key_secret, core.crypto.random(32), public, 1, "")
    sock:on_packet(function(_, bytes)
      report = bytes
      loop:stop()
    end)
    sock:send(to, message.open:encode(("o"):rep(12), proof, noise))
    loop:run()
    assert(raw:answered(select(2, message.opened:decode(report))))
    local frames = {}
    for i = 1, 10 * HANDSHAKES do
      frames[i] = raw:write(message.maintain:encode(core.crypto.random(12), ("i"):rep(16)))
    end
    row("maintenance in an association", (cost(frames)))
    sock:close()
  end)
  shell.run("kill " .. pid)
  if not ok then error(err, 0) end
end

local dir = select(2, shell.run "mktemp -d"):gsub("\n", "")
local ok, err = pcall(function()
  data_path()
  server_costs(dir)
end)
shell.run("rm -rf " .. dir)
if not ok then
  io.stderr:write("bench: ", tostring(err), "\n")
  return 1
end
return 0

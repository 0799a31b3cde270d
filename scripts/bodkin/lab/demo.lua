-- SPDX-License-Identifier: MIT
-- What `make demo` shows: a server and two clients, each on a host of its own, the clients behind real NATs.

local lab = require "bodkin.lab"
local shell = require "bodkin.lab.shell"

local watched = {}

-- Prints what came since the last time, each line after the host's name.
local function show()
  for _, w in ipairs(watched) do
    for _, stream in ipairs { "stderr", "stdout" } do
      local text = w.process[stream](w.process)
      local new = text:sub(w[stream] + 1):match "^.*\n" or ""
      w[stream] = w[stream] + #new
      for line in new:gmatch "([^\n]*)\n" do print(("%-7s %s"):format(w.name, line)) end
    end
  end
end

-- Words as one types them for a shell: one with a # is quoted.
local function typed(words)
  local out = {}
  for i, word in ipairs(words) do out[i] = word:find "#" and "'" .. word .. "'" or word end
  return table.concat(out, " ")
end

local function start(net, host, ...)
  -- The server's key goes with the lab, too.
  local words = { net.words[1], stdin = "pipe", env = { XDG_STATE_HOME = net.dir } }
  print(("%-7s $ bodkin %s"):format(host, typed { ... }))
  local p = net[host]:start(table.move({ ... }, 1, select("#", ...), 2, words))
  watched[#watched + 1] = { name = host, process = p, stdout = 0, stderr = 0 }
  return p
end

-- Waits until p said so, on either stream.
local function until_said(p, pattern)
  local found = shell.await(10000, function()
    show()
    return p:stdout():match(pattern) or p:stderr():match(pattern) or (p:code() and "")
  end)
  show()
  if not found or found == "" then error(("demo: '%s' did not come in 10 s"):format(pattern), 0) end
  return found
end

local function type_line(p, host, text)
  print(("%-7s > %s"):format(host, text))
  p:write(text .. "\n")
end

local function main()
  print "Bringing up two hosts, each behind a port-restricted NAT of the Linux kernel, 20 ms from the core ..."
  local net <close> = assert(lab.up { a = "port_restricted", b = "port_restricted", delay_ms = 20 })
  local found = assert(net:probe())
  for _, host in ipairs { "a", "b" } do
    print(("  %s: %s behind %s; mapping %s, filtering %s (probed)"):format(host, net[host].addr, found[host].public,
      found[host].mapping:gsub("endpoint", "endpoint-independent"),
      found[host].filtering:gsub("address_port", "address- and port-dependent")))
  end
  print ""
  local server = start(net, "server", "serve", "--admin", net.dir .. "/admin")
  local url = until_said(server, "%-%-server (%S+)")
  local a = start(net, "a", "host", "-v", "--server", url)
  local code = until_said(a, "room (%S+):")
  local b = start(net, "b", "join", code, "-v", "--server", url)
  until_said(a, "confirmed after")
  until_said(b, "confirmed after")
  type_line(a, "a", "hello from behind this NAT")
  until_said(b, "(hello from behind this NAT)")
  type_line(b, "b", "and hello from behind that one")
  until_said(a, "(and hello from behind that one)")
  b:kill "INT"
  b:wait(3000)
  until_said(a, "has left")
  a:kill "INT"
  a:wait(3000)
  server:kill "INT"
  server:wait(3000)
  show()
  print "\nThey talked directly; the server only introduced them. The lab is being taken down."
end

local ok, message = pcall(main)
if not ok then
  io.stderr:write(tostring(message), "\n")
  return 1
end
return 0

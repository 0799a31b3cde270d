-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"
local output = require "bodkin.cli.output"

local ROLES = { "address", "matching", "maintenance", "relay" }
local names = {}
for _, name in ipairs(ROLES) do names[name] = true end

-- Names of roles, or files that return one.
local function roles(text)
  local list = {}
  for word in text:gmatch "[^,]+" do
    if not names[word] and not word:find "[/.]" then
      return nil, table.concat(ROLES, ", ") .. " or a FILE that returns a role" .. options.suggestion(word, ROLES)
    end
    list[#list + 1] = word
  end
  if #list == 0 then return nil, "one role or more" end
  return list
end

-- FILE, or QUEUE=FILE.
local function policy(text)
  local queue, file = text:match "^([^=/]+)=(.+)$"
  if not queue then queue, file = "*", text end
  if #queue <= 32 and file ~= "" then return { queue = queue, file = file } end
  return nil, "FILE or QUEUE=FILE, a queue's name being at most 32 bytes"
end

local RECORD_MAX = 64 << 20 -- bytes of a file of --record; the one before it stays, too

local function admin(text) return require("bodkin.config").admin_path(text) end

local M = {
  usage = "bodkin serve [--listen ADDR:PORT]... [--listen-tcp ADDR:PORT]... [--roles LIST] [options]",
  summary = "run the server roles: address, matching, maintenance, relay",
  text = [[
Runs the roles given in one process and prints the URL that clients use. Without --listen: UDP port 4433, over IPv4
and, where the machine has it, IPv6. Stop it with Ctrl-C; bodkin status shows its counters. SIGHUP, and with
--watch each change, has the files of --policy read again; one that does not load changes nothing.

Clients know the server by its key, which stands in the URL. Without --key-file the first start makes it, and later ones
read it: server.key in $STATE_DIRECTORY (systemd's), else in bodkin/ in $XDG_STATE_HOME or ~/.local/state. All servers
of a deployment share one key file; bodkin keygen makes one, and rotates it.

The file of --config is Lua and ends with return bodkin.config { … }: the options by name with underscores, and
role_files, expose_addresses (true: list and lookup show addresses), local_addresses, stun (false: the address role
answers no STUN client), limits, token_keys = { KEY, … } and require_token (see bodkin keygen --token-key),
queues = { name = { policy = FILE } }, relays = { "ADDR:PORT", … }: up to two on other machines that share the key file,
shared_clock (true: clients run on this machine and count commit_ms from when the server made the match),
webhook = { url = URL, key_file = FILE }: a game's backend that is told of each match (docs/POLICY.md). Options given
here win.

For clients whose network lets no UDP out: --listen-tcp 0.0.0.0:443, and once more with [::]:443. They do all over that
port then, and meet their peers by a relay that listens so, too. Another port than 443 stands in the URL. A port below
1024 needs CAP_NET_BIND_SERVICE. Nothing else can have that port at that address; it is no HTTPS.

Two clients that find no direct path talk through a relay. A server that has the role is one for its own clients; with
--roles relay alone it is one for those of a matching server elsewhere, which names it in relays, and of whose key file
it needs a copy.]],
  options = {
    { "config", arg = "FILE", help = "a Lua file that returns the options" },
    { "listen", arg = "ADDR:PORT", kind = "listen", many = true, help = "where to listen" },
    { "listen-tcp", arg = "ADDR:PORT", kind = "listen_tcp", many = true,
      help = "and over TCP, for networks that block UDP (default: not)" },
    { "roles", arg = "LIST", kind = roles, help = "address,matching,maintenance,relay (default: all), or FILEs" },
    { "maintenance-mode", arg = "MODE", kind = options.word("confirm", "silent"),
      help = "confirm (default) or silent" },
    { "policy", arg = "[QUEUE=]FILE", kind = policy, many = true,
      help = "the policy of a queue, else of all: a file, or first_come, skill, teams, …" },
    { "key-file", arg = "FILE", help = "the server's key, or two of them (default: made at the first start)" },
    { "watch", help = "read the policies' files again when they change" },
    { "record", arg = "FILE", help = "write to it what policies are told and make of it, for bodkin replay" },
    { "admin", arg = "PATH", kind = admin, help = "the Unix socket for status and why (default: by port)" },
  },
}

-- The file's table under the options; nil, message, code.
local function configure(values)
  local config = {}
  if values.config then
    local loaded, err, code = require("bodkin.config").load(values.config)
    if not loaded then return nil, err, code end
    config = loaded
  end
  for _, key in ipairs { "listen", "listen_tcp", "roles", "maintenance_mode", "admin", "key_file", "record",
    "watch" } do
    if values[key] then config[key] = values[key] end
  end
  if values.policy then
    local queues = {}
    for name, queue in pairs(config.queues or {}) do queues[name] = queue end
    for _, given in ipairs(values.policy) do queues[given.queue] = { policy = given.file } end
    config.queues = queues
  end
  if config.roles then
    local files = table.move(config.role_files or {}, 1, #(config.role_files or {}), 1, {})
    local plain = {}
    for _, role in ipairs(config.roles) do
      local list = names[role] and plain or files
      list[#list + 1] = role
    end
    config.roles, config.role_files = plain, #files > 0 and files or nil
  end
  return config
end

local function default_listen(env)
  local core, list = require "bodkin.core", { "0.0.0.0:4433" }
  for _, i in ipairs(env.interfaces()) do
    local class = core.addr.class(i.addr)
    if i.up and core.addr.family(i.addr) == 6 and class ~= "loopback" and class ~= "link_local" then
      list[2] = "[::]:4433"
    end
  end
  return list
end

local rank = { public = 1, private = 2, shared = 3, link_local = 5, loopback = 6 }

-- The addresses others can use for one that is bound, the best first.
local function reachable(env, bound)
  local addr, list = require("bodkin.core").addr, {}
  if addr.class(bound) ~= "none" then return { bound } end
  for _, i in ipairs(env.interfaces()) do
    local class = addr.class(i.addr)
    if i.up and addr.family(i.addr) == addr.family(bound) and class ~= "link_local" then
      list[#list + 1] = addr.with_port(i.addr, addr.port(bound))
    end
  end
  table.sort(list, function(a, b)
    local x, y = rank[addr.class(a)] or 4, rank[addr.class(b)] or 4
    if x == y then return a < b end
    return x < y
  end)
  return list
end

local function url_of(at, keys, tcp)
  local text = require("bodkin.core").addr.format(at)
  local host, port = text:match "^%[?(.-)%]?:(%d+)$"
  return require("bodkin.url").format(host, math.tointeger(port), keys, tcp)
end

-- The port over TCP for who knows the server by address `at`, 443 where there are several; nil: none.
local function tcp_port(server, at)
  local addr, any = require("bodkin.core").addr, nil
  for _, bound in ipairs(server:tcp_addresses()) do
    local here = #bound == #at and (addr.class(bound) == "none" or addr.same_ip(bound, at))
    if here then any = any or addr.port(bound) end
    if here and addr.port(bound) == 443 then return 443 end
  end
  return any
end

-- How a server is named, by clients or, where only a relay is of use to them, by matching servers.
local function advise(out, server, urls, places)
  local has = server.has_role
  local option = has.matching and "--server" or has.address and "--address-server"
    or has.maintenance and "--maintenance-server" or not has.relay and "--server"
  local function any(list) return out:paint("bold", table.concat(list, "  or  ")) end
  if option then out:say("clients use  %s %s", option, any(urls)) end
  if has.relay and not has.matching then
    out:say("a matching server with the same key file names it in its config:  relays = %s", any(places))
  end
end

-- The matching role is what clients talk to under the server's key.
local function announce(out, env, server, publics)
  local addr = require("bodkin.core").addr
  local urls, places, keys = {}, {}, server.has_role.matching and publics or nil
  for _, bound in ipairs(server:addresses()) do
    local at = reachable(env, bound)
    local best = at[1] and url_of(at[1], keys, tcp_port(server, at[1]))
    if out.json then
      for _, role in ipairs(server.roles) do
        out:event("listening", { url = best, role = role, addr = addr.format(bound) })
      end
    else
      out:event("listening", { role = table.concat(server.roles, ", "), addr = addr.format(bound) })
    end
    for _, a in ipairs(at) do
      if addr.class(a) ~= "loopback" or #at == 1 then
        urls[#urls + 1] = url_of(a, keys, tcp_port(server, a))
        places[#places + 1] = ('{ "%s" }'):format(addr.format(a))
      end
    end
  end
  for _, bound in ipairs(server:tcp_addresses()) do
    if not out.json then out:say("and over TCP on %s", addr.format(bound)) end
  end
  if not out.json then advise(out, server, urls, places) end
end

-- Answers a line of the admin socket.
local function admin_answer(server, line, reply)
  local core, json = require "bodkin.core", require "bodkin.json"
  server.counters:add "admin_request"
  local why, asked = line:match "^(why) ?(.*)$"
  if why and not server.why then
    return reply(json.encode { error = "it has no matching role, and knows of no match" })
  end
  if why and asked == "" then return reply(json.encode(server:why())) end
  if why then
    return server:why_waits(asked, function(tickets)
      local answer = server:why(asked)
      answer.tickets = tickets
      reply(json.encode(answer))
    end)
  end
  local record = line:match "^record ?(.*)$"
  record = record and require("bodkin.cli.record").answer(server, record)
  if record then return reply(json.encode(record)) end
  if line ~= "status" then
    return reply(json.encode { error = "no such request; there are: status, why [ID|NAME], record" })
  end
  local status = server:status()
  status.version, status.pid = core.version, require("bodkin.host").pid()
  reply(json.encode(status, { "version", "pid", "info", "counters", "name", "value", "text" }))
end

local function open_admin(p, out, config, server)
  local port = require("bodkin.core").addr.port(server:addresses()[1])
  local listener, err = require("bodkin.cli.admin").listen(p.env.loop, config.admin, port,
    function(line, reply) admin_answer(server, line, reply) end)
  if listener then
    out:detail("admin socket: %s", err)
    return listener
  end
  if config.admin then
    return nil, ("cannot open the admin socket %s: %s; is its directory there?"):format(config.admin, err), "invalid"
  end
  out:say("no admin socket (%s), so no bodkin status; give one with --admin", err)
  return false
end

-- A relay opens tickets that the matching server has made with the deployment's key: with one of its own, none.
local function lacks_key(config)
  local has = {}
  for _, role in ipairs(config.roles or ROLES) do has[role] = true end
  return has.relay and not has.matching and not config.key_file
end

function M.run(values)
  local config, err, code = configure(values)
  if not config then return nil, err, code end
  if lacks_key(config) then
    return nil, "a relay without the matching role needs the key of its matching server: give --key-file FILE, a copy "
      .. "of that server's key file (bodkin keygen FILE makes one)", "usage"
  end
  local out = output.of(values)
  return require("bodkin.cli.process").run(values, function(p)
    config.listen = config.listen or default_listen(p.env)
    local keys
    keys, err, code = require("bodkin.cli.server_key").find(config.key_file, out)
    if not keys then return nil, err, code end
    config.keys = keys.secrets
    config.open_policy_link = require("bodkin.cli.desk").opener(p.env)
    local close_record = function() end
    if config.record then
      config.on_record, err, code = require("bodkin.cli.record").writer(p.env, config.record, RECORD_MAX)
      if not config.on_record then return nil, err, code end
      close_record = err
    end
    if config.webhook then
      config.webhook, err, code = require("bodkin.cli.webhook").options(p.env, config.webhook)
      if not config.webhook then return nil, err, code end
    end
    local server
    server, err, code = require("bodkin.servers").open(p.env, config)
    if not server then
      out:failure(err, code)
      return 1 -- mostly a port in use: nothing wrong with how it was called
    end
    p.env.loop:gather(server.limits.gather_us)
    local listener
    listener, err, code = open_admin(p, out, config, server)
    if listener == nil then
      server:close()
      return nil, err, code
    end
    p.on_reload = function() server:reload() end
    p.on_stop = function(name)
      server:close()
      close_record()
      if listener then listener:close() end
      out:say("stopped")
      return name == "INT" and 130 or 0
    end
    announce(out, p.env, server, keys.publics)
    require("bodkin.task").await(function() end)
  end)
end

return M

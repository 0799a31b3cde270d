-- SPDX-License-Identifier: MIT
-- A user's own program on two hosts behind real NATs: the lab (bodkin.lab) with a server in it, the program's output
-- labelled, and nothing left afterwards.

local nat = require "bodkin.lab.nat"
local output = require "bodkin.cli.output"
local plan_of = require "bodkin.lab.plan"
local task = require "bodkin.task"

local POLL_MS = 20 -- how often one looks whether a program has ended
local TERM_MS = 2000 -- to go by itself once asked to
local DRAIN_MS = 2000 -- for what was written before the end to be read
local SEED_MAX = 999999 -- what one draws is short enough to type
local ORDER = { "event", "host", "nat", "addr", "public", "ipv6", "stream", "data", "data_b64", "code", "server",
  "seed" }

local function delay(text)
  local n = tonumber(text)
  if n and n >= 0 and n <= 10000 then return n end
  return nil, "milliseconds, such as 20"
end

local function share(text)
  local percent = text:match "^(.*)%%$"
  local n = tonumber(percent or text)
  if n and percent then n = n / 100 end
  if n and n >= 0 and n <= 1 then return n end
  return nil, "a share such as 0.05, or 5%"
end

local function whole(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 0 and n <= 0x7fffffff then return n end
  return nil, "a whole number up to 2147483647"
end

local M = {
  usage = "bodkin lab NAT NAT [--delay-ms N] [--loss N [--seed N]] [options] -- CMD [ARG]...",
  summary = "run a program on two hosts behind two real NATs",
  text = ([[
Runs CMD twice at the same time on this machine, on host a behind the first NAT and on host b behind the second, with a
server (bodkin serve) that both reach. NATs, hosts and the net between are the Linux kernel's, in network namespaces,
and gone when both programs have ended, or after Ctrl-C. The NATs there are:
  %s
CMD finds $BODKIN_SERVER, the server's URL with its key; $BODKIN_LAB_HOST, a or b; and $BODKIN_LAB_DIR, a directory that
both share and that goes with the lab. Its input is empty; XDG_STATE_HOME and XDG_CONFIG_HOME are the host's own. What
it writes comes out line by line after its host's name. There is no way out to any other network. With --ipv6 hosts
have IPv6 beside IPv4, not translated but behind a firewall (none: without one); $BODKIN_SERVER then names the server.

The exit code is that of the first CMD that failed, else 0. Root is not needed where the kernel gives users namespaces
of their own (most do): CMD then takes itself for root, and has its user's rights.]]):format(nat.names()
    :gsub("(, [^,]+, [^,]+, [^,]+, [^,]+, [^,]+, [^,]+), ", "%1,\n  ", 1)),
  options = {
    { "delay-ms", arg = "N", kind = delay, help = "one-way delay of each host's link: a to b takes twice as long (0)" },
    { "loss", arg = "N", kind = share, help = "share of packets lost between any two hosts, such as 0.05 or 5% (0)" },
    { "seed", arg = "N", kind = whole, help = "lose as a run did that told this number (default: another each time)" },
    { "ipv6", help = "both have IPv6, too, behind a firewall, and so has the server" },
    { "same-nat", help = "b stands beside a, behind the same NAT (both are to be the same kind)" },
    { "timeout", arg = "SECONDS", kind = "seconds", help = "take all down after this long, and fail" },
  },
  arguments = math.huge,
}

-- Which NATs, and the words to run; nil and what is wrong with the call.
local function check(values, rest, cut)
  if cut == nil or not rest[cut + 1] then return nil, "lab needs a command to run, after the NATs and  --" end
  if cut ~= 2 then return nil, ("lab needs two NATs, not %d; there are %s"):format(cut, nat.names()) end
  local options = { a = rest[1], b = rest[2], delay_ms = values.delay_ms, loss = values.loss,
    same_nat = values.same_nat ~= nil, ipv6 = values.ipv6 ~= nil,
    seed = values.seed or string.unpack("<I4", require("bodkin.core").crypto.random(4)) % (SEED_MAX + 1) }
  local plan, err = plan_of.make("?", options)
  if not plan then return nil, (err:gsub("^lab: ", ""):gsub("same_nat", "--same-nat")) end
  return options, table.move(rest, 3, #rest, 1, {})
end

local Run = {} -- one lab with its programs
Run.__index = Run

-- Reads what a program writes, from a FIFO in the lab's directory, whose path is returned.
function Run:follow(host, stream, on_line)
  local path = ("%s/%s.%s"):format(self.net.dir, host, stream)
  local input = assert(self.env.loop:fd(assert(require("bodkin.host").fifo(path))))
  self.reading = self.reading + 1
  input:on_line(function(line, err)
    if line then return on_line(line) end
    self.reading = self.reading - 1
    if not err then return input:close() end
    self.out:say("%s's %s: %s; the rest of it is not shown", host, stream, err) -- but read: nothing waits for it
  end)
  return path
end

-- A program's line.
function Run:tell(host, stream, line)
  local out = self.out
  if not out.json then
    line = ("%s| %s"):format(host, line)
    if stream == "stderr" then return out:error_line(line) end
    self.unread = not out:line(line)
    return
  end
  local object = { event = "output", host = host, stream = stream, data = line }
  if not utf8.len(line) then object.data, object.data_b64 = nil, require("bodkin.json").base64(line) end
  self.unread = not out:object(object, ORDER)
end

-- Two IPs of two ports each, by which netcheck tells all of a NAT; the first is what stands in the URL.
local function listening(net)
  local server, list = net.server, {}
  for _, ip in ipairs { server.addr, plan_of.witness } do
    for port = 4433, 4434 do list[#list + 1] = ("%s:%d"):format(ip, port) end
  end
  for _, ip in ipairs(net.plan.ipv6 and { server.addr6, plan_of.witness6 } or {}) do
    for port = 4433, 4434 do list[#list + 1] = ("[%s]:%d"):format(ip, port) end
  end
  return list
end

-- Starts the server: true, or nil and why not. Its URL is self.url.
function Run:serve()
  local net, url = self.net, nil
  local key = net.dir .. "/server.key"
  assert(require("bodkin.keyfile").make(key))
  local words = { net.words[1], "serve", "--key-file", key, "--admin", net.dir .. "/server.admin", "--json",
    stdout = self:follow("server", "stdout", function(line)
      local event = require("bodkin.json").decode(line)
      url = url or type(event) == "table" and event.url
    end),
    stderr = self:follow("server", "stderr", function(line)
      self.last_words = line
      self.out:detail("server| %s", line)
    end) }
  for _, at in ipairs(listening(net)) do table.move({ "--listen", at }, 1, 2, #words + 1, words) end
  self.server = net.server:start(words)
  self:wait(10000, function() return url or self.server:code() end)
  -- An address is of one family; the hosts know the server by a name that is of both.
  self.url = url and net.plan.ipv6 and url:gsub("//[%d.]+", "//server") or url
  if url then return true end
  return nil, "lab: the server did not start: " .. (self.last_words or "it said nothing")
end

function Run:start(host, words)
  local net = self.net
  local home = net.dir .. "/home-" .. host
  local options = table.move(words, 1, #words, 1, { env = { BODKIN_SERVER = self.url, BODKIN_LAB_HOST = host,
    BODKIN_LAB_DIR = net.dir .. "/shared", XDG_STATE_HOME = home .. "/state", XDG_CONFIG_HOME = home .. "/config",
    STATE_DIRECTORY = "" } })
  for _, stream in ipairs { "stdout", "stderr" } do
    options[stream] = self:follow(host, stream, function(line) self:tell(host, stream, line) end)
  end
  self.programs[host] = net[host]:start(options)
end

-- Waits, while the loop runs, until ready() is true, and returns that; nil after so long (nil: for ever).
local function wait(env, timeout_ms, ready)
  local deadline = timeout_ms and env.now() + timeout_ms * 1000
  while true do
    local value = ready()
    if value or deadline and env.now() >= deadline then return value or nil end
    task.sleep(env, POLL_MS)
  end
end

-- The same; for ever, once a signal has begun to take all down.
function Run:wait(timeout_ms, ready)
  local value = wait(self.env, timeout_ms, ready)
  if self.stopping then task.await(function() end) end
  return value
end

-- Takes note of programs that have ended. True when all have.
function Run:all_ended()
  local all = true
  for _, host in ipairs { "a", "b" } do
    local program = self.programs[host]
    local code = program and not self.codes[host] and program:code()
    if code then
      self.codes[host] = code
      if code ~= 0 then self.failed = self.failed or code end
      if self.out.json then self.out:object({ event = "exited", host = host, code = code }, ORDER)
      else self.out[code == 0 and "detail" or "say"](self.out, "%s ended with %d", host, code) end
    end
    all = all and (not program or self.codes[host] ~= nil)
  end
  return all
end

-- Why it cannot go on; nil where it can.
function Run:broken()
  local ok, why = self.net:check()
  if not ok then return why end
  if self.server:code() then return "lab: the server died: " .. (self.last_words or "it said nothing") end
end

-- Ends what still runs, takes the lab down, and reads to the end what was written.
function Run:stop()
  self.stopping = true
  for host, program in pairs(self.programs) do
    if not self.codes[host] then program:kill_group "TERM" end
  end
  wait(self.env, TERM_MS, function() return self:all_ended() end)
  self.net:down()
  wait(self.env, DRAIN_MS, function() return self.reading == 0 end)
end

-- What both programs came to: an exit code, or nil, message, code.
function Run:watch(values)
  local why
  local done = self:wait(values.timeout and values.timeout * 1000, function()
    if self:all_ended() or self.unread then return true end
    why = self:broken()
    return why
  end)
  if why then return nil, why, "closed" end
  if done then return self.failed or 0 end
  local still = {}
  for _, host in ipairs { "a", "b" } do still[#still + 1] = not self.codes[host] and host or nil end
  return nil, ("%s did not end in %g s: does one wait for the other?"):format(table.concat(still, " and "),
    values.timeout), "timeout"
end

-- Says what there is.
function Run:announce()
  local net, out = self.net, self.out
  if self.seed and out.json then out:object({ event = "seed", seed = self.seed }, ORDER)
  elseif self.seed then out:say("what is lost is drawn from --seed %d", self.seed) end
  for _, host in ipairs { "a", "b" } do
    local kind, at = net.plan.kinds[host], net[host]
    if out.json then
      local object = { event = "host", host = host, nat = kind, addr = at.addr, public = at.public, ipv6 = at.addr6,
        server = self.url }
      out:object(object, ORDER)
    else
      out:say("%s: %s behind %s, seen as %s%s", host, at.addr, kind, at.public,
        at.addr6 and (", and %s"):format(at.addr6) or "")
    end
  end
  out:detail("server: %s", self.url)
end

-- What went wrong; unless it did because of a Ctrl-C meanwhile, which then ends this task.
local function failed(env, why, code)
  task.sleep(env, POLL_MS)
  return nil, why, code
end

function M.run(values, rest, argv, cut)
  local options, words = check(values, rest, cut)
  if not options then return nil, words, "usage" end
  local way, err, code = require("bodkin.lab.rootless").way(argv)
  if not way then return nil, err, code end
  if way ~= true then
    err = select(2, require("bodkin.host").exec(way)) -- from which nothing comes back unless it fails
    return nil, "lab: cannot start anew without root: " .. err, "refused"
  end
  local out = output.of(values)
  return require("bodkin.cli.process").run(values, function(p)
    local net <close>, why, refused = require("bodkin.lab").up(options)
    local ok
    if not net then return failed(p.env, why, refused) end
    local run = setmetatable({ net = net, env = p.env, out = out, programs = {}, codes = {}, reading = 0,
      seed = (options.loss or 0) > 0 and options.seed or nil }, Run)
    p.on_stop = function() run:stop() end
    -- A kernel may make other NATs of the same rules; with losses one could not tell.
    if (options.loss or 0) == 0 then
      ok, why, refused = net:probe()
      if not ok then return failed(p.env, why, refused) end
    end
    ok, why = run:serve()
    if not ok then return nil, why, "closed" end
    assert(require("bodkin.lab.shell").run("mkdir " .. net.dir .. "/shared"))
    run:announce()
    for _, host in ipairs { "a", "b" } do run:start(host, words) end
    local result = table.pack(run:watch(values))
    run:stop()
    return table.unpack(result, 1, result.n)
  end)
end

return M

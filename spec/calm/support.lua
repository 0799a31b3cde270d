-- SPDX-License-Identifier: MIT
-- Real processes to which the machine is unkind: as spec.hostile.support, and each may be started with the shim
-- between it and its libc, with its output going somewhere bad, and with lines for its stdin.

local hostile = require "spec.hostile.support"

local M = setmetatable({}, { __index = hostile })

M.YEAR_S = 365 * 86400

-- Of Linux on every machine that is tested on.
M.error = { EPERM = 1, EINTR = 4, EAGAIN = 11, ENOMEM = 12, ENETUNREACH = 101, ENOBUFS = 105, ECONNREFUSED = 111 }

local shim

-- Compiled once in a run.
local function build_shim()
  if shim then return shim end
  local pipe <close> = assert(io.popen(("cd '%s' && pwd"):format(hostile.build)))
  shim = pipe:read "l" .. "/calm-shim.so"
  local text, ok = hostile.run { "cc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-shared",
    "-fPIC", "-o", shim, "spec/calm/shim.c" }
  assert(ok, text)
  return shim
end

local Page = {}
Page.__index = Page

local SIZE = 32

function Page:write(offset, format, value)
  local file <close> = assert(io.open(self.path, "r+b"))
  file:seek("set", offset)
  assert(file:write(string.pack(format, value)))
end

-- The wall clock stands so many seconds off from now on.
function Page:jump(offset_s) self:write(0, "<i8", offset_s) end

-- Each send, or receive, of datagrams fails with that error from now on; nil: none.
function Page:sends_fail(name) self:write(8, "<i4", name and M.error[name] or 0) end
function Page:receives_fail(name) self:write(12, "<i4", name and M.error[name] or 0) end

-- How many did.
function Page:failures()
  local sends, receives = string.unpack("<I8I8", hostile.read_file(self.path), 17)
  return sends, receives
end

local World = {}
World.__index = World

function M.world()
  local world = hostile.world()
  local old = getmetatable(world)
  setmetatable(world, { __index = function(_, key) return World[key] or old.__index[key] end })
  world.shim = build_shim()
  world.wrapped = 0
  return world
end

-- A program that runs bodkin so: options.redirect, in the words of a shell after it may have opened what is in
-- options.first; options.random = a file for all that it draws; options.sndbuf: of its sockets. Returns its path, and
-- its page.
function World:wrap(options)
  options = options or {}
  self.wrapped = self.wrapped + 1
  local base = ("%s/wrapped-%d"):format(self.dir, self.wrapped)
  local page = setmetatable({ path = base .. ".page" }, Page)
  hostile.write_file(page.path, ("\0"):rep(SIZE))
  local more = (options.random and "CALM_RANDOM=" .. options.random or "")
    .. (options.sndbuf and " CALM_SNDBUF=" .. options.sndbuf or "")
  local script = '#!/bin/sh\n%s\nexec env LD_PRELOAD=%s CALM=%s %s %s "$@" %s\n'
  hostile.write_file(base, script:format(options.first or "", self.shim, page.path, more, hostile.release,
    options.redirect or ""))
  assert(os.execute("chmod +x " .. base))
  return base, page
end

-- bodkin COMMAND with these words: a process with .page and, for lines, .input.
function World:bodkin(words, options)
  local fifo = ("%s/input-%d"):format(self.dir, self.wrapped + 1)
  assert(os.execute("mkfifo " .. fifo))
  options = options or {}
  local program, page = self:wrap {
    first = options.first, redirect = ("<>%s %s"):format(fifo, options.redirect or ""), random = options.random,
  }
  local p = self:start(table.move(words, 1, #words, 2, { program }))
  p.page, p.input = page, assert(io.open(fifo, "r+"))
  p.input:setvbuf "line"
  return p
end

function World:server(options, config)
  local program, page = self:wrap(options)
  local p = self:serve(program, "address,matching,maintenance", config)
  p.page = page
  return p
end

-- A pair of clients that are connected: host, join. flags go to both.
function World:pair(server, flags)
  local function words(...)
    return table.move(flags or {}, 1, #(flags or {}), select("#", ...) + 1, { ... })
  end
  local host = self:bodkin(words("host", "--server", server.url, "-v", "--bind", "127.0.0.1:0"))
  local code = self:heard(host, "bodkin join (%S+)", 5000)
  local join = self:bodkin(words("join", code, "--server", server.url, "-v", "--bind", "127.0.0.1:0"))
  for _, p in ipairs { host, join } do self:heard(p, "(connected) to", 5000) end
  return host, join
end

-- Waits for a line of its progress.
function World:heard(p, pattern, ms)
  return self:wait(("%s: '%s' in:\n%s"):format(p.words[2], pattern, p:stderr()), ms, function()
    return p:stderr():match(pattern)
  end)
end

local said = 0

-- Says something at `from`; how many ms until it is heard at `to`, nil when it is not in that many.
function World:talk(from, to, ms)
  said = said + 1
  local line, began = ("line %d."):format(said), M.now_ms()
  from.input:write(line, "\n")
  local ok = pcall(self.wait, self, "a line", ms or 3000, function()
    return to:stdout():find(line, 1, true)
  end)
  return ok and M.now_ms() - began or nil
end

function M.now_ms() return require("bodkin.core").now() / 1000 end

-- Says a line each 100 ms until one is heard; after how many ms. What was lost meanwhile is lost: it is UDP.
function World:recovers(from, to, ms)
  local began = M.now_ms()
  while M.now_ms() - began < ms do
    if self:talk(from, to, 100) then return M.now_ms() - began end
  end
  error(("nothing was heard in %d ms\n%s%s"):format(ms, from:stderr(), to:stderr()), 2)
end

-- Whether the server answers; in how many ms.
function World:answers(server, ms)
  local began = M.now_ms()
  local sock = assert(self.env.udp(require("bodkin.core").addr.parse("127.0.0.1", 0)))
  local heard
  sock:on_packet(function() heard = true end)
  local again = 0
  local ok, err = pcall(self.wait, self, "an answer of the server", ms, function()
    if not heard and M.now_ms() >= again then
      sock:send(server.at, require("bodkin.message").address_request:encode(self.env.random(12)))
      again = M.now_ms() + 50
    end
    return heard
  end)
  sock:close()
  if not ok then error(err, 2) end
  return M.now_ms() - began
end

local function cpu_ns(p) return tonumber(hostile.read_file(("/proc/%d/schedstat"):format(p.pid)):match "^%d+") end

-- The share of a core that the busiest of these processes uses in the next `ms`.
function World:load(processes, ms)
  local before, began, most = {}, M.now_ms(), 0
  for i, p in ipairs(processes) do before[i] = cpu_ns(p) end
  self:turn(ms)
  for i, p in ipairs(processes) do most = math.max(most, (cpu_ns(p) - before[i]) / 1e6 / (M.now_ms() - began)) end
  return most
end

return M

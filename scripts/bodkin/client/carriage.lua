-- SPDX-License-Identifier: MIT
-- By what datagrams go to the servers: UDP, or TCP where a network lets no UDP out. Whichever of the two is answered is
-- used; UDP goes first, and is gone back to as soon as it is answered again. What goes to peers directly is UDP always,
-- so that over TCP a relay is what is left.

local core = require "bodkin.core"
local message = require "bodkin.message"
local task = require "bodkin.task"
local url = require "bodkin.url"

local addr = core.addr
local M = {}
local Carriage = {}
Carriage.__index = Carriage

local PATIENCE_MS = 1000  -- with UDP when a client begins, then TCP is tried beside it …
local DOUBT_MS = 500      -- … and later, when something went unanswered already
local BEGIN_MS = 5000     -- for both, unless it is said, when a client begins …
local ANSWER_MS = 3000    -- … and later
local REPEAT_MS = 200     -- of a question, at first: what is known of a round trip is of UDP, and connecting takes one
local AGAIN_MS = 60000    -- over TCP, between two looks whether UDP is answered
local GAP_US = 30000000   -- between two looks because something was not answered
local CONNECTIONS = 64    -- to the server and to relays; a server that lies could name many
local NUMBERS = { [4] = 65534, [6] = 65535 } -- of its sockets; those of fresh ports end before

-- `config`: env, router, mux, udp = the sockets by family; server() -> address, or nil while there is none;
-- on_change(). Set .requests before anything is asked.
function M.new(config)
  return setmetatable({
    env = config.env, router = config.router, mux = config.mux, udp = config.udp, server = config.server,
    on_change = config.on_change, port = url.tcp_port, tcp = {}, over_tcp = false,
  }, Carriage)
end

local function close_all(self)
  local list = self.tcp
  self.tcp = {}
  for _, sock in pairs(list) do sock:close() end
end

-- The servers' TCP port from now on; nil: 443.
function Carriage:aim(port)
  port = port or url.tcp_port
  if port ~= self.port then close_all(self) end
  self.port = port
end

-- A socket that connects, where that family has one of UDP, and is bound as that one.
local function tcp_sock(self, family)
  local udp = self.udp[family]
  if not udp or self.tcp[family] or self.closed then return self.tcp[family] end
  local sock, err = self.env.tcp(addr.with_port(udp:addr(), 0), {
    port = self.port, number = NUMBERS[family], max = CONNECTIONS,
  })
  if not sock then
    self.env.log:warn("no TCP socket: %s", err)
    return nil
  end
  sock:router(self.router)
  self.mux:attach(sock)
  self.tcp[family] = sock
  return sock
end

-- The socket for what goes to a server; nil where there is none of its family.
function Carriage:sock_for(to)
  local family = addr.family(to)
  return self.over_tcp and tcp_sock(self, family) or self.udp[family]
end

-- As a person would say it.
function Carriage:where(to)
  if self.over_tcp then return ("TCP %d"):format(self.port) end
  return ("UDP %d%s"):format(addr.port(to), self.asked_tcp and (" or TCP %d"):format(self.port) or "")
end

local look_later

local function switch(self, over_tcp)
  if self.over_tcp == over_tcp or self.closed then return end
  self.over_tcp = over_tcp
  if self.timer then self.timer:cancel() end
  self.timer = nil
  if over_tcp then
    self.env.log:info("UDP is not answered, TCP %d is: going on over that", self.port)
    look_later(self)
  else
    self.env.log:info "UDP is answered: going on over that"
  end
  self.on_change()
end

-- Asks a server, by a socket or another; done(whether it answered).
local function ask(self, to, sock, timeout_ms, done)
  local posted = sock and self.requests:post({
    to = to, sock = sock, expect = "key_report", quiet = true, timeout_ms = timeout_ms, gap_ms = REPEAT_MS,
    build = function(tx) return message.key_request:encode(tx) end,
  }, done)
  if not posted then done(false) end
end

-- In a task: what learn() returns, which asks over UDP; or true, once one of `servers` (by family) answers over TCP and
-- that did not.
function Carriage:begin(servers, learn, timeout_ms)
  local left_ms = (timeout_ms or BEGIN_MS) - PATIENCE_MS
  self.over_tcp, self.asked_tcp = false, false -- to a server before, perhaps
  if self.timer then self.timer:cancel() end
  self.timer = nil
  return task.await(function(resume)
    local open, over, timer, result = 1, false, nil, nil
    local function finish(...)
      if over then return end
      over = true
      if timer then timer:cancel() end
      resume(...)
    end
    local function ended()
      open = open - 1
      if open == 0 then finish(table.unpack(result, 1, result.n)) end
    end
    local function ask_tcp()
      for _, family in ipairs { 4, 6 } do
        if servers[family] then
          open = open + 1
          ask(self, servers[family], tcp_sock(self, family), left_ms, function(ok)
            if ok and not over then
              switch(self, true)
              self.family = family
              finish(true)
            end
            ended()
          end)
        end
      end
    end
    local learner = task.spawn(function()
      local list = table.pack(learn())
      if list[1] then
        if timer then timer:cancel() end
        switch(self, false) -- later than TCP perhaps
        return finish(table.unpack(list, 1, list.n))
      end
      result = list
      if not self.asked_tcp or list[3] ~= "timeout" then finish(table.unpack(result, 1, result.n)) end
      ended()
    end)
    if left_ms > 0 and not over and not result then
      timer = self.env.timer(PATIENCE_MS, function()
        self.asked_tcp = true
        ask_tcp()
      end)
    end
    return function()
      over = true
      if timer then timer:cancel() end
      learner:cancel()
    end
  end)
end

-- Looks whether the server answers over UDP and, where that is in use, over TCP: something was not answered, or
-- (`again`) it is time to.
function Carriage:look(again)
  local to, now = self.server(), self.env.now()
  if self.looking or self.closed or not to then return end
  if not again and self.looked_us and now - self.looked_us < GAP_US then return end
  self.looked_us = now
  local family, udp_answers, timer = addr.family(to), false, nil
  self.looking = true
  local open = 1
  local function ended()
    open = open - 1
    if open == 0 then self.looking = false end
  end
  ask(self, to, self.udp[family], ANSWER_MS, function(ok)
    udp_answers = ok
    if ok and timer then
      timer:cancel()
      timer = nil
      ended()
    end
    if ok then switch(self, false) end
    ended()
  end)
  if self.over_tcp or udp_answers then return end
  open = open + 1
  timer = self.env.timer(DOUBT_MS, function()
    timer = nil
    ask(self, to, tcp_sock(self, family), ANSWER_MS - DOUBT_MS, function(ok)
      if ok and not udp_answers then switch(self, true) end
      ended()
    end)
  end)
  self.look_timer = timer
end

function look_later(self)
  self.timer = self.env.timer(AGAIN_MS, function()
    look_later(self)
    self:look(true)
  end)
end

-- The host is elsewhere: connections are from where it was.
function Carriage:moved()
  close_all(self)
  self:look(true)
end

-- Idempotent.
function Carriage:close()
  self.closed = true
  if self.timer then self.timer:cancel() end
  if self.look_timer then self.look_timer:cancel() end
  close_all(self)
end

return M

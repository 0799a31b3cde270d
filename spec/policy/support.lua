-- SPDX-License-Identifier: MIT
-- A desk with what it tells kept, for the specs of policies.

local wire = require("bodkin.core").wire
local desks = require "bodkin.policy.desk"
local sources = require "bodkin.policy.source"

local M = {}
local Desk = {}
Desk.__index = Desk

M.prelude = 'local bodkin = require "bodkin"\n'

-- `policy`: the name of one that ships, or text whose first line is the prelude's.
function M.source(policy)
  if sources.BUILTIN[policy] then return { name = policy } end
  return sources.text(M.prelude .. policy)
end

-- As a policy's file.
function M.write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(M.prelude .. text)
end

-- A desk that serves the queue "q" with a policy, as version 1.
function M.desk(policy, limits)
  local self = setmetatable({ told = {}, no = 0, serial = 0 }, Desk)
  self.desk = desks.new(function(message) self.told[#self.told + 1] = message end, limits)
  self:load(1, policy)
  return self
end

-- Returns what load told: "loaded" or "refused", and about or why.
function Desk:load(version, policy)
  local source = M.source(policy)
  for _, file in ipairs(source.files or {}) do
    self.desk:input { "file", version, file.name, file.chunkname, file.text }
  end
  local told = self:tell { "load", version, not source.files and source.name or false }
  return told[1][1], told[1][3]
end

-- What is told in answer.
function Desk:tell(message)
  self.told = {}
  self.desk:input(message)
  return self.told
end

-- Adds a ticket; options: app, since_ms, version, now_ms, claims; members = props of each of a party, in place of
-- props; seats: of a running match. Returns its number, or nil and what was told instead.
function Desk:add(props, options)
  options = options or {}
  self.no = self.no + 1
  local now_ms, members = options.now_ms or options.since_ms or 0, {}
  for i, each in ipairs(options.members or { props }) do members[i] = { each, wire.encode(options.claims or {}) } end
  local told = self:tell { "add", "q", options.version or 1, self.no, options.app or "a", options.since_ms or now_ms,
    members, false, now_ms, options.seats or false }
  local last = told[#told]
  if last[1] == "verdict" and last[4] then return self.no end
  return nil, last[1] == "failed" and last[4] or last[5]
end

-- One pass: the matches as { teams, host, data }; or nil and why it failed.
function Desk:tick(now_ms, version)
  self.serial = self.serial + 1
  local matches = {}
  for _, m in ipairs(self:tell { "tick", "q", version or 1, self.serial, now_ms }) do
    if m[1] == "failed" then return nil, m[4] end
    if m[1] == "match" then matches[#matches + 1] = { m[4], m[5], m[6] } end
  end
  return matches
end

-- A world of the clients' specs (client: spec/client/support.lua, loaded) whose server has these policies: { queue or
-- "*" = a policy's text, or the path of one }; nil: none.
function M.world(client, policies, options)
  local s = client.new(options)
  if not policies then return s end
  s.server:close()
  local queues = {}
  for name, given in pairs(policies) do
    queues[name] = { policy = given:find "^/" and given or M.source(given) }
  end
  s.server = assert(require("bodkin.servers").open(s.hub.env, { listen = { "198.51.100.10:4433" },
    keys = { client.key }, queues = queues, limits = options and options.limits }))
  s.servers[s.hub] = s.server
  return s
end

return M

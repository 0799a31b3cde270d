-- SPDX-License-Identifier: MIT
-- Another server when the one in use stays silent: its name is asked for again, then the others of the list are tried,
-- and the client goes on with the first that answers. Matches in play do not notice.

local core = require "bodkin.core"
local locate = require "bodkin.client.locate"
local message = require "bodkin.message"
local url = require "bodkin.url"

local M = {}
local Fallback = {}
Fallback.__index = Fallback

local ANSWER_MS = 2000

-- `config`: node, urls (all), number (of the one in use), options_of(url), keys_of(options) -> keys or nil, use(server,
-- located, keys, options): from now on.
function M.new(config)
  return setmetatable({
    node = config.node, urls = config.urls, number = config.number, options_of = config.options_of,
    keys_of = config.keys_of, use = config.use,
  }, Fallback)
end

-- In a task: whether there is a matching server; or nil, message, code.
function M.answers(requests, at)
  return requests:call {
    to = at, expect = "key_report", timeout_ms = ANSWER_MS, quiet = true,
    build = function(tx) return message.key_request:encode(tx) end,
  }
end

-- In a task: whether the matching server of these options answers, which is then used.
function Fallback:try(options)
  local node = self.node
  local located = locate.servers(node.env, options)
  local before = node.carriage.port
  -- Over TCP no public address is known: of the family that works.
  local known = node.carriage.over_tcp and { [core.addr.family(node.server)] = true } or node.addresses.public
  local at = located and locate.choose(located.matching, known, node.socks)
  if not at or at == node.server then return false end
  node.carriage:aim(url.parse(options.server).tcp)
  local ok = M.answers(node.requests, at)
  local keys = ok and not node.closed and self.keys_of(options)
  if not keys then
    node.carriage:aim(before)
    return false
  end
  self.use(at, located, keys, options)
  return true
end

-- In a task: whether there is another server now.
function Fallback:look()
  for i = 0, #self.urls - 1 do
    local number = (self.number - 1 + i) % #self.urls + 1
    if self:try(self.options_of(self.urls[number])) then
      self.number = number
      self.node.env.log:info("the server is silent: going on with the one at %s", core.addr.format(self.node.server))
      return true
    end
  end
  return false
end

return M

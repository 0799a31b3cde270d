-- SPDX-License-Identifier: MIT
-- Runs inside a sandbox of its own, around the policy of all queues: asks it what a client may look for.

local core = ... -- null, where: what the sandbox lends to chunks of ours

local policies = require "bodkin.policy"

local M = {}
local policy

function M.start()
  policy = require "policy"
  if not policies.is(policy) then return { kind = "nothing" } end
  return { kind = "policy", on_search = policy.on_search ~= nil }
end

local function clean(props)
  local out = {}
  for k, v in pairs(props) do
    if v ~= core.null then out[k] = v end
  end
  return out
end

-- May a client { id, app, name } list what this query finds? true and the query to answer in its place; or false and
-- why.
function M.search(who, props, claims, query)
  local client = { id = who[1], app = who[2], name = who[3], props = clean(props), claims = clean(claims) }
  local instead, why = policy.on_search(client, query)
  if instead == true then return true, query end
  if type(instead) == "table" then return true, instead end
  if instead or why ~= nil and type(why) ~= "string" then
    error(core.where(policy.on_search) .. ("on_search returned a %s and a %s"):format(type(instead), type(why)), 0)
  end
  return false, why or "the server does not let you look for that"
end

return M

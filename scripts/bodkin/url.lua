-- SPDX-License-Identifier: MIT
-- Where a server is, as text: bodkin://HOST[:PORT]. IPv6 addresses stand in brackets.

local M = { default_port = 4433 }

local shape = "give it as bodkin://HOST[:PORT]"

local function fail(text, why)
  return nil, ("%q is not a server's URL (%s): %s"):format(text, why, shape), "invalid"
end

-- Returns { host =, port = }, or nil, message, "invalid".
function M.parse(text)
  if type(text) ~= "string" then return nil, "no server given: " .. shape, "invalid" end
  local rest = text:match("^bodkin://(.*)$")
  if not rest then return fail(text, "it does not begin with bodkin://") end
  if rest:find("#", 1, true) then return fail(text, "keys are not checked by this version, so leave out #...") end
  rest = rest:gsub("/$", "")
  local host, port = rest:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = rest:match("^([%w._-]+):?(%d*)$") end
  if not host then return fail(text, "no host in it, or something after the port") end
  if rest:find(":$") then return fail(text, "no port after the colon") end
  port = port == "" and M.default_port or math.tointeger(tonumber(port))
  if not port or port < 1 or port > 65535 then return fail(text, "a port is 1 to 65535") end
  return { host = host, port = port }
end

function M.format(host, port)
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  return ("bodkin://%s:%d"):format(host, port or M.default_port)
end

return M

-- SPDX-License-Identifier: MIT
-- For fuzz_message: all schemas, and a function that hands a datagram to a router with a handler for each of them.
-- A handler writes what it got again, which has to be read the same, and answers with everything there is.
local core = require "bodkin.core"
local message = require "bodkin.message"

local fail = ...
core.on_error(fail)

local FROM = core.addr.parse "192.0.2.1:1000"
local schemas = { core.wire.peer_schemas.test, core.wire.peer_schemas.confirm, table.unpack(message.all) }
local TX = ("t"):rep(12)

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

local counters = core.counters()
local router = core.router(counters)
local bytes, proven, request, handled, sent, sent_bytes

local socket = {
  send = function(_, to, out)
    if to ~= FROM then error "sent elsewhere" end
    sent, sent_bytes = sent + 1, sent_bytes + #out
  end,
}

router:refuse(message.refused)
router:reply_schemas(schemas)
for _, schema in ipairs(schemas) do
  router:on(schema, nil, function(reply, from, ...)
    handled, request = true, schema.request
    local count, values = select("#", ...), { ... }
    local again = assert(schema:encode(...))
    local read = table.pack(schema:decode(again))
    if read.n ~= count then error(schema.name .. ": another number of fields") end
    for i = 1, count do
      if not same(values[i], read[i]) then error(schema.name .. ": field " .. i .. " is read otherwise") end
    end
    if from ~= FROM or reply:length() ~= #bytes or reply:at() then error "not as it came" end
    if bytes:byte(-1) == 0 then
      reply:proven()
      proven = true
    end
    reply(schema.name, ...)
    reply("refused", TX, 1001, "no")
    reply("done", TX)
  end)
end

local function input(given)
  bytes, proven, request, handled, sent, sent_bytes = given, false, false, false, 0, 0
  local taken = router:input(socket, FROM, given)
  if handled and not taken then error "handled, but not taken" end
  if proven then
    if sent ~= 3 then error "not all was sent to who is proven" end
  elseif sent > 1 or sent_bytes > #given or (sent > 0 and handled and not request) then
    error "the reply rule is broken"
  end
  if counters:get "handler_error" > 0 then error "a handler failed" end
end

return input, table.unpack(schemas)

-- SPDX-License-Identifier: MIT
-- One policy in one sandbox, with the pass around it: its functions in, plain values out.

local core = require "bodkin.core"
local network = require "bodkin.policy.network"

local wire = core.wire

local M = {}
local NONE, NIL, TRUE = "\x80", "\xc0", "\xc3" -- an encoded map of nothing, nil, and true
local UNKNOWN = "\x95\xc0\xc0\xc0\xc0\xc0" -- of whom nothing is known
local Instance = {}
Instance.__index = Instance

-- What one run of a policy may use: a pass, or the admission of one ticket or client.
M.limits = { memory = 32 << 20, instructions = 10000000 }

-- The main chunk of one of our modules, wherever it comes from: a file, or the binary.
local function chunk_of(name)
  for _, searcher in ipairs(package.searchers) do
    local chunk = searcher(name)
    if type(chunk) == "function" then return chunk end
  end
  error("no module " .. name)
end

-- In the sandbox, `require "bodkin"` gives policy, what is known of the network (bindings/sandbox_net.c), and marks for
-- the other kinds of file.
local bodkin_text = [[
local net = require "bodkin.net"
local function of(kind) return function() return { kind = kind } end end
return { policy = require("bodkin.policy").policy, rtt_ms = net.rtt_ms, reach = net.reach, best_host = net.best_host,
  place = net.place, config = of "config", scenario = of "scenario", role = of "role" }
]]

local function decoded(bytes, ...)
  if bytes == nil then return nil, ... end
  return (wire.decode(bytes))
end

local function call(self, name, ...)
  return decoded(self.sandbox:call(name, ...))
end

-- `return bodkin.policy { … }` is a tail call, so an error in the definition knows no line. It begins with the field.
local function line_of(source, msg)
  local text = source.files and source.files[1].text or ""
  local field = msg:match "^policy: has no field '([%w_]+)'" or msg:match "^policy: props[.:] ?'?([%w_]+)"
    or msg:match "^policy: claims[.:] ?'?([%w_]+)" or msg:match "^policy: ([%w_]+)"
  local at = field and text:find("%f[%w_]" .. field .. "%s*=") or text:find("%.policy%f[^%w_]") or 1
  local _, before = text:sub(1, at - 1):gsub("\n", "")
  return ("%s:%d: "):format(source.name, before + 1)
end

-- source: see source.lua; limits: as above; state: what another instance's state() gave, or nil; around: the module
-- around the policy, else the pass. Returns the instance, whose `about` is { kind = "policy", size, teams, window_ms,
-- on_register = whether it has one } or { kind = what else the file returned }; or nil, message, code.
function M.new(source, limits, state, around)
  local sandbox = core.sandbox(limits or M.limits)
  local self = setmetatable({ sandbox = sandbox, source = source }, Instance)
  sandbox:net_table(network.default)
  for _, name in ipairs { "bodkin.policy", "bodkin.suggestion" } do sandbox:module(name, chunk_of(name)) end
  sandbox:module("bodkin", bodkin_text, "=bodkin")
  if source.files then
    for _, file in ipairs(source.files) do sandbox:module(file.name, file.text, file.chunkname) end
  else
    sandbox:module("policy", chunk_of("bodkin.policies." .. source.name))
  end
  local ok, msg, code = true, nil, nil
  if state then ok, msg, code = sandbox:restore(state) end
  if ok then ok, msg, code = sandbox:load(chunk_of(around or "bodkin.policy.pass")) end
  if ok then
    self.about, msg, code = call(self, "start")
    ok = self.about
  end
  if ok then return self end
  if not msg:find ":%d+:" then msg = line_of(source, msg) .. msg end
  if msg:find "%(global 'bodkin'%)" then msg = msg .. [[: begin the file with local bodkin = require "bodkin"]] end
  sandbox:close()
  return nil, msg, code
end

-- What a file is: the `about` of its instance; or nil, message, code.
function M.about(source, limits)
  local instance, msg, code = M.new(source, limits)
  if not instance then return nil, msg, code end
  local about = instance.about
  instance:close()
  return about
end

-- What is wrong with a file of that kind, where a policy is wanted.
function M.not_policy(source, kind)
  local a = kind == "nothing" and "" or kind:find "^[aeiou]" and "an " or "a "
  return ("%s returns %s%s, not a policy: end it with return bodkin.policy { … }"):format(source.name, a, kind)
end

-- The declared "props" or "claims": name -> { kind =, optional =, min =, max =, default =, among = }.
function Instance:declared(what)
  local out = {}
  for _, bytes in ipairs { assert(self.sandbox:call("declared", wire.encode(what))) } do
    local one = wire.decode(bytes)
    if one ~= wire.null then out[one.name] = one.spec end
  end
  return out
end

-- true; false and why not; or nil, message, code: the policy failed.
local function verdict(bytes, why, code)
  if not bytes then return nil, why, code end
  if wire.decode(bytes) then return true end
  return false, wire.decode(why)
end

-- A ticket { no =, app =, since_ms =, members = { { props, claims, net }, … }: who leads it first; claims, and net
-- (where it is: network.lua), are encoded, or nil for none; seats = of a running match, which has one member with the
-- props of all: open places by team }. asked: it was admitted before.
-- true; false and why it is not admitted; or nil, message, code: the policy failed. What is known of the network is set
-- before the policy is asked.
function Instance:add(ticket, asked, now_ms)
  local args = { wire.encode { ticket.no, ticket.app, ticket.since_ms, asked or false, now_ms, ticket.seats or false } }
  self.sandbox:net_drop(ticket.no)
  local is_known = false -- of any of them; else it need not be kept
  for _, m in ipairs(ticket.members) do is_known = is_known or m[3] ~= nil and m[3] ~= UNKNOWN end
  for i, m in ipairs(ticket.members) do
    args[#args + 1] = wire.encode(m[1])
    args[#args + 1] = m[2] or NONE
    args[#args + 1] = m[3] or NIL
    if is_known then self.sandbox:net_set(ticket.no, i, m[3] or UNKNOWN) end
  end
  local ok, why, code = verdict(self.sandbox:call("add", table.unpack(args)))
  if not ok then self.sandbox:net_drop(ticket.no) end
  return ok, why, code
end

-- How likely NATs of two classes let each other through: see network.lua.
function Instance:network(bytes) self.sandbox:net_table(bytes) end

-- Tells one of policy.HOOKS: true, or nil, message, code. what: a value, see pass.lua.
function Instance:event(name, what)
  local ok, msg, code = self.sandbox:call("event", wire.encode(name), wire.encode(what))
  if not ok then return nil, msg, code end
  return true
end

-- Why a ticket waits, as { waited_ms =, others = of its app, elsewhere = of those in another shard, fit = compatible
-- ones, reasons = { { text, count }, … } }, or nil where there is none of that number; nil, message, code: it failed.
function Instance:explain(no, now_ms)
  local bytes, msg, code = self.sandbox:call("explain", wire.encode(no), wire.encode(now_ms))
  if not bytes then return nil, msg, code end
  local said = wire.decode(bytes)
  return said ~= wire.null and said or nil
end

-- A client { id = hexadecimal, app =, name =, props =, claims = } (the latter two encoded), before it is registered;
-- what is returned as above.
function Instance:register(client)
  return verdict(self.sandbox:call("register", wire.encode { client.id, client.app, client.name }, client.props,
    client.claims))
end

-- Of an instance around which is search.lua: may a client (as above) list what this query (encoded) finds? true and the
-- query in its place, encoded; false and why not; or nil, message, code.
function Instance:search(client, query)
  local bytes, said, code = self.sandbox:call("search", wire.encode { client.id, client.app, client.name },
    client.props, client.claims, query)
  if not bytes then return nil, said, code end
  if wire.decode(bytes) then return true, said end
  return false, wire.decode(said)
end

function Instance:drop(no)
  self.sandbox:net_drop(no)
  return self.sandbox:call("drop", wire.encode(no))
end

-- Whether that is what a running match is filled up with, as its run returns it: policies have the functions that ours
-- there uses, and may change them. Matches come from C (sandbox:told), which nothing in there can change.
local function is_fill(match)
  if type(match) ~= "table" or type(match[1]) ~= "table" or math.type(match[4]) ~= "integer" then return false end
  for _, team in ipairs(match[1]) do
    if type(team) ~= "table" then return false end
    for _, no in ipairs(team) do
      if math.type(no) ~= "integer" then return false end
    end
  end
  return true
end

-- Those of a match wait no more; one that does not come about has them added again. A told one's are forgotten there.
local function forget(sandbox, match)
  for _, team in ipairs(match[1]) do
    for _, no in ipairs(team) do sandbox:net_drop(no) end
  end
  sandbox:net_drop(match[4])
end

-- One pass: an array of { teams of ticket numbers, host or false, data or null, number of the running match that they
-- join or nil }, and whether it came to its end (else the next goes on from there); or nil, message, code.
function Instance:tick(now_ms)
  local results = table.pack(self.sandbox:call("tick", wire.encode(now_ms)))
  if results[1] == nil then return nil, results[2], results[3] end
  local told = self.sandbox:told()
  local whole = results[1] == TRUE
  if results.n == 1 then return told, whole end -- none is filled up
  local out = {}
  for i = 2, results.n do
    local match = wire.decode(results[i])
    if not is_fill(match) then return nil, self.source.name .. ": the pass told what is no match", "invalid" end
    forget(self.sandbox, match)
    out[i - 1] = match
  end
  return table.move(told, 1, #told, #out + 1, out), whole
end

-- The policy's table `state`, as bytes; nil, message, code where it cannot be kept.
function Instance:state() return self.sandbox:state() end

-- What it printed since, as lines.
function Instance:said()
  local lines = {}
  for line in self.sandbox:said():gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

function Instance:close()
  self.sandbox:close()
end

return M

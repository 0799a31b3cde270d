-- SPDX-License-Identifier: MIT
-- The parts of docs/PROTOCOL.md that are made from the code: messages, vectors, errors, reasons, numbers, counters. And
-- of docs/SECURITY.md, the table of what is answered to whom; of docs/WHY.md, the transcript; of docs/NAT.md, what
-- netcheck says.
-- `lua5.4 docs/tables.lua` (with the module bodkin.core on its path: `make docs`) writes them between their
-- markers; a spec fails when they differ.

package.path = "docs/?.lua;" .. package.path

local core = require "bodkin.core"
local message = require "bodkin.message"
local numbers = require "numbers"

local M = { file = "docs/PROTOCOL.md" }

local function kind_text(f)
  local kind, optional = f[2]:match "^(%a+)(%??)$"
  local min, max = f[3], f[4]
  local text = kind
  if kind == "bin" or kind == "str" then
    text = kind .. " " .. (min == max and min or min == 0 and "≤" .. max or min .. "–" .. max)
  elseif kind == "uint" then
    text = "uint " .. min .. "–" .. max
  elseif kind == "addrs" or kind == "bins" then
    text = (kind == "addrs" and "addr" or "bin") .. " × ≤" .. max
  elseif kind == "any" then
    text = "any ≤" .. max
  end
  return text .. optional
end

local function messages(list)
  local out = { "| no. | message | asks | sealed | fields |", "|---|---|---|---|---|" }
  for _, s in ipairs(list or message.all) do
    local fields = {}
    for i, f in ipairs(s.fields) do fields[i] = ("`%s` %s"):format(f[1], kind_text(f)) end
    out[#out + 1] = ("| %d | `%s` | %s | %s | %s |"):format(s.type, s.name, s.request and "yes" or "",
      s.sealed and "yes" or "", table.concat(fields, ", "))
  end
  return table.concat(out, "\n")
end

local function peer_messages()
  local list = {}
  for _, s in pairs(core.wire.peer_schemas) do list[#list + 1] = s end
  table.sort(list, function(a, b) return a.type < b.type end)
  return messages(list)
end

local function counters()
  local out = { "| counter | what is counted |", "|---|---|" }
  for _, c in ipairs(core.counters():all()) do out[#out + 1] = ("| %s | %s |"):format(c.name, c.text) end
  return table.concat(out, "\n")
end

-- The length of the msgpack value at `at`.
local function value_length(bytes, at)
  local b = bytes:byte(at)
  local function items(n, head)
    local len = head
    for _ = 1, n do len = len + value_length(bytes, at + len) end
    return len
  end
  local function big(n) return (string.unpack(">I" .. n, bytes, at + 1)) end
  if b < 0x80 or b >= 0xe0 or b == 0xc0 or b == 0xc2 or b == 0xc3 then return 1 end
  if b < 0x90 then return items(2 * (b & 15), 1) end
  if b < 0xa0 then return items(b & 15, 1) end
  if b < 0xc0 then return 1 + (b & 31) end
  if b == 0xc4 or b == 0xd9 then return 2 + big(1) end
  if b == 0xc5 or b == 0xda then return 3 + big(2) end
  if b >= 0xcc and b <= 0xcf then return 1 + (1 << (b - 0xcc)) end
  if b >= 0xd0 and b <= 0xd3 then return 1 + (1 << (b - 0xd0)) end
  if b == 0xdc then return items(big(2), 3) end
  error(("no vector should hold byte %02x"):format(b))
end

-- A value for each field, the same at each run.
local function sample(f, n)
  local kind, min = f[2]:match "%a+", f[3]
  if f[2]:find "?" and f[1] ~= "proof" and f[1] ~= "code" then return nil end
  if kind == "bin" then return string.char(0x10 * n):rep(min) end
  if kind == "str" then return f[1] == "code" and "bodav-lirom-tifug" or f[1] end
  if kind == "uint" then return math.max(min, 1000 + n > f[4] and min or f[1] == "code" and 1001 or min) end
  if kind == "bool" then return true end
  if kind == "addr" then return core.addr.parse "203.0.113.7:40000" end
  if kind == "addrs" then return { core.addr.parse "192.168.1.7:40000" } end
  if kind == "bins" and f[1] == "keys" then return { ("\x55"):rep(32) } end
  if kind == "bins" then return { core.addr.parse "203.0.113.7:40000" .. ("\x55"):rep(20) } end
  if kind == "any" and f[1] == "props" then return core.wire.encode { map = "dust" } end
  if kind == "any" and f[1] == "report" then
    return require("bodkin.outcome").pack({ state = "connected", path = "direct", via = "srflx", first_ms = 40.7,
      confirmed_ms = 81.3, rtt_ms = 81.3, lasted_ms = 1081.3, paths = { { remote = "203.0.113.7:40000", via = "srflx",
      state = "valid", tests = 1, rtt_ms = 81.3 } } }, 1)
  end
  if kind == "any" and f[1] == "entries" then return core.wire.encode(core.wire.array {}) end
  return "\xc0"
end

local function hex_line(bytes, comment)
  local hex = bytes:gsub(".", function(c) return ("%02x "):format(c:byte()) end):sub(1, -2)
  return ("%-52s; %s"):format(hex, comment)
end

function M.vector(s)
  local values, n = {}, 0
  for i, f in ipairs(s.fields) do
    if f[2] ~= "pad" then
      n = n + 1
      values[n] = sample(f, i)
    end
  end
  return assert(s:encode(table.unpack(values, 1, n)))
end

local function vectors()
  local out = {}
  for _, s in ipairs(message.all) do
    local bytes = M.vector(s)
    local head = #s.fields + 2 < 16 and 1 or 3
    local lines = { "```hex " .. s.name, hex_line(bytes:sub(1, head), "array of " .. (#s.fields + 2)) }
    lines[#lines + 1] = hex_line(bytes:sub(head + 1, head + 1), ("type %d, %s"):format(s.type, s.name))
    lines[#lines + 1] = hex_line(bytes:sub(head + 2, head + 2), "version 1, no features")
    local at = head + 3
    for _, f in ipairs(s.fields) do
      local len = value_length(bytes, at)
      lines[#lines + 1] = hex_line(bytes:sub(at, at + len - 1), f[1])
      at = at + len
    end
    assert(at == #bytes + 1)
    out[#out + 1] = table.concat(lines, "\n") .. "\n```"
  end
  return table.concat(out, "\n\n")
end

local function errors()
  local list = {}
  for name, e in pairs(core.errors) do list[#list + 1] = { name = name, e = e } end
  table.sort(list, function(a, b) return a.e.value > b.e.value end)
  local out = { "| code | name | exit of the command line | meaning |", "|---|---|---|---|" }
  for _, x in ipairs(list) do
    out[#out + 1] = ("| %d | %s | %d | %s |"):format(-x.e.value, x.name, x.e.exit, x.e.text)
  end
  out[#out + 1] = "\n| reason | why a path failed or a session closed |\n|---|---|"
  for _, r in ipairs(core.reasons) do out[#out + 1] = ("| %s | %s |"):format(r.name, r.text) end
  return table.concat(out, "\n")
end

M.sections = {
  messages = messages, ["peer messages"] = peer_messages, vectors = vectors, errors = errors,
  numbers = numbers.table, counters = counters,
}

M.security = {
  file = "docs/SECURITY.md",
  sections = {
    amplification = function()
      local amplification = require "spec.servers.amplification"
      return amplification.markdown(amplification.measure())
    end,
  },
}

M.why = {
  file = "docs/WHY.md",
  sections = {
    transcript = function() return require("spec.cli.story").transcript() end,
    waits = function() return require("spec.policy.wait_story").operator() end,
    waiting = function() return require("spec.policy.wait_story").player() end,
  },
}
M.nat = { file = "docs/NAT.md", sections = { netcheck = function() return require("netcheck").transcripts() end } }

-- The document with its made parts made anew.
function M.fill(text, sections)
  for name, make in pairs(sections or M.sections) do
    local open, close = "<!-- " .. name .. " -->\n", "<!-- /" .. name .. " -->"
    local from = assert(select(2, text:find(open, 1, true)), "no marker for " .. name)
    local to = assert(text:find(close, from, true), "no end marker for " .. name)
    text = text:sub(1, from) .. make() .. "\n" .. text:sub(to)
  end
  return text
end

function M.read(file)
  local f <close> = assert(io.open(file or M.file))
  return f:read "a"
end

if arg and arg[0] and arg[0]:find "docs/tables%.lua$" then
  for _, document in ipairs { M, M.security, M.why, M.nat } do
    local text = M.fill(M.read(document.file), document.sections)
    local f <close> = assert(io.open(document.file, "w"))
    f:write(text)
  end
end

return M

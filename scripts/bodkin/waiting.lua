-- SPDX-License-Identifier: MIT
-- What a policy says of a ticket that waits (see policy/pass.lua, explain), in words: for who asks a server, and for
-- its own client.

local printable = require("bodkin.client.request").printable

local M = {}

local REASONS_SHOWN = 3

-- What comes from elsewhere, as text and as a number.
function M.text_of(value) return printable(type(value) == "string" and value:sub(1, 100) or "?") end
function M.number_of(value) return math.type(value) == "integer" and value or 0 end

local text_of, number_of = M.text_of, M.number_of

function M.seconds(ms)
  ms = number_of(ms)
  return ms < 10000 and ("%.1f s"):format(ms / 1000) or ("%d s"):format(ms // 1000)
end

-- The reasons of a policy, the commonest first: those that differ in numbers alone are one.
local function reasons_of(said)
  local list, by_kind, looked = {}, {}, number_of(said.fit)
  for _, r in ipairs(type(said.reasons) == "table" and said.reasons or {}) do
    if type(r) ~= "table" then r = {} end
    local text, n = text_of(r[1]), number_of(r[2])
    local kind = text:gsub("%d[%d.]*", "0")
    if not by_kind[kind] then
      by_kind[kind] = { text = text, n = 0 }
      list[#list + 1] = by_kind[kind]
    end
    by_kind[kind].n, looked = by_kind[kind].n + n, looked + n
  end
  for i, r in ipairs(list) do r.i = i end
  table.sort(list, function(a, b)
    if a.n ~= b.n then return a.n > b.n end
    return a.i < b.i
  end)
  return list, looked
end

-- What a policy said of a ticket, in words.
function M.said(said)
  local others, elsewhere = number_of(said.others), number_of(said.elsewhere)
  if others == 0 then return "nobody else waits there" end
  local parts = {}
  local list, looked = reasons_of(said)
  for i = 1, math.min(#list, REASONS_SHOWN) do
    parts[i] = ("%s (%d of %d)"):format(list[i].text, list[i].n, looked)
  end
  local fit = number_of(said.fit)
  if fit > 0 then parts[#parts + 1] = ("%d of %d would fit, it takes more"):format(fit, looked) end
  if elsewhere > 0 then parts[#parts + 1] = ("%d wait apart, in another shard"):format(elsewhere) end
  return #parts > 0 and table.concat(parts, "; ") or ("none of %d was looked at"):format(others)
end

-- An event queued that says why, of a client's own ticket.
function M.sentence(e) return ("waiting for %.0f s: %s"):format(e.waited_ms / 1000, e.reason) end

return M

-- SPDX-License-Identifier: MIT
-- Why tickets wait, and how they ended, as sentences: of what servers/waits.lua says.

local printable = require("bodkin.cli.output").printable

local M = {}

local REASONS_SHOWN = 3
local order = { "event", "ticket", "queue", "state", "id", "name", "size", "here", "waited_ms", "how", "match", "ago_s",
  "said", "others", "elsewhere", "fit", "reasons" }

local function text_of(value) return printable(type(value) == "string" and value:sub(1, 100) or "?") end
local function number_of(value) return math.type(value) == "integer" and value or 0 end

local function seconds(ms)
  ms = number_of(ms)
  return ms < 10000 and ("%.1f s"):format(ms / 1000) or ("%d s"):format(ms // 1000)
end

-- The reasons of a policy, the commonest first: those that differ in numbers alone are one.
local function reasons_of(said)
  local list, by_kind, looked = {}, {}, number_of(said.fit)
  for _, r in ipairs(type(said.reasons) == "table" and said.reasons or {}) do
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

-- A ticket, as a sentence.
function M.sentence(t)
  local name = text_of(t.name)
  local who = name ~= "" and name ~= "?" and name or text_of(t.id):sub(1, 8)
  local head = ("%s  %s: "):format(text_of(t.ticket):sub(1, 8), who)
  local waits = ("waits in %s for %s"):format(text_of(t.queue), seconds(t.waited_ms))
  if t.state == "asked" then return head .. waits .. ": asked to accept a match" end
  if t.state == "party" then
    return ("%s%s: %d of its party of %d are there"):format(head, waits, number_of(t.here), number_of(t.size))
  end
  local why = type(t.said) == "table" and ": " .. M.said(t.said) or ""
  if t.state ~= "ended" then return head .. waits .. why end
  local how = type(t.match) == "string" and "matched, " .. text_of(t.match):sub(1, 12) or text_of(t.how)
  return ("%swaited %s in %s%s; %s, %d s ago"):format(head, seconds(t.waited_ms), text_of(t.queue), why, how,
    number_of(t.ago_s))
end

-- Shows a server's list of them; whether there was one.
function M.show(out, tickets)
  if type(tickets) ~= "table" then return false end
  for _, t in ipairs(tickets) do
    if type(t) == "table" then
      if out.json then
        t.event = "ticket"
        out:object(t, order)
      else
        out:line(M.sentence(t))
      end
    end
  end
  return tickets[1] ~= nil
end

return M

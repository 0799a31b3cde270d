-- SPDX-License-Identifier: MIT
-- Why tickets wait, and how they ended, as sentences: of what servers/waits.lua says.

local waiting = require "bodkin.waiting"

local number_of, seconds, text_of = waiting.number_of, waiting.seconds, waiting.text_of

local M = {}

local order = { "event", "ticket", "queue", "state", "id", "name", "size", "here", "waited_ms", "how", "match", "ago_s",
  "said", "others", "elsewhere", "fit", "reasons" }

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
  local why = type(t.said) == "table" and ": " .. waiting.said(t.said) or ""
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

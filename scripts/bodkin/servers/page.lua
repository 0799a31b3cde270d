-- SPDX-License-Identifier: MIT
-- Pages of the registry, written as msgpack by hand: an entry's properties are encoded already and only
-- copied. Layout in docs/PROTOCOL.md, message page.

local M = {}

local PAGE_MAX = 1100 -- bytes of whole entries a page, the array's head included
local ENTRY_MAX = 256

local function bin(s) return "\xc4" .. string.char(#s) .. s end
local function str(s) return (#s < 32 and string.char(0xa0 | #s) or "\xd9" .. string.char(#s)) .. s end
local function array(n) return n < 16 and string.char(0x90 | n) or string.pack(">BI2", 0xdc, n) end

local function bins(list, count)
  local parts = { array(count) }
  for i = 1, count do parts[i + 1] = bin(list[i]) end
  return table.concat(parts)
end

-- [id, name, props], or with `pubs` [id, name, props, pubs, locals]; as many locals as fit an entry.
function M.entry(e, pubs, locals)
  local head = bin(e.id) .. str(e.name) .. e.props
  if not pubs then return array(3) .. head end
  head = array(5) .. head .. bins(pubs, #pubs)
  local n = #locals
  local tail = bins(locals, n)
  while n > 0 and #head + #tail > ENTRY_MAX do
    n = n - 1
    tail = bins(locals, n)
  end
  return head .. tail
end

-- Fills a page from the registry. encode(entry) -> bytes. Returns the encoded array, and the cursor to go
-- on from or nil at the end.
function M.fill(registry, cursor, app, query, budget, encode)
  local entries, bytes = {}, 3
  local next_cursor
  while true do
    local entry, x = registry:after(cursor, app, query, budget) -- entry, budget | nil | false, last id
    if not entry then
      next_cursor = entry == false and x or nil
      break
    end
    budget = x
    local one = encode(entry)
    if bytes + #one > PAGE_MAX then
      next_cursor = cursor
      break
    end
    bytes = bytes + #one
    entries[#entries + 1], cursor = one, entry.id
    if budget == 0 then
      next_cursor = cursor
      break
    end
  end
  return array(#entries) .. table.concat(entries), next_cursor
end

return M

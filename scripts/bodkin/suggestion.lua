-- SPDX-License-Identifier: MIT
-- What somebody may have meant who misspelt a word. Also for the sandbox of policies, so it requires nothing.

-- Levenshtein's distance.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      row[j] = a:byte(i) == b:byte(j) and diagonal or 1 + math.min(diagonal, above, row[j - 1])
      diagonal = above
    end
  end
  return row[#b]
end

-- " (did you mean X?)" when one of `known` is close to `text`, else "".
return function(text, known)
  local best, least = nil, math.max(2, #text // 3) + 1
  for _, word in ipairs(known) do
    local d = math.abs(#text - #word) -- at least, so that a long text costs nothing
    if word:find(text, 1, true) == 1 and #text > 1 then d = 1 elseif d < least then d = distance(text, word) end
    if d < least then best, least = word, d end
  end
  return best and (" (did you mean %s?)"):format(best) or ""
end

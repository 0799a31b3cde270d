-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"
local replay = require "bodkin.replay"

local function shorten(word) return #word > 40 and word:sub(1, 16) .. "…(" .. #word // 2 .. " bytes)" or word end

-- What changed among a session's paths since it was last looked at.
local function path_changes(mux, session, seen)
  local out = {}
  for _, p in ipairs(mux:paths(session) or {}) do
    local at = require("bodkin.core").addr.format(p.remote)
    local key, now = session .. " " .. at, p.state .. (p.reason ~= "none" and "(" .. p.reason .. ")" or "")
      .. (p.selected and ", selected" or "")
    if seen[key] ~= now then
      out[#out + 1] = ("path %s: %s"):format(at, now)
      seen[key] = now
    end
  end
  return out
end

return {
  usage = "bodkin replay FILE",
  summary = "walk a session's machines through a trace again",
  text = [[
Reads what --trace FILE wrote, feeds the same inputs to the same machines, and checks that they put out the same,
byte for byte. With -v every step is shown, and with it what became of each path.
Exit code 3 when a line differs: it says which.]],
  options = {},
  arguments = 1,
  run = function(values, rest)
    if not rest[1] then return nil, "which trace?", "usage" end
    local file, err = io.open(rest[1])
    if not file then return nil, err, "invalid" end
    local first_us, sessions, seen = nil, {}, {}
    local function each(line, mux, words)
      if not values.verbose then return end
      first_us = first_us or tonumber(words[1])
      local session = words[1] == ">" and math.tointeger(words[2])
      if session then sessions[session] = true end
      for i, word in ipairs(words) do words[i] = output.printable(shorten(word)) end
      if words[1] == ">" then
        print("                " .. table.concat(words, " "))
      elseif tonumber(line:match "^%d+") then
        words[1] = ("%12.3f ms"):format((tonumber(line:match "^%d+") - first_us) / 1000)
        print(table.concat(words, " "))
      end
      for id in pairs(sessions) do
        for _, change in ipairs(path_changes(mux, id, seen)) do print("                  " .. change) end
      end
    end
    local result, message, number = replay.run(file:lines(), each)
    file:close()
    if not result then
      io.stderr:write(output.printable(("%s:%d: %s"):format(rest[1], number, message)), "\n")
      return 3
    end
    print(("%d inputs, %d outputs: all as recorded"):format(result.inputs, result.outputs))
    return 0
  end,
}

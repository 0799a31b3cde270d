-- SPDX-License-Identifier: MIT
-- Walks the machines of a trace again: the same seed and the same inputs must put out the same bytes. Made by
-- mux:trace (see bindings/mux_trace.h); the format stands in docs/PROTOCOL.md.

local core = require "bodkin.core"

local M = {}

local function bytes_of(hex) return hex == "-" and "" or core.crypto.unhex(hex) end

local function words_of(line)
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = word end
  return words
end

-- Applies an input line, split into words. Throws when it is none.
local verbs = {}

local function candidates_of(w, first)
  local list = {}
  for i = first, #w, 3 do
    list[#list + 1] = { assert(core.addr.parse(w[i + 2])), w[i], math.tointeger(w[i + 1]) }
  end
  return list
end

function verbs.add(mux, now, w)
  mux:add(now, {
    match = bytes_of(w[3]), key = bytes_of(w[4]), self = bytes_of(w[5]), peer = bytes_of(w[6]),
    own = bytes_of(w[7]), own_ephemeral = bytes_of(w[8]), peer_key = bytes_of(w[9]), peer_ephemeral = bytes_of(w[10]),
    start_in_ms = tonumber(w[11]) / 1000, opener_ttl = math.tointeger(w[12]), candidates = candidates_of(w, 13),
  })
end

function verbs.renew(mux, now, w)
  mux:renew(now, math.tointeger(w[3]), {
    epoch = math.tointeger(w[4]), start_in_ms = tonumber(w[5]) / 1000, opener_ttl = math.tointeger(w[6]),
    candidates = candidates_of(w, 7),
  })
end

function verbs.send(mux, now, w) mux:send(now, math.tointeger(w[3]), bytes_of(w[4])) end
function verbs.hello(mux, _, w) mux:hello(math.tointeger(w[3])) end

function verbs.relay(mux, now, w)
  mux:relay(now, math.tointeger(w[3]), math.tointeger(w[4]), assert(core.addr.parse(w[5])), math.tointeger(w[6]),
    bytes_of(w[7]))
end

function verbs.listed(mux, now, w) mux:listed(now, math.tointeger(w[3]), candidates_of(w, 4)) end

function verbs.moved(mux, now, w)
  local left = {}
  for i = 3, #w do left[i - 2] = assert(core.addr.parse(w[i])) end
  mux:moved(now, left)
end

function verbs.leave(mux, now, w) mux:leave(now, math.tointeger(w[3])) end
function verbs.tick(mux, now) mux:tick(now) end

function verbs.input(mux, now, w)
  local to = w[5] ~= "-" and assert(core.addr.parse(w[5])) or nil
  mux:input(now, math.tointeger(w[3]), assert(core.addr.parse(w[4])), to, bytes_of(w[6]))
end

function verbs.unreachable(mux, now, w) mux:unreachable(now, assert(core.addr.parse(w[3]))) end

-- `lines`: an iterator of a trace's lines. `each(line, mux, is_output)` sees every line after it was applied.
-- Returns { inputs =, outputs =, counters = }; or nil, message, number of the line that differs or is no line.
function M.run(lines, each)
  local mux, number, result = nil, 0, { inputs = 0, outputs = 0, counters = core.counters() }
  local said
  for line in lines do
    number = number + 1
    local w = words_of(line)
    if number == 1 then
      if w[1] ~= "bodkin-trace" then return nil, "this is no trace: its first line must be bodkin-trace 3 …", 1 end
      if w[2] ~= "3" then return nil, "a trace of format " .. tostring(w[2]) .. "; this version reads 3", 1 end
      local ok, made = pcall(function()
        return core.mux { seed = bytes_of(w[3]), max_sessions = math.tointeger(w[4]), counters = result.counters }
      end)
      if not ok then return nil, "the first line is damaged: " .. made, 1 end
      mux = made
      mux:trace(function(text) said = text end)
    elseif w[1] == ">" then
      said = nil
      mux:next()
      if said ~= line then
        return nil, ("recorded: %s\nreplayed: %s"):format(line, said or "nothing"), number
      end
      result.outputs = result.outputs + 1
    else
      local verb = verbs[w[2] or ""]
      local ok, err = pcall(verb or error, mux, math.tointeger(w[1]), w)
      if not verb or not ok then
        return nil, ("not a line of a trace: %s (%s)"):format(line:sub(1, 60), verb and err or "unknown verb"), number
      end
      result.inputs = result.inputs + 1
    end
    if each then each(line, mux, w) end
  end
  if not mux then return nil, "the file is empty", 0 end
  mux:close()
  return result
end

return M

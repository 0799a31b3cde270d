-- SPDX-License-Identifier: MIT
-- Policies that mean harm, each by one means: { name, text }. Each text is a policy's file.

local function in_form(body, before)
  return ('local bodkin = require "bodkin"\n%s\nreturn bodkin.policy { size = 2, window_ms = 50, '
    .. "form = function(anchor, near)\n%s\nend }"):format(before or "", body)
end

return {
  { "an infinite loop", in_form "while true do end" },
  { "a loop in pcall", in_form "while true do pcall(function() while true do end end) end" },
  { "a coroutine's loop", in_form [[
      while true do
        coroutine.resume(coroutine.create(function() while true do end end))
        coroutine.wrap(function() for _ = 1, 100 do end end)()
      end]] },
  { "a loop in __gc", in_form [[
      local mt = {}
      pcall(setmetatable, {}, { __gc = function() while true do end end })
      local t = setmetatable({}, mt)
      mt.__gc = function() while true do end end
      t = nil
      for i = 1, 1e9 do local garbage = { i } end]] },
  { "a pathological pattern", in_form "return (('a'):rep(60)):find('.-.-.-.-.-.-b')" },
  { "a bomb of string.rep", in_form [[
      local s = "x"
      while true do
        pcall(string.rep, "x", 1 << 40)
        pcall(function() s = ("x"):rep(1200) .. s end)
        pcall(string.format, "%99.99f", 1e300)
      end]] },
  { "a bomb of tables", in_form "local t = {} while true do pcall(function() t[#t + 1] = { {}, {} } end) end" },
  { "deep recursion", in_form("return deep(1)",
      "local function deep(n) pcall(deep, n) local x <close> = nil return 1 + deep(n + 1) end") },
  { "a result of nil, itself, dead ids, a million ids", in_form([[
      n = n + 1
      if n % 4 == 1 then return { teams = { { anchor, nil, nil } } } end
      if n % 4 == 2 then return { teams = { { anchor, anchor } } } end
      if n % 4 == 3 then return { teams = { { 99999, -1 } } } end
      local ids = {}
      for i = 1, 1000000 do ids[i] = i end
      return { teams = { ids } }]], "local n = 0") },
  { "bytecode", in_form [[
      local chunk, err = load("\27Lua\x54\0\x19\x93\r\n\x1a\n" .. ("x"):rep(64))
      if chunk then return chunk() end
      error(err)]] },
  -- Beyond these ten: what each of them might have tried next.
  { "a handler that loops", in_form [[
      local function loop() while true do end end
      while true do xpcall(loop, loop) end]] },
  { "a __close that loops", in_form [[
      local mt = {}
      local guard = setmetatable({}, mt)
      mt.__close = function() while true do end end
      local function deep(n) local x <close> = guard return deep(n + 1) + 1 end
      deep(1)]] },
  { "tables without end", in_form [[
      while true do
        pcall(table.move, {}, 1, 1 << 60, 2)
        pcall(table.concat, setmetatable({}, { __len = function() return 1 << 50 end }))
        pcall(table.sort, { 3, 2, 1 }, function() return true end)
        pcall(table.unpack, {}, 1, 1e6)
      end]] },
  { "long texts compared", in_form [[
      local a, b = ("x"):rep(1270) .. "a", ("x"):rep(1270) .. "b"
      while true do local _ = a < b, a == b end]] },
  { "work in C", in_form [[
      local s, t = ("x"):rep(1200), {}
      for i = 1, 20000 do t[i] = i end
      while true do s:byte(1, -1) s:upper() s:rep(1) tonumber(s) for _ in pairs(t) do break end next(t) end]] },
  { "an error that recurses", in_form [[
      local mt = {}
      mt.__index = function(t, k) return t[k .. "x"] end
      mt.__tostring = function(t) return tostring(t) end
      while true do pcall(error, setmetatable({}, mt)) pcall(function() return setmetatable({}, mt).y end) end]] },
}

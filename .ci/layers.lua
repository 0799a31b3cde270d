-- SPDX-License-Identifier: MIT
-- Holds the layers apart: core <- io <- bindings <- host, scripts above them. Looks at includes, at
-- requires, and at the symbols each layer's objects leave undefined; prints the lines of each layer.
-- usage: layers.lua BUILD/VARIANT [ROOT]      (objects in core.a, io.a, bindings.a; sources under ROOT)

local build, root = arg[1], arg[2] or "."

local layers = {
  { name = "core", dir = "runtime/core", sees = { core = true },
    headers = { "^stdbool%.h$", "^stddef%.h$", "^stdint%.h$", "^inttypes%.h$", "^limits%.h$", "^stdarg%.h$",
      "^assert%.h$", "^string%.h$", "^stdio%.h$", "^arpa/inet%.h$", "^netinet/in%.h$", "^sodium%.h$", "^sodium/" },
    -- Of libc what only computes, of libsodium what is deterministic.
    symbols = { "^bdk_", "^mem%a+$", "^str%a+$", "^snprintf$", "^vsnprintf$", "^inet_[pn]to[pn]$", "^__stack_chk_fail$",
      "^_GLOBAL_OFFSET_TABLE_$", "^__assert_fail$", "^crypto_aead_", "^crypto_auth", "^crypto_generichash",
      "^crypto_hash_sha512", "^crypto_kdf_", "^crypto_stream_chacha20", "^crypto_shorthash", "^crypto_scalarmult",
      "^crypto_verify", "^sodium_memzero$", "^sodium_memcmp$", "^sodium_is_zero$", "^sodium_compare$" },
    never = { "keypair$", "keygen$" } },
  { name = "io", dir = "runtime/io", sees = { core = true, io = true },
    no_headers = { "^lua", "^msgpack", "^signal%.h$" },
    symbols = { "^[%a_]" }, never = { "^lua", "^msgpack", "^signal$", "^sigaction$", "^signalfd$", "^exit$",
      "^printf$", "^puts$", "^ev_default_loop", "^fork$", "^exec", "^system$", "^popen$", "^sleep$", "^usleep$" } },
  { name = "bindings", dir = "bindings", sees = { core = true, io = true, bindings = true },
    no_headers = { "^ev%.h$", "^sys/socket%.h$", "^signal%.h$", "^ares" },
    symbols = { "^bdk_", "^luaL?_", "^luaopen_", "^msgpack_", "^sodium_", "^crypto_", "^mem%a+$", "^str%a+$",
      "^v?snprintf$", "^malloc$", "^calloc$", "^realloc$", "^free$", "^__stack_chk_fail$", "^_GLOBAL_OFFSET_TABLE_$",
      "^__errno_location$",
      "^gmtime_r$", "^strftime$", "^time$", "^clock_gettime$", "^write$", "^stderr$", "^f%a+$", "^ll?round$", "^ceil$",
      "^floor$", "^inet_[pn]to[pn]$", "^__assert_fail$", "^__ctype_b_loc$", "^qsort$", "^isatty$" },
    never = { "^fork$", "^fopen$" } },
  { name = "host", dir = "runtime/host", sees = { core = true, io = true, bindings = true, host = true } },
}
local dir_of = { ["runtime/core"] = "core", ["runtime/io"] = "io", bindings = "bindings", ["runtime/host"] = "host" }

local broken = 0
local function complain(format, ...)
  broken = broken + 1
  io.stderr:write("layers: ", format:format(...), "\n")
end

local function matches(text, patterns)
  for _, pattern in ipairs(patterns or {}) do
    if text:find(pattern) then return true end
  end
  return false
end

local function run(command)
  local pipe <close> = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  return list
end

local function files(dir, glob)
  return run(("cd '%s' && find %s -name '%s' 2>/dev/null | sort"):format(root, dir, glob))
end

local function read(path)
  local file <close> = assert(io.open(root .. "/" .. path))
  return file:read "a"
end

-- "runtime/io/../core/addr.h" -> "runtime/core/addr.h"
local function normal(path)
  local before
  repeat
    before = path
    path = path:gsub("[^/.]+/%.%./", "", 1)
  until path == before
  return path
end

local function without_comments(text)
  return (text:gsub("/%*.-%*/", ""):gsub("//[^\n]*", ""))
end

local function check_includes(layer, path, text)
  for quote, name in text:gmatch '#%s*include%s*([<"])([^>"]+)' do
    if quote == '"' then
      local here = normal(path:match "^(.*)/" .. "/" .. name)
      local owner = dir_of[here:match "^(.*)/"] or dir_of["runtime/" .. (name:match "^(.*)/" or "?")]
        or dir_of[name:match "^(.*)/" or "?"]
      local generated = layer.name == "host" and name == "embed.inc"
      if name:find "%.c$" then complain("%s includes a source file, %s", path, name) end
      if not generated and not (owner and layer.sees[owner]) then
        complain("%s (%s) includes %s (%s)", path, layer.name, name, owner or "no layer")
      end
    elseif layer.headers and not matches(name, layer.headers) or matches(name, layer.no_headers) then
      complain("%s (%s) includes <%s>", path, layer.name, name)
    end
  end
end

for _, layer in ipairs(layers) do
  local lines = 0
  for _, path in ipairs(files(layer.dir, "*.[ch]")) do
    local text = read(path)
    lines = lines + select(2, text:gsub("\n", ""))
    text = without_comments(text)
    check_includes(layer, path, text)
    if not path:find "host/main%.c$" then
      for _, name in ipairs { "signal", "sigaction", "signalfd", "ev_default_loop" } do
        if text:find("%f[%w_]" .. name .. "%s*%(") then complain("%s calls %s(); only main.c may", path, name) end
      end
    end
  end
  layer.lines = lines
end

-- What a layer's objects need that they do not define.
for i, layer in ipairs(layers) do
  if not layer.symbols then break end
  local defined, undefined = {}, {}
  for below = 1, i do
    for _, line in ipairs(run(("nm -A %s/%s.a 2>/dev/null"):format(build, layers[below].name))) do
      local kind, symbol = line:match "(%a) (%S+)$"
      if kind == "U" and below == i then undefined[symbol] = line:match ":([^:]+):" or layer.name
      elseif kind and kind:find "[A-TV-Z]" then defined[symbol] = true end
    end
  end
  if not next(defined) then complain("no objects in %s/%s.a: build first", build, layer.name) end
  for symbol, object in pairs(undefined) do
    if defined[symbol] then goto continue end
    if symbol:find "^bdk_" then complain("%s (%s) needs %s, which stands in no layer below", object, layer.name, symbol)
    elseif not matches(symbol, layer.symbols) or matches(symbol, layer.never) then
      complain("%s (%s) needs %s, which is not its to use", object, layer.name, symbol)
    end
    ::continue::
  end
end

-- Scripts see bodkin.core, one another and dkjson; the process itself (bodkin.host) only the command line.
local counts = {}
for _, path in ipairs(files("scripts", "*.lua")) do
  local text = read(path)
  local part = path:match "^scripts/bodkin/([^/]+)/" or "top"
  counts[part] = (counts[part] or 0) + select(2, text:gsub("\n", ""))
  text = text:gsub("%-%-%[%[.-%]%]", ""):gsub("%-%-[^\n]*", "")
  for name in text:gmatch "%f[%w_]require%s*%(?%s*[\"']([^\"']+)" do
    -- What runs inside a sandbox finds the policy there under this name.
    local mine = name == "bodkin" or name:find "^bodkin%." or name == "dkjson"
      or (part == "policy" and name == "policy")
    if not mine then complain("%s requires %s", path, name) end
    if name == "bodkin.host" and part ~= "cli" then complain("%s requires bodkin.host; only the cli may", path) end
    if part ~= "cli" and (name .. "."):find "^bodkin%.cli%." then complain("%s requires %s", path, name) end
  end
end

-- Core's specs know nothing above core.
for _, path in ipairs(files("spec/core", "*.[ch]")) do
  for quote, name in without_comments(read(path)):gmatch '#%s*include%s*([<"])([^>"]+)' do
    local above = quote == '"' and (name:find "io/" or name:find "bindings" or name:find "host/")
    if above or name:find "^lua" or name:find "^ev" then
      complain("%s includes %s", path, name)
    end
  end
end
for _, path in ipairs(files("spec/core", "*.lua")) do complain("%s: core's specs are C", path) end

for _, layer in ipairs(layers) do print(("%-10s %6d lines"):format(layer.name, layer.lines)) end
local parts = {}
for part in pairs(counts) do parts[#parts + 1] = part end
table.sort(parts)
for _, part in ipairs(parts) do print(("scripts/%-10s %5d lines"):format(part, counts[part])) end
if broken > 0 then
  io.stderr:write(("layers: %d broken\n"):format(broken))
  os.exit(1)
end

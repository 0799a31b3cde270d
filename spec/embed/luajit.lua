-- SPDX-License-Identifier: MIT
-- A pair of nodes in LuaJIT, whose own Lua functions have the names of those inside the library.
--   luajit luajit.lua LIBRARY HEADER-FOR-FFI URL

local ffi = require "ffi" -- luacheck: ignore
local library, header, url = ...
local file = assert(io.open(header))
ffi.cdef(file:read("*a"))
file:close()
local bdk = ffi.load(library)

local config = ffi.new("bdk_config")
bdk.bdk_config_init(config, ffi.sizeof(config))
config.server = url
local nodes, heard = {}, {}
for i = 1, 2 do
  local out = ffi.new("bdk_node *[1]")
  assert(bdk.bdk_open(out, config) == 0)
  nodes[i] = out[0]
end
bdk.bdk_host(nodes[1], nil)

local function on_event(i, e)
  if e.kind == ffi.C.BDK_HOSTING then bdk.bdk_join(nodes[2], e.code) end
  if e.kind == ffi.C.BDK_CONNECTED then bdk.bdk_send(nodes[i], e.match, e.peer, 0, "hello " .. i, 7) end
  if e.kind == ffi.C.BDK_MESSAGE then heard[i] = ffi.string(e.data, e.len) end
  if e.kind == ffi.C.BDK_ERROR then error(ffi.string(e.message)) end
end

local limit = os.time() + 10
while not (heard[1] and heard[2]) and os.time() < limit do
  for i = 1, 2 do
    assert(bdk.bdk_update(nodes[i], -1ULL, 0) == 0) -- luacheck: ignore
    while true do
      local e = bdk.bdk_next(nodes[i])
      if e == nil then break end
      on_event(i, e)
    end
  end
  collectgarbage()
end
for i = 1, 2 do bdk.bdk_close(nodes[i]) end
print(heard[1], heard[2], jit.version) -- luacheck: ignore

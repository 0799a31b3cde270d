-- SPDX-License-Identifier: MIT
-- The contract of env, and the specs of loops, timers, sockets and streams, on drive_poll in place of libev.

local build = os.getenv "BUILD" or "build"

describe("on drive_poll", function()
  for _, spec in ipairs { "spec/env_spec.lua", "spec/bindings/loop_spec.lua", "spec/bindings/udp_spec.lua" } do
    it(spec .. " holds", function()
      local cpath = build .. "/release/spec/embed/lua/?.so;;"
      local which <close> = assert(io.popen(("LUA_CPATH='%s' lua5.4 -e 'print(require \"bodkin.core\".loop {})'")
        :format(cpath)))
      assert.equal("loop (poll, run)", which:read("l"))
      local out <close> = assert(io.popen(("exec 2>&1; LUA_CPATH='%s' busted --lua=/usr/bin/lua5.4 -o TAP %s"):format(
        cpath, spec)))
      local text = out:read("a")
      assert.is_nil(("\n" .. text):match("\nnot ok[^\n]*"), text)
      assert.is_truthy(text:match("1%.%.%d+"), text)
    end)
  end
end)

-- SPDX-License-Identifier: MIT
-- The rock: built without a network into a tree of its own, and used by a stock lua5.4.

local build = os.getenv "BUILD" or "build"

describe("rock", function()
  it("builds offline, and a stock Lua can require it", function()
    if not os.execute("command -v luarocks >/dev/null") then return pending("luarocks is not installed: make deps") end
    local pipe <close> = assert(io.popen("mktemp -d"))
    local tree = pipe:read("l")
    local function run(command, ...)
      local out = assert(io.popen("exec 2>&1; " .. command:format(...)))
      local text = out:read("a")
      return text, out:close() == true
    end
    local text, ok = run("BUILD=%s/rock http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 luarocks "
      .. "--lua-version=5.4 --tree=%s make bodkin-scm-1.rockspec", build, tree)
    assert.is_true(ok, text)
    -- Nothing of this checkout is on its paths.
    text, ok = run("cd / && env -i LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so' /usr/bin/lua5.4 -e %s", tree, tree, tree, [['
      local bodkin = require "bodkin"
      local env
      local _, node, _, code = bodkin.run(function()
        env = bodkin.env()
        return bodkin.open { server = "bodkin://127.0.0.1:9", timeout_ms = 50 }
      end)
      print(bodkin.version, env ~= nil, node, code)']])
    os.execute("rm -r " .. tree)
    assert.is_true(ok, text)
    assert.equal("0.1.0\ttrue\tnil\ttimeout\n", text)
  end)
end)

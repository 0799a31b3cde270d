-- SPDX-License-Identifier: MIT
-- Where a server may be asked for its state: by nobody on the network, and by no other user.

local support = require "spec.calm.support"

local USER = 12345 -- nobody's
local PLACE = "/tmp/bodkin-" .. USER

describe("admin socket", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function()
    world:close()
    os.execute("rm -rf " .. PLACE)
  end)

  it("is open to its user alone, and a Unix socket", function()
    local server = world:server()
    local text = support.run { "stat", "-c", "%a %F", server.admin }
    assert.equal("600 socket\n", text)
    for _, where in ipairs { "0.0.0.0:9000", "127.0.0.1:9000", "9000" } do
      local said, ok = support.run { support.release, "serve", "--listen", "127.0.0.1:0", "--admin", where }
      assert.is_false(ok)
      assert.matches(where .. " is a network address: the admin socket is a Unix socket, give its path", said, 1, true)
      assert.is_nil(support.read_file(where))
    end
  end)

  -- The directory below /tmp as the runtime gives it to that user: its path, or why not.
  local function place(make)
    local script = world.dir .. "/place.lua"
    support.write_file(script, ([[
      local path, why = require("bodkin.host").private_dir(%s)
      print(path or why)]]):format(make))
    os.execute("chmod 755 " .. world.dir)
    -- The way to the binary may be closed to that user.
    os.execute(("cp %s %s/bodkin"):format(support.release, world.dir))
    local text = support.run { "setpriv", "--reuid", USER, "--clear-groups", world.dir .. "/bodkin", "run", script }
    return text:match "[^\n]*"
  end

  it("stands below /tmp only in a directory that is that user's alone", function()
    if support.run { "id", "-u" } ~= "0\n" then return pending "only root may become another" end
    assert.matches("No such file", place(false))
    assert.equal(PLACE, place(true))
    assert.equal("700 " .. USER .. "\n", (support.run { "stat", "-c", "%a %u", PLACE }))
    assert.equal(PLACE, place(false))
    local function refused() assert.matches("is not a directory of this user's alone", place(true), 1, true) end
    os.execute("chmod 750 " .. PLACE)
    refused()
    os.execute(("chmod 700 %s; chown root %s"):format(PLACE, PLACE)) -- somebody else was there before
    refused()
    os.execute(("rmdir %s; mkdir %s/trap; chown %d %s/trap; ln -s %s/trap %s"):format(PLACE, world.dir, USER, world.dir,
      world.dir, PLACE))
    refused()
  end)
end)

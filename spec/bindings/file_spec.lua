-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local file = core.file

describe("file", function()
  local dir
  before_each(function() dir = assert(io.popen("mktemp -d")):read("l") end)
  after_each(function() os.execute("rm -r " .. dir) end)

  it("writes what its owner alone may read, and reads it back", function()
    local path, bytes = dir .. "/a", core.crypto.random(65536)
    assert.is_true(file.write(path, bytes))
    assert.equal(bytes, file.read(path))
    assert.equal("600", io.popen("stat -c %a " .. path):read("l"))
    assert.is_true(file.write(path, "", true))
    assert.equal("", file.read(path))
  end)

  it("tells absent, present and exposed apart", function()
    local path = dir .. "/a"
    local function word(v, message, code, w)
      assert.is_nil(v)
      assert.equal("string", type(message))
      return w, code
    end
    assert.equal("absent", (word(file.read(path))))
    assert(file.write(path, "x"))
    assert.equal("exists", (word(file.write(path, "y"))))
    assert(os.execute("chmod 640 " .. path))
    assert.same({ "exposed", "refused" }, { word(file.read(path)) })
    assert.equal("x", file.read(path, tonumber("022", 8)))
    assert.same({ nil, "invalid" }, { word(file.read(dir)) })
    assert(os.execute("chmod 600 " .. path))
    assert(io.open(path, "w")):write(("x"):rep(65537)):close()
    assert.same({ nil, "limit" }, { word(file.read(path)) })
    assert.has_error(function() file.read(path, -1) end)
  end)

  it("makes the directories above a path", function()
    assert.is_true(file.make_parents(dir .. "/b/c/d"))
    assert.equal("700", io.popen(("stat -c %%a %s/b/c"):format(dir)):read("l"))
    assert.is_true(file.write(dir .. "/b/c/d", "x"))
    assert.is_nil((file.make_parents(dir .. "/b/c/d/e/f")))
  end)
end)

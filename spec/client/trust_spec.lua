-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local trust = require "bodkin.client.trust"
local url = require "bodkin.url"

local crypto = core.crypto

describe("trust", function()
  local one, two, three = ("\1"):rep(32), ("\2"):rep(32), ("\3"):rep(32)
  local a, b = crypto.base64url(one), crypto.base64url(two)
  local store, options
  local path = "/config/known_servers"

  before_each(function()
    store = { modes = {}, dirs = {} }
    options = { known_servers = path, files = {
      read = function(at, forbidden)
        if not store[at] then return nil, "No such file or directory", "invalid", "absent" end
        if (store.modes[at] or 384) & forbidden ~= 0 then return nil, "refused", "refused", "exposed" end
        return store[at]
      end,
      write = function(at, bytes, replace)
        assert(replace)
        if store.full then return nil, "No space left on device", "invalid" end
        store[at] = bytes
        return true
      end,
      make_parents = function(at)
        store.dirs[#store.dirs + 1] = at
        return true
      end,
    } }
  end)

  local function at(text) return assert(url.parse("bodkin://" .. text)) end

  it("knows nobody at first, and then who was remembered", function()
    assert.is_nil((trust.known(options, at "h")))
    assert.is_true(trust.remember(options, at "h", { one }))
    assert.equal("h:4433 " .. a .. "\n", store[path])
    assert.same({ path }, store.dirs)
    assert.same({ one }, trust.known(options, at "h:4433"))
    assert.is_nil((trust.known(options, at "h:4434")))
    assert.is_nil((trust.known(options, at "i")))
    assert.is_true(trust.remember(options, at "[2001:DB8::0:1]:5", { one, two }))
    assert.same({ one, two }, trust.known(options, at "[2001:db8:0::1]:5"))
    assert.same({ one }, trust.known(options, at "H"))
  end)

  it("keeps comments, order and what it does not understand", function()
    local before = ("# mine\nh:4433 %s\n??? what\n  i:1\t%s,%s \n"):format(a, a, b)
    store[path] = before
    assert.same({ one, two }, trust.known(options, at "i:1"))
    assert.is_true(trust.remember(options, at "i:1", { one, two }))
    assert.equal(before, store[path]) -- nothing new, nothing written
    assert.is_true(trust.remember(options, at "j", { two }))
    assert.equal(before .. "j:4433 " .. b .. "\n", store[path])
    assert.is_true(trust.remember(options, at "h", { two, one }, one))
    assert.equal(((before:gsub("h:4433 " .. a, "h:4433 " .. b .. "," .. a))) .. "j:4433 " .. b .. "\n", store[path])
  end)

  it("tells of another key than the one remembered: file, line and what it may mean", function()
    store[path] = "# mine\nh:4433 " .. a .. "\n"
    local before = store[path]
    for _, keys in ipairs { { two }, { two, one }, { one, two } } do
      local ok, why, code = trust.remember(options, at "h", keys)
      assert.is_nil(ok)
      assert.equal("bad_key", code)
      assert.matches("the key of h:4433", why, 1, true)
      assert.matches("line 2 of " .. path, why, 1, true)
      assert.matches("pose as this server", why, 1, true)
      local told, of = trust.changed(options, at "h")
      assert.same({ why, code }, { told, of })
    end
    assert.equal(before, store[path])
    assert.is_nil((trust.changed(options, at "i")))
  end)

  it("takes new keys told under one that it knows, and under no other", function()
    assert.is_true(trust.remember(options, at "h", { one }))
    assert.is_nil((trust.remember(options, at "h", { two, three }, two)))
    assert.is_nil((trust.remember(options, at "h", { two, one }, two)))
    assert.same({ one }, trust.known(options, at "h"))
    assert.is_true(trust.remember(options, at "h", { two, one }, one))
    assert.same({ two, one }, trust.known(options, at "h"))
    assert.is_true(trust.remember(options, at "h", { two }, two))
    assert.same({ two }, trust.known(options, at "h"))
  end)

  it("trusts nobody in place of a line that is not right", function()
    for _, rest in ipairs { "", " " .. a:sub(2), " " .. a .. " # and more" } do
      store[path] = "#\nh:4433" .. rest .. "\n"
      local before = store[path]
      local keys, why, code = trust.known(options, at "h")
      assert.is_nil(keys)
      assert.equal("invalid", code)
      assert.matches("line 2 of " .. path, why, 1, true)
      assert.is_nil((trust.remember(options, at "h", { two })))
      assert.equal(before, store[path])
    end
  end)

  it("refuses a file that others may write, not one that they may read", function()
    trust.remember(options, at "h", { one })
    store.modes[path] = tonumber("644", 8)
    assert.same({ one }, trust.known(options, at "h"))
    store.modes[path] = tonumber("664", 8)
    local keys, why, code = trust.known(options, at "h")
    assert.is_nil(keys)
    assert.matches("chmod 600 " .. path, why, 1, true)
    assert.equal("invalid", code)
    assert.is_nil((trust.remember(options, at "i", { one })))
  end)

  it("says where it could not write", function()
    store.full = true
    local ok, why = trust.remember(options, at "h", { one })
    assert.is_nil(ok)
    assert.matches("cannot write the known servers, " .. path .. ": No space", why, 1, true)
  end)

  it("says what a URL without a key risks, and both ways out", function()
    local why, code = trust.refusal(at "h")
    assert.equal("bad_key", code)
    for _, part in ipairs { "h:4433", "pose as this server", "as bodkin serve prints it", "--trust-first-use" } do
      assert.matches(part, why, 1, true)
    end
  end)

  it("writes a real file for its owner alone, in XDG's place or the home", function()
    local dir = assert(io.popen("mktemp -d")):read("l")
    local real = { known_servers = dir .. "/bodkin/known_servers" }
    assert.is_true(trust.remember(real, at "h", { one }))
    assert.same({ one }, trust.known(real, at "h"))
    assert.equal("600", io.popen("stat -c %a " .. real.known_servers):read("l"))
    os.execute("rm -r " .. dir)
    local getenv, env = os.getenv, nil
    os.getenv = function(name) return env[name] end -- luacheck: ignore 122
    local places = {}
    for i, case in ipairs {
      { XDG_CONFIG_HOME = "/x", HOME = "/h" }, { HOME = "/h" }, { XDG_CONFIG_HOME = "x", HOME = "/h" }, {},
    } do
      env = case
      places[i] = trust.path {} or false
    end
    local ok, why = trust.remember({}, at "h", { one })
    os.getenv = getenv -- luacheck: ignore 122
    local h = "/h/.config/bodkin/known_servers"
    assert.same({ "/x/bodkin/known_servers", h, h, false }, places)
    assert.is_nil(ok)
    assert.matches("$HOME is not set", why, 1, true)
  end)
end)

-- SPDX-License-Identifier: MIT

local bodkin = require "bodkin"
local core = require "bodkin.core"

-- A server on loopback in the environment of the bodkin.run under way; returns it and what opens a node of it.
local function serve(options)
  options = options or {}
  options.listen = { core.addr.parse("127.0.0.1", 0) }
  local server = assert(require("bodkin.servers").open(bodkin.env(), options))
  local url = "bodkin://" .. core.addr.format(server:addresses()[1])
  return server, { server = url, server_keys = server.public_keys, app = "spec/1" }
end

describe("facade", function()
  it("loads nothing that is not asked for", function()
    local command = [[lua5.4 -e 'require "bodkin"
      for name in pairs(package.loaded) do if name:find("^bodkin") then print(name) end end']]
    local pipe <close> = io.popen(command)
    assert.equal("bodkin\n", pipe:read("a"))
  end)

  it("names its parts", function()
    assert.equal(core.version, bodkin.version)
    assert.equal(core.protocol_version, bodkin.protocol_version)
    assert.equal(require "bodkin.message", bodkin.message)
    assert.equal(require("bodkin.servers.role").role, bodkin.role)
    assert.equal(require("bodkin.config").config, bodkin.config)
    assert.is_nil(bodkin.no_such_thing)
  end)

  it("runs a function with its arguments until it returns", function()
    local ok, sum, none = bodkin.run(function(a, b)
      bodkin.sleep(1)
      return a + b, nil
    end, 1, 2)
    assert.is_true(ok)
    assert.equal(3, sum)
    assert.is_nil(none)
    assert.is_nil(bodkin.env())
  end)

  it("throws what the function throws, text with a traceback, and can run again", function()
    local ok, err = pcall(bodkin.run, function()
      bodkin.sleep(1)
      error("oh no")
    end)
    assert.is_false(ok)
    assert.matches("oh no", err)
    assert.matches("stack traceback", err)
    local thrown = {}
    ok, err = pcall(bodkin.run, function() error(thrown) end)
    assert.is_false(ok)
    assert.equal(thrown, err)
    assert.is_true(bodkin.run(function() end))
  end)

  it("closes what is declared so when the function fails", function()
    local server
    assert.has_error(function()
      bodkin.run(function()
        local options
        server, options = serve()
        local node <close> = assert(bodkin.open(options))
        assert.equal(1, server.registry:count())
        error(node)
      end)
    end)
    assert.equal(0, server.registry:count())
  end)

  it("ends its tasks, and closes what they opened", function()
    local node, told = nil, {}
    bodkin.run(function()
      local _, options = serve()
      local parent = bodkin.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() table.insert(told, "parent") end })
        bodkin.spawn(function()
          local _ <close> = setmetatable({}, { __close = function() table.insert(told, "child") end })
          node = assert(bodkin.open(options))
          node:on("closed", function() table.insert(told, "closed") end)
          node:match "q"
          table.insert(told, "went on")
        end):join()
        table.insert(told, "went on")
      end)
      while not node do bodkin.sleep(1) end
      local guest = assert(bodkin.open(options))
      assert(assert(guest:join(assert(node:host()).code)):wait_connected(5000))
      assert.is_false(parent:done())
    end)
    assert.same({ "parent", "child" }, told)
    assert.is_true(node.closed)
  end)

  it("refuses to run inside itself, and to open outside", function()
    assert.has_error(function() bodkin.open {} end)
    assert.has_error(function() bodkin.open() end)
    assert.has_error(function() bodkin.sleep(1) end)
    assert.is_true(bodkin.run(function()
      assert.has_error(function() bodkin.run(function() end) end)
    end))
  end)

  it("says what is wrong with a URL, a name that does not exist, an address of nobody's", function()
    bodkin.run(function()
      local node, err, code = bodkin.open { server = "example.org" }
      assert.is_nil(node)
      assert.equal("invalid", code)
      assert.matches("bodkin://HOST", err)
      node, err, code = bodkin.open { server = "bodkin://127.0.0.1", bind = "192.0.2.1:0" }
      assert.is_nil(node)
      assert.matches("cannot use 192.0.2.1:0", err, 1, true)
      assert.equal("invalid", code)
      node, err, code = bodkin.open { server = "bodkin://127.0.0.1", bind = "nonsense" }
      assert.is_nil(node)
      assert.matches("nonsense", err)
      assert.equal("invalid", code)
      node, err, code = bodkin.open { server = "bodkin://127.0.0.1", bind = "[::1]:0" }
      assert.is_nil(node)
      assert.equal("string", type(err))
      assert.equal("invalid", code)
      node, err, code = bodkin.open { server = "bodkin://127.0.0.1:9", timeout_ms = 300 }
      assert.is_nil(node)
      assert.equal("no answer from 127.0.0.1:9 after 0.3 s: is UDP 9 open there? try bodkin ping", err)
      assert.equal("timeout", code)
    end)
  end)

  it("says what is wrong with other options", function()
    bodkin.run(function()
      for name, value in pairs {
        app = ("x"):rep(65), name = ("x"):rep(33), props = { text = ("x"):rep(128) }, ["local"] = "sometimes",
      } do
        local node, err, code = bodkin.open { server = "bodkin://127.0.0.1:9", [name] = value }
        assert.is_nil(node)
        assert.matches(name, err)
        assert.is_true(code == "invalid" or code == "limit", name)
      end
    end)
  end)

  it("refuses an option that it does not have, and says which one may be meant", function()
    bodkin.run(function()
      assert.has_error(function() bodkin.open { sever = "bodkin://127.0.0.1:9" } end,
        "bodkin.open has no option sever (did you mean server?)")
      assert.has_error(function() bodkin.open { server = "bodkin://127.0.0.1:9", "pong/1" } end,
        "bodkin.open has no option 1")
    end)
  end)

  it("connects two nodes on real sockets, over IPv4 and to a server by name", function()
    bodkin.run(function()
      local server, options = serve()
      options.server = options.server:gsub("127%.0%.0%.1", "localhost")
      options.name = "a"
      local a <close> = assert(bodkin.open(options))
      options.name = "b"
      local b <close> = assert(bodkin.open(options))
      local ma = assert(a:host())
      local mb = assert(b:join(ma.code))
      assert(ma:wait_connected(5000))
      assert(mb:wait_connected(5000))
      assert.equal("b", ma:peers()[1].name)
      assert(ma:send("over real sockets"))
      assert.equal("over real sockets", mb:messages()().data)
      a:close()
      assert.is_nil(mb:messages()())
      b:close()
      server:close()
    end)
  end)
end)

-- SPDX-License-Identifier: MIT
local options = require "bodkin.cli.options"

local function read(list, ...)
  return options.parse(list, { [0] = "bodkin", "command", ... }, 2)
end

describe("options", function()
  local list = {
    { "server", arg = "URL" },
    { "expect", arg = "N", kind = "count" },
    { "timeout", arg = "S", kind = "seconds" },
    { "listen", arg = "A", kind = "listen", many = true },
    { "listen-tcp", arg = "A", kind = "listen_tcp", many = true },
    { "maintenance-mode", arg = "MODE", kind = options.word("confirm", "silent") },
    { "props", arg = "JSON", kind = "object" },
    { "json" },
    { "verbose", short = "v" },
    { "quiet", short = "q" },
  }

  it("come out under their names, apart from the arguments", function()
    local o, rest = read(list, "CODE", "--server", "x", "--json", "--maintenance-mode=silent", "--timeout", "1.5")
    assert.same({ server = "x", json = 1, maintenance_mode = "silent", timeout = 1.5 }, o)
    assert.same({ "CODE" }, rest)
  end)

  it("may be repeated only where they say so", function()
    local o = read(list, "--listen", "1.2.3.4:5", "--listen", "[::1]:6")
    assert.same({ "1.2.3.4:5", "[::1]:6" }, o.listen)
    local none, err = read(list, "--server", "a", "--server", "b")
    assert.is_nil(none)
    assert.equal("--server is given twice", err)
  end)

  it("take short flags together and count them", function()
    assert.same({ verbose = 2, quiet = 1 }, (read(list, "-vvq")))
  end)

  it("end at --", function()
    local o, rest = read(list, "--", "--server")
    assert.same({}, o)
    assert.same({ "--server" }, rest)
  end)

  it("that are unknown name the one that was meant", function()
    assert.equal("unknown option --serber (did you mean --server?)", select(2, read(list, "--serber", "x")))
    assert.equal("unknown option --time (did you mean --timeout?)", select(2, read(list, "--time", "3")))
    assert.equal("unknown option --xyzzy", select(2, read(list, "--xyzzy")))
    assert.equal("unknown option -z", select(2, read(list, "-z")))
  end)

  it("say which value they expected", function()
    for _, case in ipairs {
      { "--expect", "0" }, { "--expect", "1.5" }, { "--expect", "many" }, { "--timeout", "-1" }, { "--timeout", "nan" },
      { "--maintenance-mode", "loud" }, { "--props", "[1]" }, { "--props", "{" }, { "--props", "{} {}" },
      { "--listen", "nowhere" }, { "--listen", "1.2.3.4:99999" },
    } do
      local o, err = read(list, case[1], case[2])
      assert.is_nil(o, case[1] .. " " .. case[2])
      assert.truthy(err:find(("%s %s: expected "):format(case[1], case[2]), 1, true), err)
    end
    assert.equal("--server needs a value: --server URL", select(2, read(list, "--server")))
    assert.equal("--json takes no value", select(2, read(list, "--json=1")))
  end)

  it("read a port alone as every address", function()
    assert.same({ "0.0.0.0:4434", "0.0.0.0:4435" }, read(list, "--listen", "4434", "--listen", ":4435").listen)
    assert.same({ "0.0.0.0:443" }, read(list, "--listen-tcp", "443").listen_tcp)
    assert.matches("0.0.0.0:443 or", select(2, read(list, "--listen-tcp", "here")), 1, true)
  end)

  it("read JSON objects", function()
    assert.same({ map = "dust", n = 3 }, read(list, "--props", '{"map":"dust","n":3}').props)
  end)
end)

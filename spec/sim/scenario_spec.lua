-- SPDX-License-Identifier: MIT
-- What may stand in a scenario, what is said of what may not, and `bodkin sim` as its users run it.
local delays = require "bodkin.sim.delays"
local files = require "bodkin.sim.file"
local scenarios = require "bodkin.scenario"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"

local function read_all(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function with(fields)
  local data = { rooms = { size = 2 } }
  for name, value in pairs(fields) do data[name] = value end
  return scenarios.check(data)
end

describe("bodkin.scenario", function()
  it("fills in what is not said", function()
    local s = assert(scenarios.check { clients = 60, match = { props = { mmr = 5 } } })
    assert.is_true(scenarios.is(s))
    assert.equal(60, s.duration_s)
    assert.equal(2, s.arrive_per_s)
    assert.equal("queue", s.match.queue)
    assert.same({ { shape = "constant", value = 5, name = "mmr" } }, s.match.props)
    assert.equal(9, #s.nats)
  end)

  it("takes weights of every kind of NAT, in an order of its own", function()
    local weights = {}
    for kind in pairs(require("bodkin.sim.nat").kinds) do weights[kind] = 1 end
    local s = assert(with { nats = weights })
    for i = 2, #s.nats do assert.is_true(s.nats[i - 1][1] < s.nats[i][1]) end
  end)

  for what, case in pairs {
    ["an unknown field"] = { { client = 3 }, "has no field 'client': a scenario has arrive_per_s, clients" },
    ["too few clients"] = { { clients = 1 }, "clients must be a whole number from 2 to 10000, not 1" },
    ["half a client"] = { { clients = 2.5 }, "clients must be a whole number" },
    ["no time"] = { { duration_s = 0 }, "duration_s must be a number from 1" },
    ["nan"] = { { loss = 0 / 0 }, "loss must be a number from 0 to 0.9" },
    ["an unknown NAT"] = { { nats = { half_cone = 1 } }, "nats there is no kind 'half_cone': it is one of addr" },
    ["a negative weight"] = { { nats = { none = -1 } }, "the weight of none must be" },
    ["no weight at all"] = { { nats = { none = 0 } }, "one weight must be more than 0" },
    ["a wrong range of delays"] = { { delay_ms = { 9, 3 } }, 'delay_ms must be a number of ms, { LEAST, MOST } or' },
    ["two things to do"] = { { match = { queue = "q" } }, "give either match = " },
    ["a room for one"] = { { rooms = { size = 1 } }, "rooms size must be a whole number from 2 to 16" },
    ["a queue without name"] = { { match = { queue = "" } }, "match queue must be a name" },
    ["a distribution unheard of"] = { { match = { props = { a = { pareto = 1 } } } }, "props a has no 'pareto'" },
    ["two distributions"] = { { match = { props = { a = { normal = { 1, 2 }, uniform = { 1, 2 } } } } },
      "has two distributions" },
    ["a deviation below 0"] = { { match = { props = { a = { normal = { 1, -2 } } } } }, "normal must be { MEAN, DEV" },
    ["a seed that is none"] = { { seed = "x" }, "seed must be a whole number" },
  } do
    it("refuses " .. what, function()
      local s, why = with(case[1])
      assert.is_nil(s)
      assert.truthy(why:find("scenario: ", 1, true) and why:find(case[2], 1, true), why)
    end)
  end

  it("has every field and every kind of NAT in its document and in the editor's notes", function()
    local _, why = scenarios.check { nothing = 1 }
    local document, notes = read_all "docs/SIM.md", read_all "scripts/library/scenario.lua"
    local count = 0
    for name in why:match("a scenario has (.*)$"):gmatch "[%a_]+" do
      count = count + 1
      assert.truthy(document:find("`" .. name .. "`", 1, true), name)
      assert.truthy(notes:find("---@field " .. name .. "? ", 1, true), name)
    end
    assert.equal(13, count)
    for kind in pairs(require("bodkin.sim.nat").kinds) do
      assert.truthy(notes:find('---| "' .. kind .. '"', 1, true), kind)
    end
  end)

  it("throws at its caller", function()
    local ok, why = pcall(function()
      local s = scenarios.scenario { clients = 0, rooms = {} }
      return s
    end)
    assert.is_false(ok)
    assert.truthy(why:find("scenario_spec.lua:%d+: scenario: clients must be"), why)
  end)
end)

describe("a matrix of delays", function()
  local function matrix(text)
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
    return path
  end

  local function of(text, seed)
    local path = matrix(text)
    local delay, why = delays.new({ matrix = path }, seed or 1)
    os.remove(path)
    return delay, why and why:gsub(path, "FILE", 1)
  end

  it("gives half a round trip, the same both ways, with the server at the centre", function()
    local delay = assert(of "0\t10\t100\n10\t0\t20\n100\t20\t0\n")
    local seen = {}
    for place = 1, 60 do
      local ms = delay(0, place)
      assert.equal(ms, delay(place, 0))
      seen[ms] = true
    end
    assert.same({ [0.5] = true, [5.0] = true, [10.0] = true }, seen) -- the middle one is nearest to both
  end)

  it("takes the other direction, or what is typical, where nothing was measured", function()
    local delay = assert(of "0\t10\t0\n10\t0\t30\n0\t0\t0\n")
    local seen = {}
    for a = 1, 30 do
      for b = a + 1, 30 do seen[delay(a, b)] = true end
    end
    for ms in pairs(seen) do assert.is_true(ms == 0.5 or ms == 5 or ms == 15, tostring(ms)) end
    assert.is_true(seen[15.0])
  end)

  it("is refused when it is none, with the line", function()
    for text, expected in pairs {
      [""] = "FILE has no two sites",
      ["0\t1\n1\n"] = "FILE:2: 1 columns, but there are 2 rows: the matrix must be square",
      ["0\t1\nx\t0\n"] = "FILE:2: 'x' is no round-trip time in ms",
      ["0\t-1\n1\t0\n"] = "FILE:1: '-1' is no round-trip time in ms",
      ["0\t0\n0\t0\n"] = "FILE: no site was measured to half of the others",
    } do
      local delay, why = of(text)
      assert.is_nil(delay)
      assert.equal(expected, why)
    end
    assert.truthy(select(2, delays.new({ matrix = "/nowhere.tsv" }, 1)):find "cannot read the matrix")
  end)
end)

describe("bodkin sim", function()
  local dir

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. dir))
  end)

  teardown(function() os.execute("rm -r " .. dir) end)

  local function save(name, text)
    local file <close> = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
    return dir .. "/" .. name
  end

  local function sim(arguments)
    local pipe = assert(io.popen(("%s sim %s 2>&1 </dev/null"):format(bodkin, arguments)))
    local text = pipe:read "a"
    local _, _, code = pipe:close()
    return text, code
  end

  it("runs the examples, the same each time, and otherwise for another seed", function()
    for _, name in ipairs { "rooms", "skill" } do
      local example = ("examples/scenario_%s.lua --svg %s/"):format(name, dir)
      local one, code = sim(example .. "1.svg")
      assert.equal(0, code, one)
      local two, other = sim(example .. "2.svg"), sim(example .. "3.svg --seed 2")
      assert.truthy(one:find("NAT pair", 1, true) and one:find("matched to path confirmed", 1, true))
      assert.is_nil(one:find("not as in theory", 1, true), one)
      assert.is_true(one == two)
      assert.is_true(read_all(dir .. "/1.svg") == read_all(dir .. "/2.svg"))
      assert.is_true(one ~= other and read_all(dir .. "/1.svg") ~= read_all(dir .. "/3.svg"))
    end
  end)

  it("gives one object as JSON, the same each time", function()
    local one, code = sim "examples/scenario_rooms.lua --json"
    assert.equal(0, code)
    assert.equal(one, (sim "examples/scenario_rooms.lua --json"))
    local object = require("dkjson").decode(one)
    assert.equal("simulated", object.event)
    assert.equal(object.tried, object.paths.direct + object.paths.lan + object.paths.none)
    assert.is_true(object.paths.lan > 0)
    assert.truthy(one:find('"failed":[]', 1, true), one)
  end)

  it("plays a policy in a scenario that fits it", function()
    local path = save("pairs.lua", [[
      local bodkin = require "bodkin"
      return bodkin.policy {
        props = { skill = { type = "integer", min = 1, max = 9 }, pro = "boolean", map = { "dust", "ice" },
          clan = "string", note = "string?", level = { type = "number", default = 3 } },
        compatible = function(a, b) return a.props.pro == b.props.pro and a.props.map == b.props.map end,
      }]])
    local scenario = assert(files.read(path))
    local names = {}
    for i, d in ipairs(scenario.match.props) do names[i] = d.name .. " " .. d.shape end
    assert.same({ "clan weights", "map weights", "pro chance", "skill normal" }, names)
    local text, code = sim(path)
    assert.equal(0, code, text)
    assert.truthy(text:find "^pairs: 1000 clients, 60 virtual seconds, seed 1\n", text)
    assert.truthy(text:find ", 9%d%d of them matched", text)
  end)

  it("finds a policy and a matrix beside the scenario", function()
    save("own.lua", 'return require("bodkin").policy { size = 3 }')
    save("rtt.tsv", "0\t40\n40\t0\n")
    local text, code = sim(save("s.lua", [[return require("bodkin").scenario { clients = 30, duration_s = 30,
      nats = { none = 1 }, delay_ms = { matrix = "rtt.tsv" }, match = { policy = "own.lua" } }]]))
    assert.equal(0, code, text)
    assert.truthy(text:find "none %- none +30 +30  100.0 %%", text) -- ten times three pairs
  end)

  it("tells of a policy that fails in the course of it", function()
    save("bad.lua", [[return require("bodkin").policy { compatible = function() return nil + 1 end }]])
    local text, code = sim(save("t.lua", [[return require("bodkin").scenario { clients = 10, duration_s = 20,
      match = { policy = "bad.lua" } }]]))
    assert.equal(3, code)
    assert.truthy(text:find("the server, after %d+%.%d s: policy %S*bad.lua failed: %S*bad.lua:1: "), text)
  end)

  it("says what is wrong with a file, and where", function()
    for text, expected in pairs {
      ['local bodkin = require "bodkin"\nreturn bodkin.scenario {\n  clients = 0,\n rooms = {} }'] =
        "f.lua:3: scenario: clients must be a whole number from 2 to 10000, not 0",
      ["return {}"] = "neither a scenario nor a policy: end it with return bodkin.scenario",
      ["return 7 7"] = "f.lua:1: ",
      ['return require("bodkin").policy { size = 1 }'] = "f.lua:1: policy: size must be",
      ['return require("bodkin").scenario { match = { policy = "none.lua" } }'] = "none.lua",
      ['return require("bodkin").scenario { rooms = {}, delay_ms = { matrix = "none.tsv" } }'] = "none.tsv",
    } do
      local said, code = sim(save("f.lua", text))
      assert.equal(3, code, said)
      assert.truthy(said:find(expected, 1, true), said)
    end
    local said, code = sim "/nowhere.lua"
    assert.equal(3, code)
    assert.truthy(said:find("cannot read the file: /nowhere.lua", 1, true), said)
    assert.equal(2, (select(2, sim "")))
    assert.equal(2, (select(2, sim "skill --seed -1")))
  end)

  it("prints what docs/SIM.md shows, but for the numbers", function()
    package.path = "docs/?.lua;" .. package.path
    local document = require "sim"
    local _, command, shown = document.parts()
    assert.truthy(command:find("--svg docs/sim.svg", 1, true))
    -- Which pairs meet, and how often, differs whenever a packet does.
    local function frame(text)
      return (text:gsub("\n%l[%w_ -]+ %d+ +%d+ [^\n]*", ""):gsub("\n%d+ more[^\n]*", ""):gsub("[%d.]+", "N")
        :gsub(" +", " "))
    end
    assert.equal(frame(document.output(bodkin, command, dir .. "/doc.svg")), frame(shown))
    local function words(svg)
      local list = {}
      for one in svg:gmatch ">([^<]*%a%a%a[^<]*)</text>" do list[#list + 1] = one:gsub("[%d.]+", "N") end
      return list
    end
    assert.is_true(#words(read_all "docs/sim.svg") > 8)
    assert.same(words(read_all(dir .. "/doc.svg")), words(read_all "docs/sim.svg"))
  end)
end)

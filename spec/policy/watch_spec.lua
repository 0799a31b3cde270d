-- SPDX-License-Identifier: MIT
-- Files of policies that change while a server runs.
local core = require "bodkin.core"
local limits = require "bodkin.servers.limits"
local policies = require "bodkin.servers.policies"
local worlds = require "bodkin.sim.world"

local N = 10000

describe("a policy's file that changes", function()
  local world, path, self, log, matches, last_data, waiting

  local function write(text)
    local file <close> = assert(io.open(path, "w"))
    file:write('local bodkin = require "bodkin"\n' .. text)
  end

  local function open()
    world = worlds.new {}
    log, matches, waiting = {}, {}, 0
    local env = world:host({ name = "server", ip = "198.51.100.10" }).env
    local function note(_, format, ...) log[#log + 1] = format:format(...) end
    local server = { env = env, counters = core.counters(), limits = limits.defaults,
      log = { info = note, error = note, warn = note } }
    self = policies.new { server = server, slots = assert(policies.read { q = { policy = path } }), watch = true,
      on = {
        verdict = function(_, no, ok, why) assert(ok, no .. ": " .. tostring(why)) end,
        match = function(_, _, teams, _, data)
          last_data = data
          for _, team in ipairs(teams) do
            for _, no in ipairs(team) do
              matches[no], waiting = (matches[no] or 0) + 1, waiting - 1
              self:drop("q", no)
            end
          end
        end,
      } }
  end

  local function add(no)
    waiting = waiting + 1
    self:add("q", { no = no, app = "a", since_ms = 0, members = { { { n = no } } } })
  end

  local function run(ms)
    for _ = 1, ms // 100 do
      world:run(100)
      if waiting > 0 then self:tick "q" end
    end
  end

  local function logged(pattern)
    local n = 0
    for _, line in ipairs(log) do n = n + (line:find(pattern) and 1 or 0) end
    return n
  end

  before_each(function() path = os.tmpname() end)
  after_each(function()
    self:close()
    world:close()
    os.remove(path)
  end)

  it("is taken with ten thousand queued: none is lost, none doubled, and one that is broken changes nothing", function()
    write "return bodkin.policy { props = { n = 'integer' }, compatible = function() return false end }"
    open()
    for no = 1, N do add(no) end
    run(500)
    write "return bodkin.policy { size = }"
    run(3000)
    assert.equal(1, logged "unexpected symbol near '}'; the version before it stays")
    assert.is_nil(next(matches))
    write [[return bodkin.policy { props = { n = "integer" } }]]
    run(1000)
    assert.is_nil(next(matches)) -- perhaps not written to its end yet
    run(4000)
    assert.equal(1, logged "loaded, it serves the queue q")
    for no = 1, N do assert.equal(1, matches[no], no) end
  end)

  it("takes its state over, and leaves it where the new one fails", function()
    local function counting(name, rest)
      return ([[
        state.n = state.n or 0
        return bodkin.policy { size = 2, form = function(a, near)
          state.n = state.n + 1
          %s
          return { teams = { { a, near[1] } }, data = "%s " .. state.n } end }]]):format(rest or "", name)
    end
    local no = 0
    local function match()
      add(no + 1)
      add(no + 2)
      no = no + 2
      run(200)
      return last_data
    end
    write(counting "one")
    open()
    assert.equal("one 1", match())
    assert.equal("one 2", match())
    write(counting("two", "state.n = 100 error 'no'"))
    run(3000)
    assert.equal("one 3", match()) -- after the failing one, in the next pass
    assert.equal(1, logged "failed: .*: no; the version before it serves")
    write(counting "three")
    run(3000)
    assert.equal("three 4", match())
    write(counting("bad", "state.f = print"))
    run(3000)
    assert.equal("bad 5", match())
    write(counting "more")
    run(3000)
    assert.equal("more 5", match())
    assert.equal(1, logged "state: a function cannot be kept %(queue q%); what was kept before stays")
    write(counting "four")
    run(3000)
    assert.equal("four 6", match())
  end)
end)

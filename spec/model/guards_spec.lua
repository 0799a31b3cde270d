-- SPDX-License-Identifier: MIT
-- Each guard of core broken on purpose must be noticed by the seeds; whole, the same seeds must pass.
-- GUARDS=all breaks every one, else only the quick ones.
local guards = assert(loadfile("spec/model/guards.lua", "t"))()
local seeds = assert(loadfile("spec/model/seeds.lua", "t"))()

local build = os.getenv "BUILD" or "build"

describe("guards of core", function()
  it("are at least ten, each in one place", function()
    assert(#guards.list >= 10)
    for _, guard in ipairs(guards.list) do assert(guards.mutate(guard)) end
  end)

  for i, guard in ipairs(guards.list) do
    if guard.quick or os.getenv "GUARDS" == "all" then
      it("notice that there is no " .. guard.name, function()
        local noticed, output = guards.run(guard, build, tostring(i))
        assert(noticed, output)
        local whole = seeds.range(1, guard.seeds, guard.wish)
        assert(#whole.failures == 0, whole.failures[1])
      end)
    end
  end
end)

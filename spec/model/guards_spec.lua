-- SPDX-License-Identifier: MIT
-- Each guard broken on purpose must be noticed by the seeds or specs named there; whole, the same must pass.
-- GUARDS=all breaks every one, else only the quick ones.
local guards = assert(loadfile("spec/model/guards.lua", "t"))()

local build = os.getenv "BUILD" or "build"

describe("guards", function()
  it("are at least ten, each in one place", function()
    assert(#guards.list >= 10)
    for _, guard in ipairs(guards.list) do assert(guards.mutate(guard)) end
  end)

  for i, guard in ipairs(guards.list) do
    if guard.quick or os.getenv "GUARDS" == "all" then
      it("notice that there is no " .. guard.name, function()
        local noticed, output = guards.run(guard, build, tostring(i))
        assert(noticed, output)
        assert(guards.whole(guard, build))
      end)
    end
  end
end)

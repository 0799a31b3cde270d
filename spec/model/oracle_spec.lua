-- SPDX-License-Identifier: MIT
local oracle = assert(loadfile("spec/model/oracle.lua", "t"))()

local theory = oracle.theory

local function behaviour(name)
  local mapping, filtering = name:match("^(%u+)/(%u+)$")
  return { mapping = mapping, filtering = filtering }
end

describe("the theory of NAT pairs", function()
  it("has a cell, the same both ways, for each pair of the nine behaviours", function()
    assert.equal(9, #theory.rows)
    for _, a in ipairs(theory.rows) do
      for _, b in ipairs(theory.rows) do
        assert(theory.matrix[a][b] == "yes" or theory.matrix[a][b] == "no", a .. " " .. b)
        assert.equal(theory.matrix[a][b], theory.matrix[b][a])
        assert.equal(theory.reasons[a][b], theory.reasons[b][a])
      end
    end
  end)

  it("agrees with its rule", function()
    for _, a in ipairs(theory.rows) do
      for _, b in ipairs(theory.rows) do
        assert.equal(oracle.formula(behaviour(a), behaviour(b)), theory.matrix[a][b], a .. " with " .. b)
      end
    end
  end)

  it("gives each cell a reason of its verdict", function()
    local verdict_of = { a = "yes", b = "yes", c = "yes", d = "no", e = "no", f = "no", g = "no" }
    for _, a in ipairs(theory.rows) do
      for _, b in ipairs(theory.rows) do assert.equal(verdict_of[theory.reasons[a][b]], theory.matrix[a][b]) end
    end
  end)

  local direct = { min_ms = { ab = 40, ba = 40 }, max_ms = { ab = 40, ba = 40 }, lossless = true }

  local function side(...)
    local boxes = { ... }
    for i, kind in ipairs(boxes) do boxes[i] = type(kind) == "table" and kind or { kind = kind } end
    return { boxes = boxes, start_ms = 0 }
  end

  it("knows the pairs everybody knows", function()
    local function says(verdict, a, b)
      assert.equal(verdict, oracle.verdict(side(a), side(b), direct), a .. " " .. b)
    end
    says("yes", "port_restricted", "port_restricted")
    says("yes", "full_cone", "symmetric_random")
    says("yes", "address_restricted", "symmetric_random")
    says("no", "port_restricted", "symmetric_random")
    says("no", "symmetric_random", "symmetric_sequential")
    says("no", "firewall", "address_dependent")
    says("yes", "none", "symmetric_random")
  end)

  it("tells the race by the starts", function()
    local a, b = side "plain_linux", side "plain_linux"
    b.start_ms = 39
    assert.equal("yes", oracle.verdict(a, b, direct))
    b.start_ms = 55
    assert.equal("no", oracle.verdict(a, b, direct))
    assert.equal("yes", oracle.verdict(side "full_cone", b, direct))
    b.boxes[2] = { kind = "port_restricted" } -- a carrier that keeps unknown input out
    assert.equal("yes", oracle.verdict(a, b, direct))
  end)

  it("takes chains as one box, where it can", function()
    local sym, pr, fc = { kind = "symmetric_random" }, { kind = "port_restricted" }, { kind = "full_cone" }
    assert.same({ "APD", "APD" }, { oracle.side(side(sym, pr)).mapping, oracle.side(side(sym, pr)).filtering })
    assert.equal("APD", oracle.side(side(fc, pr)).filtering)
    assert.equal("APD", oracle.side(side(fc, sym)).mapping)
    assert.is_nil(oracle.side(side(pr, sym)))
  end)

  it("does not commit itself on what depends on chance", function()
    local wanders = { mapping = "APD", filtering = "APD", ips = 2, pooling = "arbitrary" }
    assert.equal("may", oracle.verdict(side(wanders), side "address_restricted", direct))
    assert.equal("yes", oracle.verdict(side(wanders), side "full_cone", direct))
    assert.equal("no", oracle.verdict(side(wanders), side "port_restricted", direct))
  end)

  it("speaks of both behind one NAT", function()
    local function says(verdict, kind, together)
      local network = { min_ms = direct.min_ms, max_ms = direct.max_ms, together = together }
      assert.equal(verdict, oracle.verdict(side(kind), side(kind), network))
    end
    says("yes", "symmetric_random", { at = "home" })
    says("no", "full_cone", { at = "home", isolated = true })
    says("yes", "port_restricted", { at = "home", isolated = true, hairpin = true })
    says("no", "symmetric_random", { at = "home", isolated = true, hairpin = true })
    says("no", "port_restricted", { at = "carrier" })
  end)
end)

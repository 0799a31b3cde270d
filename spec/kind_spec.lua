-- SPDX-License-Identifier: MIT
-- What is known of a NAT, as a number and in words.
local kind = require "bodkin.kind"

local function set(...)
  local out = {}
  for _, name in ipairs { ... } do out[name] = true end
  return out
end

describe("a kind of NAT", function()
  it("is the number of docs/PROTOCOL.md", function()
    assert.equal(1 | 4 << 3 | 1 << 6 | 1 << 8 | 2 << 10 | 2 << 12, kind.of { nat = true, mapping = set "EI",
      filtering = set "APD", ports = "preserved", hairpin = false, race = true })
    assert.equal(6 | 7 << 3 | 3 << 6 | 2 << 12, kind.of { nat = true, mapping = set("AD", "APD"),
      filtering = set("EI", "AD", "APD"), ports = "random" })
    assert.equal(1 | 7 << 3 | 1 << 12, kind.of({ nat = false, mapping = set "EI", filtering = set "EI" }, true))
  end)

  it("has words, and where it is one of two, both", function()
    assert.same({ mapping = "address or address_port", filtering = "unknown", ports = "random", nat = true },
      kind.unpack(6 | 7 << 3 | 3 << 6 | 2 << 12))
    assert.same({ mapping = "endpoint", filtering = "endpoint or address", ports = "unknown", hairpin = true,
      race = false, nat = false }, kind.unpack(1 | 3 << 3 | 2 << 8 | 1 << 10 | 1 << 12))
  end)

  it("comes back from its words", function()
    for mapping = 1, 7 do
      for filtering = 1, 7 do
        for rest = 0, 255 do
          local n = mapping | filtering << 3 | rest << 6
          local again = kind.unpack(kind.pack(kind.unpack(n)))
          assert.same(kind.unpack(n), again)
        end
      end
    end
  end)

  it("is none where it is no number, or nothing", function()
    for _, bad in ipairs { 0, -1, kind.MAX + 1, 1.5, "1", {} } do assert.is_nil(kind.unpack(bad)) end
    assert.is_nil(kind.unpack(nil))
    assert.equal(0, kind.pack(nil))
    assert.same({ mapping = "unknown", filtering = "unknown", ports = "unknown" },
      kind.unpack(kind.pack { mapping = "\27", filtering = 7, ports = {} }))
  end)

  it("says whether another destination gets another port", function()
    for mapping, expect in pairs { endpoint = "no", address = "yes", ["address or address_port"] = "yes",
      ["endpoint or address"] = "?", unknown = "?" } do
      local is = kind.is_by_destination { mapping = mapping }
      assert.equal(expect, is == nil and "?" or is and "yes" or "no", mapping)
    end
    assert.is_nil(kind.is_by_destination(nil))
  end)
end)

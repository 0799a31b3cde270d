-- SPDX-License-Identifier: MIT
-- What is said of events to who reads along, without -v.

describe("the output", function()
  local out, said

  before_each(function()
    local host = package.loaded["bodkin.host"]
    package.loaded["bodkin.host"] = { is_terminal = function() return false end }
    out, said = require("bodkin.cli.output").of {}, {}
    package.loaded["bodkin.host"] = host
    out.say = function(_, format, ...) said[#said + 1] = format:format(...) end
    out.detail = function() end
  end)

  local function is_at(name, peer, path, via)
    out:event(name, { peer = peer, path = path, via = via, remote = "192.0.2.1:5", first_ms = 1, confirmed_ms = 2,
      rtt_ms = 3 })
  end

  it("tells when a relay is no longer in between, and when it is again", function()
    is_at("connected", "ann", "relay", "relay")
    is_at("connected", "bob", "direct", "srflx")
    is_at("path", "ann", "relay", "relay") -- confirmed: no news
    is_at("path", "bob", "direct", "prflx")
    is_at("path", "ann", "direct", "srflx")
    is_at("path", "ann", "direct", "srflx")
    is_at("path", "ann", "relay", "relay")
    is_at("path", "ann", "lan", "host")
    assert.same({
      "connected to ann over a relay (relay 192.0.2.1:5), first heard after 1.0 ms",
      "connected to bob directly (srflx 192.0.2.1:5), first heard after 1.0 ms",
      "ann is now reached directly (srflx 192.0.2.1:5), confirmed after 2.0 ms, round trip 3.0 ms",
      "ann is now reached over a relay (relay 192.0.2.1:5), confirmed after 2.0 ms, round trip 3.0 ms",
      "ann is now reached on the same network (host 192.0.2.1:5), confirmed after 2.0 ms, round trip 3.0 ms",
    }, said)
  end)

  it("begins anew with who comes back", function()
    is_at("connected", "ann", "direct", "srflx")
    out:event("closed", { peer = "ann", reason = "left" })
    is_at("connected", "ann", "relay", "relay")
    is_at("path", "ann", "direct", "srflx")
    assert.matches("^ann is now reached directly", said[4])
    assert.equal(4, #said)
  end)
end)

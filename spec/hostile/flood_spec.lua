-- SPDX-License-Identifier: MIT
-- A short flood of bad and spoofed datagrams at real servers, in network namespaces: `make bench-flood` is the long
-- one. The release build is watched for memory and honest clients, the one with sanitizers for anything else.

local flood = require "spec.hostile.flood"
local support = require "spec.hostile.support"

local unable = flood.unable()
local RATE, WARM, COUNT = 40000, 80000, 240000
local ASAN_RATE, ASAN_COUNT = 5000, 15000
local GROWTH_KB, SUCCESS = 1024, 0.99
local CLIENT_KB = 2 -- of each honest client that came meanwhile: its association, its registration, where it is

describe("a flood from a million spoofed sources", function()
  local function within(binary, fn)
    if unable then return pending("needs network namespaces: " .. unable) end
    local field <close> = assert(flood.up { bodkin = binary, bench = support.build .. "/release/bench" })
    fn(field)
  end

  it("leaves memory as it was, and nine hundred and ninety of a thousand honest handshakes succeed", function()
    within(support.release, function(field)
      field:honest(8)
      field:send(RATE, WARM)
      local before, traffic, counted = field:usage(), field:traffic(), field:status()
      local sent = field:send(RATE, COUNT)
      local after, traffic_after, counted_after = field:usage(), field:traffic(), field:status()
      local honest = field:honest_end(sent.began_us, sent.ended_us)
      local bytes_in = traffic_after.bytes_in - traffic.bytes_in
      local bytes_out = traffic_after.bytes_out - traffic.bytes_out
      support.say("flood: %d datagrams at %.0f a second, %d lost; RSS %d KB, then %d KB; %d of %d honest handshakes, "
        .. "the slowest in %.0f ms; %d bytes in, %d out", sent.sent, sent.rate, sent.lost, before.rss_kb,
        after.rss_kb, honest.ok, honest.total, honest.slowest_ms, bytes_in, bytes_out)
      assert.is_nil(field.server:code(), field.server:stderr())
      assert.equal(COUNT, sent.sent)
      assert.is_true(counted_after.udp_rx - counted.udp_rx >= COUNT - sent.lost)
      assert.is_true(after.rss_kb - before.rss_kb <= GROWTH_KB + honest.total * CLIENT_KB, "it grew")
      assert.is_true(honest.total >= 100 and honest.ok >= SUCCESS * honest.total, support.listed(honest.failures))
      assert.is_true(bytes_out > 0 and bytes_out <= bytes_in)
      assert.equal(0, counted_after.handler_error)
    end)
  end)

  it("finds nothing for the sanitizers", function()
    within(support.asan, function(field)
      local sent = field:send(ASAN_RATE, ASAN_COUNT)
      for _, kind in ipairs { "noise", "truncated", "flipped", "frame", "request", "plain", "bomb" } do
        assert.is_true(sent.kinds[kind] > 0, kind)
      end
      local counted, info = field:status()
      assert.equal(0, counted.handler_error)
      assert.same({ 0, 0, 0 }, { info.registered, info.rooms, info.matched_pending })
      assert.is_true(counted.address_reported > 0)
      field.server:kill "TERM"
      assert.equal(0, field.server:wait(10000), field.server:stderr())
    end)
  end)
end)

-- SPDX-License-Identifier: MIT
-- Bad input at every role: nothing throws, something is counted for each, and the service goes on.

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.servers.support"

local addr, who = support.addr, support.who
local from = addr("198.51.100.7:40000")
local empty = core.wire.encode({})

describe("bad input to a server", function()
  local s, thrown, on_error
  before_each(function()
    s = support.server { expose_addresses = true, limits = { registrations = 1000 } }
    thrown = {}
    on_error = core.on_error(function(text) thrown[#thrown + 1] = text end)
  end)
  after_each(function()
    core.on_error(on_error)
    s:close()
  end)

  local function total()
    local sum = 0
    for _, c in ipairs(s.server:status().counters) do sum = sum + c.value end
    return sum
  end

  local function requests()
    local w, tx = who(1), s:next_tx()
    local _, noise = core.assoc(w.key .. w.key_secret, ("e"):rep(32), s.server.public_keys[1], 1, "\xc0")
    return {
      address_request = message.address_request:encode(tx),
      open = message.open:encode(tx, s:proof(from), noise),
      key_request = message.key_request:encode(tx),
      register = message.register:encode(tx, w.ephemeral, { from .. s:proof(from) }, { addr("10.0.0.1:5") },
        "app", "ann", empty, "token"),
      unregister = message.unregister:encode(tx),
      list = message.list:encode(tx, "app", core.wire.encode({ a = 1 }), w.id, true),
      lookup = message.lookup:encode(tx, w.id),
      room_open = message.room_open:encode(tx, "babab-babab-babab", w.id),
      select = message.select:encode(tx, w.ephemeral, who(2).id, "babab-babab-babab", {}, { from },
        "app", "", empty, nil),
      matched_ack = message.matched_ack:encode(tx),
      maintain = message.maintain:encode(tx, w.id),
      leave = message.leave:encode(tx, w.id),
    }
  end

  -- As it is, or in an association.
  local function feed(bytes, what, sealed)
    if sealed then bytes = s:assoc(who(1), from).raw:write(bytes) end
    local before = total()
    s.env.sent = {}
    s.env.socks[1].to_router:input(s.env.socks[1], from, bytes)
    assert.is_true(#s.env.sent > 0 or total() > before, what .. ": neither answered nor counted")
    if #thrown > 0 then error(what .. ": " .. thrown[1]) end
    for _, d in ipairs(s.env.sent) do assert.is_true(#d.bytes <= 1200) end
  end

  it("each truncation of each request is counted and harms nothing", function()
    for name, bytes in pairs(requests()) do
      for n = 0, #bytes - 1 do
        for _, sealed in ipairs { false, true } do
          feed(bytes:sub(1, n), ("%s cut to %d"):format(name, n), sealed)
          assert.equal(0, #s.env.sent)
        end
      end
    end
  end)

  it("each change of one byte of each request is counted and harms nothing", function()
    s:assoc(who(1), from) -- before so many copies of `open` that there is none to be had
    for name, bytes in pairs(requests()) do
      for i = 1, #bytes do
        local was = bytes:byte(i)
        for k, to in ipairs { 0x00, 0x7f, 0x80, 0xc0, 0xc1, 0xd9, 0xdf, 0xff, was ~ 0x01, was ~ 0x80 } do
          local what = ("%s, byte %d to 0x%02x"):format(name, i, to)
          local changed = bytes:sub(1, i - 1) .. string.char(to) .. bytes:sub(i + 1)
          feed(changed, what, i % 2 == k % 2 and name ~= "open")
        end
      end
    end
    s:advance(20000)
    assert.same({}, thrown)
  end)

  it("the bombs, and a megabyte of random bytes, are counted, and leave nothing behind", function()
    local bombs = { "\xdd\x0f\xff\xff\xff", ("\xdf"):rep(11) .. "\x0a", ("\x91"):rep(1200), "", "\x93\x01\x01" }
    for _, bomb in ipairs(bombs) do feed(bomb, "bomb") end
    local bytes = core.crypto.mac(("r"):rep(16), "noise", 64)
    local fed = 0
    for i = 1, 4000 do
      bytes = core.crypto.mac(("r"):rep(16), bytes, 64)
      local noise = bytes:sub(1, i % 64 + 1):rep(i % 18 + 1)
      fed = fed + #noise
      feed(noise, "noise")
    end
    assert.is_true(fed > 1000000)
    local info = s.server:status().info
    assert.same({ 0, 0, 0, 1 }, { -- the timer is that of associations
      info.registered, info.rooms, info.matched_pending, s.env.timers })
    assert.equal(0, s:count("handler_error"))
  end)

  it("what only a client is sent is dropped: a reply is never answered", function()
    local tx = s:next_tx()
    feed(message.address_report:encode(tx, from, s:proof(from)), "report")
    feed(message.refused:encode(tx, 1001, "no"), "refused")
    feed(message.done:encode(tx), "done")
    assert.equal(3, s:count("drop_unknown"))
    assert.equal("registered", s:register(who(3), from).name_of)
  end)
end)

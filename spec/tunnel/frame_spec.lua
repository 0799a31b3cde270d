-- SPDX-License-Identifier: MIT
local crypto = require("bodkin.core").crypto
local frame = require "bodkin.tunnel.frame"

describe("a tunnel's frames", function()
  it("are as docs/PROTOCOL.md shows them", function()
    local file <close> = assert(io.open "docs/PROTOCOL.md")
    local vectors = {}
    for body in file:read("a"):gmatch "```hex tunnel\n(.-)```" do
      for line in body:gmatch "[^\n]+" do table.insert(vectors, crypto.unhex((line:gsub(";.*", ""):gsub(" ", "")))) end
    end
    assert.same({ (frame.split(0x0102, 0, "hello")), frame.hello("to", true), frame.hello("at", false) }, vectors)
  end)

  it("carry a datagram whole up to 1,117 bytes, and in two frames up to 2,232", function()
    for _, len in ipairs { 0, 1, 1117, 1118, 1119, 2231, 2232 } do
      local bytes = ("abcdefg"):rep(400):sub(1, len)
      local first, second = frame.split(513, 7, bytes)
      local kind, flow, number, part = frame.read(first)
      assert.equal(513, flow)
      assert.is_true(#first <= 1120)
      if len <= 1117 then
        assert.equal(frame.WHOLE, kind)
        assert.is_nil(second)
        assert.is_nil(number)
        assert.equal(bytes, part)
      else
        local kind2, flow2, number2, rest = frame.read(second)
        assert.same({ frame.FIRST, frame.SECOND, 513, 7, 7 }, { kind, kind2, flow2, number, number2 })
        assert.is_true(#second <= 1120)
        assert.equal(bytes, part .. rest)
      end
    end
  end)

  it("say who is there, and ask", function()
    for _, side in ipairs { "at", "to" } do
      for _, ask in ipairs { true, false } do
        assert.same({ frame.HELLO, 1, side, ask }, { frame.read(frame.hello(side, ask)) })
        assert.same({ frame.HELLO, 1, side, ask }, { frame.read(frame.hello(side, ask) .. "more, of a later version") })
      end
    end
  end)

  it("are refused when they are none", function()
    for _, bytes in ipairs { "", "\0", "\0\1", "\1\0\0\0", "\2\0\0\0", "\3\1", "\4\0\0\0\0", "\255\0\0\0\0" } do
      assert.is_nil((frame.read(bytes)))
    end
  end)
end)

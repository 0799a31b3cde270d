-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"

describe("stream", function()
  local loop, path, errors, on_error

  before_each(function()
    loop, errors = core.loop {}, {}
    path = os.tmpname()
    os.remove(path)
    on_error = core.on_error(function(text) errors[#errors + 1] = text end)
  end)
  after_each(function()
    loop:close()
    core.on_error(on_error)
    assert.equal(0, loop:handles())
    assert.is_nil(io.open(path))
  end)

  local function run()
    local late
    local limit = loop:timer(3000, function()
      late = true
      loop:stop()
    end)
    loop:run()
    if tostring(loop) ~= "loop (closed)" then limit:cancel() end
    assert.is_nil(late, "nothing came in 3 s")
  end

  -- What a line reader gets, until the end.
  local function read(stream, done)
    local got = {}
    stream:on_line(function(line, why)
      got[#got + 1] = line or false
      if not line then
        got.why = why
        stream:close()
        done(got)
      end
    end)
    return got
  end

  it("carries lines both ways", function()
    local asked, answered
    assert(loop:listen(path, function(s)
      s:on_line(function(line)
        if not line then return s:close() end
        asked = line
        s:write "one\ntwo\n\nlast"
        s:close()
      end)
    end))
    local s = assert(loop:connect(path))
    assert.is_true(s:write "question\n")
    answered = read(s, function() loop:stop() end)
    run()
    assert.equal("question", asked)
    assert.same({ "one", "two", "", "last", false }, answered)
    assert.same({}, errors)
    assert.equal(1, loop:handles())
  end)

  it("joins lines that come in pieces, up to 64 KiB", function()
    local got
    assert(loop:listen(path, function(s)
      got = read(s, function() loop:stop() end)
    end))
    local s = assert(loop:connect(path))
    s:write(("x"):rep(65536) .. "\n" .. ("y"):rep(100))
    s:write("\nz\n")
    s:close()
    run()
    assert.same({ ("x"):rep(65536), ("y"):rep(100), "z", false }, got)
    assert.is_nil(got.why)
  end)

  it("ends at a longer line", function()
    local got
    assert(loop:listen(path, function(s)
      got = read(s, function() loop:stop() end)
    end))
    assert(loop:connect(path)):write("a\n" .. ("x"):rep(65537) .. "\nb\n")
    run()
    assert.same({ "a", false, why = "a line is longer than 65536 bytes" }, got)
  end)

  it("says why it cannot connect or listen", function()
    local none, text, code = loop:connect(path)
    assert.is_nil(none)
    assert.matches(path .. ": No such file", text, 1, true)
    assert.equal("invalid", code)
    local l = assert(loop:listen(path, print))
    none, text = loop:listen(path, print)
    assert.is_nil(none)
    assert.matches("in use", text)
    l:close()
    none, text, code = loop:listen("/nonexistent/x", print)
    assert.is_nil(none)
    assert.matches("No such file", text)
    assert.equal("invalid", code)
    none = loop:fd(987654)
    assert.is_nil(none)
    assert.equal(0, loop:handles())
  end)

  it("may be closed inside its callback, its listener and loop too", function()
    for _, what in ipairs { "stream", "listener", "loop" } do
      loop = core.loop {}
      local n, l = 0, nil
      l = assert(loop:listen(path, function(s)
        s:on_line(function()
          n = n + 1
          l:close()
          if what == "loop" then return loop:close() end
          s:close()
          s = nil
          for _ = 1, 3 do collectgarbage() end
          if what == "stream" then loop:stop() end
          loop:timer(1, function() loop:stop() end)
        end)
        if what == "listener" then
          l:close()
          l:close()
        end
      end))
      assert(loop:connect(path)):write "1\n2\n3"
      run()
      assert.equal(1, n)
      loop:close()
    end
    assert.same({}, errors)
  end)

  it("reports errors of its functions, and goes on", function()
    local lines = 0
    local first = true
    assert(loop:listen(path, function(s)
      s:on_line(function()
        lines = lines + 1
        if lines == 2 then loop:stop() end
        error "line"
      end)
      if first then
        first = false
        error "accept"
      end
    end))
    assert(loop:connect(path)):write "1\n2\n"
    run()
    assert.equal(3, #errors)
    assert.equal(2, lines)
  end)

  it("throws when closed, but for close and tostring", function()
    local l = assert(loop:listen(path, print))
    local s = assert(loop:connect(path))
    assert.equal("stream (open)", tostring(s))
    assert.equal("listener (open)", tostring(l))
    s:close()
    s:close()
    l:close()
    l:close()
    assert.equal("stream (closed)", tostring(s))
    assert.equal("listener (closed)", tostring(l))
    assert.has_error(function() s:write "x" end, "closed stream")
    assert.has_error(function() s:on_line(print) end, "closed stream")
  end)

  it("reads a pipe by its descriptor, and files", function()
    -- A second process has its stdin on a pipe, then on a file.
    local script = [[local core = require "bodkin.core"
      local loop = core.loop {}
      local s = assert(loop:stdin())
      s:on_line(function(line) print(line) if not line then s:close() loop:stop() end end)
      loop:run() print(loop:handles()) loop:close()]]
    local file = assert(io.open(path, "w"))
    file:write(script)
    file:close()
    for _, command in ipairs { "printf 'a\\nb' | lua5.4 %s", "lua5.4 %s < %s", "lua5.4 %s </dev/null" } do
      local pipe = assert(io.popen(command:format(path, path) .. " 2>&1"))
      local text = pipe:read "a"
      pipe:close()
      assert.equal(command:find "printf" and "a\nb\nnil\n0\n" or command:find "null" and "nil\n0\n" or
        script .. "\nnil\n0\n", text)
    end
    os.remove(path)
  end)
end)

describe("resolve", function()
  local loop
  before_each(function() loop = core.loop {} end)
  after_each(function() loop:close() end)

  it("answers numeric addresses and names from /etc/hosts, never at once", function()
    local got = {}
    local function on(name)
      return function(addrs, err)
        got[name] = addrs and core.addr.format(addrs[1]) or err
        got.n = (got.n or 0) + 1
        if got.n == 3 then loop:stop() end
      end
    end
    assert.is_true(loop:resolve("192.0.2.1", 5, on "number"))
    assert.is_true(loop:resolve("localhost", 6, on "name"))
    assert.is_true(loop:resolve("", 7, on "none"))
    assert.is_nil(next(got))
    assert.equal(3, loop:handles())
    loop:run()
    assert.equal(0, loop:handles())
    assert.equal("192.0.2.1:5", got.number)
    assert.matches("^[%[%]:.%d]+:6$", got.name)
    assert.matches("no such host", got.none)
  end)

  it("is forgotten when the loop is closed", function()
    local called
    for _ = 1, 2 do
      local l = core.loop {}
      l:resolve("192.0.2.1", 5, function() called = true end)
      l:resolve("name.invalid", 5, function() called = true end)
      l:close()
    end
    loop:timer(0, function()
      loop:close()
      for _ = 1, 3 do collectgarbage() end
    end)
    loop:resolve("192.0.2.1", 5, function() called = true end)
    loop:run()
    assert.is_nil(called)
  end)

  it("refuses nonsense", function()
    assert.has_error(function() loop:resolve("x", 65536, print) end)
    assert.has_error(function() loop:resolve("x", 1) end)
    assert.has_error(function() loop:resolve(nil, 1, print) end)
  end)
end)

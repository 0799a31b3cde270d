-- SPDX-License-Identifier: MIT
-- The library as a stranger gets it: installed, found by pkg-config, built against, run against `bodkin serve`.

local core = require "bodkin.core"
local processes_of = require "spec.processes"

local build = os.getenv "BUILD" or "build"
local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local header = "runtime/host/bodkin.h"

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

-- What a command prints; fails with that where the command does.
local function run(command, ...)
  local pipe = assert(io.popen("exec 2>&1; " .. command:format(...)))
  local text = pipe:read("a")
  if not pipe:close() then error(command:format(...) .. " failed:\n" .. text, 2) end
  return text
end

local function lines(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do list[#list + 1] = line end
  table.sort(list)
  return list
end

local function has(program) return os.execute("command -v " .. program .. " >/dev/null") == true end

describe("library", function()
  local dir, prefix, processes, url

  setup(function()
    local pipe <close> = assert(io.popen("mktemp -d"))
    dir = pipe:read("l")
    prefix = dir .. "/usr"
    run("make -s BUILD=%s PREFIX=%s install", build, prefix)
  end)

  teardown(function() run("rm -r %s", dir) end)

  before_each(function()
    processes = processes_of.new()
    url = processes_of.expect(processes:start(bodkin .. " serve --listen 127.0.0.1:0 --admin " .. processes.dir
      .. "/admin"), "bodkin://127%.0%.0%.1:%d+%S*")
  end)

  after_each(function() processes:close() end)

  local function compile(compiler, source, out, flags)
    run("export PKG_CONFIG_PATH=%s/lib/pkgconfig; %s -Wall -Wextra -Werror %s -o %s/%s %s", prefix, compiler, source,
      dir, out, flags or "$(pkg-config --cflags --libs bodkin)")
  end

  local function program(name) return ("env LD_LIBRARY_PATH=%s/lib %s/%s"):format(prefix, dir, name) end

  local function assert_pair(text)
    -- All on this machine: the server's relay may be as quick.
    assert.matches("0: connected %(%a+%)", text)
    assert.matches("1: connected %(%a+%)", text)
    assert.matches("0: heard hello", text)
    assert.matches("1: heard hello", text)
  end

  it("shows the functions of bodkin.h and nothing else", function()
    local declared = {}
    for name in read(header):gmatch("\n[%w_ ]-[ *](bdk_%l+[%l_]*)%([^\n]*%);") do declared[#declared + 1] = name end
    table.sort(declared)
    assert.same({
      "bdk_accept", "bdk_cancel", "bdk_close", "bdk_config_init", "bdk_deadline", "bdk_decline", "bdk_fd", "bdk_host",
      "bdk_join", "bdk_keygen", "bdk_leave", "bdk_match", "bdk_match_party", "bdk_next",
      "bdk_open", "bdk_send", "bdk_stats",
      "bdk_strerror", "bdk_update", "bdk_version", "bdk_wake", "bdk_why",
    }, declared)
    assert.same(declared, lines(run("nm -D --defined-only %s/lib/libbodkin.so | cut -d' ' -f3", prefix)))
    assert.same(declared, lines(run("nm -g --defined-only %s/lib/libbodkin.a | sed -n 's/.* T //p'", prefix)))
    assert.equal("", run("nm -g --defined-only %s/lib/libbodkin.a | grep -v ' T \\|^$\\|:$' || true", prefix))
  end)

  it("needs neither libev nor a Lua nor a thread", function()
    local needs = run("nm -D --undefined-only %s/lib/libbodkin.so", prefix)
    for _, symbol in ipairs { " ev_", " lua", " pthread_create", " signal@", " sigaction" } do
      assert.is_nil(needs:find(symbol, 1, true), symbol)
    end
    assert.matches(" recvmmsg", needs)
  end)

  it("has a header of one page, for C and C++, with the error numbers of the rest", function()
    local text = read(header)
    assert.is_true(select(2, text:gsub("\n", "")) <= 120)
    run("gcc -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c %s", header)
    run("g++ -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c++ %s", header)
    local seen = 0
    for name, value in text:gmatch("BDK_E_([%u_]+) = (%-%d+)") do
      assert.equal(core.errors[name:lower()].value, tonumber(value), name)
      seen = seen + 1
    end
    for _ in pairs(core.errors) do seen = seen - 1 end
    assert.equal(0, seen)
  end)

  it("connects two nodes in a C program of 40 lines", function()
    assert.is_true(select(2, read("examples/embed.c"):gsub("\n", "")) <= 40)
    compile("gcc", "examples/embed.c", "embed-c")
    assert_pair(run("%s %s", program("embed-c"), url))
  end)

  it("does so when linked statically", function()
    compile("gcc", "examples/embed.c", "embed-static", ("-I%s/include %s/lib/libbodkin.a $(pkg-config --libs --static "
      .. "bodkin | sed s/-lbodkin//)"):format(prefix, prefix))
    assert_pair(run("%s/embed-static %s", dir, url))
    assert.is_nil(run("ldd %s/embed-static", dir):find("bodkin", 1, true))
  end)

  it("connects two C++ programs", function()
    compile("g++ -std=c++17", "examples/embed.cpp", "embed-cpp")
    local ann = processes:start(("%s %s ann"):format(program("embed-cpp"), url))
    local code = processes_of.expect(ann, "^code: (.*)$")
    local bob = processes:start(("%s %s bob %s"):format(program("embed-cpp"), url, code))
    processes_of.expect(ann, "^heard bob$")
    processes_of.expect(bob, "^heard ann$")
    for _, p in ipairs { ann, bob } do
      assert.is_nil(p.out:read("l"))
      assert.is_true(p.out:close())
    end
  end)

  it("lives in a LuaJIT process", function()
    if not has("luajit") then return pending("luajit is not installed: make deps") end
    -- FFI reads declarations, not the preprocessor's lines.
    run("gcc -E -P %s | sed -n '/BDK_E_TIMEOUT/,$p' | grep -v '^#' >%s/ffi.h", header, dir)
    local text = run("luajit spec/embed/luajit.lua %s/lib/libbodkin.so %s/ffi.h %s", prefix, dir, url)
    assert.matches("^hello 2\thello 1\tLuaJIT 2", text)
  end)

  it("can be uninstalled without a trace", function()
    run("make -s BUILD=%s PREFIX=%s/other install", build, dir)
    assert.equal("bodkin bodkin.1 bodkin.h bodkin.pc libbodkin.a libbodkin.so libbodkin.so.0",
      table.concat(lines(run("find %s/other ! -type d -printf '%%f\\n'", dir)), " "))
    run("make -s BUILD=%s PREFIX=%s/other uninstall", build, dir)
    assert.equal("", run("find %s/other ! -type d", dir))
  end)
end)

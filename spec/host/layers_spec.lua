-- SPDX-License-Identifier: MIT
-- The check that keeps the layers apart must fail where they are not.

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local ok, _, code = pipe:close()
  return ok and 0 or code, text
end

describe("layers", function()
  local root

  local function write(path, text)
    assert(os.execute(("mkdir -p '%s/%s'"):format(root, path:match "^(.*)/")))
    local file <close> = assert(io.open(root .. "/" .. path, "w"))
    file:write(text)
  end

  -- Compiles every layer's sources into its archive, and checks.
  local function check()
    for layer, dir in pairs { core = "runtime/core", io = "runtime/io", bindings = "bindings" } do
      local code, text = run(("cd '%s/%s' && gcc -I../runtime -I.. -c *.c && ar rcs '%s/%s.a' *.o")
        :format(root, dir, root, layer))
      assert.equal(0, code, text)
    end
    return run(("lua5.4 .ci/layers.lua '%s' '%s'"):format(root, root))
  end

  before_each(function()
    root = os.tmpname()
    os.remove(root)
    write("runtime/core/a.c",
      '#include "a.h"\n#include <string.h>\nint bdk_a(const char *s) { return (int)strlen(s); }\n')
    write("runtime/core/a.h", "int bdk_a(const char *s);\n")
    write("runtime/io/b.c", '#include "../core/a.h"\n#include "b.h"\nint bdk_b(void) { return bdk_a("b"); }\n')
    write("runtime/io/b.h", "int bdk_b(void);\n")
    write("bindings/c.c", '#include "io/b.h"\nint bdk_c(void) { return bdk_b(); }\n')
    write("scripts/bodkin/d.lua", 'return require "bodkin.core"\n')
    assert(os.execute(("sed -i 's|io/b.h|../runtime/io/b.h|' '%s/bindings/c.c'"):format(root)))
  end)
  after_each(function() os.execute(("rm -rf '%s'"):format(root)) end)

  local function breaks(what)
    local code, text = check()
    assert.equal(1, code, text)
    assert.truthy(text:find(what, 1, true), text)
  end

  it("that hold are counted", function()
    local code, text = check()
    assert.equal(0, code, text)
    assert.truthy(text:find "core +4 lines", text)
  end)

  it("break when core includes io", function()
    write("runtime/core/a.h", '#include "../io/b.h"\nint bdk_a(const char *s);\n')
    breaks "runtime/core/a.h (core) includes ../io/b.h (io)"
  end)

  it("break when core includes the system's clock", function()
    write("runtime/core/x.c", "#include <time.h>\n")
    breaks "runtime/core/x.c (core) includes <time.h>"
  end)

  it("break when core needs malloc, or a random source", function()
    write("runtime/core/x.c", "#include <stddef.h>\nvoid *malloc(size_t);\nvoid *bdk_x(void) { return malloc(3); }\n")
    breaks "x.o (core) needs malloc"
    write("runtime/core/x.c",
      "void randombytes_buf(void *, unsigned long);\nvoid bdk_x(void *p) { randombytes_buf(p, 3); }\n")
    breaks "x.o (core) needs randombytes_buf"
  end)

  it("break when core calls what io defines", function()
    write("runtime/core/x.c", "int bdk_b(void);\nint bdk_x(void) { return bdk_b(); }\n")
    breaks "x.o (core) needs bdk_b, which stands in no layer below"
  end)

  it("break when io knows Lua", function()
    write("runtime/io/x.c", "int lua_gettop(void *);\nint bdk_x(void) { return lua_gettop(0); }\n")
    breaks "x.o (io) needs lua_gettop"
  end)

  it("break when anything but main.c handles signals", function()
    write("runtime/host/host.c", "#include <signal.h>\nvoid bdk_x(void) { signal(SIGINT, SIG_IGN); }\n")
    breaks "runtime/host/host.c calls signal(); only main.c may"
    write("runtime/host/host.c", "")
    write("runtime/host/main.c", "#include <signal.h>\nvoid bdk_x(void) { signal(SIGINT, SIG_IGN); }\n")
    assert.equal(0, (check()))
  end)

  it("break when a script requires what is not Bodkin", function()
    write("scripts/bodkin/d.lua", 'return require("socket")\n')
    breaks "scripts/bodkin/d.lua requires socket"
    write("scripts/bodkin/d.lua", 'return require "bodkin.host"\n')
    breaks "requires bodkin.host; only the cli may"
  end)

  it("break when a spec of core loads io", function()
    write("spec/core/test_x.c", '#include "../../runtime/io/b.h"\n')
    breaks "spec/core/test_x.c includes ../../runtime/io/b.h"
  end)

  it("break when nothing was built", function()
    local code, text = run(("lua5.4 .ci/layers.lua /nonexistent '%s'"):format(root))
    assert.equal(1, code)
    assert.truthy(text:find("build first", 1, true))
  end)
end)

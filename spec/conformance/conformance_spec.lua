-- SPDX-License-Identifier: MIT
-- Bodkin against an implementation of docs/PROTOCOL.md in another language, made from the document alone: on loopback
-- both ways, and driven through its states from outside. spec/lab/conformance_spec.lua does it behind real NATs.

local processes_of = require "spec.processes"

local BINARY = os.getenv "BODKIN" or "build/release/bodkin"
local PYTHON = "/usr/bin/python3 -B spec/conformance/"
local LONG = os.getenv "SOAK" and " --long" or ""

local function lines(command)
  local pipe <close> = assert(io.popen(command))
  local out = {}
  for line in pipe:lines() do out[#out + 1] = line end
  return out
end

describe("Noise, by its specification", function()
  -- Of Debian's golang-github-flynn-noise-dev.
  local VECTORS = "/usr/share/gocode/src/github.com/flynn/noise/vectors.txt"

  it("passes the published vectors", function()
    local file = io.open(VECTORS)
    if not file then return pending(VECTORS .. " is not there") end
    file:close()
    local said = table.concat(lines(PYTHON .. "noise.py " .. VECTORS .. " 2>&1"), "\n")
    local ik, kk = said:match "^published vectors: IK (%d+), KKpsk0 (%d+)$"
    assert(ik, said)
    assert.is_true(tonumber(ik) > 0 and tonumber(kk) > 0)
  end)

  it("makes the vectors of the document", function()
    local file <close> = assert(io.open "docs/PROTOCOL.md")
    local there = file:read "a":match "<!%-%- handshake vectors %-%->\n(.-)\n<!%-%- /handshake vectors %-%->"
    assert.equal(there, table.concat(lines(PYTHON .. "noise.py --document"), "\n"))
  end)
end)

describe("by the document", function()
  local results -- name = true, or why not

  setup(function()
    results = {}
    for _, line in ipairs(lines(("BODKIN=%s %sdrive.py%s 2>&1"):format(BINARY, PYTHON, LONG))) do
      local good, bad, why = line:match "^ok (.*)$", line:match "^not ok (.-): (%u.*)$"
      if good then results[good] = true end
      if bad then results[bad] = why end
    end
  end)

  local names = lines(PYTHON .. "drive.py --list" .. LONG)
  for _, name in ipairs(names) do
    it(name, function()
      assert(results[name], "it did not run")
      assert.is_true(results[name])
    end)
  end

  it("there are cases", function() assert.is_true(#names >= (LONG == "" and 50 or 6)) end)
end)

describe("the client written from the document, on loopback", function()
  local processes, url
  local expect = processes_of.expect
  local clients = { python = PYTHON .. "client.py ", bodkin = BINARY .. " " }

  before_each(function()
    processes = processes_of.new()
    local dir = processes.dir
    assert(os.execute(("%s keygen %s/key >%s/public"):format(BINARY, dir, dir)))
    local serve = ("%s serve --listen 127.0.0.1:0 --admin %s/admin --key-file %s/key"):format(BINARY, dir, dir)
    url = expect(processes:start(serve), "bodkin://127%.0%.0%.1:%d+#[%w_-]+")
  end)

  after_each(function() processes:close() end)

  local function start(client, command, said, expected, options)
    return processes:start(("%s%s --server %s --app conform/1 --send %s --expect %d --timeout 10%s"):format(
      clients[client], command, url, said, expected, options or client == "bodkin" and " --json" or ""))
  end

  for _, pair in ipairs { { "python", "bodkin" }, { "bodkin", "python" }, { "python", "python" } } do
    it(("%s opens a room, %s joins, both talk"):format(pair[1], pair[2]), function()
      local hosting = start(pair[1], "host", "from-a", 1)
      local joining = start(pair[2], "join " .. expect(hosting, '"code": ?"([%l%-]+)"'), "from-b", 1)
      expect(hosting, '"message".*from%-b')
      expect(joining, '"message".*from%-a')
    end)
  end

  for _, host in ipairs { "python", "bodkin" } do
    it(("%s hosts, keys are replaced, and go on"):format(host), function()
      local hosting = start(host, "host", "from-a", 2)
      local code = expect(hosting, '"code": ?"([%l%-]+)"')
      local joining = start("python", "join " .. code, "from-b", 2, " --rekey 0.5")
      expect(hosting, '"message".*from%-b')
      expect(joining, '"rekeyed"')
      expect(hosting, '"message".*from%-b')
    end)
  end
end)

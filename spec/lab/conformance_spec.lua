-- SPDX-License-Identifier: MIT
-- The client that was written from docs/PROTOCOL.md alone, behind real NATs: with Bodkin's own on either side, and
-- with itself.

local json = require "dkjson"
local support = require "spec.lab.support"

if (os.getenv "SOAK" or "1") ~= "1" then return end -- once a soak

local NATS = { a = "port_restricted", b = "port_restricted", delay_ms = 20 }

describe("the client written from the document, in the lab", function()
  local net

  setup(function()
    net = support.net(NATS)
    support.serve(net)
  end)

  teardown(function() if net then net:down() end end)

  local clients = {
    python = { "/usr/bin/python3", "-B", "spec/conformance/client.py" },
    bodkin = { support.binary },
  }

  local function start(client, host, ...)
    local words = table.move(clients[client], 1, #clients[client], 1, {})
    for _, list in ipairs { { ... }, net.urls, { "--app", "conform/1", "--send", "from " .. host, "--expect", "1",
      "--timeout", "20" } } do
      table.move(list, 1, #list, #words + 1, words)
    end
    if client == "bodkin" then words[#words + 1] = "--json" end
    return net[host]:start(words)
  end

  for _, pair in ipairs { { "python", "bodkin" }, { "bodkin", "python" }, { "python", "python" } } do
    it(("%s opens a room, %s joins, both talk, both ways"):format(pair[1], pair[2]), function()
      local hosting = start(pair[1], "a", "host")
      local line = assert(hosting:expect('"hosting"', 10000))
      local joining = start(pair[2], "b", "join", json.decode(line).code)
      for said, p in pairs { ["from a"] = joining, ["from b"] = hosting } do
        local status = p:wait(25000)
        local all = p:stdout() .. p:stderr()
        assert(status == 0, ("exit code %s\n%s"):format(status, all))
        local messages, paths = support.events(p, "message"), support.events(p, "path")
        assert(#messages == 1 and messages[1].data == said, all)
        local other = p == hosting and net.b or net.a
        assert.equal("direct", paths[#paths].path)
        assert.equal(other.public, paths[#paths].remote:match "^(.*):")
      end
    end)
  end
end)

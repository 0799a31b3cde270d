-- SPDX-License-Identifier: MIT
-- The process that tells a game's backend of matches: `bodkin webhook-desk`, which only the server starts.
-- Told:  { "piece", id, text }  of a body      { "post", id, url, signature, timeout_ms }
-- Tells: { "ended", id, status | false, message }

local host = require "bodkin.host"

local M = { name = "webhook-desk" }

local FD, TURN_MS = 3, 5

function M.run()
  local env = require("bodkin.env").new { log_level = "error" }
  host.background()
  local stream, err = env.loop:fd(FD)
  if not stream then
    io.stderr:write("bodkin webhook-desk is started by bodkin serve alone (", tostring(err), ")\n")
    return 2
  end
  local http, why = host.http()
  local link, bodies, timer = nil, {}, nil
  local function turn()
    local ended, running = http:turn()
    for _, one in ipairs(ended) do link:send { "ended", one[1], one[2], one[3] } end
    timer = running > 0 and env.timer(TURN_MS, turn) or nil
  end
  local on = {}
  function on.piece(id, text) bodies[id] = (bodies[id] or "") .. text end
  function on.post(id, url, signature, timeout_ms)
    local body, ok, wrong = bodies[id], nil, why
    bodies[id] = nil
    if http then
      local headers = { "Content-Type: application/json", "X-Bodkin-Signature: " .. signature, "Expect:",
        "User-Agent: bodkin/" .. require("bodkin.core").version }
      ok, wrong = http:post(id, url, headers, body, timeout_ms)
    end
    if not ok then return link:send { "ended", id, false, wrong } end
    timer = timer or env.timer(0, turn)
  end
  link = require("bodkin.policy.link").new(stream, function(message)
    if on[message[1]] then on[message[1]](table.unpack(message, 2, 5)) end
  end, env.stop)
  env.run()
  if http then http:close() end
  env.close()
  return 0
end

-- What a config's { url, secret | key_file } signs with; nil, message, code.
function M.secret(given)
  if not given.key_file then return given.secret end
  local file, err = io.open(given.key_file, "rb")
  if not file then return nil, ("cannot read the webhook's key: %s"):format(err), "invalid" end
  local secret = (file:read(4096) or ""):gsub("[\r\n]+$", "")
  file:close()
  if #secret < 16 then return nil, given.key_file .. ": a webhook's key has at least 16 bytes", "invalid" end
  return secret
end

-- What servers.open takes as webhook, of the same; nil, message, code.
function M.options(env, given)
  local secret, err, code = M.secret(given)
  if not secret then return nil, err, code end
  return { url = given.url, secret = secret, open_link = require("bodkin.cli.desk").opener(env, M.name) }
end

return M

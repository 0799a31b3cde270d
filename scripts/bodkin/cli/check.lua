-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"

-- A number of tickets or a seed.
local function whole(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 0 and n <= 100000 then return n end
  return nil, "a whole number up to 100000"
end

local function failed(out, message)
  out:failure(message, "invalid")
  return 3
end

-- What serve would not start with, though the file alone is right.
local function parts_of(config, out)
  local ok, err = require("bodkin.servers.compose").gather(config)
  if ok then ok, err = require("bodkin.servers.policies").read(config.queues) end
  if ok and config.key_file then ok, err = require("bodkin.cli.server_key").find(config.key_file, out) end
  if ok and config.webhook then ok, err = require("bodkin.cli.webhook").secret(config.webhook) end
  return ok, err
end

local function check_config(out, path)
  local config, err = require("bodkin.config").load(path)
  if not config then return failed(out, err) end
  local ok
  ok, err = parts_of(config, out)
  if not ok then return failed(out, err) end
  out:say("%s: a configuration, and right", path)
  return 0
end

return {
  usage = "bodkin check FILE [--tickets N] [--seed N]",
  summary = "look a policy or a configuration over",
  text = [[
Checks FILE's syntax, its globals and its definition; a policy is then given tickets made up from the properties and
claims it declares, and clients where it has on_register, within the budget a server would give it. FILE may also be
the name of one that ships. Of a configuration the files it names are read, too: policies, roles, keys. Exit code 3, and
the file and line, when something is wrong.]],
  options = {
    { "tickets", arg = "N", kind = whole, help = "how many to make up (default: 200)" },
    { "seed", arg = "N", kind = whole, help = "other ones for another number (default: 1)" },
  },
  arguments = 1,
  run = function(values, rest)
    if not rest[1] then return nil, "check needs a FILE", "usage" end
    local out = output.of(values)
    local source, err = require("bodkin.policy.source").read(rest[1])
    if not source then return failed(out, err) end
    local limits = require("bodkin.policy.instance").limits
    local report
    report, err = require("bodkin.policy.check").run(source, { tickets = values.tickets, seed = values.seed })
    if report == false and err == "config" then return check_config(out, rest[1]) end
    if report == false then return failed(out, require("bodkin.policy.instance").not_policy(source, err)) end
    if not report then return failed(out, err) end
    if out.json then
      out:object({ event = "checked", file = rest[1], tickets = report.tickets, admitted = report.admitted,
        refused = report.refused, matches = report.matches, players = report.players, instructions = report.most,
        budget = limits.instructions },
        { "event", "file", "tickets", "admitted", "refused", "matches", "players", "instructions", "budget" })
      return 0
    end
    out:say("%s: %d tickets made up, %d admitted, %d matches of %d players in two minutes", rest[1], report.tickets,
      report.admitted, report.matches, report.players)
    if report.why then out:say("%d were refused, the first with: %s", report.refused, report.why) end
    if report.clients > 0 then
      out:say("%d clients made up, %d of them turned away", report.clients, report.turned_away)
    end
    out:say("at most %d instructions in one run, %.1f %% of the budget", report.most,
      100 * report.most / limits.instructions)
    return 0
  end,
}

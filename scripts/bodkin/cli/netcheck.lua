-- SPDX-License-Identifier: MIT
-- `bodkin netcheck`: what the NAT in front of this host does, and whom that lets it reach (docs/NAT.md).
local options = require "bodkin.cli.options"
local output = require "bodkin.cli.output"

local MAPPING = {
  EI = "endpoint-independent: one public address for all destinations",
  AD = "address-dependent: another public address for each IP",
  APD = "address- and port-dependent (symmetric): another public address for each destination",
}
local FILTERING = {
  EI = "endpoint-independent: lets in anybody",
  AD = "address-dependent: lets in the IPs that were sent to",
  APD = "address- and port-dependent: lets in only the addresses that were sent to",
}
local NAMES = { EI = "endpoint_independent", AD = "address_dependent", APD = "address_and_port_dependent" }
local TCP_MS = 3000 -- to connect and to be answered
local ORDER = { "EI", "AD", "APD" }
local KEYS = { "event", "family", "server", "public", "nat", "mapping", "filtering", "ports", "hairpin",
  "race", "lifetime_s", "direct", "relay", "timing", "unknown", "asked", "error" }

local function merged(list, more)
  return table.move(more, 1, #more, #list + 1, table.move(list, 1, #list, 1, {}))
end

local function each_of(set)
  local list = {}
  for _, name in ipairs(ORDER) do
    if set[name] then list[#list + 1] = name end
  end
  return list
end

-- Of the common behaviours, whom one can reach for sure, not, depending on whose packet comes first, and "can't tell".
local function verdicts(found)
  local reach = require "bodkin.client.reach"
  local out = { yes = {}, no = {}, may = {}, unknown = {} }
  local races = found.race == nil and { false, true } or { found.race }
  for _, other in ipairs(reach.common) do
    local seen, one, several = {}, nil, false
    for _, mapping in ipairs(each_of(found.mapping)) do
      for _, filtering in ipairs(each_of(found.filtering)) do
        for _, race in ipairs(races) do
          race = race and mapping == "EI" and filtering == "APD" -- no other NAT has it
          one = reach.verdict({ mapping = mapping, filtering = filtering, race = race }, other)
          seen[one] = true
          several = several or next(seen, next(seen)) ~= nil
        end
      end
    end
    local list = out[several and "unknown" or one]
    list[#list + 1] = other.name
  end
  return out
end

local function one_name(set)
  local list = each_of(set)
  return #list == 1 and NAMES[list[1]] or "unknown"
end

local function told(set, texts)
  local list = each_of(set)
  if #list == 1 then return texts[list[1]] end
  if #list == 3 then return "can't tell: the server is at one address alone" end
  local first, second = texts[list[1]]:match "^[^:(]*[^:( ]", texts[list[2]]:match "^[^:(]*[^:( ]"
  return ("can't tell: %s or %s, the server has too few addresses"):format(first, second)
end

local function truth(value)
  if value == nil then return "can't tell" end
  return value and "yes" or "no"
end

-- Without a NAT it is a firewall's, if there is one.
local function lived(found, nat)
  local of = nat and "of a mapping" or "of a way in that a packet out opens"
  if not found.below_s then return ("%s at least %d s"):format(of, found.at_least_s) end
  return found.at_least_s == 0 and ("%s under %d s"):format(of, found.below_s)
    or ("%s between %d and %d s"):format(of, found.at_least_s, found.below_s)
end

local function line(title, text) return ("%-12s %s"):format(title, text) end

-- What was found over a family ("IPv4"), as lines of text.
local function lines(family, found)
  local can, out = verdicts(found), {}
  local function add(title, text) out[#out + 1] = line(title, text) end
  local function with(list) return "with " .. (#list > 0 and table.concat(list, ", ") or "nobody") end
  add("server", ("%s, over %s; asked at %s"):format(found.server, family, table.concat(found.asked, ", ")))
  add("public", ("%s, %s"):format(table.concat(found.public, ", "),
    found.nat and "behind a NAT" or "your own: no NAT between"))
  if found.nat then add("mapping", told(found.mapping, MAPPING)) end
  add("filtering", told(found.filtering, FILTERING))
  if found.nat then
    add("ports", found.ports == "unknown" and "can't tell" or found.ports)
    add("hairpin", truth(found.hairpin))
    if found.race then add("race", "a packet that comes unasked spoils the way to its sender until it times out") end
  end
  if found.lifetime then add("lifetime", lived(found.lifetime, found.nat)) end
  add("direct", with(can.yes))
  if #can.may > 0 then add("timing", with(can.may) .. ": whose packet comes first decides") end
  if #can.no > 0 then add("relay needed", with(can.no)) end
  if #can.unknown > 0 then add("can't tell", with(can.unknown)) end
  return out
end

-- The same as a table for JSON.
local function object(family, found)
  local can = verdicts(found)
  return {
    event = "netcheck", family = family, server = found.server, public = found.public, nat = found.nat,
    mapping = found.nat and one_name(found.mapping) or "none", filtering = one_name(found.filtering),
    ports = found.ports, hairpin = found.hairpin == nil and "unknown" or found.hairpin and "yes" or "no",
    race = found.race == nil and "unknown" or found.race and "yes" or "no",
    lifetime_s = found.lifetime and { found.lifetime.at_least_s, found.lifetime.below_s },
    direct = can.yes, relay = can.no, timing = can.may, unknown = can.unknown, asked = found.asked,
  }
end

-- In a task: whether the server answers over TCP.
local function answers_tcp(env, server, port, bind)
  local core, message = require "bodkin.core", require "bodkin.message"
  local any = core.addr.parse(core.addr.family(server) == 4 and "0.0.0.0:0" or "[::]:0")
  local sock = env.tcp(bind and core.addr.with_port(bind, 0) or any, { port = port })
  if not sock then return false end
  local tx, router = env.random(12), core.router(env.counters)
  sock:router(router)
  local answered = require("bodkin.task").await(function(resume)
    local timer = env.timer(TCP_MS, function() resume(false) end)
    router:on(message.key_report, { "tx" }, function(_, from, of)
      if from ~= server or of ~= tx then return end
      timer:cancel()
      resume(true)
    end)
    sock:send(server, message.key_request:encode(tx))
    return function() timer:cancel() end
  end)
  sock:close()
  return answered
end

-- Families over which a server can be asked: { 4, 6 }, one or none of them.
local function families(where, has, bind)
  local core, list = require "bodkin.core", {}
  for number, family in ipairs { 4, 6 } do
    if where.matching[family] and has[number] and (not bind or core.addr.family(bind) == family) then
      list[#list + 1] = family
    end
  end
  return list
end

-- In a task: asks the server of one URL over each family, and tells what was found: { url =, where =, has =, bind =,
-- families =, shown = whether anything was, errors = { [family] = message } }, and where nothing was shown also
-- message and code; or nil, message, code.
local function ask(env, url, values, out)
  local core, locate = require "bodkin.core", require "bodkin.client.locate"
  local behaviour = require "bodkin.client.behaviour"
  local where, err, code = locate.servers(env, { server = url, address_server = values.address_server })
  if not where then return nil, err, code end
  local self = { url = url, where = where, has = locate.binds(env, nil, where.loopback), errors = {},
    bind = values.bind and core.addr.parse(values.bind, 0) }
  self.families = families(where, self.has, self.bind)
  for _, family in ipairs(self.families) do
    local server = where.matching[family]
    local more = where.address[family] and { { addr = where.address[family], stun = where.address.stun } } or nil
    local found, why, what = behaviour.discover(env, server, {
      bind = self.bind, more = more, timeout_ms = (values.timeout or 5) * 1000,
    })
    if found and values.lifetime then
      out:say("waiting up to 130 s for answers over IPv%d after a silence ...", family)
      found.lifetime, why = behaviour.lifetime(env, server, { bind = self.bind })
      if why then out:say("%s: no lifetime", why) end
    end
    if found then
      self.shown = true
      if out.json then out:object(object("IPv" .. family, found), KEYS) end
      for _, said in ipairs(out.json and {} or lines("IPv" .. family, found)) do out:line(said) end
    else
      self.errors[family] = why
      err, code = err or why, code or what
    end
  end
  if self.shown then return self end
  return self, err or "no socket of this host can reach the server: is --bind of its family?", code or "invalid"
end

-- What became of the families of which nothing was shown.
local function tell_rest(self, out)
  local format = require("bodkin.core").addr.format
  for _, family in ipairs { 4, 6 } do
    local name, why, server = "IPv" .. family, self.errors[family], self.where.matching[family]
    if out.json then
      if why then out:object({ event = "netcheck", family = name, server = format(server), error = why }, KEYS) end
    elseif why then
      out:line(line(name, "no: " .. why))
    elseif family == 6 then
      out:line(line(name, not server and "can't tell: the server has no IPv6 address"
        or not self.has[2] and "no address of this host"
        or self.families[#self.families] ~= 6 and "not tried: --bind is of IPv4" or "yes"))
    end
  end
end

-- In a task: the port over which a server that is silent over UDP answers by TCP, or nil.
local function tcp_answers(env, self)
  local port = require("bodkin.url").parse(self.url).tcp or 443
  for _, family in ipairs(self.families) do
    if answers_tcp(env, self.where.matching[family], port, self.bind) then return port end
  end
end

return {
  lines = lines,
  answers_tcp = answers_tcp,
  ask = ask,
  usage = "bodkin netcheck [URL] [options]",
  summary = "what your NAT does, and whom you can reach through it",
  text = [[
Asks the server how it sees this host, from each of its addresses, and has it answer from those that were not asked.
Says how the NAT maps and filters (RFC 4787), how it chooses ports, whether it hairpins, and with which others a direct
path works or a relay is needed. How much can be told depends on the server: two IPs of two ports each (serve --listen
several times) tell everything, two ports the dependence on ports; what cannot be told is said so. --address-server,
also a stun:HOST[:PORT], is asked as one more address. Takes two to three seconds; fails with 1 when nobody answers, and
with 5 when the server answers over TCP alone: UDP is blocked. Of several URLs the first that answers counts.
With --json it is an object for each family, IPv4 and IPv6, that was asked; of one that did not answer, where the other
did, it has family, server and error alone.
--lifetime also has the server answer after silences of 15 to 130 s, at once by a socket each, and says after which an
answer still came in: so long lives a mapping that nothing uses; without a NAT, so long a firewall lets answers in.]],
  options = merged(options.client("server", "address-server", "bind", "timeout"), {
    { "lifetime", help = "find out how long a mapping lives; takes two minutes more" },
  }),
  arguments = 1,
  run = function(values, rest)
    local text = rest[1] or values.server
    if not text then return nil, "netcheck needs a URL: bodkin://HOST[:PORT]", "usage" end
    local urls, err, code = require("bodkin.url").list(text)
    if not urls then return nil, err, code end
    local out = output.of(values)
    return require("bodkin.cli.process").run(values, function(p)
      local silent = {}
      for i, url in ipairs(urls) do
        local asked, why, what = ask(p.env, url, values, out)
        if asked and asked.shown then
          tell_rest(asked, out)
          return 0
        end
        err, code = err or why, code or what
        silent[#silent + 1] = asked
        if urls[i + 1] then out:say("trying the next server: %s", why) end
      end
      for _, asked in ipairs(silent) do
        local port = tcp_answers(p.env, asked)
        if port then
          return nil, ("UDP is blocked here, TCP %d is not: over that clients meet by a relay"):format(port),
            "blocked_udp"
        end
      end
      return nil, err, code
    end)
  end,
}

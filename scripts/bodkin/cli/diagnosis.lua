-- SPDX-License-Identifier: MIT
-- What the records of one or both ends of a pair show: sentences, each of which follows from them by the reasoning of
-- docs/NAT.md, and what would help. A record is what node:why gives, or the server for an end of a match.
--
-- Of a pair { ends = { record or nil, record or nil }, names = { text, text } } a diagnosis is { verdict = "failed" |
-- "lost" | "connected" | "over" | "left" | "seeking" | "unknown", findings = { { code =, text =, side = whom it is
-- about, by_destination = true: that side's NAT uses another port for another destination }, … }, help = { texts } }.

local NO_ADDRESS = require("bodkin.outcome").NO_ADDRESS
local is_by_destination = require("bodkin.kind").is_by_destination
local reason_text = require("bodkin.cli.output").reason

local M = {}

local TOO_SHORT_MS = 5000 -- who left sooner need not have been found

-- --- what a record shows

local function ip_of(text) return text:match "^(.*):%d+$" or text end

local function has(list, value)
  for _, v in ipairs(list or {}) do
    if v == value then return true end
  end
  return false
end

local function ips_of(list)
  local out = {}
  for i, text in ipairs(list or {}) do out[i] = ip_of(text) end
  return out
end

-- Whether this end has said how it went.
local function known(e) return e and e.state ~= nil and e.state ~= "unknown" end

local function heard(e)
  for _, p in ipairs(e.paths) do
    if p.state == "usable" or p.state == "valid" then return true end
  end
  return e.first_ms ~= nil
end

-- The peer's packets came from an address that the server did not name: that one, and "port" where it is another port
-- of an address that it did, "ip" where it is none of these.
local function moved(e)
  local ips = ips_of(e.peer_public)
  for _, p in ipairs(e.paths) do
    if p.via == "prflx" and p.remote and not has(e.peer_public, p.remote) and not has(e.peer_local, p.remote) then
      return p.remote, has(ips, ip_of(p.remote)) and "port" or "ip"
    end
  end
end

-- The public IP that both are seen at.
local function shared_ip(e)
  local theirs = ips_of(e.peer_public)
  for _, ip in ipairs(ips_of(e.public)) do
    if has(theirs, ip) then return ip end
  end
end

-- A relay, by why it could not be used: refused, limit, or no_answer; nil: it is none, or was open.
local function closed_relay(p)
  if p.via ~= "relay" or p.state ~= "failed" then return nil end
  if p.reason == "refused" or p.reason == "limit" then return p.reason end
  return p.reason == "no_answer" and (p.tests or 0) == 0 and p.reason or nil
end

M.closed_relay = closed_relay

-- How many tests were sent, whether none had a route, and to how many addresses there was something to send.
local function tests_of(e)
  local n, unreachable, count = 0, true, 0
  for _, p in ipairs(e.paths) do
    if p.via ~= "relay" or (p.tests or 0) > 0 then
      n, count = n + (p.tests or 0), count + 1
      unreachable = unreachable and p.reason == "unreachable"
    end
  end
  return n, unreachable and count > 0, count
end

local function tried(e, via)
  for _, p in ipairs(e.paths) do
    if p.via == via then return true end
  end
  return false
end

-- Words of a NAT's kind in others' words; nil where they tell nothing.
function M.said(list, words)
  local out = {}
  for word in (words or ""):gmatch "[%a_]+" do out[#out + 1] = list[word] end
  return out[1] and table.concat(out, " or ")
end

local function verdict_of(a, b)
  local function any(fn) return a and fn(a) or b and fn(b) or false end
  local function reason(name) return any(function(e) return e.reason == name end) end
  if reason "no_path" then return "failed" end
  if reason "consent_lost" then return "lost" end
  if any(function(e) return e.state == "connected" and e.confirmed_ms end) then return "connected" end
  if any(function(e) return e.confirmed_ms end) then return "over" end
  if reason "left" or reason "closed" then return "left" end
  if any(known) then return "seeking" end
  return "unknown"
end

-- --- findings

local Finder = {}
Finder.__index = Finder

function Finder:add(code, side, format, ...)
  local finding = { code = code, side = side, text = format:format(...) }
  self.findings[#self.findings + 1] = finding
  return finding
end

-- Of each end that is known: the end, its name, the other's name, the other end, its side.
function Finder:each()
  local i = 0
  return function()
    repeat i = i + 1 until i > 2 or known(self.ends[i])
    if i > 2 then return end
    return self.ends[i], self.names[i], self.names[3 - i], self.ends[3 - i], i
  end
end

-- What the NAT of a side does, as its client found out.
function Finder:behaviour(side)
  local e, other = self.ends[side], self.ends[3 - side]
  return e and e.behaviour or other and other.peer_behaviour
end

function Finder:both() return known(self.ends[1]) and known(self.ends[2]) end

local ways = {
  host = "inside their network, by a local address", ipv6 = "over IPv6", mapped = "by a port its router was asked for",
  srflx = "at the address the server had seen it at", predicted = "at a port that was predicted",
  relay = "over a relay",
}

local function met_without_relay(e) return e and e.confirmed_ms and e.via ~= "relay" end

-- Ends whose network lets no UDP out: within it some may go all the same.
function Finder:blocked()
  for e, me, _, other_end, side in self:each() do
    if e.over == "tcp" then
      self.is_blocked = true
      local met = met_without_relay(e) or met_without_relay(other_end)
      self:add("udp_blocked", side, "%s reached the server over TCP alone: its network lets no UDP out%s.", me,
        met and "" or ", and what is left to reach it is a relay")
    end
  end
end

function Finder:path()
  for e, me, other, _, side in self:each() do
    if e.confirmed_ms then
      local at, how = moved(e)
      local way = ways[e.via] or "at an address learned from its packets"
      self:add("path", side, "%s reached %s %s%s, confirmed after %.1f ms.", me, other, way,
        e.via == "prflx" and at and " (" .. at .. ")" or "", e.confirmed_ms)
      if e.via == "prflx" and how == "port" and not shared_ip(e) then self:port_of(e, other, side) end
    end
  end
end

function Finder:port_of(e, other, side)
  self:add("moved_port", 3 - side,
    "%s's packets came from %s, not from a port the server saw: its NAT uses another port for another destination.",
    other, (moved(e))).by_destination = true
end

-- One that never began to look, or could not. Whether there was one.
function Finder:never_began()
  local found = false
  for e, me, other, _, side in self:each() do
    local _, unreachable, count = tests_of(e)
    if e.note then
      self:add(e.note == NO_ADDRESS and "no_candidate" or "note", side, "%s did not try: %s.", me, e.note)
      found = true
    elseif count == 0 and not heard(e) then
      self:add("no_candidate", side, "%s had no address of %s to try.", me, other)
      found = true
    elseif unreachable then
      self:add("unreachable", side, "The system %s runs on has no route to any address of %s.", me, other)
      found = true
    end
  end
  return found
end

-- One that was gone before the other could find it. Whether there was one.
function Finder:gone()
  for i = 1, 2 do
    local e = self.ends[i]
    if e and not known(e) and e.acknowledged == false then
      self:add("not_told", i,
        "%s never confirmed that it had heard of the match: it was gone, or could not be reached.", self.names[i])
      return true
    end
  end
  for e, me, _, _, side in self:each() do
    local lasted_ms = e.lasted_ms or 0
    if (e.reason == "closed" or e.reason == "left") and not e.confirmed_ms and lasted_ms < TOO_SHORT_MS then
      self:add("left_early", side, "%s left after %.1f s, before a path was found.", me, lasted_ms / 1000)
      return true
    end
  end
  return false
end

-- Both behind the same NAT. Whether they are, and nothing more is to be said.
function Finder:together()
  for e, _, other, other_end, side in self:each() do
    local ip = shared_ip(e)
    if ip and has(ips_of(e["local"]), ip) then
      self:add("same_machine", side, "Both are on one machine, and no NAT is between.")
      return false
    elseif ip then
      self:add("same_nat", side, "Both are at the same public address, %s: behind the same NAT.", ip)
      if heard(e) or known(other_end) and heard(other_end) then
        self:so_far()
        return true
      end
      self:add("local_failed", side, tried(e, "host")
        and "No local address answered: the network keeps its hosts apart (client isolation), or it is two networks."
        or "No local address was tried.")
      self:add("no_hairpin", side, "By way of the NAT's own outer address (hairpinning) no path came about, either.")
      if not known(other_end) then
        self:add("one_end", side, "Or %s had stopped: what it saw itself would tell.", other)
      end
      return true
    end
  end
  return false
end

-- Some test got in, and was never confirmed.
function Finder:one_way(e, me, other, other_end, side)
  local at, how = moved(e)
  if how == "port" then
    self:port_of(e, other, side)
  elseif how == "ip" then
    self:add("moved_ip", 3 - side,
      "%s's packets came from %s, an address that the server never saw: it has several ways out.", other, at)
  else
    self:add("heard", side, "%s heard %s, from an address that the server had named.", me, other)
  end
  local and_more = ", or %s stopped"
  if known(other_end) then
    and_more = heard(other_end) and "" or ", and %s's NAT or firewall lets in only addresses that it has sent to"
  end
  self:add("unconfirmed", side,
    "%s's answers did not arrive where they were sent: its NAT uses another port for another destination%s.", me,
    and_more:format(other)).by_destination = known(other_end)
end

-- What is only known so far, and nothing follows from.
function Finder:so_far()
  for e, me, other, _, side in self:each() do
    if e.confirmed_ms then
      self:add("path_here", side, "%s had its tests answered by %s.", me, other)
    elseif heard(e) then
      self:add("heard", side, "%s heard %s, but no test of its own was confirmed.", me, other)
    else
      self:add("silent", side, "Nothing from %s reached %s, which sent %d tests.", other, me, (tests_of(e)))
    end
  end
end

function Finder:silence()
  local silent = {}
  for e, me, other, other_end, side in self:each() do
    if heard(e) then
      self:one_way(e, me, other, other_end, side)
    else
      silent[#silent + 1] = side
      self:add("silent", side, "Nothing from %s reached %s, which sent %d tests.", other, me, (tests_of(e)))
    end
  end
  if #silent == 0 or self.is_blocked then return end
  if self:both() and #silent == 2 then
    local one, two = is_by_destination(self:behaviour(1)), is_by_destination(self:behaviour(2))
    local why = "Each side's NAT or firewall lets in only addresses that it has sent to, and the other's packets come "
      .. "from another one: at least one of the two NATs uses another port for another destination. Or a firewall "
      .. "between them drops the packets."
    if one or two then
      why = "Each side's NAT or firewall lets in only addresses that it has sent to, and the other's packets come from "
        .. "another one."
    elseif one == false and two == false then
      why = "Both NATs keep one port for all destinations, so something else drops the packets: a firewall between the "
        .. "two; or the port was lost to a packet that came before the first was sent."
    end
    self:add("filtered", nil, "Both reach the server, so UDP as such is not blocked. %s", why)
  elseif not self:both() then
    local me, other = self.names[silent[1]], self.names[3 - silent[1]]
    self:add("one_end", silent[1], "The server was reached, so UDP as such is not blocked here. Either %s's NAT or "
      .. "firewall lets in only addresses that it has sent to, and %s's packets come from another one; or they were "
      .. "dropped on the way, or never sent. What %s saw would tell.", me, other, other)
  end
end

function Finder:failed()
  if self:never_began() or self:gone() then return end
  if self:both() and (self.ends[1].confirmed_ms or self.ends[2].confirmed_ms) then
    local side = self.ends[1].confirmed_ms and 1 or 2
    return self:add("one_sided", side, "%s had its tests answered, %s not: packets are lost on one way, or %s stopped.",
      self.names[side], self.names[3 - side], self.names[3 - side])
  end
  if not self:together() then self:silence() end
end

local closed = {
  refused = "The relay %s refused %s: has it the deployment's key file, and the right time?",
  limit = "The relay %s did not serve %s: it has no room for the two, or they have had the bytes of a pair.",
  no_answer = "The relay %s did not answer %s.",
}

-- Relays that could have carried it, and did not.
function Finder:relays()
  for e, me, _, _, side in self:each() do
    for _, p in ipairs(e.paths) do
      local why = closed_relay(p)
      if why then self:add("relay_" .. why, side, closed[why], p.remote or "?", me) end
    end
  end
end

function Finder:missing()
  for i = 1, 2 do
    local e = self.ends[i]
    if e and not known(e) and e.acknowledged ~= false then
      self:add("no_report", i, "%s has not said how it went: it still tries, or ended without a word.", self.names[i])
    end
  end
end

-- --- theory

local letters = {
  a = "one of them keeps its port and lets in anybody, or any port of who was sent to",
  b = "both keep their ports, and each has sent to exactly the other's",
  c = "one lets in anybody, and the other filters by address at most",
  d = "one waits for packets from the other's known port, and they come from another",
  e = "each filter waits for an address that the other's packets do not come from",
  f = "the answers come from another port than was sent to, and are filtered",
  g = "they hear each other, but every answer comes from yet another port",
}

local maps = { address = "for another address", address_port = "for another destination" }
local lets = {
  endpoint = "anybody", address = "the addresses that were sent to", address_port = "only the ports that were sent to",
}

-- What each side's client found out about its NAT.
function Finder:nats()
  for side = 1, 2 do
    local b = self:behaviour(side)
    local filter = b and M.said(lets, b.filtering)
    local by = is_by_destination(b)
    local mapping = by and "uses another port " .. M.said(maps, b.mapping) or "keeps one port for all destinations"
    if b and b.nat ~= false and by ~= nil then
      self:add("nat", side, "%s's NAT %s%s, as its client found out.", self.names[side], mapping,
        filter and ", and lets in " .. filter or "").by_destination = by
    end
  end
end

-- Whether one of them reached the server over TCP: its end says so, or the other was given no address of it.
function Finder:is_without_udp()
  for i = 1, 2 do
    local e = self.ends[i]
    if e and (e.over == "tcp" or e.public and e.public[1] and not (e.peer_public or {})[1]) then return true end
  end
  return false
end

function Finder:theory(verdict)
  local a, b = self:behaviour(1), self:behaviour(2)
  if not a and not b or self:is_without_udp() or shared_ip(self.ends[1]) then return end
  local says, letter = require("bodkin.client.reach").of(a or {}, b or {})
  local because = letter and (" (docs/NAT.md, case %s: %s)"):format(letter, letters[letter]) or ""
  if says == "no" then
    self:add("theory_no", nil, "Of two such NATs the theory says: no direct path%s.", because)
  elseif says == "yes" then
    self:add("theory_yes", nil, "Of two such NATs the theory says: a direct path%s.%s", because,
      verdict == "failed" and " So something else was in the way." or "")
  end
end

-- --- help

local RELAY = "A relay: it works between any two NATs."
local RELAYS = {
  { "relay_no_answer", "The relay that was named, running, and let through by the firewalls on the way to it." },
  { "relay_refused", "At the relay the key file of the deployment's other servers (key_file), and the right time." },
  { "relay_limit", "A relay with more room, or one that lets two have more (limits: relay_pairs, relay_bytes)." },
}
local SAME_FAMILY = "An address of the same kind, IPv4 or IPv6, at both ends; or a relay that has both."

-- Whether either end had a relay to try.
function Finder:has_relay()
  for e in self:each() do
    if tried(e, "relay") then return true end
  end
  return false
end

function Finder:helps(verdict)
  local codes, help, by_destination = {}, {}, {}
  for _, f in ipairs(self.findings) do
    codes[f.code] = true
    if f.by_destination and (f.code == "unconfirmed" or f.code == "nat") then by_destination[f.side] = true end
  end
  local function add(format, ...) help[#help + 1] = format:format(...) end
  for _, r in ipairs(RELAYS) do
    if codes[r[1]] then add(r[2]) end
  end
  local relayed = #help > 0 -- what there is needs mending, and not another one
  if verdict == "lost" and not relayed and not self:has_relay() then
    add "Where it was the way between the two that broke, and neither of them: a relay, which takes over then."
  end
  if verdict ~= "failed" then return help end
  if codes.udp_blocked then add "Another network, UDP allowed in that one, or a relay that is reached over TCP." end
  if codes.one_end then add "The other side's record, beside this one: bodkin why FILE FILE." end
  if codes.same_machine then return help end
  if codes.no_candidate or codes.unreachable then add(SAME_FAMILY) end
  if codes.same_nat then
    if not relayed then add(RELAY) end
    add "In the router: client isolation off, or hairpinning (NAT loopback) on."
  elseif codes.silent or codes.unconfirmed then
    if not relayed then add(RELAY) end
    add("A port forwarded in one side's router to its program, and the same port given to it with --bind 0.0.0.0:PORT, "
      .. "where the router then also sends from that port.")
    for side = 1, 2 do
      if by_destination[side] then
        add("For %s another router or network, whose NAT keeps one port for all destinations.", self.names[side])
      end
    end
    local e = known(self.ends[1]) and self.ends[1] or self.ends[2]
    if not tried(e, "ipv6") then
      add "IPv6 at both ends: no NAT is left, only firewalls, and two of these can be passed."
    end
  end
  return help
end

function M.of(pair)
  local self = setmetatable({ ends = pair.ends, names = pair.names, findings = {} }, Finder)
  local verdict = verdict_of(self.ends[1], self.ends[2])
  self:blocked()
  if verdict == "failed" then
    self:failed()
  elseif verdict == "left" or verdict == "seeking" then
    self:gone()
    if not self:never_began() then self:so_far() end
  else
    self:path()
  end
  if verdict == "lost" then self:add("lost", nil, "It was lost: %s.", reason_text "consent_lost") end
  if verdict == "failed" or verdict == "lost" then self:relays() end
  self:missing()
  if verdict == "failed" then self:nats() end
  self:theory(verdict)
  return { verdict = verdict, findings = self.findings, help = self:helps(verdict) }
end

return M

-- SPDX-License-Identifier: MIT
-- One parser for every command's options, so that they look alike and fail alike.
--
-- An option: { "name", arg = "URL" (none: a flag), short = "v", help = "…", kind =, many = true, env = "NAME",
-- default = shown in help only }. Its value comes out under its name with underscores.

local suggestion = require "bodkin.suggestion"

local M = { suggestion = suggestion }

M.common = {
  { "json", help = "events as JSON on stdout, one object a line; logs to stderr" },
  { "verbose", short = "v", help = "say more on stderr (twice: every detail)" },
  { "quiet", short = "q", help = "say only errors on stderr" },
  { "help", short = "h", help = "this text" },
}

local client = {
  { "server", arg = "URL", env = "BODKIN_SERVER", kind = "urls",
    help = "the server: bodkin://HOST[:PORT][?tcp=PORT][#KEY], as serve prints it; or several, with commas" },
  { "address-server", arg = "URL", kind = "address_url",
    help = "another address server than --server, or stun:HOST[:PORT]" },
  { "maintenance-server", arg = "URL", kind = "url", help = "another mapping maintenance server than --server" },
  { "app", arg = "NAME/BUILD", kind = "app", help = "only clients of the same app meet" },
  { "name", arg = "TEXT", kind = "name", help = "what others see of you, at most 32 bytes" },
  { "props", arg = "JSON", kind = "object", help = "your properties, at most 128 bytes" },
  { "party", arg = "NAME:N", kind = "party", help = "N who say the same NAME are matched together, or not at all" },
  { "accept", arg = "HOW", kind = "accept",
    help = "a match that is to be accepted is at once (auto, the default), or you are asked (ask)" },
  { "decline", help = "decline every such match" },
  { "query", arg = "JSON", kind = "object",
    help = "only entries whose properties equal these, or that {\"where\":…} finds" },
  { "identity", arg = "FILE", help = "who you are: a key, made at the first use (default: a new one each time)" },
  { "token", arg = "FILE", help = "what the game's backend says of you, signed" },
  { "trust-first-use", help = "where the URL has no key: take the first that answers, and remember it" },
  { "bind", arg = "ADDR:PORT", kind = "address", help = "the local address of the socket (default: any)" },
  { "virtual", help = "tell peers of addresses of VPNs and containers, too" },
  { "send", arg = "TEXT", kind = "payload", help = "send this to each peer once connected" },
  { "expect", arg = "N", kind = "count", help = "leave with 0 once N messages came, a second later" },
  { "timeout", arg = "SECONDS", kind = "seconds", help = "give up after this long" },
  { "trace", arg = "FILE", help = "write what the sessions' machines do, for bodkin replay; it holds their keys" },
  { "why", arg = "FILE", help = "write what became of each match, at the end, to attach to a report" },
}

-- The client options of these names, in the order of the list above.
function M.client(...)
  local wanted, list = {}, {}
  for _, name in ipairs { ... } do wanted[name] = true end
  for _, option in ipairs(client) do
    if wanted[option[1]] then list[#list + 1] = option end
  end
  return list
end

local function packed(text, port)
  local core = require "bodkin.core"
  return core.addr.parse(text, port)
end

-- Each takes the text and returns the value, or nil and what was expected.
local kinds = {}

function kinds.seconds(text)
  local n = tonumber(text)
  if n and n > 0 and n < 1e9 then return n end
  return nil, "a number of seconds, such as 30"
end

function kinds.count(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 1 then return n end
  return nil, "a whole number of at least 1"
end

function kinds.address(text)
  if not text:find "[:.]" then return nil, "ADDR:PORT, such as 0.0.0.0:4433 or [::]:4433" end
  if packed(text, 0) then return text end
  return nil, "ADDR:PORT, such as 0.0.0.0:4433 or [::]:4433"
end

-- ADDR:PORT, ADDR, :PORT or PORT.
local function listen(text, default_port)
  local port = text:match "^:?(%d+)$"
  if port then text = "0.0.0.0:" .. port end
  if packed(text, default_port) then return text end
  return nil, ("ADDR:PORT, such as 0.0.0.0:%d or [::]:%d"):format(default_port, default_port)
end

function kinds.listen(text) return listen(text, 4433) end
function kinds.listen_tcp(text) return listen(text, 443) end

function kinds.url(text)
  local url, err = require("bodkin.url").parse(text)
  if url then return text end
  local why = tostring(err):match "%((.*)%)"
  return nil, "a URL such as bodkin://example.org:4433" .. (why and "; " .. why or "")
end

function kinds.address_url(text)
  if not text:find "^stun:" then return kinds.url(text) end
  local url, err = require("bodkin.url").parse_address(text)
  if url then return text end
  return nil, "a STUN server such as stun:example.org:3478; " .. tostring(err):match "%((.*)%)"
end

function kinds.urls(text)
  local list, err = require("bodkin.url").list(text)
  if list then return text end
  local why = tostring(err):match "%((.*)%)"
  return nil, "a URL such as bodkin://example.org:4433" .. (why and "; " .. why or "")
end

function kinds.name(text)
  if #text <= 32 then return text end
  return nil, "at most 32 bytes"
end

-- The name is a secret of those who know it.
function kinds.party(text)
  local name, n = text:match "^(.+):(%d+)$"
  n = math.tointeger(tonumber(n))
  if name and n and n >= 1 and n <= 32 then return { id = name, size = n } end
  return nil, "NAME:N, such as ours:3, for a party of 3"
end

function kinds.accept(text)
  if text == "auto" or text == "ask" then return text end
  return nil, "auto or ask"
end

function kinds.app(text)
  if #text >= 1 and #text <= 64 then return text end
  return nil, "NAME/BUILD of at most 64 bytes, such as pong/1"
end

function kinds.payload(text)
  if #text <= 1120 then return text end
  return nil, "at most 1120 bytes, one datagram"
end

function kinds.object(text)
  local value, err = require("bodkin.json").decode(text)
  if type(value) == "table" and text:find "^%s*{" then return value end
  return nil, 'a JSON object such as {"map":"dust"}' .. (err and " (" .. err .. ")" or "")
end

-- A set of words, in the order given.
function M.words(...)
  local allowed = { ... }
  return function(text)
    local list, seen = {}, {}
    for word in text:gmatch "[^,%s]+" do
      local known = false
      for _, a in ipairs(allowed) do known = known or a == word end
      if not known then return nil, "one or more of " .. table.concat(allowed, ", ") .. "; not " .. word end
      if not seen[word] then list[#list + 1], seen[word] = word, true end
    end
    if #list == 0 then return nil, "one or more of " .. table.concat(allowed, ", ") end
    return list
  end
end

function M.word(...)
  local words, allowed = M.words(...), { ... }
  return function(text)
    local list = words(text)
    if list and #list == 1 then return list[1] end
    return nil, "one of " .. table.concat(allowed, ", ")
  end
end

local function find(list, key, value)
  for _, option in ipairs(list) do
    if option[key] == value then return option end
  end
end

local function unknown(list, text)
  local names = {}
  for _, option in ipairs(list) do names[#names + 1] = "--" .. option[1] end
  return ("unknown option %s%s"):format(text, suggestion(text, names))
end

local function set(options, option, text, what)
  local key = option[1]:gsub("-", "_")
  local value = text
  if not option.arg then
    value = (options[key] or 0) + 1
  elseif option.kind then
    local read = kinds[option.kind] or option.kind
    local expected
    value, expected = read(text)
    if value == nil then return nil, ("%s %s: expected %s"):format(what, text, expected) end
  end
  if option.many then
    options[key] = options[key] or {}
    table.insert(options[key], value)
  elseif option.arg and options[key] ~= nil then
    return nil, what .. " is given twice"
  else
    options[key] = value
  end
  return true
end

-- Reads argv from `first` on. Returns the options by name, the other arguments, and how many of these came before a
-- "--" (nil without one); or nil and a sentence.
function M.parse(list, argv, first)
  local options, rest, cut = {}, {}, nil
  local i = first
  local function take(option, what, attached)
    if not option.arg then
      if attached then return nil, what .. " takes no value" end
      return set(options, option, nil, what)
    end
    if attached then return set(options, option, attached, what) end
    i = i + 1
    if not argv[i] then return nil, ("%s needs a value: %s %s"):format(what, what, option.arg) end
    return set(options, option, argv[i], what)
  end
  while argv[i] do
    local word = argv[i]
    local ok, err = true, nil
    if word == "--" then
      cut = #rest
      table.move(argv, i + 1, #argv, #rest + 1, rest)
      break
    elseif word:find "^%-%-" then
      local name, value = word:match "^%-%-([^=]+)=(.*)$"
      local option = find(list, 1, name or word:sub(3))
      if not option then return nil, unknown(list, "--" .. (name or word:sub(3))) end
      ok, err = take(option, "--" .. option[1], value)
    elseif word:find "^%-." then
      for letter in word:sub(2):gmatch "." do
        local option = find(list, "short", letter)
        if not option then return nil, unknown(list, word) end
        ok, err = take(option, "-" .. letter)
        if not ok then break end
      end
    else
      rest[#rest + 1] = word
    end
    if not ok then return nil, err end
    i = i + 1
  end
  for _, option in ipairs(list) do
    local key, text = option[1]:gsub("-", "_"), option.env and os.getenv(option.env)
    if text and text ~= "" and options[key] == nil then
      local ok, err = set(options, option, text, "$" .. option.env)
      if not ok then return nil, err end
    end
  end
  return options, rest, cut
end

return M

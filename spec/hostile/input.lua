-- SPDX-License-Identifier: MIT
-- Bad input: every message, its truncations and its single-byte changes, the bombs, seeded noise; and what a
-- server or client that handles certain messages must count each datagram as.

local core = require "bodkin.core"
local message = require "bodkin.message"

local wire, crypto = core.wire, core.crypto

local M = {}

M.peer = wire.peer_schemas

-- By type, all there is.
M.schemas = {}
for _, s in ipairs(message.all) do M.schemas[s.type] = s end
for _, s in pairs(M.peer) do M.schemas[s.type] = s end

-- A stream of bytes from a seed: stream(n) -> n bytes, stream.below(n) -> 0 .. n - 1.
function M.stream(seed)
  local key, turn, buffer, at = crypto.mac(("s"):rep(16), tostring(seed), 32), 0, "", 1
  local function take(n)
    local parts = {}
    while n > 0 do
      if at > #buffer then
        turn = turn + 1
        buffer, at = crypto.mac(key, tostring(turn), 64), 1
      end
      local part = buffer:sub(at, at + n - 1)
      parts[#parts + 1] = part
      at, n = at + #part, n - #part
    end
    return table.concat(parts)
  end
  return setmetatable({
    below = function(n) return string.unpack(">I4", take(4)) % n end,
  }, { __call = function(_, n) return take(n) end })
end

-- A client's identity, made from a small number.
function M.who(n)
  local key, secret = crypto.keypair(crypto.mac(("s"):rep(16), "secret " .. n, 32))
  local ephemeral, ephemeral_secret = crypto.keypair(crypto.mac(("e"):rep(16), "ephemeral " .. n, 32))
  return { key = key, id = crypto.id(key), secret = secret, ephemeral = ephemeral, ephemeral_secret = ephemeral_secret }
end

-- A value for a field, by its name where one of that name must make sense, else by its kind.
local function example(field, known, near)
  local name, kind, min, max = table.unpack(field)
  local optional
  kind, optional = kind:gsub("%?$", "")
  local given = known[name .. ":" .. kind]
  if given ~= nil then return given or nil end
  local function length(n) return math.max(min or 0, math.min(n, max or n)) end
  if kind == "bin" then return (name:sub(1, 1)):rep(length(16)) end
  if kind == "str" then return optional == 0 and ("s"):rep(length(4)) or nil end
  if kind == "uint" then return length(2) end
  if kind == "bool" then return true end
  if kind == "addr" or kind == "addrs" then return kind == "addr" and near or { near } end
  if kind == "any" then return known["props:any"] end
  error("no example of a field of kind " .. kind)
end

-- Every message of both tables once, well formed: { name =, type =, bytes =, schema =, ends = true for those
-- that end a registration or membership }, in order of type. from: the sender's address; proof: for it, or nil;
-- code, target, me, match: of those who exist, for requests that are to succeed; noise: of an `open`; seat = false:
-- without one.
function M.messages(options)
  local tx, from, proof = ("t"):rep(12), options.from, options.proof
  local me, other, near = options.me or M.who(1), M.who(2), assert(core.addr.parse "127.0.0.1:4001")
  local some_proof = proof or ("\0\0\0\1" .. ("p"):rep(16))
  local props, empty = wire.encode { map = "dust", level = 7 }, wire.encode {}
  local known = {
    ["tx:bin"] = tx, ["proof:bin"] = proof or false, ["key:bin"] = me.key, ["ephemeral:bin"] = me.ephemeral,
    ["peer_key:bin"] = other.key, ["peer_ephemeral:bin"] = other.ephemeral, ["own:bin"] = me.ephemeral:sub(1, 8),
    ["token:bin"] = false, ["keys:bins"] = { other.key }, ["noise:bin"] = options.noise or ("n"):rep(110),
    ["id:bin"] = me.id, ["target:bin"] = options.target or other.id, ["peer:bin"] = other.id, ["cursor:bin"] = me.id,
    ["code:str"] = options.code or "babab-babab-babab", ["code:uint"] = 1001, ["app:str"] = "app", ["name:str"] = "ann",
    ["props:any"] = props, ["query:any"] = wire.encode { map = "dust" }, ["data:any"] = empty,
    ["match:bin"] = options.match, ["seat:any"] = options.seat,
    ["entries:any"] = wire.encode { { other.id, "ann", { a = 1 } } },
    ["pubs:bins"] = { from .. some_proof }, ["pubs:addrs"] = { from }, ["xaddr:addr"] = core.addr.mask(from, tx),
    ["start_in_ms:uint"] = 0, ["age_ms:uint"] = 0, ["role:uint"] = 0,
  }
  local list = {}
  for type = 1, 127 do
    local schema = M.schemas[type]
    if schema then
      local values, count = {}, 0
      local report = schema.name == "address_report" and { ["proof:bin"] = some_proof }
      for _, field in ipairs(schema.fields) do
        if field[2] ~= "pad" then
          count = count + 1
          values[count] = example(field, report and setmetatable(report, { __index = known }) or known, near)
        end
      end
      list[#list + 1] = {
        name = schema.name, type = type, schema = schema, ends = schema.name == "unregister" or schema.name == "leave",
        bytes = assert(schema:encode(table.unpack(values, 1, count))),
      }
    end
  end
  return list
end

-- Where the transaction id stands in every message between client and server but `matched`, which has more fields.
M.TX_FROM, M.TX_TO = 6, 17
M.MATCHED_TX_FROM, M.MATCHED_TX_TO = 8, 19

-- A STUN Binding request, and the attributes that every agent knows (RFC 8489 section 18.3).
M.STUN = "\0\1\0\0\x21\x12\xa4\x42" .. ("t"):rep(12)
M.STUN_KNOWN = { [1] = true, [6] = true, [8] = true, [9] = true, [0xa] = true, [0x14] = true, [0x15] = true,
  [0x1c] = true, [0x1d] = true, [0x1e] = true, [0x20] = true }

local spread = { 0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xc0, 0xc1, 0xc4, 0xc7, 0xcf, 0xd9, 0xdd, 0xdf, 0xe0, 0xff }

-- Calls fn(bytes, position changed | nil) for each truncation and for each change of one byte: to all 255 other
-- values in messages of at most `whole` bytes, else to a spread of them.
function M.mutations(bytes, whole, fn)
  for n = 0, #bytes - 1 do fn(bytes:sub(1, n)) end
  for i = 1, #bytes do
    local before, was, after = bytes:sub(1, i - 1), bytes:byte(i), bytes:sub(i + 1)
    local done = { [was] = true }
    local function to(value)
      if done[value] then return end
      done[value] = true
      fn(before .. string.char(value) .. after, i)
    end
    if #bytes <= whole then
      for value = 0, 255 do to(value) end
    else
      for _, value in ipairs(spread) do to(value) end
      to(was ~ 1)
      to(was ~ 0x80)
      to(was + 1 & 255)
      to(was - 1 & 255)
    end
  end
end

-- Datagrams made to hurt who reads msgpack, or this protocol; docs: the walker's bounds in docs/PROTOCOL.md.
function M.bombs()
  local tx = "\xc4\x0c" .. ("t"):rep(12)
  local pairs33 = {}
  for i = 0, 32 do pairs33[#pairs33 + 1] = string.char(i) .. "\0" end
  return {
    "\xdd\x0f\xff\xff\xff",                           -- msgpack-c reserves 6.4 GB
    ("\xdf"):rep(11) .. "\x0a",                       -- msgpack-c aborts
    "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff",
    "\xdc\xff\xff" .. ("\xc0"):rep(1197), "\xde\x02\x52" .. ("\x00"):rep(1197),
    ("\x91"):rep(1200), ("\x81\x00"):rep(600), ("\xdc\xff\xff"):rep(400), ("\xdd\0\0\0\1"):rep(240),
    "\x92\x01\x01" .. "\x00",                         -- bytes after the end
    "\x95\x03\x01" .. tx .. "\x82\x01\x00\x01\x00\xc0", -- two equal keys
    "\x94\x06\x01" .. tx .. "\xde\x00\x21" .. table.concat(pairs33), -- 33 pairs
    "\x94\x06\x01" .. tx .. "\xc7\x01\x01\x00",       -- ext
    "\x94\x06\x01" .. tx .. ("\x91"):rep(8) .. "\xc0", -- too deep by one
    "\x94\x06\x01" .. tx .. "\x81\x90\x00",           -- a key that is no string or integer
    "\x94\x06\xcf" .. ("\xff"):rep(8) .. tx, "\x94\xcf" .. ("\xff"):rep(8) .. "\x01" .. tx,
    "\xdd\x00\x00\x00\x04\x01\x01" .. tx .. "\xc4\x00", -- a well-formed address_request, clumsily
    "\x90", "\x91\x01", "\x91\x01\x01", "\x80", "\xc0\xc0\xc0", "", "\0", "\x9f", "\xc1", "\xc1" .. ("\0"):rep(28),
    "\xc1" .. ("\xff"):rep(1199), ("\0"):rep(20), ("\0"):rep(1200), ("\xff"):rep(1200),
    M.STUN,
  }
end

-- STUN messages: asked plainly, with what may be skipped, with what must be understood, and an answer; as strings.
function M.stuns()
  local function with(kind, list) return kind .. string.pack(">I2", #list) .. M.STUN:sub(5) .. list end
  return {
    M.STUN, with("\0\1", "\x80\x22\0\5hello\0\0\0"), with("\0\1", "\0\3\0\0"), with("\0\1", "\0\6\0\1u\0\0\0"),
    with("\1\1", "\0\x20\0\8\0\1\1\1\1\1\1\1"),
  }
end

-- `total` bytes in datagrams of random bytes and lengths 0 .. 1200; with `shaped`, half of them begin like a message.
function M.noise(stream, total, shaped, fn)
  while total > 0 do
    local bytes = stream(stream.below(1201))
    if shaped and stream.below(2) == 0 and #bytes > 4 then
      bytes = string.char(0x90 | stream.below(16), 1 + stream.below(40), 1) .. bytes:sub(4)
    end
    fn(bytes)
    total = total - #bytes
  end
end

-- One value of random msgpack, within the walker's bounds and beyond.
local function value(stream, depth)
  local kind = stream.below(depth > 6 and 8 or 10)
  local n = stream.below(6)
  if kind == 0 then return "\xc0" end
  if kind == 1 then return string.char(0xc2 + stream.below(2)) end
  if kind == 2 then return string.char(stream.below(128)) end
  if kind == 3 then return "\xcf" .. stream(8) end
  if kind == 4 then return "\xcb" .. stream(8) end
  if kind == 5 then return string.char(0xa0 | n) .. stream(n) end
  if kind == 6 then return "\xc4\x0c" .. stream(12) end
  if kind == 7 then return "\xc4" .. string.char(n * 6) .. stream(n * 6) end
  local parts = {}
  for i = 1, n do parts[i] = (kind == 9 and string.char(i) or "") .. value(stream, depth + 1) end
  return string.char((kind == 9 and 0x80 or 0x90) | n) .. table.concat(parts)
end

-- Random but well-formed arrays with a type, mostly this version, and as many random values as that message has
-- fields, most often the transaction id first.
function M.shapes(stream, count, fn)
  for _ = 1, count do
    local type = 1 + stream.below(45)
    local schema = M.schemas[type]
    local n = schema and stream.below(8) > 0 and #schema.fields or stream.below(14)
    local parts = { string.char(0x90 | n + 2 & 15, type, stream.below(16) == 0 and stream.below(128) or 1) }
    for i = 1, n do parts[i + 1] = i == 1 and "\xc4\x0c" .. stream(12) or value(stream, 0) end
    fn(table.concat(parts):sub(1, 1200))
  end
end

local widths = { [0xcc] = 1, [0xcd] = 2, [0xce] = 4, [0xcf] = 8, [0xd0] = 1, [0xd1] = 2, [0xd2] = 4, [0xd3] = 8 }

-- Where the integer that begins at `at` ends. Lua's integers do not hold every uint64: its last byte does.
local function integer_end(bytes, at)
  return at + (widths[bytes:byte(at)] or 0)
end

local function is_uint(v) return math.type(v) == "integer" and v >= 0 or math.type(v) == "float" and v >= 2 ^ 63 end

-- Bytes that follow a msgpack byte: of the value itself, of its length, of its count.
local VALUE = { [0xca] = 4, [0xcb] = 8, [0xcc] = 1, [0xcd] = 2, [0xce] = 4, [0xcf] = 8, [0xd0] = 1, [0xd1] = 2,
  [0xd2] = 4, [0xd3] = 8 }
local LENGTH = { [0xc4] = 1, [0xc5] = 2, [0xc6] = 4, [0xd9] = 1, [0xda] = 2, [0xdb] = 4 }
local COUNT = { [0xdc] = 2, [0xdd] = 4, [0xde] = 2, [0xdf] = 4 }

-- What follows the byte `b` at `at - 1`: its bytes, and how many values; nil where no value begins so.
local function after(bytes, b, at)
  if b < 0x80 or b >= 0xe0 or b == 0xc0 or b == 0xc2 or b == 0xc3 then return 0, 0 end
  if b < 0x90 then return 0, 2 * (b & 15) end
  if b < 0xa0 then return 0, b & 15 end
  if b < 0xc0 then return b & 31, 0 end
  if VALUE[b] then return VALUE[b], 0 end
  local size = LENGTH[b] or COUNT[b]
  if not size or at + size - 1 > #bytes then return nil end
  local n = string.unpack(">I" .. size, bytes, at)
  if LENGTH[b] then return size + n, 0 end
  return size, b >= 0xde and 2 * n or n
end

-- Where the msgpack value that begins at `at` ends, by lengths alone: the place after it; nil: there is no whole one.
function M.skip(bytes, at)
  local owed = 1
  while owed > 0 do
    local b = bytes:byte(at)
    if not b then return nil end
    local size, values = after(bytes, b, at + 1)
    if not size then return nil end
    at, owed = at + 1 + size, owed - 1 + values
  end
  return at <= #bytes + 1 and at or nil
end

local FRAME_MIN = 29

-- Whether a STUN datagram is a Binding request that is answered, by what RFC 8489 says of its form.
local function binding(bytes)
  if #bytes < 20 or bytes:sub(1, 2) ~= "\0\1" then return false end
  if string.unpack(">I2", bytes, 3) ~= #bytes - 20 then return false end
  local at, unknown, kinds, sealed = 21, {}, 0, false
  while at <= #bytes do
    if #bytes - at < 3 then return false end
    local type, len = string.unpack(">I2I2", bytes, at)
    if not sealed and type < 0x8000 and not M.STUN_KNOWN[type] and not unknown[type] then
      unknown[type], kinds = true, kinds + 1
    end
    sealed = sealed or type == 0x0008 or type == 0x001c
    at = at + 4 + (len + 3) // 4 * 4
  end
  return at == #bytes + 1 and kinds <= 6
end

-- What the datagram must be counted as where messages of the types in `handled` have a handler: the name of a
-- drop counter, or "handled". Second, where a reply may come (a refusal of the version is one), the transaction id
-- that it bears, wherever that stands after some byte was changed. `place`: sealed = it came in an association,
-- associations = frames of unknown ones are answered, and counted as association_lost; relay = so is what is of no
-- channel, as relay_lost, with its head; sessions = what a relay sends goes to a mux, which knows of none; stun =
-- Binding requests are answered, too.
function M.cause(bytes, handled, place)
  local first = bytes:byte()
  local sealed, frames = place and place.sealed, place and place.associations
  if #bytes > 1200 then return "udp_rx_truncated" end
  if first and first < 4 then return place and place.stun and binding(bytes) and "stun_answered" or "drop_stun" end
  if first == 0xc1 and frames and #bytes >= FRAME_MIN then return "association_lost", bytes:sub(2, 13) end
  if first == 0xc1 then return "drop_frame" end
  if first == 0x40 and place and place.relay then
    if #bytes < 5 then return "drop_short" end
    return "relay_lost", bytes:sub(1, 5)
  end
  if first == 0x40 and place and place.sessions and #bytes >= 5 then return "drop_frame" end
  if #bytes < 3 then return "drop_short" end
  local skip = first & 0xf0 == 0x90 and 1 or first == 0xdc and 3 or first == 0xdd and 5
  local values = skip and wire.decode(bytes)
  if not values or #values < 2 then return "drop_msgpack" end
  local type, version, tx = values[1], values[2], math.type(values[3]) == nil and values[3] or nil
  if math.type(type) ~= "integer" or type < 1 or type > 127 then return "drop_msgpack" end
  -- A float that large is a uint64, unless it was a float on the wire.
  local version_at = integer_end(bytes, 1 + skip) + 1
  if not is_uint(version) or bytes:byte(version_at) == 0xcb or bytes:byte(version_at) == 0xca then
    return "drop_msgpack"
  end
  local schema = handled[type]
  if not schema then return "drop_unknown" end
  local version_to = integer_end(bytes, version_at)
  if bytes:byte(version_to) ~= core.protocol_version then
    -- That we are too old, a server says in a version of its own.
    if schema ~= message.refused then return "drop_version", schema.request and tx end
    bytes = bytes:sub(1, version_at - 1) .. string.char(core.protocol_version) .. bytes:sub(version_to + 1)
  end
  if schema.sealed and not sealed then return "drop_unsealed" end
  if schema:decode(bytes) == nil then return "drop_field" end
  return "handled", schema.request and tx
end

return M

-- SPDX-License-Identifier: MIT
-- What a server's policies were told and told: asked for over its admin socket, or written to a file as it comes.

local output = require "bodkin.cli.output"

local M = {
  usage = "bodkin record FILE [--admin PATH|PORT]",
  summary = "write to a file what matchmaking did of late",
  text = [[
Asks a server on this machine, over its admin socket, for all that its policies were told of tickets and clients and
all that they made of it, as far back as it is kept (limits.recording: 8 MB), and writes it to FILE. bodkin replay FILE
walks it again, also under another policy. It tells ids, names, properties and claims of clients.

bodkin serve --record FILE writes the same as it comes.]],
  options = {
    { "admin", arg = "PATH", help = "the server's Unix socket, or its port (default: the socket of port 4433)" },
  },
  arguments = 1,
}

local PIECE = 30000  -- bytes in one answer, which is a line of less than 64 KB
local FLUSH_MS = 1000

-- --- the server's part: "record" begins, "record SERIAL TEXT OFFSET" asks for a piece
local dump, serial = nil, 0

-- What the admin socket answers; nil where the request is not understood.
function M.answer(server, asked)
  if not server.recording then return { error = "it has no matching role, and records nothing" } end
  if asked == "" then
    serial = serial + 1
    dump = { serial = serial, texts = server.recording:texts() }
    return { record = serial }
  end
  local of, i, offset = asked:match "^(%d+) (%d+) (%d+)$"
  if not of then return nil end
  if not dump or math.tointeger(of) ~= dump.serial then return { error = "somebody else began to ask" } end
  local text = dump.texts[math.tointeger(i)]
  if not text then
    dump = nil
    return { record = serial, is_end = true }
  end
  local piece = text:sub(offset + 1, offset + PIECE)
  return { record = serial, data_b64 = require("bodkin.core").crypto.base64url(piece) }
end

-- Writes what is recorded to the file at path, and what was in there to path.1 once there is more than max_bytes.
-- Returns on_text(text, begins), and a function that closes; or nil, message, code.
function M.writer(env, path, max_bytes)
  local file, size, timer, broken
  local function open()
    local err
    file, err = io.open(path, "a+b")
    if not file then return nil, ("cannot record: %s; is the directory there?"):format(err), "invalid" end
    file:setvbuf("full", 1 << 16)
    size = file:seek "end"
    if size == 0 then return true end
    file:seek("end", -1)
    local last = file:read(1)
    file:seek "end"
    if last ~= "\n" then file:write "\n" end -- a server that was killed may have left half a line
    return true
  end
  local function close()
    if timer then timer:cancel() end
    timer = nil
    if file then file:close() end
    file = nil
  end
  -- Goes on with the next chunk: half a one is of no use.
  local function failed(err)
    if not broken then env.log:error("cannot record to %s: %s; it is tried again later", path, tostring(err)) end
    close()
    broken = true
  end
  local function flush()
    timer = nil
    local ok, err = file:flush()
    if not ok then failed(err) end
  end
  local function on_text(text, begins)
    if begins and file and size > max_bytes then
      close()
      os.rename(path, path .. ".1")
    end
    if begins and not file then
      local ok, err = open()
      if not ok then return failed(err) end
      if broken then env.log:info("it is recorded again to %s", path) end
      broken = false
    end
    if not file then return end
    local ok, err = file:write(text)
    if not ok then return failed(err) end
    size = size + #text
    timer = timer or env.timer(FLUSH_MS, flush)
  end
  local ok, err, code = open()
  if not ok then return nil, err, code end
  return on_text, close
end

-- --- the command
-- An iterator of what the server keeps, "" at its end; nil, message, code when it fails. ask(line): the admin socket's.
local function pieces(ask)
  local began, err, code = ask "record"
  if not began then return nil, err, code end
  local i, offset = 1, 0
  return function()
    while true do
      local a
      a, err, code = ask(("record %d %d %d"):format(math.tointeger(began.record) or 0, i, offset))
      if not a then return nil, err, code end
      if a.is_end then return "" end
      local piece = type(a.data_b64) == "string" and require("bodkin.core").crypto.unbase64url(a.data_b64)
      if not piece then return nil, "the server answered something else", "invalid" end
      if piece ~= "" then
        offset = offset + #piece
        return piece
      end
      i, offset = i + 1, 0
    end
  end
end

local function write(p, out, path, admin)
  local next_piece, err, code = pieces(function(line)
    return require("bodkin.cli.admin").ask(p.env, admin, line, "record")
  end)
  if not next_piece then return nil, err, code end
  local file
  file, err = io.open(path, "wb")
  if not file then return nil, ("cannot write the record: %s; is the directory there?"):format(err), "invalid" end
  local size, ok = 0
  repeat
    local piece
    piece, err, code = next_piece()
    if not piece then
      file:close()
      return nil, err, code
    end
    size, ok, err = size + #piece, file:write(piece)
  until piece == "" or not ok
  local closed, why = file:close()
  err = err or why
  if not ok or not closed then return nil, ("cannot write the record %s: %s"):format(path, err), "invalid" end
  out:say("%d bytes; walk them again with  bodkin replay %s", size, path)
  return 0
end

function M.run(values, rest)
  if not rest[1] then return nil, "record needs a FILE", "usage" end
  local out = output.of(values)
  return require("bodkin.cli.process").run(values, function(p) return write(p, out, rest[1], values.admin) end)
end

return M

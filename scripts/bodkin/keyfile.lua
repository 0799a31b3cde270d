-- SPDX-License-Identifier: MIT
-- Files that hold secret keys: text, one or two lines of 64 hexadecimal digits each (the first is the key in use, the
-- second the one before it or after it), # for comments; 32 raw bytes are one key, too. A server's and an identity are
-- X25519 secrets; a token key is an Ed25519 seed, and its file says so in the first line. Mode 0600, or not read.
-- No error here repeats what stands in a file.

local core = require "bodkin.core"

local crypto = core.crypto
local M = {}

local TOKEN_MARK = "# bodkin token key"
local heads = {
  box = "# bodkin key: a secret (X25519). Whoever reads it can be you.\n",
  token = TOKEN_MARK .. ": a secret (Ed25519). Whoever reads it can issue tokens.\n",
}
local KEYS_MAX = 2

-- The public key of a secret of this kind, "box" or "token".
function M.public(secret, kind)
  local public = (kind == "token" and crypto.sign_keypair or crypto.keypair)(secret)
  return public -- and not the secret beside it
end

-- What reading a secret file came to, as a sentence that says what to do. `what` is "the key file", `word` core.file's.
function M.unreadable(what, path, message, code, word)
  if word == "exposed" then
    return nil, ("%s %s can be read or written by others than its owner, so it is secret no longer: chmod 600 %s")
      :format(what, path, path), "invalid"
  end
  return nil, ("cannot read %s %s: %s"):format(what, path, message), code, word
end

local function parse(text)
  if #text == 32 then return { text }, "box", "" end
  local kind = text:sub(1, #TOKEN_MARK) == TOKEN_MARK and "token" or "box"
  local secrets, comments, number = {}, {}, 0
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local word = line:match "^%s*([^#]-)%s*$" or line:match "^%s*([^#]-)%s*#"
    if word == "" then
      comments[#comments + 1] = line
    elseif #word == 64 and word:find "^%x+$" then
      secrets[#secrets + 1] = crypto.unhex(word)
    else
      return nil, ("line %d is neither 64 hexadecimal digits nor a comment"):format(number)
    end
  end
  if #secrets == 0 then return nil, "no key stands in it" end
  if #secrets > KEYS_MAX then return nil, "it has more than two keys" end
  if secrets[1] == secrets[2] then return nil, "both of its keys are the same" end
  return secrets, kind, #comments > 0 and table.concat(comments, "\n") .. "\n" or ""
end

-- { secrets = { 32 bytes, … }, publics = { 32 bytes, … }, kind = "box"|"token", comments = text }, or nil, message,
-- code, word ("absent" where there is no such file). `what` for messages; `files`: core.file.
function M.read(path, what, files)
  what = what or "the key file"
  local text, message, code, word = (files or core.file).read(path)
  if not text then return M.unreadable(what, path, message, code, word) end
  local secrets, kind, comments = parse(text)
  if not secrets then
    return nil, ("%s %s is not one: %s (bodkin keygen makes one)"):format(what, path, kind), "invalid"
  end
  local publics = {}
  for i, secret in ipairs(secrets) do publics[i] = M.public(secret, kind) end
  return { secrets = secrets, publics = publics, kind = kind, comments = comments }
end

local function boxes(path, what, files)
  local keys, message, code, word = M.read(path, what, files)
  if keys and keys.kind ~= "box" then
    return nil, ("%s %s holds a key that signs tokens; another one is wanted here (bodkin keygen FILE makes it)")
      :format(what, path), "invalid"
  end
  return keys, message, code, word
end

-- A server's: { secrets =, publics = } of one or two keys, the current one first; or nil, message, code, word.
function M.server(path, files)
  return boxes(path, "the key file", files)
end

-- A client's: the secret, or nil, message, code, word.
function M.identity(path, files)
  local keys, message, code, word = boxes(path, "the identity", files)
  if not keys then return nil, message, code, word end
  if #keys.secrets > 1 then return nil, ("the identity %s has two keys; it takes one"):format(path), "invalid" end
  return keys.secrets[1]
end

-- The text of a file with these secrets.
function M.text(secrets, kind, comments)
  local lines = {}
  for i, secret in ipairs(secrets) do lines[i] = crypto.hex(secret) .. "\n" end
  return (comments or heads[kind or "box"]) .. table.concat(lines)
end

-- A new key in a new file: { secrets =, publics =, kind = }, or nil, message, code, word ("exists": nothing is
-- overwritten). options: kind ("box"), what, random (the system's), files.
function M.make(path, options)
  options = options or {}
  local kind = options.kind or "box"
  local secret = (options.random or crypto.random)(32)
  local ok, message, code, word = (options.files or core.file).write(path, M.text({ secret }, kind))
  if ok then return { secrets = { secret }, publics = { M.public(secret, kind) }, kind = kind } end
  if word == "exists" then
    return nil, ("%s is there already and stays as it is: a key overwritten is lost"):format(path), "invalid", word
  end
  return nil, ("cannot write %s %s: %s"):format(options.what or "the key file", path, message), code, word
end

-- A new key becomes the first, the first the second; the second is forgotten. As read gives it, or nil, message, code.
function M.rotate(path, options)
  options = options or {}
  local files = options.files or core.file
  local keys, message, code, word = M.read(path, nil, files)
  if not keys then return nil, message, code, word end
  local secrets = { (options.random or crypto.random)(32), keys.secrets[1] }
  local comments = keys.comments ~= "" and keys.comments or nil
  local ok
  ok, message, code, word = files.write(path, M.text(secrets, keys.kind, comments), true)
  if not ok then return nil, ("cannot write the key file %s: %s"):format(path, message), code, word end
  return {
    secrets = secrets, publics = { M.public(secrets[1], keys.kind), keys.publics[1] }, kind = keys.kind,
    comments = keys.comments,
  }
end

-- Reads a key, or makes it with the directories above it where there is none yet: the same of all who do so at once.
-- `read(path, files)` is server or identity. What read returns and whether it was made now; or nil, message, code.
function M.ensure(path, read, options)
  local files = options.files or core.file
  local keys, message, code, word = read(path, files)
  if keys or word ~= "absent" then return keys, message, code end
  local ok, why, why_code = files.make_parents(path)
  if not ok then return nil, ("cannot make the directory of %s: %s"):format(path, why), why_code, "unwritable" end
  local made
  made, message, code, word = M.make(path, options)
  if not made and word ~= "exists" then return nil, message, code, "unwritable" end
  keys, message, code = read(path, files)
  if not keys then return nil, message, code end
  return keys, made ~= nil
end

return M

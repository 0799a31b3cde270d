-- SPDX-License-Identifier: MIT
-- Who a client is: an X25519 key, for one run or kept in a file; and the token that says more of it.
-- Options: identity (a file, made at its first use), identity_key (a secret of 32 bytes), token (a file), token_text;
-- files stands for core.file in specs.

local core = require "bodkin.core"
local keyfile = require "bodkin.keyfile"
local token = require "bodkin.token"

local M = {}

local function of_secret(secret)
  local key, key_secret = core.crypto.keypair(secret)
  return { key = key, key_secret = key_secret, id = core.crypto.id(key) }
end

-- { key = 32 bytes, key_secret = 32 bytes, id = 16 bytes }, and true where its file was made now; or nil, message,
-- code. random(n) -> bytes. Without an option: one of this run alone.
function M.load(options, random)
  local path, secret = options.identity, options.identity_key
  if path and secret then return nil, "give one of identity and identity_key, not both", "invalid" end
  if secret then
    if type(secret) ~= "string" or #secret ~= 32 then return nil, "identity_key is a secret of 32 bytes", "invalid" end
    return of_secret(secret)
  end
  if not path then return of_secret(random(32)) end
  if type(path) ~= "string" then return nil, "identity is the name of a file", "invalid" end
  local made, code
  secret, made, code = keyfile.ensure(path, keyfile.identity, {
    what = "the identity", random = random, files = options.files,
  })
  if not secret then return nil, made, code end
  return of_secret(secret), made
end

-- The token's bytes, or nil where none is given; or nil, message, code. What it says is the server's to check.
function M.token(options)
  local path, text = options.token, options.token_text
  if path and text then return nil, "give one of token and token_text, not both", "invalid" end
  if not path and not text then return nil end
  if type(path or text) ~= "string" then return nil, "token is the name of a file, token_text a token", "invalid" end
  if path then
    local message, code, word
    text, message, code, word = (options.files or core.file).read(path)
    if not text then
      local none, why, of = keyfile.unreadable("the token", path, message, code, word)
      return none, why, of
    end
  end
  local bytes = token.bytes(text)
  if bytes then return bytes end
  return nil, ("%s holds no token: that is one line of base64url, at most %d bytes of it decoded"):format(
    path or "token_text", token.max), "invalid"
end

return M

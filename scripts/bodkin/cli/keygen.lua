-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"

local order = { "event", "kind", "file", "public", "secret" }

local function print_keys(out, keys, file, secret)
  local crypto, texts = require("bodkin.core").crypto, {}
  for i, public in ipairs(keys.publics) do texts[i] = crypto.base64url(public) end
  if out.json then
    out:object({ event = "key", kind = keys.kind, file = file, public = texts, secret = secret }, order)
  else
    for _, text in ipairs(texts) do out:line(text) end
  end
  return 0
end

-- Without FILE: both halves, each where it does not end up in the other's place.
local function print_new(out, kind)
  local crypto, keyfile = require("bodkin.core").crypto, require "bodkin.keyfile"
  local secret = crypto.random(32)
  local public = keyfile.public(secret, kind)
  if out.json then return print_keys(out, { kind = kind, publics = { public } }, nil, crypto.hex(secret)) end
  io.stderr:write("public key: ", crypto.base64url(public), "\n")
  out:line(keyfile.text({ secret }, kind))
  return 0
end

return {
  usage = "bodkin keygen [--rotate|--public] [--token-key] [FILE]",
  summary = "make, rotate or show a key: a server's, a client's, a token's",
  text = [[
Writes a new secret key to FILE, which only its owner may read, and prints the public key; what is there already is
never overwritten. Without FILE: the text of such a file on stdout, and the public key on stderr. A server takes it with
--key-file, a client (if it holds one key) with --identity.

Rotation: put the file with --rotate on every server of the deployment and start them again. Clients with the old URL
still know them, those with the new one do, too; once nobody has the old URL, rotate again.

--token-key makes a key that signs tokens; its public half goes into token_keys of a server's configuration.]],
  options = {
    { "rotate", help = "a new key becomes FILE's first, the former first its second" },
    { "public", help = "print the public key, or both, of FILE" },
    { "token-key", help = "an Ed25519 key, for tokens" },
  },
  arguments = 1,
  run = function(values, rest)
    local keyfile, out, path = require "bodkin.keyfile", output.of(values), rest[1]
    if values.rotate and values.public then return nil, "give one of --rotate and --public, not both", "usage" end
    if not path then
      if values.rotate or values.public then
        return nil, ("give the FILE to %s"):format(values.rotate and "rotate" or "show"), "usage"
      end
      return print_new(out, values.token_key and "token" or "box")
    end
    local keys, err, code
    if values.rotate or values.public then
      keys, err, code = keyfile.read(path)
      if keys and values.token_key and keys.kind ~= "token" then
        return nil, ("the key in %s signs no tokens: leave --token-key out"):format(path), "invalid"
      end
      if keys and values.rotate then keys, err, code = keyfile.rotate(path) end
    else
      keys, err, code = keyfile.make(path, { kind = values.token_key and "token" or "box" })
    end
    if not keys then return nil, err, code end
    return print_keys(out, keys, path)
  end,
}

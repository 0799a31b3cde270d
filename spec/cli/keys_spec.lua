-- SPDX-License-Identifier: MIT
-- Keys as a user meets them: where a server keeps its own, and bodkin keygen.

local core = require "bodkin.core"
local json = require "bodkin.json"
local keyfile = require "bodkin.keyfile"
local url = require "bodkin.url"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local crypto = core.crypto

describe("keys", function()
  local dir
  before_each(function() dir = assert(io.popen("mktemp -d")):read("l") end)
  after_each(function() os.execute("rm -r " .. dir) end)

  local function read_all(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end

  -- Exit code, stdout, stderr of a command; $D is the directory. `setting`: variables before it.
  local function run(command, setting)
    local pipe = assert(io.popen(("D=%s; %s timeout 20 %s %s 2>$D/stderr </dev/null"):format(dir, setting or "", bodkin,
      command)))
    local out = pipe:read "a"
    local _, _, code = pipe:close()
    return code, out, read_all(dir .. "/stderr")
  end

  -- A server until it has said its first URL: that, and what it told; or nil, and its exit code and what it told.
  local function serve(options, setting)
    local pipe = assert(io.popen(("D=%s; echo $$; exec env %s timeout 20 %s serve --listen 127.0.0.1:0 "
      .. "--admin $D/admin %s 2>&1"):format(dir, setting or "", bodkin, options or "")))
    local pid, lines, found = pipe:read "l", {}, nil
    for line in pipe:lines() do
      lines[#lines + 1] = line
      found = line:match "bodkin://%S+"
      if found then break end
    end
    os.execute("kill " .. pid .. " 2>/dev/null")
    pipe:read "a"
    local _, _, code = pipe:close()
    local told = table.concat(lines, "\n")
    if not found then return nil, code, told end
    return assert(url.parse(found)), told
  end

  describe("of bodkin serve", function()
    it("are made at the first start and read at the next", function()
      local first, told = serve(nil, "XDG_STATE_HOME=$D/state")
      local path = dir .. "/state/bodkin/server.key"
      assert.matches("made the server's key, " .. path, told, 1, true)
      assert.same(keyfile.server(path).publics, first.keys)
      assert.equal("600 700", io.popen(("echo $(stat -c %%a %s %s/state/bodkin)"):format(path, dir)):read "l")
      local second, told_then = serve(nil, "XDG_STATE_HOME=$D/state")
      assert.same(first.keys, second.keys)
      assert.is_nil(told_then:find("made", 1, true))
    end)

    it("stand where systemd says, else in XDG's place, else in the home", function()
      for i, case in ipairs {
        { "STATE_DIRECTORY=$D/s1:$D/other XDG_STATE_HOME=$D/no HOME=$D/no", "/s1/server.key" },
        { "XDG_STATE_HOME=$D/s2 HOME=$D/no", "/s2/bodkin/server.key" },
        { "XDG_STATE_HOME= HOME=$D/s3", "/s3/.local/state/bodkin/server.key" },
        { "XDG_STATE_HOME=relative HOME=$D/s4", "/s4/.local/state/bodkin/server.key" },
      } do
        local where = serve(nil, case[1])
        assert.same(keyfile.server(dir .. case[2]).publics, where.keys, i)
      end
    end)

    it("are of one run where there is no place for them, which it says", function()
      for _, setting in ipairs { "-u XDG_STATE_HOME -u HOME", "XDG_STATE_HOME=/dev/null" } do
        local one, told = serve(nil, setting)
        assert.matches("this run has one of its own", told, 1, true)
        local two = serve(nil, setting)
        assert.not_same(one.keys, two.keys)
      end
    end)

    it("are those of --key-file or key_file, the first being the one in use", function()
      assert(keyfile.make(dir .. "/a"))
      local keys = assert(keyfile.rotate(dir .. "/a"))
      assert.same(keys.publics, serve("--key-file $D/a").keys)
      local file = assert(io.open(dir .. "/config.lua", "w"))
      file:write(("return require('bodkin').config { key_file = %q }"):format(dir .. "/a")):close()
      assert.same(keys.publics, serve("--config $D/config.lua").keys)
      assert(keyfile.make(dir .. "/b"))
      assert.same(keyfile.server(dir .. "/b").publics, serve("--config $D/config.lua --key-file $D/b").keys)
      assert.is_nil(serve("--key-file $D/a --roles address").keys)
    end)

    it("are those of another server where it only relays, which it says", function()
      for _, roles in ipairs { "relay", "address,maintenance,relay" } do
        local found, code, told = serve("--roles " .. roles, "XDG_STATE_HOME=$D/state")
        assert.is_nil(found)
        assert.equal(2, code)
        assert.matches("a relay without the matching role needs the key of its matching server: give --key-file FILE",
          told, 1, true)
        assert.is_nil(io.open(dir .. "/state/bodkin/server.key"))
      end
      assert.equal(0, (run "keygen $D/a"))
      local function said(roles)
        local _, _, told = run(("serve --listen 127.0.0.1:0 --admin $D/admin --key-file $D/a --roles %s"):format(roles),
          "timeout 1")
        return (told:gsub("127%.0%.0%.1:%d+", "AT"):gsub("^[^\n]*\n", ""):gsub("stopped\n", ""))
      end
      local names = 'a matching server with the same key file names it in its config:  relays = { "AT" }\n'
      assert.equal(names, said "relay")
      assert.equal("clients use  --address-server bodkin://AT\n" .. names, said "address,relay")
      assert.equal("clients use  --maintenance-server bodkin://AT\n", said "maintenance")
      assert.matches("^clients use  %-%-server bodkin://AT#%S+\n$", said "matching,relay")
      -- The key may stand in the config, too.
      local config <close> = assert(io.open(dir .. "/config.lua", "w"))
      config:write(('return require("bodkin").config { roles = "relay", key_file = "%s/a" }'):format(dir))
      config:close()
      assert.matches("^listening: relay ", select(3, run("serve --listen 127.0.0.1:0 --admin $D/admin --config "
        .. "$D/config.lua", "timeout 1")))
    end)

    it("are refused where others may read them, or are none", function()
      assert(keyfile.make(dir .. "/a"))
      os.execute(("chmod 640 %s/a"):format(dir))
      local none, code, told = serve "--key-file $D/a"
      assert.is_nil(none)
      assert.equal(2, code)
      assert.matches(("chmod 600 %s/a"):format(dir), told, 1, true)
      none, code, told = serve "--key-file $D/none"
      assert.is_nil(none)
      assert.equal(2, code)
      assert.matches(("bodkin keygen %s/none makes it"):format(dir), told, 1, true)
      assert(os.execute(("mkdir -p %s/state/bodkin; echo x >%s/state/bodkin/server.key; chmod 600 %s/state/bodkin/*")
        :format(dir, dir, dir)))
      none, code = serve(nil, "XDG_STATE_HOME=$D/state")
      assert.is_nil(none) -- never another key in silence
      assert.equal(2, code)
    end)
  end)

  describe("of bodkin keygen", function()
    it("are written to a file and their public half is printed", function()
      local code, out, err = run "keygen $D/key"
      assert.equal(0, code)
      local keys = assert(keyfile.server(dir .. "/key"))
      assert.equal(crypto.base64url(keys.publics[1]) .. "\n", out)
      assert.is_nil((out .. err):find(crypto.hex(keys.secrets[1]), 1, true))
      code, out, err = run "keygen $D/key"
      assert.equal(2, code)
      assert.equal("", out)
      assert.matches("is there already", err, 1, true)
      assert.same(keys.secrets, keyfile.server(dir .. "/key").secrets)
      assert.matches("No such file", select(3, run "keygen $D/no/key"), 1, true)
    end)

    it("without a file go to stdout as its text, and the public half to stderr", function()
      local code, out, err = run "keygen"
      assert.equal(0, code)
      assert(core.file.write(dir .. "/key", out))
      local keys = assert(keyfile.server(dir .. "/key"))
      assert.matches(crypto.base64url(keys.publics[1]), err, 1, true)
    end)

    it("rotate, and are shown", function()
      run "keygen $D/key"
      local before = keyfile.server(dir .. "/key")
      local code, out = run "keygen --rotate $D/key"
      assert.equal(0, code)
      local after = keyfile.server(dir .. "/key")
      assert.equal(before.secrets[1], after.secrets[2])
      local shown = url.key_text(after.publics):gsub(",", "\n") .. "\n"
      assert.equal(shown, out)
      code, out = run "keygen --public $D/key"
      assert.equal(0, code)
      assert.equal(shown, out)
      assert.matches("give the FILE", select(3, run "keygen --rotate"), 1, true)
      assert.matches("one of", select(3, run "keygen --rotate --public $D/key"), 1, true)
      assert.equal(2, (run "keygen --public $D/none"))
    end)

    it("sign tokens where asked to", function()
      local code, out = run "keygen --token-key $D/token"
      assert.equal(0, code)
      local keys = assert(keyfile.read(dir .. "/token"))
      assert.equal("token", keys.kind)
      assert.equal(crypto.base64url((crypto.sign_keypair(keys.secrets[1]))) .. "\n", out)
      assert.equal(out, select(2, run "keygen --public $D/token"))
      assert.equal(0, (run "keygen --rotate $D/token"))
      assert.equal("token", keyfile.read(dir .. "/token").kind)
      run "keygen $D/key"
      local status, _, err = run "keygen --public --token-key $D/key"
      assert.equal(2, status)
      assert.matches("signs no tokens", err, 1, true)
    end)

    it("come as JSON", function()
      local code, out = run "keygen --json $D/key"
      assert.equal(0, code)
      local keys = keyfile.server(dir .. "/key")
      assert.same({ event = "key", kind = "box", file = dir .. "/key", public = { crypto.base64url(keys.publics[1]) } },
        json.decode(out))
      local made = json.decode(select(2, run "keygen --json --token-key"))
      assert.equal(made.public[1], crypto.base64url((crypto.sign_keypair(crypto.unhex(made.secret)))))
      code, out = run "keygen --json $D/key"
      assert.equal(2, code)
      assert.equal("error", json.decode(out).event)
    end)
  end)
end)

-- SPDX-License-Identifier: MIT
-- bodkin lab as its users call it, root and others.

if (os.getenv "SOAK" or "1") ~= "1" then return end

local processes_of = require "spec.processes"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local expect = processes_of.expect
local _, binary = shell.run("readlink -f " .. support.binary)
binary = binary:gsub("\n", "")

-- What makes the command after it nobody's, on a machine where /dev/net/tun has this mode, and the binary is where
-- nobody may run it.
local function as_nobody(mode)
  return ([[unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt && mknod -m %s /mnt/tun c 10 200 &&
    mount --bind /mnt/tun /dev/net/tun && cp %s /mnt/bodkin && cd /mnt && export BODKIN=/mnt/bodkin &&
    exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"' sh ]]):format(mode, binary)
end

describe("bodkin lab", function()
  local processes

  before_each(function() processes = processes_of.new() end)
  after_each(function() processes:close() end)

  -- Starts it on two hosts with `script`, and what it is called with; `before`: other words first.
  local function start(called, script, before)
    return processes:start(("%s %s lab %s -- sh -c %s"):format(before or "", before and "/mnt/bodkin" or binary, called,
      shell.quote(script)))
  end

  -- Reads to the end: the exit code, and all lines as keys.
  local function ended(p)
    local lines = {}
    for line in p.out:lines() do lines[line] = true end
    local _, _, code = p.out:close()
    return code, lines
  end

  -- The process that `timeout` runs, which gives the lab its name; it may not have started it yet.
  local function number(p)
    return assert(shell.await(5000, function()
      local _, pid = shell.run("pgrep -P " .. p.pid)
      return pid:match "^%d+"
    end))
  end

  -- Two that meet through the server, each from its host.
  local meet = " match duel --quiet --send from-$BODKIN_LAB_HOST --expect 1 --timeout 10"

  it("runs a program behind both NATs, with a server and homes of its own, and labels what it says", function()
    local p = start("port_restricted full_cone --delay-ms 5", ([[
      echo "$BODKIN_SERVER"; echo $XDG_STATE_HOME $XDG_CONFIG_HOME; ip -br addr show eth0 | tr -s ' '
      echo shared >$BODKIN_LAB_DIR/$BODKIN_LAB_HOST; %s %s; status=$?
      cat $BODKIN_LAB_DIR/a $BODKIN_LAB_DIR/b; echo $(ls $BODKIN_LAB_DIR); echo aside >&2; exit $status
    ]]):format(binary, meet))
    local of = number(p)
    local code, lines = ended(p)
    local text = {}
    for line in pairs(lines) do text[#text + 1] = line end
    text = table.concat(text, "\n")
    assert.equal(0, code, text)
    assert.truthy(lines["a: 192.168.1.10 behind port_restricted, seen as 198.18.1.10"], text)
    assert.truthy(lines["b: 192.168.2.10 behind full_cone, seen as 198.18.2.10"], text)
    for host, other in pairs { a = "b", b = "a" } do
      local function said(line) return lines[host .. "| " .. line] end
      assert.truthy(text:find(host .. "| bodkin://192%.0%.2%.10:4433#%S+"), text)
      assert.truthy(said(("/run/bodkin-lab-%s-1/home-%s/state /run/bodkin-lab-%s-1/home-%s/config"):format(of, host, of,
        host)), text)
      assert.truthy(text:find(host .. "| eth0@%S+ UP 192%.168"), text)
      assert.truthy(said("from-" .. other), text)
      assert.truthy(said "a b", text)
      assert.truthy(said "aside", text)
    end
    support.nothing_left(of)
  end)

  it("takes its exit code from the first that failed, and shows what does not fit as far as it fits", function()
    local p = start("none none --json", [[
      head -c 70000 /dev/zero | tr '\0' x; echo; printf 'no\377end' >&2
      [ $BODKIN_LAB_HOST = b ] || { until [ -e $BODKIN_LAB_DIR/b ]; do sleep 0.05; done; sleep 0.3; exit 4; }
      : >$BODKIN_LAB_DIR/b; exit 3
    ]])
    local code, lines = ended(p)
    assert.equal(3, code)
    for host, of in pairs { a = 4, b = 3 } do
      assert.truthy(lines[('{"event":"exited","host":"%s","code":%d}'):format(host, of)])
      assert.truthy(lines[('{"event":"output","host":"%s","stream":"stderr","data_b64":"bm//ZW5k"}'):format(host)])
      assert.truthy(lines[host .. "'s stdout: a line is longer than 65536 bytes; the rest of it is not shown"])
    end
    assert.equal(127, (ended(processes:start(binary .. " lab none none -- no-such-command"))))
  end)

  it("has a server by which netcheck tells what the NATs do", function()
    local p = start("port_restricted symmetric_random --ipv6", binary .. " netcheck --json")
    local code, lines = ended(p)
    assert.equal(0, code, next(lines))
    local found = {}
    for line in pairs(lines) do
      local host, text = line:match "^([ab])| ({.*})$"
      local one = text and require("dkjson").decode(text)
      if one then found[host .. one.family] = one end
    end
    assert.equal("endpoint_independent", found.aIPv4.mapping)
    assert.equal("address_and_port_dependent", found.aIPv4.filtering)
    assert.equal("address_and_port_dependent", found.bIPv4.mapping)
    assert.equal("random", found.bIPv4.ports)
    for _, host in ipairs { "a", "b" } do
      assert.equal(4, #found[host .. "IPv4"].asked)
      assert.equal("address_and_port_dependent", found[host .. "IPv6"].filtering) -- the firewall
    end
  end)

  it("loses other packets each time, and tells by which seed it loses the same", function()
    local function told(called)
      local code, lines = ended(start("none none " .. called, "true"))
      assert.equal(0, code)
      local seed
      for line in pairs(lines) do
        seed = seed or line:match "^what is lost is drawn from %-%-seed (%d+)$"
          or line:match '^{"event":"seed","seed":(%d+)}$'
      end
      return seed
    end
    local first, second = assert(told "--loss 1%"), assert(told "--loss 1% --json")
    assert.not_equal(first, second)
    assert.equal(first, told("--loss 1% --seed " .. first))
    assert.is_nil(told "")
  end)

  it("leaves nothing behind after a Ctrl-C, whatever the program does", function()
    local p = start("symmetric_random carrier", "trap 'echo not yet' INT TERM; setsid sleep 600 & echo here; "
      .. "while :; do sleep 0.1; done")
    local of = number(p)
    expect(p, "^a| here$")
    assert.matches("host%-a", support.left(of))
    shell.run("kill -INT " .. of)
    local code, lines = ended(p)
    assert.equal(130, code)
    assert.truthy(lines["a| not yet"])
    assert.equal("", support.left(of))
  end)

  it("leaves nothing behind when it is killed, and ends what takes too long", function()
    local p, slow = start("none none", "echo here; sleep 600"),
      start("none none --timeout 0.5", "[ $BODKIN_LAB_HOST = a ] || exec sleep 600")
    local of = number(p)
    expect(p, "^b| here$")
    shell.run("kill -KILL " .. of)
    assert(shell.await(5000, function() return support.left(of) == "" end), support.left(of))
    local code, lines = ended(slow)
    assert.equal(1, code)
    assert.truthy(lines["bodkin: b did not end in 0.5 s: does one wait for the other?"])
  end)

  it("needs no root where users have namespaces", function()
    if not shell.run(as_nobody "666" .. "unshare --user --map-root-user --net --mount true") then
      return pending "this kernel gives users no namespaces"
    end
    local p = start("port_restricted full_cone --ipv6", [[
      echo ${BODKIN_SERVER%#*}; ip -br addr show eth0 | tr -s ' '
      echo $(id -u), really $(awk '{ print $2 }' /proc/self/uid_map); $BODKIN]] .. meet, as_nobody "666")
    local code, lines = ended(p)
    local text = {}
    for line in pairs(lines) do text[#text + 1] = line end
    text = table.concat(text, "\n")
    assert.equal(0, code, text)
    assert.truthy(lines["a: 192.168.1.10 behind port_restricted, seen as 198.18.1.10, and 2001:db8:1:1::10"], text)
    assert.truthy(lines["b| bodkin://server:4433"], text)
    assert.truthy(text:find("b| eth0@%S+ UP 192%.168%.2%.10/24 2001:db8:2:1::10/64"), text)
    assert.truthy(lines["a| 0, really 65534"])
    assert.truthy(lines["a| from-b"] and lines["b| from-a"])
    p = start("none none", "echo here; sleep 600", as_nobody "666")
    local of = number(p)
    expect(p, "^b| here$")
    assert.matches("keeper", support.left(of))
    shell.run("kill -KILL " .. of)
    assert(shell.await(5000, function() return support.left(of) == "" end), support.left(of))
  end)

  it("says why there can be no lab, and what to do", function()
    if not shell.run "unshare --mount true" then return pending "this machine gives no process mounts of its own" end
    local function refused(p, why)
      local code, lines = ended(p)
      assert.equal(6, code)
      assert.truthy(lines["bodkin: lab: cannot make one as this user: " .. why .. "; or run it as root"], next(lines))
    end
    refused(start("none none", "true", as_nobody "600"),
      "/dev/net/tun is closed to this user: as root, run  chmod 666 /dev/net/tun")
    -- A namespace of users in which there can be no other.
    refused(start("none none", "true", as_nobody("666"):gsub("exec setpriv", [[
      unshare --user sleep 5 >/dev/null 2>&1 & sleep 0.3
      for map in uid gid; do echo 0 0 65536 >/proc/$!/${map}_map; done
      exec nsenter --user --target $! sh -c '\''echo 0 >/proc/sys/user/max_user_namespaces
        exec "$@"'\'' sh setpriv]])),
      "user namespaces are off here (user.max_user_namespaces = 0)")
  end)
end)

-- SPDX-License-Identifier: MIT
-- Runs suites of tests, passes their output on as it comes, and counts what they report as TAP. A suite
-- that crashed, ran into its limit, stopped short of its plan or reported nothing is one failure more.
-- usage: suites.lua BUILD
--   all|quick|soak|soak-fuzz|soak-matrix|fuzz|layers|lab|nat-table|examples|readme|scripts|DIRECTORY-OF-SPEC [SECONDS]

local build, what, seconds = arg[1], arg[2], tonumber(arg[3])

local function lines_of(command)
  local pipe <close> = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  return list
end

local function exists(path)
  local file = io.open(path)
  return file and file:close() or false
end

-- A suite: name, command, limit_s; `plain` ones report by their exit code alone.
local suites = {}
local function add(name, command, limit_s, plain)
  suites[#suites + 1] = { name = name, command = command, limit_s = limit_s, plain = plain }
end

local sanitizer = "ASAN_OPTIONS=abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 "
-- Servers and clients keep their keys there, not in the home of who runs the tests.
local home = build:find "^/" and build or "$PWD/" .. build
local homes = ("XDG_STATE_HOME=%s/state XDG_CONFIG_HOME=%s/config "):format(home, home)
local lua_env = homes .. ("BUILD=%s LUA_PATH='scripts/?.lua;scripts/?/init.lua;;' LUA_CPATH='%s/release/lua/?.so;;' ")
  :format(build, build)
local busted = lua_env .. "BODKIN=" .. build .. "/release/bodkin busted --lua=/usr/bin/lua5.4 -o TAP "

-- Refusals of memory, and what computes keys by the thousand: the quick run leaves them out.
local slow_tests = { test_memory = true, test_seal = true, test_assoc = true }

local function c_specs(dir)
  for _, source in ipairs(lines_of(("ls spec/%s/test_*.c 2>/dev/null"):format(dir))) do
    local name = source:gsub("%.c$", "")
    if what == "quick" and slow_tests[name:match "[^/]+$"] then goto continue end
    add(name, homes .. sanitizer .. "CMOCKA_MESSAGE_OUTPUT=TAP " .. build .. "/asan/" .. name, 60)
    ::continue::
  end
end

-- The same specs inside the binary made with the sanitizers.
local sanitized = sanitizer .. lua_env .. ("BODKIN=%s/asan/bodkin %s/asan/bodkin run .ci/busted.lua --ignore-lua "
  .. "-o TAP "):format(build, build)

-- What else the quick run leaves out: whole directories, files that take several seconds each, most seeds.
local slow = { hostile = true, calm = true, conformance = true, policy = true }
local slow_files = "bindings/mutation bindings/monkey client/history client/relay cli/netcheck cli/tunnel cli/webhook "
  .. "cli/why host/layers model/guards servers/amplification sim/against sim/scenario sim/stats "
local few = "SEEDS=1:200 ATTACK=1:10 LIFE=1:8 TICKETS=1:10 "
local fewer = "LIFE=1:16 TICKETS=1:50 " -- where sanitizers slow each

-- Of directories that are on virtual time: those that start processes and look at the clock.
local real = "policy/hostile policy/process "

-- Long runs of scripts, and of other processes, in which the sanitizers find nothing that the other specs do not reach.
local unsanitized = "sim/scenario sim/stats sim/against policy/evaluation policy/hostile policy/process policy/watch "
  .. "policy/document policy/link cli/tunnel cli/webhook "

-- The files that are not among `names`, and those that are.
local function without(files, names)
  local left, named = {}, {}
  for _, file in ipairs(files) do
    table.insert(names:find(file:match "spec/(.*)_spec%.lua$" .. " ", 1, true) and named or left, file)
  end
  return left, named
end

local function lua_specs(path, limit_s, with_sanitizers)
  local files = lines_of(("find spec/%s -name '*_spec.lua' 2>/dev/null | sort"):format(path))
  if what == "quick" then
    local left = without(files, slow_files)
    if #left > 0 then add("spec/" .. path, few .. busted .. table.concat(left, " "), limit_s) end
  elseif #files > 0 then
    local left, clocked = without(files, real)
    if #clocked > 0 then add("spec/" .. path .. ", on the clock", busted .. table.concat(clocked, " "), limit_s) end
    if #left > 0 then add("spec/" .. path, busted .. table.concat(left, " "), limit_s) end
    if with_sanitizers then
      add("spec/" .. path .. " (ASan, UBSan)", fewer .. sanitized .. table.concat(without(files, unsanitized), " "),
        3 * limit_s)
    end
  end
end

-- Specs of what stands directly in scripts/bodkin.
local function top_specs()
  for _, path in ipairs(lines_of("ls spec/*_spec.lua | xargs -n1 basename | grep -vE '^(examples|readme)_'")) do
    lua_specs(path, 120, what == "all")
  end
end

local dirs = lines_of("ls -d spec/*/ | xargs -n1 basename | grep -vxE 'lab|fuzz|soak|helpers?|support'")

-- The longest input of a fuzz target, in bytes: a datagram where it is read as one, a program as long as it is quick.
local fuzz_len = { addr = 64, carriage = 128, cli = 96, machines = 24, message = 200, mux = 64, noise = 160,
  query = 160, registry = 96, relay = 96, seal = 48, stun = 128, wire = 1300 }
local FUZZ_RUNS = 10000000

-- Runs a target with `flags` on its corpus, and one that grows in the build. And where its output goes.
local function fuzz_command(name, flags)
  local corpus, log = build .. "/corpus/" .. name, build .. "/fuzz/" .. name .. ".log"
  local kept = "spec/fuzz/corpus/" .. name
  return ("mkdir -p %s && ASAN_OPTIONS=quarantine_size_mb=4:malloc_context_size=8:max_malloc_fill_size=0 "
    .. "UBSAN_OPTIONS=print_stacktrace=1 %s/fuzz/spec/fuzz/fuzz_%s %s -max_len=%d -entropic=0 -timeout=5 "
    .. "-rss_limit_mb=512 -artifact_prefix=%s/ %s %s >%s 2>&1"):format(corpus, build, name, flags,
    fuzz_len[name] or 256, build, corpus, exists(kept) and kept or "", log), log
end

local function each_fuzzer(fn)
  for _, source in ipairs(lines_of("ls spec/fuzz/fuzz_*.c")) do fn(source:match "fuzz_([^/]*)%.c$") end
end

-- The lab's. Those that mostly wait, and those that look at no time, run beside the others.
local function lab_specs(name, limit_s, env)
  local timed, untimed = without(lines_of "ls spec/lab/*_spec.lua",
    "lab/conformance lab/lab_command lab/mitm lab/netcheck lab/stun lab/waits ")
  add(name .. ", beside", env .. busted .. table.concat(untimed, " "), limit_s)
  suites[#suites].beside = true
  add(name, env .. busted .. table.concat(timed, " "), limit_s)
end

local add_named
add_named = {
  layers = function() add("layers", "lua5.4 .ci/layers.lua " .. build .. "/release", 30, true) end,
  lab = function() lab_specs("spec/lab", 600, "") end,
  ["nat-table"] = function() add("NAT pairs", busted .. "spec/lab/matrix_spec.lua", 120) end,
  ["soak-matrix"] = function()
    for n = 1, 20 do add("NAT pairs " .. n, "SOAK=" .. n .. " " .. busted .. "spec/lab/matrix_spec.lua", 300) end
  end,
  valgrind = function()
    add("pairs under valgrind", "PAIRS=100 CMOCKA_MESSAGE_OUTPUT=TAP valgrind -q --leak-check=full --error-exitcode=9 "
      .. "--errors-for-leak-kinds=definite,possible " .. build .. "/release/spec/host/test_pairs", 300)
  end,
  soak = function()
    -- In the first of twenty the lab itself is tested, too, and the simulator held against it.
    for n = 1, 20 do lab_specs("soak " .. n, 900, "SOAK=" .. n .. " ") end
    add_named.valgrind()
    add("soak memory", "EVERY=1 CMOCKA_MESSAGE_OUTPUT=TAP " .. build .. "/asan/spec/host/test_memory", 1800)
    add_named["soak-fuzz"]()
    add("soak hostile", "SOAK=1 " .. busted .. "spec/hostile", 900)
    for _, kind in ipairs { "seeds", "life", "tickets" } do
      add("soak " .. kind, lua_env .. "lua5.4 spec/model/soak.lua " .. kind, 10800, true)
    end
    add("soak loss", "SOAK=1 " .. busted .. "spec/model/loss_spec.lua", 300)
    add("soak attacked", "SOAK=1 " .. busted .. "spec/model/attacked_spec.lua", 600)
    add("soak guards", "GUARDS=all " .. busted .. "spec/model/guards_spec.lua", 600)
    add("soak conformance", "SOAK=1 " .. busted .. "spec/conformance", 300)
  end,
  fuzz = function()
    each_fuzzer(function(name)
      local command, log = fuzz_command(name, "-max_total_time=" .. (seconds or 5))
      add("fuzz " .. name, ("%s && tail -n 1 %s || { tail -n 60 %s; exit 1; }"):format(command, log, log),
        (seconds or 5) + 60, true)
      suites[#suites].virtual = true -- each has but one thread
    end)
  end,
  -- Resumable: what was done since the target was last built is told, not done again.
  ["soak-fuzz"] = function()
    each_fuzzer(function(name)
      local command, log = fuzz_command(name, ("-runs=%d -print_final_stats=1"):format(FUZZ_RUNS))
      local done, binary = build .. "/fuzz/" .. name .. ".done", build .. "/fuzz/spec/fuzz/fuzz_" .. name
      local told = ([[awk '
        /^stat::number_of_executed_units/ { n = $NF } /^stat::average_exec/ { rate = $NF } /^stat::peak/ { mb = $NF }
        END { printf "# fuzz %s: %%d executions, %%d a second, at most %%d MB, 0 crashes, 0 leaks\n", n, rate, mb
          exit n < %d }' %s >%s.new && mv %s.new %s]]):format(name, FUZZ_RUNS, log, done, done, done)
      add("soak fuzz " .. name, ("test %s -nt %s || { %s || { tail -n 60 %s; exit 1; }; %s; } && cat %s"):format(done,
        binary, command, log, told, done), 4 * 3600, true)
    end)
  end,
  scripts = top_specs,
  examples = function() lua_specs("examples_spec.lua", 120) end,
  readme = function() lua_specs("readme_spec.lua", 180) end,
}

-- What runs compilers, or the binary with sanitizers itself, gains nothing inside that.
local alone = { host = true, hostile = true, calm = true, conformance = true, embed = true }
local limits_s = { hostile = 300, policy = 300 }

-- On virtual time throughout, or such that they measure no time: what runs beside them changes nothing, so several run
-- at once. So do refusals of memory and fuzzers, and all of the quick run.
local virtual = { bindings = true, cli = true, client = true, core = true, model = true, policy = true, servers = true,
  sim = true, tunnel = true }

local function add_directory(dir)
  local first = #suites + 1
  c_specs(dir)
  lua_specs(dir, limits_s[dir] or 180, what == "all" and not alone[dir])
  for i = first, #suites do
    local name = suites[i].name
    suites[i].virtual = what == "quick" or virtual[dir] and not name:find ", on the clock$"
      or name:find "test_memory$" ~= nil
  end
end

if what == "all" or what == "quick" then
  for _, dir in ipairs(dirs) do
    if what == "all" or not slow[dir] then add_directory(dir) end
  end
  top_specs()
  add_named.layers()
  add_named.examples()
  if what == "all" then
    add_named.fuzz()
    add_named.readme()
    add_named.lab()
  end
elseif add_named[what] then
  add_named[what]()
else
  add_directory(what)
end

local passed, failed, skipped, broken = 0, 0, 0, {}

-- What a soak measured, with the commit and the machine: the tests that failed, and every line that tells a
-- figure ("# …").
local record
if what:find "^soak" then
  local function one(command) return lines_of(command)[1] or "?" end
  local commit = one("git describe --always --dirty --abbrev=10")
  os.execute("mkdir -p bench/results")
  record = assert(io.open(("bench/results/%s-%s.txt"):format(what, commit), "w"))
  record:setvbuf("line")
  record:write(("commit %s, %s\n%s, %s cores, Linux %s, %s\n\n"):format(commit, os.date("!%Y-%m-%d"),
    one("sed -n 's/^model name.*: //p' /proc/cpuinfo"), one("nproc"), one("uname -r"),
    one("sed -n 's/^PRETTY_NAME=\"\\(.*\\)\"/\\1/p' /etc/os-release")))
end

local function say(line)
  print(line)
  if record and (line:find("^# ") or line:find("^not ok")) then record:write(line, "\n") end
end

-- Runs a suite, and says when it began, and when and how it ended.
local function command_of(suite)
  local command = ("echo began $(date +%%s); { %s; } </dev/null 2>&1; "
    .. "status=$?; echo; echo exit $status $(date +%%s)"):format(suite.command)
  return ("timeout -k 5 %d sh -c '%s'"):format(suite.limit_s, command:gsub("'", [['\'']]))
end

local function run(suite, pipe)
  say("# " .. suite.name)
  pipe = pipe or assert(io.popen(command_of(suite)))
  local good, bad, skip, plan, status, began, ended = 0, 0, 0, nil, nil, os.time(), nil
  for line in pipe:lines() do
    local code, at = line:match "^exit (%d+) (%d+)$"
    local first = line:match "^began (%d+)$"
    if first then began = tonumber(first)
    elseif code then status, ended = code, tonumber(at)
    else say(line) end
    if suite.plain then goto continue end
    plan = tonumber(line:match("^1%.%.(%d+)")) or plan
    if line:find("^ok.*# SKIP") or line:find("^not ok %d+ # SKIP") then skip = skip + 1 -- cmocka says the latter
    elseif line:find("^not ok") then bad = bad + 1
    elseif line:find("^ok") then good = good + 1 end
    ::continue::
  end
  pipe:close()
  local why
  if not status then why = "did not finish in " .. suite.limit_s .. " s"
  elseif suite.plain then
    if status == "0" then
      good = 1
      say("ok - " .. suite.name)
    else why = "exit code " .. status end
  elseif good + bad + skip == 0 then why = "reported no test"
  elseif status ~= "0" and bad == 0 then why = "exit code " .. status .. " though no test failed"
  elseif plan ~= good + bad + skip then why = "stopped short of its plan" end
  if why then
    bad = bad + 1
    say("# " .. suite.name .. ": " .. why)
  end
  say(("# %s: %d passed, %d failed, %d s"):format(suite.name, good, bad, (ended or os.time()) - began))
  if bad > 0 then broken[#broken + 1] = ("%s (%d)"):format(suite.name, bad) end
  passed, failed, skipped = passed + good, failed + bad, skipped + skip
end

-- Starts one whose output comes when it is over; and waits for that.
local function begin(suite)
  local path = os.tmpname()
  return { suite = suite, path = path, pipe = assert(io.popen(command_of(suite) .. " >" .. path)) }
end

local function finish(one)
  if one.pipe then one.pipe:close() end
  run(one.suite, assert(io.open(one.path)))
  os.remove(one.path)
end

-- As many at once as there are processors, those that may take longest first; told as they end.
local function run_together(list)
  if #list == 0 then return end
  local paths, index = {}, os.tmpname()
  table.sort(list, function(a, b)
    if a.limit_s ~= b.limit_s then return a.limit_s > b.limit_s end
    return a.name < b.name
  end)
  local file = assert(io.open(index, "w"))
  for i, suite in ipairs(list) do
    paths[i] = os.tmpname()
    local script <close> = assert(io.open(paths[i] .. ".sh", "w"))
    script:write(command_of(suite), " >", paths[i], "\necho ", i, "\n")
    file:write(paths[i], ".sh\n")
  end
  file:close()
  local pipe = assert(io.popen(("xargs -n 1 -P %s sh <%s"):format(lines_of("nproc")[1] or "1", index)))
  for line in pipe:lines() do
    local i = tonumber(line)
    finish { suite = list[i], path = paths[i] }
    os.remove(paths[i] .. ".sh")
  end
  pipe:close()
  os.remove(index)
end

local function run_one_by_one(list)
  local beside
  for _, suite in ipairs(list) do
    if suite.beside then
      beside = begin(suite)
    else
      run(suite)
      if beside then finish(beside) end
      beside = nil
    end
  end
end

io.stdout:setvbuf("line")
local together, rest = {}, {}
for _, suite in ipairs(suites) do table.insert(suite.virtual and together or rest, suite) end
run_together(together)
run_one_by_one(rest)
if #suites == 0 then
  failed = 1
  print("# no suite called " .. what)
end
if #broken > 0 then print("# failed: " .. table.concat(broken, ", ")) end
if record then record:write(("%d passed, %d failed\n"):format(passed, failed)) end
print(("%d passed, %d failed%s"):format(passed, failed, skipped > 0 and (", %d skipped"):format(skipped) or ""))
os.exit(failed == 0 and 0 or 1)

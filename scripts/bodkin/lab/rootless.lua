-- SPDX-License-Identifier: MIT
-- The lab without root: in user, mount and network namespaces of this user's own, where the kernel allows these. Inside
-- one is root over what the lab needs, and outside nothing has changed.

local shell = require "bodkin.lab.shell"

local M = {}

-- `ip netns` and the lab keep files in /run. It becomes a directory of ours, with all in it that was there before, such
-- as a desktop's sockets in /run/user, but for other labs. It is put together over /tmp, always there, and then moved.
local ENTER = [[
set -e
mount -n -t tmpfs -o mode=755 tmpfs /tmp
for old in /run/*; do
  new=/tmp/${old#/run/}
  case $new in /tmp/netns|/tmp/bodkin-lab-*) continue;; esac
  if [ -L "$old" ]; then cp -P "$old" "$new"
  elif [ -d "$old" ]; then mkdir "$new" && mount -n --rbind "$old" "$new"
  elif [ -e "$old" ]; then : >"$new" && mount -n --bind "$old" "$new"
  fi 2>/dev/null || :
done
mkdir /tmp/netns
mount -n --move /tmp /run
exec "$@"
]]

local UNSHARE = { "unshare", "--user", "--map-root-user", "--net", "--mount" }
local SBIN = 'PATH="$PATH:/usr/sbin:/sbin"; ' -- not in every user's

-- Says what is missing; nothing where all is there.
local CHECK = SBIN .. [[
for c in ip nft nsenter setsid unshare mount; do
  command -v $c >/dev/null || { echo "there is no command '$c': install iproute2, nftables and util-linux"; exit; }
done
[ -c /dev/net/tun ] || { echo "there is no /dev/net/tun: as root, run  modprobe tun"; exit; }
[ -r /dev/net/tun ] && [ -w /dev/net/tun ] ||
  { echo "/dev/net/tun is closed to this user: as root, run  chmod 666 /dev/net/tun"; exit; }
why=$(]] .. shell.join(UNSHARE) .. [[ sh -c ]] .. shell.quote(ENTER) .. [[ sh sh -c ': <>/dev/net/tun' 2>&1) && exit
off() { [ "$(cat /proc/sys/$1 2>/dev/null)" = $2 ]; }
if off kernel/unprivileged_userns_clone 0; then
  echo "user namespaces are off here (kernel.unprivileged_userns_clone = 0)"
elif off user/max_user_namespaces 0; then
  echo "user namespaces are off here (user.max_user_namespaces = 0)"
elif off kernel/apparmor_restrict_unprivileged_userns 1; then
  echo "AppArmor keeps users out of namespaces here (kernel.apparmor_restrict_unprivileged_userns = 1)"
else
  echo "the kernel gives this user no namespaces ($why)"
fi
]]

-- Whether this user may make a lab: true for root. For others, where the kernel lets them, the words of a command that
-- does `arguments` of this very program as root in namespaces of its own; else nil, message, "refused".
function M.way(arguments)
  local _, uid = shell.run "id -u"
  if uid == "0\n" then return true end
  local _, reason = shell.run(CHECK)
  if reason ~= "" then
    return nil, ("lab: cannot make one as this user: %s; or run it as root"):format(reason:match "[^\n]+"), "refused"
  end
  local words = { "sh", "-c", SBIN .. 'exec "$@"', "sh" }
  table.move(UNSHARE, 1, #UNSHARE, #words + 1, words)
  table.move({ "sh", "-c", ENTER, "sh", shell.exe() }, 1, 5, #words + 1, words)
  return table.move(arguments, 1, #arguments, #words + 1, words)
end

return M

-- SPDX-License-Identifier: MIT
-- What an interface is by its name, where that tells: "container" is a bridge or link of this machine's containers and
-- virtual machines, "tunnel" leads into a VPN. Peers are seldom found by either, and each costs a test.

local M = {}

local names = {
  { "container", "^docker%d", "^veth", "^br%-%x", "^virbr%d", "^vnet%d", "^vmnet%d", "^vboxnet%d", "^cni%d", "^cali%x",
    "^flannel", "^podman%d", "^lxcbr%d", "^lxdbr%d", "^kube%-", "^vEthernet" },
  { "tunnel", "^tun%d", "^tap%d", "^utun%d", "^wg", "^tailscale%d", "^zt", "^ipsec%d", "^nordlynx", "^proton" },
}

-- nil: neither.
function M.kind(name)
  for _, kind in ipairs(names) do
    for i = 2, #kind do
      if name:find(kind[i]) then return kind[1] end
    end
  end
end

return M

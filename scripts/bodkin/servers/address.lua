-- SPDX-License-Identifier: MIT
-- The address server (S1): tells a client the public address that its request came from, read from the
-- packet's header, with a proof of it that the matching server believes. It keeps nothing.

local role = require("bodkin.servers.role").role

return role {
  name = "address",
  wants = { address_request = { "tx" } },
  on = function(server)
    return {
      address_request = function(reply, from, tx) server:report(reply, from, tx) end,
    }
  end,
}

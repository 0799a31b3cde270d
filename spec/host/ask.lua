-- SPDX-License-Identifier: MIT
-- The policy of the queue "ask" at the server of these specs; parties of two have it to themselves.
local bodkin = require "bodkin"

return bodkin.policy { size = 2, party = 2, accept_ms = 5000 }

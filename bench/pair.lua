-- SPDX-License-Identifier: MIT
-- The policy of bench/connect.lua: two that wait are put together at once.
local bodkin = require "bodkin"

return bodkin.policy { size = 2, window_ms = 10 }

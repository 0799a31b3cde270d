-- SPDX-License-Identifier: MIT
-- Two at a time, in the order they came. Serves every queue that has no policy, and any whose policy failed.
local bodkin = require "bodkin"

return bodkin.policy { size = 2 }

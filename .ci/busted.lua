-- SPDX-License-Identifier: MIT
-- busted inside the binary: `bodkin run .ci/busted.lua ARGS`, to have the specs under its sanitizers.
require "busted.runner" { standalone = false }

-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"

return {
  usage = "bodkin version [--json]",
  summary = "print the version and leave",
  options = {},
  run = function(options)
    if options.json then
      print(('{"version":"%s","protocol":%d}'):format(core.version, core.protocol_version))
    else
      print(("bodkin %s (protocol %d, %s)"):format(core.version, core.protocol_version, _VERSION))
    end
    return 0
  end,
}

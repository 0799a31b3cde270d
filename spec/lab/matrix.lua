-- SPDX-License-Identifier: MIT
-- One end of several meetings, one after the other, each in an app of its own: matrix.lua ROLE URL KEEP_MS APP…
-- Says of each: app, the last path or why it was closed, the first path, when that was there, in ms.

local bodkin = require "bodkin"
local meet = require "spec.lab.meet"

local role, url, keep_ms = ...

bodkin.run(function(...)
  for _, app in ipairs { ... } do
    meet.meet(bodkin.env(), role, url, app, 1, function(_, meeting)
      print(("%s %s %s %s"):format(app, meeting.closed and not meeting.last and meeting.closed or meeting.last or "-",
        meeting.first or "-", meeting.first_ms or "-"))
      io.stdout:flush()
    end, tonumber(keep_ms))
  end
end, select(4, ...))

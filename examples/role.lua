-- SPDX-License-Identifier: MIT
-- A server role of one's own beside the built-in ones: it notes a score a name and tells the best.
--   bodkin serve --roles address,matching,maintenance,examples/role.lua
-- Messages of types 64..127 are yours. A handler gets the fields declared, in order; what does not fit them
-- never arrives. A request is padded, so that the answer need not be longer than it.

local bodkin = require "bodkin"

local best_name, best_score = "", 0
local name_field, score_field = { "name", "str", 0, 32 }, { "score", "uint", 0, 1000000 }

return bodkin.role {
  name = "scores",
  messages = {
    { name = "score", type = 64, request = true,
      fields = { { "tx", "bin", 12, 12 }, name_field, score_field, { "pad", "pad" } } },
    { name = "best", type = 65, fields = { { "tx", "bin", 12, 12 }, name_field, score_field } },
  },
  on = {
    score = function(reply, _, tx, name, score)
      if score > best_score then best_name, best_score = name, score end
      reply("best", tx, best_name, best_score)
    end,
  },
}

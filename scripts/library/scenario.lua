---@meta bodkin.scenario
-- SPDX-License-Identifier: MIT
-- luacheck: ignore
-- For editors with the Lua language server: what bodkin sim plays. docs/SIM.md explains it.

---@alias bodkin.NatKind
---| "none"
---| "firewall"
---| "full_cone"
---| "address_restricted"
---| "port_restricted"
---| "plain_linux"
---| "symmetric_random"
---| "symmetric_sequential"
---| "address_dependent"

---How a property is drawn: one of uniform, normal, weights and chance.
---@class bodkin.Distribution
---@field uniform? number[]               { least, most }
---@field normal? number[]                { mean, deviation }
---@field weights? table<string, number>  text = weight
---@field chance? number                  of being true
---@field min? number
---@field max? number
---@field whole? boolean                  rounded

---@class bodkin.ScenarioQueue
---@field queue? string
---@field policy? string                  a file beside the scenario, or the name of one that ships
---@field props? table<string, string|number|boolean|bodkin.Distribution>
---@field claims? table<string, string|number|boolean|bodkin.Distribution>  drawn as props, in tokens

---@class bodkin.ScenarioDefinition
---@field name? string
---@field clients? integer                2 to 10000
---@field arrive_per_s? number
---@field duration_s? number              virtual seconds
---@field stay_s? number                  after it knows of each peer whether they are connected
---@field seed? integer
---@field nats? table<bodkin.NatKind, number>  weights
---@field together? number                the share of clients behind another's NAT
---@field delay_ms? number|number[]|{ matrix: string }  one way
---@field jitter_ms? number
---@field loss? number                    0 to 0.9
---@field rooms? { size: integer }
---@field match? bodkin.ScenarioQueue

local bodkin = require "bodkin"

---@param definition bodkin.ScenarioDefinition
---@return table
function bodkin.scenario(definition) end

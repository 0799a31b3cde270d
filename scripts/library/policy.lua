---@meta bodkin.policy
-- SPDX-License-Identifier: MIT
-- luacheck: ignore
-- For editors with the Lua language server: what a matchmaking policy sees. Add this folder to workspace.library.

---The type of a property: "number", "integer", "boolean" or "string" (at most 64 bytes), with "?" where it may be
---absent; or a list of the texts it may be.
---@alias bodkin.PropertyType
---| "number"
---| "integer"
---| "boolean"
---| "string"
---| "number?"
---| "integer?"
---| "boolean?"
---| "string?"

---@class bodkin.Property
---@field type bodkin.PropertyType|string[]
---@field min? number      the least it may be, for numbers
---@field max? number      the most
---@field default? any     what it is where a ticket does not say; without one, and not optional, it has to
---@field optional? boolean

---A client that waits. A copy: changing it changes nothing anybody else sees.
---@class bodkin.Ticket
---@field id integer               its number; the older, the smaller
---@field props table<string, any> its properties, of the types declared, defaults filled in
---@field claims table<string, any> what the client's token says, signed by the game's backend; empty without one
---@field waited_ms integer        how long it has waited when the pass began
---@field size integer             how many players it stands for
---@field members { props: table<string, any>, claims: table<string, any> }[]  each of them, who leads it first

---A running match that has seats to fill: its props are what its host says.
---@class bodkin.RunningMatch: bodkin.Ticket
---@field seats integer[]          open places by team

---@class bodkin.Client
---@field id string                 its id, 32 hexadecimal digits
---@field app string
---@field name string
---@field props table<string, any>  of its registration, as the client says
---@field claims table<string, any> what its token says; empty without one

---@class bodkin.Formed
---@field teams (bodkin.Ticket|integer)[][]  the players by team, as tickets or their ids
---@field host? bodkin.Ticket|integer        one of them, named to all
---@field data? any                          told to all with the match; at most 512 bytes as msgpack

---@class bodkin.PolicyDefinition
---How many players a match has: a number, or { least, most }. 2 to 32; 2 when neither this nor teams is given.
---@field size? integer|integer[]
---The size of each team, in place of size.
---@field teams? integer[]
---The properties a ticket has. Others, and wrong ones, are refused. Without props it may have any.
---@field props? table<string, bodkin.PropertyType|string[]|bodkin.Property>
---The claims a ticket needs from its token, with types as in props. One that lacks them is refused; others stay.
---@field claims? table<string, bodkin.PropertyType|string[]|bodkin.Property>
---The most players of one ticket, at most those of the largest team; without it 1, and parties are refused.
---@field party? integer
---How long a ticket may wait, in ms: 1000 to 86400000.
---@field expire_ms? integer
---How long the members of a match have to accept it, in ms: 1000 to 120000. Without it nobody is asked.
---@field accept_ms? integer
---How often the queue is looked at, in ms: 10 to 60000, else 100. Tickets that come in between are seen together.
---@field window_ms? integer
---A numeric property, or what gives a ticket's number: `near` is then in order of distance from the anchor's, and long queues stay fast.
---@field index? string|fun(ticket: bodkin.Ticket): number
---A property in which all players of a match agree.
---@field shard? string
---Whether a ticket may wait here; the second result says why not, in at most 40 bytes.
---@field admit? fun(ticket: bodkin.Ticket): boolean, string?
---Whether two may be in one match. Asked for the anchor and another; without form, for every two chosen.
---@field compatible? fun(a: bodkin.Ticket, b: bodkin.Ticket, now_ms: integer): boolean?
---Makes a match of the anchor, the oldest not yet matched, and some of those near it, all compatible with it; or nil,
---to let them wait. Without it: the first that are compatible with one another.
---@field form? fun(anchor: bodkin.Ticket, near: bodkin.Ticket[], now_ms: integer): bodkin.Formed?
---Who joins a running match that has seats to fill, all compatible with it; or nil.
---@field on_backfill? fun(match: bodkin.RunningMatch, near: bodkin.Ticket[], now_ms: integer): bodkin.Formed?
---Told of a match that came about.
---@field on_match? fun(match: bodkin.Formed)
---Told who accepts a match …
---@field on_accept? fun(ticket: bodkin.Ticket)
---… and who does not, or not in time.
---@field on_decline? fun(ticket: bodkin.Ticket)
---Told who has waited for expire_ms.
---@field on_expire? fun(ticket: bodkin.Ticket)
---Whether a client may list what this query asks for: returns the query to answer in its place, true for the same, or
---false and why not. Counts in the policy that serves every queue without its own.
---@field on_search? fun(client: bodkin.Client, query: table): table|boolean, string?
---Whether a client may be registered, asked when it first comes and when what it says has changed; the second result
---says why not, in at most 40 bytes. Counts in the policy that serves every queue without its own.
---@field on_register? fun(client: bodkin.Client): boolean, string?

---@class bodkin.HostWhy
---@field rtt_ms? number  the longest of the round-trip times to the others; nil where one is not known
---@field reach number    the least of the chances that one of the others reaches it directly, 0 to 1

---The round-trip time to be expected between two tickets, in ms; of parties the worst between their members. Nil where
---it is not known of one. In policies only, as the two below.
---@param a bodkin.Ticket|integer
---@param b bodkin.Ticket|integer
---@return number?
function bodkin.rtt_ms(a, b) end

---How likely two tickets reach each other directly, 0 to 1; of parties the worst between their members.
---@param a bodkin.Ticket|integer
---@param b bodkin.Ticket|integer
---@return number
function bodkin.reach(a, b) end

---Who should be the host of a star: who all others reach with the best chance (in steps of a fifth), and of those who has
---the shortest way to the farthest of them.
---@param tickets (bodkin.Ticket|integer)[]  1 to 64
---@return bodkin.Ticket|integer host        as it stands in the list
---@return bodkin.HostWhy why
function bodkin.best_host(tickets) end

---A number for `index = bodkin.place`: tickets near in it are near in the network; -1 where nothing is known.
---@param ticket bodkin.Ticket|integer
---@return number
function bodkin.place(ticket) end

---@class bodkin.Policy

---Checks a policy; an error names the field. A policy's file ends with `return bodkin.policy { … }`.
---@param definition bodkin.PolicyDefinition
---@return bodkin.Policy
function bodkin.policy(definition) end

---The tickets nearest to one by the policy's index, compatible or not, the nearest first.
---@param ticket bodkin.Ticket  one that waits
---@param options? { within?: number, max?: integer }  how far they may be, and how many there are at most (10)
---@return bodkin.Ticket[]
function bodkin.near(ticket, options) end

---Fills each team exactly, parties whole, with the first ticket and then the earlier ones where that is possible.
---@param tickets bodkin.Ticket[]  at most 64
---@param sizes integer[]          of each team
---@param limits? table<string, table<any, integer>>  of one property: how many of a team may have a value
---@return bodkin.Ticket[][]?
function bodkin.pack(tickets, sizes, limits) end

---Puts all these tickets into teams whose means of a property are as near to each other as can be, parties whole.
---@param tickets bodkin.Ticket[]  as many players as the teams have places
---@param sizes integer[]
---@param by string|fun(member: table): number  a number among the props of each player, or what gives it
---@param limits? table<string, table<any, integer>>
---@return bodkin.Ticket[][]? teams
---@return number gap              between the highest mean and the lowest
function bodkin.split(tickets, sizes, by, limits) end

---In a policy: what it remembers, plain data of at most 64 KB; it survives a reload. Each queue has its own.
---@type table<string|integer, any>
state = {}

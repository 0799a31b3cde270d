---@meta bodkin
-- SPDX-License-Identifier: MIT
-- luacheck: ignore
-- For editors with the Lua language server: what `require "bodkin"` offers to scripts.

---@class bodkin
---@field version string
---@field protocol_version integer
---@field message table<string, any> every message between client and server, as a schema
bodkin = {}

---@alias bodkin.Code
---| "timeout"
---| "refused"
---| "no_match"
---| "no_path"
---| "blocked_udp"
---| "bad_key"
---| "too_old"
---| "app_mismatch"
---| "limit"
---| "closed"
---| "invalid"

---@class bodkin.OpenOptions
---@field server string               bodkin://HOST[:PORT][#KEY[,KEY]], as bodkin serve prints it; or several, by commas
---@field address_server? string      another address server than `server`, or stun:HOST[:PORT]
---@field maintenance_server? string  another mapping maintenance server
---@field app? string                 only clients of the same app meet; at most 64 bytes
---@field name? string                what others see; at most 32 bytes
---@field props? table<string, any>   in the registry; at most 128 bytes as msgpack
---@field identity? string            a key file, made at its first use; without one: a new identity each time
---@field identity_key? string        in its place: a secret of 32 bytes
---@field token? string               a file with a token of the game's backend
---@field token_text? string          in its place: the token
---@field trust_first_use? boolean    where the URL has no key: the first server that answers is taken for it
---@field known_servers? string       the file of those trusted so far; ~/.config/bodkin/known_servers
---@field bind? string                ADDR:PORT
---@field local? "same-public"|"always"|"never"  when local addresses are told and tried; "same-public" where not given
---@field virtual? boolean            local addresses of VPNs and containers, too
---@field timeout_ms? number          of a request
---@field behaviour? boolean          false: do not look at what the NAT does, for the server and who asks why
---@field adapt? boolean              false: maintenance each 15 s, however long the NAT keeps mappings
---@field register? boolean|"together"  false: not before it hosts or waits; "together": with what it asks first
---@field accept? "auto"|"ask"        matches that are to be accepted: at once, or by accept and decline
---@field on_event? fun(event: bodkin.Event, match: bodkin.Match?)
---@field trace? fun(line: string)    what the sessions' machines do, for bodkin replay; it tells their keys
---@field env? table                  clock, timers and sockets; that of bodkin.run where not given

---@class bodkin.Event
---@field event "registered"|"hosting"|"host"|"queued"|"proposed"|"matched"|"connected"|"path"|"message"|"closed"|"error"
---@field match? string     the match's id
---@field peer? string      the peer's id
---@field id? string        registered: one's own
---@field public? string[]  registered: one's public addresses
---@field local? string[]   registered: one's local ones
---@field peers? string[]   matched: all met so far
---@field ticket? string    queued, proposed
---@field present? integer  queued, again: how many of its party are there …
---@field of? integer       … of how many
---@field accept_ms? integer  proposed: how long there is to answer
---@field players? integer  proposed: how many the match is of
---@field team? integer     matched by a queue: one's own
---@field host? string      matched by a queue: who its policy named; host: who is the room's now
---@field data? any         matched: what the policy says; message: the bytes
---@field channel? integer  message: 0
---@field path? "lan"|"direct"|"relay"
---@field via? "host"|"ipv6"|"mapped"|"srflx"|"prflx"|"predicted"|"relay"
---@field remote? string
---@field first_ms? number
---@field confirmed_ms? number
---@field rtt_ms? number
---@field commit_ms? number   since the server made the match, where its clock is ours
---@field why? bodkin.Path[]  path: what was tried
---@field reason? string    closed; queued, again: why it waits on
---@field note? string      closed: why the peer could not even be tried
---@field code? string      error, and a room's code in hosting
---@field message? string
---@field hint? string

---An address of a peer's that was tried.
---@class bodkin.Path
---@field remote string
---@field via string
---@field state "frozen"|"probing"|"usable"|"valid"|"failed"
---@field reason string
---@field tests integer
---@field rtt_ms? number     smoothed
---@field jitter_ms? number  how much that varies (RFC 3550)
---@field loss? number       the share of questions, sent since it was confirmed, that had no answer: 0 to 1
---@field selected boolean

---@class bodkin.Entry
---@field id string
---@field name string
---@field props table<string, any>
---@field pubs? string[]
---@field locals? string[]

---@class bodkin.Peer
---@field id string
---@field name string
---@field props table<string, any>
---@field team? integer
---@field connected boolean
---@field path? string
---@field via? string
---@field remote? string
---@field reason? string
---@field rtt_ms? number     of the path in use, as are these two; see bodkin.Path
---@field jitter_ms? number
---@field loss? number

---@class bodkin.Message
---@field match string
---@field peer string
---@field channel integer
---@field data string

---"and", "or", "not" and queries; "=", "!=", "<", "<=", ">", ">=", a property and a value; "in", a property and values;
---"range", a property, from, to. Or a table of properties.
---@alias bodkin.Where table

---@class bodkin.Query
---@field where? bodkin.Where
---@field sort? string    a property, "name" or "id"; with a - before it the greatest first
---@field limit? integer

---@class bodkin.Node
---@field id string 32 hexadecimal digits
local Node = {}

---Opens a room; others join with match.code. In a task.
---@param options? { code: string }
---@return bodkin.Match? match, string? message, bodkin.Code? code
function Node:host(options) end

---Into the room of a code, or to the client with an id. In a task.
---@param where string
---@return bodkin.Match? match, string? message, bodkin.Code? code
function Node:join(where) end

---Waits in a queue until its policy makes a match. In a task. Who waits in several is in the first that has a match: the
---other calls end with "closed". Party: a text that only its players know, and how many they are.
---@param queue string
---@param props? table<string, any> the ticket's
---@param options? { timeout_ms?: number, party?: { id: string, size: integer }, accept?: "auto"|"ask" }
---@return bodkin.Match? match, string? message, bodkin.Code? code
function Node:match(queue, props, options) end

---Takes a ticket back. Whether it was waiting.
---@param ticket string
---@return boolean
function Node:cancel(ticket) end

---Accepts the match that the event proposed told of, where it was not accepted at once. Whether there was one.
---@param ticket string
---@return boolean
function Node:accept(ticket) end

---Declines it: the ticket ends. Whether there was one.
---@param ticket string
---@return boolean
function Node:decline(ticket) end

---Who is registered under the same app. In a task.
---@param query? table<string, any>|bodkin.Query  properties that they have, or a query
---@param want_addr? boolean
---@return bodkin.Entry[]? entries, string? message, bodkin.Code? code
function Node:list(query, want_addr) end

---Watches what a query finds: fn is called with all that is there, then at most once a second with what has changed. In a
---task. Returns a function that ends it.
---@param query table<string, any>|bodkin.Query
---@param fn fun(change: { came: bodkin.Entry[], gone: bodkin.Entry[], changed: bodkin.Entry[], entries: bodkin.Entry[] })
---@return fun()? stop, string? message, bodkin.Code? code
function Node:watch(query, fn) end

---The addresses of one of them, where the server exposes them. In a task.
---@param id string
---@return { id: string, pubs: string[], locals: string[] }? addresses, string? message, bodkin.Code? code
function Node:lookup(id) end

---Registers a node that was opened with register = false. In a task.
---@return boolean? ok, string? message, bodkin.Code? code
function Node:register() end

---What was tried in a session, by its number in a trace.
---@param session integer
---@return bodkin.Path[]
function Node:paths(session) end

---@param name string
---@param fn fun(event: bodkin.Event, match: bodkin.Match?)
function Node:on(name, fn) end

---What became of each match with each peer, of the last hour; see docs/WHY.md.
---@param id? string of a match or peer, or how it begins, or a peer's name
---@return table[]
function Node:why(id) end

---@return table
function Node:stats() end

function Node:close() end

---@class bodkin.Match
---@field id string
---@field code? string  of a room that is hosted
---@field team? integer
---@field host? string
---@field data? any
local Match = {}

---One unreliable datagram of at most 1120 bytes to a peer, or to all that are connected.
---@param data string
---@param peer? string
---@return boolean? ok, string? message, bodkin.Code? code
function Match:send(data, peer) end

---In a task: `for m in match:messages() do`.
---@return fun(): bodkin.Message?
function Match:messages() end

---In place of messages() and the event: called at once for each message, and may not wait.
---@param fn fun(peer: string, data: string)
function Match:on_data(fn) end

---@return bodkin.Peer[]
function Match:peers() end

---In a task: until data may flow to one of them.
---@param timeout_ms? number
---@return boolean? ok, string? message, bodkin.Code? code
function Match:wait_connected(timeout_ms) end

---Asks for more players for a match that a queue made, where its policy has on_backfill: open seats by team, and props for
---that. What is asked replaces what was asked before. In a task.
---@param wanted { seats: integer[], props?: table<string, any> }
---@return boolean? ok, string? message, bodkin.Code? code
function Match:backfill(wanted) end

---Nobody else is wanted. In a task.
---@return boolean? ok, string? message, bodkin.Code? code
function Match:stop_backfill() end

function Match:leave() end

---A client of the servers given. In a task.
---@param options bodkin.OpenOptions
---@return bodkin.Node? node, string? message, bodkin.Code? code
function bodkin.open(options) end

---Runs fn as a task on an event loop of its own until it returns. Tasks that it spawned are cancelled then, and nodes that
---are still open are closed.
---@param fn fun(...): any
function bodkin.run(fn, ...) end

---@param fn fun(...): any
function bodkin.spawn(fn, ...) end

---@param ms number
function bodkin.sleep(ms) end

---The clock, timers and sockets of the bodkin.run under way.
---@return table?
function bodkin.env() end

---@class bodkin.Claims
---@field exp integer   seconds since 1970, as is nbf
---@field nbf? integer
---@field sub? string
---@field id? string    the client it is for: 32 hexadecimal digits
---@field app? string   the application it is for
---@field [string] any  the game's own

---@class bodkin.TokenModule
bodkin.token = {}

---A token that says `claims`, signed with a token key's secret (32 bytes); at most 512 bytes before base64url.
---@param seed string
---@param claims bodkin.Claims
---@return string? text, string? message, bodkin.Code? code
function bodkin.token.issue(seed, claims) end

---The bytes of a token's text; nil when it is none.
---@param text string
---@return string?
function bodkin.token.bytes(text) end

---What a token says, where one of the public keys (32 bytes each) signed it and it holds now, for this client and app.
---@param bytes string
---@param publics string[]
---@param now_s integer
---@param id? string   16 bytes
---@param app? string
---@return bodkin.Claims? claims, string? message, bodkin.Code? code
function bodkin.token.open(bytes, publics, now_s, id, app) end

---@class bodkin.RoleDefinition
---@field name string
---@field messages? table[]
---@field wants? table<string, string[]>
---@field on table<string, function>|fun(server: table): table<string, function>

---A server role.
---@param definition bodkin.RoleDefinition
---@return table
function bodkin.role(definition) end

---Of a server. A list may be a text with commas.
---@class bodkin.ConfigData
---@field listen? string[]|string         ADDR:PORT in numbers, or ADDR
---@field roles? string[]|string          address, matching, maintenance, relay; all where not given
---@field role_files? string[]|string     files that return a role
---@field maintenance_mode? "confirm"|"silent"
---@field queues? table<string, { policy: string }>  a policy's file by queue, "*" for all others
---@field key_file? string
---@field token_keys? string[]|string     one or two, as bodkin keygen --token-key prints them
---@field require_token? boolean
---@field expose_addresses? boolean
---@field local_addresses? "same-public"|"always"|"never"
---@field relays? string[]|string         ADDR:PORT on other machines with the same key file, two at most
---@field limits? table<string, integer>
---@field stun? boolean                   false: no STUN client is answered
---@field shared_clock? boolean           clients run on this machine
---@field admin? string                   the path of a Unix socket

---A server's configuration.
---@param data bodkin.ConfigData
---@return table
function bodkin.config(data) end

return bodkin

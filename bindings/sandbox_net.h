// SPDX-License-Identifier: MIT
// What a sandbox knows of the network between the tickets in it, for the helpers of policies and for a pass: where each
// member is (core/coords.h), what its NAT does, and how likely NATs of two classes let each other through. Told by the
// owner, by a ticket's number; what a policy does cannot change it.
#ifndef BDK_SANDBOX_NET_H
#define BDK_SANDBOX_NET_H

#include "sandbox.h"

enum {
  BDK_NET_CLASSES = 17, // of NATs; 0 is not known, the others are scripts/bodkin/policy/network.lua's
  BDK_NET_TABLE = BDK_NET_CLASSES * (BDK_NET_CLASSES + 1) / 2,
  BDK_NET_MEMBERS_MAX = 32, // of one ticket
};

// Member `member` (from 1) of ticket `no`: where it is, in ms, and the class of its NAT. height < 0: its place is not
// known. False, and nothing changed, where there is no memory or a value is out of bounds. Told again, it is replaced.
bool bdk_net_set(bdk_sandbox *s, lua_Integer no, int member, double x, double y, double z, double height, int nat);
// The same of msgpack [x, y, z, height, nat], the first four nil where its place is not known, nat nil for 0.
bool bdk_net_set_packed(bdk_sandbox *s, lua_Integer no, int member, const uint8_t *bytes, size_t len);
void bdk_net_drop(bdk_sandbox *s, lua_Integer no);
// A triangle: for each class a from 0, for each b from 0 to a, the chance in 1/255.
void bdk_net_table(bdk_sandbox *s, const uint8_t bytes[BDK_NET_TABLE]);

// Of two tickets, the worst between a member of one and one of the other: the estimated round-trip time in ms, -1 where
// that is not known of two; the chance that they reach each other directly, 0 to 1.
double bdk_net_rtt(const bdk_sandbox *s, lua_Integer a, lua_Integer b);
double bdk_net_reach(const bdk_sandbox *s, lua_Integer a, lua_Integer b);
// Where its first member is along a curve (bdk_coord_curve); -1 where that is not known.
double bdk_net_curve(const bdk_sandbox *s, lua_Integer no);

void bdk_net_free(bdk_sandbox *s); // before the state is closed
// Makes the module "bodkin.net" of a sandbox: rtt_ms, reach, best_host, place. [-0, +0, e]
void bdk_sandbox_open_net(lua_State *L);
// Methods of a sandbox, for its owner; see there. [-0, +1, e]
int bdk_lua_net_set(lua_State *L);
int bdk_lua_net_drop(lua_State *L);
int bdk_lua_net_table(lua_State *L);

#endif

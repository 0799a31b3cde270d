// SPDX-License-Identifier: MIT
// A mux's trace: each verb and each output as a line of text, the same for a simulated session, a lab run and a
// user's report, from which `bodkin replay` walks the machines again. Format: docs/PROTOCOL.md, "Traces".
// It holds the keys of the sessions in it.
#ifndef BDK_MUX_TRACE_H
#define BDK_MUX_TRACE_H

#include "udp_box.h"

// [-0, +0, e] mux:trace(fn(line) | nil): from now on; the first line says which seed the mux has.
int bdk_mux_trace(lua_State *L);
// Each does nothing unless a function was given.
void bdk_trace_add(bdk_mux_box *m, uint64_t now_us, const bdk_match *match);
void bdk_trace_renew(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_renewal *renewal);
void bdk_trace_send(bdk_mux_box *m, uint64_t now_us, uint32_t session, const uint8_t *bytes, size_t len);
void bdk_trace_hello(bdk_mux_box *m, uint32_t session);
void bdk_trace_relay(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_route *route, const uint8_t *hello,
                     size_t len);
void bdk_trace_listed(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_candidate *list, uint32_t count);
void bdk_trace_moved(bdk_mux_box *m, uint64_t now_us, const bdk_addr *left, uint32_t count);
void bdk_trace_leave(bdk_mux_box *m, uint64_t now_us, uint32_t session);
void bdk_trace_input(bdk_mux_box *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len);
void bdk_trace_tick(bdk_mux_box *m, uint64_t now_us);
void bdk_trace_unreachable(bdk_mux_box *m, uint64_t now_us, const bdk_addr *remote);
void bdk_trace_output(bdk_mux_box *m, const bdk_output *out);

#endif

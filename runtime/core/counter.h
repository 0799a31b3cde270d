// SPDX-License-Identifier: MIT
// Every counter, each with its sentence. Status, metrics, `why` and the documents are made from this table and that of
// reason.h; a cause that is not here cannot be counted.
#ifndef BDK_COUNTER_H
#define BDK_COUNTER_H
#include "base.h"
#include "reason.h"

// X(name, sentence)
#define BDK_COUNTERS(X)                                                                                                \
  X(udp_rx, "datagrams received")                                                                                      \
  X(udp_rx_bytes, "bytes received")                                                                                    \
  X(udp_tx, "datagrams sent")                                                                                          \
  X(udp_tx_bytes, "bytes sent")                                                                                        \
  X(udp_tx_again, "sends put off because the socket was full (EAGAIN)")                                                \
  X(udp_tx_nobufs, "sends put off because the kernel had no buffer (ENOBUFS)")                                         \
  X(udp_tx_dropped, "datagrams dropped because the send queue was full, or its socket closed")                         \
  X(udp_tx_unreachable, "sends the kernel refused: no route, or forbidden")                                            \
  X(udp_icmp, "ICMP errors read from a socket and ignored")                                                            \
  X(udp_rx_failed, "reads the kernel failed, for want of memory; tried again after a pause")                           \
  X(udp_rx_truncated, "datagrams dropped because they were longer than their socket takes: mostly 1200 bytes")         \
  X(tcp_rx, "datagrams received over TCP")                                                                             \
  X(tcp_rx_bytes, "bytes of them")                                                                                     \
  X(tcp_tx, "datagrams sent over TCP")                                                                                 \
  X(tcp_tx_bytes, "bytes of them")                                                                                     \
  X(tcp_tx_dropped, "datagrams over TCP dropped: no connection there, 64 KiB wait in it, or 16 MiB in all")            \
  X(tcp_opened, "TCP connections opened, by either side")                                                              \
  X(tcp_refused, "TCP connections closed at once: too many, in all or from their source")                              \
  X(tcp_failed, "TCP connections that failed: refused, reset, or no answer")                                           \
  X(tcp_broken, "TCP connections closed: what came was no datagram, or no whole one in time")                          \
  X(tcp_accept_failed,                                                                                                 \
    "times that connections could not be accepted, for want of descriptors or memory; a pause follows")                \
  X(drop_short, "datagrams dropped: empty, or too short to hold a message")                                            \
  X(drop_stun, "STUN datagrams dropped: malformed, or nothing that is answered here")                                  \
  X(drop_msgpack, "datagrams dropped: not one well-formed msgpack array within the bounds")                            \
  X(drop_unknown, "messages dropped: a type that nothing here handles")                                                \
  X(drop_version, "messages of a protocol version not spoken here")                                                    \
  X(drop_field, "messages dropped: a field missing, too many, of another kind or out of bounds")                       \
  X(drop_probe, "tests and confirms dropped: of no match known here, or not authentic")                                \
  X(drop_confirm, "confirms dropped: nonce never sent, or not from the address that was tested")                       \
  X(drop_frame, "frames dropped: of no session known here, or not authentic")                                          \
  X(drop_unsealed, "messages dropped: they must come in an association, and did not")                                  \
  X(drop_replay, "frames dropped: received before, or too old to tell")                                                \
  X(drop_state, "frames dropped: of a kind not expected in this state")                                                \
  X(drop_reply, "replies dropped: to no request that is waiting here")                                                 \
  X(refuse_reply, "replies not sent: longer than the request of an unproven sender, or a second one")                  \
  X(refuse_unconfirmed, "data not sent: too much to an address that has not confirmed")                                \
  X(refuse_tokens, "tests put off by the token bucket of a match")                                                     \
  X(refuse_full, "outputs lost because memory for them could not be had")                                              \
  X(test_sent, "tests sent")                                                                                           \
  X(test_received, "authentic tests received")                                                                         \
  X(confirm_sent, "confirms sent")                                                                                     \
  X(confirm_received, "authentic confirms received")                                                                   \
  X(frame_sent, "frames sent")                                                                                         \
  X(frame_received, "authentic frames received")                                                                       \
  X(session_opened, "sessions in which application data could flow")                                                   \
  X(session_closed, "sessions closed, for any reason")                                                                 \
  X(rekeyed, "times that the keys of a session were replaced")                                                         \
  X(path_rebound, "paths taken over from a peer's silent rebind")                                                      \
  X(address_reported, "address reports sent")                                                                          \
  X(stun_answered, "STUN Binding requests answered")                                                                   \
  X(stun_limited, "STUN Binding requests dropped: too many from their network")                                        \
  X(probed, "answers sent from another address of the server's, for a client that looks at its NAT")                   \
  X(probe_limited, "answers after a silence not promised: too many wait for one")                                      \
  X(address_cookie_bad, "requests with a cookie that is not valid for their sender")                                   \
  X(associated, "associations opened with clients")                                                                    \
  X(association_refused, "handshakes refused: to no key of this server, forged, seen before, or too many")             \
  X(association_lost, "frames of associations not known here, answered with lost")                                     \
  X(client_moved, "clients followed to another address, which they had confirmed")                                     \
  X(registered, "registrations accepted")                                                                              \
  X(registration_refused, "registrations refused")                                                                     \
  X(registration_expired, "registrations that ran out")                                                                \
  X(unregistered, "registrations given back")                                                                          \
  X(listed, "registry pages sent")                                                                                     \
  X(looked_up, "addresses answered by separate request")                                                               \
  X(room_opened, "rooms opened")                                                                                       \
  X(room_passed_on, "rooms whose host left and another member became it")                                              \
  X(room_guess_wrong, "room codes asked for that no room has")                                                         \
  X(room_guess_limited, "room codes not looked at: too many guesses from there")                                       \
  X(selected, "matching selections accepted")                                                                          \
  X(matched_sent, "matched messages sent, repeats included")                                                           \
  X(matched_acked, "matched messages acknowledged")                                                                    \
  X(matched_lost, "matched messages given up without an acknowledgement")                                              \
  X(outcome_received, "reports of how a match went, believed")                                                         \
  X(outcome_refused, "reports of how a match went that were none, or of no match here with that client in it")         \
  X(ticket_queued, "tickets admitted to a queue")                                                                      \
  X(ticket_refused, "tickets refused by a policy or a limit")                                                          \
  X(ticket_cancelled, "tickets taken back by their clients")                                                           \
  X(ticket_dropped, "tickets dropped because their client's registration ended")                                       \
  X(match_formed, "matches made by policies")                                                                          \
  X(match_proposed, "matches that their players were asked to accept")                                                 \
  X(match_declined, "of those, given up because somebody declined, left or said nothing")                              \
  X(match_joined, "players who joined a running match from a queue")                                                   \
  X(ticket_expired, "tickets that waited longer than their policy lets them")                                          \
  X(webhook_posted, "matches that the backend was told of, and said so")                                               \
  X(webhook_again, "attempts to tell the backend of a match that failed, and are made again")                          \
  X(webhook_failed, "matches that the backend did not confirm: too many attempts, too many waiting, the server stops") \
  X(policy_failed, "runs or loads of a policy that failed")                                                            \
  X(policy_restarted, "ends of the policy process, each followed by a new one")                                        \
  X(whereabouts_told, "clients told where their peer is now")                                                          \
  X(relay_opened, "ends of pairs of peers that opened a relay here")                                                   \
  X(relay_refused, "requests to relay refused: no valid ticket, expired, or too many")                                 \
  X(relay_datagrams, "datagrams forwarded between the ends of a pair")                                                 \
  X(relay_bytes, "bytes of them")                                                                                      \
  X(relay_alone, "datagrams to relay dropped: the other end is not there")                                             \
  X(relay_limited, "datagrams to relay dropped: more than an end or a pair may have")                                  \
  X(relay_lost, "datagrams to relay of channels not open here, or from elsewhere, answered with that")                 \
  X(maintained, "maintenance messages received")                                                                       \
  X(maintained_confirmed, "maintenance confirmations sent")                                                            \
  X(request_sent, "requests sent, repeats included")                                                                   \
  X(request_timeout, "requests given up without an answer")                                                            \
  X(handler_error, "errors thrown by a script's handler")                                                              \
  X(admin_request, "requests on the admin socket")

typedef enum bdk_counter {
#define X(name, text) BDK_COUNT_##name,
  BDK_COUNTERS(X)
#undef X
      BDK_COUNTER_COUNT
} bdk_counter;
// One set belongs to one node or server; the owner zeroes it.
typedef struct bdk_counters {
  uint64_t value[BDK_COUNTER_COUNT];
} bdk_counters;
static inline void bdk_count(bdk_counters *c, bdk_counter which, uint64_t by) {
  if (c) c->value[which] += by;
}
// Name and sentence of counter `which`; NULL past the end.
const char *bdk_counter_name(int which);
const char *bdk_counter_text(int which);

#endif

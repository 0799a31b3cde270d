// SPDX-License-Identifier: MIT
// One side of a connection by libnice, for bench/connect.lua: full ICE over UDP, candidates told as they are found
// (trickle), as signals.h has it.
// usage: nice a|b LOCAL-IP STUN-IP DIRECTORY DELAY-MS GO-US RUN-MS
//   GO-US: when to begin, on the monotonic clock. What happens is printed as "NAME MS ..." lines, MS since then.
#include <agent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signals.h"

typedef struct side {
  NiceAgent *agent;
  GMainLoop *loop;
  guint stream;
  signals signals;
} side;

static double since(const side *s) { return signals_since(&s->signals); }

static void tell(side *s, const char *verb, const char *text) { signals_tell(&s->signals, verb, text); }

static void on_candidate(NiceAgent *agent, NiceCandidate *candidate, gpointer data) {
  gchar *sdp = nice_agent_generate_local_candidate_sdp(agent, candidate);
  tell(data, "candidate", sdp);
  g_free(sdp);
}

static void on_gathered(NiceAgent *agent, guint stream, gpointer data) {
  (void)agent, (void)stream;
  tell(data, "end", "-");
  printf("gathered %.1f\n", since(data));
}

static void on_state(NiceAgent *agent, guint stream, guint component, guint state, gpointer data) {
  (void)agent, (void)stream, (void)component;
  printf("%s %.1f\n", nice_component_state_to_string((NiceComponentState)state), since(data));
}

static void on_selected(NiceAgent *agent, guint stream, guint component, NiceCandidate *local, NiceCandidate *remote,
                        gpointer data) {
  (void)agent, (void)stream, (void)component, (void)local;
  char ip[NICE_ADDRESS_STRING_LEN];
  nice_address_to_string(&remote->addr, ip);
  printf("selected %.1f %s:%u\n", since(data), ip, nice_address_get_port(&remote->addr));
}

static void on_data(NiceAgent *agent, guint stream, guint component, guint len, gchar *bytes, gpointer data) {
  (void)agent, (void)stream, (void)component, (void)len, (void)bytes, (void)data;
}

static void heard(void *ctx, const char *verb, char *text) {
  side *s = ctx;
  if (strcmp(verb, "credentials") == 0) {
    char *password = strchr(text, ' ');
    *password++ = 0;
    nice_agent_set_remote_credentials(s->agent, s->stream, text, password);
  } else if (strcmp(verb, "candidate") == 0) {
    NiceCandidate *candidate = nice_agent_parse_remote_candidate_sdp(s->agent, s->stream, text);
    GSList *list = g_slist_append(NULL, candidate);
    if (candidate) nice_agent_set_remote_candidates(s->agent, s->stream, 1, list);
    g_slist_free_full(list, (GDestroyNotify)nice_candidate_free);
    printf("candidate %.1f\n", since(s));
  } else {
    nice_agent_peer_candidate_gathering_done(s->agent, s->stream);
  }
}

// Each millisecond.
static gboolean hear_due(gpointer data) {
  side *s = data;
  signals_hear(&s->signals, heard, s);
  return G_SOURCE_CONTINUE;
}

static gboolean stop(gpointer data) {
  g_main_loop_quit(((side *)data)->loop);
  return G_SOURCE_REMOVE;
}

static void begin(side *s, char **argv) {
  gboolean controls = strcmp(argv[1], "a") == 0;
  gchar *user, *password;
  NiceAddress local;
  s->agent = nice_agent_new(g_main_loop_get_context(s->loop), NICE_COMPATIBILITY_RFC5245);
  g_object_set(s->agent, "stun-server", argv[3], "stun-server-port", 3478, "controlling-mode", controls, "ice-tcp",
               FALSE, "upnp", FALSE, "ice-trickle", TRUE, NULL);
  nice_address_init(&local);
  nice_address_set_from_string(&local, argv[2]);
  nice_agent_add_local_address(s->agent, &local);
  g_signal_connect(s->agent, "new-candidate-full", G_CALLBACK(on_candidate), s);
  g_signal_connect(s->agent, "candidate-gathering-done", G_CALLBACK(on_gathered), s);
  g_signal_connect(s->agent, "component-state-changed", G_CALLBACK(on_state), s);
  g_signal_connect(s->agent, "new-selected-pair-full", G_CALLBACK(on_selected), s);
  s->stream = nice_agent_add_stream(s->agent, 1);
  nice_agent_attach_recv(s->agent, s->stream, 1, g_main_loop_get_context(s->loop), on_data, s);
  nice_agent_get_local_credentials(s->agent, s->stream, &user, &password);
  gchar *both = g_strconcat(user, " ", password, NULL);
  tell(s, "credentials", both);
  if (!nice_agent_gather_candidates(s->agent, s->stream)) exit(1);
  g_free(both), g_free(user), g_free(password);
}

int main(int argc, char **argv) {
  side s = {0};
  signals_open(&s.signals, argc, argv);
  s.loop = g_main_loop_new(NULL, FALSE);
  begin(&s, argv);
  g_timeout_add_full(G_PRIORITY_HIGH, 1, hear_due, &s, NULL);
  g_timeout_add((guint)atoi(argv[7]), stop, &s);
  g_main_loop_run(s.loop);
  g_object_unref(s.agent);
  g_main_loop_unref(s.loop);
  return 0;
}

// SPDX-License-Identifier: MIT
// The same as nice.c by libjuice, where the user has it (JUICE=DIR of the Makefile). Both know each other's credentials
// from the beginning, and which of them controls, which spares libjuice an offer, an answer and a conflict of roles.
#include <juice/juice.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "signals.h"

// On libjuice's own thread, as all that it calls.
static void on_candidate(juice_agent_t *agent, const char *sdp, void *ctx) {
  (void)agent;
  signals_tell(ctx, "candidate", sdp);
}

static void on_gathered(juice_agent_t *agent, void *ctx) {
  (void)agent;
  signals_tell(ctx, "end", "-");
  printf("gathered %.1f\n", signals_since(ctx));
}

static void on_state(juice_agent_t *agent, juice_state_t state, void *ctx) {
  char local[JUICE_MAX_ADDRESS_STRING_LEN] = "", remote[JUICE_MAX_ADDRESS_STRING_LEN] = "";
  if (state >= JUICE_STATE_CONNECTED) juice_get_selected_addresses(agent, local, sizeof local, remote, sizeof remote);
  printf("%s %.1f %s\n", juice_state_to_string(state), signals_since(ctx), remote);
}

typedef struct side {
  juice_agent_t *agent;
  signals signals;
} side;

static void heard(void *ctx, const char *verb, char *text) {
  side *s = ctx;
  if (strcmp(verb, "candidate") == 0) {
    juice_add_remote_candidate(s->agent, text);
    printf("candidate %.1f\n", signals_since(&s->signals));
  } else {
    juice_set_remote_gathering_done(s->agent);
  }
}

static void know(juice_agent_t *agent, const char *other) {
  char text[128];
  snprintf(text, sizeof text, "a=ice-ufrag:%s%s%s%s\r\na=ice-pwd:%s0123456789012345678901\r\n", other, other, other,
           other, other);
  juice_set_remote_description(agent, text);
}

int main(int argc, char **argv) {
  side s = {0};
  signals_open(&s.signals, argc, argv);
  const char *own = argv[1], *other = strcmp(own, "a") == 0 ? "b" : "a";
  char user[16], password[64];
  juice_set_log_level(JUICE_LOG_LEVEL_NONE);
  juice_config_t config = {.concurrency_mode = JUICE_CONCURRENCY_MODE_POLL,
                           .stun_server_host = argv[3],
                           .stun_server_port = 3478,
                           .bind_address = argv[2],
                           .cb_state_changed = on_state,
                           .cb_candidate = on_candidate,
                           .cb_gathering_done = on_gathered,
                           .user_ptr = &s.signals};
  s.agent = juice_create(&config);
  if (!s.agent) return fputs("juice: no agent\n", stderr), 1;
  snprintf(user, sizeof user, "%s%s%s%s", own, own, own, own);
  snprintf(password, sizeof password, "%s0123456789012345678901", own);
  juice_set_local_ice_attributes(s.agent, user, password);
  if (*own == 'b') know(s.agent, other); // who knows the other before it gathers is controlled
  juice_gather_candidates(s.agent);
  if (*own == 'a') know(s.agent, other);
  int64_t end_us = now_us() + atoll(argv[7]) * 1000;
  while (now_us() < end_us) {
    signals_hear(&s.signals, heard, &s);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  juice_destroy(s.agent);
  return 0;
}

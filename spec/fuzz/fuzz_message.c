// SPDX-License-Identifier: MIT
// Every message there is, those of the peers and those that scripts declare: read, written back, compared; and given
// to a router whose handlers take all of them. The first byte says which message the rest is the body of, or that
// the rest is a whole datagram.
#include "lua.h"

#include "bind.h"

#define SCHEMAS_MAX 64

static lua_State *state;
static const bdk_schema *schemas[SCHEMAS_MAX];
static int count;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  state = fuzz_lua_open("spec/fuzz/message.lua");
  count = lua_gettop(state) - 1;
  REQUIRE(count > 20 && count <= SCHEMAS_MAX);
  for (int i = 0; i < count; i++) schemas[i] = bdk_check_schema(state, 2 + i);
  return 0;
}

// The datagram an input stands for: in memory of exactly its size.
static uint8_t *datagram(const uint8_t *bytes, size_t len, size_t *size) {
  uint8_t head[8];
  bdk_packer p = bdk_packer_init(head, sizeof head);
  if (bytes[0] < 0x80) {
    const bdk_schema *s = schemas[bytes[0] % count];
    bdk_pack_array(&p, 2u + s->count);
    bdk_pack_uint(&p, s->type);
    bdk_pack_uint(&p, bytes[0] < 0x78 ? BDK_PROTOCOL_VERSION : 2);
  }
  *size = p.len + len - 1;
  uint8_t *out = malloc(*size ? *size : 1);
  memcpy(out, head, p.len);
  memcpy(out + p.len, bytes + 1, len - 1);
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  bdk_field fields[BDK_FIELDS_MAX];
  bdk_message_head head;
  const char *bad;
  size_t size;
  if (!len) return 0;
  uint8_t *d = datagram(bytes, len, &size);
  int refused = bdk_message_head_read(&head, d, size);
  for (int i = 0; i < count; i++) {
    int e = bdk_message_read(schemas[i], d, size, fields, &bad);
    REQUIRE((e == 0) == (bad == NULL));
    if (refused == 0 && e == 0) {
      REQUIRE(head.type == schemas[i]->type && head.count == schemas[i]->count);
      fuzz_round_trip(schemas[i], fields);
    }
  }
  fuzz_lua_input(state, 1, d, size);
  free(d);
  return 0;
}

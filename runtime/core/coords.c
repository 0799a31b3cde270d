// SPDX-License-Identifier: MIT
#include "coords.h"

#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF // as GCC has it under -std=c11: no machine may fuse a multiplication with an addition
#endif

// The paper's section 4.3 and Serf's defaults: how much one measurement moves a point, and its error.
#define GAIN 0.25
#define ERROR_GAIN 0.25
#define ERROR_MIN 0.01   // nobody is so sure that the unsure could not move at all
#define HEIGHT_MIN 0.01  // ms
#define SAME_PLACE 0.001 // ms

static double clamp(double v, double least, double most) {
  if (!(v > least)) return least; // NaN, too
  return v < most ? v : most;
}

double bdk_coord_root(double square) {
  if (!(square > 0)) return 0;
  uint64_t bits;
  memcpy(&bits, &square, sizeof bits);
  bits = (bits >> 1) + (UINT64_C(0x1ff8) << 48); // half the exponent: within 7 %
  double root;
  memcpy(&root, &bits, sizeof root);
  for (int i = 0; i < 4; i++) root = 0.5 * (root + square / root); // Newton: twice the digits each time
  return root;
}

void bdk_coord_init(bdk_coord *c) { *c = (bdk_coord){.height = HEIGHT_MIN, .error = BDK_COORD_ERROR_MAX}; }

static double apart(const bdk_coord *a, const bdk_coord *b) {
  double sum = 0;
  for (int i = 0; i < BDK_COORD_DIMS; i++) sum += (a->at[i] - b->at[i]) * (a->at[i] - b->at[i]);
  return bdk_coord_root(sum);
}

double bdk_coord_distance_ms(const bdk_coord *a, const bdk_coord *b) { return apart(a, b) + (a->height + b->height); }

// A direction made of a number (splitmix64, Vigna 2015).
static void direction(uint64_t salt, double out[BDK_COORD_DIMS]) {
  double sum = 0;
  for (int i = 0; i < BDK_COORD_DIMS; i++) {
    salt += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = salt;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    out[i] = (double)((z ^ (z >> 31)) >> 12) / (double)(UINT64_C(1) << 51) - 1;
    sum += out[i] * out[i];
  }
  double length = bdk_coord_root(sum);
  for (int i = 0; i < BDK_COORD_DIMS; i++) out[i] = length > SAME_PLACE ? out[i] / length : i == 0;
}

// Away from the peer, or toward it where the force is negative.
static void push(bdk_coord *c, const bdk_coord *peer, double force, uint64_t salt) {
  double far = apart(c, peer), unit[BDK_COORD_DIMS];
  if (far > SAME_PLACE) {
    for (int i = 0; i < BDK_COORD_DIMS; i++) unit[i] = (c->at[i] - peer->at[i]) / far;
    c->height = clamp(c->height + (c->height + peer->height) * force / far, HEIGHT_MIN, BDK_COORD_FAR_MS);
  } else {
    direction(salt, unit);
    if (force < 0) force = -force; // nearer than at the same place they cannot come
  }
  for (int i = 0; i < BDK_COORD_DIMS; i++)
    c->at[i] = clamp(c->at[i] + unit[i] * force, -BDK_COORD_FAR_MS, BDK_COORD_FAR_MS);
}

void bdk_coord_update(bdk_coord *c, const bdk_coord *peer, double rtt_ms, uint64_t salt) {
  if (!(rtt_ms >= 0 && rtt_ms <= BDK_COORD_FAR_MS)) return;
  if (rtt_ms < HEIGHT_MIN) rtt_ms = HEIGHT_MIN;
  double estimate = bdk_coord_distance_ms(c, peer), off = estimate > rtt_ms ? estimate - rtt_ms : rtt_ms - estimate;
  double weight = c->error / (c->error + clamp(peer->error, ERROR_MIN, BDK_COORD_ERROR_MAX));
  c->error = clamp(c->error + ERROR_GAIN * weight * (off / rtt_ms - c->error), ERROR_MIN, BDK_COORD_ERROR_MAX);
  push(c, peer, GAIN * weight * (rtt_ms - estimate), salt);
}

void bdk_coord_refine(bdk_coord *c, const bdk_measured *list, size_t count, int passes, uint64_t salt) {
  for (int pass = 0; pass < passes; pass++)
    for (size_t i = 0; i < count; i++) bdk_coord_update(c, &list[i].peer, list[i].rtt_ms, salt + i);
}

// --- bytes
static void put(uint8_t *out, uint32_t v) {
  for (int i = 0; i < 4; i++) out[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get(const uint8_t *in) {
  return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

static int32_t rounded(double v) { return (int32_t)(v < 0 ? v - 0.5 : v + 0.5); }

void bdk_coord_write(const bdk_coord *c, uint8_t out[BDK_COORD_LEN]) {
  for (int i = 0; i < BDK_COORD_DIMS; i++)
    put(out + 4 * i, (uint32_t)rounded(clamp(c->at[i], -BDK_COORD_FAR_MS, BDK_COORD_FAR_MS) * 1000));
  put(out + 12, (uint32_t)rounded(clamp(c->height, 0, BDK_COORD_FAR_MS) * 1000));
  int32_t error = rounded(clamp(c->error, 0, BDK_COORD_ERROR_MAX) * 10000);
  out[16] = (uint8_t)(error >> 8);
  out[17] = (uint8_t)error;
}

bool bdk_coord_read(bdk_coord *c, const uint8_t in[BDK_COORD_LEN]) {
  for (int i = 0; i < BDK_COORD_DIMS; i++) {
    c->at[i] = (double)(int32_t)get(in + 4 * i) / 1000;
    if (c->at[i] < -BDK_COORD_FAR_MS || c->at[i] > BDK_COORD_FAR_MS) return false;
  }
  c->height = (double)get(in + 12) / 1000;
  c->error = (double)(in[16] << 8 | in[17]) / 10000;
  return c->height <= BDK_COORD_FAR_MS && c->error <= BDK_COORD_ERROR_MAX;
}

// --- the curve (Skilling: "Programming the Hilbert curve", AIP Conf. Proc. 707, 2004)
enum { BITS = 17 }; // an axis: three of them fit a double

static void to_transposed(uint32_t x[BDK_COORD_DIMS]) {
  const uint32_t top = UINT32_C(1) << (BITS - 1);
  for (uint32_t q = top; q > 1; q >>= 1) {
    uint32_t p = q - 1;
    for (int i = 0; i < BDK_COORD_DIMS; i++) {
      if (x[i] & q) {
        x[0] ^= p;
      } else {
        uint32_t t = (x[0] ^ x[i]) & p;
        x[0] ^= t;
        x[i] ^= t;
      }
    }
  }
  for (int i = 1; i < BDK_COORD_DIMS; i++) x[i] ^= x[i - 1];
  uint32_t t = 0;
  for (uint32_t q = top; q > 1; q >>= 1)
    if (x[BDK_COORD_DIMS - 1] & q) t ^= q - 1;
  for (int i = 0; i < BDK_COORD_DIMS; i++) x[i] ^= t;
}

double bdk_coord_curve(const bdk_coord *c) {
  const double reach_ms = 1024; // to each side; the few beyond stand at the edge
  uint32_t x[BDK_COORD_DIMS];
  for (int i = 0; i < BDK_COORD_DIMS; i++)
    x[i] = (uint32_t)((clamp(c->at[i], -reach_ms, reach_ms - 0.02) + reach_ms) * ((1 << BITS) / (2 * reach_ms)));
  to_transposed(x);
  uint64_t place = 0;
  for (int bit = BITS - 1; bit >= 0; bit--)
    for (int i = 0; i < BDK_COORD_DIMS; i++) place = place << 1 | (x[i] >> bit & 1);
  return (double)place;
}

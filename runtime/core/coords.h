// SPDX-License-Identifier: MIT
// Network coordinates: points whose distance estimates the round-trip time between two hosts that never measured it.
// Vivaldi (Dabek, Cox, Kaashoek, Morris: "Vivaldi: A Decentralized Network Coordinate System", SIGCOMM 2004): each
// measurement is a spring between two points, which moves the one that is less sure of its place the more. A point has
// three dimensions and a height: what the access link adds to each way, wherever that leads.
//
// Values, without allocations, clock or randomness; of floating point only + - * / and a root by these, so that the
// same measurements give the same bytes on every machine.
#ifndef BDK_COORDS_H
#define BDK_COORDS_H

#include "base.h"

#define BDK_COORD_DIMS 3
#define BDK_COORD_LEN 18        // bytes written
#define BDK_COORD_FAR_MS 4000.0 // no part is larger, and no round-trip time that counts
#define BDK_COORD_ERROR_MAX 1.5 // of one that was never measured (as HashiCorp's Serf has it)

typedef struct bdk_coord {
  double at[BDK_COORD_DIMS], height; // ms
  double error;                      // how much its estimates are off, relative: 0 to BDK_COORD_ERROR_MAX
} bdk_coord;

// At the origin, unsure.
void bdk_coord_init(bdk_coord *c);
// `rtt_ms` was measured to `peer`, which stays where it is. Measurements that are none are ignored. salt: any number,
// another one for each host: which way two at the same place part.
void bdk_coord_update(bdk_coord *c, const bdk_coord *peer, double rtt_ms, uint64_t salt);

typedef struct bdk_measured {
  bdk_coord peer;
  double rtt_ms;
} bdk_measured;

// The same of several measurements, so many times over: whoever keeps the last few of a host has it in its place after
// a dozen, where each of them once takes a hundred.
void bdk_coord_refine(bdk_coord *c, const bdk_measured *list, size_t count, int passes, uint64_t salt);
// The estimate; symmetric, 0 or more.
double bdk_coord_distance_ms(const bdk_coord *a, const bdk_coord *b);

// In microseconds, the error in 1/10000, big-endian.
void bdk_coord_write(const bdk_coord *c, uint8_t out[BDK_COORD_LEN]);
// False where a part is out of bounds.
bool bdk_coord_read(bdk_coord *c, const uint8_t in[BDK_COORD_LEN]);

// The place along a Hilbert curve through the space without height, a whole number below 2^51: who is near on it is
// near in space; the other way round mostly.
double bdk_coord_curve(const bdk_coord *c);

// The root of what is not negative, to the last bit or the one before it.
double bdk_coord_root(double square);

#endif

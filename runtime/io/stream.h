// SPDX-License-Identifier: MIT
// Byte streams without blocking: Unix sockets (listening and connected) and stdin.
#ifndef BDK_STREAM_H
#define BDK_STREAM_H

#include "driver.h"

#define BDK_STREAM_QUEUE_MAX (1u << 20) // bytes waiting to be written before a stream is closed as too slow

typedef struct bdk_stream bdk_stream;     // opaque
typedef struct bdk_listener bdk_listener; // opaque

// `len` 0: the end; `error` is 0 or -errno. Nothing comes after the end. Closing inside is allowed.
typedef void (*bdk_stream_read)(void *ctx, bdk_stream *s, const uint8_t *data, size_t len, int error);
// The accepted stream is the callee's; it sets the reader with bdk_stream_reader.
typedef void (*bdk_stream_accept)(void *ctx, bdk_stream *s);

// Wraps a descriptor; `owned`: closed with the stream. O_NONBLOCK is not set on one that is not owned (stdin
// shares it with other programs). Files and /dev/null, which cannot be watched, are read a piece each turn.
// Pipes need SIGPIPE ignored by the program. 0 or -errno; the descriptor is then still the caller's.
int bdk_stream_wrap(bdk_stream **out, bdk_driver *d, int fd, bool owned);
// Begins reading; NULL pauses it.
void bdk_stream_reader(bdk_stream *s, bdk_stream_read read, void *ctx);
// Queues a copy, which leaves before the loop next sleeps. 0, BDK_E_CLOSED, or BDK_E_LIMIT: the other side is
// too slow, what waited is dropped, and a socket is shut down, so that both ends read the end.
int bdk_stream_write(bdk_stream *s, const void *data, size_t len);
// Closes once what is queued was written (at most 1 s), without further callbacks. NULL-tolerant.
void bdk_stream_close(bdk_stream *s);

// Unix sockets. Listening replaces a socket file of this user's that nobody answers on (mode 0600), and fails with
// -EADDRINUSE where somebody does, or anything else is there. Closing removes the file.
int bdk_listener_open(bdk_listener **out, bdk_driver *d, const char *path, bdk_stream_accept accept, void *ctx);
void bdk_listener_close(bdk_listener *l);
int bdk_stream_connect(bdk_stream **out, bdk_driver *d, const char *path); // 0 or -errno, at once

#endif

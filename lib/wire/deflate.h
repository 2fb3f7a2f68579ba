/* permessage-deflate (RFC 7692): what was agreed in the handshake, and the text inside compressed messages,
 * in pieces of any size. Only the reading half: nothing here compresses.
 *
 * A bomb costs no memory: text is handed out in pieces of at most WS_INFLATE_PIECE bytes and is not kept, and
 * what one message may grow to is stated by the caller. An inflater holds about 7 KiB and a window of
 * 32 KiB, once there is text.
 *
 * Must not know: frames, masks, sockets. */
#ifndef WIRE_DEFLATE_H
#define WIRE_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

#define WS_INFLATE_PIECE 4096

struct ws_deflate { /* as agreed; zeroed: no compression */
    bool agreed;
    bool client_takeover, server_takeover; /* the window lives on from message to message */
    uint8_t client_bits, server_bits;      /* 8..15, log2 of the window */
};

/* The value of a server's Sec-WebSocket-Extensions header: 1 when it is permessage-deflate alone, 0 when it
 * is empty, ERR_INVALID for parameters that are unknown, doubled or out of range (section 7.1: the connection
 * must fail), ERR_UNSUPPORTED for another extension. */
int ws_deflate_agree(struct ws_deflate *d, const char *value, size_t n, struct err_ctx *ctx);

struct ws_inflate; /* one direction of a connection; opaque */

/* message_max: bytes of text in one message. ERR_NOMEM. */
int ws_inflate_new(struct ws_inflate **z, bool takeover, uint64_t message_max);
void ws_inflate_free(struct ws_inflate *z); /* NULL is fine */

/* Takes text; the bytes are good until it returns. */
typedef void ws_inflate_sink(void *arg, const uint8_t *p, size_t n);

/* Unmasked payload of frames with RSV1 and of their continuations; end: these are the last bytes of the
 * message. 0, ERR_CORRUPT, ERR_LIMIT (the text passed message_max), ERR_NOMEM; after an error it is spent,
 * since the window is not known any more. */
int ws_inflate_feed(struct ws_inflate *z, const void *p, size_t n, bool end, ws_inflate_sink *sink, void *arg,
                    struct err_ctx *ctx);
/* A whole message, appended to `out`; ERR_LIMIT also when `out` is full. */
int ws_inflate_message(struct ws_inflate *z, const void *p, size_t n, struct buf *out, struct err_ctx *ctx);

#endif

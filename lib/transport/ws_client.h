/* A WebSocket client for load and chaos: one non-blocking socket on a libev loop, bound to a source address
 * of its own, with exact byte offsets and the rude ends that real phones have. (libwebsockets is the server's
 * side; a client that must be cut mid-frame, frozen, or vanish without a FIN needs the raw socket.) Framing
 * comes from wire/ws.h.
 *
 * Memory: <= 3 KiB a connection besides queued data. Must not know: sessions, chats. */
#ifndef TRANSPORT_WS_CLIENT_H
#define TRANSPORT_WS_CLIENT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace/trace.h"
#include "util/err.h"
#include "util/rng.h"

struct ws_client;

struct ws_client_ops {
    void (*open)(void *arg);                           /* handshake done */
    void (*frame)(void *arg, const char *p, size_t n); /* one whole text message */
    /* Exactly once per connect, unless the owner called _free/_vanish itself; the client frees itself with
     * it. code: close code received, or 0; reason: why. */
    void (*close)(void *arg, int code, enum reason reason, int sys_errno);
};

struct ws_client_config {
    struct ev_loop *loop;
    uint32_t server_ip, source_ip; /* host order; source 0: any */
    uint16_t server_port;
    const char *path, *subprotocol; /* "/", "chat.v1" */
    uint64_t connect_timeout_ns;
    uint32_t queue_bytes_max; /* unsent data beyond the kernel's buffer; beyond it ws_client_send gives
                                 ERR_LIMIT */
    uint32_t frame_max;
    struct rng *rng; /* masks and keys */
    const struct ws_client_ops *ops;
    void *arg;
};

/* Starts connecting. Errors of the moment (no free port, no buffer) come back here; later ones by close(). */
int ws_client_new(struct ws_client **out, const struct ws_client_config *c, struct err_ctx *ctx);
/* Queue a text message; *end_offset: where it ends in our byte stream. Never ends the connection under the
 * caller: a broken one is told by close(), from the loop. ERR_UNAVAILABLE unless open, ERR_LIMIT, ERR_NOMEM:
 * nothing was queued. */
int ws_client_send(struct ws_client *c, const char *p, size_t n, uint64_t *end_offset);
/* Close handshake, then FIN. close() follows. */
void ws_client_close(struct ws_client *c, int code);
/* End it now and free, without a callback. free: FIN (RST if unread data). */
void ws_client_free(struct ws_client *c);
/* As if the phone left this address: no FIN, no RST (TCP_REPAIR; needs CAP_NET_ADMIN; else ERR_PERM and it
 * behaves as free). Frees. */
int ws_client_vanish(struct ws_client *c);
/* Send only the first `bytes` of the frame made of p, n, then cut with RST and free: a kill in the middle of
 * a frame. */
int ws_client_cut_mid_frame(struct ws_client *c, const char *p, size_t n, size_t bytes, uint64_t *end_offset);
/* A suspended app: stop (or go on) reading and writing. The kernel goes on acknowledging. */
void ws_client_freeze(struct ws_client *c, bool frozen);
bool ws_client_is_open(const struct ws_client *c);
uint64_t ws_client_written(
    const struct ws_client *c); /* bytes handed over so far, handshake included, queue included */
uint64_t ws_client_read(const struct ws_client *c); /* end of the last whole message in the stream */
/* How many of our bytes the peer's TCP has acknowledged. */
uint64_t ws_client_acked(const struct ws_client *c);
void ws_client_flow(const struct ws_client *c, struct trace_flow *flow);

#endif

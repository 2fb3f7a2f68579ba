/* A WebSocket client for load and chaos: one non-blocking socket on a libev loop, bound to a source address
 * of its own, with exact byte offsets and the rude ends that real phones have. (libwebsockets is the server's
 * side; a client that must be cut mid-frame, frozen, or vanish without a FIN needs the raw socket.) Framing
 * comes from wire/ws.h.
 *
 * All calls and callbacks on the loop's thread. A callback may call anything here, _free of its own client
 * included. Nothing calls back from inside a call: a connection found broken is told later, from the loop.
 * Memory: <= 3 KiB a connection besides queued data; one receive and one send buffer per thread. Thousands of
 * clients per process (mind the limit of open files). Must not know: sessions, chats. */
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
    void (*frame)(void *arg, const char *p, size_t n); /* one whole message (text or binary) */
    /* Exactly once per connect, unless the owner called _free/_vanish/_cut itself; the client frees itself
     * when this returns (until then offsets and flow can be asked). code: close code received, or 0; reason:
     * why: CLOSED_BY_PEER, CLOSED_BY_US, RESET, TIMED_OUT, REFUSED (TCP or HTTP), NO_ROUTE, PROTOCOL. */
    void (*close)(void *arg, int code, enum reason reason, int sys_errno);
};

struct ws_client_config {
    struct ev_loop *loop;
    uint32_t server_ip, source_ip; /* host order; source 0: any */
    uint16_t server_port;
    const char *path, *subprotocol; /* "/", "chat.v1" (at most 31 characters; NULL: none) */
    uint64_t connect_timeout_ns;    /* TCP and WebSocket handshake together; 0: 10 s */
    uint32_t queue_bytes_max;       /* unsent data beyond the kernel's buffer; beyond it ws_client_send gives
                                       ERR_LIMIT (an empty queue takes one frame of any size) */
    bool binary;                    /* what is sent goes as binary messages, not as text */
    uint32_t frame_max;             /* of incoming messages; a larger one is PROTOCOL (1009 is sent) */
    struct rng *rng;                /* masks and keys; must outlive the client */
    const struct ws_client_ops *ops;
    void *arg;
};

/* Starts connecting. Errors of the moment (no free port, no buffer) come back here; later ones by close(). */
int ws_client_new(struct ws_client **out, const struct ws_client_config *c, struct err_ctx *ctx);
/* Queue a message; *end_offset (may be NULL): where it ends in our byte stream. ERR_UNAVAILABLE when not
 * open, ERR_LIMIT when the queue is full, ERR_NOMEM: nothing was queued. */
int ws_client_send(struct ws_client *c, const char *p, size_t n, uint64_t *end_offset);
/* Close handshake, then FIN. close() follows with CLOSED_BY_US, after 3 s at the latest. No message comes any
 * more. */
void ws_client_close(struct ws_client *c, int code);
/* End it now and free, without a callback. free: FIN (RST if unread data). NULL is fine. */
void ws_client_free(struct ws_client *c);
/* As if the phone left this address: no FIN, no RST (TCP_REPAIR; needs CAP_NET_ADMIN; else ERR_PERM and it
 * behaves as free). What the peer sends later finds no socket: the kernel answers RST unless the address is
 * gone, too. Frees. */
int ws_client_vanish(struct ws_client *c);
/* Send only the first `bytes` of the frame made of p, n (at least 0, at most the whole), then cut with RST
 * and free: a kill in the middle of a frame. *end_offset: where the stream ends for the kernel; the RST
 * overtakes what the kernel had not sent yet, so on a slow link the peer may see less. */
int ws_client_cut_mid_frame(struct ws_client *c, const char *p, size_t n, size_t bytes, uint64_t *end_offset);
/* A suspended app: stop (or go on) reading and writing. The kernel goes on acknowledging. */
void ws_client_freeze(struct ws_client *c, bool frozen);
bool ws_client_is_open(const struct ws_client *c);
/* Bytes handed over so far, handshake included, queue included. */
uint64_t ws_client_written(const struct ws_client *c);
/* Of these, what the kernel has not taken yet. */
size_t ws_client_queued(const struct ws_client *c);
/* End of the last whole message in the server's stream (before the first: of the HTTP answer). */
uint64_t ws_client_read(const struct ws_client *c);
/* How many of our bytes the peer's TCP has acknowledged (inside close(): as it was at the end). */
uint64_t ws_client_acked(const struct ws_client *c);
/* Our end is src; zeros before the connection is up. */
void ws_client_flow(const struct ws_client *c, struct trace_flow *flow);

#endif

/* WebSocket and HTTP server on libwebsockets, on a libev loop that the caller owns. One ws_server per thread.
 *
 * Messages go out as refcounted encoded JSON objects; what is pending on a connection when its turn comes is
 * packed into one frame of up to 50 objects (an array) and at most 64 KiB + one object. Each connection's
 * queue has a maximum in bytes and messages.
 *
 * All calls and callbacks happen on the loop's thread. Must not know: sessions, chats, stores. */
#ifndef TRANSPORT_WS_SERVER_H
#define TRANSPORT_WS_SERVER_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/frame.h"
#include "trace/trace.h"
#include "util/buf.h"
#include "util/err.h"

struct ws_server;
struct ws_conn;

struct ws_http_request {
    struct ws_conn *conn;                              /* token for ws_http_reply */
    const char *method, *path, *query, *authorization; /* "" when absent */
};

struct ws_server_ops {
    /* The handshake is done. Return the caller's pointer for this connection, or NULL to refuse (close 4004).
     */
    void *(*open)(void *arg, struct ws_conn *c);
    /* One whole text message (fragments joined, <= frame_max). */
    void (*frame)(void *arg, void *conn_arg, const char *p, size_t n);
    /* Exactly once per open, also for our own closes. code: close code or 0; reason: why (enum reason). */
    void (*close)(void *arg, void *conn_arg, int code, enum reason reason);
    /* Called on the write path after an object was handed to the socket: end offset in the connection's byte
     * stream. */
    void (*written)(void *arg, void *conn_arg, uint64_t cookie, uint64_t end_offset, uint32_t in_frame);
    /* The queue has drained below half of its limit after ws_send had returned ERR_LIMIT. */
    void (*drained)(void *arg, void *conn_arg);
    void (*http)(void *arg, const struct ws_http_request *r);
};

struct ws_server_config {
    struct ev_loop *loop;
    const char *listen;                       /* "127.0.0.1:8080", "[::1]:8080"; port 0: any */
    uint32_t conns_max;                       /* beyond it new connections get 503 */
    uint32_t frame_max;                       /* bytes of one incoming message */
    uint32_t queue_bytes_max, queue_msgs_max; /* per connection */
    const struct ws_server_ops *ops;
    void *arg;
};

int ws_server_new(struct ws_server **out, const struct ws_server_config *c, struct err_ctx *ctx);
/* The port really bound. */
int ws_server_port(const struct ws_server *s);
/* Stop accepting; existing connections go on. */
void ws_server_stop_accepting(struct ws_server *s);
/* Closes everything at once (1001) and frees. */
void ws_server_free(struct ws_server *s);
uint32_t ws_server_conns(const struct ws_server *s);

/* Queue one encoded object; takes a reference of its own on success. `cookie` comes back in written() (0: no
 * callback). ERR_LIMIT when the queue is full (nothing queued; drained() will be called). */
int ws_send(struct ws_conn *c, struct shared_frame *f, uint64_t cookie);
/* Send what is queued, then close with code and text; no more frames are delivered to ops->frame. */
void ws_close(struct ws_conn *c, int code, const char *text);
/* Cut at once, without a close frame. */
void ws_abort(struct ws_conn *c);
uint64_t ws_queued_bytes(const struct ws_conn *c);
/* Offsets in the TCP byte streams: after the handshake; counted by our own framing thereafter. */
uint64_t ws_written_offset(const struct ws_conn *c);
uint64_t ws_read_offset(const struct ws_conn *c);
/* Client's address and port as in struct trace_flow (src = client); IPv6 peers give zeros. */
void ws_peer(const struct ws_conn *c, struct trace_flow *flow);
const char *ws_peer_text(const struct ws_conn *c); /* "127.0.0.1:40000" */

/* Answer a request, now or later; `conn` stays valid until then or until the peer left (then the reply is
 * dropped: check with ws_http_alive by the id you kept). Body is copied. content_type e.g.
 * "application/json". */
uint64_t ws_http_id(const struct ws_conn *c);
struct ws_conn *ws_http_alive(struct ws_server *s, uint64_t id); /* NULL: gone */
void ws_http_reply(struct ws_conn *c, int status, const char *content_type, const char *body, size_t n);

#endif

/* WebSocket (RFC 6455; subprotocols chat.v1, chat.v1.bin and chat.mux.v1) and HTTP/1.1 server on
 * libwebsockets, on a libev loop that the caller owns. One ws_server per thread.
 *
 * Messages go out as refcounted encoded objects; what is pending on a connection when its turn comes is
 * packed into one frame of up to 50 objects (JSON: an array, a lone object stays an object; binary: one after
 * the other) and at most 64 KiB, or one larger object. Of chat.mux.v1 this only carries frames: each block
 * that is sent is a frame of its own, mux_server.h knows what is in it. While the loop keeps up, turns come
 * as soon as there is something to write; under load a connection's turns lie up to 16 ms apart, so that a
 * fan-out coalesces (ws_server_turn.c). Each connection's queue has a maximum in bytes and messages.
 *
 * Incoming: text for chat.v1, binary for the others (else close 1003), valid UTF-8 (1007), at most frame_max
 * (1009). Handshakes without a known subprotocol get 400, beyond conns_max 503. Neither this nor
 * libwebsockets pings or gives an idle peer up: a half-open connection lives until its owner, or the kernel's
 * own TCP timeouts, end it. permessage-deflate is off. A connection without a whole request is closed after
 * 30 s, an idle HTTP one after 60.
 *
 * Measured on 2 cores, 1000 loopback connections, one message each under way: 0.77 of the rate of a bare
 * epoll server; 2.8 KB resident per connection, libwebsockets included.
 *
 * All calls and callbacks happen on the loop's thread; ws_server_free not from a callback. libwebsockets'
 * watchers keep ev_run from returning on its own: use ev_break. Must not know: sessions, chats, stores. */
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
    /* The handshake is done. Return the caller's pointer for this connection, or NULL to refuse (close 4004,
     * and no further callback). The ws_conn lives until ops->close returns. */
    void *(*open)(void *arg, struct ws_conn *c);
    /* One whole message (fragments joined, <= frame_max). */
    void (*frame)(void *arg, void *conn_arg, const char *p, size_t n);
    /* Exactly once per open, also for our own closes, never from within ws_close or ws_abort. code: the close
     * code, ours or the peer's, or 0 when the socket ended without one. reason: CLOSED_BY_PEER (close frame
     * or FIN), RESET, TIMED_OUT (the kernel gave up), CLOSED_BY_US (ws_close), KILLED (ws_abort), PROTOCOL
     * (the peer broke a rule; code says which), SHUTDOWN (ws_server_free). */
    void (*close)(void *arg, void *conn_arg, int code, enum reason reason);
    /* For each object whose cookie is not 0, after its frame was handed to the socket: end of the frame in
     * the connection's byte stream, and how many objects the frame had. The object still has its reference.
     */
    void (*written)(void *arg, void *conn_arg, uint64_t cookie, uint64_t end_offset, uint32_t in_frame);
    /* The queue has drained below half of its limit after ws_send had returned ERR_LIMIT. */
    void (*drained)(void *arg, void *conn_arg);
    /* May be NULL (404). A reply is due within 30 s, else 504. Request bodies are read and thrown away up to
     * 64 KiB (413; chunked ones 411). `query` has its %XX decoded. */
    void (*http)(void *arg, const struct ws_http_request *r);
};

struct ws_server_config {
    struct ev_loop *loop;
    bool share;                               /* others of this process listen there too (SO_REUSEPORT) */
    const char *listen;                       /* "127.0.0.1:8080", "[::1]:8080", ":8080" (all); port 0: any */
    uint32_t conns_max;                       /* beyond it new connections get 503 */
    uint32_t frame_max;                       /* bytes of one incoming message */
    uint32_t queue_bytes_max, queue_msgs_max; /* per connection */
    uint32_t frame_objects_max;               /* 1: nothing is coalesced; 0: 50 */
    /* Nobody asks for offsets in the byte streams (ws_read_offset, ws_written_offset, written()): they are
     * not kept, which saves two system calls a read. */
    bool no_offsets;
    const struct ws_server_ops *ops;
    void *arg;
};

/* ERR_BUSY: the address is taken; ERR_PERM: not allowed; ERR_INVALID: no address; ERR_UNAVAILABLE:
 * libwebsockets without its libev plugin. The sentence names the address. Redirects libwebsockets' log to
 * util/log (process-wide; its errors are mostly about what clients sent and come as warnings). */
int ws_server_new(struct ws_server **out, const struct ws_server_config *c, struct err_ctx *ctx);
/* The port really bound. */
int ws_server_port(const struct ws_server *s);
/* Stop accepting; existing connections go on. */
void ws_server_stop_accepting(struct ws_server *s);
/* Closes everything at once and frees: what fits into the sockets goes out, then 1001; every ops->close is
 * called. The loop stays the caller's and must still exist. NULL is fine. */
void ws_server_free(struct ws_server *s);
uint32_t ws_server_conns(const struct ws_server *s);

/* Which subprotocol was agreed on: of those the client offers the first that is known. */
enum ws_protocol { WS_JSON, WS_BIN, WS_MUX, WS_PROTOCOLS };
enum ws_protocol ws_protocol(const struct ws_conn *c);

/* Queue one encoded object; takes a reference of its own on success. `cookie` comes back in written() (0: no
 * callback). ERR_LIMIT when the queue is full (nothing queued; drained() will be called); ERR_UNAVAILABLE
 * when the connection is closing. */
int ws_send(struct ws_conn *c, struct shared_frame *f, uint64_t cookie);
/* Send what is queued, then close with code and text (at most 120 bytes); no more frames are delivered to
 * ops->frame. A peer that is not gone 5 s later is cut. */
void ws_close(struct ws_conn *c, int code, const char *text);
/* Cut at once with RST, without a close frame; what is unsent is lost. ops->close follows from the loop. */
void ws_abort(struct ws_conn *c);
uint64_t ws_queued_bytes(const struct ws_conn *c);
/* Ends of the last frame of ours and of the last data frame of the peer, as offsets in the TCP byte streams,
 * handshake included. Exact whatever control frames pass (a client that sends frames before it has our 101
 * apart). */
uint64_t ws_written_offset(const struct ws_conn *c);
uint64_t ws_read_offset(const struct ws_conn *c);
/* Client's address and port as in struct trace_flow (src = client); IPv6 peers give zeros. */
void ws_peer(const struct ws_conn *c, struct trace_flow *flow);
const char *ws_peer_text(const struct ws_conn *c); /* "127.0.0.1:40000"; valid until the next call */

/* Answer a request, now or later; `conn` stays valid until then or until the peer left (then the reply is
 * dropped: check with ws_http_alive by the id you kept). Body is copied. content_type e.g.
 * "application/json". */
uint64_t ws_http_id(const struct ws_conn *c);
struct ws_conn *ws_http_alive(struct ws_server *s, uint64_t id); /* NULL: gone */
void ws_http_reply(struct ws_conn *c, int status, const char *content_type, const char *body, size_t n);

#endif

/* The server's end of chat.mux.v1 (mux.h says what is on the wire): sessions over ws_conns of protocol
 * WS_MUX.
 *
 * The owner passes on what ws_server tells of such a connection, and calls mux_turn once per turn of its
 * loop, before ws_server's own turn: only there records go out and `written` and `closed` are called, so they
 * never come from inside mux_send or mux_close. Frames are copied once, into the block that the socket takes.
 *
 * Memory: 32 bytes a session in pages of 4 KiB (numbers without holes; a number alone on its page costs the
 * page), and 16 for each frame that waits for credit or for the socket. Limits: sessions_max; at most
 * MUX_HELD_MAX frames wait in all, beyond it the session that wants to send is closed (4003); a socket that
 * has more than MUX_SOCKET_BYTES to send gets no more until it has drained. When a connection ends all of its
 * sessions end in one go (a million take about half a second).
 *
 * All on the loop's thread. Must not know: the node's sessions, tokens, stores. */
#ifndef TRANSPORT_MUX_SERVER_H
#define TRANSPORT_MUX_SERVER_H

#include "proto/frame.h"
#include "transport/mux.h"
#include "transport/ws_server.h"

#define MUX_HELD_MAX     (8u << 20)
#define MUX_SOCKET_BYTES (4u << 20)

struct mux_server;
struct mux_conn;
struct mux_session;

struct mux_server_ops {
    /* Is this a token for a whole connection? 0 and when it expires, or the code to close with. */
    int (*authenticate)(void *arg, const char *token, size_t n, uint64_t *expires_s);
    /* A handle for the session, never 0; 0 refuses it (4004, and no further callback). */
    uint64_t (*open)(void *arg, struct mux_session *s, uint64_t user, uint64_t expires_s,
                     const struct trace_flow *flow);
    /* offset: bytes of DATA that came so far, modulo 2^32; in `written` those that went. */
    void (*data)(void *arg, uint64_t handle, const char *p, size_t n, uint64_t offset);
    void (*beats)(void *arg, const uint64_t *handles, size_t n);
    void (*written)(void *arg, uint64_t handle, struct shared_frame *f, uint64_t offset);
    /* Exactly once per open. */
    void (*closed)(void *arg, uint64_t handle, int code, enum reason reason);
    /* May be NULL. A hint: something of this session comes soon. */
    void (*soon)(void *arg, uint64_t handle);
};

struct mux_server_config {
    uint32_t sessions_max;
    const struct mux_server_ops *ops;
    void *arg;
};

int mux_server_new(struct mux_server **out, const struct mux_server_config *c, struct err_ctx *ctx);
/* After ws_server_free, when no connection is left. NULL is fine. */
void mux_server_free(struct mux_server *m);
uint32_t mux_server_sessions(const struct mux_server *m);
/* Close all connections, when what is to be said has been. */
void mux_server_close(struct mux_server *m, int code, const char *text);
void mux_turn(struct mux_server *m);

/* What ws_server_ops tell. NULL: no memory. mux_conn_closed frees. */
struct mux_conn *mux_conn_new(struct mux_server *m, struct ws_conn *ws);
void mux_conn_frame(struct mux_conn *c, const char *p, size_t n);
void mux_conn_drained(struct mux_conn *c);
void mux_conn_closed(struct mux_conn *c, int code, enum reason reason);

/* Queue one chat.v1.bin message; takes a reference of its own. */
void mux_send(struct mux_session *s, struct shared_frame *f);
/* What waits for credit is dropped, the rest goes out, then CLOSE; `closed` follows (CLOSED_BY_US). */
void mux_close(struct mux_session *s, int code, const char *text);

#endif

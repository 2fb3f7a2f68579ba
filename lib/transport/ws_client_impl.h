/* Inside of transport/ws_client: the connection, shared by ws_client.c (life) and ws_client_io.c (bytes). */
#ifndef TRANSPORT_WS_CLIENT_IMPL_H
#define TRANSPORT_WS_CLIENT_IMPL_H

#include "transport/ws_client.h"
#include "util/buf.h"
#include "wire/ws.h"

#define CLIENT_PIECE        (64u << 10) /* the shared buffers of a thread */
#define CLIENT_CLOSE_WAIT_S 3.0

enum client_state {
    CLIENT_CONNECTING, /* TCP */
    CLIENT_UPGRADING,  /* HTTP */
    CLIENT_OPEN,
    CLIENT_CLOSING, /* a close frame went out or came in; waiting for the peer's FIN */
    CLIENT_DEAD,
};

/* Needed only until the connection is open. */
struct client_handshake {
    char key[WS_KEY_TEXT + 1], subprotocol[32];
    struct buf answer;
};

struct ws_client {
    struct ev_loop *loop;
    const struct ws_client_ops *ops;
    void *arg;
    struct rng *rng;
    struct client_handshake *handshake;
    ev_io io;
    ev_timer timer;
    struct ws_parser parser;
    struct buf queue; /* frames that the kernel did not take yet */
    size_t queue_at;  /* bytes of it that went out */
    struct buf later; /* read before a freeze in the middle of a piece */
    double timeout_s;
    uint64_t written; /* queue included */
    uint64_t head;    /* bytes of the HTTP answer */
    uint64_t read_end;
    uint64_t acked_at_end;
    struct trace_flow flow;
    uint32_t queue_bytes_max;
    int fd, events, close_code, send_errno;
    enum client_state state;
    bool binary, frozen, close_sent, close_seen, closed_by_us, busy, freed;
};

void client_on_io(struct ev_loop *loop, ev_io *w, int events);
/* Every handler ends with this: frees what was ended meanwhile. */
void client_leave(struct ws_client *c);
void client_on_timer(struct ev_loop *loop, ev_timer *w, int events);
/* Set the watcher to what the state needs. */
void client_watch(struct ws_client *c);
void client_timer(struct ws_client *c, double seconds);
/* Write what is queued, as far as the kernel takes it; a failure is kept in send_errno and shown by the loop.
 */
void client_flush(struct ws_client *c);
/* Hand one frame over, or queue what the kernel does not take. */
int client_put(struct ws_client *c, enum ws_opcode opcode, const void *p, size_t n);
void client_put_close(struct ws_client *c, int code);
/* Take the socket down (watchers, descriptor, buffers), keeping the figures. */
void client_end(struct ws_client *c);
/* The same, and tell the owner; the handler on top frees. Only from handlers (busy). */
void client_finish(struct ws_client *c, int code, enum reason reason, int sys_errno);

#endif

/* Inside of the WebSocket server: one connection's state, and what its files do for each other. */
#ifndef TRANSPORT_WS_SERVER_IMPL_H
#define TRANSPORT_WS_SERVER_IMPL_H

#include <libwebsockets.h>
#include <netinet/in.h>

#include "transport/ws_server.h"
#include "util/map.h"

#define WS_NAMES          "chat.v1, chat.v1.bin or chat.mux.v1"
#define WS_FRAME_OBJECTS  50           /* objects in one frame, design.md section 5 */
#define WS_FRAME_BYTES    (64u * 1024) /* a frame takes no further object past this */
#define WS_READ_BYTES     1024 /* lws keeps a buffer of this size per connection and reads as much at a time */
#define WS_READ_BYTES_MUX (64u * 1024)
#define WS_SERVICE_BYTES  (16u * 1024)    /* lws's shared read and header buffer */
#define WS_HEADER_BYTES   8192            /* request line and headers; lws drops what is longer */
#define WS_BODY_MAX       (64u * 1024)    /* request bodies are read and thrown away up to this, then 413 */
#define WS_CLOSE_NS       (5 * NS_PER_S)  /* from ws_close until the peer has to be gone; then it is cut */
#define WS_REPLY_NS       (30 * NS_PER_S) /* an HTTP request without a reply gets 504 */
#define WS_REFUSED_MAX    64 /* connections beyond conns_max that get a proper 503; more are just closed */
#define WS_NODES_KEPT     65536

/* Values of tcpi_state. <netinet/tcp.h> names them, but its struct tcp_info is too old for us, and it can't
 * be included together with <linux/tcp.h>. */
enum tcp_state {
    STATE_TIME_WAIT = 6,
    STATE_CLOSE = 7,
    STATE_CLOSE_WAIT = 8,
    STATE_LAST_ACK = 9,
    STATE_CLOSING = 11
};

struct link {
    struct link *prev, *next;
};
static inline void link_init(struct link *l)
{
    l->prev = l->next = l;
}
static inline bool link_empty(const struct link *l)
{
    return l->next == l;
}
static inline void link_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}
static inline void link_append(struct link *list, struct link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}
/* Move all of `from` to the end of `to`. */
static inline void link_move_all(struct link *to, struct link *from)
{
    if (link_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    link_init(from);
}
#define link_owner(l, type, member) ((type *)(void *)((char *)(l)-offsetof(type, member)))

/* One queued object. */
struct send_node {
    struct send_node *next;
    struct shared_frame *frame;
    uint64_t cookie;
};

enum conn_state {
    CONN_HTTP, /* no WebSocket yet, or never */
    CONN_OPEN,
    CONN_CLOSING,    /* ws_close: the queue goes out, then the close frame */
    CONN_CLOSE_SENT, /* our close frame is lws's to send */
    CONN_PEER_CLOSE, /* the peer's close frame came; lws answers it */
    CONN_DEAD,       /* cut, or the socket failed; lws has yet to notice */
};

/* A request between its headers and its reply. */
struct http_request {
    uint64_t id, deadline_ns; /* id 0: not dispatched yet */
    uint32_t body_bytes;
    bool head, close_after, paused, post;
    const char *method;
    char *path, *query, *authorization; /* in `text` */
    unsigned char *reply;               /* LWS_PRE bytes, then head and body */
    size_t reply_len;
    char text[];
};

struct ws_conn {
    struct ws_server *s;
    struct lws *wsi;
    int fd;
    enum conn_state state;
    uint8_t protocol; /* enum ws_protocol */
    bool opened;      /* ops->open was called and took it: ops->close is owed */
    bool refused;     /* beyond conns_max */
    bool blocked;     /* lws holds the rest of a frame; wait for its writable callback */
    bool full;        /* ws_send said ERR_LIMIT: drained() is owed */
    bool recount;     /* a pong may be on its way: ask the kernel before each frame */
    bool joined;      /* `rx` holds the beginning of a message */
    void *arg;
    /* Up to `written` is what each message touches: the cache lines that a turn fetches ahead. */
    struct link dirty;
    struct send_node *head, **tail;
    uint32_t queue_msgs, blocked_bytes;
    uint64_t turn_ns; /* when something was written last */
    uint64_t queue_bytes;
    uint64_t written; /* end of what we and lws handed to the socket */

    struct link all, deadline;
    uint64_t deadline_ns;
    uint64_t read_end;              /* end of the last whole frame of data */
    uint64_t read_base;             /* what lws had taken from the socket before the current read */
    uint32_t read_seen, frame_left; /* bytes of data frames seen in this read; left of the frame at hand */
    unsigned opened_turn; /* bytes that come in this turn of the loop came together with the handshake */
    ev_io after_read;

    struct buf rx;
    int code; /* close code, ours or the peer's */
    enum reason reason;
    char *close_text;
    struct http_request *http;
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
    uint32_t local_ip; /* host order; 0 for IPv6 */
    uint16_t local_port;
};

/* When connections have their turns: ws_server_turn.c. */
struct ws_turns {
    uint64_t now_ns;             /* of this pass of the loop, and of each slice */
    uint64_t interval_ns;        /* between two turns of one connection; 0 while the loop keeps up */
    uint64_t window_ns, busy_ns; /* since when this window lasts; of which the loop was not waiting */
    bool collecting;
    uint32_t reads;           /* frames that came in it */
    uint64_t frames, objects; /* written in it */
};

struct ws_server {
    struct ws_server_config cfg;
    struct lws_context *lws;
    struct lws_vhost *vhost;
    int listen_fd, port;
    bool freeing;
    uint32_t sockets, open, nodes_free;
    struct link all;
    struct link dirty, held; /* have something to write: now; once interval_ns went by since their turn */
    struct link closing, replying; /* in order of their deadlines */
    struct send_node *node_pool;
    unsigned char *scratch; /* LWS_PRE + scratch_cap */
    size_t scratch_cap;
    const unsigned char *service_buf; /* lws's read buffer, learnt at the first handshake */
    struct ws_turns turns;
    ev_io accepting;
    ev_check after_poll;
    ev_prepare before_block;
    ev_timer turn_timer, deadline_timer, accept_timer;
    struct map requests; /* id -> struct ws_conn * */
    uint64_t request_next;
    char peer_text[64];
};

/* ws_server.c */
extern const char *const ws_protocol_names[WS_PROTOCOLS];
struct ws_conn *ws_conn_of(struct lws *wsi);
void ws_arm_deadline(struct ws_server *s);

/* ws_server_conn.c: the life of one WebSocket. Each returns what lws wants: 0, or -1 to close. */
int ws_conn_established(struct ws_conn *c, struct lws *wsi);
int ws_conn_receive(struct ws_conn *c, const char *p, size_t n);
int ws_conn_writeable(struct ws_conn *c);
int ws_conn_peer_close(struct ws_conn *c, const unsigned char *p, size_t n);
void ws_conn_gone(struct ws_conn *c);
void ws_conn_fail(struct ws_conn *c, int code, const char *text); /* the peer broke the protocol */
void ws_conn_say_bye(struct ws_conn *c, int code);                /* close frame now, past lws */

/* ws_server_send.c */
void ws_queue_drop(struct ws_conn *c);
void ws_flush(struct ws_conn *c); /* one frame */
void ws_check_drained(struct ws_conn *c);
void ws_nodes_free(struct ws_server *s);

/* ws_server_turn.c */
void ws_turn_start(struct ws_server *s);
void ws_turn_stop(struct ws_server *s);
void ws_turn_want(struct ws_conn *c);   /* there is something to write */
void ws_turn_take(struct ws_server *s); /* those whose turn has come, for a slice of time */

/* ws_server_offset.c */
uint32_t ws_header_bytes(uint64_t payload); /* of a server's frame: RFC 6455 section 5.2 */
void ws_offset_start(struct ws_conn *c);
void ws_offset_stop(struct ws_conn *c);
void ws_offset_data(struct ws_conn *c, const char *p, size_t n);
void ws_offset_recount(struct ws_conn *c);
enum reason ws_offset_end(const struct ws_conn *c); /* how the TCP connection ended */

/* ws_server_http.c */
int ws_http_confirm_upgrade(struct ws_conn *c, const char *to);
int ws_http_begin(struct ws_conn *c, const char *path, size_t n);
int ws_http_body(struct ws_conn *c, size_t n);
int ws_http_body_end(struct ws_conn *c);
int ws_http_writeable(struct ws_conn *c);
void ws_http_drop(struct ws_conn *c);
void ws_http_expire(struct ws_server *s, uint64_t now_ns);

#endif

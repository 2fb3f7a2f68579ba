/* Inside the room: the sockets' side. driver.c: loop and life; relay.c: one connection; dial.c: addresses,
 * accepting and connecting; heap.c: who wants to be woken when; control.c: the control socket; told.c: log,
 * trace, status. */
#ifndef NETEM_PROXY_DRIVER_IMPL_H
#define NETEM_PROXY_DRIVER_IMPL_H

#include <netdb.h>

#include "netem/proxy/core.h"
#include "netem/proxy/proxy.h"
#include "trace/trace.h"

#define PIECE          (256u << 10) /* bytes read at a time */
#define TURN           (4u << 20)   /* bytes of one connection before others have their turn */
#define CONTROLS_MAX   16
#define CONTROL_LINE   2048
#define CONTROL_ANSWER (1u << 20)

enum { CLIENT = NETEM_UP, SERVER = NETEM_DOWN }; /* a way's source has the way's number */

enum endpoint_kind { ON_LISTENER, ON_STOP, ON_CONTROL, ON_CONTROL_CLIENT, ON_CONN };

/* What an epoll event is about. */
struct endpoint {
    enum endpoint_kind kind;
    int fd; /* -1: none */
    uint8_t side;
    bool can_read, can_write, hung_up, eof;
    bool broken; /* it sent a RST: what goes there is thrown away */
    bool told;   /* and the core knows it */
};

struct conn {
    struct endpoint end[2];
    struct proxy_conn *core;
    struct conn *prev, *next;
    struct conn *turn; /* the next one that has not finished its turn */
    const struct addrinfo *trying;
    uint64_t wake_ns;
    uint32_t heap_at; /* UINT32_MAX: not in it */
    uint8_t fins;     /* passed on */
    bool connecting, closing, silent, dead, in_turn;
};

struct control_client {
    struct endpoint end;
    char in[CONTROL_LINE];
    size_t n, sent;
    struct buf out;
    bool answered;
};

struct heap {
    struct conn **at;
    uint32_t n, cap;
};

struct counts {
    uint64_t accepted, refused_upstream, refused_full, resets, faults, bytes[2];
    uint32_t open, silent, followed;
};

struct proxy {
    struct proxy_config config;
    struct proxy_rules rules;
    struct addrinfo *to;
    struct endpoint listener, stop, control;
    struct control_client client[CONTROLS_MAX];
    struct conn *conns, *dead, *turns;
    struct heap heap;
    struct counts counts;
    struct trace *trace;
    struct trace_writer *tracer;
    char *piece;      /* PIECE bytes, for whoever reads */
    int epoll, spare; /* spare: a descriptor to give up when all are used */
    uint32_t connections_max;
    uint16_t port;
    bool over, full_told;
    char listen_text[128], control_path[128];
    uint64_t began_ns;
};

/* --- heap.c --- */
void heap_set(struct heap *h, struct conn *c, uint64_t wake_ns); /* UINT64_MAX: take it out */
bool heap_reserve(struct heap *h);                               /* room for one more; false: no memory */
struct conn *heap_first(const struct heap *h);
void heap_release(struct heap *h);

/* --- dial.c --- */
int dial_resolve(struct addrinfo **a, const char *text, bool passive, struct err_ctx *ctx);
int dial_listen(struct proxy *p, struct err_ctx *ctx);
/* Take all that wait. */
void dial_accept(struct proxy *p, uint64_t now_ns);
/* Begin to connect to the server, or try its next address. */
void dial_server(struct proxy *p, struct conn *c);
/* The server's socket became writable. False: still connecting, or the connection is gone. */
bool dial_done(struct proxy *p, struct conn *c);
bool watch(struct proxy *p, struct endpoint *e, uint32_t events);
void reset_fd(int *fd); /* close with RST */

/* --- relay.c --- */
void relay_event(struct proxy *p, struct endpoint *e, uint32_t events);
void relay_run(struct proxy *p, struct conn *c, uint64_t now_ns);
void relay_end(struct proxy *p, struct conn *c, bool reset); /* freed at the end of the loop's round */

/* --- control.c --- */
int control_open(struct proxy *p, struct err_ctx *ctx);
void control_accept(struct proxy *p);
void control_event(struct proxy *p, struct endpoint *e);
void control_close(struct proxy *p);

/* --- told.c --- */
void told(void *proxy, const struct proxy_event *e);

#endif

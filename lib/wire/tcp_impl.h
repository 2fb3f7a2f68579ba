/* Inside the room: what the table (tcp_flow.c) and the streams (tcp.c) share. */
#ifndef WIRE_TCP_IMPL_H
#define WIRE_TCP_IMPL_H

#include "wire/tcp.h"

struct tcp_hold {
    struct tcp_hold *next;
    uint64_t from, ts_ns;
    uint32_t len, captured;
    uint8_t data[];
};

/* The connection of this packet (which direction it goes: *dir), made when there is none; NULL: no memory. */
struct tcp_flow *tcp_flow_of(struct tcp *t, const struct packet *k, uint32_t point, uint64_t ts_ns, int *dir);
/* Hand out all that is held, tell of its end, free. */
void tcp_flow_end(struct tcp *t, struct tcp_flow *f, enum tcp_end end);
/* To the list of those that ended. */
void tcp_flow_done(struct tcp *t, struct tcp_flow *f);
/* Make room, never by ending `keep`. */
void tcp_make_room(struct tcp *t, struct tcp_flow *keep);
void tcp_expire(struct tcp *t, uint64_t now_ns);

/* What is held, holes given up. drop: the bytes are not handed on either. */
void tcp_half_flush(struct tcp *t, struct tcp_flow *f, int dir, uint64_t ts_ns, bool drop);
void tcp_half_release(struct tcp *t, struct tcp_half *h);

#endif

/* Inside the room: what is collected from captures before it becomes records. */
#ifndef WIRE_PCAP_EVIDENCE_IMPL_H
#define WIRE_PCAP_EVIDENCE_IMPL_H

#include "util/map.h"
#include "wire/decode.h"
#include "wire/pcap/capture.h"
#include "wire/pcap/evidence.h"
#include "wire/tap.h"

#define EV_NONE UINT32_MAX

struct ev_packet {          /* TCP, of any connection until it is known which are WebSockets */
    uint64_t ts_ns, hash;   /* hash: what is the same at both points */
    struct trace_flow flow; /* sender first */
    uint32_t conn, len;
    uint8_t dir, flags, reason; /* flags: TRACE_FLAG_*; reason: as the capture's comment says */
    bool paired, lost, aired; /* lost: the comment says so; aired: the phone was there when it was offered */
};

struct ev_stuck {      /* one sender's bytes: while they lie unacknowledged a FIN behind them is not seen */
    uint64_t since_ns; /* 0: all is acknowledged */
    uint64_t was_ns, freed_ns; /* the same of what was acknowledged last, and when that was */
    uint64_t packet_ns;        /* its last packet */
};

struct ev_conn {
    uint64_t open_ns, close_ns, end_ns, user;
    struct trace_flow flow; /* client first */
    uint32_t point, device, number;
    uint64_t start[2]; /* where frames begin */
    uint64_t acked[2]; /* at its end */
    uint64_t captured_end[2];
    uint64_t stalled_ns; /* server's bytes lie unacknowledged since then, until its end; 0: not */
    uint64_t left_ns;    /* the client's first FIN or RST; 0: none */
    uint8_t net, close_reason;
    bool websocket, guess, whole_end, reset_by_client;
    uint64_t syn_ns;
    uint64_t spoke_ns; /* the client's last new bytes: its app was alive then */
    uint64_t spoke_to; /* where they end */
    uint64_t heard_ns; /* any packet of the client's */
    uint64_t there_ns; /* the last packet that the link took for it or from it: it had not left its address */
    struct ev_stuck stuck[2];
    /* By direction: the first FIN or RST, and since when it may have waited behind bytes; 0: none was seen.
     */
    uint64_t end_seen_ns[2], may_end_ns[2];
    uint64_t took_to, took_ns; /* the phone acknowledged this much, of what came at that time or later */
    uint64_t read_to;          /* the server passed on what ends here: it read all before it too */
    bool open_end;             /* the capture ended first */
    bool replaced;             /* left without a word: the same device opened another one at close_ns */
};

enum ev_what { EV_SEND, EV_MSG, EV_ACCEPTED, EV_REJECT, EV_MEMBER };
struct ev_message {
    uint64_t ts_ns, first_ns, end, chat, seq;
    struct id id;
    uint32_t conn;
    uint64_t user; /* of a member record; else 0 */
    uint8_t what, dir, reason;
    bool complete, left;
};

struct ev_list { /* growable array */
    void *p;
    uint32_t n, cap;
};

struct evidence {
    struct evidence_point point[EVIDENCE_POINTS_MAX];
    uint32_t points;
    struct ev_list packet, conn, message; /* of all points */
    struct ev_list record[TRACE_SIDES];   /* struct trace_event */
    struct trace_memory part[TRACE_SIDES];
    int parts;
    uint64_t missed_side[TRACE_SIDES];
    struct chat_decoder decoder;
    struct proto_scratch scratch;
    size_t memory;
    struct tap tap; /* of the file being read */
    bool no_memory;
    char names[TRACE_SIDES][300];
};

/* Room for one more; NULL: no memory (no_memory is set). */
void *ev_add(struct evidence *e, struct ev_list *l, size_t size);
static inline struct ev_conn *ev_conn(const struct evidence *e, uint32_t i)
{
    return (struct ev_conn *)e->conn.p + i;
}
static inline struct ev_packet *ev_packet(const struct evidence *e, uint32_t i)
{
    return (struct ev_packet *)e->packet.p + i;
}
static inline struct ev_message *ev_message(const struct evidence *e, uint32_t i)
{
    return (struct ev_message *)e->message.p + i;
}
static inline enum evidence_role ev_role(const struct evidence *e, uint32_t conn)
{
    return e->point[ev_conn(e, conn)->point].role;
}

struct ev_push { /* of a message to a user, as the server's end saw it */
    struct id id;
    uint64_t user, ts_ns;
};

/* Connections of one end; with the server's end alone it speaks for the phones too. */
struct ev_sides {
    bool phones, server;     /* points of this kind exist */
    bool phones_from_server; /* what the phones had is told by their acknowledgements alone */
    bool legacy;             /* nothing is ever accepted or acknowledged: sent once, pushed once */
    struct ev_push *push;    /* by id and user */
    uint32_t pushes;
};

static inline bool ev_speaks_for(const struct evidence *e, const struct ev_sides *s, uint32_t conn,
                                 enum trace_side side)
{
    enum evidence_role role = ev_role(e, conn);
    if (side == TRACE_SIDE_LOAD)
        return role == EVIDENCE_PHONES || s->phones_from_server;
    return role == EVIDENCE_SERVER;
}

static inline uint64_t ev_user_of(const struct ev_conn *c)
{
    return c->user ? c->user : 1000000000ull + c->number; /* it never said who it is */
}

/* evidence_message.c: what a message says. */
void ev_take_message(struct evidence *e, const struct tap_message *m);
/* evidence_match.c: packets of the two ends; roles and clocks before. */
int ev_match(struct evidence *e, struct err_ctx *ctx);
/* evidence_leave.c: when phones left their connections, where no FIN or RST of theirs came through. */
int ev_find_replaced(struct evidence *e, const struct ev_sides *s, struct err_ctx *ctx);
/* evidence_chats.c: what the server pushed, and what it read; members and fan-out. */
int ev_find_pushes(const struct evidence *e, struct ev_sides *s, struct err_ctx *ctx);
uint64_t ev_first_push(const struct ev_sides *s, const struct id *id); /* UINT64_MAX: never */
bool ev_maybe_unread(const struct evidence *e, const struct ev_sides *s, const struct ev_message *m);
void ev_fan_out(struct evidence *e, const struct ev_sides *s);
/* evidence_records.c */
struct trace_event *ev_emit(struct evidence *e, enum trace_side side, struct trace_event ev);
int ev_records(struct evidence *e, const bool want[TRACE_SIDES], struct err_ctx *ctx);

#endif

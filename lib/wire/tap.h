/* From TCP streams to WebSocket messages, as a bystander sees them: nothing is refused, what is missing is
 * said.
 *
 * A connection is recognised by its HTTP handshake, or, where that was not captured, by frames that fit
 * (guess). After a gap inside a frame's payload the stream stays in step, since the frame's length is known;
 * after one that swallowed a header the next segment that fits begins a frame. Fragments are joined, control
 * frames between them come out at once, masks are taken off, permessage-deflate is undone. Compressed text
 * after a gap can't be read where the window lives on (context takeover).
 *
 * Limits: TAP_MESSAGE_MAX bytes of a message are kept (cut says so, `bytes` goes on counting), the text of a
 * compressed one may grow to TAP_TEXT_MAX before its connection's window is given up, an HTTP head has
 * TAP_HEAD_MAX.
 *
 * Must not know: files, what messages mean. */
#ifndef WIRE_TAP_H
#define WIRE_TAP_H

#include "util/buf.h"
#include "wire/deflate.h"
#include "wire/tcp.h"
#include "wire/ws.h"

#define TAP_MESSAGE_MAX (4u << 20)
#define TAP_TEXT_MAX    (16u << 20)
#define TAP_HEAD_MAX    (64u << 10)

enum tap_kind {
    TAP_UNKNOWN,
    TAP_WEBSOCKET,
    TAP_HTTP,  /* without an upgrade */
    TAP_TLS,   /* recognised, not read */
    TAP_OTHER, /* something else */
    TAP_KINDS
};
const char *tap_kind_name(enum tap_kind k);

struct tap_message {
    struct tcp_flow *flow;
    int dir; /* 0: from the client */
    enum ws_opcode opcode;
    const uint8_t *p; /* n bytes are here: all of it if complete, else what came before the first hole */
    size_t n;
    uint64_t bytes;     /* of the whole message, as far as known */
    uint64_t from, end; /* its place in the direction's stream: first header to behind the last byte */
    uint64_t due;       /* where it would end, when its last frame is known but not all there; else end */
    uint64_t first_ns, ts_ns;
    uint32_t fragments;
    bool complete;   /* every byte was captured and read */
    bool cut;        /* longer than we keep */
    bool compressed; /* with permessage-deflate; p is the text */
    bool unreadable; /* compressed, and its window is not known: p is empty */
    bool guess;      /* the stream's frames were found without their handshake */
};

struct tap_side {
    uint8_t state; /* tap_impl.h */
    uint8_t head[WS_HEADER_MAX], head_n, message_opcode, tries;
    bool in_payload, message_rsv1, holed, cut, guess, window_lost, dry;
    uint8_t control_n;
    uint32_t fragments;
    uint64_t left, frame_len, message_bytes, message_from, frame_from, first_ns;
    struct ws_header h;
    struct buf held; /* of an HTTP head, then of an incomplete message */
    struct ws_inflate *z;
    uint8_t control[WS_CONTROL_MAX];
};

struct tap_conn { /* tcp_flow.user */
    enum tap_kind kind;
    bool asked, answered; /* the upgrade */
    struct ws_deflate deflate;
    char subprotocol[32]; /* as the server chose, cut */
    char path[64];        /* as the client asked for, cut */
    uint64_t messages[2], tls_bytes[2];
    struct tap_side side[2];
    void *user;
};
static inline struct tap_conn *tap_conn(const struct tcp_flow *f)
{
    return f->user;
}

struct tap_events { /* any may be NULL */
    void *arg;
    void (*open)(void *arg, struct tcp_flow *f);
    void (*message)(void *arg, const struct tap_message *m);
    /* TCP told of an acknowledgement; for those who wait for one. */
    void (*acked)(void *arg, struct tcp_flow *f, int dir, uint64_t ts_ns);
    void (*gap)(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why);
    void (*close)(void *arg, struct tcp_flow *f); /* its tap_conn is still there */
};

struct tap_counts {
    uint64_t conns[TAP_KINDS], messages, incomplete, cut, unreadable, bombs, bad_frames, resyncs, guesses;
};

struct tap {
    struct tcp tcp;
    struct tap_events on;
    struct buf text; /* of the compressed message at hand */
    struct tap_counts count;
};

/* The table's events are the tap's own; c->on is not used. tap_release in any case. */
int tap_init(struct tap *t, const struct tcp_config *c, const struct tap_events *on, struct err_ctx *ctx);
static inline void tap_packet(struct tap *t, const struct packet *k, uint32_t point, uint64_t ts_ns,
                              uint64_t number)
{
    tcp_packet(&t->tcp, k, point, ts_ns, number);
}
static inline void tap_finish(struct tap *t)
{
    tcp_finish(&t->tcp);
}
void tap_release(struct tap *t);

#endif

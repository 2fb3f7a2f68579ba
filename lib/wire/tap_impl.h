/* Inside the room: a direction of a connection, and what is done with its bytes in each state. */
#ifndef WIRE_TAP_IMPL_H
#define WIRE_TAP_IMPL_H

#include "wire/tap.h"

enum tap_state {
    TAP_START,   /* nothing known yet */
    TAP_HEAD,    /* inside an HTTP head */
    TAP_IDLE,    /* HTTP, between heads */
    TAP_WAIT,    /* the client asked for the upgrade */
    TAP_FRAMES,  /* in step with the frames */
    TAP_RESYNC,  /* looking for a frame */
    TAP_IGNORED, /* not ours */
    TAP_CLOSED,  /* behind a close frame */
};

#define TAP_INFLATE_BYTES (40u << 10) /* what an inflater is charged for */

struct tap_at { /* where a piece of a direction's bytes stands */
    struct tap *t;
    struct tcp_flow *f;
    struct tap_conn *c;
    struct tap_side *s;
    int dir;
    uint64_t at, ts_ns;
};

/* tap.c */
void tap_set_kind(struct tap_at *a, enum tap_kind kind);
void tap_ignore(struct tap_at *a, enum tap_kind kind);
void tap_hold(struct tap_at *a, const void *p, size_t n);
void tap_drop_held(struct tap *t, struct tap_side *s);

/* tap_ws.c: takes bytes in TAP_FRAMES. */
void tap_frames(struct tap_at *a, uint8_t *p, size_t n);
void tap_frames_gap(struct tap_at *a, uint64_t n);
/* Does a frame begin here, as far as one can tell? */
bool tap_fits(const struct tap_side *s, const uint8_t *p, size_t n);
/* Give what there is of an open message, as incomplete. */
void tap_abandon(struct tap_at *a);
void tap_lose_window(struct tap_at *a);

/* tap_http.c */
enum tap_first { FIRST_MORE, FIRST_REQUEST, FIRST_ANSWER, FIRST_TLS, FIRST_OTHER };
enum tap_first tap_classify(const uint8_t *p, size_t n);
/* The head that lies whole in p. */
void tap_http_head(struct tap_at *a, const char *p, size_t n);

#endif

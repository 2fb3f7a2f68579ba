/* A toxic: one thing that the proxy does to streams, where, when, and to whom. As text it is a SPEC
 *
 *     latency:delay=40ms,jitter=5ms            cut:id=0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f,dir=down,at=50%
 *     stall:after=5s,for=2s,every=10s          reset:share=20%,after=3s
 *     profile=lte-lossy,delay=60ms             a link profile, as far as a stream can have it
 *
 * toxics.def lists the words. Pure: no socket, no clock; a profile may be read from a file. */
#ifndef NETEM_PROXY_TOXIC_H
#define NETEM_PROXY_TOXIC_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "util/buf.h"
#include "util/err.h"
#include "util/id.h"

#define PROXY_TOXICS_MAX 32  /* at one time, in one proxy */
#define PROXY_SPEC_MAX   512 /* characters */

enum proxy_kind {
#define KIND(name, word, takes, needs, help) PROXY_##name,
#include "netem/proxy/toxics.def"
    PROXY_PROFILE,
    PROXY_KINDS
};

enum proxy_how { PROXY_BY_CLOSE, PROXY_BY_RESET, PROXY_BY_HALF_OPEN };
enum proxy_of { PROXY_OF_DATA, PROXY_OF_CONTROL, PROXY_OF_ALL };
enum { PROXY_SIDE_CLIENT = 1, PROXY_SIDE_SERVER = 2 };

/* Where in a frame: bytes, or a share of it. */
struct proxy_place {
    bool share;
    uint64_t n; /* bytes or ppm */
};

struct proxy_toxic {
    uint32_t number; /* its name for `remove`, from 1, never reused */
    enum proxy_kind kind;
    enum proxy_how how;
    enum proxy_of of;
    uint8_t ways; /* bit NETEM_UP, bit NETEM_DOWN */
    uint8_t side; /* PROXY_SIDE_ bits */
    uint32_t share_ppm, prob_ppm;
    uint64_t conn, times, copies, nth, each; /* 0: not said (copies: at least 1) */
    uint64_t after_ns, for_ns, every_ns, delay_ns, jitter_ns;
    uint64_t rate_bps, size, vary, bytes;
    struct proxy_place at;
    struct id id;
    bool has_id;
    char id_text[ID_TEXT];                          /* lower case */
    uint8_t text_back[ID_TEXT], raw_back[ID_BYTES]; /* failure tables (Knuth, Morris, Pratt 1977) */
    struct netem_profile *profile;                  /* PROXY_PROFILE only; owned */
    uint64_t added_ns, hits;                        /* hits: how often it acted */
    char spec[PROXY_SPEC_MAX];
};

/* ERR_INVALID or ERR_RANGE name the word. On success the toxic owns memory. */
int proxy_toxic_parse(struct proxy_toxic *t, const char *spec, struct err_ctx *ctx);
/* The profile is copied. ERR_NOMEM. */
int proxy_toxic_of_profile(struct proxy_toxic *t, const struct netem_profile *profile, struct err_ctx *ctx);
void proxy_toxic_release(struct proxy_toxic *t);

/* Does it act at a frame? Then connections must be followed as WebSocket from their first byte. */
bool proxy_toxic_by_frame(const struct proxy_toxic *t);
/* Does it act at a place of the stream (frame or byte)? */
static inline bool proxy_toxic_by_place(const struct proxy_toxic *t)
{
    return t->bytes || proxy_toxic_by_frame(t);
}
/* Appends the kinds and words, a line each. */
void proxy_toxic_help(struct buf *out);
const char *proxy_kind_word(enum proxy_kind k);

#endif

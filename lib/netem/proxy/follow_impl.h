/* Inside the room: reads along with both directions of a connection: the WebSocket handshake, then frame by
 * frame, into fragmented and compressed messages, for the ids of messages. Holds no payload. What is no
 * WebSocket, or stops being it, is plain from there on. Never judges: what a peer would refuse is passed all
 * the same. */
#ifndef NETEM_PROXY_FOLLOW_IMPL_H
#define NETEM_PROXY_FOLLOW_IMPL_H

#include "netem/proxy/rules.h"
#include "wire/deflate.h"
#include "wire/ws.h"

#define FOLLOW_TEXT_MAX                                                                                      \
    (64ull << 20) /* text of one compressed message; past it ids are not seen any more                       \
                   */

enum follow_phase { FOLLOW_HEAD, FOLLOW_FRAMES, FOLLOW_PLAIN };

/* Looks for ids in a text that comes in pieces. */
struct search {
    uint8_t text_at[PROXY_TOXICS_MAX], raw_at[PROXY_TOXICS_MAX]; /* how much of each id was matched */
    uint8_t key_at;                                              /* progress of the key "id" and its value */
    char key[ID_TEXT];
    struct id id; /* the first value of a key "id" in this message */
    bool has_id;
};

struct follow_way {
    enum follow_phase phase;
    struct buf head; /* of the handshake, while it is not whole */
    uint8_t header[WS_HEADER_MAX], header_n;
    bool in_frame, binary, compressed, unreadable; /* the message; unreadable: its text is not known */
    struct ws_header h;
    uint64_t left;                  /* payload of this frame still to come */
    uint64_t frames, data, control; /* frames begun so far */
    struct ws_inflate *inflate;
    struct search search;
};

struct follow {
    const struct proxy_rules *rules;
    bool asked; /* a request for an upgrade went up */
    struct ws_deflate deflate;
    bool other_extension;
    struct follow_way way[2];
};

struct follow_step {
    bool begin, end; /* a frame: its header is whole; it is over */
    size_t header_n; /* begin: its bytes (some may have come with earlier pieces) */
    uint32_t found;  /* toxics whose id ended in these bytes */
};

struct follow *follow_new(const struct proxy_rules *rules); /* NULL: no memory */
void follow_free(struct follow *f);
/* Read along with a piece; returns how many of its bytes were taken, at least 1 of n > 0. */
size_t follow_next(struct follow *f, enum netem_dir d, const char *p, size_t n, struct follow_step *s);
/* Both directions are frames from here (tests, captures). */
void follow_assume(struct follow *f, const struct ws_deflate *deflate);

void search_reset(struct search *s);
/* Feeds a piece; binary: the 16 raw bytes of an id count too. Returns the toxics whose id ended in it. */
uint32_t search_feed(struct search *s, const struct proxy_rules *r, bool binary, const uint8_t *p, size_t n);

#endif

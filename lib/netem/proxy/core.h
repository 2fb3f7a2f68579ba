/* One connection through the proxy, as a state machine over bytes and time: no socket, no clock. The driver
 * puts in what it read, asks what it may write, and does what proxy_conn_verdict says.
 *
 * A direction ("way") is a queue: bytes come in, frames are followed, places where something happens are
 * marked, each byte gets the time at which it may leave, and at the far end rate, slices, stalls and
 * blackholes decide. Order of effects is fixed: place of a fault, delay, stall, blackhole, rate, slicer.
 * Several delays add up, of several rates the smallest holds.
 *
 * Decisions come from (seed, number of the toxic, number of the connection, direction, number of the frame or
 * place in the stream) alone: the same bytes on connections that come in the same order meet the same faults
 * at the same bytes. Exception, stated: a fault by id in a frame of more than half the buffer may fall behind
 * its place `at`, since what was passed on cannot be taken back; it still falls into that frame.
 *
 * Memory: at most about 4 x buffer_max a way (a queue that doubles, and a frame that is said
 * again, which must fit in buffer_max with all its copies);
 * none when nothing waits. Allocation that fails ends the connection as a reset, and is said. */
#ifndef NETEM_PROXY_CORE_H
#define NETEM_PROXY_CORE_H

#include "netem/link.h"
#include "netem/proxy/rules.h"

enum proxy_end {
    PROXY_GOES_ON,
    PROXY_ENDS_CLOSE,  /* all that was due is written: FIN to both sides */
    PROXY_ENDS_RESET,  /* RST to both sides, at once */
    PROXY_ENDS_SILENT, /* leave the sockets in proxy_conn_silent() open and untouched, reset the other */
};

/* Something was injected, or stopped being possible. */
struct proxy_event {
    uint64_t now_ns, conn, offset,
        frame; /* offset: bytes of the direction before it; frame: 0 when there is none */
    const struct proxy_toxic *toxic; /* NULL: none */
    /* The kind's word, or "not-followed" (no WebSocket, or not from its first byte: faults by frame cannot
     * be), "not-placed" (too many places ahead), "frame-too-large" (to be said again), "out-of-memory" */
    const char *what;
    enum netem_dir dir;
    bool has_id, by_place;
    struct id id;
};
typedef void proxy_note(void *arg, const struct proxy_event *e);

struct proxy_conn; /* opaque */

/* `rules` must outlive it. NULL: no memory. */
struct proxy_conn *proxy_conn_new(const struct proxy_rules *rules, uint64_t number, uint64_t now_ns,
                                  proxy_note *note, void *arg);
void proxy_conn_free(struct proxy_conn *c);

/* How many bytes the direction takes now; 0: stop reading. */
size_t proxy_conn_room(const struct proxy_conn *c, enum netem_dir d);
/* At most that many. */
void proxy_conn_put(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const void *p, size_t n);
/* The sender's FIN or RST. */
void proxy_conn_put_fin(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);
void proxy_conn_put_reset(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);

/* Bytes that may be written now (good until the next call), then how many of them were. */
size_t proxy_conn_ready(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const char **p);
void proxy_conn_took(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n);
/* True once: pass the FIN on. */
bool proxy_conn_fin(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);

/* Time goes on: toxics that begin by time. Call it after the rules changed, and when proxy_conn_wake said so.
 */
void proxy_conn_tick(struct proxy_conn *c, uint64_t now_ns);
enum proxy_end proxy_conn_verdict(struct proxy_conn *c, uint64_t now_ns);
unsigned proxy_conn_silent(const struct proxy_conn *c); /* PROXY_SIDE_ bits */
/* When something may change by itself; UINT64_MAX: never. */
uint64_t proxy_conn_wake(struct proxy_conn *c, uint64_t now_ns);

/* Nothing waits and no toxic needs the bytes: the driver may carry them itself, and then says how many. */
bool proxy_conn_idle(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);
void proxy_conn_passed(struct proxy_conn *c, enum netem_dir d, uint64_t n);

uint64_t proxy_conn_bytes(const struct proxy_conn *c, enum netem_dir d);   /* taken in */
bool proxy_conn_followed(const struct proxy_conn *c);                      /* its frames are known */
bool proxy_conn_acted_on(const struct proxy_conn *c, unsigned toxic_slot); /* the toxic's share has it */

#endif

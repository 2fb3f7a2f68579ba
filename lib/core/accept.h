/* The accept path: request -> known id? -> batch -> group commit -> answer and fan out.
 *
 * Seq and tag are given when a batch is sealed; one batch flies at a time; a failed one rolls the heads back.
 * A retry of an id in flight joins it; `dup` is answered only after durability. A membership entry is a
 * barrier: what follows it in its chat waits for the next batch, so that each entry is judged by the
 * membership that holds at its seq.
 *
 * An id is looked up in memory, and in the store if that may know more: it knows nothing of ids younger than
 * `ask_before_ms`. Requests keep their order: those behind one that is looked up wait for it.
 *
 * Limits: ACCEPT_PENDING_MAX requests in flight (then `overloaded`), ACCEPT_KNOWN_MAX recent ids remembered
 * in memory (older ones are looked up in the store). Must not know: sockets, positions. */
#ifndef CORE_ACCEPT_H
#define CORE_ACCEPT_H

#include "core/counters.h"
#include "core/io.h"
#include "core/registry.h"
#include "crypto/keys.h"
#include "proto/proto.h"
#include "util/map.h"

#define ACCEPT_PENDING_MAX 50000u
#define ACCEPT_KNOWN_MAX   100000u
#define ACCEPT_FUTURE_MS   300000u /* an id may be this far ahead of our clock */

/* One request on its way into the log. */
struct pending {
    struct pending *next;
    struct known *known; /* NULL where ids are not looked at */
    uint64_t conn;       /* who asked first; 0 once it has left */
    uint64_t target;     /* join, leave, invite, remove: the user it is about */
    uint64_t *users;     /* create: first members */
    uint32_t users_n;
    struct entry e;         /* kind and body point into `text` */
    struct waiter *waiters; /* further connections that sent the same id */
    bool answered;          /* while it stood in the queue: nothing is left to do */
    char text[];
};
struct waiter {
    struct waiter *next;
    uint64_t conn;
};

enum known_state { KNOWN_READING, KNOWN_QUEUED, KNOWN_DURABLE };
/* An id that is in flight or was accepted lately. */
struct known {
    uint64_t sender;
    struct id id;
    uint8_t state;
    uint8_t content[16], tag[16];
    uint64_t chat, epoch, seq, ts_us;
    struct pending *pending;
    struct known *newer; /* durable ones, oldest first */
};

struct accept_ops {
    /* Entry `e` is durable (or, without a log, simply next): apply it, fan it out. `conn`: who sent it. */
    void (*committed)(void *arg, struct chat *c, const struct pending *p);
    /* Answer a connection about a send that is accepted. */
    void (*accepted)(void *arg, uint64_t conn, const struct known *k, bool dup);
    /* Answer a membership request. */
    void (*done)(void *arg, uint64_t conn, const struct pending *p);
    void (*refused)(void *arg, uint64_t conn, const struct pending *p, enum proto_error code,
                    uint32_t retry_ms);
    /* The store has taken these cursors, or (rc) has not. May be NULL. */
    void (*cursors)(void *arg, const struct cursor *list, size_t n, int rc);
    /* Nothing flies: a job that is not of this path and flies instead of the next batch, or NULL. It comes
     * back through extra_done, before anything else is sealed; its memory is its maker's. May be NULL. */
    struct commit_job *(*extra)(void *arg);
    void (*extra_done)(void *arg, struct commit_job *job);
};

struct accept {
    struct io *io;
    struct registry *registry;
    struct counters *counters;
    const struct keys *keys;
    const struct accept_ops *ops;
    void *arg;
    uint64_t epoch, seq_floor; /* no seq of this epoch lies below the floor (store_next_seq) */
    uint64_t last_ts_us, dedup_window_ms;
    uint64_t ask_before_ms; /* an id with an earlier time may be in the store and not in memory */
    bool log;               /* false: legacy without a log, nothing is committed */
    bool dedup;             /* false: legacy without retry, an id is not looked at */
    struct cursor *cursors; /* to save with the next batch */
    size_t cursors_n;
    struct map known;
    struct known *known_oldest, *known_newest;
    size_t durable_n, pending_n;
    struct pending *queue_first, *queue_last;
    struct pending *flying; /* in the order of the batch */
    struct commit_job *job;
    bool extra_waits; /* ops->extra has something */
    bool extra_flew;  /* the last one that flew was an extra: a batch has its turn */
    uint64_t changes; /* of memberships, committed so far */
    struct map held;  /* chat -> mono ns until which nothing is given a seq in it */
};

int accept_init(struct accept *a, struct io *io, struct registry *r, struct counters *c, const struct keys *k,
                const struct accept_ops *ops, void *arg, uint64_t epoch, bool log, bool dedup);
void accept_release(struct accept *a);

/* A message. Answers come through ops, now or later. */
void accept_send(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m);
/* create, join, leave, invite, remove. */
void accept_member(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m);
/* Cursors to save with the next batch; takes ownership. Only when accept_wants_cursors. */
static inline bool accept_wants_cursors(const struct accept *a)
{
    return a->log && !a->cursors;
}
void accept_cursors(struct accept *a, struct cursor *list, size_t n);
void accept_read_done(struct accept *a, struct read_job *job);
/* job is done: answers, fan-out, next batch. Frees the job. */
void accept_committed(struct accept *a, struct commit_job *job);
/* Seal and emit if nothing flies. Called after each event. */
void accept_seal(struct accept *a);
/* Seq, epoch, time and tag for an entry of an extra job; accept_take_back when it did not become durable. */
void accept_give_seq(struct accept *a, struct chat *c, struct entry *e);
void accept_take_back(struct chat *c);
/* What an id of this sender is known to be: NULL, or in flight (KNOWN_READING, KNOWN_QUEUED), or durable. */
const struct known *accept_known(struct accept *a, uint64_t sender, const struct id *id);
/* The entry stands in the log by another way: a send of the same id that waits is answered as a duplicate. */
void accept_adopt(struct accept *a, const struct entry *e);
/* Give no seq in this chat before then: somebody claims to know more of it than the store does. */
void accept_hold(struct accept *a, uint64_t chat, uint64_t until_ns);
void accept_release_hold(struct accept *a, uint64_t chat);
/* A new epoch holds from now on. */
void accept_enter_epoch(struct accept *a, uint64_t epoch, uint64_t first_seq);
bool accept_idle(const struct accept *a); /* nothing pending, nothing flying */

#endif

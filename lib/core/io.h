/* What a server-side step may ask of its world: effects, and jobs that come back as completion events.
 *
 * Nothing in core reads a clock, a random source, a socket or a file. `struct io` is all it has: the time it
 * was handed, a seeded generator, and emit. A world executes a job with job_run() on a thread of its own and
 * hands the same pointer back in a completion event. Must not know: transports, threads, drivers. */
#ifndef CORE_IO_H
#define CORE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/frame.h"
#include "proto/proto.h"
#include "store/store.h"
#include "trace/trace.h"
#include "util/clock.h"
#include "util/rng.h"

enum effect_kind {
    EFFECT_SEND,       /* queue `frame` on `link`; the world takes a reference */
    EFFECT_CLOSE,      /* send what is queued, then close with `code` */
    EFFECT_COMMIT,     /* run `commit` on the commit thread */
    EFFECT_READ,       /* run `read` on the reader thread */
    EFFECT_HTTP_REPLY, /* answer request `request` with `status` and `frame` (JSON) */
    EFFECT_BUS,        /* send `data` to node `to` (bus/bus.h); copied during the call */
    EFFECT_SHARED,     /* `order` for what nodes share of presence (presence/shared.h); likewise */
};

/* A new epoch to begin, in place of a batch (store_begin_epoch). */
struct epoch_job {
    bool wanted;
    uint64_t now_us, random, above;
    uint64_t epoch, first_seq; /* result */
};

/* Entries and cursors to make durable. Owned by the node; untouched by it until the completion. */
struct commit_job {
    struct store_batch batch;
    struct epoch_job begin;
    bool extra; /* not of the accept path (accept.h) */
    int rc;
    struct err_ctx err;
};

enum read_kind { READ_DEDUP, READ_CURSORS, READ_LOG, READ_MISSING, READ_OFFER, READ_RECEIPTS };

/* Where the store holds an entry that is offered. */
enum held { HELD_NOT, HELD_THERE, HELD_TAKEN /* another stands there */, HELD_ELSEWHERE /* the id does */ };
#define READ_MISSING_MAX 1024u /* ranges */

struct log_entries { /* entries with their kinds and bodies in one block */
    struct entry *list;
    size_t n, cap;
    char *text;
    size_t text_len, text_cap;
    bool failed; /* out of memory: the page is not whole */
};

/* Copy an entry to the end; false: no memory (`failed`), or the page is full. Pointers into the list are good
 * after the settling, when its text has stopped moving. */
bool log_entries_add(struct log_entries *l, const struct entry *e);
void log_entries_settle(struct log_entries *l);

/* One read. The asker fills the inputs and `owner`; job_run fills rc and the outputs; the asker frees it. */
struct read_job {
    enum read_kind kind;
    int rc;         /* 0, or the store's error */
    uint64_t owner; /* meaning of the asker */
    void *owner_ptr;
    /* READ_DEDUP */
    uint64_t sender;
    struct id id;
    struct dedup dedup;
    bool found;
    /* READ_CURSORS: (user, device) in each chat; a chat without a row keeps delivered = UINT64_MAX */
    uint64_t user;
    uint32_t device;
    struct cursor *cursors;
    size_t cursors_n, cursors_cap;
    /* READ_RECEIPTS: into `cursors` the maximum over each user's devices, by user; of the seqs in `own` those
     * stay whose entry `user` has sent. `sender`: who has sent the last of them; 0: no message stands there
     */
    uint64_t *own;
    size_t own_n;
    /* READ_LOG: seq > after (or ts >= since_us when that is set) and <= upto */
    uint64_t chat, after, upto, since_us;
    uint32_t limit;
    size_t bytes_max;
    struct log_entries entries;
    /* READ_MISSING: the ranges of seq in (after, upto] where nothing stands, rising; beyond READ_MISSING_MAX
     * it ends early, and upto is where */
    struct msg_range *missing;
    size_t missing_n, missing_cap;
    /* READ_OFFER: held[i] of offered[i], all of one chat (both the asker's), and all member rows of it */
    const struct entry *offered;
    uint8_t *held;
    size_t offered_n;
    struct member_row *members;
    size_t members_n, members_cap;
};

void job_run_read(struct store *s, struct read_job *job);
void job_run_commit(struct store *s, struct commit_job *job);
void read_job_free(struct read_job *job);

struct shared_order;
struct effect {
    enum effect_kind kind;
    void *link; /* the world's handle of a connection, as it came with NODE_OPEN */
    struct shared_frame *frame;
    int code;
    const char *text;
    uint64_t request;
    struct commit_job *commit;
    struct read_job *read;
    const char *data;
    size_t len;
    uint16_t to;
    const struct shared_order *order;
};

struct io {
    void (*emit)(void *arg, const struct effect *e);
    void *arg;
    struct rng rng;
    struct now now;             /* set by each step */
    struct trace_writer *trace; /* may be NULL */
};

#endif

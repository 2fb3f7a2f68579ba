/* What a restored store has lost comes back from its clients: offers, verified and written at their own seq.
 *
 * A copy proves itself by its tag (crypto/keys.h), whoever brings it, and takes the place that the tag names:
 * seq, id, sender and time stay. Each offer is checked against the store (READ_OFFER), then committed as one
 * batch with its dedup and log rows and with one entry `recovered {ranges}` at the chat's head, which makes
 * the members sync them. Removals count before what they undo, however late they come: memberships are ranges
 * of seq, recomputed from the store's rows and the entries that come back, so a join that returns is closed
 * by a removal that stands after it. An entry that is there already is answered as ok: two clients that offer
 * the same message yield one.
 *
 * A copy from ahead of the current epoch's head, or of a generation not below it, says that the store is a
 * copy that nobody noticed (its mark went back with it): ops->contradicted begins a new epoch first.
 *
 * While a window is open, clients are asked: `report` at their hello, READ_MISSING for each chat of which
 * they hold more than the store held when the epoch began, `ask` for what is missing. A user has answered
 * when nothing asked of one of its devices is open. Offers are taken at any time, also after the window.
 *
 * Limits: RECOVER_OFFERS_MAX offers wait, then `overloaded`; one is committed at a time. Side tables only:
 * nothing in sessions, nothing while no window is open and nothing is offered. Must not know: sockets,
 * sessions. */
#ifndef CORE_RECOVER_H
#define CORE_RECOVER_H

#include "core/accept.h"

#define RECOVER_OFFERS_MAX 10000u
#define RECOVER_FAR                                                                                          \
    4096u /* how far back is looked in a chat whose head at the epoch's begin is not known                   \
           */

enum recover_refusal {
#define R(NAME, code, text) RECOVER_##NAME,
#include "core/recover.def"
#undef R
    RECOVER_REFUSALS
};
const char *recover_refusal_code(enum recover_refusal r);
const char *recover_refusal_text(enum recover_refusal r);

struct recover_refused {
    struct id id;
    uint64_t seq, from;
    enum recover_refusal why;
};

/* One offer on its way. */
struct offer {
    struct offer *next;
    uint64_t conn, user, chat;
    bool more;
    bool reading, read, flying;
    uint64_t changes; /* accept's, when it was read */
    struct entry *entries;
    uint8_t *held; /* enum held */
    uint32_t n;
    struct recover_refused *refused;
    uint32_t refused_n, ok;
    struct member_row *members; /* of the chat, when it was read */
    size_t members_n;
    struct entry recovered; /* the entry that tells of it */
    char *text;             /* kinds and bodies */
    char *ranges;           /* body of `recovered` */
};

/* A user's membership that an offer has changed, as it is now; from UINT64_MAX: none. */
struct recover_member {
    uint64_t user, from;
    uint8_t role;
};

struct recover_ops {
    /* All of the offer is in the log or refused. */
    void (*answered)(void *arg, const struct offer *o);
    /* Entries came back: apply these memberships, then tell of o->recovered. */
    void (*back)(void *arg, struct chat *c, const struct offer *o, const struct recover_member *m, size_t n);
    /* A tag proves that the store lacks what this epoch, or one of this generation, gave out. */
    void (*contradicted)(void *arg, const struct entry *e);
    /* The window has ended, durably. */
    void (*closed)(void *arg);
    /* A copy was refused. */
    void (*refused)(void *arg, const struct offer *o, const struct recover_refused *r);
};

struct recover_counts {
    uint64_t entries, accepted, known, messages, refused[RECOVER_REFUSALS];
    uint64_t asked, answered; /* devices */
    uint64_t epochs_begun;
};

struct recover {
    struct io *io;
    struct registry *registry;
    struct accept *accept;
    const struct recover_ops *ops;
    void *arg;
    bool open;             /* clients are asked */
    bool closing, expired; /* closing: nobody is waited for; expired: though some have not answered */
    uint64_t since_us, until_us, opened_us,
        ended_us;                   /* the window; when asking began and ended, 0: not yet */
    struct map floors;              /* chat -> its head when the epoch began */
    struct map asking;              /* conn -> what it has not answered yet */
    uint8_t *answered;              /* a bit a user, by number */
    uint32_t users, users_answered; /* those known when the window opened */
    struct offer *first, *last;
    uint32_t offers;
    struct commit_job job;
    struct epoch_job begin; /* wanted: flies before anything else */
    struct recover_counts counts;
};

void recover_init(struct recover *r, struct io *io, struct registry *registry, struct accept *a,
                  const struct recover_ops *ops, void *arg);
void recover_release(struct recover *r);

/* The window opens: what was said from `since` to `until` may be lost. Heads are read from the registry:
 * those of chats that have entries of the current epoch already are not known, and looked for from
 * RECOVER_FAR before the client's. ERR_NOMEM. */
int recover_open(struct recover *r, uint64_t since_us, uint64_t until_us, uint64_t epoch);
/* It ends by itself when everybody has answered; or now, since nobody waits any longer. */
void recover_expire(struct recover *r);
bool recover_has_answered(const struct recover *r, const struct user *u);

/* A device was sent `report`; its answer; its connection is gone. */
void recover_asked(struct recover *r, uint64_t conn);
void recover_report(struct recover *r, uint64_t conn, const struct user *u, const struct msg *m);
void recover_gone(struct recover *r, uint64_t conn);
/* READ_MISSING came back: true when `ask` shall be said (job->missing). */
bool recover_missing(struct recover *r, const struct read_job *job, const struct user *u);

/* An offer. Answers come through ops, now or later. */
void recover_offer(struct recover *r, uint64_t conn, const struct user *u, const struct msg *m);
/* An ask is answered (the offer came without `more`). */
void recover_answered(struct recover *r, uint64_t conn, const struct user *u);
void recover_read_done(struct recover *r, struct read_job *job); /* READ_OFFER */
/* Begin a new epoch, above this generation. */
void recover_begin_epoch(struct recover *r, uint64_t above);

/* For accept's ops: what flies next, and that it came back. A failed commit refuses the offer (overloaded).
 */
struct commit_job *recover_extra(struct recover *r);
void recover_extra_done(struct recover *r, struct commit_job *job);

#endif

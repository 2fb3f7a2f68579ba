/* The invariants of design.md section 7, checked while a world runs: told of each commit, each frame that the
 * server sends and each effect of each client, it knows at every step whether something is wrong. What it
 * believes comes from the commits (what the disk said it holds) and from the clients, never from the node's
 * memory. Each call costs a few look-ups, whatever the history's length; a reopened store is read whole.
 *
 * The first violation is kept with its sentence; after it nothing more is checked. Memory: about 100 bytes a
 * message, 32 a log entry, 100 a (device, chat). A checker without memory aborts.
 *
 * Must not know: nodes, clients, sockets. */
#ifndef AUDIT_LIVE_H
#define AUDIT_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"
#include "util/err.h"

enum live_kind {
#define LIVE(ID, name, number, text) LIVE_##ID,
#include "audit/live.def"
#undef LIVE
    LIVE_KIND_COUNT
};
const char *live_kind_name(enum live_kind k);
const char *live_kind_text(enum live_kind k);
int live_kind_number(enum live_kind k); /* of the invariant */

/* What the server promises. A promise that is not made is not checked. */
struct live_promises {
    bool log;      /* nothing is pushed or acknowledged before it is committed */
    bool dedup;    /* an id is taken once */
    bool resumes;  /* devices are brought up to date; holes are announced */
    bool recovers; /* what a restore took comes back from devices, to its place, and to who never had it */
    bool copies;   /* devices keep what they were shown, and know it by its id */
    bool typing;   /* is a state with an end */
    bool presence; /* who is there is known within 30 s */
    /* members of a chat up to which each is told who has got and read how much; 0: nobody is told */
    uint32_t receipts_each;
};

struct live;
struct live *live_new(const struct live_promises *p);
void live_free(struct live *l);

struct live_violation {
    enum live_kind kind;
    uint64_t chat;
    struct id id; /* of the message it is about; zero: of none */
    char text[200];
};
/* NULL: all is well so far. */
const struct live_violation *live_violation(const struct live *l);

/* ---- the server's side ---- */

/* The batch is durable. */
void live_committed(struct live *l, const struct store_batch *b);
/* A cursor as the store holds it now. */
void live_cursor(struct live *l, const struct cursor *c);
/* A frame with a message, or with `accepted`, goes to a user. */
void live_pushed(struct live *l, uint64_t user, uint64_t chat, uint64_t seq, const struct id *id);
void live_acknowledged(struct live *l, uint64_t user, uint64_t chat, const struct id *id);
/* The server's store was put back to an earlier state: the next live_reopened may find less. */
void live_restored(struct live *l);
/* The same, but nobody will notice: seqs are given out again. Nothing is checked any more. */
void live_blinded(struct live *l);
/* The server starts: what does the store hold? `owns`: which chats should be in it, of several nodes' stores;
 * NULL: all. */
int live_reopened(struct live *l, struct store *s, bool (*owns)(void *arg, uint64_t chat), void *arg,
                  struct err_ctx *ctx);

/* ---- the clients' side ---- */

/* `strict`: this device shows in order, without holes, and keeps an outbox. */
void live_device(struct live *l, uint64_t user, uint32_t device, bool strict);
/* A person said something; `keeps`: it waits in an outbox until it is accepted or given up. */
void live_submitted(struct live *l, uint64_t user, uint64_t chat, const struct id *id, bool keeps);
void live_accepted(struct live *l, uint64_t user, uint64_t chat, uint64_t epoch, uint64_t seq,
                   const struct id *id);
void live_gave_up(struct live *l, const struct id *id);
void live_shown(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t epoch, uint64_t seq,
                uint64_t from, const struct id *id);
/* It was passed over, since this device had shown the same message at another place (or said it). */
void live_passed(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t epoch, uint64_t seq,
                 uint64_t from, const struct id *id);
/* `empty`: the server says that nothing ever stood there; else, that the device is not sent it. */
void live_gap(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t from, uint64_t to,
              bool empty);
/* The device lost what it knew. */
void live_forgot(struct live *l, uint64_t user, uint32_t device);

/* The user says (again) that they type. */
void live_typed(struct live *l, uint64_t user, uint64_t chat, uint64_t now_ns);
/* A device shows, or no longer shows, that `typist` types. */
void live_typing(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t typist, bool shown,
                 uint64_t now_ns);
/* The user is connected, with their person before the device, or no longer; each has one device. */
void live_here(struct live *l, uint64_t user, bool there, uint64_t now_ns);
/* What a user's device shows of somebody from now on. */
enum live_shown { LIVE_SHOWN_NOTHING, LIVE_SHOWN_THERE, LIVE_SHOWN_GONE };
void live_presence(struct live *l, uint64_t user, uint64_t about, enum live_shown shown, uint64_t now_ns);
/* The device has what the server sent at this time: what the server said before, it has. What it shows is
 * judged up to then; what a link, or a server that stands still, keeps from it later nobody could tell it. */
void live_heard(struct live *l, uint64_t user, uint64_t now_ns);
/* Bytes of the user have reached the server: what was said before they had gone may come later than that, and
 * it is from then on that the server can know. */
void live_arrived(struct live *l, uint64_t user, uint64_t now_ns);
/* It shows nothing of anybody. */
void live_presence_lost(struct live *l, uint64_t user);
/* Time has passed: is anything shown for too long? Costs a walk over what is shown. */
void live_time(struct live *l, uint64_t now_ns);

/* A device sends hello with a claim, an acknowledgement, or that its person has read. */
void live_claims(struct live *l, uint64_t user, uint64_t chat, uint64_t seq);
void live_acks(struct live *l, uint64_t user, uint64_t chat, uint64_t seq);
void live_reads(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t seq);
/* It asks for a chat's receipts (no more), and shows one; or the number of those who have got and read a
 * message. */
void live_watches(struct live *l, uint64_t user, uint32_t device, uint64_t chat, bool on);
void live_receipt(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t of,
                  uint64_t delivered, uint64_t read);
void live_counted(struct live *l, uint64_t user, uint64_t chat, uint64_t seq, uint32_t delivered,
                  uint32_t read);

/* Who is in a chat now, invited ones (role 2) too; at most `max`. Returns how many. */
struct live_now {
    uint64_t user;
    uint8_t role;
};
uint32_t live_members(const struct live *l, uint64_t chat, struct live_now *out, uint32_t max);
bool live_knows(const struct live *l, uint64_t chat);

/* ---- the end ---- */

/* Faults are over: has everybody everything, and every outbox its answer? */
bool live_converged(struct live *l);
/* Of this, does everybody who watches see who has got and read what? */
bool live_receipts_settled(struct live *l);
/* They had the time: what is still missing is a violation. */
void live_finish(struct live *l);

struct live_counts {
    uint64_t messages, entries, shown, pushed, recovered;
};
void live_counts(const struct live *l, struct live_counts *out);

#endif

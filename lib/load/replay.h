/* From an incident to a script that re-enacts its clients (load/script.h): who was connected when, said what,
 * and lost which connection how.
 *
 * Of the link its effects are taken over, not its packets: a connection on which messages were lost before it
 * ended is frozen right before the first of them was said, and ends when it ended. Delays are not re-enacted.
 * One phone per user: the connections of further devices are counted and left out.
 *
 * Must not know: files, captures, sockets. */
#ifndef LOAD_REPLAY_H
#define LOAD_REPLAY_H

#include "load/load.h"
#include "load/script.h"
#include "trace/reader.h"
#include "util/map.h"

#define REPLAY_PAUSE_NS NS_PER_MS         /* at full speed no pause is longer than this */
#define REPLAY_LEAD_NS  (200 * NS_PER_MS) /* from the beginning to the first step */

struct replay_options {
    uint64_t speed_ppm;      /* 1,000,000: as recorded; 0: as fast as it goes */
    bool same_ids;           /* else fresh ones */
    int features;            /* of enum client_feature; < 0: as the source shows */
    const struct map *users; /* u64 -> u64: who acts as whom; NULL: everybody as themselves */
};

struct replay_person {
    uint64_t user;
    uint32_t device;
    uint8_t net;
    bool connected; /* at the beginning */
    uint32_t place; /* among the phones, by network */
};

struct replay {
    struct load_script script; /* named and arg are the owner's to set */
    struct load_population population[LOAD_POPULATIONS_MAX];
    uint32_t populations;
    uint64_t duration_ns;
    uint64_t oldest_ms, newest_ms; /* of the ids, by the time in them; 0: none */
    uint32_t says, presses, leaves, freezes;
    uint32_t bodies_unknown;      /* said with a placeholder */
    uint32_t connections_skipped; /* of further devices */
    /* under construction */
    struct map people, members, chats; /* user; {chat, user}; chat */
    struct replay_person *person;
    struct load_step *step;
    uint64_t *chat_of; /* of each step, its chat's number */
    uint32_t persons, persons_cap, steps_cap;
    bool reliable; /* the source's phones kept an outbox */
};

/* Building, in any order; then replay_finish. Times are the source's, ns. Errors are ERR_NOMEM, ERR_LIMIT.
 * Users and devices may be told again; the first device stays. Release in any case. */
void replay_init(struct replay *r);
int replay_person(struct replay *r, uint64_t user, uint32_t device, enum net net);
uint32_t replay_device(const struct replay *r, uint64_t user); /* the one that stays; 0: not known */
int replay_member(struct replay *r, uint64_t chat, uint64_t user);
void replay_connected(struct replay *r, uint64_t user); /* was so before the first step */
struct replay_act {
    uint64_t ts_ns, user, chat, intent;
    enum load_act act;
    enum reason reason;
    struct id id;
    struct slice body; /* of SAY and PRESS; empty: a placeholder */
};
int replay_add(struct replay *r, const struct replay_act *a);
/* Sorts, scales, numbers. ERR_INVALID: there is nothing to re-enact, or two act as one. */
int replay_finish(struct replay *r, const struct replay_options *o, struct err_ctx *ctx);
void replay_release(struct replay *r);

/* All of it from a trace that is joined: from the phones' records where there are some, else from the
 * servers'. */
int replay_from_trace(struct replay *r, const struct trace_run *run, const struct replay_options *o,
                      struct err_ctx *ctx);

#endif

/* Who is there: the last known state of each user, who watches whom, and what has changed since it was told.
 *
 * Only states are kept, never events: whoever comes (back) is given what holds now, and between two flushes
 * only the last state of a user counts. So a storm (a million come back at once) costs each watcher one word
 * a user, and a flush at most its budget.
 *
 * A user costs 4 bytes: 2 bits of state, 30 bits of seconds since PRESENCE_BEGIN_S (34 years), in pages of
 * 4 KiB; numbers are the registry's, so pages are full. A page's layout is what a shared copy would hold too.
 * Watching costs 16 bytes a (session, user) and about 60 for each watched user and each watching session.
 *
 * Pure: no clock, no socket. Users and sessions are numbers > 0 of the owner's; must not know what they are.
 */
#ifndef PRESENCE_PRESENCE_H
#define PRESENCE_PRESENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"
#include "util/map.h"
#include "util/slab.h"

#define PRESENCE_BEGIN_S     1735689600u /* 2025-01-01 UTC */
#define PRESENCE_PAGE        1024u       /* users */
#define PRESENCE_WATCH_MAX   256u        /* users that a session may watch */
#define PRESENCE_WATCHES_MAX 16777216u   /* of all sessions together */

enum presence_state { PRESENCE_UNKNOWN, PRESENCE_ONLINE, PRESENCE_AWAY, PRESENCE_OFFLINE };
const char *presence_state_name(enum presence_state s); /* "online" */
/* ERR_INVALID: no such word. */
int presence_state_parse(enum presence_state *s, const char *p, size_t n);

struct presence {
    uint32_t **pages;
    uint32_t pages_n;
    struct slab watches;
    struct map watched;  /* user -> struct watched (presence.c) */
    struct map watchers; /* session -> first watch, how many */
    uint32_t *dirty;     /* a ring of watched users whose state may differ from what was told; each once */
    uint32_t dirty_first, dirty_n, dirty_cap;
    uint64_t changes, told, smoothed; /* smoothed: changes that nobody needed to be told */
};

void presence_init(struct presence *p, uint64_t seed);
void presence_release(struct presence *p);

/* Since when: UTC seconds; for OFFLINE, when the user was last heard. ERR_NOMEM: the user stays UNKNOWN. */
int presence_set(struct presence *p, uint32_t user, enum presence_state s, uint64_t at_s);
/* *at_s (may be NULL) is 0 when it is not known. */
enum presence_state presence_get(const struct presence *p, uint32_t user, uint64_t *at_s);

/* Replace what a session watches (n = 0: nothing). Users come once each. ERR_LIMIT beyond PRESENCE_WATCH_MAX
 * changes nothing; after ERR_NOMEM or ERR_FULL (all sessions together) the session watches those that fitted.
 */
int presence_watch(struct presence *p, uint32_t session, const uint32_t *users, uint32_t n);
uint32_t presence_watching(const struct presence *p, uint32_t session); /* how many */
/* The session has ended. */
void presence_unwatch(struct presence *p, uint32_t session);

bool presence_is_watched(const struct presence *p, uint32_t user);
/* Walk over who is watched: *at starts at 0; false at the end. Nothing may begin or cease to be watched
 * meanwhile. */
bool presence_next_watched(const struct presence *p, size_t *at, uint32_t *user);

/* Whoever is watched and still UNKNOWN is OFFLINE: they had the time to come. */
void presence_settle(struct presence *p);

/* Tell watchers what has changed, until about `budget` words were said (one user's watchers are told
 * together); returns how many. The rest waits for the next flush. `tell` must not change what is watched. */
typedef void presence_tell(void *arg, uint32_t session, uint32_t user, enum presence_state s, uint64_t at_s);
uint32_t presence_flush(struct presence *p, uint32_t budget, presence_tell *tell, void *arg);

#endif

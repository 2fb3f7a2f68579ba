/* The shared copy in memory, on one thread and in virtual time: what Redis would keep and how it would fail,
 * for simulated worlds and tests. The world asks when something is due, and delivers it then. */
#ifndef PRESENCE_SHARED_MEM_H
#define PRESENCE_SHARED_MEM_H

#include "presence/shared.h"
#include "util/clock.h"

struct shared_mem;

enum shared_mem_state {
    SHARED_MEM_WELL,
    SHARED_MEM_KILLED, /* it forgets everything, and connections break at once */
    SHARED_MEM_FROZEN, /* what it is sent is done when it goes on; that nothing answers is found out in 3 s */
    SHARED_MEM_CUT,    /* likewise, but when it is found out what it was sent is lost; a cut shorter than that
                          only    delays, as TCP does */
};

int shared_mem_new(struct shared_mem **out, uint64_t delay_ns, struct err_ctx *ctx);
void shared_mem_free(struct shared_mem *m);
/* The shared copy as a node with this slot sees it (SHARED_NOBODY: one that keeps no users); SHARED_UP
 * follows. Closing it forgets what is on its way there, as a crash does. NULL: no memory, or the slot is in
 * use. */
struct shared *shared_mem_open(struct shared_mem *m, uint16_t slot, const struct shared_sink *sink);
/* Keep what is on its way to a node back (it was stopped), or let it go on. */
void shared_mem_hold(struct shared_mem *m, uint16_t slot, bool hold);
void shared_mem_set(struct shared_mem *m, enum shared_mem_state state);

/* Time from now on; set before steps that may send, and before shared_mem_set. */
void shared_mem_now(struct shared_mem *m, struct now now);
uint64_t shared_mem_next(const struct shared_mem *m); /* mono_ns; UINT64_MAX: nothing is due */
void shared_mem_deliver(struct shared_mem *m);        /* what is due by the time that was set */

#endif

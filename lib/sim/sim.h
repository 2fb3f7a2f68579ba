/* The simulated world: one process, a virtual clock, seeded randomness; links, TCP-like streams, a disk and
 * a server that can be killed, all in memory; the real node_step, client_step and phones.
 *
 * The earliest event is stepped next; ties are stepped in the order in which they were planned. Nothing reads
 * a clock or a kernel's dice, so (scenario, seed, commit) gives the same events on any machine and compiler:
 * the event hash says so. The invariants of lib/audit/live.h are checked at every step, and the first
 * violation stops the run.
 *
 * What the kernel and the disk do is a model: netem/link.h (radio), netem/stream.h (TCP), store/kv.h (a log
 * that loses what was not synced). A killed server keeps what it had written; a power cut does not. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "scenario/judge.h"
#include "scenario/scenario.h"
#include "scenario/world.h"
#include "store/store.h"
#include "util/buf.h"

struct sim;

struct sim_config {
    const struct scenario *scenario; /* must outlive the world */
    const char *dir;                 /* trace, journal and load.json go there; NULL: nothing is written */
    /* Told now and then how far it is (at, of: ns of the load); may be NULL. */
    void (*progress)(void *arg, const char *phase, uint64_t at_ns, uint64_t of_ns);
    void *arg;
    const volatile sig_atomic_t *interrupted; /* may be NULL */
    /* What has not arrived when the drain is over is a violation, not merely pending. Links are good then. */
    bool demand;
};

struct sim_result {
    uint64_t hash, events, virtual_ns;
    uint64_t messages, surfaced, commits, server_starts, sessions_max;
    bool drained;    /* everything owed had arrived */
    bool failed;     /* an invariant was broken */
    char what[24];   /* its name: "order" */
    char text[240];  /* the sentence */
    uint64_t at_ns;  /* virtual time since the load began, when it was */
    char doubt[200]; /* why the run proves nothing; "": it does */
};

int sim_new(struct sim **out, const struct sim_config *c, struct err_ctx *ctx);
void sim_free(struct sim *s);
/* For world_play(). Its report() stops everything and closes the files, and fills no facts: see the calls
 * below and scenario/evidence.h. */
struct world *sim_world(struct sim *s);
void sim_result(const struct sim *s, struct sim_result *out);
/* The last events that the violation is about, oldest first, one a line. */
void sim_story(const struct sim *s, struct buf *out);
/* What the phones measured: the object that chat-loadgen --json prints. */
void sim_load_json(const struct sim *s, struct buf *out);
/* Each entry of the server's store, as it is now, in commit order. */
int sim_store_scan(struct sim *s, bool (*fn)(void *arg, const struct entry *e), void *arg,
                   struct err_ctx *ctx);

#endif

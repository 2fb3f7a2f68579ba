/* What a world can do. The conductor plays one scenario in any of them: start, the load with its faults,
 * heal, drain, report. lib/run/chaos.c is the real world (processes, namespaces, the kernel's clock).
 *
 * `at` is ns since the load began; a world with a virtual clock advances it, the real one waits. */
#ifndef SCENARIO_WORLD_H
#define SCENARIO_WORLD_H

#include "scenario/judge.h"
#include "scenario/scenario.h"

enum world_phase { PHASE_LOAD, PHASE_HEAL, PHASE_DRAIN, PHASE_END };

struct world;
struct world_ops {
    const char *name; /* "real" */
    /* Everything up and the load begun. */
    int (*start)(struct world *w, const struct scenario *s, struct err_ctx *ctx);
    /* Let the world run until `at`. */
    int (*advance)(struct world *w, uint64_t at, struct err_ctx *ctx);
    int (*fault)(struct world *w, uint32_t index, struct err_ctx *ctx);
    /* The load has ended: every fault that still lasts is undone. */
    int (*heal)(struct world *w, struct err_ctx *ctx);
    /* Until nothing is on its way any more, at most s->drain. */
    int (*drain)(struct world *w, struct err_ctx *ctx);
    /* What was measured; everything is stopped by then. */
    int (*report)(struct world *w, struct judge_facts *facts, struct err_ctx *ctx);
};
/* The first member of each world's own struct. */
struct world {
    const struct world_ops *ops;
};

/* Plays the scenario: faults in the order of their times (ties: of the file). The first error ends it, except
 * ERR_INTERRUPTED, after which heal and drain are skipped and the report is still made (and ERR_INTERRUPTED
 * returned). */
int world_play(struct world *w, const struct scenario *s, struct judge_facts *facts, struct err_ctx *ctx);

#endif

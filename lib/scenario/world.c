#include "scenario/world.h"

#include <string.h>

/* The next fault in time after those in `done`; faults_n when none is left. */
static uint32_t next_fault(const struct scenario *s, uint64_t done)
{
    uint32_t best = s->faults_n;
    for (uint32_t i = 0; i < s->faults_n; i++) {
        if (!(done >> i & 1) && (best == s->faults_n || s->faults[i].at < s->faults[best].at))
            best = i;
    }
    return best;
}

static int play_load(struct world *w, const struct scenario *s, struct err_ctx *ctx)
{
    uint64_t done = 0;
    for (uint32_t i; (i = next_fault(s, done)) < s->faults_n; done |= 1ull << i) {
        int rc = w->ops->advance(w, s->faults[i].at, ctx);
        rc = rc ? rc : w->ops->fault(w, i, ctx);
        if (rc)
            return rc;
    }
    return w->ops->advance(w, s->duration, ctx);
}

int world_play(struct world *w, const struct scenario *s, struct judge_facts *facts, struct err_ctx *ctx)
{
    _Static_assert(SCENARIO_FAULTS_MAX <= 64, "one bit a fault");
    memset(facts, 0, sizeof *facts);
    int rc = w->ops->start(w, s, ctx);
    rc = rc ? rc : play_load(w, s, ctx);
    rc = rc ? rc : w->ops->heal(w, ctx);
    rc = rc ? rc : w->ops->drain(w, ctx);
    if (rc && rc != ERR_INTERRUPTED)
        return rc;
    int reported = w->ops->report(w, facts, rc ? NULL : ctx);
    return rc ? rc : reported;
}

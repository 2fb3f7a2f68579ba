#include <stdlib.h>
#include <string.h>

#include "sim/explore.h"
#include "sim/sim_impl.h"

/* What kept the run from being played at all is a finding, too. */
static void could_not(struct sim_result *out, const struct err_ctx *why)
{
    out->failed = true;
    snprintf(out->what, sizeof out->what, "stuck");
    snprintf(out->text, sizeof out->text, "%.*s", (int)sizeof out->text - 1, why->text);
}

int sim_trial(const struct scenario *scenario, const volatile sig_atomic_t *interrupted,
              struct sim_result *out, struct buf *story, struct err_ctx *ctx)
{
    struct sim *s;
    struct judge_facts *facts = calloc(1, sizeof *facts);
    struct sim_config c = {.scenario = scenario, .interrupted = interrupted, .demand = true};
    struct err_ctx why = {0};
    if (!facts)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    memset(out, 0, sizeof *out);
    int rc = sim_new(&s, &c, ctx);
    if (!rc) {
        rc = world_play(sim_world(s), scenario, facts, &why);
        sim_result(s, out);
        if (rc == ERR_INTERRUPTED || rc == ERR_NOMEM) {
            err_set(ctx, rc, "%s", why.text);
        } else if (rc) {
            could_not(out, &why);
            rc = 0;
        }
        if (story && out->failed)
            sim_story(s, story);
        sim_free(s);
    }
    free(facts);
    return rc;
}

/* apply, undo, verify: where the target stands against the plan, and the way there. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/chat-reconcile/plan.h"

#define TOLD_MAX 20

static int run(struct plan *p, bool undo, bool change, const struct opt_set *o, struct err_ctx *err)
{
    if (!strncmp(p->target, "jsonl:", 6))
        return plan_run_jsonl(p, p->target + 6, change, err);
    if (strncmp(p->target, "store:rocksdb:", 14) != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: cannot be changed", p->target);
    return undo ? plan_unrun_store(p, p->target + 14, change, err)
                : plan_run_store(p, p->target + 14, change, o, err);
}

static void tell(const struct plan *p, const struct opt_set *o, bool changed, uint64_t count[], int told)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct plan_item *x = &p->item[i];
        count[x->state]++;
        if (x->state >= ITEM_CONFLICT && told++ < TOLD_MAX && !opt_json(o))
            printf("item %" PRIu64 ": %s\n", x->n, x->why);
    }
    if (opt_json(o))
        printf("{\"items\":%zu,\"done\":%" PRIu64 ",\"to_do\":%" PRIu64 ",\"conflicts\":%" PRIu64
               ",\"cannot\":%" PRIu64 ",\"changed\":%s}\n",
               p->n, count[ITEM_DONE], count[ITEM_TO_DO], count[ITEM_CONFLICT], count[ITEM_CANNOT],
               changed ? "true" : "false");
    else
        printf("%s: %zu items, %" PRIu64 " done, %" PRIu64 " to do, %" PRIu64 " in conflict, %" PRIu64
               " for people%s\n",
               p->target, p->n, count[ITEM_DONE], count[ITEM_TO_DO], count[ITEM_CONFLICT], count[ITEM_CANNOT],
               count[ITEM_TO_DO] && !changed ? "; nothing was changed (--yes)" : "");
}

static int whole(const struct opt_set *o, bool undo, bool change, int *status, struct err_ctx *err)
{
    struct plan p;
    uint64_t count[ITEM_CANNOT + 1] = {0};
    int rc = plan_read(&p, opt_operand(o, 0), err);
    if (rc)
        return rc;
    if (undo)
        plan_reverse(&p);
    tool_watch_signals();
    rc = run(&p, undo, change, o, err);
    if (!rc || rc == ERR_INTERRUPTED) {
        tell(&p, o, change, count, 0);
        *status = count[ITEM_CONFLICT] + count[ITEM_CANNOT] ? 2 : count[ITEM_TO_DO] ? 1 : 0;
    }
    plan_release(&p);
    return rc;
}

int tool_apply(const struct opt_set *o, int *status, struct err_ctx *err)
{
    return whole(o, false, opt_flag(o, "yes"), status, err);
}

int tool_undo(const struct opt_set *o, int *status, struct err_ctx *err)
{
    return whole(o, true, opt_flag(o, "yes"), status, err);
}

int tool_verify(const struct opt_set *o, int *status, struct err_ctx *err)
{
    return whole(o, false, false, status, err);
}

#include "netem/kernel/kernel_impl.h"

#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>

#include "netem/link.h"
#include "util/clock.h"

#define RENEW_NS (2 * NS_PER_MS)
#define EDGE_MAX (60 * NS_PER_S) /* nobody sleeps longer */

enum sky { CLEAR, HELD, DARK };

struct kernel_weather {
    const struct kernel_plan *plan;
    struct nl_sock *nl;
    struct link link;
    enum sky sky;
    struct link_window window; /* when not CLEAR */
};

static uint64_t end_of(const struct link_window *w)
{
    return w->start_ns + w->length_us * NS_PER_US;
}

static enum sky sky_of(struct link *l, uint64_t now_ns, struct link_window *w)
{
    switch (link_state(l, now_ns)) {
    case LINK_BLACKOUT:
    case LINK_BLACKOUT_LOSES:
        *w = l->blackout;
        return DARK;
    case LINK_HANDOVER:
    case LINK_HANDOVER_LOSES:
        *w = l->handover;
        return DARK;
    case LINK_CELL:
        *w = l->cell;
        return HELD;
    case LINK_STALLED:
        *w = l->stall;
        return HELD;
    default:
        return CLEAR;
    }
}

/* One of the plan's two netems with what the sky adds. */
static int put(struct kernel_weather *w, const struct kernel_step *step, uint64_t left_ns,
               struct err_ctx *ctx)
{
    struct kernel_step s = *step;
    struct nl_msg *m;
    int index = strcmp(s.dev, w->plan->dev.name) ? kernel_index_of(w->nl, s.dev) : w->plan->dev.index;
    if (w->sky == DARK) {
        s.netem.gemodel = false;
        s.netem.loss = UINT32_MAX;
        s.netem.loss_cor = 0;
    } else if (w->sky == HELD) {
        s.netem.delay_ns += left_ns / 1000 * 1000;
        s.netem.reorder = 0; /* nothing overtakes what is held */
        s.netem.gap = 0;
    }
    if (kernel_message(&m, &s, index, 0))
        return err_set(ctx, ERR_NOMEM, "a netlink message");
    int rc = kernel_ask(w->nl, m);
    return rc ? kernel_nl_failed(rc, "changing netem", ctx) : 0;
}

static int put_all(struct kernel_weather *w, uint64_t left_ns, struct err_ctx *ctx)
{
    int rc = 0;
    for (unsigned i = 0; i < w->plan->steps && !rc; i++)
        if (w->plan->step[i].op == KERNEL_NETEM && w->plan->step[i].handle == KERNEL_AIR)
            rc = put(w, &w->plan->step[i], left_ns, ctx);
    return rc;
}

int kernel_weather_new(struct kernel_weather **out, const struct kernel_plan *plan, uint64_t seed,
                       uint64_t now_ns, struct err_ctx *ctx)
{
    struct kernel_weather *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(ctx, ERR_NOMEM, "memory");
    int rc = kernel_connect(&w->nl, ctx);
    if (rc) {
        free(w);
        return rc;
    }
    w->plan = plan;
    link_init(&w->link, &plan->weather, seed, 0, now_ns);
    *out = w;
    return 0;
}

void kernel_weather_free(struct kernel_weather *w)
{
    if (w)
        nl_socket_free(w->nl);
    free(w);
}

int kernel_weather_step(struct kernel_weather *w, uint64_t now_ns, uint64_t *next_ns, struct err_ctx *ctx)
{
    struct link_window window = {0};
    enum sky sky = sky_of(&w->link, now_ns, &window);
    bool changed = sky != w->sky || window.start_ns != w->window.start_ns;
    w->sky = sky;
    w->window = window;
    uint64_t until = link_state_until(&w->link, now_ns);
    *next_ns = sky == HELD && until > now_ns + RENEW_NS ? now_ns + RENEW_NS : until;
    if (*next_ns > now_ns + EDGE_MAX)
        *next_ns = now_ns + EDGE_MAX;
    return changed || sky == HELD ? put_all(w, sky == HELD ? end_of(&window) - now_ns : 0, ctx) : 0;
}

bool kernel_weather_window(const struct kernel_weather *w, uint64_t *start_ns, uint64_t *length_ns)
{
    if (w->sky == CLEAR)
        return false;
    *start_ns = w->window.start_ns;
    *length_ns = w->window.length_us * NS_PER_US;
    return true;
}

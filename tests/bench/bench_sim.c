/* How much faster than real time is the simulated world: 1000 phones on WiFi, each saying a message a minute
 * and beating every 10 s, all invariants checked. Budget (design.md section 10): 1000 times. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim/sim.h"
#include "util/clock.h"

#define BUDGET 1000.0

static void describe(struct scenario *s, uint32_t phones, uint64_t seconds, const char *profile)
{
    *s = (struct scenario){.seed = 1, .duration = seconds * NS_PER_S, .drain = 60 * NS_PER_S, .load_n = 1};
    snprintf(s->path, sizeof s->path, "bench");
    snprintf(s->server_delivery, sizeof s->server_delivery, "reliable");
    struct scenario_population *p = &s->load[0];
    *p = (struct scenario_population){.name = "people",
                                      .client = "reliable",
                                      .clients = phones,
                                      .rate_per_1000s = phones * 1000ull * 1000 / 60 / 1000,
                                      .chat_size = 6,
                                      .chats_per_client = 1,
                                      .body_min = 20,
                                      .body_max = 200,
                                      .retries = 3,
                                      .resync_window = 1800 * NS_PER_S};
    if (!profile)
        return;
    s->links_n = 1;
    snprintf(s->links[0].name, sizeof s->links[0].name, "link");
    snprintf(s->links[0].net, sizeof s->links[0].net, "wifi");
    snprintf(s->links[0].profile, sizeof s->links[0].profile, "%s", profile);
    memcpy(p->link, "link", sizeof "link");
}

/* One thread that waits for nothing: its processor time is what it takes where nobody else wants the core. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The load alone counts: connecting 1000 phones is 2000 signatures, whatever the time that follows. */
static int measure(const char *name, const struct scenario *s, bool judged)
{
    struct sim *sim;
    struct sim_config c = {.scenario = s};
    struct err_ctx ctx = {0};
    struct sim_result r, before;
    struct judge_facts *facts = calloc(1, sizeof *facts);
    if (!facts || sim_new(&sim, &c, &ctx)) {
        fprintf(stderr, "bench_sim: %s\n", ctx.text);
        return 1;
    }
    struct world *w = sim_world(sim);
    uint64_t t0 = cpu_ns();
    int rc = w->ops->start(w, s, &ctx);
    uint64_t t1 = cpu_ns(), wall = clock_mono_ns();
    sim_result(sim, &before);
    rc = rc ? rc : w->ops->advance(w, s->duration, &ctx);
    uint64_t t2 = cpu_ns();
    wall = clock_mono_ns() - wall;
    rc = rc ? rc : w->ops->heal(w, &ctx);
    rc = rc ? rc : w->ops->drain(w, &ctx);
    rc = rc ? rc : w->ops->report(w, facts, &ctx);
    sim_result(sim, &r);
    double factor = (double)s->duration / (double)(t2 - t1);
    printf(
        "BENCH sim, %-24s x %.0f real time%s; %.0f s in %.3f s of processor time (%.3f s by the clock), %.0f "
        "ns an event, connecting took %.3f s\n",
        name, factor,
        !judged            ? ""
        : factor >= BUDGET ? " (budget 1000)"
                           : " (budget 1000: MISSED)",
        (double)s->duration / 1e9, (double)(t2 - t1) / 1e9, (double)wall / 1e9,
        (double)(t2 - t1) / (double)(r.events - before.events), (double)(t1 - t0) / 1e9);
    if (rc || r.failed || !r.drained)
        printf("%-28s did not go well: %s%s\n", name, ctx.text, r.text);
    sim_free(sim);
    free(facts);
    return rc || r.failed;
}

int main(void)
{
    struct scenario *s = malloc(sizeof *s);
    if (!s)
        return 1;
    describe(s, 1000, 600, "wifi");
    int rc = measure("1000 phones on WiFi", s, true);
    describe(s, 1000, 600, "lte-lossy");
    rc |= measure("1000 phones on lossy LTE", s, false);
    describe(s, 1000, 600, NULL);
    rc |= measure("1000 phones without links", s, false);
    free(s);
    return rc;
}

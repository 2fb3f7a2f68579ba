/* The links of a run: one group a population, and what faults make of them. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "run/chaos_impl.h"
#include "util/clock.h"
#include "util/rng.h"

#define SHARE_STREAM 0x6c696e6bu /* which phones a link's fault hits */

static int profile_of(const struct chaos *c, const struct scenario_link *l, uint64_t active,
                      struct netem_profile *p, char text[NETEM_DESCRIPTION_MAX], struct err_ctx *ctx)
{
    if (scenario_link_profile(&c->s, l, active, text, NETEM_DESCRIPTION_MAX))
        return err_set(ctx, ERR_LIMIT, "the description is longer than %d bytes", NETEM_DESCRIPTION_MAX);
    return netem_profile_parse(p, text, ctx);
}

/* What a fault would make of a link is read before the run begins. */
static int check_faults(const struct chaos *c, struct err_ctx *ctx)
{
    struct netem_profile p;
    char text[NETEM_DESCRIPTION_MAX];
    for (uint32_t i = 0; i < c->s.faults_n; i++) {
        const struct scenario_fault *f = &c->s.faults[i];
        for (uint32_t k = 0; f->what == FAULT_LINK && k < c->s.links_n; k++) {
            int rc = profile_of(c, &c->s.links[k], 1ull << i, &p, text, ctx);
            if (rc) {
                err_prefix(ctx, "%s: faults.%s.set: ", c->s.path, f->name);
                return rc;
            }
        }
    }
    return 0;
}

int chaos_links_start(struct chaos *c, struct err_ctx *ctx)
{
    struct tun_group groups[SCENARIO_POPULATIONS_MAX] = {0};
    char trace_dir[600], capture[600], text[NETEM_DESCRIPTION_MAX];
    struct tun_config config = {.groups = groups, .seed = c->s.seed, .trace_dir = trace_dir, .calm = true};
    chaos_path(c, trace_dir, sizeof trace_dir, "trace");
    chaos_path(c, capture, sizeof capture, "capture");
    if (c->config->capture)
        config.capture_dir = capture;
    int rc = check_faults(c, ctx);
    for (uint32_t i = 0; i < c->s.load_n && !rc; i++) {
        const struct scenario_population *p = &c->s.load[i];
        const struct scenario_link *l = scenario_find_link(&c->s, p->link);
        struct tun_group *g = &groups[config.groups_n++];
        if (!l)
            return err_set(ctx, ERR_UNSUPPORTED,
                           "%s: load.%s has no link, but others have; in the real world all or none need one",
                           c->s.path, p->name);
        snprintf(g->name, sizeof g->name, "%s", p->name);
        scenario_addresses(&c->s, i, &g->first, &g->count);
        rc = profile_of(c, l, 0, &g->profile, text, ctx);
        if (rc)
            err_prefix(ctx, "%s: links.%s.profile: ", c->s.path, l->name);
    }
    return rc ? rc : tun_world_start(&c->tun, &config, ctx);
}

/* Each phone of the fault's share, with all its addresses. */
static int each_phone(struct chaos *c, uint32_t index, uint32_t population,
                      int (*one)(struct chaos *, const char *group, uint32_t address,
                                 const struct scenario_fault *, struct err_ctx *),
                      struct err_ctx *ctx)
{
    const struct scenario_fault *f = &c->s.faults[index];
    const char *group = c->s.load[population].name;
    uint32_t first, count;
    struct rng rng;
    int rc = 0;
    if (f->share_ppm == 1000000)
        return one(c, group, 0, f, ctx);
    scenario_addresses(&c->s, population, &first, &count);
    rng_seed_stream(&rng, c->s.seed, (uint64_t)SHARE_STREAM << 32 | index << 8 | population);
    for (uint32_t a = 0; a < count && !rc; a += SCENARIO_ADDRESS_STRIDE) {
        bool hit = rng_hit(&rng, RNG_SHARE(f->share_ppm));
        for (uint32_t k = 0; k < SCENARIO_ADDRESS_STRIDE && hit && !rc; k++)
            rc = one(c, group, first + a + k, f, ctx);
    }
    return rc;
}

static int go_dark(struct chaos *c, const char *group, uint32_t address, const struct scenario_fault *f,
                   struct err_ctx *ctx)
{
    return tun_world_blackout_of(c->tun, group, address, f->duration, ctx);
}

static int leave(struct chaos *c, const char *group, uint32_t address, const struct scenario_fault *f,
                 struct err_ctx *ctx)
{
    (void)f;
    return tun_world_attach(c->tun, group, address, false, ctx);
}

static int come_back(struct chaos *c, const char *group, uint32_t address, const struct scenario_fault *f,
                     struct err_ctx *ctx)
{
    (void)f;
    return tun_world_attach(c->tun, group, address, true, ctx);
}

/* The link of this population with all changes that last. */
static int apply_profile(struct chaos *c, const struct scenario_population *p, struct err_ctx *ctx)
{
    char text[NETEM_DESCRIPTION_MAX];
    if (scenario_link_profile(&c->s, scenario_find_link(&c->s, p->link), c->link_faults, text, sizeof text))
        return err_set(ctx, ERR_LIMIT, "links.%s: its faults together are longer than %zu bytes", p->link,
                       sizeof text);
    return tun_world_profile(c->tun, p->name, text, ctx);
}

static int apply(struct chaos *c, uint32_t index, bool begins, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &c->s.faults[index];
    int rc = 0;
    for (uint32_t i = 0; i < c->s.load_n && c->tun && !rc; i++) {
        if (f->what == FAULT_TOXIC || !fault_hits(f, &c->s.load[i]))
            continue;
        if (f->what == FAULT_LINK)
            rc = apply_profile(c, &c->s.load[i], ctx);
        else if (f->what == FAULT_DETACH)
            rc = each_phone(c, index, i, begins ? leave : come_back, ctx);
        else if (begins)
            rc = each_phone(c, index, i, go_dark, ctx);
    }
    if (f->what == FAULT_TOXIC)
        rc = begins ? chaos_toxic_begins(c, index, ctx) : chaos_toxic_ends(c, index, ctx);
    if (rc)
        err_prefix(ctx, "faults.%s: ", f->name);
    return rc;
}

int chaos_link_fault(struct chaos *c, uint32_t index, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &c->s.faults[index];
    c->link_faults |= 1ull << index;
    c->link_until[index] = f->duration ? clock_mono_ns() + f->duration : UINT64_MAX;
    return apply(c, index, true, ctx);
}

/* A run whose links died, or were not served in time, says nothing about what it was to try. */
static void doubt_links(struct chaos *c)
{
    struct pollfd p = {tun_world_fd(c->tun), POLLIN, 0};
    struct tun_stats s;
    if (c->doubt[0])
        return;
    if (poll(&p, 1, 0) == 1)
        snprintf(c->doubt, sizeof c->doubt, "the links' process died");
    else if (tun_world_stats(c->tun, "*", &s) == 0 && s.overrun)
        snprintf(c->doubt, sizeof c->doubt,
                 "this machine was too slow for the links: %" PRIu64 " packets were lost before them",
                 s.overrun);
}

int chaos_links_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx)
{
    int rc = 0;
    if (c->tun)
        doubt_links(c);
    for (uint32_t i = 0; i < c->s.faults_n && c->link_faults && !rc; i++) {
        if (!(c->link_faults >> i & 1) || c->link_until[i] > now)
            continue;
        c->link_faults &= ~(1ull << i);
        rc = apply(c, i, false, ctx);
    }
    return rc;
}

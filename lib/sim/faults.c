/* What happens to links, server, disk, clocks and members, at its time. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"

#define FAIR_WEATHER "delay=20ms"
#define SHARE_STREAM 0x6c696e6bu /* which phones a link's fault hits: the same as in the real world */

/* ---- links ---- */

static int profile_of(struct sim *s, const struct scenario_population *p, uint64_t active,
                      struct netem_profile *out, struct err_ctx *ctx)
{
    char text[NETEM_DESCRIPTION_MAX];
    const struct scenario_link *l = scenario_find_link(s->s, p->link);
    if (scenario_link_profile(s->s, l, active, text, sizeof text))
        return err_set(ctx, ERR_LIMIT, "links.%s: its faults together are longer than %zu bytes", p->link,
                       sizeof text);
    return netem_profile_parse(out, text, ctx);
}

int faults_check(struct sim *s, struct err_ctx *ctx)
{
    struct netem_profile p;
    for (uint32_t i = 0; i < s->s->faults_n; i++) {
        const struct scenario_fault *f = &s->s->faults[i];
        if (f->what == FAULT_TOXIC)
            return err_set(ctx, ERR_UNSUPPORTED,
                           "%s: faults.%s: the chaos proxy exists in the real world only", s->s->path,
                           f->name);
        for (uint32_t k = 0; f->what == FAULT_LINK && k < s->s->load_n; k++) {
            int rc = fault_hits(f, &s->s->load[k]) ? profile_of(s, &s->s->load[k], 1ull << i, &p, ctx) : 0;
            if (rc) {
                err_prefix(ctx, "%s: faults.%s.set: ", s->s->path, f->name);
                return rc;
            }
        }
    }
    return 0;
}

static void touch(struct sim *s, const struct scenario_fault *f, uint32_t address, bool begins)
{
    if (f->what == FAULT_BLACKOUT && begins)
        net_blackout(s, address, f->duration);
    else if (f->what == FAULT_DETACH)
        net_radio(s, address, begins ? 1 : 2);
}

/* Each phone of the fault's share, with all its addresses. */
static void each_phone(struct sim *s, uint32_t index, uint32_t population, bool begins)
{
    const struct scenario_fault *f = &s->s->faults[index];
    uint32_t first, count;
    struct rng rng;
    scenario_addresses(s->s, population, &first, &count);
    rng_seed_stream(&rng, s->s->seed, (uint64_t)SHARE_STREAM << 32 | index << 8 | population);
    for (uint32_t a = 0; a < count; a += SCENARIO_ADDRESS_STRIDE) {
        bool hit = f->share_ppm == 1000000 || rng_hit(&rng, RNG_SHARE(f->share_ppm));
        for (uint32_t k = 0; k < SCENARIO_ADDRESS_STRIDE && hit; k++)
            touch(s, f, first + a + k, begins);
    }
}

static int link_fault(struct sim *s, uint32_t index, bool begins, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &s->s->faults[index];
    struct netem_profile p;
    uint64_t bit = 1ull << index;
    int rc = 0;
    s->link_faults = begins ? s->link_faults | bit : s->link_faults & ~bit;
    for (uint32_t i = 0; i < s->s->load_n && !rc; i++) {
        if (!fault_hits(f, &s->s->load[i]))
            continue;
        if (f->what == FAULT_LINK) {
            rc = profile_of(s, &s->s->load[i], s->link_faults, &p, ctx);
            if (!rc)
                net_profile(s, i, &p);
        } else {
            each_phone(s, index, i, begins);
        }
    }
    if (begins && f->duration && f->what != FAULT_BLACKOUT)
        sim_plan(s, s->now_ns + f->duration, SIM_FAULT_ENDS, NULL, index);
    return rc;
}

/* ---- the store's past ---- */

bool sim_keeps_copies(const struct sim *s)
{
    for (uint32_t i = 0; i < s->s->faults_n; i++)
        if (s->s->faults[i].what == FAULT_RESTORE)
            return true;
    return false;
}

void faults_begin(struct sim *s)
{
    nodes_begin(s);
    for (uint32_t i = 0; i < s->s->faults_n; i++) {
        const struct scenario_fault *f = &s->s->faults[i];
        if (f->what == FAULT_RESTORE && f->duration)
            sim_plan(s, s->t0_ns + (f->at > f->duration ? f->at - f->duration : 0), SIM_IMAGE, NULL, i);
    }
}

static void keep_mark(const struct sim *s, char out[512])
{
    char path[96];
    snprintf(path, sizeof path, "%s/mark", s->servers[0].keys_dir);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, 511, f) : 0;
    out[n] = 0;
    if (f)
        fclose(f);
}

static void put_mark(const struct sim *s, const char *text)
{
    char path[96];
    snprintf(path, sizeof path, "%s/mark", s->servers[0].keys_dir);
    FILE *f = *text ? fopen(path, "we") : NULL;
    if (!f)
        return;
    fputs(text, f);
    fclose(f);
}

static void backup(struct sim *s)
{
    struct kv *copy;
    if (kv_mem_copy(&copy, s->servers[0].kv, NULL))
        return;
    if (s->backup)
        s->backup->ops->close(s->backup);
    s->backup = copy;
    keep_mark(s, s->mark[1]);
}

/* Whatever the damage, a server that refuses its store is down until somebody puts another one there. */
static void corrupt(struct sim *s)
{
    server_kill(&s->servers[0], SIGKILL, 0);
    s->servers[0].broken = true;
}

void faults_image(struct sim *s, uint32_t index)
{
    struct kv *copy;
    if (s->image[index] || kv_mem_copy(&copy, s->servers[0].kv, NULL))
        return;
    s->image[index] = copy;
    keep_mark(s, s->mark[0]);
    watch_note(s, "image of the store taken", 0);
}

void faults_release(struct sim *s)
{
    if (s->backup)
        s->backup->ops->close(s->backup);
    for (uint32_t i = 0; i < SCENARIO_FAULTS_MAX; i++)
        if (s->image[i])
            s->image[i]->ops->close(s->image[i]);
}

static void restore(struct sim *s, uint32_t index)
{
    const struct scenario_fault *f = &s->s->faults[index];
    struct sim_server *v = &s->servers[0]; /* there are no others (server_init) */
    struct kv *image = s->image[index];
    uint64_t again = s->now_ns + (f->restart ? f->restart : NS_PER_S);
    if ((!v->up && !v->broken) || (!image && !s->backup))
        return;
    if (!image && kv_mem_copy(&image, s->backup, NULL))
        return;
    /* Stopped by its operator first: a server that dies leaves a mark up to a second old, and what it
     * committed after that can be taken away unseen by the mark. */
    v->broken = false;
    if (strcmp(f->set, "sudden") == 0 || !v->up)
        server_kill(v, SIGKILL, again);
    else
        server_stop(v, again);
    v->kv->ops->close(v->kv);
    v->kv = image;
    if (strcmp(f->set, "blind") == 0)
        put_mark(s, s->mark[!s->image[index]]);
    s->image[index] = NULL;
    watch_restored(s, strcmp(f->set, "blind") == 0);
}

/* ---- all of them ---- */

static struct sim_server *one_server(struct sim *s, const struct scenario_fault *f)
{
    return f->node ? &s->servers[f->node - 1] : server_some(s);
}

int faults_do(struct sim *s, uint32_t index, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &s->s->faults[index];
    uint64_t again = f->restart ? s->now_ns + f->restart : 0;
    watch_note(s, fault_name(f->what), index);
    switch (f->what) {
    case FAULT_KILL_SERVER:
        server_kill(one_server(s, f), f->signal, again);
        break;
    case FAULT_BLACKOUT:
    case FAULT_LINK:
    case FAULT_DETACH:
        return link_fault(s, index, true, ctx);
    case FAULT_KILL_SOCKET: /* the phones do these to themselves, at the same time */
    case FAULT_NETWORK_CHANGE:
        break;
    case FAULT_POWER_CUT:
        server_power_cut(one_server(s, f), again);
        break;
    case FAULT_RESTORE:
        restore(s, index);
        break;
    case FAULT_DISK_FULL:
        one_server(s, f)->full_until_ns = s->now_ns + f->duration;
        break;
    case FAULT_SYNC_FAILS:
        one_server(s, f)->sync_fails = true;
        break;
    case FAULT_CLOCK_JUMP:
        *(strcmp(f->target, "server") ? &s->phones_skew_us : &s->server_skew_us) += f->by / 1000;
        break;
    case FAULT_REMOVE_MEMBER:
        members_remove(s, index);
        break;
    case FAULT_BACKUP:
        backup(s);
        break;
    case FAULT_CORRUPT:
        corrupt(s);
        break;
    case FAULT_REDIS:
        s->link_faults |= 1ull << index;
        nodes_redis(s, f, true);
        sim_plan(s, s->now_ns + f->duration, SIM_FAULT_ENDS, NULL, index);
        break;
    case FAULT_TOXIC: /* faults_check refused it */
    case FAULT_DO_COUNT:
        break;
    }
    return 0;
}

int faults_end(struct sim *s, uint32_t index, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &s->s->faults[index];
    bool lasts = s->link_faults >> index & 1;
    if (lasts && f->what == FAULT_REDIS) {
        s->link_faults &= ~(1ull << index);
        nodes_redis(s, f, false);
        return 0;
    }
    return lasts && (f->what == FAULT_LINK || f->what == FAULT_DETACH) ? link_fault(s, index, false, ctx) : 0;
}

/* Whatever still lasts is undone; a server that is down comes back. */
int faults_heal(struct sim *s, struct err_ctx *ctx)
{
    struct netem_profile fair;
    int rc = 0;
    for (uint32_t i = 0; i < s->s->faults_n && !rc; i++)
        rc = faults_end(s, i, ctx);
    for (uint32_t i = 0; i < s->s->load_n && s->config.demand && !rc; i++) {
        if (!s->s->load[i].link[0])
            continue;
        rc = netem_profile_parse(&fair, FAIR_WEATHER, ctx);
        if (!rc)
            net_profile(s, i, &fair);
    }
    for (uint16_t i = 0; i < s->nodes; i++) {
        struct sim_server *v = &s->servers[i];
        v->full_until_ns = 0;
        v->sync_fails = false;
        if (v->stopped)
            server_continue(v);
        if (!v->up && v->restart_ns)
            sim_plan(s, s->now_ns, SIM_START, v, v->incarnation);
    }
    nodes_heal(s);
    return rc;
}

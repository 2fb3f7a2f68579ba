#include <stdlib.h>
#include <string.h>

#include "sim/explore.h"
#include "util/clock.h"

struct shrink {
    struct scenario *best;
    struct scenario *next; /* the candidate */
    struct sim_result *last;
    const volatile sig_atomic_t *interrupted;
    struct err_ctx *ctx;
    uint32_t runs, runs_max;
    int rc;
};

/* Does the candidate still fail in the same way? Then it is the best so far. */
static bool keeps(struct shrink *k)
{
    struct sim_result r;
    if (k->rc || k->runs >= k->runs_max || !memcmp(k->best, k->next, sizeof *k->best))
        return false;
    k->runs++;
    int rc = sim_trial(k->next, k->interrupted, &r, NULL, k->ctx);
    k->rc = rc == ERR_INTERRUPTED || rc == ERR_NOMEM ? rc : 0; /* else: no scenario at all */
    if (rc || !r.failed || strcmp(r.what, k->last->what) != 0)
        return false;
    *k->best = *k->next;
    *k->last = r;
    return true;
}

static struct scenario *candidate(struct shrink *k)
{
    *k->next = *k->best;
    return k->next;
}

/* ---- the steps; each answers whether anything became smaller ---- */

static bool fewer_faults(struct shrink *k)
{
    bool any = false;
    for (uint32_t n = k->best->faults_n; n; n /= 2) { /* halves first, single ones last */
        for (uint32_t at = 0; at + n <= k->best->faults_n;) {
            struct scenario *s = candidate(k);
            memmove(&s->faults[at], &s->faults[at + n], (s->faults_n - at - n) * sizeof s->faults[0]);
            memset(&s->faults[s->faults_n - n], 0, n * sizeof s->faults[0]);
            s->faults_n -= n;
            if (keeps(k))
                any = true;
            else
                at += n;
        }
    }
    return any;
}

static bool names(const struct scenario *s, const char *name)
{
    for (uint32_t i = 0; i < s->faults_n; i++)
        if (strcmp(s->faults[i].target, name) == 0)
            return true;
    return false;
}

static bool fewer_people(struct shrink *k)
{
    bool any = false;
    for (uint32_t i = 0; i < k->best->load_n && k->best->load_n > 1;) {
        struct scenario *s = candidate(k);
        if (names(s, s->load[i].name)) {
            i++;
            continue;
        }
        memmove(&s->load[i], &s->load[i + 1], (s->load_n - i - 1) * sizeof s->load[0]);
        memset(&s->load[--s->load_n], 0, sizeof s->load[0]);
        if (keeps(k))
            any = true;
        else
            i++;
    }
    for (uint32_t i = 0; i < k->best->load_n; i++) {
        for (uint32_t less = k->best->load[i].clients / 2; less; less /= 2) {
            struct scenario_population *p = &candidate(k)->load[i];
            if (p->clients - less < 2)
                continue;
            p->clients -= less;
            p->chat_size = p->chat_size < p->clients ? p->chat_size : p->clients;
            any |= keeps(k);
        }
    }
    return any;
}

static bool plainer_people(struct shrink *k)
{
    bool any = false;
    for (uint32_t i = 0; i < k->best->load_n; i++) {
        struct scenario_population *p = &candidate(k)->load[i];
        p->habits = (struct scenario_habits){0};
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.background_every = p->habits.background_for = p->habits.kill_after = 0;
        p->habits.storage_loss_ppm = 0;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.network_change_every = p->habits.network_change_gap = 0;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.typing_every = p->habits.typing_for = 0;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.watch = 0;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.read_after = 0;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->habits.resend_after = p->habits.resend_share_ppm = 0;
        any |= keeps(k);
        candidate(k)->load[i].chats_per_client = 1;
        any |= keeps(k);
        candidate(k)->load[i].chat_size = 2;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->body_min = p->body_max = 1;
        any |= keeps(k);
        p = &candidate(k)->load[i];
        p->rate_per_1000s = p->rate_per_1000s > 400 ? p->rate_per_1000s / 2 : p->rate_per_1000s;
        any |= keeps(k);
    }
    return any;
}

static bool plainer_links(struct shrink *k)
{
    bool any = false;
    for (uint32_t i = 0; i < k->best->links_n; i++) {
        struct scenario *s = candidate(k);
        memset(s->links[i].profile, 0, sizeof s->links[i].profile);
        memcpy(s->links[i].profile, "delay=1ms", sizeof "delay=1ms");
        any |= keeps(k);
    }
    struct scenario *s = candidate(k);
    memset(s->server_args, 0, sizeof s->server_args);
    return keeps(k) || any;
}

static bool shorter(struct shrink *k)
{
    bool any = false;
    for (int tries = 0; tries < 8; tries++) {
        struct scenario *s = candidate(k);
        uint64_t latest = 0;
        for (uint32_t i = 0; i < s->faults_n; i++)
            latest = s->faults[i].at > latest ? s->faults[i].at : latest;
        s->duration = s->duration / 2 / NS_PER_MS * NS_PER_MS;
        if (s->duration <= latest)
            s->duration = latest + NS_PER_MS;
        if (s->duration < 10 * NS_PER_MS || !keeps(k))
            break;
        any = true;
    }
    return any;
}

int sim_shrink(struct scenario *s, uint32_t runs, const volatile sig_atomic_t *interrupted,
               struct sim_result *last, struct err_ctx *ctx)
{
    struct shrink k = {.best = s,
                       .next = malloc(sizeof *s),
                       .last = last,
                       .interrupted = interrupted,
                       .ctx = ctx,
                       .runs_max = runs};
    if (!k.next)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    bool more = true;
    while (more && !k.rc && k.runs < k.runs_max) {
        more = fewer_faults(&k);
        more |= shorter(&k);
        more |= fewer_people(&k);
        more |= plainer_people(&k);
        more |= plainer_links(&k);
    }
    free(k.next);
    return k.rc && k.rc != ERR_INTERRUPTED ? k.rc : (int)k.runs;
}

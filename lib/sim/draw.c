#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sim/explore.h"
#include "util/clock.h"
#include "util/rng.h"

#define FAULTS_MAX      9u
#define STREAM          (8ull << 40)
#define NODES_STREAM    (11ull << 40)
#define READING_STREAM  (12ull << 40)
#define PRESENCE_STREAM (13ull << 40)

struct draw {
    struct rng rng;
    struct scenario *s;
};

static bool coin(struct draw *d, uint32_t percent)
{
    return rng_below(&d->rng, 100) < percent;
}

static uint64_t between(struct draw *d, uint64_t lo, uint64_t hi)
{
    return rng_between(&d->rng, lo, hi);
}

static uint64_t ms(struct draw *d, uint64_t lo, uint64_t hi)
{
    return between(d, lo, hi) * NS_PER_MS;
}

/* ---- links ---- */

/* Append words and a number. One draw a statement: the order of a call's arguments is the compiler's. */
static void number(struct draw *d, char *at, size_t size, const char *before, uint64_t lo, uint64_t hi,
                   const char *after)
{
    size_t n = strlen(at);
    snprintf(at + n, size - n, "%s%" PRIu64 "%s", before, between(d, lo, hi), after);
}

static void draw_profile(struct draw *d, char *out, size_t size)
{
    static const char *const named[] = {"wifi", "lte-lossy"};
    if (coin(d, 40)) {
        snprintf(out, size, "%s", named[between(d, 0, 1)]);
        return;
    }
    number(d, out, size, "delay=", 1, 300, "ms");
    if (coin(d, 50))
        number(d, out, size, ",jitter=", 1, 900, "us");
    if (coin(d, 60)) {
        number(d, out, size, ",loss=", 0, 19, ".");
        number(d, out, size, "", 1, 9, "%");
        number(d, out, size, ",burst=", 2, 8, "");
    }
    if (coin(d, 40)) {
        number(d, out, size, ",rate=", 64, 20000, "kbit");
        number(d, out, size, ",queue=", 4, 300, "kB");
    }
    if (coin(d, 30)) {
        number(d, out, size, ",blackout_every=", 5, 40, "s");
        number(d, out, size, ",blackout_for=", 200, 9000, "ms");
    }
    bool hands_over = coin(d, 30);
    if (hands_over) {
        number(d, out, size, ",handover_every=", 5, 40, "s");
        number(d, out, size, ",handover_for=", 100, 4000, "ms");
    }
    if (coin(d, 50)) {
        number(d, out, size, ",nat_idle=", 5, 300, "s");
        if (hands_over)
            number(d, out, size, ",handover_loses=", 10, 100, "%");
    }
}

static void draw_links(struct draw *d)
{
    static const char *const nets[] = {"lte", "wifi"};
    struct scenario *s = d->s;
    s->links_n = (uint32_t)between(d, 0, 2);
    for (uint32_t i = 0; i < s->links_n; i++) {
        struct scenario_link *l = &s->links[i];
        snprintf(l->name, sizeof l->name, "link-%c", 'a' + (int)i);
        snprintf(l->net, sizeof l->net, "%s", nets[i]);
        draw_profile(d, l->profile, sizeof l->profile);
    }
}

/* ---- people ---- */

static void draw_habits(struct draw *d, struct scenario_habits *h, bool linked)
{
    if (coin(d, 50)) {
        h->background_every = ms(d, 2000, 40000);
        h->background_for = ms(d, 100, 15000);
        h->kill_after = coin(d, 50) ? ms(d, 100, 8000) : 0;
        if (coin(d, 40))
            h->storage_loss_ppm = (uint32_t)between(d, 1, 100) * 10000;
    }
    if (linked && coin(d, 40)) {
        h->network_change_every = ms(d, 3000, 40000);
        h->network_change_gap = ms(d, 10, 3000);
    }
    if (coin(d, 50)) {
        h->resend_after = ms(d, 500, 10000);
        h->resend_share_ppm = (uint32_t)between(d, 1, 100) * 10000;
    }
    if (coin(d, 40)) {
        h->typing_every = ms(d, 1000, 30000);
        h->typing_for = ms(d, 500, 15000);
    }
}

/* Some services have only some of the fixes: they promise less, and must keep that. */
static void draw_features(struct draw *d, char *out, size_t size, const char *const *words, uint32_t n)
{
    snprintf(out, size, "legacy");
    for (uint32_t i = 0; i < n; i++) {
        size_t at = strlen(out);
        if (coin(d, 50))
            snprintf(out + at, size - at, "+%s", words[i]);
    }
}

static void draw_population(struct draw *d, uint32_t i)
{
    static const char *const words[] = {"retry", "ack", "resync"};
    struct scenario_population *p = &d->s->load[i];
    *p = (struct scenario_population){
        .client = "reliable", .on_gap = "offer", .retries = (uint32_t)between(d, 1, 5)};
    snprintf(p->name, sizeof p->name, "people-%c", 'a' + (int)i);
    if (d->s->links_n && coin(d, 80))
        memcpy(p->link, d->s->links[between(d, 0, d->s->links_n - 1)].name, sizeof p->link);
    p->clients = (uint32_t)between(d, 2, coin(d, 20) ? 24 : 8);
    p->chat_size = (uint32_t)between(d, 2, p->clients < 8 ? p->clients : 8);
    p->chats_per_client = (uint32_t)between(d, 1, 3);
    p->rate_per_1000s = between(d, 200, coin(d, 30) ? 40000 : 5000);
    p->body_min = 1;
    p->body_max = (uint32_t)between(d, 1, coin(d, 10) ? 20000 : 200);
    if (coin(d, strcmp(d->s->server_delivery, "reliable") ? 50 : 5))
        draw_features(d, p->client, sizeof p->client, words, 3);
    p->resync_window = 1800 * NS_PER_S;
    draw_habits(d, &p->habits, p->link[0] != 0);
    if (coin(d, 30))
        p->forge_ppm = (uint32_t)between(d, 1, 100) * 10000;
}

/* ---- faults ---- */

static const char *some_population(struct draw *d, bool linked)
{
    uint32_t first = (uint32_t)between(d, 0, d->s->load_n - 1);
    for (uint32_t k = 0; k < d->s->load_n; k++) {
        const struct scenario_population *p = &d->s->load[(first + k) % d->s->load_n];
        if (!linked || p->link[0])
            return p->name;
    }
    return NULL;
}

static bool target(struct draw *d, struct scenario_fault *f)
{
    const char *name = "server";
    if (f->what == FAULT_KILL_SOCKET || f->what == FAULT_REMOVE_MEMBER || f->what == FAULT_NETWORK_CHANGE)
        name = some_population(d, f->what == FAULT_NETWORK_CHANGE);
    else if (f->what == FAULT_BLACKOUT || f->what == FAULT_LINK || f->what == FAULT_DETACH)
        name = d->s->links_n ? d->s->links[between(d, 0, d->s->links_n - 1)].name : NULL;
    else if (f->what == FAULT_CLOCK_JUMP && coin(d, 50))
        name = "phones";
    if (name)
        snprintf(f->target, sizeof f->target, "%s", name);
    return name != NULL;
}

static void draw_values(struct draw *d, struct scenario_fault *f)
{
    static const int signals[] = {SIGKILL, SIGKILL, SIGTERM, SIGSTOP};
    bool shared = f->what == FAULT_KILL_SOCKET || f->what == FAULT_NETWORK_CHANGE ||
                  f->what == FAULT_BLACKOUT || f->what == FAULT_DETACH || f->what == FAULT_REMOVE_MEMBER;
    f->share_ppm = shared && coin(d, 60) ? (uint32_t)between(d, 10, 99) * 10000 : 1000000;
    switch (f->what) {
    case FAULT_KILL_SOCKET:
        f->mid_frame = coin(d, 60);
        break;
    case FAULT_KILL_SERVER:
        f->signal = signals[between(d, 0, 3)];
        f->restart = ms(d, 1, coin(d, 20) ? 20000 : 4000);
        break;
    case FAULT_POWER_CUT:
    case FAULT_SYNC_FAILS:
        f->restart = ms(d, 1, 5000);
        break;
    case FAULT_RESTORE:
        f->duration = ms(d, 100, 15000);
        f->restart = ms(d, 1, 3000);
        break;
    case FAULT_BLACKOUT:
    case FAULT_DETACH:
        f->duration = ms(d, 50, 12000);
        break;
    case FAULT_LINK:
        f->duration = ms(d, 500, 12000);
        number(d, f->set, sizeof f->set, "loss=", 1, 60, "%");
        number(d, f->set, sizeof f->set, ",burst=", 3, 8, "");
        number(d, f->set, sizeof f->set, ",delay=", 20, 2000, "ms");
        break;
    case FAULT_DISK_FULL:
        f->duration = ms(d, 100, 8000);
        break;
    case FAULT_CLOCK_JUMP:
        /* tokens are good for a server whose clock is less than a minute off (crypto/keys.h), all jumps
         * together */
        f->by = (int64_t)ms(d, 1, strcmp(f->target, "server") ? 60000 : 59000 / FAULTS_MAX);
        f->by = coin(d, 50) ? f->by : -f->by;
        break;
    case FAULT_REMOVE_MEMBER:
        f->duration = coin(d, 70) ? ms(d, 100, 8000) : 0;
        break;
    default:
        break;
    }
}

static void draw_faults(struct draw *d)
{
    struct scenario *s = d->s;
    enum fault_do on[FAULT_DO_COUNT] = {0};
    uint32_t kinds = 0, wanted = (uint32_t)between(d, 0, FAULTS_MAX);
    for (int k = 0; k < FAULT_DO_COUNT; k++)
        if (k != FAULT_TOXIC && k < FAULT_BACKUP && coin(d, k == FAULT_RESTORE ? 15 : 40))
            on[kinds++] = (enum fault_do)k;
    for (uint32_t i = 0; i < wanted && kinds; i++) {
        struct scenario_fault *f = &s->faults[s->faults_n];
        *f = (struct scenario_fault){.signal = SIGKILL};
        f->what = on[between(d, 0, kinds - 1)];
        f->at = ms(d, 0, s->duration / NS_PER_MS - 1);
        snprintf(f->name, sizeof f->name, "%s-%" PRIu32, fault_name(f->what), i);
        if (!target(d, f))
            continue;
        draw_values(d, f);
        s->faults_n++;
    }
    /* until when somebody types is told by the server's clock, which clients learn when they connect */
    for (uint32_t i = 0; i < s->faults_n; i++)
        for (uint32_t k = 0; k < s->load_n && s->faults[i].what == FAULT_CLOCK_JUMP; k++)
            s->load[k].habits.typing_every = s->load[k].habits.typing_for = 0;
}

static void draw_server(struct draw *d)
{
    static const char *const words[] = {"retry", "durable", "ack", "resync"};
    struct scenario *s = d->s;
    snprintf(s->server_delivery, sizeof s->server_delivery, "reliable");
    if (coin(d, 10))
        draw_features(d, s->server_delivery, sizeof s->server_delivery, words, 4);
    if (coin(d, 30))
        number(d, s->server_args, sizeof s->server_args, " --backlog ", 2, 60, "");
    if (coin(d, 30))
        number(d, s->server_args, sizeof s->server_args, " --disk ", 2, 400, "ms");
    if (coin(d, 30))
        number(d, s->server_args, sizeof s->server_args, " --queue ", 2, 64, "kB");
}

/* More nodes than one, from dice of their own: seeds that have one stay what they were. */
static void draw_nodes(struct scenario *s, uint64_t seed)
{
    struct draw d = {.s = s};
    rng_seed_stream(&d.rng, seed, NODES_STREAM);
    bool several = coin(&d, 35) && strcmp(s->server_delivery, "reliable") == 0;
    for (uint32_t i = 0; i < s->faults_n; i++)
        several &= s->faults[i].what != FAULT_RESTORE && s->faults[i].what != FAULT_CORRUPT;
    if (!several)
        return;
    number(&d, s->server_args, sizeof s->server_args, " --nodes ", 2, 4, "");
    if (coin(&d, 60))
        number(&d, s->server_args, sizeof s->server_args, " --bus-drop ", 100, 50000, "");
    if (coin(&d, 60)) {
        number(&d, s->server_args, sizeof s->server_args, " --cut-every ", 2, 20, "s");
        number(&d, s->server_args, sizeof s->server_args, " --cut-for ", 100, 12000, "ms");
    }
}

/* Who watches whom, and a Redis that fails; from dice of their own, too. */
static void draw_presence(struct scenario *s, uint64_t seed)
{
    static const char *const failures[] = {"kill", "stop", "cut"};
    struct draw d = {.s = s};
    rng_seed_stream(&d.rng, seed, PRESENCE_STREAM);
    if (strcmp(s->server_delivery, "reliable") != 0)
        return;
    for (uint32_t i = 0; i < s->load_n; i++) {
        uint32_t watch = coin(&d, 50) ? (uint32_t)between(&d, 1, 12) : 0;
        struct scenario_habits *h = &s->load[i].habits;
        h->watch = strcmp(s->load[i].client, "reliable") ? 0 : watch;
        if (h->watch && coin(&d, 30)) { /* suspended for longer than anybody may be thought to be there */
            h->background_every = ms(&d, 5000, 20000);
            h->background_for = ms(&d, 30000, 80000);
            h->kill_after = 0;
            s->load[i].rate_per_1000s =
                between(&d, 2, 40); /* else they are missed by what they don't acknowledge */
            s->duration = s->duration < 60 * NS_PER_S ? 60 * NS_PER_S : s->duration;
        }
    }
    s->server_redis = coin(&d, 40);
    for (uint32_t i = 0; s->server_redis && i < 3 && coin(&d, 50) && s->faults_n < SCENARIO_FAULTS_MAX; i++) {
        struct scenario_fault *f = &s->faults[s->faults_n++];
        *f = (struct scenario_fault){.what = FAULT_REDIS, .signal = SIGKILL, .share_ppm = 1000000};
        f->at = ms(&d, 0, s->duration / NS_PER_MS - 1);
        f->duration = ms(&d, 50, coin(&d, 30) ? 45000 : 6000);
        snprintf(f->name, sizeof f->name, "redis-%" PRIu32, i);
        snprintf(f->target, sizeof f->target, "server");
        snprintf(f->set, sizeof f->set, "%s", failures[between(&d, 0, 2)]);
    }
}

/* People who read and watch who has: from dice of their own, too. */
static void draw_reading(struct scenario *s, uint64_t seed)
{
    struct draw d = {.s = s};
    rng_seed_stream(&d.rng, seed, READING_STREAM);
    for (uint32_t i = 0; i < s->load_n; i++)
        if (coin(&d, 50))
            s->load[i].habits.read_after = ms(&d, 50, 8000);
    if (coin(&d, 25))
        number(&d, s->server_args, sizeof s->server_args, " --receipts-each ", 1, 6, "");
}

void sim_draw(struct scenario *s, uint64_t seed)
{
    struct draw d = {.s = s};
    *s = (struct scenario){.seed = seed, .drain = 300 * NS_PER_S, .send_lag_max = NS_PER_S};
    rng_seed_stream(&d.rng, seed, STREAM);
    snprintf(s->name, sizeof s->name, "seed-%" PRIu64, seed);
    snprintf(s->path, sizeof s->path, "seed %" PRIu64, seed);
    snprintf(s->why, sizeof s->why, "drawn by chat-chaos explore from seed %" PRIu64, seed);
    s->duration = ms(&d, 2000, coin(&d, 20) ? 90000 : 30000);
    draw_server(&d);
    draw_links(&d);
    s->load_n = (uint32_t)between(&d, 1, 2);
    for (uint32_t i = 0; i < s->load_n; i++)
        draw_population(&d, i);
    draw_faults(&d);
    draw_nodes(s, seed);
    draw_presence(s, seed);
    draw_reading(s, seed);
    s->expect[0] = strdup("audit_violations == 0");
    s->expect_n = s->expect[0] ? 1 : 0;
}

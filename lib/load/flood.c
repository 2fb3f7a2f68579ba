#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "load/flood_impl.h"
#include "util/map.h"

#define SENDS_AT_ONCE 4096   /* per tick; what is due beyond it is lag */
#define TURNS_AT_ONCE 64     /* slots of the wheel per tick */
#define STEP_AT_ONCE  20000u /* connects, cuts per tick */
/* Phones on their way in at one time: with more than the server greets in the 10 s that a client waits, all
 * would give up and begin anew, for ever. */
#define GREETING_MAX    100000u
#define CREATE_STEP     4000u /* chats looked at per tick */
#define CREATE_AGAIN_MS 5000u
#define MASS_MAX_NS     (120 * NS_PER_S)
#define LINGER_NS       (300 * NS_PER_MS)

/* ---- chats ---- */

/* Zipf with exponent 2 from 2 to max, by its quantile: P(size >= s) is about (2 - 1)/(s - 1) up to max. */
static uint32_t draw_size(struct rng *r, uint32_t max)
{
    for (;;) {
        uint64_t u = rng_between(r, 1, 1u << 30);
        uint64_t size = 1 + (1ull << 30) / u;
        if (size >= 2 && size <= max)
            return (uint32_t)size;
    }
}

static int make_chats(struct flood *f, struct err_ctx *ctx)
{
    uint32_t cap = 0, n = 0, first = 0, total = f->cfg.phones;
    struct rng r;
    rng_seed_stream(&r, f->cfg.seed, 1);
    while (first < total) {
        if (n + 2 > cap) {
            cap = cap ? cap + cap / 2 : 1024;
            struct flood_chat *p = realloc(f->chats, cap * sizeof *p);
            if (!p)
                return err_set(ctx, ERR_NOMEM, "out of memory");
            f->chats = p;
        }
        uint32_t size = draw_size(&r, f->cfg.chat_max);
        if (size > total - first)
            size = total - first;
        if (total - first - size == 1)
            size++;
        f->chats[n] = (struct flood_chat){.first = first};
        for (uint32_t i = 0; i < size; i++)
            f->phones[first + i].chat = n;
        first += size;
        n++;
    }
    f->chats[n] = (struct flood_chat){.first = total};
    f->chats_n = n;
    return 0;
}

/* The first member who is there asks for the chat with all others. */
static void ask_for_chat(struct flood *f, uint32_t c)
{
    static uint64_t users[PROTO_USERS_MAX];
    struct flood_chat *chat = &f->chats[c];
    uint32_t n = flood_chat_size(f, c), now = flood_ms(f);
    if (chat->ready || (chat->asked_ms && now - chat->asked_ms < CREATE_AGAIN_MS) ||
        !f->phones[chat->first].was_ready)
        return;
    f->creating += !chat->asked_ms;
    chat->asked_ms = now;
    for (uint32_t i = 0; i < n; i++)
        users[i] = f->cfg.first_user + chat->first + i;
    struct msg m = {.t = MSG_CREATE, .chat = f->cfg.first_chat + c, .users = users, .users_n = n};
    flood_send_raw(f, chat->first, &m);
}

void flood_on_create(struct flood *f, uint64_t number, bool ready)
{
    uint64_t c = number - f->cfg.first_chat;
    if (c >= f->chats_n || f->chats[c].ready)
        return;
    f->refused_creates += !ready;
    if (!ready)
        return; /* asked for again later */
    f->chats[c].ready = true;
    f->chats_ready++;
    f->creating -= f->chats[c].asked_ms != 0;
}

/* Round and round, until all are made; when everybody is there, so that neither slows the other down. */
static void create_some(struct flood *f)
{
    if (!f->ramp_done_ns || f->chats_ready == f->chats_n)
        return;
    for (uint32_t k = 0; k < CREATE_STEP; k++) {
        const struct flood_chat *c = &f->chats[f->create_next];
        if (!c->ready && (c->asked_ms || f->creating < CREATES_MAX))
            ask_for_chat(f, f->create_next);
        f->create_next = (f->create_next + 1) % f->chats_n;
    }
}

void flood_on_ready(struct flood *f, uint32_t i)
{
    uint32_t c = f->phones[i].chat;
    if (f->ramp_done_ns && f->chats[c].first == i && f->creating < CREATES_MAX)
        ask_for_chat(f, c);
}

/* ---- the life of a flood ---- */

/* Zeroed, in huge pages where the kernel has them. */
static void *big(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, n, MADV_HUGEPAGE);
    return p;
}

static int prepare(struct flood *f, struct err_ctx *ctx)
{
    f->phones = big((size_t)f->cfg.phones * sizeof *f->phones);
    f->body = malloc(PROTO_BODY_MAX);
    f->samples = malloc(SAMPLES_MAX * sizeof *f->samples);
    if (!f->phones || !f->body || !f->samples)
        return err_set(ctx, ERR_NOMEM, "out of memory for %u phones", f->cfg.phones);
    for (uint32_t i = 0; i < f->cfg.phones; i++)
        flood_phone_init(f, i);
    for (uint32_t k = 0; k < f->cfg.silent;) {
        struct flood_phone *p = &f->phones[rng_below(&f->rng, f->cfg.phones)];
        k += !p->chosen;
        p->chosen = true; /* `silent` when the plateau begins */
    }
    int rc = make_chats(f, ctx);
    rc = rc ? rc : flood_trace_init(f, ctx);
    return rc ? rc : flood_links_init(f, ctx);
}

int flood_new(struct flood **out, const struct flood_config *c, struct err_ctx *ctx)
{
    struct flood *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    f->cfg = *c;
    f->client = (struct client_config){.features = CLIENT_RELIABLE,
                                       .net = c->link ? NET_LTE : NET_ETHERNET,
                                       .retries = 1000,
                                       .resync_window_ns = 1800 * NS_PER_S,
                                       .outbox_max = 64,
                                       .outbox_bytes_max = 1u << 20};
    rng_seed(&f->rng, c->seed);
    client_pool_init(&f->pool, 4 * c->phones);
    f->io = (struct client_io){.rng = &f->rng,
                               .pool = &f->pool,
                               .claims = f->claims,
                               .claims_max = 64,
                               .emit = flood_emit,
                               .arg = f};
    buf_init(&f->out, PROTO_FRAME_MAX);
    f->scratch = (struct proto_scratch){.data = malloc(1 << 20), .cap = 1 << 20};
    f->origin_ns = flood_now(f).mono_ns;
    int rc = f->scratch.data ? prepare(f, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    if (rc) {
        flood_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

void flood_free(struct flood *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; f->phones && i < f->cfg.phones; i++)
        outbox_clear(&f->phones[i].client.outbox);
    client_pool_release(&f->pool);
    flood_links_release(f);
    flood_trace_release(f);
    if (f->phones)
        munmap(f->phones, (size_t)f->cfg.phones * sizeof *f->phones);
    free(f->chats);
    free(f->samples);
    free(f->body);
    free(f->scratch.data);
    buf_release(&f->out);
    free(f);
}

static void enter(struct flood *f, enum flood_phase phase)
{
    static const char *const names[] = {"idle", "setup", "load", "mass", "drain", "end"};
    f->phase = phase;
    f->phase_ns = f->io.now.mono_ns;
    if (phase == FLOOD_END) {
        f->ended_ns = f->phase_ns;
        flood_trace_end(f);
    }
    if (f->cfg.world.phase)
        f->cfg.world.phase(f->cfg.world.arg, names[phase]);
}

void flood_start(struct flood *f, uint32_t credit)
{
    f->cfg.credit = credit;
    f->began_ns = flood_now(f).mono_ns;
    enter(f, FLOOD_RAMP);
}

void flood_fail(struct flood *f, int code, const char *text)
{
    if (f->phase == FLOOD_END)
        return;
    f->result = err_set(&f->why, code, "%s", text);
    flood_now(f);
    enter(f, FLOOD_END);
}

void flood_interrupt(struct flood *f)
{
    f->interrupted = true;
    flood_now(f);
    enter(f, FLOOD_END);
}

bool flood_ended(const struct flood *f)
{
    return f->phase == FLOOD_END;
}

int flood_result(const struct flood *f, struct err_ctx *ctx)
{
    return f->result ? err_set(ctx, f->result, "%s", f->why.text) : 0;
}

/* ---- what happens when ---- */

static void fall_silent(struct flood *f, struct flood_phone *p)
{
    p->silent = true;
    f->ready -= p->was_ready;
    p->was_ready = false;
}

static void ramp(struct flood *f)
{
    uint64_t elapsed = f->io.now.mono_ns - f->phase_ns;
    uint64_t due = f->cfg.ramp_ns ? (uint64_t)((unsigned __int128)f->cfg.phones * elapsed / f->cfg.ramp_ns)
                                  : f->cfg.phones;
    if (due > f->cfg.phones)
        due = f->cfg.phones;
    for (uint32_t k = 0; f->started < due && k < STEP_AT_ONCE && f->started - f->came < GREETING_MAX; k++)
        flood_simple(f, f->started++, CLIENT_START);
    if (f->came == f->cfg.phones && !f->ramp_done_ns)
        f->ramp_done_ns = f->io.now.mono_ns;
    if (f->ramp_done_ns && f->chats_ready == f->chats_n && !f->made_ns)
        f->made_ns = f->io.now.mono_ns;
    if (f->made_ns && f->io.now.mono_ns - f->made_ns >= f->cfg.settle_ns) {
        enter(f, FLOOD_PLATEAU);
        f->plateau_ns = f->next_send_ns = f->next_churn_ns = f->phase_ns;
        f->silent_since_ms = flood_ms(f);
        for (uint32_t i = 0; i < f->cfg.phones; i++)
            if (f->phones[i].chosen)
                fall_silent(f, &f->phones[i]);
    } else if (elapsed > f->cfg.setup_ns) {
        char text[200];
        snprintf(text, sizeof text, "after %llu s %u of %u phones have connected, %u of %u chats are made",
                 (unsigned long long)(elapsed / NS_PER_S), f->came, f->cfg.phones, f->chats_ready,
                 f->chats_n);
        flood_fail(f, ERR_TIMEOUT, text);
    }
}

/* Somebody who is connected; UINT32_MAX: hardly anybody is. */
static uint32_t anybody(struct flood *f)
{
    for (int tries = 0; tries < 16; tries++) {
        uint32_t i = (uint32_t)rng_below(&f->rng, f->cfg.phones);
        if (f->phones[i].was_ready)
            return i;
    }
    return UINT32_MAX;
}

static void say(struct flood *f, uint64_t intended_ns)
{
    uint32_t i = anybody(f);
    hist_add(&f->lag_us, (f->io.now.mono_ns - intended_ns) / NS_PER_US);
    hist_add(&f->recent_lag_us, (f->io.now.mono_ns - intended_ns) / NS_PER_US);
    if (i == UINT32_MAX) {
        f->no_phone++;
        return;
    }
    uint32_t least = f->cfg.body_max / 10 > 16 ? f->cfg.body_max / 10 : 16;
    size_t n = rng_between(&f->rng, least, f->cfg.body_max > least ? f->cfg.body_max : least);
    memset(f->body, 'a' + (int)(n % 26), n);
    for (int k = 15; k >= 0; k--, intended_ns >>= 4)
        f->body[k] = "0123456789abcdef"[intended_ns & 15];
    flood_step(f, i,
               &(struct client_event){.type = CLIENT_SUBMIT,
                                      .chat = f->cfg.first_chat + f->phones[i].chat,
                                      .kind = SLICE("text"),
                                      .body = {f->body, n}});
}

static uint64_t gap(struct flood *f, uint64_t rate_per_1000s)
{
    uint64_t ns = rng_exp(&f->rng, 1000 * NS_PER_S / rate_per_1000s);
    return ns ? ns : 1;
}

static void talk(struct flood *f)
{
    for (int k = 0; k < SENDS_AT_ONCE && f->cfg.rate_per_1000s && f->next_send_ns <= f->io.now.mono_ns; k++) {
        say(f, f->next_send_ns);
        f->next_send_ns += gap(f, f->cfg.rate_per_1000s);
    }
    for (int k = 0; k < SENDS_AT_ONCE && f->cfg.churn_per_1000s && f->next_churn_ns <= f->io.now.mono_ns;
         k++) {
        uint32_t i = anybody(f);
        if (i != UINT32_MAX)
            flood_cut(f, i);
        f->next_churn_ns += gap(f, f->cfg.churn_per_1000s);
    }
}

static void plateau(struct flood *f)
{
    talk(f);
    if (f->io.now.mono_ns - f->phase_ns < f->cfg.for_ns)
        return;
    enter(f, f->cfg.mass_ppm ? FLOOD_MASS : FLOOD_DRAIN);
    f->mass_ns = f->cfg.mass_ppm ? f->phase_ns : 0;
    f->mass_left = (uint32_t)((uint64_t)f->cfg.phones * f->cfg.mass_ppm / 1000000);
}

/* Those that are back from the dark, and not served yet. */
static uint32_t on_their_way(const struct flood *f)
{
    uint32_t served = f->ready + f->cfg.silent, dark = f->mass_left - f->mass_back, away = served + dark;
    return away < f->cfg.phones ? f->cfg.phones - away : 0;
}

/* All of them break at once (as fast as a loop can), stay dark, and come back, as in the ramp
 * no more at a time than a server can greet. */
static void mass(struct flood *f)
{
    uint64_t since = f->io.now.mono_ns - f->phase_ns;
    talk(f);
    for (uint32_t k = 0; f->mass_next < f->mass_left && k < STEP_AT_ONCE; k++) {
        uint32_t i = f->mass_next++;
        if (f->phones[i].silent)
            continue;
        f->phones[i].dark = true;
        flood_simple(f, i, CLIENT_OFFLINE);
        flood_cut(f, i);
    }
    if (f->mass_next < f->mass_left || since < f->cfg.dark_ns)
        return;
    for (uint32_t k = 0; f->mass_back < f->mass_left && k < STEP_AT_ONCE && on_their_way(f) < GREETING_MAX;
         k++) {
        uint32_t i = f->mass_back++;
        if (!f->phones[i].dark)
            continue;
        f->phones[i].dark = false;
        flood_simple(f, i, CLIENT_ONLINE);
    }
    if (f->mass_back < f->mass_left && since <= f->cfg.dark_ns + MASS_MAX_NS)
        return;
    if (!f->mass_most_ms && f->cfg.phones - f->ready - f->cfg.silent <= f->mass_left / 100)
        f->mass_most_ms = (uint32_t)((since - f->cfg.dark_ns) / NS_PER_MS);
    if (f->ready + f->cfg.silent == f->cfg.phones) {
        f->mass_done_ns = f->io.now.mono_ns - f->phase_ns - f->cfg.dark_ns;
        enter(f, FLOOD_DRAIN);
    } else if (since > f->cfg.dark_ns + MASS_MAX_NS) { /* it is told as it stands */
        f->mass_done_ns = since;
        enter(f, FLOOD_DRAIN);
    } else if (f->cfg.churn_per_1000s) {
        f->cfg.churn_per_1000s = 0; /* so that "all are back" can come */
    }
}

/* Silent phones receive nothing, so what their chats said is owed to fewer. */
static uint64_t owed(const struct flood *f)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->cfg.phones; i++)
        if (!f->phones[i].silent)
            n += f->chats[f->phones[i].chat].accepted - f->phones[i].count;
    return n;
}

static void drain(struct flood *f)
{
    uint64_t since = f->io.now.mono_ns - f->phase_ns;
    if (f->outboxes || since < LINGER_NS) {
        if (since > f->cfg.drain_ns)
            enter(f, FLOOD_END);
        return;
    }
    uint32_t second = (uint32_t)(since / (NS_PER_S / 2));
    if (second == f->create_next) /* looked at twice a second */
        return;
    f->create_next = second;
    bool all_gone = f->silent_gone == f->cfg.silent || since > f->cfg.drain_ns;
    if (!owed(f) && all_gone) {
        f->drained = true;
        enter(f, FLOOD_END);
    } else if (since > f->cfg.drain_ns) {
        enter(f, FLOOD_END);
    }
}

static void sample(struct flood *f)
{
    uint32_t now = flood_ms(f);
    if (now - f->sampled_ms < SAMPLE_MS || f->samples_n == SAMPLES_MAX)
        return;
    f->samples[f->samples_n++] =
        (struct flood_sample){.at_ms = (uint32_t)((f->io.now.mono_ns - f->began_ns) / NS_PER_MS),
                              .ready = f->ready,
                              .accepted = f->accepted,
                              .delivered = f->delivered,
                              .served_p50_ms = (float)hist_quantile(&f->recent_served_us, 5000) / 1000,
                              .served_p99_ms = (float)hist_quantile(&f->recent_served_us, 9900) / 1000,
                              .lag_p99_ms = (float)hist_quantile(&f->recent_lag_us, 9900) / 1000};
    f->sampled_ms = now;
    f->recent_served_us = f->recent_lag_us = (struct hist){0};
}

void flood_tick(struct flood *f)
{
    flood_now(f);
    if (f->phase == FLOOD_IDLE || f->phase == FLOOD_END || !f->cfg.world.room(f->cfg.world.arg))
        return;
    for (int k = 0; k < TURNS_AT_ONCE && flood_turn(f); k++)
        flood_now(f);
    uint32_t behind = flood_ms(f) - f->done_ms;
    uint64_t lag_us = behind > WHEEL_MS ? (behind - WHEEL_MS) * 1000u : 0;
    hist_add(&f->recent_lag_us, lag_us);
    if (f->phase != FLOOD_RAMP)
        hist_add(&f->lag_us, lag_us);
    sample(f);
    switch (f->phase) {
    case FLOOD_RAMP:
        ramp(f);
        create_some(f);
        break;
    case FLOOD_PLATEAU:
        plateau(f);
        break;
    case FLOOD_MASS:
        mass(f);
        break;
    case FLOOD_DRAIN:
        drain(f);
        break;
    default:
        break;
    }
}

/* ---- the store's word ---- */

struct verify {
    struct flood *f;
    uint32_t *counts;
    uint64_t *sums;
};

static bool count_entry(void *arg, const struct entry *e)
{
    struct verify *v = arg;
    uint64_t c = e->chat - v->f->cfg.first_chat;
    if (c < v->f->chats_n && e->op == ENTRY_MESSAGE) {
        v->counts[c]++;
        v->sums[c] += hash_bytes(&e->id, sizeof e->id, 0);
    }
    return true;
}

int flood_verify(struct flood *f, struct store *s, uint64_t *bad, struct err_ctx *ctx)
{
    struct verify v = {f, calloc(f->chats_n, sizeof *v.counts), calloc(f->chats_n, sizeof *v.sums)};
    int rc = v.counts && v.sums ? store_scan_chats(s, count_entry, &v, ctx)
                                : err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; !rc && i < f->cfg.phones; i++) {
        const struct flood_phone *p = &f->phones[i];
        if (p->silent)
            continue;
        f->verified++;
        f->verify_bad += p->count != v.counts[p->chat] || p->sum != v.sums[p->chat];
    }
    f->checked = !rc;
    *bad = f->verify_bad;
    free(v.counts);
    free(v.sums);
    return rc;
}

/* The whole: all connect, chats are made, people talk, all is healed and drained. */
#include "load/load.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

void load_fail(struct load *l, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (l->result)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    l->result = err_set(&l->why, code, "%s", text);
}

static void begin(struct load *l, enum load_phase phase)
{
    static const char *const names[] = {"idle", "setup", "load", "drain", "end"};
    bool never_began = phase == PHASE_END && !l->t0_ns;
    l->phase = phase;
    if (!never_began)
        l->cfg.world.phase(l->cfg.world.arg, names[phase]);
}

static void end(struct load *l)
{
    if (l->phase == PHASE_END)
        return;
    if (diary_flush(l->diary, NULL) && !l->result)
        l->result = diary_flush(l->diary, &l->why);
    for (uint32_t i = 0; i < l->phones_n; i++) {
        struct load_phone *p = &l->phones[i];
        phone_simple(p, CLIENT_STOP);
        if (p->sock)
            phone_drop(p, REASON_RUN_END);
    }
    timers_set(&l->timers, &l->sweep, 0);
    timers_set(&l->timers, &l->turn, 0);
    begin(l, PHASE_END);
}

/* ---- setup ---- */

static void start_more(struct load *l)
{
    while (l->start_next < l->phones_n && l->start_next - l->ready_n < CONNECTS_MAX) {
        struct load_phone *p = &l->phones[l->start_next++];
        phone_simple(p, CLIENT_START);
    }
}

/* The first member makes the chat; when that phone is away later on, the next who is there. */
static struct load_phone *creator(struct load *l, const struct load_chat *c)
{
    for (uint32_t k = 0; k < (l->phase == PHASE_SETUP ? 1 : c->members); k++) {
        struct load_phone *p = &l->phones[l->members[c->first + k]];
        if (p->client.state == CLIENT_READY && !p->background)
            return p;
    }
    return NULL;
}

static void create(struct load *l, uint32_t i)
{
    struct load_chat *c = &l->chats[i];
    struct load_phone *p = creator(l, c);
    uint64_t users[PROTO_USERS_MAX];
    if (!p)
        return;
    for (uint32_t k = 0; k < c->members; k++)
        users[k] = l->phones[l->members[c->first + k]].client.user;
    l->creating += !c->asked;
    c->asked = true;
    c->asked_ns = load_now(l).mono_ns;
    phone_send_raw(
        p, &(struct msg){.t = MSG_CREATE, .chat = chat_number(l, i), .users = users, .users_n = c->members});
}

static void create_more(struct load *l)
{
    uint64_t now = load_now(l).mono_ns;
    for (uint32_t i = 0; i < l->chats_n; i++) {
        struct load_chat *c = &l->chats[i];
        if (c->done)
            continue;
        if (c->asked ? now - c->asked_ns >= CREATE_RETRY_NS : l->creating < CREATES_MAX)
            create(l, i);
    }
}

void load_on_ready(struct load_phone *p)
{
    struct load *l = p->load;
    if (l->phase == PHASE_SETUP)
        l->ready_n++;
}

/* A server that begins with nothing counts from the beginning again. */
static void start_counting(struct load *l, const struct load_chat *c, uint64_t number)
{
    for (uint32_t k = 0; k < c->members; k++)
        phone_membership(&l->phones[l->members[c->first + k]], number)->top = 0;
}

void load_on_create_answer(struct load *l, const struct msg *m)
{
    if ((m->t != MSG_DONE && m->t != MSG_ERROR) || !slice_is(m->re, "create"))
        return;
    uint64_t place = chat_place(l, m->chat);
    if (place >= l->chats_n)
        return;
    struct load_chat *c = &l->chats[place];
    bool exists = m->t == MSG_ERROR && slice_is(m->code, proto_error_code(PROTO_CHAT_EXISTS));
    if (m->t == MSG_ERROR && (!exists || (l->phase == PHASE_SETUP && !l->cfg.script))) {
        if (m->retry_ms || l->phase != PHASE_SETUP)
            return; /* asked again by itself */
        load_fail(l, ERR_UNAVAILABLE, "chat %llu could not be made: %.*s: %.*s%s",
                  (unsigned long long)m->chat, (int)m->code.n, m->code.n ? m->code.p : "", (int)m->text.n,
                  m->text.n ? m->text.p : "",
                  exists ? "; the server knows it from another load: give it a fresh store" : "");
        return;
    }
    if (c->done)
        return;
    l->creating -= c->asked;
    l->chats_done++;
    c->done = true;
    if (l->phase != PHASE_SETUP)
        start_counting(l, c, m->chat);
}

void load_on_refused_send(struct load *l, const struct msg *m)
{
    if ((l->phase != PHASE_LOAD && l->phase != PHASE_DRAIN) || m->t != MSG_ERROR ||
        !slice_is(m->re, "send") || !slice_is(m->code, proto_error_code(PROTO_NO_SUCH_CHAT)) ||
        chat_place(l, m->chat) >= l->chats_n)
        return;
    uint32_t i = (uint32_t)chat_place(l, m->chat);
    if (!l->chats[i].done || load_now(l).mono_ns - l->chats[i].asked_ns < STALE_ANSWER_NS)
        return; /* it is being made, or was just now */
    l->chats[i].asked = l->chats[i].done = false;
    l->chats_done--;
    l->chats_remade++;
    create(l, i);
}

static void on_arrival(struct timer *t);

static void begin_load(struct load *l)
{
    l->t0_ns = load_now(l).mono_ns;
    for (uint32_t i = 0; i < l->chats_n; i++)
        for (uint32_t k = 0; k < l->chats[i].members; k++) {
            const struct load_phone *p = &l->phones[l->members[l->chats[i].first + k]];
            const struct load_population *c = &l->populations_cfg[p->population];
            diary_member(l->diary, chat_number(l, i), p->client.user, net_name(c->net), c->name);
        }
    begin(l, PHASE_LOAD);
    timers_set(&l->timers, &l->turn, l->t0_ns + l->cfg.duration_ns);
    if (l->cfg.script) {
        script_begin(l);
        return;
    }
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        struct population *p = &l->populations[i];
        p->arrival.fire = on_arrival;
        if (p->cfg->rate_per_1000s)
            timers_set(&l->timers, &p->arrival,
                       l->t0_ns + rng_exp(&p->rng, 1000 * NS_PER_S / p->cfg->rate_per_1000s) + 1);
    }
    for (uint32_t i = 0; i < l->phones_n; i++)
        habits_start(&l->phones[i]);
    for (uint32_t i = 0; i < l->cfg.faults_n; i++)
        timers_set(&l->timers, &l->fault_timers[i].timer, l->t0_ns + l->faults_cfg[i].at_ns + 1);
}

static void sweep_setup(struct load *l, uint64_t now)
{
    start_more(l);
    if (l->ready_n == l->phones_n)
        create_more(l);
    if (l->ready_n == l->phones_n && l->chats_done == l->chats_n)
        begin_load(l);
    else if (now - l->setup_ns > l->cfg.setup_ns ||
             (l->refused && !l->connects && now - l->setup_ns > REFUSED_NS))
        load_fail(
            l, ERR_UNAVAILABLE, "after %llu s %u of %u phones were connected and %u of %u chats made%s%s",
            (unsigned long long)((now - l->setup_ns) / NS_PER_S), l->ready_n, l->phones_n, l->chats_done,
            l->chats_n, l->last_trouble.text[0] ? "; last trouble: " : "", l->last_trouble.text);
}

/* ---- load ---- */

static void say(struct load *l, struct population *p, uint64_t intended_ns)
{
    if (!p->awake_n) {
        p->nobody_awake++;
        return;
    }
    struct load_phone *phone = &l->phones[p->awake[rng_below(&p->rng, p->awake_n)]];
    const struct membership *ms = &phone->chats[rng_below(&p->rng, phone->chats_n)];
    struct slice body = texts_pick(&p->texts, &p->rng, p->cfg->body_min, p->cfg->body_max, l->body);
    if (body.p != l->body)
        memcpy(l->body, body.p, body.n);
    l->body_len = body.n;
    l->intended_ns = intended_ns;
    l->intent = ++l->intents;
    uint64_t now = load_now(l).mono_ns;
    hist_add(&l->ledger.counts[phone->population].lag_us, (now - intended_ns) / NS_PER_US);
    phone_step(phone, &(struct client_event){.type = CLIENT_SUBMIT,
                                             .chat = chat_number(l, ms->chat),
                                             .intent = l->intent,
                                             .kind = SLICE("text"),
                                             .body = {l->body, l->body_len}});
}

static void on_arrival(struct timer *t)
{
    struct population *p = CONTAINER_OF(t, struct population, arrival);
    struct load *l = p->load;
    uint64_t intended = t->at_ns;
    timers_set(&l->timers, t, intended + rng_exp(&p->rng, 1000 * NS_PER_S / p->cfg->rate_per_1000s) + 1);
    say(l, p, intended);
}

static void on_fault(struct timer *t)
{
    struct load *l = CONTAINER_OF(t, struct fault_timer, timer)->load;
    uint32_t number = CONTAINER_OF(t, struct fault_timer, timer)->number;
    const struct load_fault *f = &l->faults_cfg[number];
    struct population *p = &l->populations[f->population];
    struct rng rng;
    rng_seed_stream(&rng, l->cfg.seed, FAULT_STREAM + number);
    for (uint32_t i = 0; i < p->n; i++) {
        if (!rng_hit(&rng, RNG_SHARE(f->share_ppm)))
            continue;
        if (f->what == LOAD_KILL_SOCKET)
            habit_kill(&l->phones[p->first + i], f->mid_frame);
        else
            habit_network_change(&l->phones[p->first + i]);
    }
}

/* ---- heal and drain ---- */

static void begin_drain(struct load *l)
{
    uint64_t now = load_now(l).mono_ns;
    l->drain_ns = now;
    begin(l, PHASE_DRAIN);
    for (uint32_t i = 0; i < l->cfg.populations_n; i++)
        timers_set(&l->timers, &l->populations[i].arrival, 0);
    for (uint32_t i = 0; i < l->cfg.faults_n; i++)
        timers_set(&l->timers, &l->fault_timers[i].timer, 0);
    if (l->cfg.script)
        timers_set(&l->timers, &l->script, 0);
    for (uint32_t i = 0; i < l->phones_n; i++)
        habits_stop(&l->phones[i]);
    timers_set(&l->timers, &l->turn, now + l->cfg.drain_ns + 1);
}

static bool all_connected(const struct load *l, const struct population *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        uint8_t state = l->phones[p->first + i].client.state;
        if (state != CLIENT_READY && state != CLIENT_TERMINAL)
            return false;
    }
    return true;
}

/* Reliable phones are done when nothing is owed any more. Others can't know: they are done when all is there,
 * or when they are connected and nothing came for a while. */
static bool drained(const struct load *l, uint32_t i, uint64_t now)
{
    const struct population *p = &l->populations[i];
    const struct ledger_counts *c = &l->ledger.counts[i];
    bool outboxes = false;
    for (uint32_t k = 0; k < p->n && !outboxes; k++)
        outboxes = l->phones[p->first + k].client.outbox.count > 0;
    if (!outboxes && (p->cfg->features == CLIENT_RELIABLE ? !c->missing : c->delivered == c->expected))
        return true;
    if (p->cfg->features == CLIENT_RELIABLE || (outboxes && now - l->drain_ns < CLIENT_RETRY_MAX_NS))
        return false;
    uint64_t since = p->surfaced_ns > l->drain_ns ? p->surfaced_ns : l->drain_ns;
    return now - since >= QUIET_NS && (all_connected(l, p) || now - l->drain_ns >= 5 * QUIET_NS);
}

static void sweep_drain(struct load *l, uint64_t now)
{
    for (uint32_t i = 0; i < l->cfg.populations_n; i++)
        if (!drained(l, i, now) || (now - l->drain_ns < RECEIPTS_NS && reading_missing(l, i))) {
            l->settled_ns = 0;
            return;
        }
    if (l->cfg.world.more && l->cfg.world.more(l->cfg.world.arg)) {
        l->settled_ns = 0;
        return;
    }
    if (!l->settled_ns)
        l->settled_ns = now;
    if (now - l->settled_ns < LINGER_NS) /* a duplicate would come now; last acks go out */
        return;
    l->drained = true;
    end(l);
}

static void on_turn(struct timer *t)
{
    struct load *l = CONTAINER_OF(t, struct load, turn);
    if (l->phase == PHASE_LOAD)
        begin_drain(l);
    else
        end(l);
}

/* ---- the steady pulse ---- */

static void watch_tcp(struct load *l, struct load_phone *p, uint64_t now)
{
    if (!p->sock || !p->lane.conn || p->background || p->held)
        return;
    uint64_t written = l->cfg.world.written(p->sock);
    if (written == p->acked_seen) { /* nothing new since all was acknowledged: no system call for the idle */
        p->acked_ns = now;
        return;
    }
    uint64_t acked = l->cfg.world.acked(p->sock);
    press_tick(p, false);
    if (acked >= written || acked != p->acked_seen || !p->acked_ns) {
        p->acked_seen = acked;
        p->acked_ns = now;
    } else if (now - p->acked_ns >= UNACKED_NS) {
        p->acked = acked;
        phone_simple(p, CLIENT_UNACKED);
    }
}

static void on_sweep(struct timer *t)
{
    struct load *l = CONTAINER_OF(t, struct load, sweep);
    uint64_t now = load_now(l).mono_ns, late = now - t->at_ns;
    timers_set(&l->timers, t, now + SWEEP_NS);
    if (l->phase == PHASE_LOAD) {
        hist_add(&l->stall_us, late / NS_PER_US);
        l->stalls += late >= STALL_NS;
    }
    l->sweep_count++;
    for (uint32_t i = l->sweep_count % 4; i < l->phones_n; i += 4)
        watch_tcp(l, &l->phones[i], now);
    if (l->sweep_count % 10 == 0 && diary_flush(l->diary, &l->why) && !l->result)
        l->result = l->why.code;
    if (l->phase != PHASE_SETUP && l->chats_done < l->chats_n)
        create_more(l);
    if (l->phase == PHASE_SETUP)
        sweep_setup(l, now);
    else if (l->phase == PHASE_DRAIN)
        sweep_drain(l, now);
    if (l->result)
        end(l);
}

/* ---- face ---- */

static void restore(void *arg, const struct outbox_row *row)
{
    struct load *l = arg;
    uint64_t i = row->user - LOAD_FIRST_USER;
    if (row->user < LOAD_FIRST_USER || i >= l->phones_n || !client_has_outbox(&l->phones[i].client))
        return;
    phone_step(&l->phones[i], &(struct client_event){.type = CLIENT_RESTORE,
                                                     .id = row->id,
                                                     .chat = row->chat,
                                                     .intent = row->intent,
                                                     .kind = row->kind,
                                                     .body = row->body});
}

int load_new(struct load **out, const struct load_config *c, struct err_ctx *ctx)
{
    struct load *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    l->cfg = *c;
    l->cfg.setup_ns = c->setup_ns ? c->setup_ns : 120 * NS_PER_S;
    l->cfg.lag_max_ns = c->lag_max_ns ? c->lag_max_ns : 100 * NS_PER_MS;
    l->cfg.first_chat = c->first_chat ? c->first_chat : 1000001;
    l->cfg.messages_max = c->messages_max ? c->messages_max : 8u << 20;
    buf_init(&l->out, PROTO_FRAME_MAX);
    buf_init(&l->token, 4096);
    l->io = (struct client_io){
        .pool = &l->pool, .claims = l->claims, .claims_max = PROTO_CLAIMS_MAX, .emit = phone_emit, .arg = l};
    l->sweep.fire = on_sweep;
    l->turn.fire = on_turn;
    for (uint32_t i = 0; i < c->populations_n && i < LOAD_POPULATIONS_MAX; i++)
        l->populations_cfg[i] = c->populations[i];
    for (uint32_t i = 0; i < c->faults_n && i < LOAD_FAULTS_MAX; i++) {
        l->faults_cfg[i] = c->faults[i];
        l->fault_timers[i] = (struct fault_timer){.load = l, .number = i, .timer = {.fire = on_fault}};
    }
    int rc = build_all(l, ctx);
    if (!rc && c->diary)
        rc = diary_open(&l->diary, c->diary, c->diary_sync, restore, l, ctx);
    if (rc) {
        load_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void load_free(struct load *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; i < l->phones_n && l->phones; i++)
        if (l->phones[i].sock)
            l->cfg.world.free(l->phones[i].sock);
    diary_close(l->diary, NULL);
    build_release(l);
    timers_release(&l->timers);
    buf_release(&l->out);
    buf_release(&l->token);
    free(l);
}

void load_start(struct load *l)
{
    l->setup_ns = load_now(l).mono_ns;
    begin(l, PHASE_SETUP);
    start_more(l);
    timers_set(&l->timers, &l->sweep, l->setup_ns + SWEEP_NS);
}

void load_tick(struct load *l)
{
    struct timer *t;
    for (int i = 0; i < ROUND_MAX && (t = timers_pop(&l->timers, load_now(l).mono_ns)); i++)
        t->fire(t);
}

uint64_t load_next(const struct load *l)
{
    return timers_next(&l->timers);
}

void load_interrupt(struct load *l)
{
    l->interrupted = true;
    end(l);
}

bool load_ended(const struct load *l)
{
    return l->phase == PHASE_END;
}

bool load_drained(const struct load *l)
{
    return l->drained;
}

int load_result(const struct load *l, struct err_ctx *ctx)
{
    if (l->result)
        return err_set(ctx, l->result, "%s", l->why.text);
    return l->interrupted ? err_set(ctx, ERR_INTERRUPTED, "interrupted") : 0;
}

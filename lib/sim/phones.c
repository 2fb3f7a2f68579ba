/* The phones' end: lib/load's phones over simulated sockets. */
#include <stdlib.h>
#include <string.h>

#include "core/client.h"
#include "sim/sim_impl.h"
#include "sim/watch.h"

#define CONNECT_NS (10 * NS_PER_S)
#define QUEUE_MAX  (1u << 20)
#define HEADER_MAX 14u

static uint32_t framed(uint64_t n)
{
    return (uint32_t)(n + 6 + (n > 125 ? n > 65535 ? 8 : 2 : 0)); /* RFC 6455 section 5.2, masked */
}

/* ---- what the phones ask of the world ---- */

static struct now world_now(void *arg)
{
    const struct sim *s = arg;
    return sim_now(s, s->phones_skew_us);
}

static int world_token(void *arg, uint64_t user, uint32_t device, struct buf *out)
{
    struct sim *s = arg;
    s->greeter = user;
    uint64_t now = sim_now(s, 0).wall_us / 1000000;
    struct token t = {.user = user, .device = device, .issued_s = now, .expires_s = now + 86400 * 366ull};
    return token_mint(&s->keys, &t, out);
}

static void late_later(struct load_socket *c)
{
    c->refs++;
    sim_plan(c->sim, c->sim->now_ns + CONNECT_NS, SIM_LATE, c, STREAM_PHONE);
}

static int world_connect(void *arg, uint32_t source, struct load_phone *p, struct load_socket **out,
                         struct err_ctx *ctx)
{
    struct sim *s = arg;
    struct load_socket *c = conn_new(s, source);
    if (!c)
        return err_set(ctx, ERR_NOMEM, "no memory for a socket");
    c->phone = p;
    late_later(c);
    stream_connect(&c->stream, s->now_ns);
    conn_arm(c);
    *out = c;
    return 0;
}

static void give(struct load_socket *c)
{
    if (c->frozen || c->up_given == c->up_end || !stream_room(&c->stream, STREAM_PHONE))
        return;
    uint32_t n = (uint32_t)(c->up_end - c->up_given);
    c->up_given = c->up_end;
    stream_write(&c->stream, STREAM_PHONE, n, c->sim->now_ns);
    conn_arm(c);
}

static int world_send(struct load_socket *c, const char *p, size_t n, uint64_t *end_offset)
{
    uint64_t queued = c->up_end - c->up_given;
    if (!c->upgraded || c->ended[STREAM_PHONE])
        return ERR_UNAVAILABLE;
    if (queued && queued + n + HEADER_MAX > QUEUE_MAX)
        return ERR_LIMIT;
    struct sim_frame *f = frame_new(n);
    memcpy(f->data, p, n);
    if (!c->user) /* the first frame is hello, for which a token was asked just now */
        c->user = c->sim->greeter;
    c->up_end += framed(n);
    f->n = (uint32_t)n;
    f->end = c->up_end;
    queue_push(&c->up, f);
    if (end_offset)
        *end_offset = c->up_end;
    give(c);
    return 0;
}

/* The app lets go of the socket: FIN, or RST when there is something it has not read. */
static void leave(struct load_socket *c, bool reset)
{
    struct sim *s = c->sim;
    c->phone = NULL;
    c->refs++;
    if (reset || stream_received(&c->stream, STREAM_PHONE) > c->stream.at[STREAM_PHONE].read - 1)
        stream_abort(&c->stream, STREAM_PHONE, s->now_ns);
    else
        stream_fin(&c->stream, STREAM_PHONE, true, s->now_ns);
    conn_arm(c);
    conn_unref(c);
}

static void world_free(struct load_socket *c)
{
    leave(c, false);
}

static int world_vanish(struct load_socket *c)
{
    c->phone = NULL;
    c->refs++;
    stream_vanish(&c->stream, STREAM_PHONE);
    conn_unref(c);
    return 0;
}

static int world_cut(struct load_socket *c, const char *p, size_t n, size_t bytes, uint64_t *end_offset)
{
    (void)p;
    if (c->upgraded && !c->ended[STREAM_PHONE]) {
        c->up_end += bytes < framed(n) ? bytes : framed(n);
        give(c);
    }
    if (end_offset)
        *end_offset = c->up_given;
    leave(c, true);
    return 0;
}

static void look_later(struct load_socket *c)
{
    c->refs++;
    sim_plan(c->sim, c->sim->now_ns, SIM_LOOK, c, 0);
}

static void world_freeze(struct load_socket *c, bool frozen)
{
    if (c->frozen == frozen)
        return;
    c->frozen = frozen;
    if (frozen)
        return;
    look_later(c);
    if (!c->upgraded)
        late_later(c); /* its patience begins anew */
}

static uint64_t world_written(const struct load_socket *c)
{
    return c->up_end;
}
static uint64_t world_read(const struct load_socket *c)
{
    return c->read_end;
}
static uint64_t world_acked(const struct load_socket *c)
{
    return stream_acked(&c->stream, STREAM_PHONE);
}
static void world_flow(const struct load_socket *c, struct trace_flow *out)
{
    *out = (struct trace_flow){.src = c->source ? c->source : 0x7F000001u,
                               .dst = SIM_SERVER_ADDR,
                               .sport = c->port,
                               .dport = SIM_SERVER_PORT};
}
static void world_radio(void *arg, uint32_t address, int op)
{
    net_radio(arg, address, op);
}

static void world_phase(void *arg, const char *name)
{
    static const struct {
        const char *name;
        int phase;
    } phases[] = {{"load", PHASE_LOAD}, {"drain", PHASE_DRAIN}, {"end", PHASE_END}};
    struct sim *s = arg;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        if (strcmp(phases[i].name, name) == 0)
            s->phase = phases[i].phase;
    if (s->phase == PHASE_LOAD) {
        s->t0_ns = s->now_ns;
        net_begin(s);
        faults_begin(s);
    }
    if (s->phase == PHASE_END)
        s->ended_ns = s->now_ns;
}

/* Their ledger knows of messages, not of members who came and went, nor of stores that were put back; and
 * receipts come a second after what they are of. */
static bool world_more(void *arg)
{
    struct sim *s = arg;
    if (!s->config.demand)
        return !watch_receipts_settled(s);
    return !(server_all_up(s) && watch_converged(s));
}

/* ---- what sockets tell the phones ---- */

static const char *frame_text(struct sim *s, const struct sim_frame *f, size_t *n)
{
    if (f->n == 1) {
        *n = f->object[0]->len;
        return f->object[0]->data;
    }
    buf_reset(&s->text);
    for (uint32_t i = 0; i < f->n; i++) {
        buf_char(&s->text, i ? ',' : '[');
        buf_add(&s->text, f->object[i]->data, f->object[i]->len);
    }
    buf_char(&s->text, ']');
    *n = s->text.len;
    return s->text.data;
}

static void tell_closed(struct load_socket *c, int code, enum reason reason)
{
    struct load_phone *p = c->phone;
    leave(c, false);
    load_closed(p, code, reason);
}

static void read_frames(struct load_socket *c, uint64_t received)
{
    struct sim_frame *f;
    size_t n;
    while (c->phone && !c->frozen && (f = queue_pop(&c->down, received))) {
        c->read_end = f->end;
        if (f->code) {
            int code = f->code;
            frame_free(f, true);
            stream_read(&c->stream, STREAM_PHONE, received, c->sim->now_ns);
            tell_closed(c, code, REASON_CLOSED_BY_PEER);
            return;
        }
        const char *text = frame_text(c->sim, f, &n);
        uint64_t sent_ns = f->sent_ns;
        load_frame(c->phone, text, n);
        watch_heard(c->sim, c->user, sent_ns);
        frame_free(f, true);
    }
}

/* The socket is readable, or has ended, and the app is awake. */
void phones_look(struct load_socket *c)
{
    struct sim *s = c->sim;
    if (!c->phone || c->frozen)
        return;
    uint64_t received = stream_received(&c->stream, STREAM_PHONE);
    if (!c->upgraded && received >= SIM_ANSWER_BYTES) {
        c->upgraded = true;
        c->read_end = SIM_ANSWER_BYTES;
        load_opened(c->phone);
    }
    read_frames(c, received);
    if (!c->phone || c->frozen) {
        phones_plan(s);
        return;
    }
    stream_read(&c->stream, STREAM_PHONE, received, s->now_ns);
    give(c);
    if (c->ended[STREAM_PHONE])
        tell_closed(c, 0, (enum reason)c->ended[STREAM_PHONE]);
    phones_plan(s);
}

void phones_event(struct load_socket *c, enum stream_event e)
{
    static const uint8_t reasons[] = {[STREAM_ENDED] = REASON_CLOSED_BY_PEER,
                                      [STREAM_REFUSED] = REASON_REFUSED,
                                      [STREAM_RESET] = REASON_RESET,
                                      [STREAM_TIMED_OUT] = REASON_TIMED_OUT};
    if (e == STREAM_CONNECTED) {
        c->up_end = c->up_given = SIM_REQUEST_BYTES;
        stream_write(&c->stream, STREAM_PHONE, SIM_REQUEST_BYTES, c->sim->now_ns);
        return;
    }
    if (e == STREAM_ROOM) {
        give(c);
        return;
    }
    if (e != STREAM_DATA)
        c->ended[STREAM_PHONE] = reasons[e];
    phones_look(c);
}

void phones_late(struct load_socket *c)
{
    if (!c->phone || c->upgraded || c->frozen)
        return;
    tell_closed(c, 0, REASON_TIMED_OUT);
    phones_plan(c->sim);
}

void phones_plan(struct sim *s)
{
    uint64_t next = load_next(s->load);
    if (!next || (s->load_ns && s->load_ns <= next))
        return;
    s->load_ns = next > s->now_ns ? next : s->now_ns;
    sim_plan(s, s->load_ns, SIM_LOAD, NULL, 0);
}

/* ---- from the scenario to populations ---- */

static int one_population(struct sim *s, uint32_t i, struct err_ctx *ctx)
{
    const struct scenario_population *p = &s->s->load[i];
    const struct scenario_link *link = p->link[0] ? scenario_find_link(s->s, p->link) : NULL;
    struct load_population *out = &s->populations[i];
    uint8_t features;
    int rc = client_features_parse(&features, p->client, ctx);
    if (rc) {
        err_prefix(ctx, "%s: load.%s.client: ", s->s->path, p->name);
        return rc;
    }
    uint8_t on_gap;
    rc = client_on_gap_parse(&on_gap, p->on_gap, ctx);
    if (rc) {
        err_prefix(ctx, "%s: load.%s.on_gap: ", s->s->path, p->name);
        return rc;
    }
    *out = (struct load_population){.net = link ? net_parse(link->net) : NET_ETHERNET,
                                    .clients = p->clients,
                                    .features = features,
                                    .rate_per_1000s = p->rate_per_1000s,
                                    .joins = p->joins[0] != 0,
                                    .chat_size = p->chat_size,
                                    .chats_per_client = p->chats_per_client,
                                    .body_min = p->body_min,
                                    .body_max = p->body_max,
                                    .texts = p->texts[0] ? p->texts : NULL,
                                    .retries = p->retries,
                                    .resync_window_ns = p->resync_window,
                                    .forge_ppm = p->forge_ppm,
                                    .habits = {.background_every = p->habits.background_every,
                                               .background_for = p->habits.background_for,
                                               .kill_after = p->habits.kill_after,
                                               .network_change_every = p->habits.network_change_every,
                                               .network_change_gap = p->habits.network_change_gap,
                                               .resend_after = p->habits.resend_after,
                                               .resend_share_ppm = p->habits.resend_share_ppm,
                                               .typing_every = p->habits.typing_every,
                                               .typing_for = p->habits.typing_for,
                                               .watch = p->habits.watch,
                                               .read_after = p->habits.read_after,
                                               .storage_loss_ppm = p->habits.storage_loss_ppm}};
    out->on_gap = on_gap;
    memcpy(out->name, p->name, sizeof p->name);
    scenario_addresses(s->s, i, &out->first_address, &out->addresses);
    if (!out->addresses)
        out->first_address = 0;
    return 0;
}

static uint32_t phone_faults(struct sim *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->s->faults_n; i++) {
        const struct scenario_fault *f = &s->s->faults[i];
        uint32_t k = 0;
        if (f->what != FAULT_KILL_SOCKET && f->what != FAULT_NETWORK_CHANGE)
            continue;
        while (k < s->s->load_n && strcmp(s->s->load[k].name, f->target) != 0)
            k++;
        BUG_ON(k == s->s->load_n); /* the scenario was checked */
        s->faults[n++] =
            (struct load_fault){.at_ns = f->at,
                                .what = f->what == FAULT_KILL_SOCKET ? LOAD_KILL_SOCKET : LOAD_NETWORK_CHANGE,
                                .population = k,
                                .share_ppm = f->share_ppm,
                                .mid_frame = f->mid_frame};
    }
    return n;
}

int phones_new(struct sim *s, struct err_ctx *ctx)
{
    char journal[600];
    for (uint32_t i = 0; i < s->s->load_n; i++) {
        int rc = one_population(s, i, ctx);
        if (rc)
            return rc;
    }
    snprintf(journal, sizeof journal, "%s/journal", s->config.dir ? s->config.dir : "");
    struct load_config c = {.populations = s->populations,
                            .populations_n = s->s->load_n,
                            .faults = s->faults,
                            .faults_n = phone_faults(s),
                            .seed = s->s->seed,
                            .duration_ns = s->s->duration,
                            .drain_ns = s->s->drain,
                            .lag_max_ns = s->s->send_lag_max,
                            .diary = s->config.dir ? journal : NULL,
                            .keep_copies = sim_keeps_copies(s),
                            .trace = s->load_trace,
                            .world = {.now = world_now,
                                      .token = world_token,
                                      .connect = world_connect,
                                      .send = world_send,
                                      .free = world_free,
                                      .vanish = world_vanish,
                                      .cut = world_cut,
                                      .freeze = world_freeze,
                                      .written = world_written,
                                      .read = world_read,
                                      .acked = world_acked,
                                      .flow = world_flow,
                                      .radio = world_radio,
                                      .phase = world_phase,
                                      .watch = watch_phone,
                                      .forgot = watch_forgot,
                                      .here = watch_here,
                                      .more = world_more,
                                      .arg = s}};
    watch_devices(s);
    return load_new(&s->load, &c, ctx);
}

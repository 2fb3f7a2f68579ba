/* The checker's ears. */
#include "sim/watch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "audit/live.h"
#include "shard/shard.h"

#define NOTES       32768u            /* a power of two; of more, the oldest are forgotten */
#define WATCH_NS    (100 * NS_PER_MS) /* between two looks at what is shown */
#define CATCH_UP_NS (1500 * NS_PER_MS)
#define STORY_MAX   40u
#define STORY_CHAT  12u

struct sim_note {
    uint64_t at_ns, chat, user, arg;
    const char *what;
    struct id id;
};

static void note(struct sim *s, const char *what, const struct id *id, uint64_t chat, uint64_t user,
                 uint64_t arg)
{
    struct sim_note *n = &s->notes[s->notes_n++ & (NOTES - 1)];
    *n = (struct sim_note){.at_ns = s->now_ns, .chat = chat, .user = user, .arg = arg, .what = what};
    if (id)
        n->id = *id;
}

void watch_note(struct sim *s, const char *what, uint64_t arg)
{
    note(s, what, NULL, 0, 0, arg);
}

int watch_new(struct sim *s, struct err_ctx *ctx)
{
    unsigned features;
    int rc = delivery_parse(&features, s->s->server_delivery, ctx);
    if (rc)
        return rc;
    struct live_promises p = {.log = delivery_needs_log(features),
                              .dedup = (features & DELIVERY_RETRY) != 0,
                              .resumes = (features & DELIVERY_ACK) && (features & DELIVERY_RESYNC)};
    p.copies = sim_keeps_copies(s);
    p.typing = !strstr(s->s->server_args, "--presence legacy");
    p.presence = features == DELIVERY_RELIABLE && p.typing;
    p.receipts_each = features == DELIVERY_RELIABLE ? s->limits.receipts_each : 0;
    p.recovers = features == DELIVERY_RELIABLE && sim_keeps_copies(s);
    s->live = live_new(&p);
    s->notes = calloc(NOTES, sizeof *s->notes);
    return s->notes ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
}

void watch_free(struct sim *s)
{
    live_free(s->live);
    free(s->notes);
}

void watch_devices(struct sim *s)
{
    uint64_t user = LOAD_FIRST_USER;
    for (uint32_t i = 0; i < s->s->load_n; i++)
        for (uint32_t k = 0; k < s->populations[i].clients; k++)
            live_device(s->live, user++, 1, s->populations[i].features == CLIENT_RELIABLE);
}

bool sim_failed(const struct sim *s)
{
    return live_violation(s->live) != NULL;
}

/* ---- the server ---- */

void watch_sent(struct sim *s, const struct load_socket *c, const struct shared_frame *f)
{
    if (!c->user || f->what == FRAME_OTHER)
        return;
    if (f->what == FRAME_MSG) {
        note(s, f->catchup ? "server redelivers" : "server pushes", &f->id, f->chat, c->user, f->seq);
        live_pushed(s->live, c->user, f->chat, f->seq, &f->id);
    } else {
        note(s, "server accepts", &f->id, f->chat, c->user, f->seq);
        live_acknowledged(s->live, c->user, f->chat, &f->id);
    }
}

void watch_committed(struct sim *s, struct store *store, const struct store_batch *b)
{
    for (size_t i = 0; i < b->entries_n; i++) {
        const struct entry *e = &b->entries[i];
        note(s, "committed", &e->id, e->chat, e->sender, e->seq);
    }
    live_committed(s->live, b);
    for (size_t i = 0; i < b->cursors_n; i++) {
        struct cursor c;
        const struct cursor *of = &b->cursors[i];
        if (!store_cursor(store, of->chat, of->user, of->device, &c, NULL))
            live_cursor(s->live, &c);
    }
}

static bool owns(void *arg, uint64_t chat)
{
    const struct sim_server *v = arg;
    return shard_of_chat(chat) % v->sim->nodes == v->index;
}

int watch_opened(struct sim *s, struct sim_server *v, struct err_ctx *ctx)
{
    watch_note(s, "server starts", v->starts);
    return live_reopened(s->live, v->store, s->nodes > 1 ? owns : NULL, v, ctx);
}

void watch_restored(struct sim *s, bool blind)
{
    watch_note(s, "store restored", 0);
    live_restored(s->live);
    if (blind)
        live_blinded(s->live);
}

/* ---- the phones ---- */

void watch_arrived(struct sim *s, uint64_t user)
{
    live_arrived(s->live, user, s->now_ns);
}

void watch_heard(struct sim *s, uint64_t user, uint64_t sent_ns)
{
    if (sent_ns < s->stood_ns + CATCH_UP_NS)
        return; /* a server that stood still has a round of its clocks to find out what it missed */
    live_heard(s->live, user, sent_ns);
}

void watch_here(void *arg, uint64_t user, bool there)
{
    struct sim *s = arg;
    note(s, there ? "is there" : "is gone", NULL, 0, user, 0);
    live_here(s->live, user, there, s->now_ns);
}

static void presence_shown(struct sim *s, const struct client *c, const struct msg *m)
{
    enum live_shown shown = slice_is(m->code, "online") || slice_is(m->code, "away") ? LIVE_SHOWN_THERE
                            : slice_is(m->code, "offline")                           ? LIVE_SHOWN_GONE
                                                                                     : LIVE_SHOWN_NOTHING;
    note(s,
         shown == LIVE_SHOWN_THERE  ? "shows as there"
         : shown == LIVE_SHOWN_GONE ? "shows as offline"
                                    : "shows nothing of",
         NULL, 0, c->user, m->user);
    live_presence(s->live, c->user, m->user, shown, s->now_ns);
}

static void watch_cursors(struct sim *s, const struct client *c, const struct msg *m)
{
    for (uint32_t i = 0; m->t == MSG_HELLO && i < m->resume_n; i++)
        live_claims(s->live, c->user, m->resume[i].chat, m->resume[i].seq);
    if (m->t == MSG_ACK)
        live_acks(s->live, c->user, m->chat, m->seq);
    if (m->t == MSG_READ) {
        note(s, "has read", NULL, m->chat, c->user, m->seq);
        live_reads(s->live, c->user, c->device, m->chat, m->seq);
    }
    if (m->t == MSG_RECEIPTS)
        live_watches(s->live, c->user, c->device, m->chat, m->away);
}

void watch_phone(void *arg, const struct client *c, const struct client_effect *e)
{
    struct sim *s = arg;
    const struct msg *m = e->m;
    struct claim at;
    switch (e->type) {
    case CLIENT_SUBMITTED:
        note(s, "said", &e->id, e->chat, c->user, e->intent);
        live_submitted(s->live, c->user, e->chat, &e->id,
                       (c->config->features & CLIENT_RETRY) && (s->features & DELIVERY_RETRY));
        break;
    case CLIENT_RESENT:
        note(s, "pressed again", &e->id, e->chat, c->user, e->intent);
        if (!(c->config->features & CLIENT_RETRY))
            live_submitted(s->live, c->user, e->chat, &e->id, false);
        break;
    case CLIENT_DO_SEND:
        if (m->t == MSG_SEND)
            note(s, "sends", &m->id, m->chat, c->user, e->attempt);
        if (m->t == MSG_TYPING)
            live_typed(s->live, c->user, m->chat, s->now_ns);
        watch_cursors(s, c, m);
        break;
    case CLIENT_RECEIPT:
        note(s, "is shown a receipt, read", NULL, e->chat, c->user, e->seq);
        live_receipt(s->live, c->user, c->device, e->chat, e->user, e->delivered, e->seq);
        break;
    case CLIENT_COUNTS:
        for (uint32_t i = 0; i < m->counts_n; i++)
            live_counted(s->live, c->user, m->chat, m->counts[i].to, m->counts[i].delivered,
                         m->counts[i].read);
        break;
    case CLIENT_ACCEPTED:
        note(s, "sees accepted", &e->id, e->chat, c->user, e->seq);
        live_accepted(s->live, c->user, e->chat, e->epoch, e->seq, &e->id);
        break;
    case CLIENT_GAVE_UP:
        note(s, "gives up", &e->id, e->chat, c->user, e->reason);
        live_gave_up(s->live, &e->id);
        break;
    case CLIENT_SURFACE:
        note(s, "shows", &m->id, m->chat, c->user, m->seq);
        live_shown(s->live, c->user, c->device, m->chat, m->epoch, m->seq, m->from, &m->id);
        break;
    case CLIENT_RECEIVED:
        if (e->reason == REASON_RESYNC)
            note(s, "receives, out of order", &m->id, m->chat, c->user, m->seq);
        break;
    case CLIENT_TYPING:
    case CLIENT_TYPING_OVER:
        note(s, e->type == CLIENT_TYPING ? "shows typing of" : "shows no more typing of", NULL, e->chat,
             c->user, e->user);
        live_typing(s->live, c->user, c->device, e->chat, e->user, e->type == CLIENT_TYPING, s->now_ns);
        break;
    case CLIENT_PRESENCE:
        presence_shown(s, c, m);
        break;
    case CLIENT_PRESENCE_LOST:
        live_presence_lost(s->live, c->user);
        break;
    case CLIENT_UNCONFIRMED:
        note(s, "is asked for copies", NULL, m->chat, c->user, m->ranges_n);
        break;
    case CLIENT_OFFERED:
        note(s, "hears what its offer came to", NULL, m->chat, c->user, m->ok);
        break;
    case CLIENT_DUPLICATE:
        note(s, "knows already", &m->id, m->chat, c->user, m->seq);
        if (!client_cursor(c, m->chat, &at) || m->seq <= at.seq + 1) /* else its own, ahead of a gap */
            live_passed(s->live, c->user, c->device, m->chat, m->epoch, m->seq, m->from, &m->id);
        break;
    case CLIENT_GAP:
        note(s, "hears of a gap up to", NULL, m->chat, c->user, m->to);
        live_gap(s->live, c->user, c->device, m->chat, m->gap_from, m->to,
                 slice_is(m->reason, "epoch") || slice_is(m->reason, "missing"));
        break;
    default:
        break;
    }
}

void watch_forgot(void *arg, uint64_t user, uint32_t device)
{
    struct sim *s = arg;
    note(s, "loses its storage", NULL, 0, user, device);
    live_forgot(s->live, user, device);
}

void watch_time(struct sim *s)
{
    if (s->now_ns < s->watched_ns)
        return;
    s->watched_ns = s->now_ns + WATCH_NS;
    live_time(s->live, s->now_ns);
}

/* ---- the end ---- */

bool watch_receipts_settled(struct sim *s)
{
    return live_receipts_settled(s->live);
}

bool watch_converged(struct sim *s)
{
    return live_converged(s->live);
}

void watch_finish(struct sim *s)
{
    live_finish(s->live);
}

void watch_result(const struct sim *s, struct sim_result *out)
{
    struct live_counts n;
    const struct live_violation *v = live_violation(s->live);
    live_counts(s->live, &n);
    out->surfaced = n.shown;
    if (!v)
        return;
    out->failed = true;
    out->at_ns = s->now_ns - s->t0_ns;
    snprintf(out->what, sizeof out->what, "%s", live_kind_name(v->kind));
    snprintf(out->text, sizeof out->text, "%s (invariant %d)", v->text, live_kind_number(v->kind));
}

static bool concerns(const struct sim_note *n, const struct live_violation *v)
{
    static const struct id none;
    if (!id_equal(&v->id, &none) && id_equal(&n->id, &v->id))
        return true;
    return !n->chat && !n->user; /* what concerns everybody */
}

void sim_story(const struct sim *s, struct buf *out)
{
    const struct live_violation *v = live_violation(s->live);
    uint64_t at[STORY_MAX], n = 0, chat = 0, oldest = s->notes_n > NOTES ? s->notes_n - NOTES : 0;
    char text[ID_TEXT + 1];
    if (!v)
        return;
    for (uint64_t i = s->notes_n; i-- > oldest && n < STORY_MAX;) {
        const struct sim_note *x = &s->notes[i & (NOTES - 1)];
        bool near = v->chat && x->chat == v->chat && chat < STORY_CHAT;
        if (!concerns(x, v) && !near)
            continue;
        chat += near;
        at[n++] = i;
    }
    while (n-- > 0) {
        const struct sim_note *x = &s->notes[at[n] & (NOTES - 1)];
        buf_printf(out, "%12.6f s  ", ((double)x->at_ns - (double)s->t0_ns) / 1e9);
        if (x->user)
            buf_printf(out, "user %" PRIu64 " ", x->user);
        buf_printf(out, "%s %" PRIu64, x->what, x->arg);
        if (x->chat)
            buf_printf(out, "  chat %" PRIu64, x->chat);
        if (id_unix_ms(&x->id))
            buf_printf(out, "  %s", id_str(&x->id, text));
        buf_char(out, '\n');
    }
}

#include "core/client.h"

#include "core/client_impl.h"
#include "util/mutant.h"

int client_features_parse(uint8_t *features, const char *text, struct err_ctx *ctx)
{
    static const struct {
        const char *word;
        uint8_t bits;
    } words[] = {{"reliable", CLIENT_RELIABLE},
                 {"legacy", CLIENT_LEGACY},
                 {"retry", CLIENT_RETRY},
                 {"ack", CLIENT_ACK},
                 {"resync", CLIENT_RESYNC}};
    *features = 0;
    for (const char *p = text; p; p = strchr(p, '+') ? strchr(p, '+') + 1 : NULL) {
        size_t n = strcspn(p, "+"), i = 0, count = sizeof words / sizeof words[0];
        while (i < count && (strlen(words[i].word) != n || memcmp(words[i].word, p, n) != 0))
            i++;
        if (i == count)
            return err_set(ctx, ERR_INVALID,
                           "client '%s': '%.*s' is none of reliable, legacy, retry, ack, resync", text,
                           (int)n, p);
        *features |= words[i].bits;
    }
    return 0;
}

void client_init(struct client *c, const struct client_config *config, uint64_t user, uint32_t device)
{
    *c = (struct client){.config = config, .user = user, .device = device};
}

void client_release(struct client *c, struct client_pool *pool)
{
    chat_forget_all(c, pool);
    recover_forget(c);
    client_receipts_forget(c, true);
    presence_forget(c);
    outbox_clear(&c->outbox);
}

void client_send(struct client *c, const struct client_io *io, const struct msg *m, uint8_t attempt)
{
    struct msg anew;
    if (MUTANT(RETRY_WITH_NEW_ID) && m->t == MSG_SEND && attempt > 1) {
        anew = *m;
        anew.id.b[15] ^= attempt;
        m = &anew;
    }
    client_emit(c, io, &(struct client_effect){.type = CLIENT_DO_SEND, .m = m, .attempt = attempt});
}

void client_expect_answer(struct client *c, const struct client_io *io)
{
    if (!c->answer_ns)
        c->answer_ns = io->now.mono_ns + CLIENT_ANSWER_NS;
}

/* The first try comes fast: most connections die alone. After that all of a dead server's clients are spread
 * out. */
static void reconnect_later(struct client *c, const struct client_io *io, bool overloaded)
{
    if (overloaded && c->tries < 3)
        c->tries = 3;
    uint64_t ceiling = c->tries > 5 ? CLIENT_RECONNECT_MAX_NS : CLIENT_RECONNECT_BASE_NS << c->tries;
    if (ceiling > CLIENT_RECONNECT_MAX_NS)
        ceiling = CLIENT_RECONNECT_MAX_NS;
    if (c->tries < UINT8_MAX)
        c->tries++;
    c->reconnect_ns = io->now.mono_ns + rng_between(io->rng, NS_PER_MS, ceiling);
}

static void connect_now(struct client *c, const struct client_io *io)
{
    c->state = CLIENT_CONNECTING;
    c->reconnect_ns = 0;
    client_emit(c, io, &(struct client_effect){.type = CLIENT_DO_CONNECT});
}

static bool may_connect(const struct client *c)
{
    return c->state == CLIENT_WAITING && !c->offline && !c->no_return;
}

static void lost_connection(struct client *c, const struct client_io *io)
{
    if (c->state == CLIENT_READY && io->now.mono_ns - c->ready_ns >= CLIENT_STABLE_NS)
        c->tries = 0;
    c->ready_ns = c->answer_ns = c->beat_ns = 0;
    send_on_disconnect(c);
    chat_on_disconnect(c);
    recover_on_disconnect(c);
    presence_on_disconnect(c, io);
}

static void end(struct client *c, int code, const struct client_io *io)
{
    c->state = CLIENT_TERMINAL;
    c->reconnect_ns = 0;
    client_emit(c, io, &(struct client_effect){.type = CLIENT_ENDED, .code = code});
}

static void on_disconnected(struct client *c, const struct client_event *e, const struct client_io *io)
{
    if (c->state == CLIENT_OFF || c->state == CLIENT_TERMINAL)
        return;
    lost_connection(c, io);
    if (close_code_terminal(e->code)) {
        end(c, e->code, io);
        return;
    }
    c->state = CLIENT_WAITING;
    reconnect_later(c, io, e->code == CLOSE_OVERLOADED);
}

/* Leave a connection that is of no use any more, on our own account. */
static void abandon(struct client *c, enum reason reason, const struct client_io *io)
{
    if (c->state < CLIENT_CONNECTING || c->state == CLIENT_TERMINAL)
        return;
    client_emit(c, io, &(struct client_effect){.type = CLIENT_DO_CLOSE, .reason = reason});
    lost_connection(c, io);
    c->state = CLIENT_WAITING;
    reconnect_later(c, io, false);
}

static void say_hello(struct client *c, const struct client_io *io)
{
    if (c->state != CLIENT_CONNECTING)
        return;
    c->state = CLIENT_GREETING;
    c->ready_ns = io->now.mono_ns; /* for now: since when the welcome is awaited */
    struct msg m = {.t = MSG_HELLO, .device = c->device, .net = slice_of(net_name(c->config->net))};
    if (client_has(c, CLIENT_RESYNC)) {
        m.has = MSG_HAS(resume);
        m.resume = io->claims;
        m.resume_n = chat_claims(c, io->claims, io->claims_max);
    }
    client_send(c, io, &m, 0);
    client_expect_answer(c, io);
}

/* Not all at once when all come at once: spread over an interval. */
static uint64_t first_beat_ns(const struct client *c, const struct client_io *io)
{
    uint64_t now = io->now.mono_ns, every = c->beat_every_ns;
    if (!every)
        return 0;
    if (!io->beat_share)
        return now + rng_between(io->rng, NS_PER_MS, every);
    uint64_t phase = (uint64_t)((unsigned __int128)every * io->beat_share >> 32);
    return now + every - (now + every - phase) % every;
}

static void on_welcome(struct client *c, const struct msg *m, const struct client_io *io)
{
    if (c->state != CLIENT_GREETING)
        return;
    c->state = CLIENT_READY;
    uint64_t took_ms = (io->now.mono_ns - c->ready_ns) / NS_PER_MS + 1;
    c->welcome_ms = took_ms < UINT16_MAX ? (uint16_t)took_ms : UINT16_MAX;
    c->ready_ns = io->now.mono_ns;
    c->epoch = m->epoch;
    c->no_sync = false;
    c->clock_offset_us = (int64_t)(m->ts - io->now.wall_us);
    c->beat_every_ns = m->beat_s * NS_PER_S;
    c->beat_ns = first_beat_ns(c, io);
    /* it has heard nothing since hello: this and the wait for our place could make it think we are gone */
    if (c->beat_ns && took_ms * NS_PER_MS >= c->beat_every_ns / 2)
        client_send(c, io, &(struct msg){.t = MSG_BEAT, .away = presence_away(c, io)}, 0);
    chat_on_welcome(c, m, io);
    send_flush(c, io);
    if (c->since_wanted || c->rebuild)
        chat_sync_since(c, io);
    recover_go_on(c, io);
    presence_on_welcome(c, io);
    client_receipts_on_welcome(c, io);
}

static void on_done(struct client *c, const struct msg *m, const struct client_io *io)
{
    if (slice_is(m->re, "sync")) {
        if (!recover_on_sync_done(c, m, io))
            chat_on_sync_done(c, m, io);
    } else if (slice_is(m->re, "receipts")) {
        client_receipts_answered(c, m->chat);
    } else if (slice_is(m->re, "create") && m->tag_len) {
        client_emit(c, io, &(struct client_effect){.type = CLIENT_COPY, .m = m});
    }
}

static void on_error(struct client *c, const struct msg *m, const struct client_io *io)
{
    static const struct id none;
    if (!id_equal(&m->id, &none)) {
        send_on_error(c, m, io);
    } else if (slice_is(m->re, "receipts")) {
        client_receipts_refused(c, m->chat);
    } else if (slice_is(m->re, "sync") && slice_is(m->code, proto_error_code(PROTO_UNKNOWN_TYPE))) {
        chat_on_no_sync(c);
        send_not_found(c, 0, io);
    } else if (slice_is(m->re, "sync")) {
        struct msg done = {.t = MSG_DONE, .chat = m->chat, .re = m->re};
        if (!recover_on_sync_refused(c, m, io))
            chat_on_sync_done(c, &done, io); /* without progress: asked again later */
    }
}

static void on_message(struct client *c, const struct msg *m, const struct client_io *io)
{
    c->heard_us = io->now.wall_us;
    c->answer_ns = 0; /* set again below if an answer is still owed */
    switch (m->t) {
    case MSG_WELCOME:
        on_welcome(c, m, io);
        break;
    case MSG_ACCEPTED:
        send_on_accepted(c, m, io);
        chat_on_own(c, m->chat, m->epoch, m->seq, io);
        break;
    case MSG_MSG:
        presence_on_msg(c, m, io);
        chat_on_msg(c, m, io);
        client_receipts_again(c, m->chat, io);
        break;
    case MSG_GAP:
        chat_on_gap(c, m, io);
        break;
    case MSG_DONE:
        on_done(c, m, io);
        break;
    case MSG_TYPING:
        presence_on_typing(c, m, io);
        break;
    case MSG_PRESENCE:
        client_emit(c, io, &(struct client_effect){.type = CLIENT_PRESENCE, .m = m});
        break;
    case MSG_RECEIPT:
        client_receipts_on(c, m, io);
        break;
    case MSG_REPORT:
        recover_on_report(c, io);
        break;
    case MSG_ASK:
        recover_on_ask(c, m, io);
        break;
    case MSG_OFFERED:
        recover_on_offered(c, m, io);
        break;
    case MSG_NOTICE:
        recover_on_notice(c, m, io);
        break;
    case MSG_ERROR:
        on_error(c, m, io);
        break;
    case MSG_BYE:
        if (m->reconnect)
            abandon(c, REASON_SHUTDOWN, io);
        else
            c->no_return = true; /* the close that follows is the last */
        break;
    default:
        break;
    }
    if (c->state == CLIENT_GREETING ||
        (c->state == CLIENT_READY && (c->in_flight || c->syncs || c->since_flying || recover_waits(c))))
        client_expect_answer(c, io);
}

static void on_background(struct client *c, const struct client_io *io)
{
    if (c->background)
        return;
    if (c->state == CLIENT_READY && client_has(c, CLIENT_ACK)) {
        chat_send_acks(c, io);
        client_send(c, io, &(struct msg){.t = MSG_BEAT, .away = true}, 0);
    }
    presence_clear(c, io);
    c->background = true;
}

static void on_foreground(struct client *c, const struct client_io *io)
{
    if (!c->background)
        return;
    c->background = false;
    presence_input(c, io);
    c->since_wanted = client_has(c, CLIENT_RESYNC);
    if (c->answer_ns)
        c->answer_ns = io->now.mono_ns + CLIENT_ANSWER_NS;
    if (may_connect(c)) {
        c->tries = 0;
        connect_now(c, io);
    } else if (c->state == CLIENT_READY) {
        if (client_has(c, CLIENT_ACK))
            client_send(c, io, &(struct msg){.t = MSG_BEAT}, 0);
        if (c->since_wanted)
            chat_sync_since(c, io);
    }
}

static void on_storage_lost(struct client *c, const struct client_io *io)
{
    bool connected = c->state >= CLIENT_CONNECTING && c->state != CLIENT_TERMINAL;
    if (MUTANT(OUTBOX_NOT_DURABLE))
        outbox_clear(&c->outbox);
    abandon(c, REASON_APP_KILLED, io);
    chat_forget_all(c, io->pool);
    recover_forget(c);
    presence_clear(c, io);
    client_receipts_forget(c, false);
    c->rebuild = client_has(c, CLIENT_RESYNC);
    if (connected)
        c->reconnect_ns = io->now.mono_ns;
}

static void on_timer(struct client *c, const struct client_io *io)
{
    uint64_t now = io->now.mono_ns;
    c->timer_ns = 0;
    if (c->background)
        return;
    if (c->answer_ns && c->answer_ns <= now)
        abandon(c, REASON_TIMED_OUT, io);
    if (c->reconnect_ns && c->reconnect_ns <= now && may_connect(c))
        connect_now(c, io);
    presence_due(c, io);
    if (c->state != CLIENT_READY)
        return;
    if (c->ack_ns && c->ack_ns <= now)
        chat_send_acks(c, io);
    send_due(c, io);
    if (c->sync_ns && c->sync_ns <= now) {
        chat_send_syncs(c, io);
        recover_go_on(c, io);
    }
    if (c->beat_ns && c->beat_ns <= now) {
        c->beat_ns += ((now - c->beat_ns) / c->beat_every_ns + 1) * c->beat_every_ns;
        client_send(c, io, &(struct msg){.t = MSG_BEAT, .away = presence_away(c, io)}, 0);
        client_receipts_again(c, 0, io);
        chat_repeat_reads(c, io);
        if (presence_watches(c)) /* it is answered: what is shown of others hangs on this connection */
            client_expect_answer(c, io);
    }
}

static void arm(struct client *c, const struct client_io *io)
{
    uint64_t at = 0;
    if (!c->background) {
        if (c->reconnect_ns && may_connect(c))
            at = c->reconnect_ns;
        if (presence_next(c))
            earlier(&at, presence_next(c));
        /* a legacy app waits for no answer but that to hello */
        if (c->answer_ns && (client_has(c, CLIENT_RETRY | CLIENT_RESYNC) || c->state == CLIENT_GREETING))
            earlier(&at, c->answer_ns);
        if (c->state == CLIENT_READY) {
            const uint64_t due[] = {c->ack_ns, c->retry_ns, c->sync_ns, c->beat_ns};
            for (size_t i = 0; i < sizeof due / sizeof due[0]; i++)
                if (due[i])
                    earlier(&at, due[i]);
        }
    }
    if (at == c->timer_ns)
        return;
    c->timer_ns = at;
    client_emit(c, io, &(struct client_effect){.type = CLIENT_SET_TIMER, .at_ns = at});
}

void client_step(struct client *c, const struct client_event *e, const struct client_io *io)
{
    struct outbox_entry *entry;
    switch (e->type) {
    case CLIENT_START:
        if (c->state == CLIENT_OFF) {
            c->state = CLIENT_WAITING;
            connect_now(c, io);
        }
        break;
    case CLIENT_CONNECTED:
        say_hello(c, io);
        break;
    case CLIENT_DISCONNECTED:
        on_disconnected(c, e, io);
        break;
    case CLIENT_MESSAGE:
        on_message(c, e->m, io);
        break;
    case CLIENT_TYPE:
        presence_type(c, e->chat, io);
        break;
    case CLIENT_WATCH:
        presence_watch_users(c, e->users, e->users_n, io);
        break;
    case CLIENT_READ:
        presence_input(c, io);
        chat_read(c, e->chat, e->seq, io);
        break;
    case CLIENT_RECEIPTS:
        client_receipts_watch(c, e->chat, e->on, io);
        break;
    case CLIENT_SUBMIT:
        presence_said(c, io);
        send_submit(c, e, io);
        break;
    case CLIENT_PRESS:
        presence_input(c, io);
        send_press(c, e, io);
        break;
    case CLIENT_GIVE_UP:
        entry = outbox_find(&c->outbox, &e->id);
        if (entry)
            send_give_up(c, entry, REASON_PERSON_GAVE_UP, io);
        break;
    case CLIENT_RESTORE:
        send_restore(c, e, io);
        break;
    case CLIENT_TIMER:
        on_timer(c, io);
        break;
    case CLIENT_FOREGROUND:
        on_foreground(c, io);
        break;
    case CLIENT_BACKGROUND:
        on_background(c, io);
        break;
    case CLIENT_OFFLINE:
        c->offline = true;
        break;
    case CLIENT_ONLINE:
        c->offline = false;
        if (may_connect(c) && !c->background)
            connect_now(c, io);
        break;
    case CLIENT_STORAGE_LOST:
        on_storage_lost(c, io);
        break;
    case CLIENT_UNACKED:
        abandon(c, REASON_TIMED_OUT, io);
        break;
    case CLIENT_STOP:
        c->no_return = true;
        break;
    }
    arm(c, io);
}

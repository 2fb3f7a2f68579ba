#include "core/client_impl.h"

static struct id new_id(const struct client *c, const struct client_io *io)
{
    return id_new((uint64_t)((int64_t)io->now.wall_us + c->clock_offset_us) / 1000, io->rng);
}

/* 3 s after the first transmission, then full jitter under a doubling ceiling (AWS Architecture Blog,
 * "Exponential Backoff And Jitter", 2015). */
static uint64_t retry_delay(uint8_t attempts, struct rng *rng)
{
    if (attempts <= 1)
        return CLIENT_RETRY_FIRST_NS;
    uint64_t ceiling = attempts > 5 ? CLIENT_RETRY_MAX_NS : CLIENT_RETRY_FIRST_NS << (attempts - 1);
    if (ceiling > CLIENT_RETRY_MAX_NS)
        ceiling = CLIENT_RETRY_MAX_NS;
    return rng_between(rng, NS_PER_MS, ceiling);
}

static void transmit(struct client *c, struct outbox_entry *e, const struct client_io *io)
{
    if (e->attempts < UINT8_MAX)
        e->attempts++;
    if (!e->in_flight)
        c->in_flight++;
    e->in_flight = true;
    e->due_ns = io->now.mono_ns + retry_delay(e->attempts, io->rng);
    earlier(&c->retry_ns, e->due_ns);
    struct msg m = {
        .t = MSG_SEND, .id = e->id, .chat = e->chat, .kind = outbox_kind(e), .body = outbox_body(e)};
    client_send(c, io, &m, e->attempts);
    client_expect_answer(c, io);
    if (e->attempts > c->config->retries && !e->shown) {
        e->shown = true;
        client_emit(c, io,
                    &(struct client_effect){
                        .type = CLIENT_SHOW_UNSENT, .id = e->id, .chat = e->chat, .attempt = e->attempts});
    }
}

static void answered(struct client *c, struct outbox_entry *e)
{
    if (e->in_flight) {
        e->in_flight = false;
        c->in_flight--;
    }
}

void send_give_up(struct client *c, struct outbox_entry *e, enum reason reason, const struct client_io *io)
{
    answered(c, e);
    struct client_effect gave_up = {.type = CLIENT_GAVE_UP,
                                    .id = e->id,
                                    .chat = e->chat,
                                    .intent = e->intent,
                                    .reason = reason,
                                    .attempt = e->attempts};
    outbox_remove(&c->outbox, e);
    client_emit(c, io, &gave_up);
    client_emit(c, io, &(struct client_effect){.type = CLIENT_FORGET, .id = gave_up.id});
}

/* Fire and forget: without a connection the message is gone. */
static void submit_legacy(struct client *c, const struct client_event *e, const struct id *id,
                          const struct client_io *io)
{
    if (c->state != CLIENT_READY) {
        client_emit(c, io,
                    &(struct client_effect){.type = CLIENT_GAVE_UP,
                                            .id = *id,
                                            .chat = e->chat,
                                            .intent = e->intent,
                                            .kind = e->kind,
                                            .body = e->body,
                                            .reason = REASON_NOT_CONNECTED});
        return;
    }
    struct msg m = {.t = MSG_SEND, .id = *id, .chat = e->chat, .kind = e->kind, .body = e->body};
    client_send(c, io, &m, 1);
}

static void submit_reliable(struct client *c, const struct client_event *e, const struct id *id,
                            const struct client_io *io)
{
    struct outbox_entry *entry = NULL;
    if (c->outbox.count < c->config->outbox_max &&
        c->outbox.bytes + e->body.n <= c->config->outbox_bytes_max && c->state != CLIENT_TERMINAL)
        entry = outbox_add(&c->outbox, id, e->chat, e->intent, e->kind, e->body);
    if (!entry) {
        enum reason why = c->state == CLIENT_TERMINAL ? REASON_NOT_CONNECTED : REASON_OUTBOX_FULL;
        client_emit(
            c, io,
            &(struct client_effect){
                .type = CLIENT_GAVE_UP, .id = *id, .chat = e->chat, .intent = e->intent, .reason = why});
        client_emit(c, io, &(struct client_effect){.type = CLIENT_FORGET, .id = *id});
        return;
    }
    if (c->state == CLIENT_READY)
        transmit(c, entry, io);
}

static void offer(struct client *c, const struct client_event *e, enum client_effect_type as,
                  const struct client_io *io)
{
    static const struct id none;
    struct id id = id_equal(&e->as, &none) ? new_id(c, io) : e->as;
    client_emit(
        c, io,
        &(struct client_effect){
            .type = as, .id = id, .chat = e->chat, .intent = e->intent, .kind = e->kind, .body = e->body});
    if (client_has(c, CLIENT_RETRY))
        submit_reliable(c, e, &id, io);
    else
        submit_legacy(c, e, &id, io);
}

void send_submit(struct client *c, const struct client_event *e, const struct client_io *io)
{
    offer(c, e, CLIENT_SUBMITTED, io);
}

void send_press(struct client *c, const struct client_event *e, const struct client_io *io)
{
    if (!client_has(c, CLIENT_RETRY)) {
        offer(c, e, CLIENT_RESENT, io);
        return;
    }
    struct outbox_entry *entry = outbox_find(&c->outbox, &e->id);
    if (!entry && c->config->on_gap == ON_GAP_ASK && e->body.n) /* "send again?" yes: under its own id */
        entry = outbox_add(&c->outbox, &e->id, e->chat, e->intent, e->kind, e->body);
    if (!entry || entry->checking)
        return;
    client_emit(c, io,
                &(struct client_effect){
                    .type = CLIENT_RESENT, .id = entry->id, .chat = entry->chat, .intent = entry->intent});
    if (c->state == CLIENT_READY)
        transmit(c, entry, io);
    else if (c->state == CLIENT_WAITING && c->reconnect_ns)
        c->reconnect_ns = io->now.mono_ns;
}

void send_restore(struct client *c, const struct client_event *e, const struct client_io *io)
{
    if (outbox_find(&c->outbox, &e->id))
        return;
    struct outbox_entry *entry = outbox_add(&c->outbox, &e->id, e->chat, e->intent, e->kind, e->body);
    if (entry && c->state == CLIENT_READY)
        transmit(c, entry, io);
}

void send_flush(struct client *c, const struct client_io *io)
{
    c->retry_ns = 0;
    for (struct outbox_entry *e = c->outbox.first; e; e = e->next)
        if (!e->checking)
            transmit(c, e, io);
}

void send_due(struct client *c, const struct client_io *io)
{
    if (!c->retry_ns || c->retry_ns > io->now.mono_ns || c->state != CLIENT_READY)
        return;
    c->retry_ns = 0;
    for (struct outbox_entry *e = c->outbox.first; e; e = e->next) {
        if (e->checking || !e->due_ns)
            continue;
        if (e->due_ns <= io->now.mono_ns)
            transmit(c, e, io);
        else
            earlier(&c->retry_ns, e->due_ns);
    }
}

void send_on_disconnect(struct client *c)
{
    c->in_flight = 0;
    c->retry_ns = 0;
    for (struct outbox_entry *e = c->outbox.first; e; e = e->next) {
        e->in_flight = false;
        e->checking = false; /* the answer to its sync is lost: the server is asked again */
        e->due_ns = 0;
    }
}

bool send_on_accepted(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct outbox_entry *e = outbox_find(&c->outbox, &m->id);
    if (!e && client_has(c, CLIENT_RETRY))
        return false;
    struct client_effect accepted = {.type = CLIENT_ACCEPTED,
                                     .id = m->id,
                                     .chat = m->chat,
                                     .epoch = m->epoch,
                                     .seq = m->seq,
                                     .dup = m->dup,
                                     .m = m,
                                     .kind = e ? outbox_kind(e) : (struct slice){0},
                                     .body = e ? outbox_body(e) : (struct slice){0},
                                     .intent = e ? e->intent : 0,
                                     .attempt = e ? e->attempts : 1};
    client_emit(c, io, &accepted);
    if (e) {
        answered(c, e);
        outbox_remove(&c->outbox, e);
    }
    if (e)
        client_emit(c, io, &(struct client_effect){.type = CLIENT_FORGET, .id = m->id});
    return e != NULL;
}

static enum reason reason_of(struct slice code)
{
    static const struct {
        enum proto_error code;
        enum reason reason;
    } table[] = {{PROTO_ID_CONFLICT, REASON_ID_CONFLICT}, {PROTO_NOT_MEMBER, REASON_NOT_MEMBER},
                 {PROTO_NO_SUCH_CHAT, REASON_NOT_MEMBER}, {PROTO_NOT_ALLOWED, REASON_NOT_MEMBER},
                 {PROTO_ID_TOO_OLD, REASON_ID_TOO_OLD},   {PROTO_RATE_LIMITED, REASON_RATE_LIMITED},
                 {PROTO_OVERLOADED, REASON_RATE_LIMITED}, {PROTO_STORAGE_FULL, REASON_STORAGE_FULL},
                 {PROTO_SHUTTING_DOWN, REASON_SHUTDOWN}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (slice_is(code, proto_error_code(table[i].code)))
            return table[i].reason;
    return REASON_INVALID;
}

static bool retryable(struct slice code)
{
    for (int i = 0; i < PROTO_ERROR_COUNT; i++)
        if (slice_is(code, proto_error_code((enum proto_error)i)))
            return proto_error_retryable((enum proto_error)i);
    return true; /* a newer server's code: trying again does no harm, the id is the same */
}

/* How long to wait before a refused message is offered again; 0: never. A chat that is not there may be on
 * its way: its creation can be slower than a message, and a server that lost its store has it made again. */
static uint64_t offer_again_after(const struct outbox_entry *e, const struct msg *m)
{
    if (slice_is(m->code, proto_error_code(PROTO_NO_SUCH_CHAT))) {
        uint64_t wait = CLIENT_RECONNECT_BASE_NS << (e->attempts < 8 ? e->attempts : 8);
        return wait < CLIENT_RETRY_MAX_NS ? wait : CLIENT_RETRY_MAX_NS;
    }
    if (!retryable(m->code))
        return 0;
    return m->retry_ms ? m->retry_ms * NS_PER_MS : CLIENT_RECONNECT_BASE_NS;
}

/* Who keeps no outbox can only note that the message is gone. */
static void refused_legacy(struct client *c, const struct msg *m, const struct client_io *io)
{
    if (client_has(c, CLIENT_RETRY) || !slice_is(m->re, "send"))
        return;
    client_emit(c, io,
                &(struct client_effect){.type = CLIENT_GAVE_UP,
                                        .id = m->id,
                                        .chat = m->chat,
                                        .reason = reason_of(m->code),
                                        .attempt = 1});
}

void send_on_error(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct outbox_entry *e = outbox_find(&c->outbox, &m->id);
    if (!e) {
        refused_legacy(c, m, io);
        return;
    }
    answered(c, e);
    uint64_t wait = offer_again_after(e, m);
    if (wait) {
        e->due_ns = io->now.mono_ns + wait + rng_below(io->rng, wait / 2 + 1);
        earlier(&c->retry_ns, e->due_ns);
        return;
    }
    if (!slice_is(m->code, proto_error_code(PROTO_ID_TOO_OLD)) || !client_has(c, CLIENT_RESYNC)) {
        send_give_up(c, e, reason_of(m->code), io);
        return;
    }
    /* It may have been accepted long ago: look for it in the chat's log, from a second before its own time.
     */
    e->checking = true;
    uint64_t ms = id_unix_ms(&e->id);
    struct msg sync = {.t = MSG_SYNC,
                       .chat = e->chat,
                       .since = ms > 1000 ? (ms - 1000) * 1000 : 1,
                       .limit = CLIENT_SYNC_PAGE};
    client_send(c, io, &sync, 0);
    client_expect_answer(c, io);
}

void send_discard_before(struct client *c, uint64_t ts_us, const struct client_io *io)
{
    for (struct outbox_entry *e = c->outbox.first, *next; e; e = next) {
        next = e->next;
        if (id_unix_ms(&e->id) * 1000 < ts_us)
            send_give_up(c, e, REASON_PERSON_GAVE_UP, io);
    }
}

void send_not_found(struct client *c, uint64_t chat, const struct client_io *io)
{
    for (struct outbox_entry *e = c->outbox.first, *next; e; e = next) {
        next = e->next;
        if (e->checking && (!chat || e->chat == chat))
            send_give_up(c, e, REASON_ID_TOO_OLD, io);
    }
}

/* One phone: its socket's events become the client's, the client's effects become socket calls, trace, diary,
 * ledger. */
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

void phone_trace(struct load_phone *p, bool lane, struct trace_event e)
{
    struct load *l = p->load;
    if (!l->cfg.trace || (lane && !p->lane.conn))
        return;
    e.user = p->client.user;
    e.device = p->client.device;
    if (lane)
        trace_lane_emit(l->cfg.trace, &p->lane, &e);
    else
        trace_emit(l->cfg.trace, &e);
}

void phone_step(struct load_phone *p, const struct client_event *e)
{
    struct load *l = p->load;
    load_now(l);
    l->io.rng = &p->rng;
    l->outboxes -= p->client.outbox.count;
    bool was = p->client.state == CLIENT_READY;
    client_step(&p->client, e, &l->io);
    l->outboxes += p->client.outbox.count;
    watch_truth(p);
    if (p->client.state == CLIENT_READY && !was)
        typing_on_ready(p);
    if (p->client.state == CLIENT_READY && !p->was_ready) {
        p->was_ready = true;
        load_on_ready(p);
    }
}

void phone_simple(struct load_phone *p, enum client_event_type type)
{
    phone_step(p, &(struct client_event){.type = type});
}

static void lane_end(struct load_phone *p, enum reason reason, uint64_t arg)
{
    phone_trace(p, true,
                (struct trace_event){.hop = HOP_SOCKET_CLOSE, .reason = (uint8_t)reason, .arg = arg});
    p->lane = (struct trace_lane){0};
}

/* The socket is gone; what TCP had not acknowledged will never be ticked. */
void phone_socket_over(struct load_phone *p, enum reason reason, uint64_t code)
{
    p->sock = NULL;
    lane_end(p, reason, code);
    press_tick(p, true);
    p->acked = p->acked_seen = p->acked_ns = 0;
    p->held = false;
}

void phone_sample_acked(struct load_phone *p)
{
    if (p->sock)
        p->acked = p->load->cfg.world.acked(p->sock);
}

void phone_drop(struct load_phone *p, enum reason reason)
{
    if (p->sock) {
        phone_sample_acked(p);
        p->load->cfg.world.free(p->sock);
        phone_socket_over(p, reason, 0);
    }
    phone_step(p, &(struct client_event){.type = CLIENT_DISCONNECTED, .reason = reason});
}

/* ---- what the world reports ---- */

void load_opened(struct load_phone *p)
{
    struct load *l = p->load;
    struct trace_flow flow;
    p->lane = (struct trace_lane){.conn = ++l->conns, .net = (uint8_t)l->populations_cfg[p->population].net};
    l->connects++;
    l->refused = false;
    l->cfg.world.flow(p->sock, &flow);
    flow.tcp_seq = 0;
    struct trace_event open = {
        .hop = HOP_SOCKET_OPEN, .reason = p->lane.net, .arg = l->cfg.world.read(p->sock)};
    memcpy(&open.id, &flow, sizeof open.id);
    phone_trace(p, true, open);
    phone_simple(p, CLIENT_CONNECTED);
}

void load_closed(struct load_phone *p, int code, enum reason reason)
{
    struct load *l = p->load;
    phone_socket_over(p, reason, (uint64_t)code);
    l->refused = reason == REASON_REFUSED;
    if (l->phase == PHASE_SETUP)
        err_set(&l->last_trouble, ERR_UNAVAILABLE, "user %llu: %s%s%s", (unsigned long long)p->client.user,
                reason_text(reason), code ? ": " : "", code ? close_code_text(code) : "");
    phone_step(p, &(struct client_event){.type = CLIENT_DISCONNECTED, .code = code, .reason = reason});
}

static void lost_later(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, lost);
    phone_step(p, &(struct client_event){.type = CLIENT_DISCONNECTED, .reason = (enum reason)p->lost_reason});
}

static void told_lost(struct load_phone *p, enum reason reason)
{
    p->lost_reason = (uint8_t)reason;
    p->lost.fire = lost_later;
    timers_set(&p->load->timers, &p->lost, p->load->io.now.mono_ns);
}

static void wake(struct timer *t)
{
    phone_simple(CONTAINER_OF(t, struct load_phone, wake), CLIENT_TIMER);
}

void load_frame(struct load_phone *p, const char *data, size_t n)
{
    struct load *l = p->load;
    struct proto_frame f;
    struct msg m;
    struct err_ctx why = {0};
    if (p->unticked)
        press_tick(p, false);
    phone_trace(p, true, (struct trace_event){.hop = HOP_SOCKET_READ, .arg = l->cfg.world.read(p->sock)});
    int rc = proto_frame_begin(&f, data, n, &l->scratch, &why);
    while (!rc && p->sock && (rc = proto_frame_next(&f, &m, &why)) == 1) {
        rc = 0;
        load_on_create_answer(l, &m);
        load_on_refused_send(l, &m);
        phone_step(p, &(struct client_event){.type = CLIENT_MESSAGE, .m = &m});
    }
    if (rc < 0) {
        l->undecodable++;
        err_set(&l->last_trouble, rc, "user %llu: the server's frame: %s", (unsigned long long)p->client.user,
                why.text);
        phone_drop(p, REASON_PROTOCOL);
    }
}

/* ---- what the client wants ---- */

static void do_connect(struct load_phone *p)
{
    struct load *l = p->load;
    struct err_ctx why = {0};
    if (!p->sock && !l->cfg.world.connect(l->cfg.world.arg, phone_address(p), p, &p->sock, &why))
        return;
    if (l->phase == PHASE_SETUP) { /* no address, no file, no route: waiting would not help */
        uint32_t a = phone_address(p);
        load_fail(
            l, ERR_UNAVAILABLE, "user %llu cannot connect from %u.%u.%u.%u: %s%s",
            (unsigned long long)p->client.user, a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, why.text,
            a ? "; a scenario's links exist only where chat-chaos or chat-netem makes them (--plain goes "
                "without)"
              : "");
    }
    told_lost(p, REASON_REFUSED);
}

static void encode(struct load *l, const struct msg *m)
{
    buf_reset(&l->out);
    proto_encode(&l->out, m);
}

void phone_send_raw(struct load_phone *p, const struct msg *m)
{
    struct load *l = p->load;
    uint64_t end;
    encode(l, m);
    if (p->sock && !l->out.failed)
        l->cfg.world.send(p->sock, l->out.data, l->out.len, &end);
}

static uint64_t frame_bytes(size_t n)
{
    return n + 6 + (n > 125 ? n > 65535 ? 8 : 2 : 0); /* RFC 6455 section 5.2, masked */
}

static void cut_here(struct load_phone *p, const struct trace_event *sent)
{
    struct load *l = p->load;
    uint64_t end = 0, whole = l->cfg.world.written(p->sock) + frame_bytes(l->out.len);
    struct trace_event e = *sent;
    p->cut_next = false;
    phone_sample_acked(p);
    l->cfg.world.cut(p->sock, l->out.data, l->out.len, 1 + rng_below(&p->rng, frame_bytes(l->out.len) - 1),
                     &end);
    l->kills++;
    e.arg = whole;
    phone_trace(p, true, e);
    phone_trace(p, true, (struct trace_event){.hop = HOP_SOCKET_KILL, .reason = REASON_KILLED, .arg = end});
    phone_socket_over(p, REASON_KILLED, 0);
    told_lost(p, REASON_KILLED);
}

static void sent_legacy(struct load_phone *p, const struct msg *m, int rc, uint64_t end)
{
    struct load *l = p->load;
    if (!rc) {
        press_untick(p, &m->id, m->chat, l->intent, m->body, end);
        return;
    }
    ledger_gave_up(&l->ledger, &m->id);
    diary_gave_up(l->diary, p->client.user, &m->id, reason_text(REASON_SLOW));
    phone_trace(
        p, false,
        (struct trace_event){
            .hop = HOP_CLIENT_GIVE_UP, .id = m->id, .chat = m->chat, .reason = REASON_SLOW, .arg = 1});
    press_later(p, &m->id, m->chat, l->intent, m->body);
}

static void do_send(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    struct msg m = *e->m;
    uint64_t end = 0;
    if (!p->sock)
        return;
    if (m.t == MSG_HELLO) {
        buf_reset(&l->token);
        l->cfg.world.token(l->cfg.world.arg, p->client.user, p->client.device, &l->token);
        m.token = (struct slice){l->token.data, l->token.len};
    }
    struct msg_entry entries[PROTO_ENTRIES_MAX];
    if (m.t == MSG_OFFER)
        keep_forge(p, &m, entries);
    encode(l, &m);
    if (l->out.failed)
        return;
    struct trace_event sent = {.hop = HOP_CLIENT_SEND, .id = m.id, .chat = m.chat, .attempt = e->attempt};
    if (m.t == MSG_SEND && p->cut_next) {
        cut_here(p, &sent);
        if (!client_has_outbox(&p->client))
            press_later(p, &m.id, m.chat, l->intent, m.body);
        return;
    }
    int rc = l->cfg.world.send(p->sock, l->out.data, l->out.len, &end);
    if (m.t == MSG_SEND && !client_has_outbox(&p->client))
        sent_legacy(p, &m, rc, end);
    if (m.t == MSG_READ)
        reading_said(p, m.chat, m.seq);
    if (rc)
        return; /* the socket's queue is full or it is dying: the client tries again by its own rules */
    sent.arg = end;
    if (m.t == MSG_SEND)
        phone_trace(p, true, sent);
    else if (m.t == MSG_ACK)
        phone_trace(p, true, (struct trace_event){.hop = HOP_CLIENT_ACK, .chat = m.chat, .arg = m.seq});
}

static void do_close(struct load_phone *p, enum reason reason)
{
    if (!p->sock)
        return;
    phone_sample_acked(p);
    p->load->cfg.world.free(p->sock);
    phone_socket_over(p, reason, 0);
}

struct membership *phone_membership(struct load_phone *p, uint64_t chat)
{
    struct load *l = p->load;
    for (uint32_t i = 0; i < p->chats_n; i++)
        if (chat_number(l, p->chats[i].chat) == chat)
            return &p->chats[i];
    return NULL;
}

/* How many of a chat's other members each population has. */
static const uint32_t *owed_to(struct load_phone *p, const struct membership *ms)
{
    struct load *l = p->load;
    const struct load_chat *c = &l->chats[ms->chat];
    memset(l->owed, 0, sizeof l->owed);
    for (uint32_t i = 0; i < c->members; i++)
        l->owed[l->phones[l->members[c->first + i]].population]++;
    l->owed[p->population]--;
    return l->owed;
}

/* A new id for something a person means: owed to the others from now on. */
static void on_new_id(struct load_phone *p, const struct client_effect *e, bool again)
{
    struct load *l = p->load;
    const struct membership *ms = phone_membership(p, e->chat);
    script_named(l, &e->id);
    struct ledger_sent sent = {.id = e->id,
                               .again = again && l->pressed ? &l->pressed->id : NULL,
                               .intent = e->intent,
                               .intended_ns = l->intended_ns,
                               .population = p->population,
                               .members = ms ? l->chats[ms->chat].members : 1,
                               .sender = ms ? ms->place : 0,
                               .owed = ms ? owed_to(p, ms) : NULL};
    int rc = ledger_sent(&l->ledger, &sent);
    if (rc)
        load_fail(l, rc, "the ledger holds %u messages and takes no more", l->ledger.n);
    diary_sent(l->diary, &(struct diary_sent){.ts_us = l->io.now.wall_us,
                                              .user = p->client.user,
                                              .device = p->client.device,
                                              .chat = e->chat,
                                              .intent = e->intent,
                                              .id = e->id,
                                              .kind = e->kind,
                                              .body = e->body});
    if (!client_has_outbox(&p->client))
        return;
    diary_outbox(l->diary, &(struct outbox_row){.op = OUTBOX_PUT,
                                                .user = p->client.user,
                                                .device = p->client.device,
                                                .chat = e->chat,
                                                .intent = e->intent,
                                                .id = e->id,
                                                .kind = e->kind,
                                                .body = e->body});
    press_later(p, &e->id, e->chat, e->intent, e->body);
}

static void on_resent(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    l->ledger.counts[p->population].resends++;
    if (!client_has_outbox(&p->client))
        on_new_id(p, e, true);
    phone_trace(p, false,
                (struct trace_event){.hop = HOP_CLIENT_RESEND,
                                     .id = e->id,
                                     .chat = e->chat,
                                     .arg = e->intent,
                                     .reason = REASON_MANUAL});
}

static void on_gave_up(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    ledger_gave_up(&l->ledger, &e->id);
    diary_gave_up(l->diary, p->client.user, &e->id, reason_text(e->reason));
    phone_trace(p, false,
                (struct trace_event){.hop = HOP_CLIENT_GIVE_UP,
                                     .id = e->id,
                                     .chat = e->chat,
                                     .reason = (uint8_t)e->reason,
                                     .arg = e->attempt});
    /* who was told at once may press; who saw a tick before the refusal has no reason to */
    if (!client_has_outbox(&p->client) && e->reason == REASON_NOT_CONNECTED)
        press_later(p, &e->id, e->chat, e->intent, e->body);
}

static void on_surface(struct load_phone *p, const struct msg *m)
{
    struct load *l = p->load;
    keep_copy(p, m);
    if (m->from == p->client.user || !m->from)
        return; /* an own message that came back with the log */
    struct membership *ms = phone_membership(p, m->chat);
    phone_trace(p, true,
                (struct trace_event){.hop = HOP_CLIENT_SURFACE, .id = m->id, .chat = m->chat, .arg = m->seq});
    diary_surfaced(l->diary, l->io.now.wall_us, p->client.user, p->client.device, m);
    l->populations[p->population].surfaced_ns = l->io.now.mono_ns;
    if (!ms)
        return;
    bool fresh = true, forgotten = p->shown != NULL;
    if (p->shown && !map_put(p->shown, &m->id, &fresh))
        fresh = true;
    enum ledger_seen seen =
        ledger_surfaced(&l->ledger, &m->id, ms->place, p->population, forgotten && fresh, l->io.now.mono_ns);
    /* what comes back from an earlier epoch comes late by the rules */
    if (seen == LEDGER_FIRST && m->seq < ms->top && m->epoch == ms->epoch)
        l->ledger.counts[p->population].reordered++;
    l->recovery.came_back += m->seq < ms->top && m->epoch != ms->epoch;
    if (m->seq > ms->top) {
        ms->top = m->seq;
        ms->epoch = m->epoch;
        reading_shown(p);
    }
}

static void on_message_effect(struct load_phone *p, const struct client_effect *e)
{
    const struct msg *m = e->m;
    if (e->type == CLIENT_DUPLICATE)
        keep_copy(p, m);
    enum hop hop = e->type == CLIENT_RECEIVED ? HOP_CLIENT_RECEIVE : HOP_CLIENT_DUPLICATE;
    phone_trace(
        p, true,
        (struct trace_event){
            .hop = (uint8_t)hop, .id = m->id, .chat = m->chat, .arg = m->seq, .reason = (uint8_t)e->reason});
}

static void on_accepted(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    keep_accepted(p, e);
    ledger_accepted(&l->ledger, &e->id, l->io.now.mono_ns);
    diary_accepted(l->diary, l->io.now.wall_us, p->client.user, &e->id, e->chat, e->epoch, e->seq);
    phone_trace(
        p, true,
        (struct trace_event){
            .hop = HOP_CLIENT_ACCEPTED, .id = e->id, .chat = e->chat, .arg = e->seq, .attempt = e->attempt});
}

void phone_emit(void *arg, struct client *c, const struct client_effect *e)
{
    struct load *l = arg;
    struct load_phone *p = CONTAINER_OF(c, struct load_phone, client);
    if (l->cfg.world.watch)
        l->cfg.world.watch(l->cfg.world.arg, c, e);
    switch (e->type) {
    case CLIENT_DO_SEND:
        do_send(p, e);
        break;
    case CLIENT_DO_CONNECT:
        do_connect(p);
        break;
    case CLIENT_DO_CLOSE:
        do_close(p, e->reason);
        break;
    case CLIENT_SET_TIMER:
        p->wake.fire = wake;
        timers_set(&l->timers, &p->wake, e->at_ns);
        break;
    case CLIENT_SUBMITTED:
        p->said_ns = l->io.now.mono_ns;
        on_new_id(p, e, false);
        phone_trace(p, false,
                    (struct trace_event){.hop = HOP_CLIENT_SUBMIT,
                                         .id = e->id,
                                         .chat = e->chat,
                                         .arg = e->intent,
                                         .flags = client_has_outbox(&p->client) ? TRACE_FLAG_OUTBOX
                                                                                : TRACE_FLAG_ONE_SEND});
        break;
    case CLIENT_RESENT:
        on_resent(p, e);
        break;
    case CLIENT_FORGET:
        diary_outbox(l->diary, &(struct outbox_row){
                                   .op = OUTBOX_FORGET, .user = c->user, .device = c->device, .id = e->id});
        break;
    case CLIENT_ACCEPTED:
        on_accepted(p, e);
        break;
    case CLIENT_RECEIVED:
    case CLIENT_DUPLICATE:
        on_message_effect(p, e);
        break;
    case CLIENT_SURFACE:
        on_surface(p, e->m);
        break;
    case CLIENT_SHOW_UNSENT:
        l->shown_unsent++;
        break;
    case CLIENT_GAVE_UP:
        on_gave_up(p, e);
        break;
    case CLIENT_ENDED:
        if (l->phase == PHASE_SETUP)
            load_fail(l, ERR_UNAVAILABLE, "user %llu was turned away for good: %s (%d)",
                      (unsigned long long)c->user, close_code_text(e->code), e->code);
        break;
    case CLIENT_GAP:
        break;
    case CLIENT_PRESENCE:
    case CLIENT_PRESENCE_LOST:
        watch_effect(p, e);
        break;
    case CLIENT_TYPING:
    case CLIENT_TYPING_OVER:
        typing_effect(p, e);
        break;
    case CLIENT_RECEIPT:
    case CLIENT_COUNTS:
        reading_effect(p, e);
        break;
    default:
        keep_effect(p, e);
    }
}

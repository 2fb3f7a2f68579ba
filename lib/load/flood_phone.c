#include <stdlib.h>
#include <string.h>

#include "load/flood_impl.h"
#include "util/map.h"

#define STAMP 16 /* hexadecimal digits of the intended time, in front of a body */

static uint32_t tag_of(const struct id *id)
{
    return (uint32_t)hash_bytes(id, sizeof *id, 1) | 1;
}

void flood_phone_init(struct flood *f, uint32_t i)
{
    struct flood_phone *p = &f->phones[i];
    client_init(&p->client, &f->client, f->cfg.first_user + i, 1);
    p->rng = f->cfg.seed * 0x9e3779b97f4a7c15ull + i;
}

void flood_step(struct flood *f, uint32_t i, const struct client_event *e)
{
    client_step(&f->phones[i].client, e, &f->io);
}

void flood_simple(struct flood *f, uint32_t i, enum client_event_type type)
{
    flood_step(f, i, &(struct client_event){.type = type});
}

static uint32_t number_of(const struct flood *f, const struct client *c)
{
    const char *phone = (const char *)c - offsetof(struct flood_phone, client);
    return (uint32_t)((const struct flood_phone *)(const void *)phone - f->phones);
}

/* ---- its socket ---- */

/* The session is over, as far as the phone is concerned. */
static void leave(struct flood *f, struct flood_phone *p, enum reason reason, int code)
{
    flood_trace_over(f, (uint32_t)(p - f->phones), reason, code);
    if (p->was_ready) {
        p->was_ready = false;
        f->ready--;
    }
    p->era++;
    p->arrive_ms[0] = p->arrive_ms[1] = p->blocked_ms[0] = p->blocked_ms[1] = 0;
    p->unread = 0;
}

static void break_off(struct flood *f, uint32_t i, enum reason reason)
{
    struct flood_phone *p = &f->phones[i];
    if (p->session == FLOOD_OPEN) {
        f->cfg.world.cut(f->cfg.world.arg, i, p->up);
        p->session = FLOOD_LOST;
        f->cuts++;
    } else if (p->session == FLOOD_CONNECTING) {
        p->session = FLOOD_NONE;
    }
    leave(f, p, reason, 0);
}

void flood_cut(struct flood *f, uint32_t i)
{
    break_off(f, i, REASON_RESET);
    flood_step(f, i, &(struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
}

static void connect(struct flood *f, uint32_t i)
{
    struct flood_phone *p = &f->phones[i];
    p->again = p->session != FLOOD_NONE;
    if (p->again)
        return; /* when the server has said that the old one is over */
    p->session = FLOOD_CONNECTING;
    f->connects++;
    flood_offer(f, i, ITEM_CONNECT, NULL, 0, 0);
}

/* The server heard nothing of this phone for long, since its link let nothing through. */
static bool link_was_mute(const struct flood *f, const struct flood_phone *p)
{
    uint32_t now = flood_ms(f), arrival = p->arrive_ms[NETEM_UP];
    if (p->held_up)
        return arrival + WORD_MS > now;
    return p->blocked_ms[NETEM_UP] > arrival && now > arrival && now - arrival >= HELD_UP_MS;
}

void flood_closed(struct flood *f, uint32_t i, int code)
{
    struct flood_phone *p = &f->phones[i];
    bool lost = p->session == FLOOD_LOST;
    if (p->session != FLOOD_OPEN && !lost)
        return;
    p->session = FLOOD_NONE;
    if (lost) {
        if (p->again)
            connect(f, i);
        return;
    }
    bool mute = link_was_mute(f, p);
    leave(f, p, REASON_CLOSED_BY_PEER, code);
    if (p->silent) {
        uint64_t after = flood_ms(f) - f->silent_since_ms;
        f->silent_gone++;
        f->silent_max_ms = after > f->silent_max_ms ? after : f->silent_max_ms;
        return; /* a dead phone learns nothing */
    }
    f->wrong_closes += code != CLOSE_SHUTDOWN;
    f->idle_closes += code == CLOSE_IDLE;
    f->wrong_idle_closes += code == CLOSE_IDLE && !mute;
    flood_step(
        f, i,
        &(struct client_event){.type = CLIENT_DISCONNECTED, .code = code, .reason = REASON_CLOSED_BY_PEER});
}

void flood_data(struct flood *f, uint32_t i, const char *p, size_t n)
{
    struct flood_phone *phone = &f->phones[i];
    f->bytes_down += n;
    if (phone->session == FLOOD_OPEN && !phone->silent && !phone->dark)
        flood_offer(f, i, ITEM_DOWN, p, n, flood_ms(f));
}

/* ---- what arrives ---- */

static void note_server_time(struct flood *f, const struct msg *m)
{
    uint64_t now = f->io.now.wall_us;
    hist_add(&f->server_us, now > m->ts ? now - m->ts : 0);
}

static void take_frame(struct flood *f, struct flood_item *item)
{
    struct flood_phone *p = &f->phones[item->phone];
    struct proto_frame frame;
    struct msg m;
    uint8_t era = p->era;
    flood_trace_read(f, item->phone, item->len);
    f->came_ms = item->mark;
    /* Neighbours beat one after the other, as they lie in memory, in the bitmaps and in the server: ten
     * million in random order are a page walk each. Only a welcome looks at it. */
    f->io.beat_share = (uint32_t)(((uint64_t)item->phone << 32) / f->cfg.phones) | 1;
    p->unread += item->len;
    if (p->unread >= f->cfg.credit / 2) {
        f->cfg.world.credit(f->cfg.world.arg, item->phone, p->unread);
        p->unread = 0;
    }
    int rc = proto_bin_begin(&frame, item->data, item->len, &f->scratch, NULL);
    while (!rc && era == p->era && (rc = proto_bin_next(&frame, &m, NULL)) == 1) {
        rc = 0;
        if (m.t == MSG_DONE && slice_is(m.re, "create"))
            flood_on_create(f, m.chat, true);
        else if (m.t == MSG_ERROR && slice_is(m.re, "create"))
            flood_on_create(f, m.chat, slice_is(m.code, proto_error_code(PROTO_CHAT_EXISTS)));
        flood_step(f, item->phone, &(struct client_event){.type = CLIENT_MESSAGE, .m = &m});
        if (frame.done)
            break;
    }
    if (rc < 0)
        f->undecodable++;
    if (!p->was_ready && p->client.state == CLIENT_READY && p->session == FLOOD_OPEN) {
        p->was_ready = true;
        f->ready++;
        f->came += !p->came;
        p->came = true;
        flood_on_ready(f, item->phone);
    }
}

void flood_arrived(struct flood *f, struct flood_item *item)
{
    struct flood_phone *p = &f->phones[item->phone];
    switch ((enum flood_item_kind)item->kind) {
    case ITEM_CONNECT:
        p->session = FLOOD_OPEN;
        p->up = 0;
        f->cfg.world.open(f->cfg.world.arg, item->phone, p->client.user);
        flood_trace_opened(f, item->phone);
        flood_offer(f, item->phone, ITEM_CONNECTED, NULL, 0, 0);
        break;
    case ITEM_CONNECTED:
        flood_simple(f, item->phone, CLIENT_CONNECTED);
        break;
    case ITEM_UP:
        p->up += item->len;
        if (item->mark && item->mark != p->handed_tag) { /* a retry is not its beginning */
            p->handed_tag = item->mark;
            p->handed_ms = flood_ms(f);
        }
        f->bytes_up += item->len;
        f->cfg.world.data(f->cfg.world.arg, item->phone, item->data, item->len);
        break;
    case ITEM_BEAT:
        f->cfg.world.beat(f->cfg.world.arg, item->phone);
        break;
    case ITEM_DOWN:
        take_frame(f, item);
        break;
    }
}

void flood_fire(struct flood *f, uint32_t i)
{
    if (!f->phones[i].silent)
        flood_simple(f, i, CLIENT_TIMER);
}

/* ---- what the client does ---- */

static void offer_msg(struct flood *f, uint32_t i, const struct msg *m, const struct client_effect *e)
{
    uint32_t tag = m->t == MSG_SEND ? tag_of(&m->id) : 0;
    buf_reset(&f->out);
    proto_bin_encode(&f->out, m);
    if (!f->out.failed && flood_offer(f, i, ITEM_UP, f->out.data, f->out.len, tag))
        flood_trace_sent(f, i, e, f->out.len);
}

void flood_send_raw(struct flood *f, uint32_t i, const struct msg *m)
{
    offer_msg(f, i, m, NULL);
}

static void do_send(struct flood *f, uint32_t i, const struct client_effect *e)
{
    if (f->phones[i].session != FLOOD_OPEN)
        return;
    if (e->m->t == MSG_BEAT && !e->m->away) {
        f->beats++;
        flood_offer(f, i, ITEM_BEAT, NULL, 0, 0);
        return;
    }
    f->resends += e->m->t == MSG_SEND && e->attempt > 1;
    offer_msg(f, i, e->m, e);
}

static void know(struct flood_phone *p, const struct id *id)
{
    p->count++;
    p->sum += hash_bytes(id, sizeof *id, 0);
}

static uint64_t stamp_of(struct slice body)
{
    uint64_t v = 0;
    for (size_t i = 0; i < STAMP && i < body.n; i++)
        v = v << 4 | (uint64_t)(body.p[i] <= '9' ? body.p[i] - '0' : body.p[i] - 'a' + 10);
    return v;
}

/* What of the way was the server's, sockets and queues included, and what the two links'. Who has said
 * something else since tells neither. */
static void note_shares(struct flood *f, const struct msg *m, uint64_t all_us, bool in_mass)
{
    uint64_t from = m->from - f->cfg.first_user;
    if (from >= f->cfg.phones || f->phones[from].handed_tag != tag_of(&m->id))
        return;
    if (f->came_ms < f->phones[from].handed_ms)
        return;
    uint64_t served_us = (uint64_t)(f->came_ms - f->phones[from].handed_ms) * 1000;
    hist_add(&f->recent_served_us, served_us);
    hist_add(in_mass ? &f->mass_served_us : &f->served_us, served_us);
    if (!in_mass)
        hist_add(&f->links_us, all_us > served_us ? all_us - served_us : 0);
}

static void on_surface(struct flood *f, struct flood_phone *p, const struct msg *m)
{
    if (!slice_is(m->kind, "text") || m->chat != f->cfg.first_chat + p->chat)
        return; /* who came and went is also an entry of the log */
    know(p, &m->id);
    f->delivered++;
    uint64_t said = stamp_of(m->body), now = f->io.now.mono_ns;
    bool in_mass = f->mass_ns && said >= f->mass_ns;
    if (!in_mass)
        hist_add(&f->latency_us, now > said ? (now - said) / NS_PER_US : 0);
    note_server_time(f, m);
    note_shares(f, m, now > said ? (now - said) / NS_PER_US : 0, in_mass);
}

static void on_accepted(struct flood *f, struct flood_phone *p, const struct client_effect *e)
{
    struct flood_chat *c = &f->chats[p->chat];
    know(p, &e->id);
    f->accepted++;
    f->expected += flood_chat_size(f, p->chat) - 1;
    c->accepted++;
    c->sum += hash_bytes(&e->id, sizeof e->id, 0);
    uint64_t made_ms = id_unix_ms(&e->id), now_ms = f->io.now.wall_us / 1000;
    hist_add(&f->accept_us, now_ms > made_ms ? (now_ms - made_ms) * 1000 : 0);
}

void flood_emit(void *arg, struct client *c, const struct client_effect *e)
{
    struct flood *f = arg;
    uint32_t i = number_of(f, c);
    struct flood_phone *p = &f->phones[i];
    flood_trace_effect(f, i, e);
    switch (e->type) {
    case CLIENT_DO_SEND:
        do_send(f, i, e);
        break;
    case CLIENT_DO_CONNECT:
        connect(f, i);
        break;
    case CLIENT_DO_CLOSE:
        break_off(f, i, e->reason);
        break;
    case CLIENT_SET_TIMER:
        flood_wake(f, i, e->at_ns ? (uint32_t)((e->at_ns - f->origin_ns) / NS_PER_MS) + 1 : 0);
        break;
    case CLIENT_SUBMITTED:
        f->sent++;
        f->outboxes++;
        break;
    case CLIENT_FORGET:
        f->outboxes--;
        break;
    case CLIENT_ACCEPTED:
        on_accepted(f, p, e);
        break;
    case CLIENT_SURFACE:
        on_surface(f, p, e->m);
        break;
    case CLIENT_DUPLICATE:
        f->duplicates++;
        break;
    case CLIENT_GAP:
        f->gaps++;
        break;
    case CLIENT_GAVE_UP:
        f->gave_up++;
        break;
    case CLIENT_ENDED:
        f->ended++;
        break;
    case CLIENT_RESENT:
    case CLIENT_RECEIVED:
    case CLIENT_SHOW_UNSENT:
    case CLIENT_COPY:
    case CLIENT_NOTICE:
    case CLIENT_UNCONFIRMED: /* these phones keep no copies: they answer that they hold none */
    case CLIENT_OFFERED:
    case CLIENT_SEND_AGAIN:
    case CLIENT_MARKED:
    case CLIENT_RECEIPT:
    case CLIENT_COUNTS:
    case CLIENT_DISCARDED:
    case CLIENT_TYPING: /* these phones watch nobody */
    case CLIENT_TYPING_OVER:
    case CLIENT_PRESENCE:
    case CLIENT_PRESENCE_LOST:
        break;
    }
}

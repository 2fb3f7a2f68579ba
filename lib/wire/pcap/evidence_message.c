/* What the messages of a connection say about chats: who speaks, what was sent, to whom it went. */
#include <stdlib.h>
#include <string.h>

#include "proto/bin.h"
#include "util/units.h"
#include "wire/pcap/evidence_impl.h"

struct at { /* the message at hand */
    struct evidence *e;
    const struct tap_message *m;
    struct ev_conn *c;
    uint32_t conn;
};

static struct ev_message *add(struct at *a, enum ev_what what)
{
    struct ev_message *out = ev_add(a->e, &a->e->message, sizeof *out);
    if (!out)
        return NULL;
    out->what = (uint8_t)what;
    out->conn = a->conn;
    out->dir = (uint8_t)a->m->dir;
    out->ts_ns = a->m->ts_ns;
    out->first_ns = a->m->first_ns;
    out->end = a->m->due;
    out->complete = a->m->complete;
    return out;
}

/* The user in a token's claims. Its signature is no concern of ours: the server judged it. */
static uint64_t token_user(struct slice token)
{
    char claims[2048], digits[24];
    const char *dot = token.n ? memchr(token.p, '.', token.n) : NULL;
    const char *end = dot ? memchr(dot + 1, '.', token.n - (size_t)(dot + 1 - token.p)) : NULL;
    uint64_t user = 0;
    if (!end || end - dot > 2700)
        return 0;
    long n = base64url_decode(claims, sizeof claims, dot + 1, (size_t)(end - dot - 1));
    const char *sub = n > 0 ? memmem(claims, (size_t)n, "\"sub\":\"", 7) : NULL;
    if (!sub)
        return 0;
    sub += 7;
    size_t k = 0;
    while (k < sizeof digits - 1 && sub + k < claims + n && sub[k] >= '0' && sub[k] <= '9') {
        digits[k] = sub[k];
        k++;
    }
    digits[k] = 0;
    return k && units_u64(&user, digits, NULL) == 0 ? user : 0;
}

static void take_hello(struct at *a, const struct msg *m)
{
    char net[32];
    size_t n = m->net.n < sizeof net - 1 ? m->net.n : sizeof net - 1;
    if (n)
        memcpy(net, m->net.p, n);
    net[n] = 0;
    a->c->user = token_user(m->token);
    a->c->device = m->device;
    a->c->net = (uint8_t)net_parse(net);
}

static void member(struct at *a, uint64_t chat, uint64_t user, bool left)
{
    struct ev_message *out = user && chat ? add(a, EV_MEMBER) : NULL;
    if (!out)
        return;
    out->chat = chat;
    out->user = user;
    out->left = left;
}

static uint8_t reason_of(struct slice code)
{
    static const struct {
        const char *code;
        uint8_t reason;
    } list[] = {{"not_member", REASON_NOT_MEMBER},
                {"rate_limited", REASON_RATE_LIMITED},
                {"storage_full", REASON_STORAGE_FULL},
                {"id_conflict", REASON_ID_CONFLICT},
                {"id_too_old", REASON_ID_TOO_OLD}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (slice_is(code, list[i].code))
            return list[i].reason;
    return REASON_INVALID;
}

static void note(struct at *a, enum ev_what what, const struct msg *m)
{
    struct ev_message *out = add(a, what);
    if (!out)
        return;
    out->id = m->id;
    out->chat = m->chat;
    out->seq = m->seq;
    if (what == EV_MSG)
        out->user = m->from;
    if (what == EV_REJECT)
        out->reason = reason_of(m->code);
}

static void take(struct at *a, const struct msg *m)
{
    switch (m->t) {
    case MSG_HELLO:
        take_hello(a, m);
        break;
    case MSG_SEND:
        note(a, EV_SEND, m);
        break;
    case MSG_MSG:
        note(a, EV_MSG, m);
        break;
    case MSG_ACCEPTED:
        note(a, EV_ACCEPTED, m);
        break;
    case MSG_ERROR:
        if (m->has & MSG_HAS(id))
            note(a, EV_REJECT, m);
        break;
    case MSG_CREATE:
        member(a, m->chat, a->c->user, false);
        for (uint32_t i = 0; i < m->users_n; i++)
            member(a, m->chat, m->users[i], false);
        break;
    case MSG_JOIN:
    case MSG_LEAVE:
        member(a, m->chat, a->c->user, m->t == MSG_LEAVE);
        break;
    case MSG_INVITE:
    case MSG_REMOVE:
        member(a, m->chat, m->user, m->t == MSG_REMOVE);
        break;
    default:
        break;
    }
}

/* A number for a name of another system. */
static uint64_t number_of(struct chat_text s)
{
    uint64_t v;
    return !s.p ? 0 : scan_u64(s, &v) && v ? v : hash_bytes(s.p, s.n, 3) >> 12 | 1;
}

static struct id id_of(struct chat_text s)
{
    struct id id;
    uint64_t v[2];
    if (id_parse(&id, s.p, s.n) == 0)
        return id;
    v[0] = hash_bytes(s.p, s.n, 11);
    v[1] = hash_bytes(s.p, s.n, 12);
    memcpy(&id, v, sizeof id);
    return id;
}

/* Through the scanner: other systems, and what is cut. */
static void take_items(struct at *a)
{
    static const uint8_t what[] = {
        [CHAT_SEND] = EV_SEND, [CHAT_PUSH] = EV_MSG, [CHAT_ACCEPT] = EV_ACCEPTED, [CHAT_ACK] = EV_ACCEPTED};
    struct chat_item item[CHAT_ITEMS_MAX];
    int n = chat_decode(&a->e->decoder, a->m, item, CHAT_ITEMS_MAX);
    for (int i = 0; i < n; i++) {
        struct chat_text id = item[i].id.p ? item[i].id : item[i].ack;
        if (item[i].role == CHAT_OTHER || item[i].role == CHAT_ACK || !id.p)
            continue;
        struct ev_message *out = add(a, what[item[i].role]);
        if (!out)
            return;
        out->id = id_of(id);
        out->chat = number_of(item[i].chat);
        out->seq = item[i].seq;
        if (out->what == EV_MSG)
            out->user = number_of(item[i].from);
        if (a->e->decoder.dialect && out->what == EV_SEND && item[i].from.p && !a->c->user)
            a->c->user = number_of(item[i].from);
    }
}

void ev_take_message(struct evidence *e, const struct tap_message *m)
{
    struct proto_frame f;
    struct msg msg;
    uint32_t i = (uint32_t)(uintptr_t)tap_conn(m->flow)->user;
    struct at a = {e, m, ev_conn(e, i), i};
    bool bin = m->opcode == WS_BINARY;
    if (m->opcode != WS_TEXT && !bin)
        return;
    int rc = e->decoder.dialect || !m->complete ? -1
             : bin ? proto_bin_begin(&f, (const char *)m->p, m->n, &e->scratch, NULL)
                   : proto_frame_begin(&f, (const char *)m->p, m->n, &e->scratch, NULL);
    if (rc < 0) {
        take_items(&a);
        return;
    }
    while ((bin ? proto_bin_next : proto_frame_next)(&f, &msg, NULL) > 0)
        take(&a, &msg);
}

/* What a session may ask once it has said hello, and GET /history. */
#include "node/node_bus.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

static enum reason reason_of(enum proto_error code)
{
    switch (code) {
    case PROTO_NOT_MEMBER:
    case PROTO_NOT_ALLOWED:
    case PROTO_NO_SUCH_CHAT:
        return REASON_NOT_MEMBER;
    case PROTO_RATE_LIMITED:
    case PROTO_OVERLOADED:
    case PROTO_SHARD_UNAVAILABLE:
        return REASON_RATE_LIMITED;
    case PROTO_STORAGE_FULL:
        return REASON_STORAGE_FULL;
    case PROTO_ID_CONFLICT:
        return REASON_ID_CONFLICT;
    case PROTO_ID_TOO_OLD:
        return REASON_ID_TOO_OLD;
    case PROTO_SHUTTING_DOWN:
        return REASON_SHUTDOWN;
    default:
        return REASON_INVALID;
    }
}

static void reject_send(struct node *n, struct session *s, const struct msg *m, enum proto_error code,
                        uint32_t retry_ms)
{
    trace_lane_emit(n->io.trace, &s->lane,
                    &(struct trace_event){.id = m->id,
                                          .chat = m->chat,
                                          .user = session_user(&n->registry, s)->id,
                                          .hop = HOP_SERVER_REJECT,
                                          .reason = (uint8_t)reason_of(code)});
    session_error(n, s, code, m, retry_ms, NULL);
}

/* Token bucket per user: 0, or the milliseconds until there is room again. */
static uint32_t over_rate(struct node *n, struct user *u)
{
    const struct node_limits *l = &n->config.limits;
    uint32_t now = clock_ms(n->io.now.mono_ns);
    uint64_t burst =
        (uint64_t)l->rate_burst * 1000 < UINT32_MAX ? (uint64_t)l->rate_burst * 1000 : UINT32_MAX;
    if (!l->rate_per_s)
        return 0;
    if (!u->bucket_ms) {
        u->bucket_milli = (uint32_t)burst;
        u->bucket_ms = now;
    }
    uint64_t gained = (uint64_t)(now - u->bucket_ms) * l->rate_per_s; /* thousandths */
    u->bucket_milli =
        u->bucket_milli + gained < burst ? (uint32_t)(u->bucket_milli + gained) : (uint32_t)burst;
    u->bucket_ms = now;
    if (u->bucket_milli < 1000)
        return (uint32_t)((1000 - u->bucket_milli) / l->rate_per_s + 1);
    u->bucket_milli -= 1000;
    return 0;
}

static void on_send(struct node *n, struct session *s, const struct msg *m, uint64_t offset)
{
    n->counters.messages_received++;
    trace_lane_emit(n->io.trace, &s->lane,
                    &(struct trace_event){.id = m->id,
                                          .chat = m->chat,
                                          .user = session_user(&n->registry, s)->id,
                                          .device = s->device,
                                          .arg = offset,
                                          .hop = HOP_SERVER_RECEIVE,
                                          .flags = n->accept.log ? TRACE_FLAG_DURABLE : 0});
    if (n->draining) {
        reject_send(n, s, m, PROTO_SHUTTING_DOWN, 1000);
        return;
    }
    if (!m->kind.n || m->kind.n > PROTO_KIND_MAX ||
        entry_op_of(m->kind.p, m->kind.n) != ENTRY_MESSAGE) { /* its tag would prove a membership */
        reject_send(n, s, m, PROTO_INVALID, 0);
        return;
    }
    if (m->body.n > n->config.limits.body_max) {
        reject_send(n, s, m, PROTO_BODY_TOO_LARGE, 0);
        return;
    }
    uint32_t wait = over_rate(n, session_user(&n->registry, s));
    if (wait || s->sending >= n->config.limits.sending_per_conn || s->sending == UINT16_MAX) {
        reject_send(n, s, m, PROTO_RATE_LIMITED, wait ? wait : 100);
        return;
    }
    s->sending++;
    if (!node_bus_request(n, s, m))
        accept_send(&n->accept, session_conn(&n->registry, s), session_user(&n->registry, s)->id, m);
}

static void on_sync(struct node *n, struct session *s, const struct msg *m)
{
    n->counters.syncs++;
    if (!(n->config.features & DELIVERY_RESYNC)) {
        session_error(n, s, PROTO_UNKNOWN_TYPE, m, 0, "sync is not served in this delivery mode");
        return;
    }
    uint32_t most = n->config.limits.requests_per_sync;
    struct sync_job job = {.since_us = m->since, .left = m->limit && m->limit < most ? m->limit : most};
    int rc = 0;
    if (m->chat) {
        struct chat *c = registry_chat(&n->registry, m->chat);
        if (!node_owns(n, m->chat) && !bus_reachable(n, node_owner(n, m->chat))) {
            n->counters.shard_unavailable++;
            session_error(n, s, PROTO_SHARD_UNAVAILABLE, m, 1000, NULL);
            return;
        }
        if (!c || !chat_is_member(c, session_user(&n->registry, s)->id)) {
            session_error(n, s, c ? PROTO_NOT_MEMBER : PROTO_NO_SUCH_CHAT, m, 0, NULL);
            return;
        }
        uint64_t from = chat_member(c, session_user(&n->registry, s)->id)->from;
        job.chat = m->chat;
        job.after = m->after + 1 > from ? m->after : from - 1;
        job.upto = m->to && m->to < c->durable ? m->to : c->durable;
        if (m->to && job.after > m->to)
            job.after = m->to; /* all of it came before the membership: nothing to read */
        rc = delivery_sync(&n->delivery, s, &job);
    } else {
        const struct user *u = session_user(&n->registry, s);
        for (uint32_t i = 0; i < u->chats_n && !rc; i++) {
            struct chat *c = registry_user_chat(&n->registry, u, i);
            const struct member *who = chat_member(c, session_user(&n->registry, s)->id);
            if (who->role == MEMBER_INVITED)
                continue;
            job.chat = c->id;
            job.after = who->from ? who->from - 1 : 0;
            job.upto = c->durable;
            rc = delivery_sync(&n->delivery, s, &job);
        }
    }
    if (rc)
        session_error(n, s, PROTO_LIMIT, m, 0, "too many syncs are waiting");
}

/* Hot path: of who is in few chats, their own list is nearer than the index of all chats. */
static struct chat *chat_of(struct node *n, const struct session *s, uint64_t id)
{
    if (s->subs_n > 4)
        return registry_chat(&n->registry, id);
    for (struct sub *sub = registry_sub(&n->registry, s->subs); sub;
         sub = registry_sub(&n->registry, sub->next))
        if (sub_chat(&n->registry, sub)->id == id)
            return sub_chat(&n->registry, sub);
    return NULL;
}

static void on_ack(struct node *n, struct session *s, const struct msg *m)
{
    struct chat *c = chat_of(n, s, m->chat);
    if (!c || !delivery_ack(&n->delivery, s, c, m->seq, m->t == MSG_READ))
        node_bus_said(n, s, m->chat, m->seq, m->t == MSG_READ);
}

static void on_quiet(struct node *n, struct session *s, const struct msg *m)
{
    struct chat *c = registry_chat(&n->registry, m->chat);
    if (!c || delivery_passive(&n->delivery, s, c, m->away))
        session_error(n, s, c ? PROTO_NOT_MEMBER : PROTO_NO_SUCH_CHAT, m, 0, NULL);
}

void node_request(struct node *n, struct session *s, const struct msg *m, uint64_t offset)
{
    if (s->state == SESSION_NEW) {
        session_error(n, s, PROTO_UNAUTHENTICATED, m, 0, NULL);
        return;
    }
    if (n->io.now.wall_us / 1000000 > s->expires_s) {
        session_error(n, s, PROTO_TOKEN_EXPIRED, m, 0, NULL);
        session_end(n, s, CLOSE_TOKEN_EXPIRED, REASON_PROTOCOL);
        return;
    }
    switch (m->t) {
    case MSG_SEND:
        on_send(n, s, m, offset);
        break;
    case MSG_ACK:
    case MSG_READ:
        on_ack(n, s, m);
        break;
    case MSG_QUIET:
        on_quiet(n, s, m);
        break;
    case MSG_BEAT:
        node_beat(n, s, m);
        break;
    case MSG_TYPING:
        node_typing(n, s, m);
        break;
    case MSG_WATCH:
        node_watch(n, s, m);
        break;
    case MSG_RECEIPTS:
        node_receipts(n, s, m);
        break;
    case MSG_SYNC:
        on_sync(n, s, m);
        break;
    case MSG_CREATE:
    case MSG_JOIN:
    case MSG_LEAVE:
    case MSG_INVITE:
    case MSG_REMOVE:
        if (n->draining)
            session_error(n, s, PROTO_SHUTTING_DOWN, m, 1000, NULL);
        else if (!m->chat)
            session_error(n, s, PROTO_INVALID, m, 0, "chat 0 is no chat");
        else if (!node_bus_request(n, s, m))
            accept_member(&n->accept, session_conn(&n->registry, s), session_user(&n->registry, s)->id, m);
        break;
    case MSG_REPORT:
        node_report(n, s, m);
        break;
    case MSG_OFFER:
        node_offer(n, s, m);
        break;
    default:
        session_error(n, s, PROTO_UNKNOWN_TYPE, m, 0, NULL);
    }
}

/* ---- what the accept path answers ---- */

static void answered(struct session *s)
{
    if (s->sending)
        s->sending--;
}

static void on_accepted(void *arg, uint64_t conn, const struct known *k, bool dup)
{
    struct node *n = arg;
    struct session *s = node_session(n, conn);
    if (dup && node_owns(n, k->chat))
        trace_emit(
            n->io.trace,
            &(struct trace_event){
                .id = k->id, .chat = k->chat, .user = k->sender, .arg = k->seq, .hop = HOP_SERVER_DUPLICATE});
    if (node_bus_accepted(n, conn, k, dup))
        return;
    if (!s || s->state == SESSION_CLOSING)
        return;
    answered(s);
    if (!(n->config.features & DELIVERY_RETRY))
        return;
    struct msg m = {.t = MSG_ACCEPTED,
                    .id = k->id,
                    .chat = k->chat,
                    .epoch = k->epoch,
                    .seq = k->seq,
                    .ts = k->ts_us,
                    .tag_len = sizeof k->tag,
                    .dup = dup};
    memcpy(m.tag, k->tag, sizeof k->tag);
    delivery_send(&n->delivery, s, &m);
}

static struct msg request_of(const struct pending *p)
{
    static const enum msg_type types[] = {MSG_SEND, MSG_CREATE, MSG_JOIN, MSG_LEAVE, MSG_INVITE, MSG_REMOVE};
    struct msg m = {.t = types[p->e.op], .chat = p->e.chat};
    if (p->e.op == ENTRY_MESSAGE)
        m.id = p->e.id;
    return m;
}

static void on_done(void *arg, uint64_t conn, const struct pending *p)
{
    struct node *n = arg;
    struct session *s = node_session(n, conn);
    if (node_bus_done(n, conn, p) || !s || s->state == SESSION_CLOSING)
        return;
    struct msg re = request_of(p);
    struct msg m = {.t = MSG_DONE, .re = slice_of(msg_type_name(re.t)), .chat = p->e.chat};
    if (p->e.op == ENTRY_CREATE && p->e.epoch &&
        n->accept.log) { /* nobody is sent entry 0: its maker keeps it */
        struct msg copy;
        delivery_entry_msg(&copy, &p->e);
        copy.t = MSG_DONE;
        copy.re = m.re;
        copy.has = MSG_HAS(seq);
        m = copy;
    }
    delivery_send(&n->delivery, s, &m);
}

static void on_refused(void *arg, uint64_t conn, const struct pending *p, enum proto_error code,
                       uint32_t retry_ms)
{
    struct node *n = arg;
    struct session *s = node_session(n, conn);
    if (node_bus_refused(n, conn, code, retry_ms) || !s || s->state == SESSION_CLOSING)
        return;
    struct msg m = request_of(p);
    if (p->e.op != ENTRY_MESSAGE) {
        session_error(n, s, code, &m, retry_ms, NULL);
        return;
    }
    answered(s);
    reject_send(n, s, &m, code, retry_ms);
}

void node_add_member(struct node *n, struct chat *c, uint64_t user, const struct entry *e, uint64_t from,
                     enum member_role role, uint64_t knows)
{
    /* the limits were checked when the entry was sealed; past memory the next start reads it from the store
     */
    if (registry_member_set(&n->registry, c, user, from, role))
        return;
    if (role == MEMBER_INVITED)
        return;
    trace_emit(n->io.trace,
               &(struct trace_event){.chat = c->id, .user = user, .arg = e->seq, .hop = HOP_SERVER_MEMBER});
    node_receipts_joined(n, c, user, from);
    node_joined(n, c, user, knows);
}

void node_drop_member_quietly(struct node *n, struct chat *c, uint64_t user)
{
    struct user *u = registry_user(&n->registry, user);
    struct session *s = registry_session(&n->registry, u ? u->sessions : 0);
    for (; s; s = registry_session(&n->registry, s->next_of_user)) {
        struct sub *sub = s->state == SESSION_READY ? session_sub(&n->registry, s, c) : NULL;
        if (sub && !MUTANT(REMOVED_STILL_PUSHED))
            delivery_unsubscribe(&n->delivery, s, sub);
    }
    node_presence_said(n, c, user, UINT64_MAX);
    node_receipts_left(n, c, user);
    registry_member_drop(&n->registry, c, user);
}

void node_drop_member(struct node *n, struct chat *c, uint64_t user, const struct entry *e)
{
    node_drop_member_quietly(n, c, user);
    trace_emit(
        n->io.trace,
        &(struct trace_event){
            .chat = c->id, .user = user, .arg = e->seq, .hop = HOP_SERVER_MEMBER, .flags = TRACE_FLAG_LEFT});
}

static void on_committed_here(struct node *n, struct chat *c, const struct pending *p)
{
    const struct entry *e = &p->e;
    if (n->accept.log)
        trace_emit(
            n->io.trace,
            &(struct trace_event){
                .id = e->id, .chat = e->chat, .user = e->sender, .arg = e->seq, .hop = HOP_SERVER_COMMIT});
    switch (e->op) {
    case ENTRY_MESSAGE:
        n->counters.messages++;
        node_presence_said(n, c, e->sender, id_unix_ms(&e->id) * 1000 + 999);
        delivery_fan_out(&n->delivery, c, e, p->conn);
        node_receipts_entry(n, c, e);
        return;
    case ENTRY_CREATE:
        registry_members_reserve(c, p->users_n);
        for (uint32_t i = 0; i < p->users_n; i++)
            node_add_member(n, c, p->users[i], e, e->seq,
                            p->users[i] == e->sender ? MEMBER_ADMIN : MEMBER_PLAIN, e->seq);
        return; /* entry 0 is nobody's news: members see the chat by its first message */
    case ENTRY_INVITE:
        node_add_member(n, c, p->target, e, e->seq, MEMBER_INVITED, 0);
        break;
    case ENTRY_JOIN:
        node_add_member(n, c, p->target, e, e->seq, MEMBER_PLAIN, e->seq - 1);
        break;
    default:
        break;
    }
    delivery_fan_out(&n->delivery, c, e, 0);
    if (e->op == ENTRY_LEAVE || e->op == ENTRY_REMOVE)
        node_drop_member(n, c, p->target, e); /* has seen this entry, and sees nothing after it */
}

static void on_committed(void *arg, struct chat *c, const struct pending *p)
{
    on_committed_here(arg, c, p);
    node_bus_publish(arg, c, p);
}

static void on_cursors(void *arg, const struct cursor *list, size_t count, int rc)
{
    struct node *n = arg;
    for (size_t i = 0; rc && i < count; i++) /* they go with a later batch */
        delivery_add_cursor(&n->delivery, &list[i]);
    if (!rc)
        node_receipts_saved(n, list, count);
}

static struct commit_job *extra(void *arg)
{
    return recover_extra(&((struct node *)arg)->recover);
}

static void extra_done(void *arg, struct commit_job *job)
{
    node_recover_done(arg, job);
}

const struct accept_ops node_accept_ops = {.committed = on_committed,
                                           .accepted = on_accepted,
                                           .done = on_done,
                                           .refused = on_refused,
                                           .cursors = on_cursors,
                                           .extra = extra,
                                           .extra_done = extra_done};

/* ---- history ---- */

void node_http_error(struct node *n, uint64_t request, int status, enum proto_error code)
{
    struct buf b = BUF_INIT(1024);
    buf_printf(&b, "{\"error\":{\"code\":\"%s\",\"text\":\"%s\"}}\n", proto_error_code(code),
               proto_error_text(code));
    struct shared_frame *f = b.failed ? NULL : shared_frame_new(b.data, b.len);
    buf_release(&b);
    struct effect e = {.kind = EFFECT_HTTP_REPLY, .request = request, .code = f ? status : 500, .frame = f};
    n->io.emit(n->io.arg, &e);
    shared_frame_unref(f);
}

void node_history(struct node *n, const struct node_event *e)
{
    struct token token;
    int rc = token_verify(n->config.keys, e->data, e->len, e->now.wall_us / 1000000, &token, NULL);
    if (rc) {
        node_http_error(n, e->request, 401, rc == ERR_TIMEOUT ? PROTO_TOKEN_EXPIRED : PROTO_UNAUTHENTICATED);
        return;
    }
    if (node_bus_history(n, e, token.role == ROLE_OPERATOR ? 0 : token.user))
        return;
    struct chat *c = registry_chat(&n->registry, e->chat);
    const struct member *m = c ? chat_member(c, token.user) : NULL;
    static const struct member everything;
    if (token.role == ROLE_OPERATOR && c && c->epoch)
        m = &everything;
    if (!m || m->role == MEMBER_INVITED) { /* not even whether it exists */
        node_http_error(n, e->request, 404, PROTO_NO_SUCH_CHAT);
        return;
    }
    struct read_job *job = calloc(1, sizeof *job);
    if (!job) {
        node_http_error(n, e->request, 503, PROTO_OVERLOADED);
        return;
    }
    *job = (struct read_job){.kind = READ_LOG,
                             .chat = e->chat,
                             .after = e->after + 1 > m->from ? e->after
                                      : m == &everything     ? e->after
                                                             : m->from - 1,
                             .upto = c->durable,
                             .limit = e->limit,
                             .bytes_max = 4u << 20,
                             .user = e->request};
    struct effect read = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &read);
}

void node_history_done(struct node *n, struct read_job *job)
{
    if (job->rc) {
        n->counters.read_failures++;
        node_http_error(n, job->user, 503, PROTO_OVERLOADED);
        return;
    }
    struct buf b = BUF_INIT(64u << 20);
    buf_str(&b, "{\"chat\":\"");
    buf_u64(&b, job->chat);
    buf_str(&b, "\",\"head\":");
    buf_u64(&b, job->upto);
    const struct chat *c = registry_chat(&n->registry, job->chat);
    buf_str(&b, c && !node_chat_is_whole(n, c) ? ",\"whole\":false" : ",\"whole\":true");
    buf_str(&b, ",\"messages\":[");
    for (size_t i = 0; i < job->entries.n; i++) {
        struct msg m;
        delivery_entry_msg(&m, &job->entries.list[i]);
        if (i)
            buf_char(&b, ',');
        proto_encode(&b, &m);
    }
    buf_str(&b, "]}\n");
    struct shared_frame *f = b.failed ? NULL : shared_frame_new(b.data, b.len);
    buf_release(&b);
    if (!f) {
        node_http_error(n, job->user, 503, PROTO_OVERLOADED);
        return;
    }
    struct effect e = {.kind = EFFECT_HTTP_REPLY, .request = job->user, .code = 200, .frame = f};
    n->io.emit(n->io.arg, &e);
    shared_frame_unref(f);
}

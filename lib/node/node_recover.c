/* After a restore: what clients are asked and told, and what operators see. The rules are core/recover.h's.
 */
#include "node/node_bus.h"
#include "util/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOLD_NS   (2 * NS_PER_S) /* patience with a device that claims to know more than the store */
#define NAMED_MAX 1000u          /* refused copies that are named in the log; the others are counted */
#define PAGE_MAX  1000u

typedef char utc_text[24];

static const char *utc(utc_text out, uint64_t us)
{
    time_t t = (time_t)(us / 1000000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, sizeof(utc_text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return out;
}

bool node_recovers(const struct node *n)
{
    return n->config.features == DELIVERY_RELIABLE;
}

static int open_window(struct node *n, uint64_t until_us)
{
    utc_text from, to;
    int rc = recover_open(&n->recover, n->loaded_us, until_us, n->config.epoch);
    if (!rc)
        log_warn("what was said from %s to %s may be lost; clients are asked for their copies",
                 utc(from, n->loaded_us), utc(to, until_us));
    return rc;
}

int node_recover_load(struct node *n, struct store *s, struct err_ctx *ctx)
{
    n->loaded_us = n->accept.last_ts_us;
    if (!node_recovers(n) || store_is_whole(s) || !n->registry.users.live)
        return 0;
    return open_window(n, n->lineage[n->lineage_n - 1].started_us)
               ? err_set(ctx, ERR_NOMEM, "no memory for a recovery")
               : 0;
}

/* ---- what sessions are told ---- */

static void tell_restored(struct node *n, struct session *s)
{
    char text[200];
    utc_text from, to;
    snprintf(
        text, sizeof text,
        "the server's store was put back: what was said from %s to %s may be missing until members' devices "
        "have brought their copies",
        utc(from, n->recover.since_us), utc(to, n->recover.until_us));
    struct msg m = {.t = MSG_NOTICE,
                    .code = SLICE("restored"),
                    .text = slice_of(text),
                    .since = n->recover.since_us,
                    .to = n->recover.until_us};
    delivery_send(&n->delivery, s, &m);
}

void node_recover_hello(struct node *n, struct session *s)
{
    if (!n->recover.open)
        return;
    tell_restored(n, s);
    recover_asked(&n->recover, session_conn(&n->registry, s));
    delivery_send(&n->delivery, s, &(struct msg){.t = MSG_REPORT, .has = MSG_HAS(reports)});
}

static void ask(struct node *n, struct session *s, uint64_t chat, struct msg_range *ranges, size_t count)
{
    struct msg m = {.t = MSG_ASK, .chat = chat, .ranges = ranges, .ranges_n = (uint32_t)count};
    delivery_send(&n->delivery, s, &m);
}

void node_recover_ahead(struct node *n, struct session *s, uint64_t chat, uint64_t from, uint64_t to)
{
    if (!node_recovers(n))
        return;
    struct msg_range range = {from, to};
    accept_hold(&n->accept, chat, n->io.now.mono_ns + HOLD_NS);
    ask(n, s, chat, &range, 1);
}

void node_recover_missing(struct node *n, struct session *s, struct read_job *job)
{
    n->counters.read_failures += job->rc != 0;
    if (recover_missing(&n->recover, job, session_user(&n->registry, s)))
        ask(n, s, job->chat, job->missing, job->missing_n);
}

void node_report(struct node *n, struct session *s, const struct msg *m)
{
    struct msg ours = *m; /* each owner asks for its own: of those who are connected there */
    ours.reports_n = 0;
    for (uint32_t i = 0; i < m->reports_n; i++)
        if (node_owns(n, m->reports[i].chat))
            ours.reports[ours.reports_n++] = m->reports[i];
    if (s->state == SESSION_READY)
        recover_report(&n->recover, session_conn(&n->registry, s), session_user(&n->registry, s), &ours);
}

void node_offer(struct node *n, struct session *s, const struct msg *m)
{
    if (!node_recovers(n)) {
        session_error(n, s, PROTO_UNKNOWN_TYPE, m, 0, "offers are not taken in this delivery mode");
        return;
    }
    if (!node_owns(n, m->chat)) {
        session_error(n, s, PROTO_UNKNOWN_TYPE, m, 0, "copies are taken by the node that owns the chat");
        return;
    }
    if (n->draining || !m->chat) {
        session_error(n, s, n->draining ? PROTO_SHUTTING_DOWN : PROTO_INVALID, m, n->draining ? 1000 : 0,
                      NULL);
        return;
    }
    recover_offer(&n->recover, session_conn(&n->registry, s), session_user(&n->registry, s), m);
}

/* ---- what recover.c answers ---- */

static void on_answered(void *arg, const struct offer *o)
{
    struct node *n = arg;
    struct session *s = node_session(n, o->conn);
    if (!s || s->state == SESSION_CLOSING)
        return;
    struct msg_refused refused[PROTO_ENTRIES_MAX];
    for (uint32_t i = 0; i < o->refused_n; i++)
        refused[i] =
            (struct msg_refused){o->refused[i].id, slice_of(recover_refusal_code(o->refused[i].why))};
    struct msg m = {
        .t = MSG_OFFERED, .chat = o->chat, .ok = o->ok, .refused = refused, .refused_n = o->refused_n};
    delivery_send(&n->delivery, s, &m);
    if (!o->more)
        recover_answered(&n->recover, o->conn, session_user(&n->registry, s));
}

static void on_back(void *arg, struct chat *c, const struct offer *o, const struct recover_member *m,
                    size_t count)
{
    struct node *n = arg;
    for (uint32_t i = 0; i < o->n && n->accept.log; i++) {
        const struct entry *e = &o->entries[i];
        trace_emit(
            n->io.trace,
            &(struct trace_event){
                .id = e->id, .chat = e->chat, .user = e->sender, .arg = e->seq, .hop = HOP_SERVER_COMMIT});
    }
    for (size_t i = 0; i < count; i++) {
        const struct member *now = chat_member(c, m[i].user);
        bool ends = m[i].from == UINT64_MAX || m[i].role == MEMBER_INVITED;
        if (now && ends)
            node_drop_member(n, c, m[i].user, &o->recovered);
        if (m[i].from != UINT64_MAX)
            node_add_member(n, c, m[i].user, &o->recovered, m[i].from, m[i].role,
                            m[i].from ? m[i].from - 1 : 0);
    }
    n->counters.recovered += o->n;
    delivery_fan_out(&n->delivery, c, &o->recovered, 0);
    node_bus_head(n, c);
}

static void on_contradicted(void *arg, const struct entry *e)
{
    struct node *n = arg;
    log_warn("chat %" PRIu64 " seq %" PRIu64 " of epoch %" PRIu64
             " carries our tag and this store never gave it out: the store is a copy and starts a new epoch",
             e->chat, e->seq, e->epoch);
    recover_begin_epoch(&n->recover, e->seq >> 32);
}

static void on_copy_refused(void *arg, const struct offer *o, const struct recover_refused *x)
{
    struct node *n = arg;
    uint64_t before = 0;
    char id[ID_TEXT + 1];
    for (int i = 0; i < RECOVER_REFUSALS; i++)
        before += n->recover.counts.refused[i];
    n->counters.offers_refused++;
    if (before <= NAMED_MAX)
        log_warn("user %" PRIu64 " offers %s as seq %" PRIu64 " of chat %" PRIu64 ", from user %" PRIu64
                 ": refused, %s",
                 o->user, id_str(&x->id, id), x->seq, o->chat, x->from, recover_refusal_text(x->why));
}

static void on_window_closed(void *arg)
{
    struct node *n = arg;
    char text[200];
    const struct recover *r = &n->recover;
    snprintf(text, sizeof text, "%" PRIu64 " entries are back; %s", r->counts.accepted,
             r->expired ? "some devices never came: what only they hold stays missing"
                        : "every member has been asked: what is still missing, nobody holds");
    log_info("the recovery is over: %s", text);
    struct msg m = {.t = MSG_NOTICE,
                    .code = SLICE("recovered"),
                    .text = slice_of(text),
                    .since = r->since_us,
                    .to = r->until_us};
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));)
        if (s->state == SESSION_READY)
            delivery_send(&n->delivery, s, &m);
}

const struct recover_ops node_recover_ops = {.answered = on_answered,
                                             .back = on_back,
                                             .contradicted = on_contradicted,
                                             .closed = on_window_closed,
                                             .refused = on_copy_refused};

/* Everybody comes again, with what they know, and is asked. */
static void enter_epoch(struct node *n, uint64_t epoch, uint64_t first_seq)
{
    struct lineage_entry *l = realloc(n->lineage, (n->lineage_n + 1) * sizeof *l);
    if (l) {
        n->lineage = l;
        l[n->lineage_n++] = (struct lineage_entry){epoch, n->io.now.wall_us, UINT64_MAX};
    }
    n->config.epoch = epoch;
    accept_enter_epoch(&n->accept, epoch, first_seq);
    trace_emit(n->io.trace, &(struct trace_event){.arg = epoch, .hop = HOP_SERVER_EPOCH});
    if (open_window(n, n->io.now.wall_us))
        log_warn("no memory for a recovery: clients are not asked");
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));)
        session_end(n, s, CLOSE_COPY, REASON_SHUTDOWN);
}

void node_recover_done(struct node *n, struct commit_job *job)
{
    struct epoch_job begun = job->begin;
    int rc = job->rc;
    recover_extra_done(&n->recover, job);
    if (begun.wanted && !rc)
        enter_epoch(n, begun.epoch, begun.first_seq);
}

void node_recover_tick(struct node *n)
{
    struct recover *r = &n->recover;
    if (r->open && n->config.recover_for_ns &&
        n->io.now.wall_us - r->opened_us >= n->config.recover_for_ns / NS_PER_US && r->opened_us)
        recover_expire(r);
    if (r->open && !r->opened_us)
        r->opened_us = n->io.now.wall_us; /* it was opened before the first step */
}

/* ---- what operators see ---- */

static uint32_t waiting(const struct node *n, const struct chat *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->members_n; i++) {
        const struct user *u = registry_user(&n->registry, c->members[i].user);
        count += u && c->members[i].role != MEMBER_INVITED && !recover_has_answered(&n->recover, u);
    }
    return count;
}

bool node_chat_is_whole(const struct node *n, const struct chat *c)
{
    return !n->recover.open || !waiting(n, c);
}

static const char *state_name(const struct node *n)
{
    if (n->recover.open)
        return "asking";
    if (n->recover.ended_us)
        return n->recover.expired ? "closed" : "whole";
    return n->lineage_n > 1 ? "whole" : "none";
}

static void put_chats(const struct node *n, struct buf *b)
{
    uint64_t total = 0, incomplete = 0;
    for (uint32_t i = 1; i <= slab_top(&n->registry.chats); i++) {
        const struct chat *c = slab_at(&n->registry.chats, i);
        total += c->epoch != 0;
        incomplete += c->epoch && !node_chat_is_whole(n, c);
    }
    buf_printf(b, "\"chats\":{\"total\":%" PRIu64 ",\"whole\":%" PRIu64 ",\"incomplete\":%" PRIu64 "}", total,
               total - incomplete, incomplete);
}

static void put_summary(const struct node *n, struct buf *b)
{
    const struct recover *r = &n->recover;
    const struct recover_counts *k = &r->counts;
    buf_printf(b,
               "{\"state\":\"%s\",\"epoch\":\"%" PRIu64 "\",\"since\":%" PRIu64 ",\"until\":%" PRIu64
               ",\"opened\":%" PRIu64 ",\"ended\":%" PRIu64 ",",
               state_name(n), n->config.epoch, r->since_us, r->until_us, r->opened_us, r->ended_us);
    put_chats(n, b);
    buf_printf(b,
               ",\"users\":{\"total\":%" PRIu32 ",\"answered\":%" PRIu32 "},\"clients\":{\"asked\":%" PRIu64
               ",\"answered\":%" PRIu64 "},\"offers\":{\"entries\":%" PRIu64 ",\"accepted\":%" PRIu64
               ",\"known\":%" PRIu64 ",\"refused\":{",
               r->users, r->users_answered, k->asked, k->answered, k->entries, k->accepted, k->known);
    for (int i = 0; i < RECOVER_REFUSALS; i++)
        buf_printf(b, "%s\"%s\":%" PRIu64, i ? "," : "", recover_refusal_code(i), k->refused[i]);
    buf_printf(b, "}},\"epochs_begun\":%" PRIu64 "}\n", k->epochs_begun);
}

static void put_page(const struct node *n, struct buf *b, uint64_t after, uint32_t limit)
{
    uint64_t i = after + 1, top = slab_top(&n->registry.chats);
    bool first = true;
    buf_str(b, "{\"chats\":[");
    for (; i <= top && limit; i++) {
        const struct chat *c = slab_at(&n->registry.chats, (uint32_t)i);
        if (!c->epoch)
            continue;
        uint32_t left = n->recover.open ? waiting(n, c) : 0;
        buf_printf(b,
                   "%s{\"chat\":\"%" PRIu64 "\",\"epoch\":\"%" PRIu64 "\",\"head\":%" PRIu64
                   ",\"whole\":%s,\"waiting\":%" PRIu32 "}",
                   first ? "" : ",", c->id, c->epoch_durable, c->durable, left ? "false" : "true", left);
        first = false;
        limit--;
    }
    buf_printf(b, "],\"next\":%" PRIu64 "}\n", i <= top ? i - 1 : 0);
}

void node_reconcile(struct node *n, const struct node_event *e)
{
    struct token token;
    int rc = token_verify(n->config.keys, e->data, e->len, e->now.wall_us / 1000000, &token, NULL);
    if (rc || token.role != ROLE_OPERATOR) {
        node_http_error(n, e->request, rc ? 401 : 403,
                        !rc                 ? PROTO_NOT_ALLOWED
                        : rc == ERR_TIMEOUT ? PROTO_TOKEN_EXPIRED
                                            : PROTO_UNAUTHENTICATED);
        return;
    }
    struct buf b = BUF_INIT(4u << 20);
    if (e->code)
        put_page(n, &b, e->after, e->limit < PAGE_MAX ? e->limit : PAGE_MAX);
    else
        put_summary(n, &b);
    struct shared_frame *f = b.failed ? NULL : shared_frame_new(b.data, b.len);
    buf_release(&b);
    if (!f) {
        node_http_error(n, e->request, 503, PROTO_OVERLOADED);
        return;
    }
    struct effect reply = {.kind = EFFECT_HTTP_REPLY, .request = e->request, .code = 200, .frame = f};
    n->io.emit(n->io.arg, &reply);
    shared_frame_unref(f);
}

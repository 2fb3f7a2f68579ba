/* HTTP beside the WebSocket: /healthz, /readyz, /metrics, /history/{chat}, /receipts/{chat}, /reconcile,
 * /presence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/server_impl.h"

static void reply_text(struct ws_conn *c, int status, const char *type, const char *text)
{
    ws_http_reply(c, status, type, text, strlen(text));
}

static void reply_error(struct ws_conn *c, int status, const char *code, const char *text)
{
    char body[256];
    snprintf(body, sizeof body, "{\"error\":{\"code\":\"%s\",\"text\":\"%s\"}}\n", code, text);
    reply_text(c, status, "application/json", body);
}

void server_http_reply(struct server *s, uint64_t request, int status, struct shared_frame *body)
{
    struct ws_conn *c = ws_http_alive(s->ws, request);
    if (c)
        ws_http_reply(c, status, "application/json", body ? body->data : "", body ? body->len : 0);
}

/* ---- metrics: Prometheus text exposition format 0.0.4 ---- */

static void family(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP chatd_%s %s\n# TYPE chatd_%s %s\n", name, help, name, type);
}

static void gauge(struct buf *b, const char *name, const char *help, uint64_t v)
{
    family(b, name, "gauge", help);
    buf_printf(b, "chatd_%s %llu\n", name, (unsigned long long)v);
}

static void metrics_counters(struct buf *b, const struct counters *c)
{
#define COUNTER(name, help)                                                                                  \
    family(b, #name "_total", "counter", help);                                                              \
    buf_printf(b, "chatd_%s_total %llu\n", #name, (unsigned long long)c->name);
#include "core/counters.def"
#undef COUNTER
}

static void metrics_reconcile(struct buf *b, const struct node_stats *st)
{
    const struct recover_counts *k = &st->recover;
    gauge(b, "reconcile_asking", "1 while clients are asked for copies of what a restore took",
          st->recovering);
    gauge(b, "reconcile_users", "users who are asked", st->recover_users);
    gauge(b, "reconcile_users_answered", "of them, those who have answered", st->recover_users_answered);
    gauge(b, "reconcile_offered", "copies offered", k->entries);
    gauge(b, "reconcile_accepted", "of them, those that brought an entry back", k->accepted);
    gauge(b, "reconcile_known", "of them, those of entries that stood there already", k->known);
    gauge(b, "reconcile_epochs_begun", "epochs begun because a copy proved a seq above a head",
          k->epochs_begun);
    family(b, "reconcile_refused", "gauge", "copies refused, by code");
    for (int i = 0; i < RECOVER_REFUSALS; i++)
        buf_printf(b, "chatd_reconcile_refused{code=\"%s\"} %llu\n", recover_refusal_code(i),
                   (unsigned long long)k->refused[i]);
}

static void metrics_nets(struct buf *b, const struct node_stats *st)
{
    family(b, "sessions", "gauge", "sessions by network");
    for (int net = 0; net < NET_COUNT; net++)
        buf_printf(b, "chatd_sessions{net=\"%s\"} %llu\n", net_name(net),
                   (unsigned long long)st->sessions_by_net[net]);
    family(b, "disconnects_total", "counter", "sessions that ended, by network and reason");
    for (int net = 0; net < NET_COUNT; net++)
        for (int r = 0; r < REASON_COUNT; r++)
            if (st->disconnects[net][r])
                buf_printf(b, "chatd_disconnects_total{net=\"%s\",reason=\"%s\"} %llu\n", net_name(net),
                           reason_text(r), (unsigned long long)st->disconnects[net][r]);
}

static void metrics_commit(struct buf *b, struct store_threads *t)
{
    static const unsigned quantiles[] = {5000, 9500, 9900, 9990};
    struct hist *h = malloc(sizeof *h);
    if (!h)
        return;
    store_threads_hist(t, h);
    family(b, "commit_seconds", "summary", "time of a group commit, fsync included");
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        buf_printf(b, "chatd_commit_seconds{quantile=\"%g\"} %.6f\n", quantiles[i] / 10000.0,
                   (double)hist_quantile(h, quantiles[i]) / 1e6);
    buf_printf(b, "chatd_commit_seconds_sum %.6f\nchatd_commit_seconds_count %llu\n", (double)h->sum / 1e6,
               (unsigned long long)h->count);
    free(h);
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void metrics_bus(struct buf *b, const struct server *s, const struct node_stats *st)
{
    struct bus_redis_stats r;
    server_bus_metrics(s, &r);
    gauge(b, "bus_connected", "1 while the bus reaches other nodes at all", bus_connected(s->bus));
    gauge(b, "bus_nodes", "other nodes there should be", st->nodes);
    gauge(b, "bus_nodes_up", "other nodes that are heard", st->nodes_up);
    gauge(b, "bus_followed", "chats of other nodes that are served here", st->followed);
    gauge(b, "bus_interests", "chats of this node that others serve", st->interests);
    gauge(b, "bus_calls_open", "questions to other nodes without a reply", st->calls);
    gauge(b, "bus_stalls", "times the bus did not answer and was connected anew", r.stalls);
    gauge(b, "bus_lost_here", "datagrams lost before they left this node", r.lost);
}

static void metrics_shared(struct buf *b, const struct server *s, const struct node_stats *st)
{
    struct shared_redis_stats r;
    server_shared_stats(s, &r);
    gauge(b, "presence_shared_up",
          "1 while the shared copy of presence answers; else presence is best effort", st->presence_up);
    gauge(b, "presence_shared_connects", "times it was connected", r.connects);
    gauge(b, "presence_shared_stalls", "times it did not answer and was connected anew", r.stalls);
    gauge(b, "presence_shared_orders", "orders given to it", r.orders);
    gauge(b, "presence_shared_refused", "of these, not taken: it was away, or too slow", r.refused);
    gauge(b, "presence_shared_failed", "answers that were errors", r.failed);
    family(b, "presence_shared_answer_seconds", "gauge", "how long its last answer took");
    buf_printf(b, "chatd_presence_shared_answer_seconds %.6f\n", (double)r.answer_us / 1e6);
}

static void metrics_store(struct buf *b, const struct server *s)
{
    struct kv_pressure p;
    store_pressure(s->store, &p);
    gauge(b, "store_bytes", "bytes of the store on disk", store_disk_bytes(s->store));
    gauge(b, "store_writes_stopped", "1 while the store lets no write through until tables are written",
          p.stopped);
    gauge(b, "store_writes_delayed_bytes_per_second", "what writes are slowed to; 0: they are not",
          p.delayed_rate);
    gauge(b, "store_level0_files", "tables not yet merged, most of any family", p.level0_files);
    gauge(b, "store_compaction_owed_bytes", "estimate of what compaction has yet to rewrite", p.owed_bytes);
    gauge(b, "store_flushes", "flushes running", p.flushes);
    gauge(b, "store_compactions", "compactions running", p.compactions);
}

static void metrics(struct server *s, struct ws_conn *conn)
{
    struct node_stats st;
    uint32_t conns, mux;
    server_stats(s, &st, &conns, &mux);
    struct buf b = BUF_INIT(1u << 20);
    family(&b, "build_info", "gauge", "version of this server");
    buf_printf(&b, "chatd_build_info{version=\"%s\"} 1\n", CHAT_VERSION);
    metrics_counters(&b, &st.counters);
    metrics_nets(&b, &st);
    gauge(&b, "sessions_peak", "most sessions at one time", st.sessions_max);
    gauge(&b, "open_connections", "connections open now, with and without hello", conns);
    gauge(&b, "mux_sessions", "of the sessions, those of chat.mux.v1", mux);
    gauge(&b, "users", "users known", st.users);
    gauge(&b, "chats", "chats known", st.chats);
    gauge(&b, "pending_requests", "requests on their way into the log", st.pending);
    metrics_store(&b, s);
    gauge(&b, "commit_index", "entries committed since the store was made", store_commit_index(s->store));
    gauge(&b, "start_time_seconds", "when this process started", s->started_us / 1000000);
    family(&b, "epoch_info", "gauge", "the store's epoch");
    buf_printf(&b, "chatd_epoch_info{epoch=\"%llu\"} 1\n", (unsigned long long)st.epoch);
    metrics_reconcile(&b, &st);
    if (s->bus)
        metrics_bus(&b, s, &st);
    if (s->shared)
        metrics_shared(&b, s, &st);
    if (s->first->trace) {
        family(&b, "trace_events_total", "counter", "trace events written");
        buf_printf(&b, "chatd_trace_events_total %llu\n", (unsigned long long)trace_emitted(s->first->trace));
        family(&b, "trace_dropped_total", "counter", "trace events lost because a ring was full");
        buf_printf(&b, "chatd_trace_dropped_total %llu\n",
                   (unsigned long long)trace_dropped(s->first->trace));
    }
    buf_printf(&b,
               "# HELP process_resident_memory_bytes memory of this process\n"
               "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %llu\n",
               (unsigned long long)resident_bytes());
    metrics_commit(&b, s->threads);
    if (b.failed)
        reply_error(conn, 503, "overloaded", "no memory for the answer");
    else
        ws_http_reply(conn, 200, "text/plain; version=0.0.4", b.data, b.len);
    buf_release(&b);
}

/* ---- history ---- */

/* The value of `name` in a query string as a number; `def` when absent; false when it is no number. */
static bool query_u64(const char *query, const char *name, uint64_t def, uint64_t *out)
{
    size_t n = strlen(name);
    *out = def;
    for (const char *p = query; p && *p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL) {
        if (strncmp(p, name, n) || p[n] != '=')
            continue;
        char *end;
        if (p[n + 1] < '0' || p[n + 1] > '9')
            return false;
        *out = strtoull(p + n + 1, &end, 10);
        return *end == 0 || *end == '&';
    }
    return true;
}

static void history(struct server *s, const struct ws_http_request *r)
{
    uint64_t after, limit, zero;
    char *end;
    const char *digits = r->path + strlen("/history/");
    uint64_t chat = strtoull(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || !query_u64(r->query, "after", 0, &after) ||
        !query_u64(r->query, "limit", 100, &limit) || !query_u64(r->query, "zero", 0, &zero) ||
        after > PROTO_SEQ_MAX) {
        reply_error(r->conn, 400, "invalid", "GET /history/CHAT?after=SEQ&limit=N");
        return;
    }
    if (strncmp(r->authorization, "Bearer ", 7) != 0) {
        reply_error(r->conn, 401, "unauthenticated", "Authorization: Bearer TOKEN is missing");
        return;
    }
    const char *token = r->authorization + 7;
    server_step(s, &(struct node_event){.kind = NODE_HISTORY,
                                        .request = ws_http_id(r->conn),
                                        .data = token,
                                        .len = strlen(token),
                                        .chat = chat,
                                        .after = zero && !after ? UINT64_MAX : after,
                                        .limit = limit < 1      ? 1
                                                 : limit > 1000 ? 1000
                                                                : (uint32_t)limit});
}

/* GET /receipts/CHAT?seq=N&after=USER&limit=N */
static void receipts(struct server *s, const struct ws_http_request *r)
{
    uint64_t seq, after, limit;
    char *end;
    const char *digits = r->path + strlen("/receipts/");
    uint64_t chat = strtoull(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || !query_u64(r->query, "seq", 0, &seq) ||
        !query_u64(r->query, "after", 0, &after) || !query_u64(r->query, "limit", 100, &limit) || !seq ||
        seq > PROTO_SEQ_MAX) {
        reply_error(r->conn, 400, "invalid", "GET /receipts/CHAT?seq=N&after=USER&limit=N");
        return;
    }
    if (strncmp(r->authorization, "Bearer ", 7) != 0) {
        reply_error(r->conn, 401, "unauthenticated", "Authorization: Bearer TOKEN is missing");
        return;
    }
    const char *token = r->authorization + 7;
    server_step(s, &(struct node_event){.kind = NODE_RECEIPTS,
                                        .request = ws_http_id(r->conn),
                                        .data = token,
                                        .len = strlen(token),
                                        .chat = chat,
                                        .seq = seq,
                                        .after = after,
                                        .limit = limit < 1 ? 1 : (uint32_t)(limit > 1000 ? 1000 : limit)});
}

static void reconcile(struct server *s, const struct ws_http_request *r)
{
    uint64_t after, limit;
    bool chats = r->path[strlen("/reconcile")] != 0;
    if (!query_u64(r->query, "after", 0, &after) || !query_u64(r->query, "limit", 1000, &limit)) {
        reply_error(r->conn, 400, "invalid", "GET /reconcile/chats?after=N&limit=N");
        return;
    }
    if (strncmp(r->authorization, "Bearer ", 7) != 0) {
        reply_error(r->conn, 401, "unauthenticated", "Authorization: Bearer TOKEN is missing");
        return;
    }
    const char *token = r->authorization + 7;
    server_step(s, &(struct node_event){.kind = NODE_RECONCILE,
                                        .request = ws_http_id(r->conn),
                                        .data = token,
                                        .len = strlen(token),
                                        .code = chats,
                                        .after = after,
                                        .limit = limit < 1 ? 1 : (uint32_t)(limit > 1000 ? 1000 : limit)});
}

/* GET /presence?users=7,8,9 */
static void presence(struct server *s, const struct ws_http_request *r)
{
    uint64_t users[NODE_PRESENCE_USERS];
    uint32_t n = 0;
    const char *p = strncmp(r->query, "users=", 6) ? "" : r->query + 6;
    char *end = NULL;
    while (*p >= '0' && *p <= '9' && n < NODE_PRESENCE_USERS) {
        users[n++] = strtoull(p, &end, 10);
        p = *end == ',' ? end + 1 : end;
    }
    if (!n || *p) {
        reply_error(r->conn, 400, "invalid", "GET /presence?users=7,8,9 (at most 256)");
        return;
    }
    if (strncmp(r->authorization, "Bearer ", 7) != 0) {
        reply_error(r->conn, 401, "unauthenticated", "Authorization: Bearer TOKEN is missing");
        return;
    }
    const char *token = r->authorization + 7;
    server_step(s, &(struct node_event){.kind = NODE_PRESENCE,
                                        .request = ws_http_id(r->conn),
                                        .data = token,
                                        .len = strlen(token),
                                        .users = users,
                                        .users_n = n});
}

/* POST /presence/USER/typing?chat=CHAT */
static void typing(struct server *s, const struct ws_http_request *r)
{
    uint64_t chat = 0, user = 0;
    char *end = NULL;
    const char *digits = r->path + strlen("/presence/");
    if (*digits >= '0' && *digits <= '9')
        user = strtoull(digits, &end, 10);
    if (!end || strcmp(end, "/typing") != 0 || !query_u64(r->query, "chat", 0, &chat) || !chat) {
        reply_error(r->conn, 400, "invalid", "POST /presence/USER/typing?chat=CHAT");
        return;
    }
    if (strncmp(r->authorization, "Bearer ", 7) != 0) {
        reply_error(r->conn, 401, "unauthenticated", "Authorization: Bearer TOKEN is missing");
        return;
    }
    const char *token = r->authorization + 7;
    server_step(s, &(struct node_event){.kind = NODE_TYPING,
                                        .request = ws_http_id(r->conn),
                                        .data = token,
                                        .len = strlen(token),
                                        .user = user,
                                        .chat = chat});
}

static void ready(struct server *s, struct ws_conn *c)
{
    if (s->draining)
        reply_text(c, 503, "text/plain", "draining\n");
    else if (store_has_room(s->store))
        reply_text(c, 503, "text/plain", "storage full\n");
    else if (ws_server_conns(s->ws) >= (s->config.conns_max + s->first->all_n - 1) / s->first->all_n)
        reply_text(c, 503, "text/plain", "at capacity\n");
    else
        reply_text(c, 200, "text/plain", "ready\n");
}

void server_http(void *arg, const struct ws_http_request *r)
{
    struct server *s = arg;
    if (!strcmp(r->method, "POST") && !strncmp(r->path, "/presence/", 10))
        typing(s, r);
    else if (strcmp(r->method, "GET") != 0)
        reply_error(r->conn, 405, "invalid", "only GET is answered here");
    else if (!strcmp(r->path, "/healthz"))
        reply_text(r->conn, 200, "text/plain", "ok\n");
    else if (!strcmp(r->path, "/readyz"))
        ready(s, r->conn);
    else if (!strcmp(r->path, "/metrics"))
        metrics(s, r->conn);
    else if (!strcmp(r->path, "/reconcile") || !strcmp(r->path, "/reconcile/chats"))
        reconcile(s, r);
    else if (!strcmp(r->path, "/presence"))
        presence(s, r);
    else if (!strncmp(r->path, "/history/", 9))
        history(s, r);
    else if (!strncmp(r->path, "/receipts/", 10))
        receipts(s, r);
    else
        reply_error(r->conn, 404, "not_found", "there is no such page");
}

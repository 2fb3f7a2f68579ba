#include "run/server_impl.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/log.h"

#define TICK_S 0.02

/* A connection as the node's `link`, or one of chat.mux.v1, which carries many. */
struct server_conn {
    struct server *server;
    struct ws_conn *ws;
    struct mux_conn *mux; /* or NULL */
    uint64_t number;
};

uint64_t server_step(struct server *s, struct node_event *e)
{
    e->now = s->now = clock_now();
    return node_step(s->node, e);
}

static void order_all(struct server *s, enum server_order order)
{
    for (uint16_t i = 0; i < s->first->all_n; i++) {
        atomic_fetch_or(&s->first->all[i]->orders, order);
        ev_async_send(s->first->all[i]->loop, &s->first->all[i]->order_bell);
    }
}

/* One loop cannot go on: none does. */
static void fail(struct server *s, int rc, const char *text)
{
    if (!s->rc)
        s->rc = err_set(s->err, rc, "%s", text);
    order_all(s, ORDER_STOP);
    ev_break(s->loop, EVBREAK_ALL);
}

/* ---- effects ---- */

static void carry_out(void *arg, const struct effect *e)
{
    struct server *s = arg;
    struct server_conn *c = e->link;
    struct mux_session *session = server_mux_session(e->link);
    switch (e->kind) {
    case EFFECT_SEND:
        if (session)
            mux_send(session, e->frame);
        else if (ws_send(c->ws, e->frame, (uint64_t)(uintptr_t)e->frame))
            ws_abort(c->ws); /* far beyond the node's own limit */
        break;
    case EFFECT_CLOSE:
        if (session)
            mux_close(session, e->code, e->text);
        else
            ws_close(c->ws, e->code, e->text);
        break;
    case EFFECT_COMMIT:
        store_threads_commit(s->threads, e->commit);
        break;
    case EFFECT_READ:
        if (store_threads_read(s->threads, e->read))
            fail(s, ERR_NOMEM, "no memory for a read");
        break;
    case EFFECT_HTTP_REPLY:
        server_http_reply(s, e->request, e->code, e->frame);
        break;
    case EFFECT_BUS:
        if (s->bus)
            bus_send(s->bus, e->to, e->data, e->len); /* what is lost is found to be missing */
        break;
    case EFFECT_SHARED:
        if (s->shared)
            shared_send(s->shared, e->order); /* what is lost is asked, or said, again */
        break;
    }
}

static void ring(void *arg)
{
    struct server *s = arg;
    ev_async_send(s->loop, &s->bell);
}

static void on_bell(struct ev_loop *loop, ev_async *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    struct commit_job *commit;
    struct read_job *read;
    while (s->node && (commit = store_threads_committed(s->threads))) {
        if (commit->rc && commit->rc != ERR_FULL) {
            /* a failed write or fsync: nobody knows what is on the disk; the reopened store decides */
            fail(s, commit->rc, commit->err.text);
            return;
        }
        if (commit->rc == ERR_FULL)
            log_warn("%s", commit->err.text);
        bool epoch = commit->begin.wanted && !commit->rc && s->first->all_n > 1;
        server_step(s, &(struct node_event){.kind = NODE_COMMITTED, .commit = commit});
        if (epoch) { /* the other loops' nodes know nothing of it: all begin anew */
            fail(s, ERR_FENCED, "the store turned out to be a copy: start again, in its new epoch");
            return;
        }
    }
    while (s->node && (read = store_threads_read_done(s->threads)))
        server_step(s, &(struct node_event){.kind = NODE_READ_DONE, .read = read});
    if (s->node && s->bus && s->first->rings)
        bus_ring_take(s->bus);
}

/* ---- connections ---- */

static void *conn_open(void *arg, struct ws_conn *ws)
{
    struct server *s = arg;
    struct server_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct server_conn){.server = s, .ws = ws};
    if (ws_protocol(ws) == WS_MUX) {
        c->mux = mux_conn_new(s->mux, ws);
        if (c->mux)
            return c;
        free(c);
        return NULL;
    }
    struct node_event e = {.kind = NODE_OPEN,
                           .link = c,
                           .offset = ws_written_offset(ws),
                           .codec = ws_protocol(ws) == WS_BIN ? PROTO_BIN : PROTO_JSON};
    ws_peer(ws, &e.flow);
    c->number = server_step(s, &e);
    if (!c->number) {
        free(c);
        return NULL;
    }
    return c;
}

static void conn_frame(void *arg, void *conn, const char *p, size_t n)
{
    struct server_conn *c = conn;
    if (c->mux) {
        server_mux_clock(c->server);
        mux_conn_frame(c->mux, p, n);
        return;
    }
    server_step(
        arg,
        &(struct node_event){
            .kind = NODE_FRAME, .conn = c->number, .data = p, .len = n, .offset = ws_read_offset(c->ws)});
}

static void conn_close(void *arg, void *conn, int code, enum reason reason)
{
    struct server_conn *c = conn;
    if (c->mux) {
        server_mux_clock(c->server);
        mux_conn_closed(c->mux, code, reason);
    } else
        server_step(arg, &(struct node_event){
                             .kind = NODE_CLOSED, .conn = c->number, .code = code, .reason = reason});
    free(c);
}

static void conn_written(void *arg, void *conn, uint64_t cookie, uint64_t end_offset, uint32_t in_frame)
{
    struct server_conn *c = conn;
    const struct server *s = arg;
    (void)in_frame; /* once for every message and recipient: no look at the clock */
    node_step(s->node, &(struct node_event){.kind = NODE_WRITTEN,
                                            .now = s->now,
                                            .conn = c->number,
                                            .frame = (struct shared_frame *)(uintptr_t)cookie,
                                            .offset = end_offset});
}

static void conn_drained(void *arg, void *conn)
{
    struct server_conn *c = conn;
    (void)arg;
    server_mux_clock(c->server);
    if (c->mux)
        mux_conn_drained(c->mux); /* of others the node counts for itself */
}

static const struct ws_server_ops ws_ops = {.open = conn_open,
                                            .frame = conn_frame,
                                            .close = conn_close,
                                            .written = conn_written,
                                            .drained = conn_drained,
                                            .http = server_http};

/* ---- time and signals ---- */

static void drain_on(struct server *s)
{
    uint64_t now = clock_mono_ns();
    if (!s->closing && (node_idle(s->node) || now >= s->drain_deadline_ns)) {
        s->closing = true;
        server_step(s, &(struct node_event){.kind = NODE_DRAIN, .code = 1});
        server_mux_clock(s);
        mux_server_close(s->mux, CLOSE_SHUTDOWN, close_code_text(CLOSE_SHUTDOWN));
    }
    if (s->closing && (!ws_server_conns(s->ws) || now >= s->drain_deadline_ns))
        ev_break(s->loop, EVBREAK_ALL);
}

/* What /metrics of another loop may see of this one. */
static void show(struct server *s)
{
    pthread_mutex_lock(&s->shown_lock);
    node_stats(s->node, &s->shown);
    if (s->shared)
        shared_redis_stats(s->shared, &s->shown_shared);
    s->shown_conns = ws_server_conns(s->ws);
    s->shown_mux = mux_server_sessions(s->mux);
    pthread_mutex_unlock(&s->shown_lock);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    server_step(s, &(struct node_event){.kind = NODE_TICK});
    if (s->first->all_n > 1)
        show(s);
    if (s->draining)
        drain_on(s);
}

static void begin_drain(struct server *s)
{
    s->draining = true;
    s->drain_deadline_ns = clock_mono_ns() + s->config.drain_ns;
    ws_server_stop_accepting(s->ws);
    server_step(s, &(struct node_event){.kind = NODE_DRAIN});
}

static void on_stop(struct ev_loop *loop, ev_signal *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    if (s->draining)
        log_warn("second signal: stopping at once");
    else
        log_info("signal %d: draining, %u connections", w->signum, ws_server_conns(s->ws));
    order_all(s, s->draining ? ORDER_STOP : ORDER_DRAIN);
}

static void on_hup(struct ev_loop *loop, ev_signal *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    struct server_config fresh = s->config;
    if (!s->config.reload || s->config.reload(s->config.arg, &fresh))
        return;
    for (uint16_t i = 0; i < s->all_n; i++) { /* the others look only when they are told */
        s->all[i]->config.limits = fresh.limits;
        s->all[i]->config.ack_timeout_ns = fresh.ack_timeout_ns;
        s->all[i]->config.idle_timeout_ns = fresh.idle_timeout_ns;
    }
    order_all(s, ORDER_RELOAD);
    log_info("configuration reloaded");
}

static void on_order(struct ev_loop *loop, ev_async *w, int events)
{
    struct server *s = w->data;
    int orders = atomic_exchange(&s->orders, 0);
    (void)events;
    if (orders & ORDER_RELOAD)
        node_reload(s->node, &s->config.limits, s->config.ack_timeout_ns, s->config.idle_timeout_ns);
    if (orders & ORDER_DRAIN && !s->draining)
        begin_drain(s);
    if (orders & ORDER_STOP)
        ev_break(loop, EVBREAK_ALL);
}

static void watch(struct server *s)
{
    ev_async_init(&s->bell, on_bell);
    ev_async_init(&s->order_bell, on_order);
    ev_timer_init(&s->tick, on_tick, TICK_S, TICK_S);
    ev_signal_init(&s->on_term, on_stop, SIGTERM);
    ev_signal_init(&s->on_int, on_stop, SIGINT);
    ev_signal_init(&s->on_hup, on_hup, SIGHUP);
    s->bell.data = s->order_bell.data = s->tick.data = s->on_term.data = s->on_int.data = s->on_hup.data = s;
    ev_async_start(s->loop, &s->bell);
    ev_async_start(s->loop, &s->order_bell);
    ev_timer_start(s->loop, &s->tick);
    if (s != s->first)
        return; /* signals are heard by one */
    ev_signal_start(s->loop, &s->on_term);
    ev_signal_start(s->loop, &s->on_int);
    ev_signal_start(s->loop, &s->on_hup);
}

static void unwatch(struct server *s)
{
    ev_async_stop(s->loop, &s->bell);
    ev_async_stop(s->loop, &s->order_bell);
    ev_timer_stop(s->loop, &s->tick);
    if (s != s->first)
        return;
    ev_signal_stop(s->loop, &s->on_term);
    ev_signal_stop(s->loop, &s->on_int);
    ev_signal_stop(s->loop, &s->on_hup);
}

/* ---- start and stop ---- */

/* What all loops share. */
static int open_shared(struct server *s)
{
    const struct server_config *c = &s->config;
    int rc = keys_open(&s->keys, c->keys_dir, true, s->err);
    if (rc)
        return rc;
    if (c->trace_dir) {
        struct trace_config tc = {.dir = c->trace_dir,
                                  .name = "server",
                                  .node = (uint16_t)(TRACE_NODE_SERVER + c->self),
                                  .seed = c->seed,
                                  .sample = c->trace_sample};
        if ((rc = trace_open(&s->trace, &tc, s->err)))
            return rc;
    }
    uint64_t random;
    char mark_dir[4096];
    if ((rc = server_mark_dir(s, mark_dir, sizeof mark_dir, s->err)))
        return rc;
    crypto_random(&random, sizeof random);
    struct store_config sc = {.url = c->store_url,
                              .keys_dir = strncmp(c->store_url, "mem:", 4) ? mark_dir : NULL,
                              .now_us = clock_wall_us(),
                              .random = random,
                              .reserve_bytes = c->reserve_bytes};
    rc = store_open(&s->store, &sc, s->err);
    return rc || s->all_n == 1 ? rc : bus_rings_new(&s->rings, s->all_n, s->err);
}

static int open_node(struct server *s)
{
    const struct server_config *c = &s->config;
    struct server *first = s->first;
    uint64_t random;
    int rc = first->trace ? trace_writer_new(&s->writer, first->trace, s->err) : 0;
    if (rc)
        return rc;
    if (s == first)
        trace_emit(s->writer, &(struct trace_event){.hop = HOP_SERVER_START, .arg = (uint64_t)getpid()});
    crypto_random(&random, sizeof random);
    s->store = first->store;
    s->keys = first->keys;
    struct node_config nc = {.place = {.self = c->self, .nodes = c->nodes},
                             .features = c->features,
                             .sequential_ns = c->sequential_ns,
                             .limits = c->limits,
                             .ack_timeout_ns = c->features & DELIVERY_ACK ? c->ack_timeout_ns : 0,
                             .idle_timeout_ns = c->features & DELIVERY_ACK ? c->idle_timeout_ns : 0,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .recover_for_ns = c->recover_for_ns,
                             .beat_s = c->beat_s,
                             .presence_legacy = c->presence_legacy,
                             .presence_shared = c->presence_url != NULL,
                             .presence_only = c->presence_only,
                             .keys = &s->keys,
                             .seed = c->seed ? c->seed : random,
                             .epoch = store_epoch(s->store),
                             .conn_base = (clock_wall_us() / 1000000 * first->all_n + s->index) % 4095 + 1,
                             .trace = s->writer,
                             .emit = carry_out,
                             .arg = s};
    nc.conn_base <<= 20;
    if (first->all_n > 1)
        nc.place = (struct node_place){.self = s->index, .nodes = first->all_n, .shared_store = true};
    if ((rc = node_new(&s->node, &nc, s->err)) || (rc = node_load(s->node, s->store, s->err)))
        return rc;
    rc = s == first ? store_threads_start(&s->threads, s->store, ring, s, s->err)
                    : store_threads_join(&s->threads, first->threads, ring, s, s->err);
    rc = rc ? rc : server_bus_open(s);
    return rc ? rc : server_shared_open(s);
}

/* Where the first one listens, with the port it was given. */
static int listen_on(struct server *s)
{
    char address[300];
    const char *text = s->config.listen, *colon = strrchr(text, ':');
    snprintf(address, sizeof address, "%.*s:%d", (int)(colon ? colon - text : 0), text,
             s == s->first ? 0 : ws_server_port(s->first->ws));
    /* The last resort, for peers that do not read: sessions have their own limits, far below. A chat.mux.v1
     * connection may owe its peer a control record for each of millions of sessions that end at once. */
    struct ws_server_config wc = {.loop = s->loop,
                                  .share = s->first->all_n > 1,
                                  .listen = s == s->first || !colon ? text : address,
                                  .conns_max = (s->config.conns_max + s->first->all_n - 1) / s->first->all_n,
                                  .frame_max = 1u << 20,
                                  .queue_bytes_max = s->config.limits.queue_bytes * 4u + (64u << 20),
                                  .queue_msgs_max = 1u << 20,
                                  .frame_objects_max = s->config.coalesce_max,
                                  .no_offsets = !s->config.trace_dir,
                                  .ops = &ws_ops,
                                  .arg = s};
    return ws_server_new(&s->ws, &wc, s->err);
}

/* Sockets first, then what all share when no thread runs any more, then nodes. */
static void close_all(struct server *first)
{
    struct err_ctx err = {0};
    for (uint16_t i = 0; i < first->all_n; i++) {
        struct server *s = first->all[i];
        server_bus_close(s);
        server_shared_close(s);
        if (s->ws)
            ws_server_free(s->ws);
        server_mux_stop(s);
    }
    store_threads_stop(first->threads);
    for (uint16_t i = 0; i < first->all_n; i++) {
        struct server *s = first->all[i];
        if (s->node)
            node_free(s->node);
        s->node = NULL;
        if (!first->rc && s->rc)
            first->rc = s == first ? s->rc : err_set(first->err, s->rc, "%s", s->err->text);
    }
    bus_rings_free(first->rings);
    if (first->store && store_close(first->store, &err)) {
        log_error("%s", err.text);
        if (!first->rc)
            first->rc = err_set(first->err, err.code, "%s", err.text);
    }
    if (first->writer && !first->rc)
        trace_emit(first->writer, &(struct trace_event){.hop = HOP_SERVER_STOP, .arg = (uint64_t)getpid()});
    if (trace_close(first->trace))
        log_warn("trace: some events could not be written to %s", first->config.trace_dir);
    for (uint16_t i = 0; i < first->all_n; i++) {
        keys_wipe(&first->all[i]->keys);
        if (first->all[i]->loop)
            ev_loop_destroy(first->all[i]->loop);
    }
}

static int open_loop(struct server *s)
{
    s->loop = ev_loop_new(EVFLAG_AUTO);
    if (!s->loop)
        return err_set(s->err, ERR_LIMIT, "cannot make an event loop: %s", strerror(errno));
    pthread_mutex_init(&s->shown_lock, NULL);
    watch(s);
    return server_mux_start(s);
}

static void *loop_main(void *arg)
{
    struct server *s = arg;
    ev_run(s->loop, 0);
    return NULL;
}

static void run_all(struct server *first)
{
    uint16_t running = 1;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* the first loop hears signals */
    while (running < first->all_n &&
           !pthread_create(&first->all[running]->thread, NULL, loop_main, first->all[running]))
        running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (running < first->all_n)
        fail(first, ERR_LIMIT, "cannot start a thread");
    else if (first->config.ready)
        first->config.ready(first->config.arg, ws_server_port(first->ws));
    if (!first->rc)
        ev_run(first->loop, 0);
    for (uint16_t i = 1; i < running; i++)
        pthread_join(first->all[i]->thread, NULL);
}

int server_run(const struct server_config *c, struct err_ctx *ctx)
{
    uint16_t n = c->threads > 1 ? c->threads : 1;
    struct server *list = calloc(n, sizeof *list), **all = calloc(n, sizeof *all);
    struct err_ctx *errors = calloc(n, sizeof *errors);
    int rc = list && all && errors ? 0 : err_set(ctx, ERR_NOMEM, "no memory for the server");
    /* glibc raises this bound to what was freed last, and then keeps what RocksDB's memtables (blocks of
     * 1 MiB) give back: 50 MiB of nothing. */
    mallopt(M_MMAP_THRESHOLD, 512 << 10);
    clock_shift_wall(c->clock_shift_us);
    signal(SIGPIPE, SIG_IGN);
    for (uint16_t i = 0; i < n && !rc; i++) {
        all[i] = &list[i];
        list[i] = (struct server){
            .config = *c, .first = list, .all = all, .all_n = n, .index = i, .err = i ? &errors[i] : ctx};
        list[i].started_us = clock_wall_us();
    }
    for (uint16_t i = 0; i < n && !rc; i++)
        rc = open_loop(&list[i]);
    /* first: an address in use must not touch the store; nothing is accepted until the loop runs */
    rc = rc ? rc : listen_on(list);
    rc = rc ? rc : open_shared(list);
    for (uint16_t i = 0; i < n && !rc; i++)
        rc = open_node(&list[i]);
    for (uint16_t i = 1; i < n && !rc; i++)
        rc = listen_on(&list[i]);
    for (uint16_t i = 1; i < n && rc && !ctx->text[0]; i++)
        *ctx = errors[i];
    if (list && all && errors) {
        list->rc = rc;
        if (!rc)
            run_all(list);
        for (uint16_t i = 0; i < n; i++)
            if (list[i].loop)
                unwatch(&list[i]);
        close_all(list);
        rc = list->rc;
    }
    free(list);
    free(all);
    free(errors);
    return rc;
}

void server_stats(struct server *s, struct node_stats *out, uint32_t *conns, uint32_t *mux)
{
    node_stats(s->node, out);
    *conns = ws_server_conns(s->ws);
    *mux = mux_server_sessions(s->mux);
    for (uint16_t i = 0; i < s->first->all_n; i++) {
        struct server *o = s->first->all[i];
        if (o == s)
            continue;
        pthread_mutex_lock(&o->shown_lock);
        node_stats_add(out, &o->shown);
        *conns += o->shown_conns;
        *mux += o->shown_mux;
        pthread_mutex_unlock(&o->shown_lock);
    }
}

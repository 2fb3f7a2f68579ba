#include "run/server_impl.h"

#include <errno.h>
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
    e->now = clock_now();
    return node_step(s->node, e);
}

static void fail(struct server *s, int rc, const char *text)
{
    if (!s->rc)
        s->rc = err_set(s->err, rc, "%s", text);
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
        server_step(s, &(struct node_event){.kind = NODE_COMMITTED, .commit = commit});
    }
    while (s->node && (read = store_threads_read_done(s->threads)))
        server_step(s, &(struct node_event){.kind = NODE_READ_DONE, .read = read});
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
    (void)in_frame;
    server_step(arg, &(struct node_event){.kind = NODE_WRITTEN,
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

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    server_step(s, &(struct node_event){.kind = NODE_TICK});
    if (s->draining)
        drain_on(s);
}

static void on_stop(struct ev_loop *loop, ev_signal *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    if (s->draining) {
        log_warn("second signal: stopping at once");
        ev_break(s->loop, EVBREAK_ALL);
        return;
    }
    log_info("signal %d: draining, %u connections", w->signum, ws_server_conns(s->ws));
    s->draining = true;
    s->drain_deadline_ns = clock_mono_ns() + s->config.drain_ns;
    ws_server_stop_accepting(s->ws);
    server_step(s, &(struct node_event){.kind = NODE_DRAIN});
}

static void on_hup(struct ev_loop *loop, ev_signal *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    struct server_config fresh = s->config;
    if (!s->config.reload || s->config.reload(s->config.arg, &fresh))
        return;
    s->config = fresh;
    node_reload(s->node, &fresh.limits, fresh.ack_timeout_ns, fresh.idle_timeout_ns);
    log_info("configuration reloaded");
}

static void watch(struct server *s)
{
    ev_async_init(&s->bell, on_bell);
    ev_timer_init(&s->tick, on_tick, TICK_S, TICK_S);
    ev_signal_init(&s->on_term, on_stop, SIGTERM);
    ev_signal_init(&s->on_int, on_stop, SIGINT);
    ev_signal_init(&s->on_hup, on_hup, SIGHUP);
    s->bell.data = s->tick.data = s->on_term.data = s->on_int.data = s->on_hup.data = s;
    ev_async_start(s->loop, &s->bell);
    ev_timer_start(s->loop, &s->tick);
    ev_signal_start(s->loop, &s->on_term);
    ev_signal_start(s->loop, &s->on_int);
    ev_signal_start(s->loop, &s->on_hup);
}

static void unwatch(struct server *s)
{
    ev_async_stop(s->loop, &s->bell);
    ev_timer_stop(s->loop, &s->tick);
    ev_signal_stop(s->loop, &s->on_term);
    ev_signal_stop(s->loop, &s->on_int);
    ev_signal_stop(s->loop, &s->on_hup);
}

/* ---- start and stop ---- */

static int open_all(struct server *s)
{
    const struct server_config *c = &s->config;
    int rc = keys_open(&s->keys, c->keys_dir, true, s->err);
    if (rc)
        return rc;
    if (c->trace_dir) {
        struct trace_config tc = {.dir = c->trace_dir,
                                  .name = "server",
                                  .node = TRACE_NODE_SERVER,
                                  .seed = c->seed,
                                  .sample = c->trace_sample};
        if ((rc = trace_open(&s->trace, &tc, s->err)) ||
            (rc = trace_writer_new(&s->writer, s->trace, s->err)))
            return rc;
        trace_emit(s->writer, &(struct trace_event){.hop = HOP_SERVER_START, .arg = (uint64_t)getpid()});
    }
    uint64_t random;
    crypto_random(&random, sizeof random);
    struct store_config sc = {.url = c->store_url,
                              .keys_dir = strncmp(c->store_url, "mem:", 4) ? c->keys_dir : NULL,
                              .now_us = clock_wall_us(),
                              .random = random,
                              .reserve_bytes = c->reserve_bytes};
    if ((rc = store_open(&s->store, &sc, s->err)))
        return rc;
    struct node_config nc = {.features = c->features,
                             .limits = c->limits,
                             .ack_timeout_ns = c->features & DELIVERY_ACK ? c->ack_timeout_ns : 0,
                             .idle_timeout_ns = c->features & DELIVERY_ACK ? c->idle_timeout_ns : 0,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .recover_for_ns = c->recover_for_ns,
                             .beat_s = c->beat_s,
                             .keys = &s->keys,
                             .seed = c->seed ? c->seed : random,
                             .epoch = store_epoch(s->store),
                             .conn_base = (clock_wall_us() / 1000000 % 4095 + 1) << 20,
                             .trace = s->writer,
                             .emit = carry_out,
                             .arg = s};
    if ((rc = node_new(&s->node, &nc, s->err)) || (rc = node_load(s->node, s->store, s->err)))
        return rc;
    return store_threads_start(&s->threads, s->store, ring, s, s->err);
}

static int listen_on(struct server *s)
{
    /* The last resort, for peers that do not read: sessions have their own limits, far below. A chat.mux.v1
     * connection may owe its peer a control record for each of millions of sessions that end at once. */
    struct ws_server_config wc = {.loop = s->loop,
                                  .listen = s->config.listen,
                                  .conns_max = s->config.conns_max,
                                  .frame_max = 1u << 20,
                                  .queue_bytes_max = s->config.limits.queue_bytes * 4u + (64u << 20),
                                  .queue_msgs_max = 1u << 20,
                                  .ops = &ws_ops,
                                  .arg = s};
    return ws_server_new(&s->ws, &wc, s->err);
}

static void close_all(struct server *s)
{
    struct err_ctx err = {0};
    if (s->ws)
        ws_server_free(s->ws);
    server_mux_stop(s);
    store_threads_stop(s->threads);
    if (s->node)
        node_free(s->node);
    s->node = NULL;
    if (s->store && store_close(s->store, &err)) {
        log_error("%s", err.text);
        if (!s->rc)
            s->rc = err_set(s->err, err.code, "%s", err.text);
    }
    if (s->writer && !s->rc)
        trace_emit(s->writer, &(struct trace_event){.hop = HOP_SERVER_STOP, .arg = (uint64_t)getpid()});
    if (trace_close(s->trace))
        log_warn("trace: some events could not be written to %s", s->config.trace_dir);
    keys_wipe(&s->keys);
}

int server_run(const struct server_config *c, struct err_ctx *ctx)
{
    struct server s = {.config = *c, .err = ctx, .started_us = clock_wall_us()};
    clock_shift_wall(c->clock_shift_us);
    signal(SIGPIPE, SIG_IGN);
    s.loop = ev_loop_new(EVFLAG_AUTO);
    if (!s.loop)
        return err_set(ctx, ERR_LIMIT, "cannot make an event loop: %s", strerror(errno));
    s.rc = server_mux_start(&s);
    if (!s.rc)
        s.rc = listen_on(&s); /* first: an address in use must not touch the store; nothing is accepted until
                                 the loop runs */
    if (!s.rc)
        s.rc = open_all(&s);
    if (!s.rc) {
        watch(&s);
        if (c->ready)
            c->ready(c->arg, ws_server_port(s.ws));
        ev_run(s.loop, 0);
        unwatch(&s);
    }
    close_all(&s);
    ev_loop_destroy(s.loop);
    return s.rc;
}

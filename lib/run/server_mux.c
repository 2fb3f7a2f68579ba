/* chat.mux.v1 at the node: its sessions are connections like any other. */
#include "run/server_impl.h"

#include "util/log.h"

/* A mux session as the node's `link`: told from a struct server_conn by the lowest bit. */
static void *link_of(struct mux_session *s)
{
    return (void *)((uintptr_t)s | 1);
}

#define STEPS_A_CLOCK 32 /* some 30 us of work: a record needs no clock of its own */

void server_mux_clock(struct server *s)
{
    s->mux_now = clock_now();
    s->mux_steps = 0;
}

static uint64_t step(struct server *s, struct node_event *e)
{
    if (++s->mux_steps >= STEPS_A_CLOCK)
        server_mux_clock(s);
    e->now = s->mux_now;
    return node_step(s->node, e);
}

static void mux_soon(void *arg, uint64_t conn)
{
    struct server *s = arg;
    node_fetch(s->node, conn);
}

static int mux_authenticate(void *arg, const char *text, size_t n, uint64_t *expires_s)
{
    struct server *s = arg;
    struct token token;
    struct err_ctx err = {0};
    int rc = token_verify(&s->keys, text, n, clock_wall_us() / 1000000, &token, &err);
    if (!rc && token.role != ROLE_OPERATOR)
        rc = err_set(&err, ERR_INVALID, "the token's role is not operator");
    *expires_s = rc ? 0 : token.expires_s;
    if (rc)
        log_info("a chat.mux.v1 connection was refused: %s", err.text);
    return !rc ? 0 : rc == ERR_TIMEOUT ? CLOSE_TOKEN_EXPIRED : CLOSE_BAD_TOKEN;
}

static uint64_t mux_opened(void *arg, struct mux_session *session, uint64_t user, uint64_t expires_s,
                           const struct trace_flow *flow)
{
    return step(arg, &(struct node_event){.kind = NODE_OPEN,
                                          .link = link_of(session),
                                          .flow = *flow,
                                          .codec = PROTO_BIN,
                                          .user = user,
                                          .expires_s = expires_s});
}

static void mux_data(void *arg, uint64_t conn, const char *p, size_t n, uint64_t offset)
{
    step(arg, &(struct node_event){.kind = NODE_FRAME, .conn = conn, .data = p, .len = n, .offset = offset});
}

static void mux_beats(void *arg, const uint64_t *conns, size_t n)
{
    step(arg, &(struct node_event){.kind = NODE_BEATS, .conns = conns, .len = n});
}

static void mux_written(void *arg, uint64_t conn, struct shared_frame *f, uint64_t offset)
{
    step(arg, &(struct node_event){.kind = NODE_WRITTEN, .conn = conn, .frame = f, .offset = offset});
}

static void mux_closed(void *arg, uint64_t conn, int code, enum reason reason)
{
    step(arg, &(struct node_event){.kind = NODE_CLOSED, .conn = conn, .code = code, .reason = reason});
}

static const struct mux_server_ops ops = {.authenticate = mux_authenticate,
                                          .open = mux_opened,
                                          .data = mux_data,
                                          .beats = mux_beats,
                                          .written = mux_written,
                                          .closed = mux_closed,
                                          .soon = mux_soon};

static void on_turn(struct ev_loop *loop, ev_prepare *w, int events)
{
    struct server *s = w->data;
    (void)loop;
    (void)events;
    server_mux_clock(s);
    if (s->node)
        mux_turn(s->mux);
}

int server_mux_start(struct server *s)
{
    struct mux_server_config c = {.sessions_max = MUX_SESSIONS_MAX, .ops = &ops, .arg = s};
    int rc = mux_server_new(&s->mux, &c, s->err);
    if (rc)
        return rc;
    ev_prepare_init(&s->mux_turn, on_turn);
    ev_set_priority(&s->mux_turn, 1); /* before the sockets' turn, for which it makes blocks */
    s->mux_turn.data = s;
    ev_prepare_start(s->loop, &s->mux_turn);
    return 0;
}

void server_mux_stop(struct server *s)
{
    if (s->mux)
        ev_prepare_stop(s->loop, &s->mux_turn);
    mux_server_free(s->mux);
    s->mux = NULL;
}

#include "transport/mux_client.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES (64u * 1024)
#define QUEUE_BYTES   (256u << 20)

struct mux_client {
    struct ws_client *ws; /* NULL: over */
    const struct mux_client_ops *ops;
    void *arg;
    struct buf out;
    uint32_t opens;
    uint16_t port;
    char token[];
};

static void on_open(void *arg)
{
    struct mux_client *c = arg;
    struct trace_flow flow;
    ws_client_flow(c->ws, &flow);
    c->port = flow.sport;
    mux_put(&c->out, 0, MUX_OPEN, c->token, strlen(c->token));
    mux_client_flush(c);
}

/* Names the session of the record at *p; what is wrong with it is found when its turn comes. */
static void look_ahead(const struct mux_client *c, const char **p, const char *end)
{
    struct mux_record r;
    if (c->ops->soon && mux_next(p, end, &r) == 1 && r.op == MUX_DATA)
        c->ops->soon(c->arg, r.session);
}

static void on_frame(void *arg, const char *p, size_t n)
{
    struct mux_client *c = arg;
    struct mux_record r;
    const char *end = p + n, *ahead = p;
    int rc = 0;
    for (int i = 0; i < MUX_AHEAD; i++)
        look_ahead(c, &ahead, end);
    while (c->ws && (rc = mux_next(&p, end, &r)) == 1) {
        look_ahead(c, &ahead, end);
        if (r.op == MUX_DATA)
            c->ops->data(c->arg, r.session, r.payload, r.len);
        else if (r.op == MUX_OPEN && !r.session)
            c->ops->ready(c->arg, (uint32_t)mux_get(r.payload, 4));
        else if (r.op == MUX_CLOSE)
            c->ops->closed(c->arg, r.session, (int)mux_get(r.payload, 2));
        else
            rc = ERR_INVALID;
        if (rc < 0)
            break;
    }
    if (rc < 0 && c->ws)
        ws_client_close(c->ws, 1002);
}

static void on_close(void *arg, int code, enum reason reason, int sys_errno)
{
    struct mux_client *c = arg;
    (void)sys_errno;
    c->ws = NULL;
    c->ops->over(c->arg, code, reason);
}

int mux_client_new(struct mux_client **out, const struct mux_client_config *conf, struct err_ctx *ctx)
{
    static const struct ws_client_ops ops = {on_open, on_frame, on_close};
    size_t n = strlen(conf->token) + 1;
    struct mux_client *c = calloc(1, sizeof *c + n);
    *out = NULL;
    if (!c)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    c->ops = conf->ops;
    c->arg = conf->arg;
    memcpy(c->token, conf->token, n);
    buf_init(&c->out, QUEUE_BYTES);
    struct ws_client_config wc = {.loop = conf->loop,
                                  .server_ip = conf->server_ip,
                                  .source_ip = conf->source_ip,
                                  .server_port = conf->server_port,
                                  .path = conf->path,
                                  .subprotocol = MUX_SUBPROTOCOL,
                                  .queue_bytes_max = QUEUE_BYTES,
                                  .binary = true,
                                  .frame_max = 4u << 20,
                                  .rng = conf->rng,
                                  .ops = &ops,
                                  .arg = c};
    int rc = ws_client_new(&c->ws, &wc, ctx);
    if (rc) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void mux_client_free(struct mux_client *c)
{
    if (!c)
        return;
    ws_client_free(c->ws);
    buf_release(&c->out);
    free(c);
}

static void put(struct mux_client *c, uint32_t session, enum mux_op op, const void *p, size_t n)
{
    if (c->out.len + MUX_HEADER + n > MESSAGE_BYTES)
        mux_client_flush(c);
    mux_put(&c->out, session, op, p, n);
}

void mux_client_open(struct mux_client *c, uint32_t session, uint64_t user)
{
    char p[8];
    mux_set(p, user, 8);
    c->opens++;
    put(c, session, MUX_OPEN, p, sizeof p);
}

void mux_client_data(struct mux_client *c, uint32_t session, const void *p, size_t n)
{
    put(c, session, MUX_DATA, p, n);
}

void mux_client_credit(struct mux_client *c, uint32_t session, uint32_t bytes)
{
    char p[4];
    mux_set(p, bytes, 4);
    put(c, session, MUX_CREDIT, p, sizeof p);
}

void mux_client_cut(struct mux_client *c, uint32_t session, uint64_t bytes)
{
    char p[8];
    mux_set(p, bytes, 8);
    put(c, session, MUX_CUT, p, sizeof p);
}

void mux_client_close(struct mux_client *c, uint32_t session, int code)
{
    char p[2];
    mux_set(p, (uint64_t)code, 2);
    put(c, session, MUX_CLOSE, p, sizeof p);
}

void mux_client_beats(struct mux_client *c, uint32_t first, const uint8_t *bitmap, size_t n)
{
    put(c, first, MUX_BEATS, bitmap, n);
}

bool mux_client_flush(struct mux_client *c)
{
    if (!c->ws || !c->out.len)
        return c->ws != NULL;
    if (c->out.failed || ws_client_send(c->ws, c->out.data, c->out.len, NULL))
        return false;
    buf_reset(&c->out);
    return true;
}

size_t mux_client_queued(const struct mux_client *c)
{
    return c->out.len + (c->ws ? ws_client_queued(c->ws) : 0);
}

uint16_t mux_client_port(const struct mux_client *c)
{
    return c->port;
}

uint32_t mux_client_opens(const struct mux_client *c)
{
    return c->opens;
}

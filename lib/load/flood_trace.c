/* The records of the phones in the sample: the same that lib/load's phones leave. */
#include <stdlib.h>
#include <string.h>

#include "load/flood_impl.h"

static uint64_t block_of(const struct flood *f, uint32_t i)
{
    return (f->cfg.first_user + i) / TRACE_BLOCK - f->cfg.first_user / TRACE_BLOCK;
}

int flood_trace_init(struct flood *f, struct err_ctx *ctx)
{
    if (!f->cfg.trace)
        return 0;
    uint64_t blocks = block_of(f, f->cfg.phones - 1) + 1;
    f->traced_first = calloc(blocks, sizeof *f->traced_first);
    for (uint32_t i = 0; f->traced_first && i < f->cfg.phones; i++) {
        f->phones[i].traced = trace_wants(f->cfg.trace, f->cfg.first_user + i);
        if (!f->phones[i].traced)
            continue;
        uint32_t *first = &f->traced_first[block_of(f, i)];
        *first = *first ? *first : f->traced_n + 1;
        f->traced_n++;
    }
    f->traced = calloc(f->traced_n ? f->traced_n : 1, sizeof *f->traced);
    return f->traced_first && f->traced ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
}

void flood_trace_release(struct flood *f)
{
    free(f->traced_first);
    free(f->traced);
}

static struct flood_trace *of(struct flood *f, uint32_t i)
{
    uint64_t block = block_of(f, i), user = f->cfg.first_user + i;
    uint64_t from = user / TRACE_BLOCK * TRACE_BLOCK;
    from = from > f->cfg.first_user ? from : f->cfg.first_user;
    return &f->traced[f->traced_first[block] - 1 + (user - from)];
}

static void emit(struct flood *f, uint32_t i, bool lane, struct trace_event e)
{
    struct flood_trace *t = of(f, i);
    e.user = f->cfg.first_user + i;
    e.device = f->phones[i].client.device;
    if (lane && t->lane.conn)
        trace_lane_emit(f->cfg.trace, &t->lane, &e);
    else if (!lane)
        trace_emit(f->cfg.trace, &e);
}

void flood_trace_opened(struct flood *f, uint32_t i)
{
    struct trace_flow flow;
    if (!f->phones[i].traced)
        return;
    *of(f, i) = (struct flood_trace){.lane = {.conn = ++f->conns, .net = (uint8_t)f->client.net}};
    f->cfg.world.flow(f->cfg.world.arg, i, &flow);
    struct trace_event open = {.hop = HOP_SOCKET_OPEN, .reason = (uint8_t)f->client.net};
    memcpy(&open.id, &flow, sizeof open.id);
    emit(f, i, true, open);
}

void flood_trace_over(struct flood *f, uint32_t i, enum reason reason, int code)
{
    if (!f->phones[i].traced)
        return;
    emit(f, i, true,
         (struct trace_event){.hop = HOP_SOCKET_CLOSE, .reason = (uint8_t)reason, .arg = (uint64_t)code});
    of(f, i)->lane = (struct trace_lane){0};
}

void flood_trace_sent(struct flood *f, uint32_t i, const struct client_effect *e, size_t bytes)
{
    if (!f->phones[i].traced)
        return;
    uint32_t end = of(f, i)->sent += (uint32_t)bytes;
    if (!e)
        return;
    const struct msg *m = e->m;
    if (m->t == MSG_SEND)
        emit(f, i, true,
             (struct trace_event){
                 .hop = HOP_CLIENT_SEND, .id = m->id, .chat = m->chat, .attempt = e->attempt, .arg = end});
    else if (m->t == MSG_ACK)
        emit(f, i, true, (struct trace_event){.hop = HOP_CLIENT_ACK, .chat = m->chat, .arg = m->seq});
}

void flood_trace_read(struct flood *f, uint32_t i, size_t bytes)
{
    if (f->phones[i].traced)
        emit(f, i, true,
             (struct trace_event){.hop = HOP_SOCKET_READ, .arg = of(f, i)->read += (uint32_t)bytes});
}

void flood_trace_effect(struct flood *f, uint32_t i, const struct client_effect *e)
{
    if (!f->phones[i].traced)
        return;
    struct trace_event x = {.id = e->id, .chat = e->chat};
    bool lane = true;
    switch (e->type) {
    case CLIENT_SUBMITTED:
        x.hop = HOP_CLIENT_SUBMIT;
        x.arg = e->intent;
        x.flags = TRACE_FLAG_OUTBOX;
        lane = false;
        break;
    case CLIENT_GAVE_UP:
        x.hop = HOP_CLIENT_GIVE_UP;
        x.reason = (uint8_t)e->reason;
        x.arg = e->attempt;
        lane = false;
        break;
    case CLIENT_ACCEPTED:
        x.hop = HOP_CLIENT_ACCEPTED;
        x.arg = e->seq;
        x.attempt = e->attempt;
        break;
    case CLIENT_RECEIVED:
    case CLIENT_DUPLICATE:
    case CLIENT_SURFACE:
        x.hop = e->type == CLIENT_RECEIVED    ? HOP_CLIENT_RECEIVE
                : e->type == CLIENT_DUPLICATE ? HOP_CLIENT_DUPLICATE
                                              : HOP_CLIENT_SURFACE;
        if (e->type == CLIENT_SURFACE && e->m->from == f->cfg.first_user + i)
            return; /* an own message that came back with the log */
        x.id = e->m->id;
        x.chat = e->m->chat;
        x.arg = e->m->seq;
        x.reason = (uint8_t)e->reason;
        break;
    default:
        return;
    }
    emit(f, i, lane, x);
}

void flood_trace_end(struct flood *f)
{
    for (uint32_t i = 0; f->traced_n && i < f->cfg.phones; i++)
        if (f->phones[i].traced && of(f, i)->lane.conn)
            flood_trace_over(f, i, REASON_RUN_END, 0);
}

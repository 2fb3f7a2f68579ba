/* Connections: frames on their way, references, the stream's deadlines. */
#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"

static void on_event(void *arg, struct stream *st, enum stream_side side, enum stream_event e)
{
    struct load_socket *c = arg;
    (void)st;
    if (side == STREAM_PHONE)
        phones_event(c, e);
    else
        server_event(c, e);
}

static bool on_accept(void *arg, struct stream *st)
{
    (void)st;
    return server_listens(((struct load_socket *)arg)->server);
}

static const struct stream_ops ops = {.packet = net_packet, .event = on_event, .accept = on_accept};

struct load_socket *conn_new(struct sim *s, uint32_t source)
{
    struct load_socket *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->sim = s;
    c->server = &s->servers[s->nodes > 1 ? rng_below(&s->rng, s->nodes) : 0];
    c->source = source;
    c->radio = source ? net_radio_of(s, source) : NULL;
    s->conns_made++;
    c->port = (uint16_t)(32768 + s->conns_made % 28000);
    c->isn[0] = (uint32_t)hash_bytes(&s->conns_made, sizeof s->conns_made, s->s->seed);
    c->isn[1] = (uint32_t)hash_bytes(&s->conns_made, sizeof s->conns_made, ~s->s->seed);
    stream_init(&c->stream, &ops, c);
    c->next = s->conns;
    if (s->conns)
        s->conns->prev = c;
    s->conns = c;
    return c;
}

struct sim_frame *frame_new(size_t bytes)
{
    struct sim_frame *f = malloc(offsetof(struct sim_frame, data) + (bytes ? bytes : 1));
    BUG_ON(!f); /* a simulation without memory has nothing to say */
    f->next = NULL;
    f->code = 0;
    return f;
}

void queue_push(struct sim_queue *q, struct sim_frame *f)
{
    if (q->last)
        q->last->next = f;
    else
        q->first = f;
    q->last = f;
}

struct sim_frame *queue_pop(struct sim_queue *q, uint64_t received)
{
    struct sim_frame *f = q->first;
    if (!f || f->end > received)
        return NULL;
    q->first = f->next;
    if (!q->first)
        q->last = NULL;
    return f;
}

void frame_free(struct sim_frame *f, bool objects)
{
    for (uint32_t i = 0; objects && i < f->n; i++)
        shared_frame_unref(f->object[i]);
    free(f);
}

static void queue_clear(struct sim_queue *q, bool objects)
{
    struct sim_frame *f;
    while ((f = queue_pop(q, UINT64_MAX)))
        frame_free(f, objects);
}

void conn_drop_server(struct load_socket *c)
{
    c->number = 0;
    while (c->pending_n) {
        shared_frame_unref(c->pending[c->pending_first++]);
        c->pending_n--;
    }
    free(c->pending);
    c->pending = NULL;
    c->pending_first = c->pending_cap = 0;
    queue_clear(&c->up, false);
}

static void conn_free(struct load_socket *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->sim->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    conn_drop_server(c);
    queue_clear(&c->down, true);
    free(c);
}

void conn_unref(struct load_socket *c)
{
    BUG_ON(!c->refs);
    if (--c->refs == 0 && !c->phone && !c->number && !c->dirty && stream_over(&c->stream))
        conn_free(c);
}

void conn_free_all(struct sim *s)
{
    while (s->conns)
        conn_free(s->conns);
}

/* Plan the deadlines of both ends. An event that is not the earliest planned one of its end is stale. */
void conn_arm(struct load_socket *c)
{
    for (uint32_t side = 0; side < 2; side++) {
        uint64_t due = stream_due(&c->stream, (enum stream_side)side);
        if (!due || (c->timer_ns[side] && c->timer_ns[side] <= due))
            continue;
        c->timer_ns[side] = due;
        c->refs++;
        sim_plan(c->sim, due, SIM_TIMER, c, side);
    }
}

void conn_timer(struct load_socket *c, uint32_t side, uint64_t at_ns)
{
    if (c->timer_ns[side] != at_ns)
        return;
    c->timer_ns[side] = 0;
    uint64_t due = stream_due(&c->stream, (enum stream_side)side);
    if (due && due <= at_ns)
        stream_timer(&c->stream, (enum stream_side)side, at_ns);
    conn_arm(c);
}

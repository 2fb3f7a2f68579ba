#include "netem/proxy/queue_impl.h"

#include <stdlib.h>
#include <string.h>

#define QUEUE_CAP_MIN 4096

void queue_release(struct queue *q)
{
    free(q->data);
    free(q->pieces);
    memset(q, 0, sizeof *q);
}

static bool make_room(struct queue *q, size_t n)
{
    if (q->cap - q->head - q->len >= n && q->cap)
        return true;
    if (q->cap - q->len >= n && q->head >= q->cap / 2) { /* moved seldom: half of it must be free in front */
        memmove(q->data, q->data + q->head, q->len);
        q->head = 0;
        return true;
    }
    size_t cap = q->cap ? q->cap : QUEUE_CAP_MIN;
    while (cap - q->len < n || cap / 2 < q->len)
        cap *= 2;
    char *data = malloc(cap);
    if (!data)
        return false;
    if (q->len)
        memcpy(data, q->data + q->head, q->len);
    free(q->data);
    q->data = data;
    q->cap = cap;
    q->head = 0;
    return true;
}

bool queue_add(struct queue *q, const void *p, size_t n)
{
    if (!n)
        return true;
    if (!make_room(q, n))
        return false;
    memcpy(q->data + q->head + q->len, p, n);
    q->len += n;
    return true;
}

void queue_drop_tail(struct queue *q, size_t n)
{
    q->len -= n;
}

uint64_t queue_last_due(const struct queue *q)
{
    return q->pieces_n ? q->pieces[(q->first + q->pieces_n - 1) % q->pieces_cap].due_ns : 0;
}

static bool more_pieces(struct queue *q)
{
    uint32_t cap = q->pieces_cap ? q->pieces_cap * 2 : 16;
    struct queue_piece *pieces = malloc(cap * sizeof *pieces);
    if (!pieces)
        return false;
    for (uint32_t i = 0; i < q->pieces_n; i++)
        pieces[i] = q->pieces[(q->first + i) % q->pieces_cap];
    free(q->pieces);
    q->pieces = pieces;
    q->pieces_cap = cap;
    q->first = 0;
    return true;
}

bool queue_time(struct queue *q, size_t n, uint64_t due_ns)
{
    uint64_t last = queue_last_due(q);
    if (!n)
        return true;
    if (q->pieces_n && (due_ns <= last || q->pieces_n == QUEUE_PIECES_MAX)) {
        struct queue_piece *p = &q->pieces[(q->first + q->pieces_n - 1) % q->pieces_cap];
        p->n += n;
        p->due_ns = due_ns > last ? due_ns : last;
        q->timed += n;
        return true;
    }
    if (q->pieces_n == q->pieces_cap && !more_pieces(q))
        return false;
    q->pieces[(q->first + q->pieces_n++) % q->pieces_cap] = (struct queue_piece){due_ns, n};
    q->timed += n;
    return true;
}

size_t queue_due(const struct queue *q, uint64_t now_ns, uint64_t *next)
{
    size_t n = 0;
    *next = UINT64_MAX;
    for (uint32_t i = 0; i < q->pieces_n; i++) {
        const struct queue_piece *p = &q->pieces[(q->first + i) % q->pieces_cap];
        if (p->due_ns > now_ns) {
            *next = p->due_ns;
            break;
        }
        n += p->n;
    }
    return n;
}

void queue_consume(struct queue *q, size_t n)
{
    q->head += n;
    q->len -= n;
    q->timed -= n;
    while (n) {
        struct queue_piece *p = &q->pieces[q->first];
        size_t take = p->n < n ? p->n : n;
        p->n -= take;
        n -= take;
        if (!p->n) {
            q->first = (q->first + 1) % q->pieces_cap;
            q->pieces_n--;
        }
    }
    if (!q->len)
        queue_release(q);
}

/* Inside the room: bytes in order, each with the time at which it may leave. Plain memory with a stated
 * maximum, taken when there are bytes and given back when there are none. */
#ifndef NETEM_PROXY_QUEUE_IMPL_H
#define NETEM_PROXY_QUEUE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUEUE_PIECES_MAX 8192 /* past it, new bytes leave together with the piece before them */

struct queue_piece {
    uint64_t due_ns, n;
};

struct queue { /* zero-initialise */
    char *data;
    struct queue_piece *pieces;
    size_t head, len, cap; /* bytes */
    size_t timed;          /* of `len`: those that have a time; the rest is held */
    uint32_t first, pieces_n, pieces_cap;
};

void queue_release(struct queue *q);
/* Append bytes, still held. False: no memory. */
bool queue_add(struct queue *q, const void *p, size_t n);
/* Forget the last n bytes, which are held. */
void queue_drop_tail(struct queue *q, size_t n);
/* The first n held bytes may leave at due_ns, but not before those ahead of them. False: no memory. */
bool queue_time(struct queue *q, size_t n, uint64_t due_ns);
/* How many bytes at the head may leave now; *next: when more may (UINT64_MAX: that is not known). */
size_t queue_due(const struct queue *q, uint64_t now_ns, uint64_t *next);
/* The first n bytes have left. */
void queue_consume(struct queue *q, size_t n);
/* When the last timed byte may leave; 0: there is none. */
uint64_t queue_last_due(const struct queue *q);

#endif

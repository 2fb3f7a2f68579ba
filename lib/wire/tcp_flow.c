/* The table of connections: finding, ageing, evicting. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/map.h"
#include "wire/tcp_impl.h"

#define FLOWS_MAX   (1u << 20)
#define BUCKETS_MIN 1024u

const char *tcp_end_name(enum tcp_end e)
{
    static const char *const names[TCP_ENDS] = {"open", "fin", "rst", "reused", "evicted"};
    return (unsigned)e < TCP_ENDS ? names[e] : "";
}

int tcp_init(struct tcp *t, const struct tcp_config *c, struct err_ctx *ctx)
{
    *t = (struct tcp){.c = *c, .buckets = BUCKETS_MIN};
    t->c.flows_max = c->flows_max ? c->flows_max : FLOWS_MAX;
    if (getrandom(&t->seed, sizeof t->seed, 0) < 0)
        t->seed = 1;
    t->bucket = calloc(t->buckets, sizeof *t->bucket);
    if (!t->bucket)
        return err_set(ctx, ERR_NOMEM, "no memory for the table of connections");
    tcp_charge(t, (ptrdiff_t)(t->buckets * sizeof *t->bucket));
    return 0;
}

struct flow_key {
    uint8_t addr[2][16];
    uint16_t port[2];
    uint32_t point;
};

static bool same(const struct tcp_flow *f, const struct packet *k, uint32_t point, int dir)
{
    return f->point == point && f->port[0] == k->port[dir] && f->port[1] == k->port[!dir] &&
           memcmp(f->addr[0], k->addr[dir], 16) == 0 && memcmp(f->addr[1], k->addr[!dir], 16) == 0;
}

static uint64_t hash_of(const struct tcp *t, const struct packet *k, uint32_t point)
{
    struct flow_key key = {.point = point};
    int c = memcmp(k->addr[0], k->addr[1], 16);
    int low = c ? c > 0 : k->port[0] > k->port[1];
    for (int i = 0; i < 2; i++) {
        memcpy(key.addr[i], k->addr[i ^ low], 16);
        key.port[i] = k->port[i ^ low];
    }
    return hash_bytes(&key, sizeof key, t->seed);
}

static void unlink_age(struct tcp *t, struct tcp_flow *f)
{
    struct tcp_flow **first = f->done ? &t->done_first : &t->oldest;
    struct tcp_flow **last = f->done ? &t->done_last : &t->newest;
    *(f->older ? &f->older->newer : first) = f->newer;
    *(f->newer ? &f->newer->older : last) = f->older;
    f->older = f->newer = NULL;
}

static void link_age(struct tcp *t, struct tcp_flow *f)
{
    struct tcp_flow **first = f->done ? &t->done_first : &t->oldest;
    struct tcp_flow **last = f->done ? &t->done_last : &t->newest;
    f->older = *last;
    f->newer = NULL;
    *(*last ? &(*last)->newer : first) = f;
    *last = f;
}

static void grow(struct tcp *t)
{
    uint64_t n = t->buckets * 4;
    struct tcp_flow **fresh = calloc(n, sizeof *fresh);
    if (!fresh)
        return; /* longer chains */
    for (uint64_t i = 0; i < t->buckets; i++)
        for (struct tcp_flow *f = t->bucket[i], *next; f; f = next) {
            next = f->chain;
            f->chain = fresh[f->hash & (n - 1)];
            fresh[f->hash & (n - 1)] = f;
        }
    free(t->bucket);
    t->bucket = fresh;
    tcp_charge(t, (ptrdiff_t)((n - t->buckets) * sizeof *fresh));
    t->buckets = n;
}

static struct tcp_flow *find(struct tcp *t, const struct packet *k, uint32_t point, uint64_t hash, int *dir)
{
    for (struct tcp_flow *f = t->bucket[hash & (t->buckets - 1)]; f; f = f->chain) {
        if (f->hash != hash)
            continue;
        for (*dir = 0; *dir < 2; ++*dir)
            if (same(f, k, point, *dir))
                return f;
    }
    return NULL;
}

/* Is this packet's sender the client? */
static bool from_client(const struct packet *k)
{
    if (k->flags & PACKET_SYN)
        return !(k->flags & PACKET_ACK);
    return k->port[0] >= k->port[1];
}

static struct tcp_flow *make(struct tcp *t, const struct packet *k, uint32_t point, uint64_t hash,
                             uint64_t ts_ns, int *dir)
{
    struct tcp_flow *f = calloc(1, sizeof *f);
    if (!f) {
        t->count.no_memory++;
        return NULL;
    }
    *dir = !from_client(k);
    for (int i = 0; i < 2; i++) {
        memcpy(f->addr[i], k->addr[i ^ *dir], 16);
        f->port[i] = k->port[i ^ *dir];
        f->half[i].wscale = 0xff;
    }
    f->point = point;
    f->hash = hash;
    f->number = ++t->count.flows;
    f->first_ns = ts_ns;
    f->client_known = k->flags & PACKET_SYN;
    if (t->live >= t->buckets * 2)
        grow(t);
    f->chain = t->bucket[hash & (t->buckets - 1)];
    t->bucket[hash & (t->buckets - 1)] = f;
    link_age(t, f);
    t->live++;
    tcp_charge(t, sizeof *f);
    if (t->c.on.open)
        t->c.on.open(t->c.on.arg, f);
    return f;
}

/* A SYN that can't belong to what we know of the connection begins another one. */
static bool begins_another(struct tcp_flow *f, const struct packet *k, int dir)
{
    struct tcp_half *h = &f->half[dir];
    if (!(k->flags & PACKET_SYN))
        return false;
    if (!h->begun)
        return f->done || (dir == 1) != !!(k->flags & PACKET_ACK);
    return h->origin != k->seq + 1;
}

struct tcp_flow *tcp_flow_of(struct tcp *t, const struct packet *k, uint32_t point, uint64_t ts_ns, int *dir)
{
    struct tcp_flow *f = t->last;
    if (f && !(k->flags & PACKET_SYN)) { /* most packets follow one of their own connection */
        if (same(f, k, point, 0)) {
            *dir = 0;
            return f;
        }
        if (same(f, k, point, 1)) {
            *dir = 1;
            return f;
        }
    }
    uint64_t hash = hash_of(t, k, point);
    f = find(t, k, point, hash, dir);
    if (f && begins_another(f, k, *dir)) {
        tcp_flow_end(t, f, f->done ? f->end : TCP_END_REUSED);
        f = NULL;
    }
    if (!f) {
        if (t->live >= t->c.flows_max)
            tcp_make_room(t, NULL);
        f = make(t, k, point, hash, ts_ns, dir);
    } else if (!f->done && f != t->newest) {
        unlink_age(t, f);
        link_age(t, f);
    }
    t->last = f;
    return f;
}

void tcp_flow_end(struct tcp *t, struct tcp_flow *f, enum tcp_end end)
{
    f->end = end;
    for (int d = 0; d < 2; d++) {
        struct tcp_half *h = &f->half[d];
        if (h->zero && h->zero_since_ns)
            h->zero_ns += f->last_ns - h->zero_since_ns;
        tcp_half_flush(t, f, d, f->last_ns, end == TCP_END_EVICTED);
    }
    if (t->c.on.close)
        t->c.on.close(t->c.on.arg, f);
    for (int d = 0; d < 2; d++)
        tcp_half_release(t, &f->half[d]);
    unlink_age(t, f);
    struct tcp_flow **p = &t->bucket[f->hash & (t->buckets - 1)];
    while (*p != f)
        p = &(*p)->chain;
    *p = f->chain;
    if (t->last == f)
        t->last = NULL;
    t->live--;
    tcp_charge(t, -(ptrdiff_t)sizeof *f);
    free(f);
}

void tcp_flow_done(struct tcp *t, struct tcp_flow *f)
{
    if (f->done)
        return;
    unlink_age(t, f);
    f->done = true;
    link_age(t, f);
}

void tcp_make_room(struct tcp *t, struct tcp_flow *keep)
{
    while (t->used > t->c.memory || t->live >= t->c.flows_max) {
        struct tcp_flow *f = t->done_first != keep ? t->done_first : NULL;
        if (f) {
            tcp_flow_end(t, f, f->end);
            continue;
        }
        f = t->oldest != keep ? t->oldest : keep ? keep->newer : NULL;
        if (!f || f == keep)
            break;
        t->count.evicted++;
        tcp_flow_end(t, f, TCP_END_EVICTED);
    }
    if (keep && t->used > t->c.memory) {
        for (int d = 0; d < 2; d++)
            tcp_half_flush(t, keep, d, keep->last_ns, true);
        if (t->c.on.shed)
            t->c.on.shed(t->c.on.arg, keep);
    }
}

void tcp_expire(struct tcp *t, uint64_t now_ns)
{
    while (t->done_first && t->done_first->last_ns + TCP_LINGER_NS < now_ns)
        tcp_flow_end(t, t->done_first, t->done_first->end);
}

void tcp_finish(struct tcp *t)
{
    while (t->done_first)
        tcp_flow_end(t, t->done_first, t->done_first->end);
    while (t->oldest)
        tcp_flow_end(t, t->oldest, TCP_END_OPEN);
}

void tcp_release(struct tcp *t)
{
    t->c.on = (struct tcp_events){.arg = t->c.on.arg, .close = t->c.on.close};
    tcp_finish(t);
    free(t->bucket);
    t->bucket = NULL;
}

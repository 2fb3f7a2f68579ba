#include "netem/link.h"

#include <stdlib.h>

#include "util/map.h"

#define WAYS 4 /* 64 bytes: a set is one cache line */

int link_nat_init(struct link_nat *n, uint32_t flows)
{
    uint64_t sets = 1;
    while (sets * WAYS < flows)
        sets *= 2;
    n->at = aligned_alloc(64, sets * WAYS * sizeof *n->at);
    if (!n->at)
        return ERR_NOMEM;
    for (uint64_t i = 0; i < sets * WAYS; i++)
        n->at[i] = (struct link_mapping){0};
    n->mask = sets - 1;
    return 0;
}

void link_nat_release(struct link_nat *n)
{
    free(n->at);
    *n = (struct link_nat){0};
}

static uint64_t key_of(const struct link *l, const struct link_flow *f)
{
    uint64_t words[3] = {(uint64_t)f->phone << 32 | f->peer,
                         (uint64_t)f->phone_port << 32 | (uint64_t)f->peer_port << 16 | f->protocol,
                         l->nat_era};
    uint64_t key = hash_bytes(words, sizeof words, l->seed);
    return key ? key : 1;
}

enum reason link_nat_pass(struct link *l, struct link_nat *n, enum netem_dir dir, uint64_t now_ns,
                          const struct link_flow *f)
{
    const uint8_t tcp = 6;
    const struct netem_profile *p = l->profile;
    if (!p->nat_idle_ns)
        return REASON_NONE;
    link_advance(l, now_ns); /* a handover may have ended the era */
    uint64_t key = key_of(l, f);
    struct link_mapping *set = &n->at[(key & n->mask) * WAYS], *oldest = set;
    for (struct link_mapping *m = set; m < set + WAYS; m++) {
        if (m->key == key && now_ns - m->last_ns <= p->nat_idle_ns) {
            m->last_ns = now_ns;
            return REASON_NONE;
        }
        if (m->key == key || m->last_ns < oldest->last_ns)
            oldest = m;
        if (m->key == key)
            break;
    }
    if (dir == NETEM_DOWN || (f->protocol == tcp && !f->syn))
        return REASON_NAT_EXPIRED;
    *oldest = (struct link_mapping){key, now_ns};
    return REASON_NONE;
}

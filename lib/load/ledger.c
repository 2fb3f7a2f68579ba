#include "load/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "util/clock.h"

struct ledger_message {
    struct id id;
    uint64_t intended_ns, intent, bits; /* bits: first word */
    uint32_t population, members, sender, surfaced;
    uint32_t same; /* ring of the messages of one intent, by index */
    bool accepted, gave_up;
};

int ledger_init(struct ledger *l, uint32_t populations, uint32_t messages_max)
{
    *l = (struct ledger){.max = messages_max, .populations = populations};
    l->counts = calloc(populations ? populations : 1, sizeof *l->counts);
    map_init(&l->by_id, sizeof(struct id), 8, messages_max, 0);
    return l->counts ? 0 : ERR_NOMEM;
}

void ledger_release(struct ledger *l)
{
    map_release(&l->by_id);
    free(l->messages);
    free(l->bits);
    free(l->counts);
    *l = (struct ledger){0};
}

static int room(struct ledger *l, uint64_t words)
{
    if (l->n >= l->max)
        return ERR_LIMIT;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 1024;
        struct ledger_message *grown = realloc(l->messages, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        l->messages = grown;
        l->cap = cap;
    }
    if (l->bits_n + words > l->bits_cap) {
        uint64_t cap = l->bits_cap ? l->bits_cap * 2 : 4096;
        while (cap < l->bits_n + words)
            cap *= 2;
        uint64_t *grown = realloc(l->bits, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        l->bits = grown;
        l->bits_cap = cap;
    }
    return 0;
}

static struct ledger_message *find(struct ledger *l, const struct id *id)
{
    uint64_t *at = map_get(&l->by_id, id);
    return at ? &l->messages[*at] : NULL;
}

int ledger_sent(struct ledger *l, const struct ledger_sent *s)
{
    uint64_t words = (s->members + 63) / 64;
    bool fresh;
    BUG_ON(s->population >= l->populations || s->sender >= s->members);
    int rc = room(l, words);
    if (rc)
        return rc;
    uint64_t *at = map_put(&l->by_id, &s->id, &fresh);
    if (!at)
        return ERR_NOMEM;
    if (!fresh)
        return ERR_EXISTS;
    *at = l->n;
    struct ledger_message *m = &l->messages[l->n], *before = s->again ? find(l, s->again) : NULL;
    *m = (struct ledger_message){.id = s->id,
                                 .intended_ns = s->intended_ns,
                                 .intent = s->intent,
                                 .bits = l->bits_n,
                                 .population = s->population,
                                 .members = s->members,
                                 .sender = s->sender,
                                 .same = l->n};
    if (before) {
        m->same = before->same;
        before->same = l->n;
    }
    memset(l->bits + l->bits_n, 0, words * sizeof *l->bits);
    l->bits_n += words;
    l->n++;
    l->counts[s->population].sent++;
    for (uint32_t i = 0; s->owed && i < l->populations; i++)
        l->counts[i].expected += s->owed[i];
    if (!s->owed)
        l->counts[s->population].expected += s->members - 1;
    return 0;
}

static uint64_t late_us(const struct ledger_message *m, uint64_t now_ns)
{
    return now_ns > m->intended_ns ? (now_ns - m->intended_ns) / NS_PER_US : 0;
}

void ledger_accepted(struct ledger *l, const struct id *id, uint64_t now_ns)
{
    struct ledger_message *m = find(l, id);
    if (!m || m->accepted)
        return;
    struct ledger_counts *c = &l->counts[m->population];
    m->accepted = true;
    c->accepted++;
    c->missing += m->members - 1 - m->surfaced;
    hist_add(&c->accept_us, late_us(m, now_ns));
}

void ledger_gave_up(struct ledger *l, const struct id *id)
{
    struct ledger_message *m = find(l, id);
    if (!m || m->gave_up)
        return;
    m->gave_up = true;
    l->counts[m->population].gave_up++;
}

static bool shown(const struct ledger *l, const struct ledger_message *m, uint32_t member)
{
    return l->bits[m->bits + member / 64] >> (member % 64) & 1;
}

enum ledger_seen ledger_surfaced(struct ledger *l, const struct id *id, uint32_t member, uint32_t population,
                                 bool forgotten, uint64_t now_ns)
{
    struct ledger_message *m = find(l, id);
    if (!m || member >= m->members || member == m->sender)
        return LEDGER_UNKNOWN;
    struct ledger_counts *c = &l->counts[population];
    if (shown(l, m, member)) {
        if (forgotten)
            return LEDGER_RESHOWN;
        c->duplicates++;
        c->duplicates_seen++;
        return LEDGER_DUPLICATE;
    }
    for (struct ledger_message *o = &l->messages[m->same]; o != m; o = &l->messages[o->same])
        if (member < o->members && shown(l, o, member)) {
            c->duplicates_seen++;
            break;
        }
    l->bits[m->bits + member / 64] |= 1ull << (member % 64);
    m->surfaced++;
    c->delivered++;
    if (m->accepted)
        l->counts[m->population].missing--;
    hist_add(&c->latency_us, late_us(m, now_ns));
    return LEDGER_FIRST;
}

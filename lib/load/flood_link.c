#include <stdlib.h>
#include <string.h>

#include "load/flood_impl.h"

#define MOVES_PER_RTO 8 /* assumption: a packet each 25 ms */

/* splitmix64, as netem's links do. */
static uint32_t draw(struct flood_phone *p)
{
    uint64_t z = (p->rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

int flood_links_init(struct flood *f, struct err_ctx *ctx)
{
    f->wheel = calloc(WHEEL_SLOTS, sizeof *f->wheel);
    f->cells = f->cfg.link ? calloc(FLOOD_CELLS, sizeof *f->cells) : NULL;
    if (!f->wheel || (f->cfg.link && !f->cells))
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < WHEEL_SLOTS; i++)
        f->wheel[i].last = &f->wheel[i].first;
    for (uint32_t i = 0; f->cells && i < FLOOD_CELLS; i++)
        link_init(&f->cells[i].link, f->cfg.link, f->cfg.seed + i, i, f->origin_ns);
    return 0;
}

void flood_links_release(struct flood *f)
{
    for (uint32_t i = 0; f->wheel && i < WHEEL_SLOTS; i++)
        while (f->wheel[i].first) {
            struct flood_item *next = f->wheel[i].first->next;
            free(f->wheel[i].first);
            f->wheel[i].first = next;
        }
    free(f->wheel);
    free(f->cells);
}

/* ---- the wheel ---- */

static struct flood_slot *slot_of(struct flood *f, uint32_t at_ms)
{
    uint32_t first = f->done_ms + WHEEL_MS, last = f->done_ms + (WHEEL_SLOTS - 1) * WHEEL_MS;
    uint32_t at = at_ms < first ? first : at_ms > last ? last : at_ms;
    return &f->wheel[at / WHEEL_MS % WHEEL_SLOTS];
}

static void unlink_phone(struct flood *f, struct flood_phone *p)
{
    if (p->wake_next)
        f->phones[p->wake_next - 1].wake_prev = p->wake_prev;
    if (p->wake_prev & 1u << 31) /* the slot's first */
        f->wheel[p->wake_prev & ~(1u << 31)].phones = p->wake_next;
    else
        f->phones[p->wake_prev - 1].wake_next = p->wake_next;
    p->wake_prev = p->wake_next = 0;
}

static void link_phone(struct flood *f, uint32_t i, struct flood_slot *slot)
{
    struct flood_phone *p = &f->phones[i];
    p->wake_next = slot->phones;
    p->wake_prev = 1u << 31 | (uint32_t)(slot - f->wheel);
    if (slot->phones)
        f->phones[slot->phones - 1].wake_prev = i + 1;
    slot->phones = i + 1;
}

void flood_wake(struct flood *f, uint32_t i, uint32_t at_ms)
{
    struct flood_phone *p = &f->phones[i];
    if (p->wake_ms)
        unlink_phone(f, p);
    p->wake_ms = at_ms;
    if (at_ms)
        link_phone(f, i, slot_of(f, at_ms));
}

static void put(struct flood *f, struct flood_item *item, uint32_t at_ms)
{
    struct flood_slot *slot = slot_of(f, at_ms);
    item->next = NULL;
    *slot->last = item;
    slot->last = &item->next;
}

/* ---- the link ---- */

static bool cell_up(struct flood *f, struct flood_cell *c, uint32_t now_ms)
{
    if (now_ms >= c->until_ms) {
        uint64_t until = link_state_until(&c->link, f->io.now.mono_ns);
        c->up = link_state(&c->link, f->io.now.mono_ns) == LINK_UP;
        uint64_t ms = until == UINT64_MAX ? now_ms + 3600000u : (until - f->origin_ns) / NS_PER_MS + 2;
        c->until_ms = ms > now_ms ? (uint32_t)ms : now_ms + 1;
    }
    return c->up;
}

/* The chain moves once per packet on the air. A phone that tries again after an RTO finds it moved on by what
 * others sent meanwhile. */
static bool lost(struct flood *f, struct flood_phone *p, enum netem_dir dir, unsigned attempt)
{
    const struct netem_direction *d = &f->cfg.link->dir[dir];
    bool bad = dir == NETEM_UP ? p->bad_up : p->bad_down, was = bad;
    for (unsigned moves = attempt ? 1 + MOVES_PER_RTO : 1; moves; moves--) {
        was = bad;
        if (draw(p) < (bad ? d->leave_p32 : d->enter_p32))
            bad = !bad;
    }
    if (dir == NETEM_UP)
        p->bad_up = bad;
    else
        p->bad_down = bad;
    f->lost_packets += was;
    return was;
}

static enum netem_dir dir_of(uint8_t kind)
{
    return kind <= ITEM_BEAT ? NETEM_UP : NETEM_DOWN;
}

/* When a packet that is offered now arrives; 0: not this time, *again says when to try it again. */
static uint32_t pass(struct flood *f, struct flood_phone *p, enum netem_dir dir, unsigned attempt,
                     uint32_t *again)
{
    uint32_t now = flood_ms(f);
    struct flood_cell *cell = &f->cells[(uint32_t)(p - f->phones) % FLOOD_CELLS];
    const struct netem_direction *d = &f->cfg.link->dir[dir];
    if (!cell_up(f, cell, now)) {
        *again = cell->until_ms;
        return 0;
    }
    if (lost(f, p, dir, attempt)) {
        uint32_t rto = attempt < 4 ? RTO_MS << attempt : RTO_MAX_MS;
        *again = now + rto;
        return 0;
    }
    uint64_t us = d->delay_ns / NS_PER_US, jitter = d->jitter_ns / NS_PER_US;
    if (jitter)
        us = us > jitter ? us - jitter + draw(p) % (2 * jitter + 1) : draw(p) % (us + jitter + 1);
    uint32_t at = now + (uint32_t)((us + 500) / 1000);
    if (at < p->arrive_ms[dir])
        at = p->arrive_ms[dir];
    return p->arrive_ms[dir] = at;
}

/* Try to send it; it is then on its way, or waits for its next try. */
static void send_item(struct flood *f, struct flood_item *item)
{
    struct flood_phone *p = &f->phones[item->phone];
    enum netem_dir dir = dir_of(item->kind);
    uint32_t now = flood_ms(f), again;
    if (!item->head && p->blocked_ms[dir] > now) { /* behind one that was lost */
        put(f, item, p->blocked_ms[dir]);
        return;
    }
    uint32_t at = pass(f, p, dir, item->attempt, &again);
    item->head = !at;
    item->arrived = at != 0;
    if (!at) {
        item->attempt += item->attempt < UINT8_MAX;
        p->blocked_ms[dir] = again;
    }
    put(f, item, at ? at : again);
}

bool flood_offer(struct flood *f, uint32_t phone, enum flood_item_kind kind, const void *data, size_t n)
{
    struct flood_phone *p = &f->phones[phone];
    if (f->cfg.link && kind == ITEM_BEAT) { /* nearly all of them pass, and 35 ms don't matter to a beat */
        uint32_t again, at = p->blocked_ms[NETEM_UP] > flood_ms(f) ? 0 : pass(f, p, NETEM_UP, 0, &again);
        if (at) {
            f->cfg.world.beat(f->cfg.world.arg, phone);
            return true;
        }
    }
    struct flood_item *item = malloc(sizeof *item + n);
    if (!item)
        return false;
    *item = (struct flood_item){.phone = phone, .len = (uint32_t)n, .kind = (uint8_t)kind, .era = p->era};
    if (n)
        memcpy(item->data, data, n);
    f->in_transit++;
    if (f->cfg.link) {
        send_item(f, item);
    } else {
        item->arrived = true;
        put(f, item, flood_ms(f));
    }
    return true;
}

static void serve(struct flood *f, struct flood_item *item)
{
    bool stale = item->era != f->phones[item->phone].era;
    if (!stale && !item->arrived) {
        send_item(f, item);
        return;
    }
    f->in_transit--;
    if (!stale)
        flood_arrived(f, item);
    free(item);
}

bool flood_turn(struct flood *f)
{
    uint32_t due = f->done_ms + WHEEL_MS, now = flood_ms(f);
    if (due > now)
        return false;
    struct flood_slot *slot = &f->wheel[due / WHEEL_MS % WHEEL_SLOTS];
    f->done_ms = due; /* what is put now goes to later slots */
    struct flood_item *item = slot->first;
    slot->first = NULL;
    slot->last = &slot->first;
    while (item) {
        struct flood_item *next = item->next;
        serve(f, item);
        item = next;
    }
    while (slot->phones) {
        uint32_t i = slot->phones - 1;
        struct flood_phone *p = &f->phones[i];
        uint32_t at = p->wake_ms;
        unlink_phone(f, p);
        p->wake_ms = 0;
        if (at > due + WHEEL_MS)
            flood_wake(f, i, at);
        else
            flood_fire(f, i);
    }
    return true;
}

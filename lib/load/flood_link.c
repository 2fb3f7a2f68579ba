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
    for (uint32_t i = 0; f->cells && i < FLOOD_CELLS; i++)
        link_init(&f->cells[i].link, f->cfg.link, f->cfg.seed + i, i, f->origin_ns);
    return 0;
}

static void blocks_free(struct flood_block *b, bool items)
{
    while (b) {
        struct flood_block *next = b->next;
        for (uint32_t i = 0; items && i < b->n; i++)
            if (b->item[i]->class == ITEM_CLASSES)
                free(b->item[i]);
        free(b);
        b = next;
    }
}

void flood_links_release(struct flood *f)
{
    for (uint32_t i = 0; f->wheel && i < WHEEL_SLOTS; i++) {
        blocks_free(f->wheel[i].items.first, true);
        blocks_free(f->wheel[i].wakes.first, false);
    }
    blocks_free(f->blocks, false);
    while (f->arena) {
        char *before;
        memcpy(&before, f->arena, sizeof before);
        free(f->arena);
        f->arena = before;
    }
    free(f->wheel);
    free(f->cells);
}

/* ---- memory of what is on its way ---- */

#define ARENA_BYTES (1u << 20)

static struct flood_item *item_new(struct flood *f, size_t n)
{
    unsigned class = 0;
    while (class < ITEM_CLASSES && (64u << class) < sizeof(struct flood_item) + n)
        class ++;
    size_t size = class < ITEM_CLASSES ? 64u << class : sizeof(struct flood_item) + n;
    struct flood_item *item;
    if (class == ITEM_CLASSES) {
        item = malloc(size);
    } else if (f->unused[class]) {
        item = f->unused[class];
        memcpy(&f->unused[class], item, sizeof f->unused[class]);
        __builtin_prefetch(f->unused[class], 1);
    } else {
        if (f->arena_left < size) {
            char *arena = aligned_alloc(64, ARENA_BYTES);
            if (!arena)
                return NULL;
            memcpy(arena, &f->arena, sizeof f->arena);
            f->arena = arena;
            f->arena_left = ARENA_BYTES - 64;
        }
        item = (struct flood_item *)(void *)(f->arena + ARENA_BYTES - f->arena_left);
        f->arena_left -= size;
    }
    if (item)
        item->class = (uint8_t) class;
    return item;
}

static void item_free(struct flood *f, struct flood_item *item)
{
    unsigned class = item->class;
    if (class == ITEM_CLASSES) {
        free(item);
        return;
    }
    memcpy(item, &f->unused[class], sizeof f->unused[class]);
    f->unused[class] = item;
}

/* ---- the wheel ---- */

/* The block of a list that has room; a phone without its entry would sleep for ever. */
static struct flood_block *room_in(struct flood *f, struct flood_list *l, uint32_t max)
{
    if (l->last && l->last->n < max)
        return l->last;
    struct flood_block *b = f->blocks;
    if (b)
        f->blocks = b->next;
    else
        b = malloc(sizeof *b);
    BUG_ON(!b);
    b->next = NULL;
    b->n = 0;
    if (l->last)
        l->last->next = b;
    else
        l->first = b;
    return l->last = b;
}

static struct flood_block *block_done(struct flood *f, struct flood_block *b)
{
    struct flood_block *next = b->next;
    b->next = f->blocks;
    f->blocks = b;
    return next;
}

/* The time of the slot in which something of `at_ms` is served, or comes by on its way there. */
static uint32_t slot_ms(const struct flood *f, uint32_t at_ms)
{
    uint32_t first = f->done_ms + WHEEL_MS, last = f->done_ms + (WHEEL_SLOTS - 1) * WHEEL_MS;
    uint32_t at = at_ms < first ? first : at_ms > last ? last : at_ms;
    return (at + WHEEL_MS - 1) / WHEEL_MS * WHEEL_MS;
}

/* An entry is 4 bytes in a list, and stays until its slot is served: waking a phone later than its entry says
 * costs nothing, and earlier (an acknowledgement before the next heartbeat) one more entry. The two soonest
 * are remembered with the phone; what is found in a slot and is neither says nothing. */
void flood_wake(struct flood *f, uint32_t i, uint32_t at_ms)
{
    struct flood_phone *p = &f->phones[i];
    p->wake_ms = at_ms;
    if (!at_ms)
        return;
    uint32_t at = slot_ms(f, at_ms);
    if (p->queued_ms[0] && p->queued_ms[0] <= at)
        return;
    struct flood_block *b = room_in(f, &f->wheel[at / WHEEL_MS % WHEEL_SLOTS].wakes, 254);
    b->phone[b->n++] = i;
    p->queued_ms[1] = p->queued_ms[0];
    p->queued_ms[0] = at;
}

static void woken(struct flood *f, uint32_t i, uint32_t now_ms)
{
    struct flood_phone *p = &f->phones[i];
    if (p->queued_ms[0] == now_ms) {
        p->queued_ms[0] = p->queued_ms[1];
        p->queued_ms[1] = 0;
    } else if (p->queued_ms[1] == now_ms) {
        p->queued_ms[1] = 0;
    } else {
        return;
    }
    if (p->wake_ms && p->wake_ms <= now_ms) {
        p->wake_ms = 0;
        flood_fire(f, i);
    } else if (p->wake_ms) {
        flood_wake(f, i, p->wake_ms);
    }
}

static void put(struct flood *f, struct flood_item *item, uint32_t at_ms)
{
    struct flood_block *b = room_in(f, &f->wheel[slot_ms(f, at_ms) / WHEEL_MS % WHEEL_SLOTS].items, 127);
    b->item[b->n++] = item;
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
    if (dir == NETEM_UP && p->arrive_ms[dir]) {
        uint32_t gap = at - p->arrive_ms[dir]; /* what queued behind the late one arrives right after it */
        p->held_up = gap >= HELD_UP_MS || (p->held_up && gap < WORD_MS);
    }
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

bool flood_offer(struct flood *f, uint32_t phone, enum flood_item_kind kind, const void *data, size_t n,
                 uint32_t mark)
{
    struct flood_phone *p = &f->phones[phone];
    if (f->cfg.link && kind == ITEM_BEAT) { /* nearly all of them pass, and 35 ms don't matter to a beat */
        uint32_t again, at = p->blocked_ms[NETEM_UP] > flood_ms(f) ? 0 : pass(f, p, NETEM_UP, 0, &again);
        if (at) {
            f->cfg.world.beat(f->cfg.world.arg, phone);
            return true;
        }
    }
    struct flood_item *item = item_new(f, n);
    if (!item)
        return false;
    *item = (struct flood_item){.phone = phone,
                                .len = (uint32_t)n,
                                .mark = mark,
                                .kind = (uint8_t)kind,
                                .era = p->era,
                                .class = item->class};
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
    item_free(f, item);
}

/* Phones lie anywhere in gigabytes: what comes next is fetched while the one before is served. */
#define AHEAD 8u

static void fetch_phone(const struct flood *f, uint32_t i, bool whole)
{
    const char *p = (const char *)&f->phones[i];
    __builtin_prefetch(p, 1);
    __builtin_prefetch(p + 64, 1);
    __builtin_prefetch(p + 128, 1);
    if (whole)
        __builtin_prefetch(p + 192, 1);
}

void flood_soon(const struct flood *f, uint32_t i)
{
    fetch_phone(f, i, true);
}

/* What hangs on a phone that was fetched. */
static void fetch_chat(const struct flood *f, uint32_t i)
{
    const char *chat = (const char *)f->phones[i].client.chats;
    __builtin_prefetch(chat, 1);
    __builtin_prefetch(chat + 64, 1);
}

static void serve_items(struct flood *f, struct flood_block *b)
{
    for (; b; b = block_done(f, b))
        for (uint32_t k = 0; k < b->n; k++) {
            if (k + 2 * AHEAD < b->n)
                __builtin_prefetch(b->item[k + 2 * AHEAD]);
            if (k + AHEAD < b->n)
                fetch_phone(f, b->item[k + AHEAD]->phone, true);
            if (k + AHEAD / 2 < b->n)
                fetch_chat(f, b->item[k + AHEAD / 2]->phone);
            serve(f, b->item[k]);
        }
}

static void serve_wakes(struct flood *f, struct flood_block *b, uint32_t now_ms)
{
    for (; b; b = block_done(f, b))
        for (uint32_t k = 0; k < b->n; k++) {
            if (k + AHEAD < b->n)
                fetch_phone(f, b->phone[k + AHEAD], false);
            woken(f, b->phone[k], now_ms);
        }
}

bool flood_turn(struct flood *f)
{
    uint32_t due = f->done_ms + WHEEL_MS, now = flood_ms(f);
    if (due > now)
        return false;
    struct flood_slot *slot = &f->wheel[due / WHEEL_MS % WHEEL_SLOTS], taken = *slot;
    f->done_ms = due; /* what is put now goes to later slots */
    *slot = (struct flood_slot){0};
    serve_items(f, taken.items.first);
    serve_wakes(f, taken.wakes.first, due);
    return true;
}

#include "presence/shared_mem.h"

#include <stdlib.h>
#include <string.h>

#include "util/map.h"

#define FOUND_OUT_NS (3 * NS_PER_S)
#define BACK_NS      (500 * NS_PER_MS)
#define PORTS        (SHARED_SLOTS + 1)
#define USERS_MAX    (16u << 20)

enum item_kind { ITEM_ORDER, ITEM_NEWS, ITEM_UP, ITEM_DOWN };

/* On its way: an order, or news with copies of what they name. */
struct item {
    struct item *next;
    uint64_t at_ns, order;
    uint32_t port, life, turn; /* turn: of UP and DOWN: good only until the state changes again */
    enum item_kind kind;
    struct shared_order o;
    struct shared_news n;
    char data[];
};

struct port {
    struct shared shared;
    struct shared_mem *mem;
    struct shared_sink sink;
    uint16_t slot;
    uint32_t index, life;
    bool open, held, fresh;
    bool down; /* it was told so */
};

struct shared_mem {
    struct port ports[PORTS];
    uint64_t beat_ns[SHARED_SLOTS]; /* 0: never */
    struct map cells;               /* page and print -> the three bytes */
    struct shared_typing *typing;
    uint32_t typing_n, typing_cap;
    struct item *first; /* by time, then by order */
    struct now now;
    uint64_t delay_ns, order;
    uint32_t turn;
    enum shared_mem_state state;
};

static void queue(struct shared_mem *m, struct item *i, uint64_t at_ns)
{
    struct item **at = &m->first;
    i->at_ns = at_ns;
    i->order = m->order++;
    while (*at && (*at)->at_ns <= at_ns)
        at = &(*at)->next;
    i->next = *at;
    *at = i;
}

static struct item *item_new(const struct port *p, enum item_kind kind, size_t bytes)
{
    struct item *i = calloc(1, sizeof *i + bytes);
    if (i) {
        i->kind = kind;
        i->port = p->index;
        i->life = p->life;
        i->turn = p->mem->turn;
    }
    return i;
}

/* ---- news ---- */

static void tell(struct shared_mem *m, struct port *p, const struct shared_news *n, size_t bytes)
{
    struct item *i = p->open && !p->down ? item_new(p, ITEM_NEWS, bytes) : NULL;
    if (!i)
        return;
    i->n = *n;
    const void *from = n->states ? (const void *)n->states : n->typing ? (const void *)n->typing : n->ids;
    if (bytes)
        memcpy(i->data, from, bytes);
    i->n.states = n->states ? (void *)i->data : NULL;
    i->n.typing = n->typing ? (void *)i->data : NULL;
    i->n.ids = n->ids ? (void *)i->data : NULL;
    queue(m, i, m->now.mono_ns + m->delay_ns);
}

static void tell_change(struct shared_mem *m, struct port *p, enum item_kind kind, uint64_t after_ns)
{
    struct item *i = item_new(p, kind, 0);
    if (i)
        queue(m, i, m->now.mono_ns + after_ns);
}

/* ---- what it does ---- */

static uint64_t key_of(uint64_t user)
{
    struct shared_place p = shared_place(user);
    uint64_t key = p.page;
    for (unsigned i = 0; i < SHARED_PRINT; i++)
        key = key << 8 | p.print[i];
    return key;
}

static uint64_t silent_ms(const struct shared_mem *m, uint16_t slot)
{
    uint64_t beat = slot < SHARED_SLOTS ? m->beat_ns[slot] : 0;
    return beat ? (m->now.mono_ns - beat) / NS_PER_MS : UINT32_MAX;
}

static bool is_there(enum presence_state s)
{
    return s == PRESENCE_ONLINE || s == PRESENCE_AWAY;
}

static void say_also(struct shared_mem *m, uint64_t user)
{
    struct shared_news n = {.kind = SHARED_ALSO, .n = 1, .ids = &user};
    for (uint32_t i = 0; i < PORTS; i++)
        tell(m, &m->ports[i], &n, sizeof user);
}

/* The rule of redis.c's script `put`. */
static void put(struct shared_mem *m, const struct port *p, const struct shared_state *s)
{
    uint64_t now_s = m->now.wall_us / 1000000;
    uint8_t *cell = map_get_u64(&m->cells, key_of(s->user));
    struct shared_state was = {0};
    uint16_t slot = SHARED_NOBODY;
    if (p->slot == SHARED_NOBODY || s->state == PRESENCE_UNKNOWN)
        return;
    if (cell)
        shared_cell_get(cell, now_s, &was, &slot);
    bool others = is_there(was.state) && slot != p->slot;
    if (!is_there(s->state)) {
        if (others || !s->at_s)
            return;
    } else if (others && silent_ms(m, slot) < SHARED_DOUBT_MS) {
        say_also(m, s->user);
        if (s->state == PRESENCE_AWAY && was.state == PRESENCE_ONLINE)
            return;
    }
    if (!cell)
        cell = map_put_u64(&m->cells, key_of(s->user), NULL);
    if (cell)
        shared_cell_put(cell, s, p->slot);
}

static void ask(struct shared_mem *m, struct port *p, const struct shared_order *o)
{
    struct shared_state *list = calloc(o->n ? o->n : 1, sizeof *list);
    uint64_t now_s = m->now.wall_us / 1000000;
    for (uint32_t i = 0; list && i < o->n; i++) {
        const uint8_t *cell = map_get_u64(&m->cells, key_of(o->ids[i]));
        uint16_t slot = SHARED_NOBODY;
        if (cell)
            shared_cell_get(cell, now_s, &list[i], &slot);
        shared_doubt(&list[i], silent_ms(m, slot), now_s);
        list[i].slot = slot;
        list[i].user = o->ids[i];
    }
    struct shared_news n = {.kind = SHARED_STATES, .request = o->request, .n = o->n, .states = list};
    if (list)
        tell(m, p, &n, o->n * sizeof *list);
    free(list);
}

static void drop_typing(struct shared_mem *m)
{
    for (uint32_t i = m->typing_n; i-- > 0;)
        if (m->typing[i].until_us <= m->now.wall_us)
            m->typing[i] = m->typing[--m->typing_n];
}

static void type(struct shared_mem *m, const struct port *p, const struct shared_typing *t)
{
    struct shared_news n = {.kind = SHARED_TYPES, .n = 1, .typing = t};
    uint32_t at = 0;
    drop_typing(m);
    while (at < m->typing_n && (m->typing[at].chat != t->chat || m->typing[at].user != t->user))
        at++;
    if (t->quiet) {
        if (at < m->typing_n && m->typing[at].until_us <= t->until_us)
            m->typing[at] = m->typing[--m->typing_n];
    } else {
        if (at == m->typing_cap) {
            uint32_t cap = at ? at * 2 : 16;
            struct shared_typing *more = realloc(m->typing, cap * sizeof *more);
            if (!more)
                return;
            m->typing = more;
            m->typing_cap = cap;
        }
        m->typing[at] = *t;
        m->typing_n += at == m->typing_n;
    }
    for (uint32_t i = 0; i < PORTS; i++)
        if (i != p->index)
            tell(m, &m->ports[i], &n, sizeof *t);
}

static void typists(struct shared_mem *m, struct port *p, const struct shared_order *o)
{
    drop_typing(m);
    for (uint32_t k = 0; k < o->n; k++) {
        struct shared_typing list[SHARED_TYPISTS_MAX];
        struct shared_news n = {.kind = SHARED_TYPES, .request = o->request, .typing = list};
        for (uint32_t i = 0; i < m->typing_n && n.n < SHARED_TYPISTS_MAX; i++)
            if (m->typing[i].chat == o->ids[k])
                list[n.n++] = m->typing[i];
        tell(m, p, &n, n.n * sizeof *list);
    }
}

/* Users for whom nobody vouches: those of this slot, or of all that were silent for so long. */
static uint32_t bury(struct shared_mem *m, uint16_t of, uint64_t silent)
{
    size_t at = 0;
    void *cell;
    uint32_t n = 0;
    uint64_t now_s = m->now.wall_us / 1000000;
    while (map_next(&m->cells, &at, NULL, &cell)) {
        struct shared_state s;
        uint16_t slot;
        shared_cell_get(cell, now_s, &s, &slot);
        uint64_t ago = silent_ms(m, slot);
        if (!is_there(s.state) || (of != SHARED_NOBODY ? slot != of : ago < silent))
            continue;
        s = (struct shared_state){.state = PRESENCE_OFFLINE,
                                  .at_s = ago == UINT32_MAX ? now_s - SHARED_STALE_S : now_s - ago / 1000};
        shared_cell_put(cell, &s, 0);
        n++;
    }
    return n;
}

static void execute(struct shared_mem *m, struct port *p, const struct shared_order *o)
{
    switch (o->op) {
    case SHARED_BEAT:
        if (p->slot != SHARED_NOBODY)
            m->beat_ns[p->slot] = m->now.mono_ns;
        break;
    case SHARED_PUT:
        for (uint32_t i = 0; i < o->n; i++)
            put(m, p, &o->states[i]);
        break;
    case SHARED_ASK:
        ask(m, p, o);
        break;
    case SHARED_TYPE:
        for (uint32_t i = 0; i < o->n; i++)
            type(m, p, &o->typing[i]);
        break;
    case SHARED_TYPISTS:
        typists(m, p, o);
        break;
    case SHARED_SWEEP: {
        drop_typing(m);
        struct shared_news n = {.kind = SHARED_SWEPT,
                                .n = bury(m, SHARED_NOBODY, (uint64_t)SHARED_STALE_S * 1000)};
        tell(m, p, &n, 0);
        break;
    }
    }
}

/* ---- the vtable ---- */

static int mem_send(struct shared *s, const struct shared_order *o)
{
    struct port *p = (struct port *)s;
    struct shared_mem *m = p->mem;
    size_t one = o->states ? sizeof *o->states : o->typing ? sizeof *o->typing : sizeof *o->ids;
    if (o->n > SHARED_ORDER_MAX)
        return ERR_LIMIT;
    if (p->down || m->state == SHARED_MEM_KILLED)
        return ERR_UNAVAILABLE;
    struct item *i = item_new(p, ITEM_ORDER, o->n * one);
    if (!i)
        return ERR_FULL;
    i->o = *o;
    if (o->n)
        memcpy(i->data,
               o->states   ? (const void *)o->states
               : o->typing ? (const void *)o->typing
                           : o->ids,
               o->n * one);
    i->o.states = o->states ? (void *)i->data : NULL;
    i->o.typing = o->typing ? (void *)i->data : NULL;
    i->o.ids = o->ids ? (void *)i->data : NULL;
    queue(m, i, m->now.mono_ns + m->delay_ns);
    return 0;
}

static void mem_close(struct shared *s)
{
    struct port *p = (struct port *)s;
    p->open = p->held = p->down = false;
    p->life++;
}

static const struct shared_ops mem_ops = {mem_send, mem_close};

int shared_mem_new(struct shared_mem **out, uint64_t delay_ns, struct err_ctx *ctx)
{
    struct shared_mem *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(ctx, ERR_NOMEM, "no memory for presence");
    m->delay_ns = delay_ns;
    map_init(&m->cells, 8, 8, USERS_MAX, 1);
    for (uint32_t i = 0; i < PORTS; i++)
        m->ports[i] = (struct port){.shared.ops = &mem_ops, .mem = m, .index = i};
    *out = m;
    return 0;
}

void shared_mem_free(struct shared_mem *m)
{
    if (!m)
        return;
    for (struct item *i; (i = m->first);) {
        m->first = i->next;
        free(i);
    }
    map_release(&m->cells);
    free(m->typing);
    free(m);
}

static struct port *port_of(struct shared_mem *m, uint16_t slot)
{
    return &m->ports[slot < SHARED_SLOTS ? slot : SHARED_SLOTS];
}

struct shared *shared_mem_open(struct shared_mem *m, uint16_t slot, const struct shared_sink *sink)
{
    struct port *p = port_of(m, slot);
    if (p->open)
        return NULL;
    p->sink = *sink;
    p->slot = slot;
    p->open = true;
    p->down = p->fresh = true; /* until it is told otherwise */
    p->life++;
    if (m->state == SHARED_MEM_WELL)
        tell_change(m, p, ITEM_UP, m->delay_ns);
    return &p->shared;
}

void shared_mem_hold(struct shared_mem *m, uint16_t slot, bool hold)
{
    port_of(m, slot)->held = hold;
}

void shared_mem_set(struct shared_mem *m, enum shared_mem_state state)
{
    if (state == m->state)
        return;
    m->turn++;
    m->state = state;
    if (state == SHARED_MEM_KILLED) {
        map_clear(&m->cells);
        m->typing_n = 0;
        memset(m->beat_ns, 0, sizeof m->beat_ns);
    }
    for (uint32_t i = 0; i < PORTS; i++) {
        struct port *p = &m->ports[i];
        if (p->open && state != SHARED_MEM_WELL && !p->down)
            tell_change(m, p, ITEM_DOWN, state == SHARED_MEM_KILLED ? m->delay_ns : FOUND_OUT_NS);
        else if (p->open && state == SHARED_MEM_WELL && p->down)
            tell_change(m, p, ITEM_UP, BACK_NS);
    }
}

void shared_mem_now(struct shared_mem *m, struct now now)
{
    m->now = now;
}

/* Of a node that is stopped, news wait; what a frozen Redis was sent does too. */
static bool waits(const struct shared_mem *m, const struct item *i)
{
    const struct port *p = &m->ports[i->port];
    return i->kind == ITEM_ORDER ? m->state == SHARED_MEM_FROZEN || m->state == SHARED_MEM_CUT
                                 : p->held && i->life == p->life;
}

uint64_t shared_mem_next(const struct shared_mem *m)
{
    const struct item *i = m->first;
    while (i && waits(m, i))
        i = i->next;
    return i ? i->at_ns : UINT64_MAX;
}

/* What TCP still held when its connection was given up. */
static void lose_orders(struct shared_mem *m, const struct port *p)
{
    for (struct item **at = &m->first, *i; (i = *at);) {
        if (i->kind != ITEM_ORDER || i->port != p->index) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        free(i);
    }
}

static void deliver(struct shared_mem *m, struct item *i)
{
    static const enum shared_news_kind kinds[] = {[ITEM_UP] = SHARED_UP, [ITEM_DOWN] = SHARED_DOWN};
    struct port *p = &m->ports[i->port];
    if (i->kind == ITEM_ORDER) { /* what was sent is done, though its sender may be dead by now */
        if (m->state == SHARED_MEM_WELL)
            execute(m, p, &i->o);
    } else if (!p->open || i->life != p->life) {
        /* it was closed */
    } else if (i->kind == ITEM_NEWS) {
        if (!p->down)
            p->sink.news(p->sink.arg, &i->n);
    } else if (i->turn == m->turn) {
        struct shared_news n = {.kind = kinds[i->kind]};
        if (i->kind == ITEM_UP && p->slot != SHARED_NOBODY && p->fresh)
            bury(m, p->slot, 0); /* an earlier life vouched for them */
        p->fresh &= i->kind != ITEM_UP;
        p->down = i->kind == ITEM_DOWN;
        if (p->down && m->state == SHARED_MEM_CUT)
            lose_orders(m, p);
        p->sink.news(p->sink.arg, &n);
    }
}

void shared_mem_deliver(struct shared_mem *m)
{
    for (struct item **at = &m->first, *i; (i = *at) && i->at_ns <= m->now.mono_ns;) {
        if (waits(m, i)) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        deliver(m, i);
        free(i);
        at = &m->first; /* what came of it is behind, or waits */
    }
}

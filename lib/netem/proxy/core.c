/* Bytes in and out of a connection. */
#include <stdlib.h>
#include <string.h>

#include "netem/proxy/core_impl.h"

static void start_link(struct proxy_conn *c, unsigned slot, uint64_t now_ns)
{
    c->profile = malloc(sizeof *c->profile);
    c->link = malloc(sizeof *c->link);
    if (!c->profile || !c->link) {
        out_of_memory(c, NETEM_UP, now_ns);
        return;
    }
    *c->profile = *c->rules->toxic[slot]->profile;
    profile_for_streams(c->profile);
    c->link_slot = (uint8_t)slot;
    link_init(c->link, c->profile, c->rules->seed, c->number, now_ns);
}

static void stop_link(struct proxy_conn *c)
{
    free(c->link);
    free(c->profile);
    c->link = NULL;
    c->profile = NULL;
}

/* The rules changed: forget what was taken away, look at what is new. */
static void learn(struct proxy_conn *c, uint64_t now_ns)
{
    const struct proxy_rules *r = c->rules;
    uint32_t fresh = r->used & ~c->known;
    c->changes = r->changes;
    forget_toxics(c, c->known & ~r->used);
    if (c->link && !(r->used >> c->link_slot & 1))
        stop_link(c);
    c->known = r->used;
    for (uint32_t left = fresh; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = r->toxic[i];
        uint64_t draw = proxy_draw(r, t->number, c->number, 0, 0);
        if ((t->conn && t->conn != c->number) || draw % 1000000 >= t->share_ppm)
            continue;
        c->on |= 1u << i;
        if (t->kind == PROXY_PROFILE && !c->link)
            start_link(c, i, now_ns);
        place_bytes(c, i, now_ns);
        if (proxy_toxic_by_frame(t) && !c->follow)
            tell(c, NETEM_UP, now_ns, t, "not-followed", c->way[NETEM_UP].added, false);
    }
}

struct proxy_conn *proxy_conn_new(const struct proxy_rules *rules, uint64_t number, uint64_t now_ns,
                                  proxy_note *note, void *arg)
{
    struct proxy_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->rules = rules;
    c->number = number;
    c->opened_ns = now_ns;
    c->note = note;
    c->arg = arg;
    for (int d = 0; d < 2; d++) {
        buf_init(&c->way[d].copy, rules->buffer_max / 2);
        c->way[d].hold_at = c->way[d].void_from = c->way[d].gate_from = UINT64_MAX;
    }
    if (rules->follow || proxy_rules_by_frame(rules)) {
        c->follow = follow_new(rules);
        if (!c->follow) {
            free(c);
            return NULL;
        }
    }
    learn(c, now_ns);
    proxy_conn_tick(c, now_ns);
    return c;
}

void proxy_conn_free(struct proxy_conn *c)
{
    if (!c)
        return;
    follow_free(c->follow);
    stop_link(c);
    for (int d = 0; d < 2; d++) {
        queue_release(&c->way[d].q);
        buf_release(&c->way[d].copy);
    }
    free(c);
}

/* --- in ----------------------------------------------------------------------------------------------- */

size_t proxy_conn_room(const struct proxy_conn *c, enum netem_dir d)
{
    const struct way *w = &c->way[d];
    if (w->over || c->end)
        return 65536; /* into nothing */
    return c->rules->buffer_max > w->q.len ? c->rules->buffer_max - w->q.len : 0;
}

static bool add(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const void *p, size_t n)
{
    struct way *w = &c->way[d];
    if (!queue_add(&w->q, p, n)) {
        out_of_memory(c, d, now_ns);
        return false;
    }
    w->added += n;
    return true;
}

/* No WebSocket (any more): what was held passes, and from here on bytes are bytes. */
static void lose_track(struct proxy_conn *c, uint64_t now_ns)
{
    if (!c->follow || (c->follow->way[0].phase != FOLLOW_PLAIN && c->follow->way[1].phase != FOLLOW_PLAIN))
        return;
    follow_free(c->follow);
    c->follow = NULL;
    tell(c, NETEM_UP, now_ns, NULL, "not-followed", c->way[NETEM_UP].added, false);
    for (int d = 0; d < 2; d++) {
        struct way *w = &c->way[d];
        w->by_id = w->again = w->maybe_again = 0;
        w->hold_at = UINT64_MAX;
        buf_release(&w->copy);
        pass_on(c, (enum netem_dir)d, now_ns, w->added);
    }
}

/* One step of following: some bytes of one frame. */
static size_t put_followed(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const char *p, size_t n)
{
    struct way *w = &c->way[d];
    const struct follow_way *f = &c->follow->way[d];
    struct follow_step s;
    if (f->phase == FOLLOW_HEAD)
        w->key = w->added;
    size_t used = follow_next(c->follow, d, p, n, &s);
    uint64_t half = c->rules->buffer_max / 2, upto;
    if (!add(c, d, now_ns, p, used))
        return used;
    if (f->phase == FOLLOW_PLAIN) {
        lose_track(c, now_ns);
        return used;
    }
    if (s.begin)
        frame_begins(c, d, now_ns, s.header_n);
    else if (f->phase == FOLLOW_FRAMES && (w->again | w->maybe_again))
        buf_add(&w->copy, p, used);
    if (s.found & w->by_id)
        frame_found(c, d, now_ns, s.found & w->by_id);
    upto = w->added - f->header_n;
    if (!s.end && w->hold_at < upto) { /* no more than half of the buffer is held */
        uint64_t slid = w->added > half ? w->added - half : 0;
        upto = w->hold_at > slid ? w->hold_at : slid < upto ? slid : upto;
    }
    pass_on(c, d, now_ns, upto);
    if (s.end)
        frame_ends(c, d, now_ns);
    return used;
}

void proxy_conn_put(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const void *data, size_t n)
{
    struct way *w = &c->way[d];
    const char *p = data;
    w->in += n;
    if (!c->follow)
        w->key = w->added;
    while (n && !w->over && !c->end) {
        size_t used = n;
        if (c->follow)
            used = put_followed(c, d, now_ns, p, n);
        else if (add(c, d, now_ns, p, n))
            pass_on(c, d, now_ns, w->added);
        p += used;
        n -= used;
    }
}

static void at_the_end(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct way *w = &c->way[d];
    if (w->over || c->end)
        return;
    w->hold_at = UINT64_MAX;
    w->key = w->added;
    pass_on(c, d, now_ns, w->added); /* a frame that will never be whole */
    uint64_t due = leave_at(c, d, now_ns, 0), last = queue_last_due(&w->q);
    w->fin_due_ns = (due > last ? due : last) + fin_delay(c, d);
}

void proxy_conn_put_fin(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    at_the_end(c, d, now_ns);
    c->way[d].fin_in = true;
}

void proxy_conn_put_reset(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    at_the_end(c, d, now_ns);
    c->way[d].reset_in = true;
}

/* --- out ---------------------------------------------------------------------------------------------- */

/* How much is due and not held back by a stall; *next: when that changes by itself. */
static size_t may_leave(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t *next)
{
    struct way *w = &c->way[d];
    uint64_t until;
    *next = UINT64_MAX;
    if (c->end)
        return 0;
    if (way_stalled(c, d, now_ns, &until)) {
        *next = until;
        return 0;
    }
    size_t n = queue_due(&w->q, now_ns, next);
    if (w->gate_from != UINT64_MAX && n > w->gate_from - w->written)
        n = (size_t)(w->gate_from - w->written);
    return n;
}

static void gone(struct way *w, size_t n)
{
    queue_consume(&w->q, n);
    w->written += n;
    if (!w->q.len)
        w->backlog = false;
}

/* Into the void what is due there; returns what may still be written of n bytes. */
static size_t swallow(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n)
{
    struct way *w = &c->way[d];
    uint64_t until;
    if (w->void_until_ns && now_ns >= w->void_until_ns) {
        w->void_from = UINT64_MAX;
        w->void_until_ns = 0;
    }
    if (n && (way_void(c, d, now_ns, &until) || w->written >= w->void_from)) {
        gone(w, n);
        return 0;
    }
    return n > w->void_from - w->written ? (size_t)(w->void_from - w->written) : n;
}

size_t proxy_conn_ready(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const char **p)
{
    struct way *w = &c->way[d];
    uint64_t next;
    size_t n = swallow(c, d, now_ns, may_leave(c, d, now_ns, &next));
    *p = w->q.data + w->q.head;
    return n ? way_budget(c, d, now_ns, n, &next) : 0;
}

void proxy_conn_took(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n)
{
    way_spend(c, d, now_ns, n);
    gone(&c->way[d], n);
}

/* What follows the last byte may follow now: nothing is left of the way. *next as in may_leave. */
static bool drained(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t due_ns, uint64_t *next)
{
    struct way *w = &c->way[d];
    uint64_t until = UINT64_MAX;
    *next = UINT64_MAX;
    if (w->q.len || w->written >= w->gate_from)
        return false;
    if (way_stalled(c, d, now_ns, &until) || way_void(c, d, now_ns, &until) || w->written >= w->void_from) {
        *next = w->written >= w->void_from && w->void_until_ns ? w->void_until_ns : until;
        return false;
    }
    *next = due_ns;
    return now_ns >= due_ns;
}

bool proxy_conn_fin(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct way *w = &c->way[d];
    uint64_t next;
    if (!w->fin_in || w->fin_out || w->over || c->end || !drained(c, d, now_ns, w->fin_due_ns, &next))
        return false;
    w->fin_out = true;
    return true;
}

/* --- time and ends ------------------------------------------------------------------------------------ */

void proxy_conn_tick(struct proxy_conn *c, uint64_t now_ns)
{
    if (c->changes != c->rules->changes)
        learn(c, now_ns);
    if (!c->end)
        end_by_time(c, now_ns);
    else if (c->end == PROXY_ENDS_SILENT && now_ns >= c->silent_until_ns)
        c->end = PROXY_ENDS_RESET;
}

enum proxy_end proxy_conn_verdict(struct proxy_conn *c, uint64_t now_ns)
{
    uint64_t next;
    for (int d = 0; d < 2 && !c->end; d++) {
        const struct way *w = &c->way[d];
        if (w->ending && drained(c, (enum netem_dir)d, now_ns, w->end_due_ns, &next))
            come_to_end(c, w->ends_as, w->end_side, w->end_for_ns, now_ns);
        else if (w->reset_in && !w->over && drained(c, (enum netem_dir)d, now_ns, w->fin_due_ns, &next))
            c->end = PROXY_ENDS_RESET;
    }
    return c->end;
}

unsigned proxy_conn_silent(const struct proxy_conn *c)
{
    return c->end == PROXY_ENDS_SILENT ? c->silent : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t way_wake(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct way *w = &c->way[d];
    uint64_t next, at = UINT64_MAX;
    if (w->q.len) {
        size_t n = may_leave(c, d, now_ns, &next);
        at = earlier(at, next);
        if (n && !way_budget(c, d, now_ns, n, &next))
            at = earlier(at, next);
    }
    if (w->ending && !drained(c, d, now_ns, w->end_due_ns, &next))
        at = earlier(at, next);
    else if ((w->fin_in && !w->fin_out) || w->reset_in) {
        if (!drained(c, d, now_ns, w->fin_due_ns, &next))
            at = earlier(at, next);
    }
    return at;
}

uint64_t proxy_conn_wake(struct proxy_conn *c, uint64_t now_ns)
{
    uint64_t at = UINT64_MAX, edge;
    if (c->end)
        return c->end == PROXY_ENDS_SILENT ? c->silent_until_ns : UINT64_MAX;
    for (uint32_t left = c->on & ~c->fired; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        toxic_active(c, i, now_ns, &edge);
        at = earlier(at, edge);
    }
    return earlier(at, earlier(way_wake(c, NETEM_UP, now_ns), way_wake(c, NETEM_DOWN, now_ns)));
}

/* --- shortcuts and figures ---------------------------------------------------------------------------- */

bool proxy_conn_idle(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    const struct way *w = &c->way[d];
    return !c->follow && !c->link && !c->end && !w->q.len && !w->marks_n && !w->over && !w->fin_in &&
           !w->reset_in && w->gate_from == UINT64_MAX && w->void_from == UINT64_MAX &&
           (!c->on || !toxics_need_bytes(c, d, now_ns));
}

void proxy_conn_passed(struct proxy_conn *c, enum netem_dir d, uint64_t n)
{
    struct way *w = &c->way[d];
    w->in += n;
    w->added += n;
    w->timed += n;
    w->written += n;
}

uint64_t proxy_conn_bytes(const struct proxy_conn *c, enum netem_dir d)
{
    return c->way[d].in;
}

bool proxy_conn_followed(const struct proxy_conn *c)
{
    return c->follow != NULL;
}

bool proxy_conn_acted_on(const struct proxy_conn *c, unsigned toxic_slot)
{
    return c->on >> toxic_slot & 1;
}

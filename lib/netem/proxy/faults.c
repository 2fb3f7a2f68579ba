/* What happens at a place of the stream, and how connections end. */
#include <string.h>

#include "netem/proxy/core_impl.h"

/* --- telling ------------------------------------------------------------------------------------------ */

void tell(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const struct proxy_toxic *t,
          const char *what, uint64_t offset, bool by_place)
{
    struct proxy_event e = {.now_ns = now_ns,
                            .conn = c->number,
                            .offset = offset,
                            .toxic = t,
                            .what = what,
                            .dir = d,
                            .by_place = by_place};
    if (by_place && t && proxy_toxic_by_frame(t)) {
        e.frame = c->way[d].frame;
        e.has_id = t->has_id;
        e.id = t->id;
        if (!e.has_id && c->follow && c->follow->way[d].search.has_id) {
            e.has_id = true;
            e.id = c->follow->way[d].search.id;
        }
    }
    if (c->note)
        c->note(c->arg, &e);
}

/* Count a hit. False: its `times` are used up. */
static bool take(struct proxy_toxic *t)
{
    if (t->times && t->hits >= t->times)
        return false;
    t->hits++;
    return true;
}

void toxic_seen(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, unsigned i)
{
    if (c->counted >> i & 1)
        return;
    c->counted |= 1u << i;
    c->rules->toxic[i]->hits++;
    tell(c, d, now_ns, c->rules->toxic[i], proxy_kind_word(c->rules->toxic[i]->kind), c->way[d].added, false);
}

void out_of_memory(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    tell(c, d, now_ns, NULL, "out-of-memory", c->way[d].added, false);
    c->end = PROXY_ENDS_RESET;
}

void forget_toxics(struct proxy_conn *c, uint32_t slots)
{
    c->on &= ~slots;
    c->fired &= ~slots;
    c->counted &= ~slots;
    for (int d = 0; d < 2; d++) {
        struct way *w = &c->way[d];
        unsigned n = 0;
        w->by_id &= ~slots;
        w->again &= ~slots;
        w->maybe_again &= ~slots;
        for (unsigned i = 0; i < w->marks_n; i++) {
            if (!(slots >> w->marks[i].toxic & 1))
                w->marks[n++] = w->marks[i];
        }
        w->marks_n = (uint8_t)n;
        if (slots >> w->gate_toxic & 1)
            w->gate_from = UINT64_MAX;
        if (slots >> w->void_toxic & 1)
            w->void_from = UINT64_MAX;
        if (!w->by_id)
            w->hold_at = UINT64_MAX;
        for (unsigned i = 0; c->follow && i < PROXY_TOXICS_MAX; i++) {
            if (slots >> i & 1)
                c->follow->way[d].search.text_at[i] = c->follow->way[d].search.raw_at[i] = 0;
        }
    }
}

/* --- ends --------------------------------------------------------------------------------------------- */

void come_to_end(struct proxy_conn *c, enum proxy_end end, unsigned side, uint64_t for_ns, uint64_t now_ns)
{
    c->end = end;
    c->silent = (uint8_t)side;
    c->silent_until_ns = for_ns ? now_ns + for_ns : UINT64_MAX;
}

static enum proxy_end end_of(const struct proxy_toxic *t)
{
    static const enum proxy_end by_how[] = {PROXY_ENDS_CLOSE, PROXY_ENDS_RESET, PROXY_ENDS_SILENT};
    return t->kind == PROXY_RESET       ? PROXY_ENDS_RESET
           : t->kind == PROXY_HALF_OPEN ? PROXY_ENDS_SILENT
                                        : by_how[t->how];
}

/* The way is over: what was passed on still leaves, the rest is gone. */
static void end_way(struct way *w, const struct proxy_toxic *t, uint64_t now_ns)
{
    uint64_t last = queue_last_due(&w->q);
    queue_drop_tail(&w->q, (size_t)(w->added - w->timed));
    w->added = w->timed;
    w->over = w->ending = true;
    w->marks_n = 0;
    w->by_id = w->again = w->maybe_again = 0;
    buf_release(&w->copy);
    w->ends_as = end_of(t);
    w->end_side = t->side;
    w->end_for_ns = t->for_ns;
    w->end_due_ns = last > now_ns ? last : now_ns;
}

void end_by_time(struct proxy_conn *c, uint64_t now_ns)
{
    uint64_t edge;
    for (uint32_t left = c->on & ~c->fired; left && !c->end; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        struct proxy_toxic *t = c->rules->toxic[i];
        bool ends = t->kind == PROXY_RESET || t->kind == PROXY_HALF_OPEN || t->kind == PROXY_CUT;
        if (!ends || proxy_toxic_by_place(t) || !toxic_active(c, i, now_ns, &edge))
            continue;
        c->fired |= 1u << i;
        if (!take(t))
            continue;
        for (int d = 0; d < 2; d++)
            c->way[d].hold_at = UINT64_MAX;
        tell(c, NETEM_UP, now_ns, t, proxy_kind_word(t->kind), c->way[NETEM_UP].in, false);
        if (t->kind == PROXY_CUT && !c->way[0].over && !c->way[1].over) {
            end_way(&c->way[NETEM_UP], t, now_ns); /* what was on its way up still arrives */
            end_way(&c->way[NETEM_DOWN], t, now_ns);
        } else {
            come_to_end(c, end_of(t), t->side, t->for_ns, now_ns);
        }
    }
}

/* --- places ------------------------------------------------------------------------------------------- */

static void place(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, unsigned i, uint64_t offset)
{
    struct way *w = &c->way[d];
    unsigned at = w->marks_n;
    if (at == MARKS_MAX) {
        tell(c, d, now_ns, c->rules->toxic[i], "not-placed", offset, true);
        return;
    }
    for (; at && w->marks[at - 1].offset > offset; at--)
        w->marks[at] = w->marks[at - 1];
    w->marks[at] = (struct mark){offset, (uint8_t)i};
    w->marks_n++;
}

void place_bytes(struct proxy_conn *c, unsigned i, uint64_t now_ns)
{
    const struct proxy_toxic *t = c->rules->toxic[i];
    for (int d = 0; d < 2 && t->bytes; d++) {
        if (t->ways >> d & 1)
            place(c, (enum netem_dir)d, now_ns, i, c->way[d].added + t->bytes);
    }
}

static void pass_plain(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t upto)
{
    struct way *w = &c->way[d];
    while (w->timed < upto) {
        size_t n = (size_t)(upto - w->timed);
        if (c->link && n > MSS)
            n = MSS;
        if (!queue_time(&w->q, n, leave_at(c, d, now_ns, n))) {
            out_of_memory(c, d, now_ns);
            return;
        }
        w->timed += n;
    }
}

static void at_mark(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const struct mark *m)
{
    struct way *w = &c->way[d];
    struct proxy_toxic *t = c->rules->toxic[m->toxic];
    uint64_t last = queue_last_due(&w->q), then = last > now_ns ? last : now_ns;
    if (!proxy_toxic_by_frame(t) && !take(t)) /* frames were counted when they were hit */
        return;
    tell(c, d, now_ns, t, proxy_kind_word(t->kind), m->offset, true);
    if (t->kind == PROXY_STALL && t->for_ns) {
        w->floor_ns = then + t->for_ns;
    } else if (t->kind == PROXY_STALL) {
        w->gate_from = m->offset < w->gate_from ? m->offset : w->gate_from;
        w->gate_toxic = m->toxic;
    } else if (t->kind == PROXY_BLACKHOLE) {
        w->void_from = m->offset;
        w->void_until_ns = t->for_ns ? then + t->for_ns : 0;
        w->void_toxic = m->toxic;
    } else {
        end_way(w, t, now_ns);
    }
}

void pass_on(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t upto)
{
    struct way *w = &c->way[d];
    while (w->marks_n && w->marks[0].offset <= upto && !w->over) {
        struct mark m = w->marks[0];
        memmove(w->marks, w->marks + 1, --w->marks_n * sizeof m);
        pass_plain(c, d, now_ns, m.offset);
        at_mark(c, d, now_ns, &m);
    }
    if (!w->over)
        pass_plain(c, d, now_ns, upto);
}

/* --- frames ------------------------------------------------------------------------------------------- */

/* A share lies inside the frame unless it is 0 or all. */
static uint64_t place_in(const struct proxy_toxic *t, uint64_t len)
{
    if (!t->at.share)
        return t->at.n < len ? t->at.n : len;
    uint64_t at = (uint64_t)((__uint128_t)len * t->at.n / 1000000);
    if (!at && t->at.n)
        at = 1;
    return at == len && t->at.n < 1000000 ? len - 1 : at;
}

/* Does the number of the frame decide for it? *number: as the toxic counts. */
static bool hit_by_number(const struct proxy_conn *c, enum netem_dir d, const struct proxy_toxic *t,
                          bool control, uint64_t *number)
{
    const struct follow_way *f = &c->follow->way[d];
    if (t->of != PROXY_OF_ALL && (t->of == PROXY_OF_CONTROL) != control)
        return false;
    *number = t->of == PROXY_OF_ALL ? f->frames : control ? f->control : f->data;
    if (t->nth)
        return *number == t->nth;
    if (t->each)
        return *number % t->each == 0;
    return t->prob_ppm &&
           proxy_draw(c->rules, t->number, c->number, (uint64_t)d + 1, *number) % 1000000 < t->prob_ppm;
}

static void hit_frame(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, unsigned i)
{
    struct way *w = &c->way[d];
    struct proxy_toxic *t = c->rules->toxic[i];
    if (!take(t))
        return;
    if (t->kind == PROXY_DUPLICATE) {
        w->again |= 1u << i;
        return;
    }
    uint64_t at = w->frame_at + place_in(t, w->frame_len);
    place(c, d, now_ns, i, at > w->timed ? at : w->timed);
}

void frame_begins(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t header_n)
{
    struct way *w = &c->way[d];
    const struct follow_way *f = &c->follow->way[d];
    bool control = f->h.opcode & 8;
    uint64_t edge, number;
    w->frame_at = w->key = w->added - header_n;
    w->frame_len = header_n + f->h.len;
    w->frame = control ? f->control : f->data;
    w->hold_at = UINT64_MAX;
    w->by_id = w->again = w->maybe_again = 0;
    for (uint32_t left = c->on ? toxics_of(c, d) : 0; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        if (!proxy_toxic_by_frame(t) || !toxic_active(c, i, now_ns, &edge))
            continue;
        if (!t->has_id && hit_by_number(c, d, t, control, &number)) {
            hit_frame(c, d, now_ns, i);
        } else if (t->has_id && !control && (!t->times || t->hits < t->times)) {
            w->by_id |= 1u << i;
            uint64_t at = w->frame_at + place_in(t, w->frame_len);
            if (t->kind == PROXY_DUPLICATE)
                w->maybe_again |= 1u << i;
            else if (at < w->hold_at)
                w->hold_at = at;
        }
    }
    buf_release(&w->copy);
    buf_init(&w->copy, c->rules->buffer_max / 2);
    if (w->again | w->maybe_again)
        buf_add(&w->copy, f->header, header_n);
}

void frame_found(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint32_t found)
{
    struct way *w = &c->way[d];
    w->by_id &= ~found;
    for (uint32_t left = found; left; left &= left - 1)
        hit_frame(c, d, now_ns, (unsigned)__builtin_ctz(left));
    if (!(w->by_id & ~w->maybe_again))
        w->hold_at = UINT64_MAX;
}

void frame_ends(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct way *w = &c->way[d];
    w->hold_at = UINT64_MAX;
    pass_on(c, d, now_ns, w->added);
    for (uint32_t left = w->again; left && !w->over && !c->end; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        uint64_t copies = t->copies ? t->copies : 1;
        bool fits = !w->copy.failed && w->copy.len * copies <= c->rules->buffer_max;
        tell(c, d, now_ns, t, fits ? "duplicate" : "frame-too-large", w->frame_at, true);
        for (; copies && fits && !c->end; copies--) {
            if (!queue_add(&w->q, w->copy.data, w->copy.len)) {
                out_of_memory(c, d, now_ns);
                return;
            }
            w->added += w->copy.len;
            pass_on(c, d, now_ns, w->added);
        }
    }
    w->by_id = w->again = w->maybe_again = 0;
    if (w->copy.cap)
        buf_release(&w->copy);
}

#include "core/receipts.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"

void receipts_init(struct receipts *r, uint64_t seed)
{
    *r = (struct receipts){0};
    map_init(&r->chats, 8, 8, RECEIPTS_CHATS_MAX, seed);
}

static void chat_free(struct receipt_chat *c)
{
    for (uint32_t i = 0; i < c->watches_n; i++)
        free(c->watches[i].own);
    free(c->watches);
    free(c->members);
    free(c);
}

void receipts_release(struct receipts *r)
{
    size_t at = 0;
    void *v;
    while (map_next(&r->chats, &at, NULL, &v))
        chat_free(*(struct receipt_chat **)v);
    map_release(&r->chats);
    free(r->queue);
}

struct receipt_chat *receipts_chat(const struct receipts *r, uint64_t chat)
{
    return r->chats.count ? map_get_ptr(&r->chats, chat) : NULL;
}

struct receipt_chat *receipts_chat_make(struct receipts *r, uint64_t chat)
{
    struct receipt_chat *c = receipts_chat(r, chat), **slot;
    if (c || !(c = calloc(1, sizeof *c)))
        return c;
    c->chat = chat;
    if (!(slot = map_put_u64(&r->chats, chat, NULL))) {
        free(c);
        return NULL;
    }
    return *slot = c;
}

void receipts_chat_drop(struct receipts *r, struct receipt_chat *c)
{
    r->members_n -= c->members_n;
    map_del_u64(&r->chats, c->chat);
    chat_free(c);
}

void receipts_queue(struct receipts *r, struct receipt_chat *c)
{
    if (c->queued)
        return;
    if (r->queue_n == r->queue_cap) {
        uint32_t cap = r->queue_cap ? r->queue_cap * 2 : 64;
        uint64_t *p = realloc(r->queue, cap * sizeof *p);
        if (!p)
            return; /* told with the next change */
        r->queue = p;
        r->queue_cap = cap;
    }
    r->queue[r->queue_n++] = c->chat;
    c->queued = true;
}

/* ---- members ---- */

/* Where the user stands, or would. */
static uint32_t place(const struct receipt_chat *c, uint64_t user)
{
    uint32_t lo = 0, hi = c->members_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->members[mid].user < user)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct receipt_member *receipts_member(const struct receipt_chat *c, uint64_t user)
{
    uint32_t i = place(c, user);
    return i < c->members_n && c->members[i].user == user ? &c->members[i] : NULL;
}

struct receipt_member *receipts_member_above(const struct receipt_chat *c, uint64_t user)
{
    uint32_t i = user < UINT64_MAX ? place(c, user + 1) : c->members_n;
    return i < c->members_n ? &c->members[i] : NULL;
}

int receipts_member_set(struct receipts *r, struct receipt_chat *c, uint64_t user, uint64_t from)
{
    uint32_t i = place(c, user);
    if (i < c->members_n && c->members[i].user == user) {
        c->members[i].from = from & (UINT64_MAX >> 1);
        return 0;
    }
    if (r->members_n >= RECEIPTS_MEMBERS_MAX)
        return ERR_LIMIT;
    if (c->members_n == c->members_cap) {
        uint32_t cap = c->members_cap ? c->members_cap * 2 : 8;
        struct receipt_member *p = realloc(c->members, cap * sizeof *p);
        if (!p)
            return ERR_NOMEM;
        c->members = p;
        c->members_cap = cap;
    }
    memmove(&c->members[i + 1], &c->members[i], (c->members_n - i) * sizeof *c->members);
    c->members[i] = (struct receipt_member){.user = user, .from = from & (UINT64_MAX >> 1)};
    c->members_n++;
    r->members_n++;
    return 0;
}

void receipts_member_drop(struct receipts *r, struct receipt_chat *c, uint64_t user)
{
    struct receipt_member *m = receipts_member(c, user);
    if (!m)
        return;
    c->members_n--;
    r->members_n--;
    memmove(m, m + 1, (size_t)(&c->members[c->members_n] - m) * sizeof *m);
}

bool receipts_note(struct receipts *r, struct receipt_chat *c, uint64_t user, uint64_t delivered,
                   uint64_t read)
{
    struct receipt_member *m = receipts_member(c, user);
    if (!m || (delivered <= m->delivered && read <= m->read))
        return false;
    m->delivered = delivered > m->delivered ? delivered : m->delivered;
    m->read = read > m->read ? read : m->read;
    if (m->delivered < m->read) /* what was read has arrived */
        m->delivered = m->read;
    m->changed = true;
    receipts_queue(r, c);
    return true;
}

/* ---- watchers ---- */

struct receipt_watch *receipts_watch(const struct receipt_chat *c, uint64_t conn)
{
    for (uint32_t i = 0; i < c->watches_n; i++)
        if (c->watches[i].conn == conn)
            return &c->watches[i];
    return NULL;
}

int receipts_watch_add(struct receipt_chat *c, uint64_t conn, struct receipt_watch **out)
{
    *out = receipts_watch(c, conn);
    if (*out)
        return 0;
    if (c->watches_n == RECEIPTS_WATCHERS_MAX)
        return ERR_LIMIT;
    if (c->watches_n == c->watches_cap) {
        uint32_t cap = c->watches_cap ? c->watches_cap * 2 : 4;
        struct receipt_watch *p = realloc(c->watches, cap * sizeof *p);
        if (!p)
            return ERR_NOMEM;
        c->watches = p;
        c->watches_cap = cap;
    }
    *out = &c->watches[c->watches_n++];
    **out = (struct receipt_watch){.conn = conn};
    return 0;
}

void receipts_watch_drop(struct receipt_chat *c, struct receipt_watch *w)
{
    free(w->own);
    *w = c->watches[--c->watches_n];
}

int receipts_own_add(struct receipt_watch *w, uint64_t seq)
{
    if (!w->own && !(w->own = malloc(RECEIPTS_OWN_MAX * sizeof *w->own)))
        return ERR_NOMEM;
    uint32_t i = w->own_n;
    while (i && w->own[i - 1].seq >= seq)
        i--;
    if (i < w->own_n && w->own[i].seq == seq)
        return 0;
    if (w->own_n == RECEIPTS_OWN_MAX) {
        if (!i)
            return 0; /* lower than all there are */
        memmove(&w->own[0], &w->own[1], (size_t)(--i) * sizeof *w->own);
    } else {
        memmove(&w->own[i + 1], &w->own[i], (w->own_n - i) * sizeof *w->own);
        w->own_n++;
    }
    w->own[i] = (struct receipt_own){.seq = seq};
    return 0;
}

/* ---- counts ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* How many of a sorted list lie below `value`. */
static uint32_t below(const uint64_t *list, uint32_t n, uint64_t value)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (list[mid] < value)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* A cursor from before the membership says nothing: as if nothing of it had been got. */
static uint64_t reached(const struct receipt_member *m, uint64_t cursor)
{
    uint64_t none = m->from ? m->from - 1 : 0;
    return cursor > none ? cursor : none;
}

int receipts_count_begin(struct receipt_counts *k, const struct receipt_chat *c)
{
    uint32_t n = c->members_n;
    *k = (struct receipt_counts){.from = malloc((3 * (size_t)n + 1) * sizeof *k->from), .n = n};
    if (!k->from)
        return ERR_NOMEM;
    k->delivered = k->from + n;
    k->read = k->delivered + n;
    for (uint32_t i = 0; i < n; i++) {
        const struct receipt_member *m = &c->members[i];
        k->from[i] = m->from;
        k->delivered[i] = reached(m, m->delivered);
        k->read[i] = reached(m, m->read);
    }
    qsort(k->from, n, sizeof *k->from, by_value);
    qsort(k->delivered, n, sizeof *k->from, by_value);
    qsort(k->read, n, sizeof *k->from, by_value);
    return 0;
}

void receipts_count_end(struct receipt_counts *k)
{
    free(k->from);
}

/* Who had joined by then, less those of whom the cursor lies below: for who joined later it never does. */
struct msg_count receipts_count(const struct receipt_counts *k, const struct receipt_member *but,
                                uint64_t seq)
{
    uint32_t of = below(k->from, k->n, seq + 1), later = k->n - of;
    struct msg_count out = {.from = seq, .to = seq, .of = of};
    out.delivered = k->n - below(k->delivered, k->n, seq) - later;
    out.read = k->n - below(k->read, k->n, seq) - later;
    if (but && but->from <= seq) {
        out.of--;
        out.delivered -= reached(but, but->delivered) >= seq;
        out.read -= reached(but, but->read) >= seq;
    }
    return out;
}

static bool same(const struct msg_count *a, const struct msg_count *b)
{
    return a->delivered == b->delivered && a->read == b->read && a->of == b->of;
}

uint32_t receipts_count_own(const struct receipt_counts *k, const struct receipt_member *self,
                            struct receipt_watch *w, bool all, struct msg_count *out)
{
    uint32_t n = 0;
    bool joined = false; /* the row before it is that of the own message before it */
    for (uint32_t i = 0; i < w->own_n; i++) {
        struct receipt_own *o = &w->own[i];
        struct msg_count c = receipts_count(k, self, o->seq);
        bool news = all || !o->told || o->delivered != c.delivered || o->read != c.read || o->of != c.of;
        if (news && joined && same(&out[n - 1], &c))
            out[n - 1].to = o->seq;
        else if (news)
            out[n++] = c;
        joined = news;
        *o = (struct receipt_own){o->seq, c.delivered, c.read, c.of, true};
    }
    return n;
}

/* The rows of an offer: its entries, the memberships that follow from them, and the entry that tells of it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/recover_impl.h"
#include "util/mutant.h"

#define USERS_MAX PROTO_USERS_MAX
#define ENDED     3 /* role of an empty row: a removal whose beginning is not known (yet) ends here */

/* ---- bodies of membership entries: {"user":"8"}, {"users":["7","8"]} ---- */

static bool literal(const char **p, const char *end, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(end - *p) < n || memcmp(*p, text, n) != 0)
        return false;
    *p += n;
    return true;
}

static bool number(const char **p, const char *end, uint64_t *v)
{
    const char *start = *p;
    for (*v = 0; *p < end && **p >= '0' && **p <= '9'; ++*p)
        *v = *v * 10 + (uint64_t)(**p - '0');
    return *p > start && *p - start <= 20;
}

/* How many users, -1: it is no such body. */
static int users_of(const struct entry *e, uint64_t *out)
{
    const char *p = e->body, *end = p + e->body_len;
    int n = 0;
    if (e->op != ENTRY_CREATE) {
        bool good = literal(&p, end, "{\"user\":\"") && number(&p, end, &out[0]) && literal(&p, end, "\"}");
        return good && p == end ? 1 : -1;
    }
    if (!literal(&p, end, "{\"users\":["))
        return -1;
    do {
        if (n == (int)USERS_MAX + 1 || !literal(&p, end, "\"") || !number(&p, end, &out[n]) ||
            !literal(&p, end, "\""))
            return -1;
        n++;
    } while (literal(&p, end, ","));
    return literal(&p, end, "]}") && p == end ? n : -1;
}

static bool is_membership(const struct entry *e)
{
    return e->op == ENTRY_CREATE || e->op == ENTRY_JOIN || e->op == ENTRY_LEAVE || e->op == ENTRY_INVITE ||
           e->op == ENTRY_REMOVE;
}

bool recover_parses(const struct entry *e)
{
    uint64_t users[USERS_MAX + 1];
    return !is_membership(e) || users_of(e, users) >= 0;
}

/* ---- memberships ---- */

/* A membership begins, or what there is ends before `seq`. */
struct event {
    uint64_t user, seq;
    bool begins;
    uint8_t role;
};
struct events {
    struct event *at;
    size_t n, cap;
    bool failed;
};

static void add(struct events *v, uint64_t user, uint64_t seq, bool begins, uint8_t role)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 32;
        struct event *p = realloc(v->at, cap * sizeof *p);
        if (!p) {
            v->failed = true;
            return;
        }
        v->at = p;
        v->cap = cap;
    }
    v->at[v->n++] = (struct event){user, seq, begins, role};
}

static int by_user(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return (int)x->begins - (int)y->begins; /* an end before a beginning at the same seq */
}

static void add_entry(struct events *v, const struct entry *e)
{
    uint64_t users[USERS_MAX + 1];
    int n = is_membership(e) ? users_of(e, users) : 0;
    for (int i = 0; i < n; i++) {
        if (e->op == ENTRY_LEAVE || e->op == ENTRY_REMOVE)
            add(v, users[i], e->seq + 1, false, 0);
        else
            add(v, users[i], e->seq, true,
                e->op == ENTRY_INVITE                            ? MEMBER_INVITED
                : e->op == ENTRY_CREATE && users[i] == e->sender ? MEMBER_ADMIN
                                                                 : MEMBER_PLAIN);
    }
}

static bool concerns(const struct events *v, size_t n, uint64_t user)
{
    for (size_t i = 0; i < n; i++)
        if (v->at[i].user == user)
            return true;
    return false;
}

/* What the store has of the users that the offer concerns. */
static void add_rows(struct events *v, const struct offer *o)
{
    size_t n = v->n;
    for (size_t i = 0; i < o->members_n; i++) {
        const struct member_row *m = &o->members[i];
        if (!concerns(v, n, m->user))
            continue;
        if (m->role != ENDED)
            add(v, m->user, m->from, true, m->role);
        if (m->role == ENDED || (m->from < m->to && m->to != UINT64_MAX))
            add(v, m->user, m->to, false, 0);
    }
}

static bool put_row(struct store_batch *b, const struct member_row *row)
{
    struct member_row *p = realloc(b->members, (b->members_n + 1) * sizeof *p);
    if (!p)
        return false;
    b->members = p;
    b->members[b->members_n++] = *row;
    return true;
}

/* The ranges of one user, from their events in order. A membership goes on over a second beginning: then the
 * first row covers both, and the row of the second is left empty, for the day that an end between the two is
 * heard of. */
static bool put_ranges(struct store_batch *b, uint64_t chat, const struct event *v, size_t n)
{
    struct member_row open = {.from = UINT64_MAX};
    for (size_t i = 0; i < n; i++) {
        bool in = open.from != UINT64_MAX;
        if (!v[i].begins) {
            open.to = v[i].seq;
            struct member_row ended = {chat, v[i].user, v[i].seq, v[i].seq, ENDED};
            if (!put_row(b, in ? &open : &ended))
                return false;
            open.from = UINT64_MAX;
            continue;
        }
        if (in && open.role != MEMBER_INVITED && v[i].role != MEMBER_INVITED) {
            struct member_row empty = {chat, v[i].user, v[i].seq, v[i].seq, v[i].role};
            if (v[i].seq != open.from && !put_row(b, &empty))
                return false;
            open.role = open.role == MEMBER_ADMIN ? open.role : v[i].role;
            continue;
        }
        if (in && v[i].role == MEMBER_INVITED && open.role != MEMBER_INVITED) { /* a member stays one */
            struct member_row empty = {chat, v[i].user, v[i].seq, v[i].seq, MEMBER_INVITED};
            if (v[i].seq != open.from && !put_row(b, &empty))
                return false;
            continue;
        }
        open.to = v[i].seq;
        if (in && open.to > open.from && !put_row(b, &open))
            return false;
        open = (struct member_row){chat, v[i].user, v[i].seq, UINT64_MAX, v[i].role};
    }
    open.to = UINT64_MAX;
    return open.from == UINT64_MAX || put_row(b, &open);
}

static int put_members(struct store_batch *b, const struct offer *o)
{
    struct events v = {0};
    bool good = true;
    for (uint32_t i = 0; i < o->n; i++)
        add_entry(&v, &o->entries[i]);
    if (v.n)
        add_rows(&v, o);
    if (v.n)
        qsort(v.at, v.n, sizeof *v.at, by_user);
    for (size_t i = 0, next; i < v.n && good && !v.failed; i = next) {
        for (next = i; next < v.n && v.at[next].user == v.at[i].user;)
            next++;
        good = put_ranges(b, o->chat, &v.at[i], next - i);
    }
    good &= !v.failed;
    free(v.at);
    return good ? 0 : ERR_NOMEM;
}

size_t recover_changes(const struct recover *r, const struct offer *o, struct recover_member **out)
{
    const struct store_batch *b = &r->job.batch;
    struct recover_member *m = b->members_n ? malloc(b->members_n * sizeof *m) : NULL;
    size_t n = 0;
    (void)o;
    for (size_t i = 0; m && i < b->members_n; i++) { /* rows of one user are neighbours */
        const struct member_row *row = &b->members[i];
        if (!n || m[n - 1].user != row->user)
            m[n++] = (struct recover_member){.user = row->user, .from = UINT64_MAX};
        if (row->to == UINT64_MAX && row->from < row->to) {
            m[n - 1].from = row->from;
            m[n - 1].role = row->role;
        }
    }
    *out = m;
    return n;
}

/* ---- the batch ---- */

static int by_seq(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static char *ranges_text(const struct offer *o, size_t *len)
{
    uint64_t *seq = malloc((o->n + 1) * sizeof *seq);
    struct buf b = BUF_INIT(PROTO_BODY_MAX);
    if (!seq)
        return NULL;
    for (uint32_t i = 0; i < o->n; i++)
        seq[i] = o->entries[i].seq;
    qsort(seq, o->n, sizeof *seq, by_seq);
    buf_str(&b, "{\"ranges\":[");
    for (uint32_t i = 0, to; i < o->n; i = to + 1) {
        for (to = i; to + 1 < o->n && seq[to + 1] == seq[to] + 1;)
            to++;
        buf_str(&b, i ? ",[" : "[");
        buf_u64(&b, seq[i]);
        buf_char(&b, ',');
        buf_u64(&b, seq[to]);
        buf_char(&b, ']');
    }
    buf_str(&b, "]}");
    free(seq);
    if (b.failed) {
        buf_release(&b);
        return NULL;
    }
    *len = b.len;
    return b.data;
}

static int tell(struct recover *r, struct offer *o)
{
    struct chat *c = registry_chat_make(r->registry, o->chat);
    size_t n = 0;
    free(o->ranges);
    o->ranges = c ? ranges_text(o, &n) : NULL;
    if (!o->ranges)
        return ERR_NOMEM;
    struct entry *e = &o->recovered;
    *e = (struct entry){.chat = o->chat,
                        .id = id_new(r->io->now.wall_us / 1000, &r->io->rng),
                        .op = ENTRY_RECOVERED,
                        .kind = "recovered",
                        .kind_len = sizeof "recovered" - 1,
                        .body = o->ranges,
                        .body_len = (uint32_t)n};
    entry_content_hash(e->content, e->kind, e->kind_len, e->body, e->body_len);
    accept_give_seq(r->accept, c, e);
    return 0;
}

int recover_build(struct recover *r, struct offer *o)
{
    struct store_batch *b = &r->job.batch;
    r->job = (struct commit_job){0};
    b->entries = malloc((o->n + 1) * sizeof *b->entries);
    if (!b->entries || put_members(b, o) || tell(r, o)) {
        free(b->entries);
        free(b->members);
        r->job = (struct commit_job){0};
        return ERR_NOMEM;
    }
    memcpy(b->entries, o->entries, o->n * sizeof *b->entries);
    if (MUTANT(OFFER_RENUMBERED))
        for (uint32_t i = 0; i < o->n; i++)
            accept_give_seq(r->accept, registry_chat(r->registry, o->chat), &b->entries[i]);
    b->entries_n = o->n;
    b->entries[b->entries_n++] = o->recovered;
    return 0;
}

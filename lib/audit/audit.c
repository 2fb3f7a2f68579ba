#include "audit/audit.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "audit/journal.h"
#include "util/map.h"

#define DEVICES_MAX 64 /* of one user; their bits share a word */

enum message_flag { SENT = 1, ACCEPTED = 2, STORED = 4, SURFACED = 8, GAVE_UP = 16 };

struct message {
    struct id id;
    uint64_t sender, chat, epoch, seq;
    uint64_t stored_seq; /* once STORED */
    uint32_t shown;      /* users other than the sender */
    uint32_t flags;
};
struct place_key {
    uint64_t chat, epoch, seq;
};
struct member_key {
    uint64_t chat, user;
};
struct device_key {
    uint64_t user, device;
};
/* (message, an epoch other than the one it was first placed in): its seq there */
struct moved_key {
    uint64_t message, epoch;
};
/* (message, user): which of the user's devices showed it */
struct pair_key {
    uint64_t message, user;
};
struct order_key {
    uint64_t user, device, chat;
};
struct order_val {
    uint64_t epoch, seq;
};

struct audit {
    struct message *messages;
    uint32_t messages_n, messages_cap;
    struct map by_id;   /* id -> index + 1 */
    struct map place;   /* place_key -> index + 1 */
    struct map members; /* member_key -> 1 */
    struct map chats;   /* chat -> members */
    struct map devices; /* device_key -> bit number + 1; a phone that forgot gets a new bit */
    struct map ordinal; /* user -> bits given out */
    struct map pairs, order;
    struct map moved; /* moved_key -> seq */
    bool store_given;
    const char *file; /* where we read: for findings; NULL when a finding has no single place */
    uint64_t line;
    struct audit_result sum;
    struct audit_finding findings[AUDIT_KIND_COUNT * AUDIT_FINDINGS_MAX];
};

static const struct {
    const char *name, *text;
} kinds[] = {
#define AUDIT(ID, name, text) {name, text},
#include "audit/kinds.def"
#undef AUDIT
};

const char *audit_kind_name(enum audit_kind k)
{
    return kinds[k].name;
}

const char *audit_kind_text(enum audit_kind k)
{
    return kinds[k].text;
}

int audit_new(struct audit **out, struct err_ctx *ctx)
{
    struct audit *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    map_init(&a->by_id, sizeof(struct id), 8, AUDIT_MESSAGES_MAX, 1);
    map_init(&a->place, sizeof(struct place_key), 8, AUDIT_MESSAGES_MAX, 2);
    map_init(&a->members, sizeof(struct member_key), 8, AUDIT_PAIRS_MAX, 3);
    map_init(&a->chats, 8, 8, AUDIT_MESSAGES_MAX, 4);
    map_init(&a->devices, sizeof(struct device_key), 8, AUDIT_MESSAGES_MAX, 5);
    map_init(&a->ordinal, 8, 8, AUDIT_MESSAGES_MAX, 6);
    map_init(&a->pairs, sizeof(struct pair_key), 8, AUDIT_PAIRS_MAX, 7);
    map_init(&a->order, sizeof(struct order_key), sizeof(struct order_val), AUDIT_PAIRS_MAX, 8);
    map_init(&a->moved, sizeof(struct moved_key), 8, AUDIT_MESSAGES_MAX, 9);
    *out = a;
    return 0;
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    struct map *maps[] = {&a->by_id,   &a->place, &a->members, &a->chats, &a->devices,
                          &a->ordinal, &a->pairs, &a->order,   &a->moved};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        map_release(maps[i]);
    free(a->messages);
    free(a);
}

static void found(struct audit *a, enum audit_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void found(struct audit *a, enum audit_kind kind, const char *fmt, ...)
{
    a->sum.violations++;
    if (a->sum.count[kind]++ >= AUDIT_FINDINGS_MAX)
        return;
    struct audit_finding *f = &a->findings[a->sum.findings_n++];
    f->kind = kind;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
    if (a->file && n > 0 && (size_t)n < sizeof f->text)
        snprintf(f->text + n, sizeof f->text - (size_t)n, " (%s:%" PRIu64 ")", a->file, a->line);
}

static int full(struct err_ctx *ctx, const char *what)
{
    return err_set(ctx, ERR_LIMIT, "more %s than fit into memory", what);
}

static int message_of(struct audit *a, const struct id *id, struct message **out, struct err_ctx *ctx)
{
    bool fresh;
    uint64_t *at = map_put(&a->by_id, id, &fresh);
    if (!at)
        return full(ctx, "messages");
    if (fresh) {
        if (a->messages_n == a->messages_cap) {
            uint32_t cap = a->messages_cap ? a->messages_cap * 2 : 1024;
            struct message *p = realloc(a->messages, cap * sizeof *p);
            if (!p)
                return full(ctx, "messages");
            a->messages = p;
            a->messages_cap = cap;
        }
        a->messages[a->messages_n] = (struct message){.id = *id};
        *at = ++a->messages_n;
    }
    *out = &a->messages[*at - 1];
    return 0;
}

static void stands_twice(struct audit *a, const struct message *m, uint64_t seq, uint64_t other)
{
    char text[ID_TEXT + 1];
    found(a, AUDIT_STORED_TWICE, "%s stands in chat %" PRIu64 " at seq %" PRIu64 " and %" PRIu64 "",
          id_str(&m->id, text), m->chat, seq, other);
}

/* *good: it has no other seq in that epoch. Places in several epochs are judged at the end, when it is known
 * which of them the store has. */
static int note_place(struct audit *a, struct message *m, uint64_t chat, uint64_t epoch, uint64_t seq,
                      bool *good, struct err_ctx *ctx)
{
    struct moved_key key = {(uint64_t)(m - a->messages), epoch};
    bool fresh = false;
    uint64_t *at = &m->seq;
    if (!m->seq || m->chat != chat) {
        m->epoch = epoch;
        m->seq = seq;
    } else if (m->epoch != epoch) {
        if (!(at = map_put(&a->moved, &key, &fresh)))
            return full(ctx, "messages");
        *at = fresh ? seq : *at;
    }
    *good = *at == seq;
    if (!*good)
        stands_twice(a, m, *at, seq);
    return 0;
}

/* The message has one place and the place one message. */
static int take_place(struct audit *a, struct message *m, uint64_t chat, uint64_t epoch, uint64_t seq,
                      struct err_ctx *ctx)
{
    char text[ID_TEXT + 1], other[ID_TEXT + 1];
    uint64_t index = (uint64_t)(m - a->messages) + 1;
    struct place_key key = {chat, epoch, seq};
    bool fresh, good = false;
    int rc = note_place(a, m, chat, epoch, seq, &good, ctx);
    if (rc || !good)
        return rc;
    uint64_t *at = map_put(&a->place, &key, &fresh);
    if (!at)
        return full(ctx, "messages");
    if (fresh)
        *at = index;
    else if (*at != index)
        found(a, AUDIT_CONFLICT, "chat %" PRIu64 " seq %" PRIu64 " is %s and %s", chat, seq,
              id_str(&a->messages[*at - 1].id, other), id_str(&m->id, text));
    return 0;
}

static int add_member(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    struct member_key key = {r->chat, r->user};
    bool fresh;
    uint64_t *in = map_put(&a->members, &key, &fresh);
    uint64_t *n = in ? map_put_u64(&a->chats, r->chat, NULL) : NULL;
    if (!n)
        return full(ctx, "members");
    *n += fresh;
    return 0;
}

static int add_sent(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    struct message *m;
    char text[ID_TEXT + 1];
    int rc = message_of(a, &r->id, &m, ctx);
    if (rc)
        return rc;
    if (m->flags & SENT && (m->sender != r->user || m->chat != r->chat))
        found(a, AUDIT_FORGED,
              "%s was sent by user %" PRIu64 " to chat %" PRIu64 " and by %" PRIu64 " to %" PRIu64 "",
              id_str(&m->id, text), m->sender, m->chat, r->user, r->chat);
    a->sum.sent += !(m->flags & SENT);
    m->flags |= SENT;
    m->sender = r->user;
    m->chat = r->chat;
    return 0;
}

static int add_accepted(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    struct message *m;
    int rc = message_of(a, &r->id, &m, ctx);
    if (rc)
        return rc;
    a->sum.accepted += !(m->flags & ACCEPTED);
    if (!m->chat)
        m->chat = r->chat;
    m->flags |= ACCEPTED;
    return take_place(a, m, r->chat, r->epoch, r->seq, ctx);
}

/* The bit of a device among its user's. */
static int device_bit(struct audit *a, uint64_t user, uint32_t device, bool anew, unsigned *bit,
                      struct err_ctx *ctx)
{
    struct device_key key = {user, device};
    bool fresh;
    uint64_t *b = map_put(&a->devices, &key, &fresh), *given;
    if (!b)
        return full(ctx, "devices");
    if (fresh || anew) {
        given = map_put_u64(&a->ordinal, user, NULL);
        if (!given || *given == DEVICES_MAX)
            return full(ctx, "devices of one user");
        *b = ++*given;
    }
    *bit = (unsigned)*b - 1;
    return 0;
}

static int check_order(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    struct order_key key = {r->user, r->device, r->chat};
    struct order_val *last = map_put(&a->order, &key, NULL);
    if (!last)
        return full(ctx, "devices in chats");
    if (last->epoch == r->epoch && r->seq < last->seq)
        found(a, AUDIT_REORDERED,
              "user %" PRIu64 " device %u showed seq %" PRIu64 " of chat %" PRIu64 " after %" PRIu64 "",
              r->user, r->device, r->seq, r->chat, last->seq);
    else
        *last = (struct order_val){r->epoch, r->seq};
    return 0;
}

static int add_surfaced(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    struct message *m;
    char text[ID_TEXT + 1];
    unsigned bit;
    int rc = message_of(a, &r->id, &m, ctx);
    rc = rc ? rc : device_bit(a, r->user, r->device, false, &bit, ctx);
    if (rc)
        return rc;
    struct pair_key key = {(uint64_t)(m - a->messages), r->user};
    bool fresh;
    uint64_t *devices = map_put(&a->pairs, &key, &fresh);
    if (!devices)
        return full(ctx, "message-recipient pairs");
    a->sum.surfaced++;
    m->flags |= SURFACED;
    if (m->flags & SENT && (m->sender != r->from || m->chat != r->chat))
        found(a, AUDIT_FORGED,
              "%s was sent by user %" PRIu64 " to chat %" PRIu64 " and shown as from %" PRIu64 " in %" PRIu64
              "",
              id_str(&m->id, text), m->sender, m->chat, r->from, r->chat);
    if (!m->chat)
        m->chat = r->chat;
    if (*devices >> bit & 1) {
        found(a, AUDIT_DUPLICATE, "user %" PRIu64 " device %u showed %s of chat %" PRIu64 " twice", r->user,
              r->device, id_str(&m->id, text), r->chat);
        return 0;
    }
    *devices |= 1ull << bit;
    rc = take_place(a, m, r->chat, r->epoch, r->seq, ctx);
    return rc ? rc : check_order(a, r, ctx);
}

/* A phone that lost its storage may show everything again: it counts as a new device, in every chat. */
static int add_forgot(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    unsigned bit;
    size_t at = 0;
    const void *key;
    void *val;
    while (map_next(&a->order, &at, &key, &val)) {
        const struct order_key *k = key;
        if (k->user == r->user && k->device == r->device)
            *(struct order_val *)val = (struct order_val){0};
    }
    return device_bit(a, r->user, r->device, true, &bit, ctx);
}

static int add_row(struct audit *a, const struct journal_row *r, struct err_ctx *ctx)
{
    a->line = r->line;
    a->sum.rows++;
    switch (r->op) {
    case JOURNAL_MEMBER:
        return add_member(a, r, ctx);
    case JOURNAL_SENT:
        return add_sent(a, r, ctx);
    case JOURNAL_ACCEPTED:
        return add_accepted(a, r, ctx);
    case JOURNAL_SURFACED:
        return add_surfaced(a, r, ctx);
    case JOURNAL_GAVE_UP:
        a->sum.gave_up++;
        return 0;
    case JOURNAL_FORGOT:
        return add_forgot(a, r, ctx);
    case JOURNAL_OP_COUNT:
        break;
    }
    return 0;
}

static int add_file(struct audit *a, const char *path, struct err_ctx *ctx)
{
    struct journal *j;
    struct journal_row row;
    int rc = journal_open(&j, path, ctx);
    if (rc)
        return rc;
    const char *slash = strrchr(path, '/');
    a->file = slash ? slash + 1 : path;
    while ((rc = journal_next(j, &row, ctx)) == 1) {
        rc = add_row(a, &row, ctx);
        if (rc) {
            err_prefix(ctx, "%s:%llu: ", path, (unsigned long long)row.line);
            break;
        }
    }
    journal_close(j);
    a->file = NULL;
    return rc;
}

static int is_jsonl(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 6 && strcmp(d->d_name + n - 6, ".jsonl") == 0;
}

int audit_add_journal(struct audit *a, const char *path, struct err_ctx *ctx)
{
    struct stat st;
    if (stat(path, &st))
        return err_errno(ctx, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return add_file(a, path, ctx);
    struct dirent **list;
    int n = scandir(path, &list, is_jsonl, alphasort), rc = 0;
    if (n < 0)
        return err_errno(ctx, "%s", path);
    if (n == 0)
        rc = err_set(ctx, ERR_NOTFOUND, "%s: holds no journal (*.jsonl)", path);
    for (int i = 0; i < n; i++) {
        char full_path[1024];
        snprintf(full_path, sizeof full_path, "%s/%s", path, list[i]->d_name);
        if (!rc)
            rc = add_file(a, full_path, ctx);
        free(list[i]);
    }
    free(list);
    return rc;
}

void audit_expect_store(struct audit *a)
{
    a->store_given = true;
}

int audit_add_entry(struct audit *a, const struct entry *e, struct err_ctx *ctx)
{
    struct message *m;
    a->store_given = true;
    if (e->op != ENTRY_MESSAGE)
        return 0;
    int rc = message_of(a, &e->id, &m, ctx);
    if (rc)
        return rc;
    a->sum.stored++;
    if (m->flags & STORED && m->stored_seq != e->seq) {
        stands_twice(a, m, m->stored_seq, e->seq);
        m->stored_seq = e->seq > m->stored_seq ? e->seq : m->stored_seq; /* said once */
        return 0;
    }
    m->flags |= STORED;
    m->stored_seq = e->seq;
    if (!m->chat)
        m->chat = e->chat;
    return take_place(a, m, e->chat, e->epoch, e->seq, ctx);
}

bool audit_feed_entry(void *feed, const struct entry *e)
{
    struct audit_feed *f = feed;
    f->rc = audit_add_entry(f->audit, e, f->ctx);
    return f->rc == 0;
}

/* A store that was put back from a backup loses what it had promised, and begins an epoch with higher seqs: a
 * message that its sender sends again before a copy of it comes has a new place. Then the store has it there,
 * and there alone (audit_add_entry sees to that). */
static void check_moved(struct audit *a)
{
    size_t at = 0;
    const void *key;
    void *val;
    while (map_next(&a->moved, &at, &key, &val)) {
        const struct message *m = &a->messages[((const struct moved_key *)key)->message];
        uint64_t seq = *(const uint64_t *)val;
        if (!(m->flags & STORED) || m->stored_seq < seq || m->stored_seq < m->seq)
            stands_twice(a, m, m->seq, seq);
    }
}

/* Users who are no members, and for each message how many others saw it. */
static void count_pairs(struct audit *a)
{
    size_t at = 0;
    const void *key;
    void *val;
    char text[ID_TEXT + 1];
    while (map_next(&a->pairs, &at, &key, &val)) {
        const struct pair_key *p = key;
        struct message *m = &a->messages[p->message];
        struct member_key member = {m->chat, p->user};
        if (!map_get(&a->members, &member))
            found(a, AUDIT_OUTSIDER, "user %" PRIu64 " was shown %s of chat %" PRIu64, p->user,
                  id_str(&m->id, text), m->chat);
        else if (p->user != m->sender)
            m->shown++;
    }
}

/* Say who is missing; only walked for messages that lack somebody. */
static void name_missing(struct audit *a, const struct message *m)
{
    size_t at = 0;
    const void *key;
    void *val;
    char text[ID_TEXT + 1];
    if (a->sum.count[AUDIT_MISSING] >= AUDIT_FINDINGS_MAX)
        return;
    while (map_next(&a->members, &at, &key, &val)) {
        const struct member_key *k = key;
        struct pair_key pair = {(uint64_t)(m - a->messages), k->user};
        if (k->chat == m->chat && k->user != m->sender && !map_get(&a->pairs, &pair))
            found(a, AUDIT_MISSING, "user %" PRIu64 " never saw %s of chat %" PRIu64 " seq %" PRIu64, k->user,
                  id_str(&m->id, text), m->chat, m->seq);
    }
}

static void check_message(struct audit *a, const struct message *m, bool drained)
{
    char text[ID_TEXT + 1];
    if (m->flags & (SURFACED | ACCEPTED) && !(m->flags & SENT))
        found(a, AUDIT_PHANTOM, "%s of chat %" PRIu64 " was %s but never sent", id_str(&m->id, text), m->chat,
              m->flags & SURFACED ? "shown" : "accepted");
    if (!(m->flags & ACCEPTED))
        return;
    if (a->store_given && !(m->flags & STORED))
        found(a, AUDIT_NOT_STORED, "%s of chat %" PRIu64 " seq %" PRIu64 " is not in the store",
              id_str(&m->id, text), m->chat, m->seq);
    const uint64_t *n = map_get_u64(&a->chats, m->chat);
    struct member_key sender = {m->chat, m->sender};
    uint64_t others = n ? *n - (map_get(&a->members, &sender) != NULL) : 0;
    a->sum.pairs_expected += others;
    a->sum.pairs_surfaced += m->shown;
    if (m->shown >= others)
        return;
    uint64_t lacking = others - m->shown, before = a->sum.count[AUDIT_MISSING];
    if (!drained) {
        a->sum.pairs_pending += lacking;
        return;
    }
    name_missing(a, m);
    /* those beyond the named ones are counted all the same */
    uint64_t counted = a->sum.count[AUDIT_MISSING] - before;
    a->sum.count[AUDIT_MISSING] += lacking - counted;
    a->sum.violations += lacking - counted;
}

int audit_finish(struct audit *a, bool drained, struct audit_result *out, struct err_ctx *ctx)
{
    if (a->sum.rows == 0)
        return err_set(ctx, ERR_INVALID, "the journal is empty");
    count_pairs(a);
    check_moved(a);
    for (uint32_t i = 0; i < a->messages_n; i++)
        check_message(a, &a->messages[i], drained);
    a->sum.messages = a->messages_n;
    a->sum.findings = a->findings;
    *out = a->sum;
    return 0;
}

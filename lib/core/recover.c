#include "core/recover_impl.h"

#include <stdlib.h>
#include <string.h>

#include "util/mutant.h"

#define CHATS_MAX (1u << 28)

static const struct {
    const char *code, *text;
} refusals[RECOVER_REFUSALS] = {
#define R(NAME, code, text) {code, text},
#include "core/recover.def"
#undef R
};

const char *recover_refusal_code(enum recover_refusal r)
{
    return refusals[r].code;
}

const char *recover_refusal_text(enum recover_refusal r)
{
    return refusals[r].text;
}

void recover_init(struct recover *r, struct io *io, struct registry *registry, struct accept *a,
                  const struct recover_ops *ops, void *arg)
{
    *r = (struct recover){.io = io, .registry = registry, .accept = a, .ops = ops, .arg = arg};
    map_init(&r->floors, 8, 8, CHATS_MAX, rng_u64(&io->rng));
    map_init(&r->asking, 8, 8, CHATS_MAX, rng_u64(&io->rng));
}

static void offer_free(struct offer *o)
{
    free(o->entries);
    free(o->held);
    free(o->refused);
    free(o->members);
    free(o->text);
    free(o->ranges);
    free(o);
}

static void job_reset(struct recover *r)
{
    free(r->job.batch.entries);
    free(r->job.batch.members);
    r->job = (struct commit_job){0};
}

void recover_release(struct recover *r)
{
    while (r->first) {
        struct offer *next = r->first->next;
        offer_free(r->first);
        r->first = next;
    }
    job_reset(r);
    map_release(&r->floors);
    map_release(&r->asking);
    free(r->answered);
}

/* ---- the window ---- */

int recover_open(struct recover *r, uint64_t since_us, uint64_t until_us, uint64_t epoch)
{
    uint32_t users = slab_top(&r->registry->users);
    uint8_t *answered = calloc(users / 8 + 1, 1);
    if (!answered)
        return ERR_NOMEM;
    free(r->answered);
    r->answered = answered;
    r->users = users;
    r->users_answered = 0;
    r->since_us = since_us;
    r->until_us = until_us;
    r->opened_us = r->io->now.wall_us;
    r->ended_us = 0;
    r->open = true;
    r->closing = r->expired = false;
    map_clear(&r->floors);
    map_clear(&r->asking);
    for (uint32_t i = 1; i <= slab_top(&r->registry->chats); i++) {
        const struct chat *c = slab_at(&r->registry->chats, i);
        if (!c->epoch || c->epoch == epoch)
            continue;
        uint64_t *floor = map_put_u64(&r->floors, c->id, NULL);
        if (!floor)
            return ERR_NOMEM;
        *floor = c->durable;
    }
    return 0;
}

void recover_expire(struct recover *r)
{
    if (!r->open || r->closing)
        return;
    r->closing = r->expired = true;
    r->accept->extra_waits = true;
}

static void close_window(struct recover *r)
{
    r->open = r->closing = false;
    r->ended_us = r->io->now.wall_us;
    map_clear(&r->asking);
    r->ops->closed(r->arg);
}

static uint32_t number_of(const struct recover *r, const struct user *u)
{
    return slab_number(&r->registry->users, u);
}

bool recover_has_answered(const struct recover *r, const struct user *u)
{
    uint32_t n = number_of(r, u);
    return !r->open || n > r->users || (r->answered[n / 8] >> n % 8 & 1);
}

static void user_answered(struct recover *r, const struct user *u)
{
    uint32_t n = number_of(r, u);
    if (!r->open || n > r->users || (r->answered[n / 8] >> n % 8 & 1))
        return;
    r->answered[n / 8] |= (uint8_t)(1u << n % 8);
    if (++r->users_answered < r->users)
        return;
    r->closing = true;
    r->accept->extra_waits = true;
}

void recover_asked(struct recover *r, uint64_t conn)
{
    if (!map_put_u64(&r->asking, conn, NULL))
        return;
    r->counts.asked++;
}

void recover_gone(struct recover *r, uint64_t conn)
{
    if (r->asking.count)
        map_del_u64(&r->asking, conn);
}

/* One of the things asked of a device is over. */
void recover_answered(struct recover *r, uint64_t conn, const struct user *u)
{
    uint64_t *open = map_get_u64(&r->asking, conn);
    if (!open || (*open && --*open))
        return;
    map_del_u64(&r->asking, conn);
    r->counts.answered++;
    user_answered(r, u);
}

static void look_for(struct recover *r, uint64_t conn, uint64_t chat, uint64_t after, uint64_t upto)
{
    struct read_job *job = calloc(1, sizeof *job);
    uint64_t *open = map_get_u64(&r->asking, conn);
    if (!job || !open) {
        free(job);
        return;
    }
    ++*open;
    *job = (struct read_job){.kind = READ_MISSING, .owner = conn, .chat = chat, .after = after, .upto = upto};
    struct effect e = {.kind = EFFECT_READ, .read = job};
    r->io->emit(r->io->arg, &e);
}

/* From where on the store may lack something of a chat. */
static uint64_t may_lack_after(const struct recover *r, const struct msg_report *x)
{
    const uint64_t *floor = map_get_u64(&r->floors, x->chat);
    const struct chat *c = registry_chat(r->registry, x->chat);
    if (floor)
        return *floor;
    if (!c || !c->epoch)
        return 0;
    return x->head > RECOVER_FAR ? x->head - RECOVER_FAR : 0;
}

void recover_report(struct recover *r, uint64_t conn, const struct user *u, const struct msg *m)
{
    uint64_t *open = r->open ? map_get_u64(&r->asking, conn) : NULL;
    if (!open || *open)
        return; /* nobody asked, or it says so twice */
    *open = 1;  /* the report itself */
    for (uint32_t i = 0; i < m->reports_n; i++) {
        uint64_t after = may_lack_after(r, &m->reports[i]);
        if (m->reports[i].head > after)
            look_for(r, conn, m->reports[i].chat, after, m->reports[i].head);
    }
    recover_answered(r, conn, u);
}

bool recover_missing(struct recover *r, const struct read_job *job, const struct user *u)
{
    if (!map_get_u64(&r->asking, job->owner))
        return false;
    if (!job->rc && job->missing_n)
        return true;
    recover_answered(r, job->owner, u);
    return false;
}

/* ---- offers ---- */

static void refuse(struct recover *r, struct offer *o, const struct entry *e, enum recover_refusal why)
{
    struct recover_refused *x = &o->refused[o->refused_n++];
    *x = (struct recover_refused){.id = e->id, .seq = e->seq, .from = e->sender, .why = why};
    r->counts.refused[why]++;
    r->ops->refused(r->arg, o, x);
}

static bool tag_proves(const struct recover *r, const struct entry *e)
{
    struct tag_input in = entry_tag_input(e);
    return MUTANT(OFFER_UNVERIFIED) || tag_check(r->accept->keys, &in, e->tag);
}

/* Would this store have given this seq out itself, or may it yet? */
static bool contradicts(const struct recover *r, const struct entry *e)
{
    const struct chat *c = registry_chat(r->registry, e->chat);
    if (e->epoch == r->accept->epoch)
        return !c || !c->epoch || c->epoch != e->epoch || e->seq > c->head;
    return e->seq >= r->accept->seq_floor;
}

static struct entry entry_of(uint64_t chat, const struct msg_entry *x, char **text)
{
    struct entry e = {.chat = chat,
                      .epoch = x->epoch,
                      .seq = x->seq,
                      .sender = x->from,
                      .ts_us = x->ts,
                      .id = x->id,
                      .op = (uint8_t)entry_op_of(x->kind.p, x->kind.n),
                      .kind_len = (uint8_t)x->kind.n,
                      .body_len = (uint32_t)x->body.n,
                      .kind = *text,
                      .body = *text + x->kind.n};
    if (x->kind.n)
        memcpy(*text, x->kind.p, x->kind.n);
    if (x->body.n)
        memcpy(*text + x->kind.n, x->body.p, x->body.n);
    *text += x->kind.n + x->body.n;
    memcpy(e.tag, x->tag, sizeof e.tag);
    entry_content_hash(e.content, e.kind, e.kind_len, e.body, e.body_len);
    return e;
}

static struct offer *offer_new(const struct msg *m, uint64_t conn, uint64_t user)
{
    size_t text = 1;
    for (uint32_t i = 0; i < m->entries_n; i++)
        text += m->entries[i].kind.n + m->entries[i].body.n;
    struct offer *o = calloc(1, sizeof *o);
    size_t n = m->entries_n ? m->entries_n : 1;
    if (!o)
        return NULL;
    *o = (struct offer){.conn = conn, .user = user, .chat = m->chat, .more = m->more};
    o->entries = calloc(n, sizeof *o->entries);
    o->held = calloc(n, 1);
    o->refused = calloc(n, sizeof *o->refused);
    o->text = malloc(text);
    if (o->entries && o->held && o->refused && o->text)
        return o;
    offer_free(o);
    return NULL;
}

static void refuse_all(struct recover *r, struct offer *o, enum recover_refusal why)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->held[i] == HELD_NOT)
            refuse(r, o, &o->entries[i], why);
    o->n = 0;
}

static int rank(const struct entry *e)
{
    switch (e->op) {
    case ENTRY_LEAVE:
    case ENTRY_REMOVE:
    case ENTRY_DELETE:
        return 0; /* what ends something stands in the commit order before what it ends */
    case ENTRY_MESSAGE:
    case ENTRY_RECOVERED:
        return 1;
    default:
        return 2;
    }
}

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (rank(x) != rank(y))
        return rank(x) - rank(y);
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Two copies of one entry in one offer are one. */
static bool is_twice(const struct offer *o, const struct entry *e)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->entries[i].seq == e->seq || id_equal(&o->entries[i].id, &e->id))
            return true;
    return false;
}

static void take_entries(struct recover *r, struct offer *o, const struct msg *m)
{
    char *text = o->text;
    const struct entry *ahead = NULL;
    for (uint32_t i = 0; i < m->entries_n; i++) {
        struct entry e = entry_of(m->chat, &m->entries[i], &text);
        r->counts.entries++;
        if (m->entries[i].tag_len != sizeof e.tag || !tag_proves(r, &e)) {
            refuse(r, o, &e, RECOVER_FORGED);
        } else if (!recover_parses(&e)) {
            refuse(r, o, &e, RECOVER_INVALID);
        } else if (is_twice(o, &e)) {
            o->ok++;
        } else {
            o->entries[o->n++] = e;
            if (!ahead && contradicts(r, &e))
                ahead = &o->entries[o->n - 1];
        }
    }
    if (ahead)
        r->ops->contradicted(r->arg, ahead);
    qsort(o->entries, o->n, sizeof *o->entries, by_rank);
}

static void read_first(struct recover *r);

static void finish_first(struct recover *r)
{
    struct offer *o = r->first;
    r->first = o->next;
    if (!r->first)
        r->last = NULL;
    r->offers--;
    r->ops->answered(r->arg, o);
    offer_free(o);
    read_first(r);
}

static void read_first(struct recover *r)
{
    struct offer *o = r->first;
    r->accept->extra_waits = r->begin.wanted || (o ? o->read : r->closing);
    if (!o || o->reading || o->flying || o->read)
        return;
    struct read_job *job = calloc(1, sizeof *job);
    if (!job) {
        refuse_all(r, o, RECOVER_OVERLOADED);
        finish_first(r);
        return;
    }
    *job = (struct read_job){.kind = READ_OFFER,
                             .owner_ptr = o,
                             .chat = o->chat,
                             .offered = o->entries,
                             .held = o->held,
                             .offered_n = o->n};
    o->reading = true;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    r->io->emit(r->io->arg, &e);
}

void recover_offer(struct recover *r, uint64_t conn, const struct user *u, const struct msg *m)
{
    struct offer *o = offer_new(m, conn, u->id);
    if (!o)
        return; /* the client offers it again when it is asked again */
    take_entries(r, o, m);
    if (r->offers >= RECOVER_OFFERS_MAX)
        refuse_all(r, o, RECOVER_OVERLOADED);
    if (r->last)
        r->last->next = o;
    else
        r->first = o;
    r->last = o;
    r->offers++;
    read_first(r);
}

void recover_read_done(struct recover *r, struct read_job *job)
{
    struct offer *o = job->owner_ptr;
    if (o != r->first)
        return;
    o->reading = false;
    o->changes = r->accept->changes;
    if (job->rc) {
        refuse_all(r, o, RECOVER_OVERLOADED);
        finish_first(r);
        return;
    }
    free(o->members);
    o->members = job->members;
    o->members_n = job->members_n;
    job->members = NULL;
    o->read = true;
    read_first(r);
}

void recover_begin_epoch(struct recover *r, uint64_t above)
{
    if (r->begin.wanted)
        return;
    r->begin = (struct epoch_job){
        .wanted = true, .now_us = r->io->now.wall_us, .random = rng_u64(&r->io->rng), .above = above};
    r->accept->extra_waits = true;
}

/* ---- into the log ---- */

/* What of the offer is new; the rest is answered. */
static uint32_t sift(struct recover *r, struct offer *o)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        const struct entry *e = &o->entries[i];
        const struct known *k = accept_known(r->accept, e->sender, &e->id);
        uint8_t held = o->held[i];
        if (held == HELD_NOT && k && k->state == KNOWN_DURABLE)
            held = k->chat == e->chat && k->seq == e->seq ? HELD_THERE : HELD_ELSEWHERE;
        if (held == HELD_THERE) {
            o->ok++;
            r->counts.known++;
        } else if (held != HELD_NOT) {
            refuse(r, o, e, held == HELD_TAKEN ? RECOVER_SEQ_TAKEN : RECOVER_ID_ELSEWHERE);
        } else {
            o->held[n] = HELD_NOT;
            o->entries[n++] = *e;
        }
    }
    return o->n = n;
}

static struct commit_job *begin_job(struct recover *r)
{
    r->job = (struct commit_job){.begin = r->begin};
    return &r->job;
}

struct commit_job *recover_extra(struct recover *r)
{
    if (r->begin.wanted)
        return begin_job(r);
    while (r->first && r->first->read) {
        struct offer *o = r->first;
        if (o->changes != r->accept->changes) { /* memberships changed since */
            o->read = false;
            read_first(r);
            return NULL;
        }
        if (!sift(r, o)) {
            finish_first(r);
            continue;
        }
        if (recover_build(r, o)) {
            refuse_all(r, o, RECOVER_OVERLOADED);
            finish_first(r);
            continue;
        }
        o->flying = true;
        return &r->job;
    }
    if (r->closing && !r->first) {
        r->job = (struct commit_job){.batch.whole_epoch = r->accept->epoch};
        return &r->job;
    }
    r->accept->extra_waits = false;
    return NULL;
}

static void back(struct recover *r, struct offer *o)
{
    struct chat *c = registry_chat(r->registry, o->chat);
    struct recover_member *m = NULL;
    size_t n = recover_changes(r, o, &m);
    for (uint32_t i = 0; i < o->n; i++) {
        accept_adopt(r->accept, &o->entries[i]);
        r->counts.messages += o->entries[i].op == ENTRY_MESSAGE;
    }
    c->durable = o->recovered.seq;
    c->epoch_durable = o->recovered.epoch;
    o->ok += o->n;
    r->counts.accepted += o->n;
    r->accept->changes += n != 0;
    r->ops->back(r->arg, c, o, m, n);
    free(m);
}

void recover_extra_done(struct recover *r, struct commit_job *job)
{
    struct offer *o = r->first;
    if (job->begin.wanted) {
        r->begin = job->begin;
        r->begin.wanted = false;
        r->counts.epochs_begun += !job->rc;
        job_reset(r);
        read_first(r);
        return;
    }
    if (job->batch.whole_epoch) {
        bool failed = job->rc != 0;
        job_reset(r);
        if (!failed)
            close_window(r);
        return;
    }
    o->flying = o->read = false;
    if (job->rc) {
        accept_take_back(registry_chat(r->registry, o->chat));
        refuse_all(r, o, RECOVER_OVERLOADED);
    } else {
        back(r, o);
    }
    job_reset(r);
    finish_first(r);
}

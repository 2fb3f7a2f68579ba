#include "core/io.h"

#include <stdlib.h>
#include <string.h>

#define LOG_TEXT_MAX (8u << 20) /* one page of a log read, kinds and bodies */

bool log_entries_add(struct log_entries *l, const struct entry *e)
{
    size_t need = (size_t)e->kind_len + e->body_len;
    if (l->text_len + need > LOG_TEXT_MAX)
        return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        struct entry *p = realloc(l->list, cap * sizeof *p);
        if (!p) {
            l->failed = true;
            return false;
        }
        l->list = p;
        l->cap = cap;
    }
    if (l->text_len + need > l->text_cap) {
        size_t cap = l->text_cap ? l->text_cap : 4096;
        while (cap < l->text_len + need)
            cap *= 2;
        char *p = realloc(l->text, cap);
        if (!p) {
            l->failed = true;
            return false;
        }
        l->text = p;
        l->text_cap = cap;
    }
    memcpy(l->text + l->text_len, e->kind, e->kind_len);
    memcpy(l->text + l->text_len + e->kind_len, e->body, e->body_len);
    l->text_len += need;
    l->list[l->n++] = *e;
    return true;
}

static bool keep_entry(void *arg, const struct entry *e)
{
    return log_entries_add(arg, e);
}

void log_entries_settle(struct log_entries *l)
{
    size_t at = 0;
    for (size_t i = 0; i < l->n; i++) {
        l->list[i].kind = l->text + at;
        l->list[i].body = l->text + at + l->list[i].kind_len;
        at += (size_t)l->list[i].kind_len + l->list[i].body_len;
    }
}

static int read_log(struct store *s, struct read_job *job, struct err_ctx *err)
{
    if (job->since_us) {
        uint64_t first;
        int rc = store_seq_since(s, job->chat, job->since_us, &first, err);
        if (rc)
            return rc;
        if (first && first - 1 > job->after)
            job->after = first - 1;
    }
    int rc = store_read(s, job->chat, job->after, job->upto, job->limit, job->bytes_max, keep_entry,
                        &job->entries, err);
    log_entries_settle(&job->entries);
    return rc ? rc : job->entries.failed ? ERR_NOMEM : 0;
}

static int read_cursors(struct store *s, struct read_job *job, struct err_ctx *err)
{
    for (size_t i = 0; i < job->cursors_n; i++) {
        uint64_t chat = job->cursors[i].chat;
        int rc = store_cursor(s, chat, job->user, job->device, &job->cursors[i], err);
        if (rc == ERR_NOTFOUND) {
            job->cursors[i] = (struct cursor){.chat = chat, .delivered = UINT64_MAX};
            continue;
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- receipts ---- */

static bool add_cursor(void *arg, const struct cursor *c)
{
    struct read_job *job = arg;
    struct cursor *last = job->cursors_n ? &job->cursors[job->cursors_n - 1] : NULL;
    if (last && last->user == c->user) {
        last->delivered = c->delivered > last->delivered ? c->delivered : last->delivered;
        last->read = c->read > last->read ? c->read : last->read;
        return true;
    }
    if (job->cursors_n == job->cursors_cap) {
        size_t cap = job->cursors_cap ? job->cursors_cap * 2 : 32;
        struct cursor *p = realloc(job->cursors, cap * sizeof *p);
        if (!p) {
            job->rc = ERR_NOMEM;
            return false;
        }
        job->cursors = p;
        job->cursors_cap = cap;
    }
    job->cursors[job->cursors_n++] = *c;
    return true;
}

static bool take_sender(void *arg, const struct entry *e)
{
    *(uint64_t *)arg = e->op == ENTRY_MESSAGE ? e->sender : 0;
    return true;
}

static int read_receipts(struct store *s, struct read_job *job, struct err_ctx *err)
{
    size_t own = 0;
    int rc = store_cursors(s, job->chat, add_cursor, job, err);
    for (size_t i = 0; !rc && i < job->own_n; i++) {
        uint64_t sender = 0, seq = job->own[i];
        rc = seq ? store_read(s, job->chat, seq - 1, seq, 1, SIZE_MAX, take_sender, &sender, err) : 0;
        job->sender = sender;
        if (!rc && sender && sender == job->user)
            job->own[own++] = seq;
    }
    job->own_n = own;
    return rc ? rc : job->rc;
}

/* ---- what was lost ---- */

struct missing {
    struct read_job *job;
    uint64_t next; /* the first seq not accounted for */
    bool full, failed;
};

static void add_missing(struct missing *m, uint64_t to)
{
    struct read_job *job = m->job;
    if (m->next > to)
        return;
    if (job->missing_n == READ_MISSING_MAX) {
        m->full = true;
        return;
    }
    if (job->missing_n == job->missing_cap) {
        size_t cap = job->missing_cap ? job->missing_cap * 2 : 8;
        struct msg_range *p = realloc(job->missing, cap * sizeof *p);
        if (!p) {
            m->failed = true;
            return;
        }
        job->missing = p;
        job->missing_cap = cap;
    }
    job->missing[job->missing_n++] = (struct msg_range){m->next, to};
}

static bool note_present(void *arg, const struct entry *e)
{
    struct missing *m = arg;
    if (e->seq)
        add_missing(m, e->seq - 1);
    if (!m->full)
        m->next = e->seq + 1;
    return !m->full && !m->failed;
}

static int read_missing(struct store *s, struct read_job *job, struct err_ctx *err)
{
    struct missing m = {.job = job, .next = job->after + 1};
    int rc = store_read(s, job->chat, job->after, job->upto, UINT32_MAX, SIZE_MAX, note_present, &m, err);
    if (!rc && !m.full)
        add_missing(&m, job->upto);
    if (m.full)
        job->upto = job->missing[job->missing_n - 1].to;
    return rc ? rc : m.failed ? ERR_NOMEM : 0;
}

static bool keep_member(void *arg, const struct member_row *row)
{
    struct read_job *job = arg;
    if (job->members_n == job->members_cap) {
        size_t cap = job->members_cap ? job->members_cap * 2 : 16;
        struct member_row *p = realloc(job->members, cap * sizeof *p);
        if (!p) {
            job->rc = ERR_NOMEM;
            return false;
        }
        job->members = p;
        job->members_cap = cap;
    }
    job->members[job->members_n++] = *row;
    return true;
}

static int read_offer(struct store *s, struct read_job *job, struct err_ctx *err)
{
    job->rc = 0;
    for (size_t i = 0; i < job->offered_n; i++) {
        const struct entry *e = &job->offered[i];
        struct dedup d;
        struct id at;
        int rc = store_id_at(s, e->chat, e->seq, &at, err);
        if (rc == 0) {
            job->held[i] = id_equal(&at, &e->id) ? HELD_THERE : HELD_TAKEN;
            continue;
        }
        rc = rc == ERR_NOTFOUND ? store_dedup(s, e->sender, &e->id, &d, err) : rc;
        if (rc && rc != ERR_NOTFOUND)
            return rc;
        job->held[i] = rc ? HELD_NOT : HELD_ELSEWHERE;
    }
    job->members_n = 0;
    int rc = store_members(s, job->chat, keep_member, job, err);
    return rc ? rc : job->rc;
}

void job_run_read(struct store *s, struct read_job *job)
{
    struct err_ctx err = {0};
    switch (job->kind) {
    case READ_DEDUP:
        job->rc = store_dedup(s, job->sender, &job->id, &job->dedup, &err);
        job->found = job->rc == 0;
        if (job->rc == ERR_NOTFOUND)
            job->rc = 0;
        break;
    case READ_CURSORS:
        job->rc = read_cursors(s, job, &err);
        break;
    case READ_RECEIPTS:
        job->rc = read_receipts(s, job, &err);
        break;
    case READ_LOG:
        job->rc = read_log(s, job, &err);
        break;
    case READ_MISSING:
        job->rc = read_missing(s, job, &err);
        break;
    case READ_OFFER:
        job->rc = read_offer(s, job, &err);
        break;
    }
}

void job_run_commit(struct store *s, struct commit_job *job)
{
    struct epoch_job *b = &job->begin;
    if (!b->wanted) {
        job->rc = store_commit(s, &job->batch, &job->err);
        return;
    }
    job->rc = store_begin_epoch(s, b->now_us, b->random, b->above, &job->err);
    b->epoch = store_epoch(s);
    b->first_seq = store_next_seq(s, NULL);
}

void read_job_free(struct read_job *job)
{
    if (!job)
        return;
    free(job->cursors);
    free(job->own);
    free(job->entries.list);
    free(job->entries.text);
    free(job->missing);
    free(job->members);
    free(job);
}

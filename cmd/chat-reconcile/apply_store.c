/* A store as the target: lost entries return to their own seq, if their tag proves that the server wrote
 * them. Each goes through store_commit, with its dedup and log rows, in one synced batch: killed at any
 * moment, an entry is there whole or not at all, and the next run goes on with what is missing. No server may
 * run on it. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/chat-reconcile/plan.h"
#include "crypto/keys.h"
#include "store/store_impl.h"
#include "util/map.h"

#define BATCH 100u

/* An entry out of a plan, with what its kind and body point to. */
struct whole {
    struct entry e;
    char *text; /* kind, then body */
};

struct target {
    struct store *store;
    struct keys keys;
    struct map heads; /* chat -> struct chat_head */
    struct map members;
    bool failed;
};

static void conflict(struct plan_item *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void conflict(struct plan_item *x, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    x->state = ITEM_CONFLICT;
    vsnprintf(x->why, sizeof x->why, fmt, ap);
    va_end(ap);
}

static long field(const json_t *j, const char *name, void *to, size_t cap)
{
    const char *s = json_string_value(json_object_get(j, name));
    return s ? base64url_decode(to, cap, s, strlen(s)) : -1;
}

/* False: the item holds no whole entry. */
static bool take_entry(struct whole *w, const struct plan_item *x)
{
    json_t *j = x->to_text ? json_loads(x->to_text, 0, NULL) : NULL;
    const char *key = json_string_value(json_object_get(j, "key"));
    size_t room = x->to_text ? strlen(x->to_text) + 256 : 0;
    long kind, body;
    *w = (struct whole){.text = j ? malloc(room) : NULL};
    bool good = w->text && key && (kind = field(j, "kind_b64", w->text, 255)) >= 0 &&
                (body = field(j, "body_b64", w->text + kind, room - (size_t)kind)) >= 0 &&
                field(j, "tag", w->e.tag, sizeof w->e.tag) == (long)sizeof w->e.tag &&
                json_integer_value(json_object_get(j, "op")) == ENTRY_MESSAGE;
    if (good) {
        const struct reconcile_row *r = &x->to;
        w->e.chat = r->chat;
        w->e.epoch = r->epoch;
        w->e.seq = r->seq;
        w->e.sender = r->from;
        w->e.ts_us = r->ts_us;
        w->e.id = r->id;
        w->e.key_id = strtoull(key, NULL, 10);
        w->e.kind = w->text;
        w->e.kind_len = (uint8_t)kind;
        w->e.body = w->text + kind;
        w->e.body_len = (uint32_t)body;
        entry_content_hash(w->e.content, w->e.kind, w->e.kind_len, w->e.body, w->e.body_len);
        good = !memcmp(w->e.content, r->hash, sizeof r->hash);
    }
    json_decref(j);
    return good;
}

static bool tag_proves(const struct keys *k, const struct entry *e)
{
    struct tag_input in = entry_tag_input(e);
    return tag_check(k, &in, e->tag);
}

struct there {
    struct entry e;
    bool found;
};

static bool note(void *arg, const struct entry *e)
{
    struct there *t = arg;
    t->e = *e;
    t->found = true;
    return false;
}

/* Where the item stands. */
static int judge(struct target *t, struct plan_item *x, const struct whole *w, bool whole,
                 struct err_ctx *err)
{
    struct there at = {0};
    struct dedup d;
    const struct reconcile_row *r = &x->to;
    int rc = r->seq ? store_read(t->store, r->chat, r->seq - 1, r->seq, 1, SIZE_MAX, note, &at, err) : 0;
    if (rc)
        return rc;
    const struct chat_head *head = map_get_u64(&t->heads, r->chat);
    if (at.found && id_equal(&at.e.id, &r->id) && at.e.sender == r->from &&
        !memcmp(at.e.content, r->hash, sizeof r->hash)) {
        x->state = ITEM_DONE;
        return 0;
    }
    rc = store_dedup(t->store, r->from, &r->id, &d, err);
    if (rc && rc != ERR_NOTFOUND)
        return rc;
    if (at.found)
        conflict(x, "another entry stands at seq %" PRIu64, r->seq);
    else if (!rc)
        conflict(x, "its sender sent it again: it stands at seq %" PRIu64, d.seq);
    else if (!whole || x->has_from || !r->seq)
        conflict(x, "the plan holds no whole entry for it (seq %" PRIu64 ")", r->seq);
    else if (!tag_proves(&t->keys, &w->e))
        conflict(x,
                 "its tag proves nothing: chat %" PRIu64 " never got it from this server, or it was changed",
                 r->chat);
    else if (!map_get_u64(&t->members, r->chat))
        conflict(x, "chat %" PRIu64 " has no members in this store", r->chat);
    else if (r->epoch == store_epoch(t->store) && (!head || r->seq > head->seq))
        conflict(x,
                 "seq %" PRIu64
                 " lies ahead in the store's current epoch: restore it first, so that it starts a new one",
                 r->seq);
    else
        x->state = ITEM_TO_DO;
    return 0;
}

static void take_head(void *arg, const struct chat_head *h)
{
    struct target *t = arg;
    struct chat_head *at = map_put_u64(&t->heads, h->chat, NULL);
    t->failed |= !at;
    if (at)
        *at = *h;
}

static void take_member(void *arg, const struct member_row *m)
{
    struct target *t = arg;
    uint64_t *at = map_put_u64(&t->members, m->chat, NULL);
    t->failed |= !at;
    if (at)
        *at = 1;
}

static int open_target(struct target *t, const char *dir, bool change, const struct opt_set *o,
                       struct err_ctx *err)
{
    char url[4200];
    snprintf(url, sizeof url, "rocksdb:%s", dir);
    map_init(&t->heads, 8, sizeof(struct chat_head), SIZE_MAX, 1);
    map_init(&t->members, 8, 8, SIZE_MAX, 1);
    int rc = keys_open(&t->keys, opt_string(o, "keys"), false, err);
    if (!rc && access(dir, F_OK) < 0)
        rc = err_errno(err, "%s", dir);
    rc = rc ? rc : store_open(&t->store, &(struct store_config){.url = url, .read_only = !change}, err);
    rc = rc ? rc : store_load(t->store, &(struct store_load){take_head, take_member, t}, err);
    return rc || !t->failed ? rc : err_set(err, ERR_NOMEM, "out of memory");
}

static void close_target(struct target *t)
{
    keys_wipe(&t->keys);
    map_release(&t->heads);
    map_release(&t->members);
    store_drop(t->store);
}

/* `per_1000s` entries in 1000 s. */
static void throttle(uint64_t n, uint64_t per_1000s)
{
    uint64_t ns = per_1000s ? n * 1000000000000ull / per_1000s : 0;
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    nanosleep(&t, NULL);
}

static int commit(struct target *t, struct plan_item **items, struct whole *w, size_t n, uint64_t rate,
                  struct err_ctx *err)
{
    struct entry e[BATCH];
    if (!n)
        return 0;
    for (size_t i = 0; i < n; i++)
        e[i] = w[i].e;
    int rc = store_commit(t->store, &(struct store_batch){.entries = e, .entries_n = n}, err);
    for (size_t i = 0; i < n; i++) {
        free(w[i].text);
        if (!rc)
            items[i]->state = ITEM_DONE;
    }
    if (!rc && rate)
        throttle(n, rate);
    return rc;
}

int plan_run_store(struct plan *p, const char *dir, bool change, const struct opt_set *o, struct err_ctx *err)
{
    struct target t = {0};
    struct plan_item *items[BATCH];
    struct whole waiting[BATCH], w;
    size_t n = 0, bytes = 0;
    uint64_t rate = change ? opt_u64(o, "rate") : 0;
    /* a slow rate is kept entry by entry */
    size_t batch = rate && rate < 100000 * 10 ? 1 : BATCH;
    int rc = open_target(&t, dir, change, o, err);
    for (size_t i = 0; i < p->n && !rc; i++) {
        struct plan_item *x = &p->item[i];
        if (tool_interrupted)
            rc = err_set(err, ERR_INTERRUPTED, "interrupted; what is done stays, the next run goes on");
        if (rc || x->state == ITEM_CANNOT)
            continue;
        bool whole = take_entry(&w, x);
        rc = judge(&t, x, &w, whole, err);
        if (rc || x->state != ITEM_TO_DO || !change) {
            free(w.text);
            continue;
        }
        items[n] = x;
        waiting[n++] = w;
        bytes += w.e.body_len;
        if (n == batch || bytes > STORE_BATCH_BYTES / 2) {
            rc = commit(&t, items, waiting, n, rate, err);
            n = bytes = 0;
        }
    }
    if (rc)
        for (size_t i = 0; i < n; i++)
            free(waiting[i].text);
    else
        rc = commit(&t, items, waiting, n, rate, err);
    close_target(&t);
    return rc;
}

/* ---- undo ---- */

struct last {
    uint8_t key[8], val[64];
    size_t key_n, val_n;
};

static bool take_last(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct last *l = arg;
    l->key_n = key.n <= sizeof l->key ? key.n : 0;
    l->val_n = val.n <= sizeof l->val ? val.n : 0;
    memcpy(l->key, key.p, l->key_n);
    memcpy(l->val, val.p, l->val_n);
    return false;
}

/* Only the end of the log can be taken back: its numbers have no hole. */
static int take_back(struct kv *kv, struct kv_batch *b, struct plan_item *x, bool change, uint64_t *skipped,
                     struct err_ctx *err)
{
    struct row_key msg, dedup;
    struct buf val = BUF_INIT(2 * STORE_BATCH_BYTES);
    const struct reconcile_row *r = &x->from;
    struct entry e = {0};
    key_msg(&msg, r->chat, r->seq);
    int rc = kv->ops->get(kv, KV_MSG, key_bytes(&msg), &val, err);
    rc = rc ? rc : row_msg_read(&e, key_bytes(&msg), (struct kv_bytes){val.data, val.len}, err);
    bool ours = !rc && id_equal(&e.id, &r->id) && e.sender == r->from;
    buf_release(&val);
    if (rc == ERR_NOTFOUND || (!rc && !ours)) {
        x->state = ITEM_DONE;
        return 0;
    }
    struct last last = {0};
    struct kv_bytes all = {NULL, 0};
    rc = rc ? rc : kv->ops->scan(kv, KV_LOG, all, all, true, take_last, &last, err);
    if (rc)
        return rc;
    bool tail = last.val_n == msg.n && !memcmp(last.val, msg.b, msg.n);
    if (!change || *skipped || !tail) {
        x->state = ITEM_TO_DO;
        if (change || (!tail && !*skipped)) {
            conflict(x, "entries were committed after it (seq %" PRIu64 "): it stays", r->seq);
            ++*skipped;
        } else {
            ++*skipped; /* what lies before it can only be judged when it is gone */
        }
        return 0;
    }
    key_dedup(&dedup, e.sender, &e.id);
    kv->ops->batch_reset(b);
    kv->ops->del(b, KV_MSG, key_bytes(&msg));
    kv->ops->del(b, KV_DEDUP, key_bytes(&dedup));
    kv->ops->del(b, KV_LOG, (struct kv_bytes){last.key, last.key_n});
    rc = kv->ops->write(kv, b, KV_SYNC, err);
    x->state = rc ? ITEM_TO_DO : ITEM_DONE;
    return rc;
}

int plan_unrun_store(struct plan *p, const char *dir, bool change, struct err_ctx *err)
{
    struct kv *kv = NULL;
    uint64_t skipped = 0;
    int lock = change ? lock_take(dir, err) : 0;
    if (lock < 0)
        return lock;
    int rc = kv_rocksdb_open(&kv, &(struct kv_rocksdb_config){.dir = dir, .read_only = !change}, err);
    struct kv_batch *b = rc ? NULL : kv->ops->batch_new(kv);
    if (!rc && !b)
        rc = err_set(err, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < p->n && !rc; i++)
        if (tool_interrupted)
            rc = err_set(err, ERR_INTERRUPTED,
                         "interrupted; what is taken back stays so, the next run goes on");
        else if (p->item[i].state != ITEM_CANNOT && p->item[i].has_from)
            rc = take_back(kv, b, &p->item[i], change, &skipped, err);
    if (b)
        kv->ops->batch_free(b);
    if (kv)
        kv->ops->close(kv);
    if (change)
        close(lock);
    return rc;
}

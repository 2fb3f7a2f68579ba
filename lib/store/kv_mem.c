/* The kv in memory: one skip list per family (Pugh 1990), and an undo list back to the last sync, so that a
 * power cut can take what was not synced. */
#include <pthread.h>

#include "store/kv.h"

#define LEVELS    20
#define KEY_BYTES 64u
#define MEM_MAGIC 0x6b766d656d000001ull

struct node {
    uint8_t *val;
    uint32_t val_n;
    uint8_t key_n, levels;
    struct node *next[]; /* `levels` of them, then the key */
};

struct list {
    struct node *head[LEVELS];
    int top; /* levels in use */
};

enum op_type { OP_PUT, OP_MERGE, OP_DEL };

/* Batches and the undo list are both arrays of these, the bytes packed in one buffer. */
struct op {
    uint8_t type, family, key_n;
    uint32_t val_n;
    size_t at; /* of key and value in the bytes */
};

struct ops {
    struct op *v;
    size_t n, cap;
    struct buf bytes;
    bool failed;
};

struct kv_batch {
    struct ops ops;
};

struct kv_mem {
    struct kv kv;
    uint64_t magic, coin, fail_after, bytes;
    int fail_code;
    bool fail_armed, fail_applied, dead;
    struct list family[KV_FAMILIES];
    struct ops undo;
    /* the batches that are not synced, to be made again; `upto` of each is where its operations end */
    struct ops redo;
    size_t *upto, upto_n, upto_cap;
    pthread_rwlock_t lock;
};

static struct kv_mem *mem_of(struct kv *kv)
{
    struct kv_mem *m = (struct kv_mem *)kv;
    BUG_ON(m->magic != MEM_MAGIC);
    return m;
}

static uint8_t *node_key(const struct node *n)
{
    return (uint8_t *)&n->next[n->levels];
}

static size_t node_bytes(size_t levels, size_t key_n)
{
    return sizeof(struct node) + levels * sizeof(struct node *) + key_n;
}

/* The first 8 bytes as one number: most keys differ there. */
static uint64_t first_bytes(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static int compare(const struct node *n, struct kv_bytes key)
{
    if (n->key_n >= 8 && key.n >= 8) {
        uint64_t a = first_bytes(node_key(n)), b = first_bytes(key.p);
        if (a != b)
            return a < b ? -1 : 1;
    }
    size_t min = n->key_n < key.n ? n->key_n : key.n;
    int c = min ? memcmp(node_key(n), key.p, min) : 0;
    return c ? c : n->key_n < key.n ? -1 : n->key_n > key.n;
}

/* The first node with key >= `key` (NULL: none); before[] gets the links that lead to it on each level. */
static struct node *seek(struct list *l, struct kv_bytes key, struct node ***before)
{
    struct node **links = l->head, *n = NULL;
    for (int i = LEVELS - 1; before && i >= l->top; i--)
        before[i] = links;
    for (int i = l->top - 1; i >= 0; i--) {
        while ((n = links[i]) && compare(n, key) < 0)
            links = n->next;
        if (before)
            before[i] = links;
    }
    return n;
}

/* The last node with key < `key`; an empty key means the last of all. */
static struct node *seek_below(struct list *l, struct kv_bytes key)
{
    struct node **links = l->head, *n, *found = NULL;
    for (int i = l->top - 1; i >= 0; i--)
        while ((n = links[i]) && (key.n == 0 || compare(n, key) < 0)) {
            links = n->next;
            found = n;
        }
    return found;
}

static bool equal(const struct node *n, struct kv_bytes key)
{
    return n && compare(n, key) == 0;
}

static void ops_release(struct ops *o)
{
    free(o->v);
    buf_release(&o->bytes);
    *o = (struct ops){.bytes = BUF_INIT(SIZE_MAX / 4)};
}

static void ops_add(struct ops *o, enum op_type type, enum kv_family f, struct kv_bytes key,
                    struct kv_bytes val)
{
    BUG_ON(key.n > KEY_BYTES || key.n == 0);
    if (o->n == o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 64;
        struct op *v = realloc(o->v, cap * sizeof *v);
        if (!v) {
            o->failed = true;
            return;
        }
        o->v = v;
        o->cap = cap;
    }
    o->v[o->n] = (struct op){.type = (uint8_t)type,
                             .family = (uint8_t)f,
                             .key_n = (uint8_t)key.n,
                             .val_n = (uint32_t)val.n,
                             .at = o->bytes.len};
    buf_add(&o->bytes, key.p, key.n);
    buf_add(&o->bytes, val.p, val.n);
    o->failed |= o->bytes.failed;
    if (!o->failed)
        o->n++;
}

static struct kv_bytes op_key(const struct ops *o, const struct op *op)
{
    return (struct kv_bytes){o->bytes.data + op->at, op->key_n};
}

static struct kv_bytes op_val(const struct ops *o, const struct op *op)
{
    return (struct kv_bytes){o->bytes.data + op->at + op->key_n, op->val_n};
}

static uint8_t pick_levels(struct kv_mem *m)
{
    uint8_t levels = 1;
    m->coin = m->coin * 6364136223846793005ull + 1442695040888963407ull;
    for (uint64_t c = m->coin >> 20; levels < LEVELS && (c & 3) == 0; c >>= 2)
        levels++;
    return levels;
}

static int list_put(struct kv_mem *m, struct list *l, struct kv_bytes key, struct kv_bytes val)
{
    struct node **before[LEVELS], *n = seek(l, key, before);
    uint8_t *copy = malloc(val.n ? val.n : 1);
    if (!copy)
        return ERR_NOMEM;
    if (val.n)
        memcpy(copy, val.p, val.n);
    if (!equal(n, key)) {
        uint8_t levels = pick_levels(m);
        n = calloc(1, node_bytes(levels, key.n));
        if (!n) {
            free(copy);
            return ERR_NOMEM;
        }
        n->levels = levels;
        l->top = levels > l->top ? levels : l->top;
        n->key_n = (uint8_t)key.n;
        memcpy(node_key(n), key.p, key.n);
        for (int i = 0; i < levels; i++) {
            n->next[i] = before[i][i];
            before[i][i] = n;
        }
        m->bytes += node_bytes(levels, key.n);
    }
    m->bytes += val.n - n->val_n;
    free(n->val);
    n->val = copy;
    n->val_n = (uint32_t)val.n;
    return 0;
}

static void list_del(struct kv_mem *m, struct list *l, struct kv_bytes key)
{
    struct node **before[LEVELS], *n = seek(l, key, before);
    if (!equal(n, key))
        return;
    for (int i = 0; i < n->levels; i++)
        before[i][i] = n->next[i];
    m->bytes -= node_bytes(n->levels, n->key_n) + n->val_n;
    free(n->val);
    free(n);
}

static void remember(struct kv_mem *m, struct list *l, enum kv_family f, struct kv_bytes key)
{
    struct node *n = seek(l, key, NULL);
    if (equal(n, key))
        ops_add(&m->undo, OP_PUT, f, key, (struct kv_bytes){n->val, n->val_n});
    else
        ops_add(&m->undo, OP_DEL, f, key, (struct kv_bytes){NULL, 0});
}

static int apply_one(struct kv_mem *m, const struct ops *o, const struct op *op)
{
    struct list *l = &m->family[op->family];
    struct kv_bytes key = op_key(o, op), val = op_val(o, op);
    uint8_t merged[KV_CURSOR_BYTES];
    if (op->type == OP_DEL) {
        list_del(m, l, key);
        return 0;
    }
    if (op->type == OP_MERGE) {
        struct node *n = seek(l, key, NULL);
        BUG_ON(val.n != KV_CURSOR_BYTES);
        if (equal(n, key)) {
            memcpy(merged, n->val, sizeof merged);
            kv_cursor_merge(merged, val.p);
            val.p = merged;
        }
    }
    return list_put(m, l, key, val);
}

/* Undo back to the first `keep` records. Memory that undoing a deletion needs may be missing: a bug then, the
 * simulated disk cannot continue. */
static void roll_back(struct kv_mem *m, size_t keep)
{
    struct ops *u = &m->undo;
    for (; u->n > keep; u->n--) {
        BUG_ON(apply_one(m, u, &u->v[u->n - 1]) != 0);
        u->bytes.len = u->v[u->n - 1].at;
    }
    u->failed = u->bytes.failed = false;
}

static int apply(struct kv_mem *m, const struct ops *o)
{
    size_t keep = m->undo.n;
    int rc = 0;
    for (size_t i = 0; i < o->n && rc == 0; i++) {
        const struct op *op = &o->v[i];
        remember(m, &m->family[op->family], op->family, op_key(o, op));
        rc = m->undo.failed ? ERR_NOMEM : apply_one(m, o, op);
    }
    if (rc)
        roll_back(m, keep);
    return rc;
}

static void forget(struct kv_mem *m)
{
    m->undo.n = m->redo.n = m->upto_n = 0;
    buf_reset(&m->undo.bytes);
    buf_reset(&m->redo.bytes);
    m->redo.failed = false;
}

/* A batch that a power cut may take, or leave. Without memory for it the power cut takes it. */
static void remember_batch(struct kv_mem *m, const struct ops *o)
{
    size_t keep = m->redo.n;
    if (m->upto_n == m->upto_cap) {
        size_t cap = m->upto_cap ? m->upto_cap * 2 : 16;
        size_t *upto = realloc(m->upto, cap * sizeof *upto);
        if (!upto)
            return;
        m->upto = upto;
        m->upto_cap = cap;
    }
    for (size_t i = 0; i < o->n; i++)
        ops_add(&m->redo, (enum op_type)o->v[i].type, (enum kv_family)o->v[i].family, op_key(o, &o->v[i]),
                op_val(o, &o->v[i]));
    if (m->redo.failed)
        m->redo.n = keep;
    else
        m->upto[m->upto_n++] = m->redo.n;
}

static struct kv_batch *mem_batch_new(struct kv *kv)
{
    (void)kv;
    struct kv_batch *b = calloc(1, sizeof *b);
    if (b)
        buf_init(&b->ops.bytes, SIZE_MAX / 4);
    return b;
}

static void mem_batch_reset(struct kv_batch *b)
{
    b->ops.n = 0;
    b->ops.failed = false;
    buf_reset(&b->ops.bytes);
}

static void mem_batch_free(struct kv_batch *b)
{
    if (b)
        ops_release(&b->ops);
    free(b);
}

static void mem_put(struct kv_batch *b, enum kv_family f, struct kv_bytes key, struct kv_bytes val)
{
    ops_add(&b->ops, OP_PUT, f, key, val);
}

static void mem_merge(struct kv_batch *b, enum kv_family f, struct kv_bytes key, struct kv_bytes val)
{
    ops_add(&b->ops, OP_MERGE, f, key, val);
}

static void mem_del(struct kv_batch *b, enum kv_family f, struct kv_bytes key)
{
    ops_add(&b->ops, OP_DEL, f, key, (struct kv_bytes){NULL, 0});
}

static int refuse_dead(const struct kv_mem *m, struct err_ctx *ctx)
{
    return m->dead ? err_set(ctx, ERR_IO, "mem: a write failed earlier; open it again") : 0;
}

/* 0, or the failure that kv_mem_fail planned for this write. */
static int planned_failure(struct kv_mem *m, const struct ops *o, struct err_ctx *ctx)
{
    if (!m->fail_armed || m->fail_after-- > 0)
        return 0;
    m->fail_armed = false;
    if (m->fail_code == ERR_FULL)
        return err_set(ctx, ERR_FULL, "mem: no space left");
    if (m->fail_applied)
        apply(m, o);
    m->dead = true;
    return err_set(ctx, ERR_IO, "mem: write failed");
}

static int mem_write(struct kv *kv, struct kv_batch *b, unsigned how, struct err_ctx *ctx)
{
    struct kv_mem *m = mem_of(kv);
    pthread_rwlock_wrlock(&m->lock);
    int rc = refuse_dead(m, ctx);
    if (rc == 0)
        rc = planned_failure(m, &b->ops, ctx);
    if (rc == 0) {
        rc = b->ops.failed ? ERR_NOMEM : apply(m, &b->ops);
        if (rc)
            err_set(ctx, rc, "mem: out of memory");
        else if (how & KV_SYNC)
            forget(m);
        else
            remember_batch(m, &b->ops);
    }
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int mem_get(struct kv *kv, enum kv_family f, struct kv_bytes key, struct buf *out, struct err_ctx *ctx)
{
    struct kv_mem *m = mem_of(kv);
    pthread_rwlock_rdlock(&m->lock);
    int rc = refuse_dead(m, ctx);
    if (rc == 0) {
        const struct node *n = seek(&m->family[f], key, NULL);
        if (!equal(n, key))
            rc = ERR_NOTFOUND;
        else
            buf_add(out, n->val, n->val_n);
    }
    pthread_rwlock_unlock(&m->lock);
    return rc == 0 && out->failed ? err_set(ctx, ERR_LIMIT, "mem: value larger than the buffer") : rc;
}

static bool in_range(const struct node *n, struct kv_bytes from, struct kv_bytes to)
{
    return n && compare(n, from) >= 0 && (to.n == 0 || compare(n, to) < 0);
}

static int mem_scan(struct kv *kv, enum kv_family f, struct kv_bytes from, struct kv_bytes to, bool reverse,
                    kv_scan_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct kv_mem *m = mem_of(kv);
    struct list *l = &m->family[f];
    pthread_rwlock_rdlock(&m->lock);
    int rc = refuse_dead(m, ctx);
    struct node *n = rc ? NULL : reverse ? seek_below(l, to) : seek(l, from, NULL);
    while (in_range(n, from, to) &&
           fn(arg, (struct kv_bytes){node_key(n), n->key_n}, (struct kv_bytes){n->val, n->val_n}))
        n = reverse ? seek_below(l, (struct kv_bytes){node_key(n), n->key_n}) : n->next[0];
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int mem_sync(struct kv *kv, struct err_ctx *ctx)
{
    struct kv_mem *m = mem_of(kv);
    pthread_rwlock_wrlock(&m->lock);
    int rc = refuse_dead(m, ctx);
    if (rc == 0)
        forget(m);
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int mem_room(struct kv *kv, struct err_ctx *ctx)
{
    return refuse_dead(mem_of(kv), ctx);
}

static int mem_checkpoint(struct kv *kv, const char *dir, struct err_ctx *ctx)
{
    (void)kv;
    return err_set(ctx, ERR_UNSUPPORTED, "%s: a store in memory has no backup", dir);
}

static uint64_t mem_disk_bytes(struct kv *kv)
{
    return mem_of(kv)->bytes;
}

static void mem_close(struct kv *kv)
{
    struct kv_mem *m = mem_of(kv);
    for (int f = 0; f < KV_FAMILIES; f++)
        for (struct node *n = m->family[f].head[0], *next; n; n = next) {
            next = n->next[0];
            free(n->val);
            free(n);
        }
    ops_release(&m->undo);
    ops_release(&m->redo);
    free(m->upto);
    pthread_rwlock_destroy(&m->lock);
    m->magic = 0;
    free(m);
}

static const struct kv_ops mem_ops = {
    .name = "mem",
    .batch_new = mem_batch_new,
    .batch_reset = mem_batch_reset,
    .batch_free = mem_batch_free,
    .put = mem_put,
    .merge = mem_merge,
    .del = mem_del,
    .write = mem_write,
    .get = mem_get,
    .scan = mem_scan,
    .sync = mem_sync,
    .room = mem_room,
    .checkpoint = mem_checkpoint,
    .disk_bytes = mem_disk_bytes,
    .close = mem_close,
};

int kv_mem_open(struct kv **out, struct err_ctx *ctx)
{
    struct kv_mem *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(ctx, ERR_NOMEM, "mem: out of memory");
    m->kv.ops = &mem_ops;
    m->magic = MEM_MAGIC;
    buf_init(&m->undo.bytes, SIZE_MAX / 4);
    buf_init(&m->redo.bytes, SIZE_MAX / 4);
    pthread_rwlock_init(&m->lock, NULL);
    *out = &m->kv;
    return 0;
}

void kv_mem_crash(struct kv *kv)
{
    kv_mem_crash_some(kv, 0);
}

/* The first `n` operations from `at` of what was remembered, once more. */
static void apply_again(struct kv_mem *m, size_t at, size_t upto)
{
    for (; at < upto; at++)
        BUG_ON(apply_one(m, &m->redo, &m->redo.v[at]) != 0);
}

void kv_mem_crash_some(struct kv *kv, uint64_t survivors)
{
    struct kv_mem *m = mem_of(kv);
    pthread_rwlock_wrlock(&m->lock);
    roll_back(m, 0);
    for (size_t i = 0; i < m->upto_n; i++)
        if (survivors >> (i & 63) & 1)
            apply_again(m, i ? m->upto[i - 1] : 0, m->upto[i]);
    forget(m);
    m->dead = m->fail_armed = false;
    pthread_rwlock_unlock(&m->lock);
}

int kv_mem_copy(struct kv **out, struct kv *kv, struct err_ctx *ctx)
{
    struct kv_mem *from = mem_of(kv);
    int rc = kv_mem_open(out, ctx);
    if (rc)
        return rc;
    struct kv_mem *to = mem_of(*out);
    to->coin = from->coin;
    pthread_rwlock_rdlock(&from->lock);
    for (int f = 0; f < KV_FAMILIES && !rc; f++)
        for (struct node *n = from->family[f].head[0]; n && !rc; n = n->next[0])
            rc = list_put(to, &to->family[f], (struct kv_bytes){node_key(n), n->key_n},
                          (struct kv_bytes){n->val, n->val_n});
    pthread_rwlock_unlock(&from->lock);
    if (rc) {
        mem_close(*out);
        return err_set(ctx, rc, "mem: out of memory");
    }
    return 0;
}

void kv_mem_fail(struct kv *kv, uint64_t after, int code, bool applied)
{
    struct kv_mem *m = mem_of(kv);
    BUG_ON(code != ERR_FULL && code != ERR_IO);
    m->fail_armed = true;
    m->fail_after = after;
    m->fail_code = code;
    m->fail_applied = applied;
}

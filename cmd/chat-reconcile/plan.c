/* plan: what would make the target like the truth. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/plan.h"
#include "cmd/chat-reconcile/server.h"
#include "store/kv.h"

struct found {
    struct reconcile_row want, have;
    bool has_want, has_have, accepted, witness;
    enum reconcile_kind kind;
    int source;
    char *want_line, *have_line; /* as they stand in a JSONL file */
};
struct planning {
    struct found *found;
    size_t n, cap;
    const char *truth, *target;
    bool to_store, from_store, from_server;
    struct kv *kv; /* where whole entries come from */
    struct server_conn *server;
};

static int remember(void *arg, const struct reconcile_finding *f, struct err_ctx *err)
{
    struct planning *p = arg;
    if (!reconcile_kind_differs(f->kind))
        return 0;
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 1024;
        struct found *found = cap > PLAN_ITEMS_MAX ? NULL : realloc(p->found, cap * sizeof *found);
        if (!found)
            return err_set(err, ERR_LIMIT, "plan: more than %u differences", PLAN_ITEMS_MAX);
        p->found = found;
        p->cap = cap;
    }
    struct found *x = &p->found[p->n++];
    *x = (struct found){
        .kind = f->kind, .source = f->source, .accepted = f->accepted, .witness = f->witness >= 0};
    if ((x->has_want = f->want))
        x->want = *f->want;
    if ((x->has_have = f->have))
        x->have = *f->have;
    return 0;
}

/* Findings come by rising id; a file's line is looked up among them. */
static int attach_lines(struct planning *p, const char *url, bool want, struct err_ctx *err)
{
    if (strncmp(url, "jsonl:", 6) != 0)
        return 0;
    FILE *f = fopen(url + 6, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = f ? 0 : err_errno(err, "%s", url + 6);
    while (!rc && (n = getline(&line, &cap, f)) > 0) {
        struct reconcile_row row;
        const char *why;
        size_t lo = 0, hi = p->n;
        n -= line[n - 1] == '\n';
        if (reconcile_jsonl_row(&row, line, (size_t)n, &why))
            continue;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            const struct found *x = &p->found[mid];
            if (memcmp(x->has_want ? &x->want.id : &x->have.id, &row.id, sizeof row.id) < 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        for (; lo < p->n && !rc; lo++) {
            struct found *x = &p->found[lo];
            if (!id_equal(x->has_want ? &x->want.id : &x->have.id, &row.id))
                break;
            char **to = want ? &x->want_line : &x->have_line;
            if (!*to && (want ? x->has_want : x->has_have) &&
                reconcile_same(want ? &x->want : &x->have, &row, 0xff) && !(*to = strndup(line, (size_t)n)))
                rc = err_set(err, ERR_NOMEM, "out of memory");
        }
    }
    free(line);
    if (f)
        fclose(f);
    return rc;
}

/* Why nobody but people can deal with it; NULL: apply can. */
static const char *cannot(const struct planning *p, const struct found *x)
{
    if (x->source == 0)
        return "it is said of the truth itself";
    if (x->witness)
        return "only a witness knows it: a client has to offer its copy";
    if (!p->to_store)
        return NULL;
    if (x->kind != RECONCILE_LOST)
        return "a store's log is only added to; this needs a person";
    if (!p->from_store && !p->from_server)
        return "only a store, a backup or a server holds whole entries with their tags";
    return x->want.flags & RECONCILE_SYSTEM ? "memberships come back through the server, removals first"
                                            : NULL;
}

static int add_row(struct buf *b, const char *name, bool has, const struct reconcile_row *row,
                   const char *line, const struct planning *whole, struct err_ctx *err)
{
    int rc = 0;
    buf_printf(b, ",\"%s\":", name);
    if (!has)
        buf_str(b, "null");
    else if (line)
        buf_str(b, line);
    else if (whole && whole->kv)
        rc = store_entry_json(b, whole->kv, row, err);
    else if (whole && whole->server)
        rc = server_entry_json(b, whole->server, row, err);
    else
        reconcile_jsonl_write(b, row);
    return rc;
}

static int write_item(FILE *f, const struct planning *p, size_t i, struct buf *b, struct err_ctx *err)
{
    const struct found *x = &p->found[i];
    const char *why = cannot(p, x);
    bool extra = x->kind == RECONCILE_DUPLICATE, keep = extra || x->kind == RECONCILE_PHANTOM;
    buf_reset(b);
    buf_printf(b, "{\"n\":%zu,\"class\":\"%s\"", i + 1, reconcile_kind_name(x->kind));
    int rc = add_row(b, "from", x->has_have, &x->have, x->have_line, NULL, err);
    rc = rc ? rc
            : add_row(b, "to", x->has_want && !keep, &x->want, x->want_line, why || !p->to_store ? NULL : p,
                      err);
    if (extra && x->has_want && !rc)
        rc = add_row(b, "beside", true, &x->want, x->want_line, NULL, err);
    buf_printf(b, ",\"accepted\":%s,\"why\":", x->accepted ? "true" : "false");
    buf_json_str(b, reconcile_kind_text(x->kind), strlen(reconcile_kind_text(x->kind)));
    if (why) {
        buf_str(b, ",\"cannot\":");
        buf_json_str(b, why, strlen(why));
    }
    buf_str(b, "}\n");
    if (!rc && b->failed)
        rc = err_set(err, ERR_LIMIT, "plan: an item is too large");
    return rc || fwrite(b->data, b->len, 1, f) == 1 ? rc : err_errno(err, "plan");
}

static int write_plan(struct planning *p, FILE *f, const struct opt_set *o, struct err_ctx *err)
{
    struct buf b = BUF_INIT(4u << 20);
    const char *dir = !strncmp(p->truth, "backup:", 7) ? p->truth + 7 : p->truth + strlen("store:rocksdb:");
    int rc = 0;
    if (p->to_store && p->from_store)
        rc = kv_rocksdb_open(&p->kv, &(struct kv_rocksdb_config){.dir = dir, .read_only = true}, err);
    else if (p->to_store && p->from_server)
        rc = server_conn_open(&p->server, p->truth + strlen("server:"), o, err);
    buf_str(&b, "{\"plan\":1,\"truth\":");
    buf_json_str(&b, p->truth, strlen(p->truth));
    buf_str(&b, ",\"target\":");
    buf_json_str(&b, p->target, strlen(p->target));
    buf_str(&b, "}\n");
    fwrite(b.data, b.len, 1, f);
    for (size_t i = 0; i < p->n && !rc; i++)
        rc = write_item(f, p, i, &b, err);
    if (!rc)
        fprintf(f, "{\"end\":%zu}\n", p->n);
    if (!rc && (fflush(f) || ferror(f)))
        rc = err_errno(err, "plan");
    if (p->kv)
        p->kv->ops->close(p->kv);
    server_conn_close(p->server);
    buf_release(&b);
    return rc;
}

/* By place within a chat, so that a store gets its entries in the order they had. */
static int by_place(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return reconcile_order(x->has_want ? &x->want : &x->have, y->has_want ? &y->want : &y->have);
}

int tool_plan(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct tool_checked c = {0};
    const char *path = opt_string(o, "output");
    struct planning p = {.truth = opt_operand(o, 0), .target = opt_operand(o, 1)};
    FILE *f = stdout;
    p.to_store = !strncmp(p.target, "store:rocksdb:", 14);
    p.from_store = !strncmp(p.truth, "store:rocksdb:", 14) || !strncmp(p.truth, "backup:", 7);
    p.from_server = !strncmp(p.truth, "server:", 7);
    if (!p.to_store && strncmp(p.target, "jsonl:", 6) != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: a plan changes store:rocksdb:DIR or jsonl:FILE", p.target);
    int rc = tool_check_run(&c, o, remember, &p, err);
    rc = rc ? rc : attach_lines(&p, p.truth, true, err);
    rc = rc ? rc : attach_lines(&p, p.target, false, err);
    if (!rc && p.n)
        qsort(p.found, p.n, sizeof *p.found, by_place);
    if (!rc && path && !(f = fopen(path, "we")))
        rc = err_errno(err, "%s", path);
    if (!rc)
        rc = write_plan(&p, f, o, err);
    if (path && f && f != stdout && fclose(f) && !rc)
        rc = err_errno(err, "%s", path);
    if (!rc && path)
        fprintf(stderr, "chat-reconcile: %zu items in %s; nothing was changed\n", p.n, path);
    for (size_t i = 0; i < p.n; i++) {
        free(p.found[i].want_line);
        free(p.found[i].have_line);
    }
    free(p.found);
    *status = p.n ? 1 : c.result.skipped ? 2 : 0;
    return rc;
}

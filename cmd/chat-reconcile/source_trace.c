/* A trace as a witness: who sent, what was promised, who was shown it. */
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/tool.h"
#include "shard/shard.h"
#include "trace/reader.h"

struct trace_rows {
    struct reconcile_source source;
    struct trace_run run;
    uint32_t at;
    char *dir;
};

static bool claim(struct reconcile_row *r, const struct trace_event *e)
{
    *r = (struct reconcile_row){.chat = e->chat, .id = e->id, .place = shard_of_chat(e->chat)};
    switch (e->hop) {
    case HOP_CLIENT_SUBMIT:
        r->flags = RECONCILE_SENT;
        r->from = e->user;
        r->has = RECONCILE_HAS_FROM;
        return true;
    case HOP_CLIENT_ACCEPTED:
    case HOP_SERVER_ACCEPTED:
        r->flags = RECONCILE_ACCEPTED;
        break;
    case HOP_CLIENT_SURFACE:
        r->flags = RECONCILE_SURFACED;
        break;
    default:
        return false;
    }
    r->seq = e->arg;
    r->has = RECONCILE_HAS_SEQ;
    return true;
}

static long trace_read_rows(struct reconcile_source *s, struct reconcile_row *rows, size_t max,
                            struct err_ctx *err)
{
    struct trace_rows *t = (struct trace_rows *)s;
    size_t got = 0;
    (void)err;
    while (got < max && t->at < t->run.events)
        got += claim(&rows[got], &t->run.event[t->at++]);
    return (long)got;
}

static int trace_rewind(struct reconcile_source *s, struct err_ctx *err)
{
    (void)err;
    ((struct trace_rows *)s)->at = 0;
    return 0;
}

static void trace_close_rows(struct reconcile_source *s)
{
    struct trace_rows *t = (struct trace_rows *)s;
    trace_run_release(&t->run);
    free(t->dir);
    free(t);
}

int source_trace_open(struct reconcile_source **out, const char *dir, struct err_ctx *err)
{
    struct trace_rows *t = calloc(1, sizeof *t);
    if (!t || !(t->dir = strdup(dir))) {
        free(t);
        return err_set(err, ERR_NOMEM, "%s: out of memory", dir);
    }
    t->source = (struct reconcile_source){.name = t->dir,
                                          .witness = true,
                                          .read = trace_read_rows,
                                          .rewind = trace_rewind,
                                          .close = trace_close_rows};
    const char *dirs[] = {t->dir};
    int rc = trace_run_load(&t->run, dirs, 1, err);
    if (rc) {
        trace_close_rows(&t->source);
        return rc;
    }
    t->source.skipped = t->run.problems;
    *out = &t->source;
    return 0;
}

/* slow and dump: single messages, single records. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-trace/tool.h"
#include "trace/rows.h"

#define SLOW_MAX 10000

static void slow_text(const struct trace_latency *l)
{
    char id[ID_TEXT + 1];
    int worst = 0;
    for (int k = 1; k < LEG_COUNT; k++)
        if (l->leg_ns[k] > l->leg_ns[worst])
            worst = k;
    printf("%s to %" PRIu64 " (%s) %10.1f ms, %u sends, %u pushes; most of it: %s\n", id_str(&l->pair.id, id),
           l->pair.recipient, net_name(l->pair.net), (double)l->total_ns / 1e6, l->sends, l->pushes,
           trace_leg_text(worst));
    for (int k = 0; k < LEG_COUNT; k++)
        if (l->leg_ns[k])
            printf("    %-28s %10.1f ms\n", trace_leg_text(k), (double)l->leg_ns[k] / 1e6);
}

static void slow_json(const struct trace_latency *l)
{
    char id[ID_TEXT + 1];
    printf("{\"id\":\"%s\",\"recipient\":\"%" PRIu64
           "\",\"network\":\"%s\",\"ms\":%.3f,\"sends\":%u,\"pushes\":%u,\"legs\":{",
           id_str(&l->pair.id, id), l->pair.recipient, net_name(l->pair.net), (double)l->total_ns / 1e6,
           l->sends, l->pushes);
    for (int k = 0; k < LEG_COUNT; k++)
        printf("%s\"%s\":%.3f", k ? "," : "", trace_leg_text(k), (double)l->leg_ns[k] / 1e6);
    puts("}}");
}

int tool_slow(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err)
{
    uint64_t want = opt_u64(o, "number");
    if (want < 1 || want > SLOW_MAX)
        return err_set(err, ERR_USAGE, "slow: --number is 1..%d", SLOW_MAX);
    struct trace_latency *list = calloc(want, sizeof *list);
    int n = 0,
        rc = list ? trace_slowest(r, list, (int)want, &n, err) : err_set(err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        (opt_json(o) ? slow_json : slow_text)(&list[i]);
    if (!rc && !n && !opt_json(o))
        puts("no message was delivered");
    free(list);
    return rc;
}

struct filter {
    int hop;
    bool user_given, chat_given, id_given;
    uint64_t user, chat;
    struct id id;
};

static int read_filter(struct filter *f, const struct opt_set *o, struct err_ctx *err)
{
    const char *hop = opt_string(o, "hop"), *id = opt_string(o, "id");
    *f = (struct filter){.hop = -1,
                         .user_given = opt_given(o, "user"),
                         .chat_given = opt_given(o, "chat"),
                         .id_given = id != NULL};
    f->user = f->user_given ? opt_u64(o, "user") : 0;
    f->chat = f->chat_given ? opt_u64(o, "chat") : 0;
    for (int h = 0; hop && h < HOP_COUNT; h++)
        if (!strcmp(hop, hop_name(h)) || !strcmp(hop, hop_text(h)))
            f->hop = h;
    if (hop && f->hop < 0)
        return err_set(err, ERR_USAGE, "dump: '%s' is no hop (client_submit, link_drop, server_push, ...)",
                       hop);
    if (id && id_parse(&f->id, id, strlen(id)))
        return err_set(err, ERR_USAGE, "dump: '%s' is no message id", id);
    return 0;
}

static void what_text(char out[64], const struct trace_event *e)
{
    if (trace_hop_has_flow(e->hop))
        trace_flow_text(out, &e->id);
    else
        id_str(&e->id, out);
}

static void dump_text(const struct trace_event *e)
{
    char what[64];
    what_text(what, e);
    printf(
        "%14.6f %3u %-20s %-52s chat %-6" PRIu64 " user %-6" PRIu64 " arg %-10" PRIu64 " conn %u.%u %s%s\n",
        (double)e->ts_ns / 1e9, e->node, hop_name(e->hop), what, e->chat, e->user, e->arg, e->conn,
        e->lane_seq,
        e->flags & TRACE_FLAG_DOWN && (e->hop == HOP_LINK_DROP || e->hop == HOP_LINK_DELIVER) ? "down " : "",
        e->hop == HOP_SOCKET_OPEN ? net_name(e->reason) : reason_text(e->reason));
}

static void dump_json(const struct trace_event *e)
{
    struct buf row = BUF_INIT(4096);
    trace_row_record(&row, e, -1);
    puts(buf_cstr(&row));
    buf_release(&row);
}

int tool_dump(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err)
{
    struct filter f;
    int rc = read_filter(&f, o, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < r->events && !ferror(stdout); i++) {
        const struct trace_event *e = &r->event[i];
        if ((f.hop >= 0 && e->hop != f.hop) || (f.user_given && e->user != f.user) ||
            (f.chat_given && e->chat != f.chat) ||
            (f.id_given && (trace_hop_has_flow(e->hop) || !id_equal(&e->id, &f.id))))
            continue;
        (opt_json(o) ? dump_json : dump_text)(e);
    }
    return ferror(stdout) ? err_set(err, ERR_IO, "standard output cannot be written") : 0;
}

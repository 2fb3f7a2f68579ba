/* diff: the figures of two runs, and, where both have the same messages, what became of each pair. A replay
 * keeps in its folder what goes by which id (TOOL_REPLAY_IDS). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-trace/tool.h"
#include "util/map.h"
#include "util/units.h"

struct pair_key {
    struct id id;
    uint64_t user;
};

struct comparing {
    struct map ids, users;                              /* before -> after */
    struct map after;                                   /* struct pair_key -> verdict */
    uint64_t from_to[VERDICT_COUNT][VERDICT_COUNT + 1]; /* the last: not in the run after */
    uint64_t matched;
    bool failed;
};

/* ---- names ---- */

static bool value_of(const char *line, const char *key, char *out, size_t size)
{
    char pattern[16];
    snprintf(pattern, sizeof pattern, "\"%s\":\"", key);
    const char *p = strstr(line, pattern), *end = p ? strchr(p += strlen(pattern), '"') : NULL;
    if (!end || (size_t)(end - p) >= size)
        return false;
    memcpy(out, p, (size_t)(end - p));
    out[end - p] = 0;
    return true;
}

static bool take_name(struct comparing *c, const char *line)
{
    char from[40], as[40];
    uint64_t a, b, *user;
    struct id x, y, *id;
    if (!value_of(line, "as", as, sizeof as))
        return false;
    if (value_of(line, "user", from, sizeof from)) {
        if (units_u64(&a, from, NULL) || units_u64(&b, as, NULL))
            return false;
        c->failed |= !(user = map_put_u64(&c->users, a, NULL));
        if (user)
            *user = b;
        return true;
    }
    if (!value_of(line, "id", from, sizeof from) || id_parse(&x, from, strlen(from)) ||
        id_parse(&y, as, strlen(as)))
        return false;
    c->failed |= !(id = map_put(&c->ids, &x, NULL));
    if (id)
        *id = y;
    return true;
}

static int read_names(struct comparing *c, const char *folder, struct err_ctx *err)
{
    char path[4096], line[512];
    unsigned long n = 0;
    int rc = 0;
    if (snprintf(path, sizeof path, "%s/" TOOL_REPLAY_IDS, folder) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return errno == ENOENT || errno == ENOTDIR ? 0 : err_errno(err, "%s", path);
    while (!rc && fgets(line, sizeof line, f)) {
        n++;
        if (!take_name(c, line))
            rc = err_set(err, ERR_CORRUPT, "%s: line %lu: it says not what goes by which name", path, n);
    }
    fclose(f);
    return rc;
}

/* ---- pairs ---- */

static bool note_after(void *arg, const struct trace_pair *p)
{
    struct comparing *c = arg;
    struct pair_key key = {p->id, p->recipient};
    uint64_t *v = map_put(&c->after, &key, NULL);
    c->failed |= !v;
    if (v)
        *v = p->verdict;
    return v != NULL;
}

static bool compare_pair(void *arg, const struct trace_pair *p)
{
    struct comparing *c = arg;
    const struct id *id = map_get(&c->ids, &p->id);
    const uint64_t *user = map_get_u64(&c->users, p->recipient), *v;
    struct pair_key key = {id ? *id : p->id, user ? *user : p->recipient};
    v = map_get(&c->after, &key);
    c->from_to[p->verdict][v ? *v : VERDICT_COUNT]++;
    c->matched += v != NULL;
    return true;
}

static int compare(struct comparing *c, const struct trace_run *before, const struct trace_run *after,
                   const char *folder, struct err_ctx *err)
{
    map_init(&c->ids, sizeof(struct id), sizeof(struct id), UINT32_MAX, 1);
    map_init(&c->users, 8, 8, UINT32_MAX, 1);
    map_init(&c->after, sizeof(struct pair_key), 8, UINT32_MAX, 1);
    int rc = read_names(c, folder, err);
    if (!rc && (trace_pairs(after, note_after, c) || trace_pairs(before, compare_pair, c) || c->failed))
        rc = err_set(err, ERR_NOMEM, "comparing pairs: out of memory");
    map_release(&c->ids);
    map_release(&c->users);
    map_release(&c->after);
    return rc;
}

/* ---- forms ---- */

static uint64_t pairs_of(const struct trace_summary *s, int net)
{
    uint64_t n = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        n += s->verdict[net][v];
    return n;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void json_pairs(struct buf *out, const struct comparing *c)
{
    const char *comma = "";
    buf_printf(out, ",\"pairs\":{\"matched\":%llu,\"changes\":[", (unsigned long long)c->matched);
    for (int a = 0; a < VERDICT_COUNT; a++)
        for (int b = 0; b <= VERDICT_COUNT; b++) {
            if (!c->from_to[a][b])
                continue;
            buf_printf(out, "%s{\"before\":\"%s\",\"after\":\"%s\",\"pairs\":%llu}", comma, verdict_name(a),
                       b < VERDICT_COUNT ? verdict_name(b) : "absent", (unsigned long long)c->from_to[a][b]);
            comma = ",";
        }
    buf_str(out, "]}");
}

static void print_json(const struct trace_summary *a, const struct trace_summary *b,
                       const struct comparing *c)
{
    struct buf out = BUF_INIT(1u << 20);
    buf_str(&out, "{\"before\":");
    trace_summary_verdicts_json(a, &out);
    buf_str(&out, ",\"after\":");
    trace_summary_verdicts_json(b, &out);
    json_pairs(&out, c);
    buf_char(&out, '}');
    puts(buf_cstr(&out));
    buf_release(&out);
}

static void print_text(const struct trace_summary *a, const struct trace_summary *b,
                       const struct comparing *c)
{
    printf("%-10s %-26s %12s %9s %12s %9s %10s\n", "network", "verdict", "before", "", "after", "", "change");
    for (int net = 0; net < NET_COUNT; net++)
        for (int v = 0; v < VERDICT_COUNT; v++) {
            if (!a->verdict[net][v] && !b->verdict[net][v])
                continue;
            double x = percent(a->verdict[net][v], pairs_of(a, net)),
                   y = percent(b->verdict[net][v], pairs_of(b, net));
            printf("%-10s %-26s %12llu %8.3f%% %12llu %8.3f%% %+9.3f%%\n", net_name(net), verdict_text(v),
                   (unsigned long long)a->verdict[net][v], x, (unsigned long long)b->verdict[net][v], y,
                   y - x);
        }
    if (!c->matched)
        return;
    printf("\n%-26s %-26s %12s\n", "the same pairs, before", "after", "pairs");
    for (int from = 0; from < VERDICT_COUNT; from++)
        for (int to = 0; to <= VERDICT_COUNT; to++)
            if (c->from_to[from][to])
                printf("%-26s %-26s %12llu\n", verdict_text(from),
                       to < VERDICT_COUNT ? verdict_text(to) : "not in the second run",
                       (unsigned long long)c->from_to[from][to]);
}

int tool_diff(const struct trace_run *before, const struct trace_run *after, const struct opt_set *o,
              int *status, struct err_ctx *err)
{
    struct trace_summary a = {0}, b = {0};
    struct comparing *c = calloc(1, sizeof *c);
    int rc = c ? trace_summarize(&a, before, err) : err_set(err, ERR_NOMEM, "out of memory");
    rc = rc ? rc : trace_summarize(&b, after, err);
    rc = rc ? rc : compare(c, before, after, opt_operand(o, 1), err);
    if (!rc) {
        (opt_json(o) ? print_json : print_text)(&a, &b, c);
        *status = tool_status(&b);
    }
    trace_summary_release(&a);
    trace_summary_release(&b);
    free(c);
    return rc;
}

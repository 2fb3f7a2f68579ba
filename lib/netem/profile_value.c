/* The values of a description: from text, and as text again. */
#include "netem/profile_impl.h"

#include <inttypes.h>
#include <string.h>

#include "util/units.h"

/* Packets with up to three decimals, by way of a "duration" in thousandths. */
static int parse_burst(uint32_t *milli, const char *value, struct err_ctx *ctx)
{
    char text[32];
    uint64_t ns;
    int n = snprintf(text, sizeof text, "%sus", value);
    if (n >= (int)sizeof text || units_duration(&ns, text, NULL) != 0 || ns > 1000000000)
        return err_set(ctx, ERR_INVALID, "'%s' is no number of packets", value);
    if (ns > 0 && ns < 1000)
        return err_set(ctx, ERR_INVALID, "'%s': a burst has at least one packet", value);
    *milli = (uint32_t)ns;
    return 0;
}

static int parse_count(uint32_t *count, const char *value, struct err_ctx *ctx)
{
    uint64_t n;
    int rc = units_u64(&n, value, ctx);
    if (!rc && n > 255)
        rc = err_set(ctx, ERR_RANGE, "'%s' is above 255", value);
    if (!rc)
        *count = (uint32_t)n;
    return rc;
}

void netem_span_even(struct netem_span *s, uint64_t low_ns, uint64_t high_ns)
{
    uint64_t wide = high_ns - low_ns;
    *s = (struct netem_span){low_ns, low_ns + wide / 2, low_ns + wide / 10 * 9, low_ns + wide / 100 * 99,
                             high_ns};
}

/* 'A', 'A..B' or 'min/p50/p90/p99/max'. */
static int parse_span(struct netem_span *span, const char *value, struct err_ctx *ctx)
{
    char text[128];
    uint64_t at[5];
    unsigned n = 0;
    if (strlen(value) >= sizeof text)
        return err_set(ctx, ERR_INVALID, "'%.40s...' is too long", value);
    strcpy(text, value);
    char *dots = strstr(text, "..");
    if (dots)
        memcpy(dots, " /", 2);
    for (char *save, *part = strtok_r(text, " /", &save); part; part = strtok_r(NULL, " /", &save)) {
        int rc = n < 5 ? units_duration(&at[n], part, ctx) : 0;
        if (rc)
            return rc;
        n++;
    }
    bool right = dots ? n == 2 : n == 1 || n == 5;
    for (unsigned i = 1; right && i < n; i++)
        right = at[i - 1] <= at[i];
    if (!right)
        return err_set(ctx, ERR_INVALID, "'%s' is no length: give A, A..B or min/p50/p90/p99/max, rising",
                       value);
    if (n == 5)
        *span = (struct netem_span){at[0], at[1], at[2], at[3], at[4]};
    else
        netem_span_even(span, at[0], at[n - 1]);
    return 0;
}

/* '12.4s+800ms/30s+2s', or 'none'. */
static int parse_list(struct netem_list *list, const char *value, struct err_ctx *ctx)
{
    char text[NETEM_DESCRIPTION_MAX];
    struct netem_list made;
    memset(&made, 0, sizeof made);
    if (strlen(value) >= sizeof text)
        return err_set(ctx, ERR_INVALID, "'%.40s...' is too long", value);
    strcpy(text, strcmp(value, "none") == 0 ? "" : value);
    for (char *save, *part = strtok_r(text, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        char *plus = strchr(part, '+');
        uint32_t n = made.n;
        if (!plus)
            return err_set(ctx, ERR_INVALID, "'%s' is no AT+LENGTH, like 12.4s+800ms", part);
        if (n == NETEM_LIST_MAX)
            return err_set(ctx, ERR_RANGE, "more than %d blackouts", NETEM_LIST_MAX);
        *plus = 0;
        int rc = units_duration(&made.of[n].at_ns, part, ctx);
        rc = rc ? rc : units_duration(&made.of[n].length_ns, plus + 1, ctx);
        if (rc)
            return rc;
        if (n && made.of[n].at_ns < made.of[n - 1].at_ns + made.of[n - 1].length_ns)
            return err_set(ctx, ERR_INVALID, "'%s' begins before the one before it ends", part);
        if (made.of[n].length_ns > 3600 * 1000000000ull || made.of[n].at_ns > 1ull << 60)
            return err_set(ctx, ERR_RANGE, "'%s' is above 1h", plus + 1);
        made.n++;
    }
    *list = made;
    return 0;
}

/* Bytes, or time: the second field. */
static int parse_queue(uint64_t queue[2], const char *value, struct err_ctx *ctx)
{
    uint64_t bytes = 0, ns = 0;
    if (units_size(&bytes, value, ctx) != 0 && units_duration(&ns, value, NULL) != 0)
        return ERR_INVALID;
    if (ns)
        bytes = 0;
    if (ns > 3600 * 1000000000ull || bytes > 1ull << 40)
        return err_set(ctx, ERR_RANGE, "'%s' is above 1 TB or 1h", value);
    if (ctx)
        *ctx = (struct err_ctx){0};
    queue[0] = bytes;
    queue[1] = ns;
    return 0;
}

static int parse_drop(uint32_t *head, const char *value, struct err_ctx *ctx)
{
    if (strcmp(value, "tail") != 0 && strcmp(value, "head") != 0)
        return err_set(ctx, ERR_INVALID, "'%s' is neither tail nor head", value);
    *head = value[0] == 'h';
    return 0;
}

static int parse_trace(const struct netem_trace **t, const char *value, struct err_ctx *ctx)
{
    if (strcmp(value, "none") != 0)
        return netem_trace_file(t, value, ctx);
    *t = NULL;
    return 0;
}

static int parse_dist(const struct netem_table **t, const char *value, struct err_ctx *ctx)
{
    if (strncmp(value, "table:", 6) == 0)
        return netem_table_file(t, value + 6, ctx);
    const struct netem_table *named = netem_table_named(value);
    if (!named && strcmp(value, "uniform") != 0)
        return err_set(ctx, ERR_INVALID, "'%s' is none of uniform, normal, pareto, paretonormal, table:FILE",
                       value);
    *t = named;
    return 0;
}

int netem_value_parse(void *field, enum netem_type type, const char *value, struct err_ctx *ctx)
{
    switch (type) {
    case TYPE_RATE:
        return units_bitrate(field, value, ctx);
    case TYPE_TRACE:
        return parse_trace(field, value, ctx);
    case TYPE_TIME:
        return units_duration(field, value, ctx);
    case TYPE_DIST:
        return parse_dist(field, value, ctx);
    case TYPE_SHARE:
        return units_share(field, value, ctx);
    case TYPE_QUEUE:
        return parse_queue(field, value, ctx);
    case TYPE_DROP:
        return parse_drop(field, value, ctx);
    case TYPE_BURST:
        return parse_burst(field, value, ctx);
    case TYPE_COUNT:
        return parse_count(field, value, ctx);
    case TYPE_SPAN:
        return parse_span(field, value, ctx);
    case TYPE_LIST:
        return parse_list(field, value, ctx);
    }
    return ERR_INVALID;
}

/* --- and back --- */

/* What is shown is read again as the same value: one that needs more digits is shown in the smallest unit. */
static void show_exact(struct buf *out, uint64_t value, const char *unit, void (*show)(char[32], uint64_t),
                       int (*parse)(uint64_t *, const char *, struct err_ctx *))
{
    char text[32];
    uint64_t again;
    show(text, value);
    if (parse(&again, text, NULL) == 0 && again == value)
        buf_str(out, text);
    else
        buf_printf(out, "%" PRIu64 "%s", value, unit);
}

static void show_duration(struct buf *out, const char *before, uint64_t ns)
{
    buf_str(out, before);
    show_exact(out, ns, "ns", units_show_duration, units_duration);
}

static void show_span(struct buf *out, const struct netem_span *s)
{
    struct netem_span even;
    netem_span_even(&even, s->min_ns, s->max_ns);
    show_duration(out, "", s->min_ns);
    if (s->min_ns == s->max_ns)
        return;
    if (memcmp(&even, s, sizeof even) == 0) {
        show_duration(out, "..", s->max_ns);
        return;
    }
    show_duration(out, "/", s->p50_ns);
    show_duration(out, "/", s->p90_ns);
    show_duration(out, "/", s->p99_ns);
    show_duration(out, "/", s->max_ns);
}

static void show_list(struct buf *out, const struct netem_list *list)
{
    if (!list->n)
        buf_str(out, "none");
    for (uint32_t i = 0; i < list->n; i++) {
        show_duration(out, i ? "/" : "", list->of[i].at_ns);
        show_duration(out, "+", list->of[i].length_ns);
    }
}

static void show_share(struct buf *out, uint32_t ppm)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%" PRIu32 ".%04" PRIu32, ppm / 10000, ppm % 10000);
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    buf_add(out, text, (size_t)n);
    buf_char(out, '%');
}

static void show_burst(struct buf *out, uint32_t milli)
{
    buf_printf(out, "%" PRIu32, milli / 1000);
    if (milli % 1000)
        buf_printf(out, ".%03" PRIu32, milli % 1000);
}

static void show_queue(struct buf *out, const uint64_t queue[2])
{
    if (queue[1])
        show_duration(out, "", queue[1]);
    else
        show_exact(out, queue[0], "B", units_show_size, units_size);
}

void netem_value_show(struct buf *out, const void *field, enum netem_type type)
{
    const struct netem_trace *trace;
    const struct netem_table *table;
    const uint64_t *wide = field;
    const uint32_t *narrow = field;
    switch (type) {
    case TYPE_RATE:
        show_exact(out, *wide, "bit", units_show_bitrate, units_bitrate);
        break;
    case TYPE_TRACE:
        trace = *(const struct netem_trace *const *)field;
        buf_str(out, trace ? trace->path : "none");
        break;
    case TYPE_TIME:
        show_duration(out, "", *wide);
        break;
    case TYPE_DIST:
        table = *(const struct netem_table *const *)field;
        buf_str(out, table ? table->name : "uniform");
        break;
    case TYPE_SHARE:
        show_share(out, *narrow);
        break;
    case TYPE_QUEUE:
        show_queue(out, wide);
        break;
    case TYPE_DROP:
        buf_str(out, *narrow ? "head" : "tail");
        break;
    case TYPE_BURST:
        show_burst(out, *narrow);
        break;
    case TYPE_COUNT:
        buf_u64(out, *narrow);
        break;
    case TYPE_SPAN:
        show_span(out, field);
        break;
    case TYPE_LIST:
        show_list(out, field);
        break;
    }
}

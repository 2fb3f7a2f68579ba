#include "netem/profile_impl.h"

#include <string.h>

#include "util/units.h"

const struct netem_key netem_keys[KEY_COUNT] = {
#define KEY(word, type, field, help)                                                                         \
    [KEY_##word] = {#word, help, TYPE_##type, true, offsetof(struct netem_direction, field)},
#define ONE(word, type, field, help)                                                                         \
    [KEY_##word] = {#word, help, TYPE_##type, false, offsetof(struct netem_profile, field)},
#include "netem/keys.def"
#undef KEY
#undef ONE
};

struct row {
    const char *name, *summary;      /* a profile begins */
    const char *word, *value, *from; /* or one of its values */
};
static const struct row rows[] = {
#define PROFILE(name, summary)  {name, summary, NULL, NULL, NULL},
#define SET(word, value, where) {NULL, NULL, word, value, where},
#include "netem/profiles.def"
#undef PROFILE
#undef SET
};
#define ROWS (sizeof rows / sizeof rows[0])

bool netem_profile_list(unsigned i, const char **name, const char **summary)
{
    for (size_t r = 0; r < ROWS; r++) {
        if (!rows[r].name || i--)
            continue;
        *name = rows[r].name;
        *summary = rows[r].summary;
        return true;
    }
    return false;
}

void *netem_key_field(const struct netem_profile *p, unsigned k, unsigned dir)
{
    const char *base = netem_keys[k].each_way ? (const char *)&p->dir[dir] : (const char *)p;
    return (void *)(uintptr_t)(base + netem_keys[k].offset);
}

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

static int parse_value(void *field, enum netem_type type, const char *value, struct err_ctx *ctx)
{
    switch (type) {
    case TYPE_RATE:
        return units_bitrate(field, value, ctx);
    case TYPE_TIME:
        return units_duration(field, value, ctx);
    case TYPE_SHARE:
        return units_share(field, value, ctx);
    case TYPE_SIZE:
        return units_size(field, value, ctx);
    case TYPE_BURST:
        return parse_burst(field, value, ctx);
    case TYPE_SPAN:
        return parse_span(field, value, ctx);
    }
    return ERR_INVALID;
}

int netem_set(struct netem_profile *p, struct netem_sources *from, const char *source, const char *word,
              const char *value, struct err_ctx *ctx)
{
    unsigned first = NETEM_UP, last = NETEM_DOWN, k = 0;
    const char *bare = word;
    if (strncmp(word, "up.", 3) == 0) {
        bare = word + 3;
        last = NETEM_UP;
    } else if (strncmp(word, "down.", 5) == 0) {
        bare = word + 5;
        first = NETEM_DOWN;
    }
    while (k < KEY_COUNT && strcmp(netem_keys[k].word, bare) != 0)
        k++;
    if (k == KEY_COUNT || (bare != word && !netem_keys[k].each_way))
        return err_set(ctx, ERR_INVALID, "unknown word '%s'", word);
    if (!netem_keys[k].each_way)
        last = first;
    for (unsigned d = first; d <= last; d++) {
        int rc = parse_value(netem_key_field(p, k, d), netem_keys[k].type, value, ctx);
        if (rc) {
            err_prefix(ctx, "%s: ", word);
            return rc;
        }
        if (from)
            from->of[d][k] = source;
    }
    return 0;
}

int netem_named(struct netem_profile *p, struct netem_sources *from, const char *name, struct err_ctx *ctx)
{
    size_t r = 0;
    while (r < ROWS && !(rows[r].name && strcmp(rows[r].name, name) == 0))
        r++;
    if (r == ROWS)
        return err_set(ctx, ERR_INVALID, "'%s' is no profile, no file and no word=value", name);
    for (r++; r < ROWS && !rows[r].name; r++) {
        int rc = netem_set(p, from, rows[r].from, rows[r].word, rows[r].value, ctx);
        if (rc)
            return rc;
    }
    snprintf(p->name, sizeof p->name, "%s", name);
    return 0;
}

/* Scale by 2^32, `num` <= `den`. */
static uint64_t share_p32(uint64_t num, uint64_t den)
{
    return (uint64_t)(((unsigned __int128)num << 32) / den);
}

/* Fill in what follows from the values given; refuse what cannot be. */
static int finish_direction(struct netem_direction *d, const char *way, struct err_ctx *ctx)
{
    const uint64_t all = 1000000;
    uint64_t lost = d->loss_ppm, kept = all - lost;
    if (d->rate_bps && d->rate_bps < 1000)
        return err_set(ctx, ERR_RANGE, "%s.rate is below 1kbit", way);
    if (d->delay_ns > 60000000000ull)
        return err_set(ctx, ERR_RANGE, "%s.delay is above 60s", way);
    if (d->jitter_ns > d->delay_ns)
        return err_set(ctx, ERR_INVALID, "%s.jitter is above the delay", way);
    if (d->rate_bps && !d->queue_bytes) {
        d->queue_bytes = d->rate_bps / 8 / 4;
        if (d->queue_bytes < 32000)
            d->queue_bytes = 32000;
    }
    d->bad_p32 = share_p32(lost, all);
    if (!d->burst_milli || !lost || !kept) {
        d->enter_p32 = share_p32(lost, all);
        d->leave_p32 = share_p32(kept, all);
        return 0;
    }
    /* p = L / (B (1-L)) <= 1 */
    if (lost * 1000 > d->burst_milli * kept)
        return err_set(ctx, ERR_INVALID, "%s.burst is too short for a loss that large", way);
    d->leave_p32 = share_p32(1000, d->burst_milli);
    d->enter_p32 = share_p32(lost * 1000, d->burst_milli * kept);
    return 0;
}

static int finish_windows(struct netem_windows *w, const char *what, struct err_ctx *ctx)
{
    if (w->every_ns && w->every_ns < NETEM_WINDOW_MIN_NS)
        return err_set(ctx, ERR_RANGE, "%s_every is below 100ms", what);
    if (w->every_ns && !w->length.max_ns)
        return err_set(ctx, ERR_INVALID, "%s_every needs %s_for", what, what);
    if (w->length.max_ns > 3600 * 1000000000ull)
        return err_set(ctx, ERR_RANGE, "%s_for is above 1h", what);
    return 0;
}

static int finish(struct netem_profile *p, struct err_ctx *ctx)
{
    int rc = finish_direction(&p->dir[NETEM_UP], "up", ctx);
    rc = rc ? rc : finish_direction(&p->dir[NETEM_DOWN], "down", ctx);
    rc = rc ? rc : finish_windows(&p->blackout, "blackout", ctx);
    rc = rc ? rc : finish_windows(&p->handover, "handover", ctx);
    rc = rc ? rc : finish_windows(&p->stall, "stall", ctx);
    if (!rc && p->handover_loses_ppm && !p->nat_idle_ns)
        rc = err_set(ctx, ERR_INVALID, "handover_loses needs nat_idle");
    return rc;
}

/* The first part may be a name or a file, all others are word=value. */
static int describe_parts(struct netem_profile *p, struct netem_sources *from, char *text,
                          struct err_ctx *ctx)
{
    bool first = true;
    for (char *save, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        size_t n = strlen(part);
        int rc;
        if (equals) {
            *equals = 0;
            rc = netem_set(p, from, "given", part, equals + 1, ctx);
        } else if (!first) {
            rc = err_set(ctx, ERR_INVALID, "'%s' is no word=value", part);
        } else if (strchr(part, '/') || (n > 5 && strcmp(part + n - 5, ".json") == 0)) {
            rc = netem_file(p, from, part, ctx);
        } else {
            rc = netem_named(p, from, part, ctx);
        }
        if (rc)
            return rc;
        first = false;
    }
    return first ? err_set(ctx, ERR_INVALID, "an empty description") : 0;
}

int netem_describe(struct netem_profile *p, struct netem_sources *from, const char *description,
                   struct err_ctx *ctx)
{
    char text[NETEM_DESCRIPTION_MAX];
    if (strlen(description) >= sizeof text)
        return err_set(ctx, ERR_RANGE, "a network's description is longer than %zu bytes", sizeof text - 1);
    strcpy(text, description);
    struct netem_profile made = {.name = "custom"};
    int rc = describe_parts(&made, from, text, ctx);
    rc = rc ? rc : finish(&made, ctx);
    if (rc)
        err_prefix(ctx, "network '%.200s': ", description);
    else
        *p = made;
    return rc;
}

int netem_profile_parse(struct netem_profile *p, const char *description, struct err_ctx *ctx)
{
    return netem_describe(p, NULL, description, ctx);
}

/* The effective values of a profile, each with its source. */
#include "netem/profile_impl.h"

#include <inttypes.h>
#include <string.h>

#include "util/units.h"

static void show_span(char *out, size_t cap, const struct netem_span *s)
{
    struct netem_span even;
    char low[32], high[32];
    netem_span_even(&even, s->min_ns, s->max_ns);
    if (s->min_ns != s->max_ns && memcmp(&even, s, sizeof even) == 0) {
        units_show_duration(low, s->min_ns);
        units_show_duration(high, s->max_ns);
        snprintf(out, cap, "%s..%s", low, high);
        return;
    }
    const uint64_t at[5] = {s->min_ns, s->p50_ns, s->p90_ns, s->p99_ns, s->max_ns};
    size_t len = 0;
    unsigned n = s->min_ns == s->max_ns ? 1 : 5;
    for (unsigned i = 0; i < n; i++) {
        char one[32];
        units_show_duration(one, at[i]);
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i ? "/" : "", one);
    }
}

static void show_value(char *out, size_t cap, const void *field, enum netem_type type)
{
    char text[32] = "";
    switch (type) {
    case TYPE_RATE:
        units_show_bitrate(text, *(const uint64_t *)field);
        break;
    case TYPE_TIME:
        units_show_duration(text, *(const uint64_t *)field);
        break;
    case TYPE_SIZE:
        units_show_size(text, *(const uint64_t *)field);
        break;
    case TYPE_SHARE: {
        uint32_t ppm = *(const uint32_t *)field;
        int n = snprintf(text, sizeof text, "%" PRIu32 ".%04" PRIu32, ppm / 10000, ppm % 10000);
        while (text[n - 1] == '0')
            n--;
        if (text[n - 1] == '.')
            n--;
        strcpy(text + n, "%");
        break;
    }
    case TYPE_BURST: {
        uint32_t milli = *(const uint32_t *)field;
        int n = snprintf(text, sizeof text, "%" PRIu32, milli / 1000);
        if (milli % 1000)
            snprintf(text + n, sizeof text - (size_t)n, ".%03" PRIu32, milli % 1000);
        break;
    }
    case TYPE_SPAN:
        show_span(out, cap, field);
        return;
    }
    snprintf(out, cap, "%s", text);
}

/* One value; a default that is zero says nothing, so it is left out of the table. */
static void show_key(struct buf *out, const struct netem_profile *p, const struct netem_sources *from,
                     unsigned k, unsigned dir, bool json)
{
    const struct netem_key *key = &netem_keys[k];
    const char *prefix = !key->each_way ? "" : dir == NETEM_UP ? "up." : "down.";
    const char *source = from->of[dir][k];
    const void *field = netem_key_field(p, k, dir);
    char value[200], word[40];
    if (!source && !json && !(k == KEY_queue && p->dir[dir].rate_bps))
        return;
    snprintf(word, sizeof word, "%s%s", prefix, key->word);
    show_value(value, sizeof value, field, key->type);
    if (!json) {
        buf_printf(out, "%-16s %-28s %s\n", word, value, source ? source : "default");
        return;
    }
    buf_char(out, ',');
    buf_json_str(out, word, strlen(word));
    buf_str(out, ":{\"value\":");
    buf_json_str(out, value, strlen(value));
    buf_str(out, ",\"source\":");
    buf_json_str(out, source ? source : "default", strlen(source ? source : "default"));
    buf_char(out, '}');
}

int netem_profile_show(struct buf *out, const char *description, bool json, struct err_ctx *ctx)
{
    struct netem_profile p;
    struct netem_sources from = {0};
    int rc = netem_describe(&p, &from, description, ctx);
    if (rc)
        return rc;
    if (json) {
        buf_str(out, "{\"profile\":");
        buf_json_str(out, p.name, strlen(p.name));
    } else {
        buf_printf(out, "%s\n", p.name);
    }
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        show_key(out, &p, &from, k, NETEM_UP, json);
        if (netem_keys[k].each_way)
            show_key(out, &p, &from, k, NETEM_DOWN, json);
    }
    buf_str(out, json ? "}\n" : "");
    return out->failed ? err_set(ctx, ERR_LIMIT, "the profile's text is too long") : 0;
}

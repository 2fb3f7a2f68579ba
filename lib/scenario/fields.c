#include "scenario/scenario_impl.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "util/units.h"

#define WORD_MAX 64

int scenario_error(const struct place *at, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (at->path[0])
        return err_set(at->ctx, code, "%s: %s: %s", at->file, at->path, text);
    return err_set(at->ctx, code, "%s: %s", at->file, text);
}

size_t scenario_enter(struct place *at, const char *key)
{
    size_t mark = strlen(at->path);
    snprintf(at->path + mark, sizeof at->path - mark, "%s%s", mark ? "." : "", key);
    return mark;
}

size_t scenario_enter_index(struct place *at, size_t i)
{
    size_t mark = strlen(at->path);
    snprintf(at->path + mark, sizeof at->path - mark, "[%zu]", i);
    return mark;
}

void scenario_leave(struct place *at, size_t mark)
{
    at->path[mark] = 0;
}

/* Levenshtein over two rows. */
static size_t distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b), row[WORD_MAX + 1];
    if (la > WORD_MAX || lb > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *scenario_nearest(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t least = 4;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, candidates[i]);
        if (d < least && d * 2 <= strlen(word)) {
            least = d;
            best = candidates[i];
        }
    }
    return best;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return names[json_typeof(v)];
}

static int read_text(struct place *at, const struct field *f, void *out, const json_t *v)
{
    if (!json_is_string(v))
        return scenario_error(at, ERR_INVALID, "must be a string, not %s", type_name(v));
    size_t n = json_string_length(v);
    if (n >= f->size)
        return scenario_error(at, ERR_LIMIT, "is longer than %zu bytes", f->size - 1);
    memcpy(out, json_string_value(v), n + 1);
    return 0;
}

static int read_integer(struct place *at, uint64_t max, const json_t *v, uint64_t *n)
{
    if (!json_is_integer(v))
        return scenario_error(at, ERR_INVALID, "must be an integer, not %s", type_name(v));
    if (json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return scenario_error(at, ERR_RANGE, "must lie in 0..%llu", (unsigned long long)max);
    *n = (uint64_t)json_integer_value(v);
    return 0;
}

/* Rates and shares may be bare numbers; durations never are (5 what?). */
static int read_quantity(struct place *at, enum field_type type, const json_t *v, uint64_t *n)
{
    if (json_is_number(v) && type != FIELD_DURATION) {
        double d = json_number_value(v), max = type == FIELD_SHARE ? 1 : 1e12;
        if (!(d >= 0 && d <= max))
            return scenario_error(at, ERR_RANGE, "must lie in 0..%g", max);
        *n = (uint64_t)llround(d * (type == FIELD_SHARE ? 1e6 : 1e3));
        return 0;
    }
    const char *text = json_string_value(v);
    if (!text)
        return scenario_error(at, ERR_INVALID, "must be %s, not %s",
                              type == FIELD_DURATION ? "a duration such as \"5s\""
                              : type == FIELD_RATE   ? "a rate such as \"100/s\""
                                                     : "a share such as 0.2 or \"20%\"",
                              type_name(v));
    struct err_ctx ctx = {0};
    uint32_t ppm = 0;
    int rc = type == FIELD_DURATION ? units_duration(n, text, &ctx)
             : type == FIELD_RATE   ? units_rate(n, text, &ctx)
                                    : units_share(&ppm, text, &ctx);
    if (type == FIELD_SHARE)
        *n = ppm;
    return rc ? scenario_error(at, rc, "%s", ctx.text) : 0;
}

static int read_field(struct place *at, const struct field *f, void *out, const json_t *v)
{
    char *to = (char *)out + f->offset;
    uint64_t n = 0;
    int rc = 0;
    switch (f->type) {
    case FIELD_CUSTOM:
        return f->custom(at, out, v);
    case FIELD_TEXT:
        return read_text(at, f, to, v);
    case FIELD_U32:
    case FIELD_INT:
        rc = read_integer(at, f->type == FIELD_INT ? INT32_MAX : UINT32_MAX, v, &n);
        break;
    case FIELD_U64:
        rc = read_integer(at, INT64_MAX, v, &n);
        break;
    default:
        rc = read_quantity(at, f->type, v, &n);
    }
    if (rc)
        return rc;
    if (f->size == 4)
        *(uint32_t *)to = (uint32_t)n;
    else
        *(uint64_t *)to = n;
    return 0;
}

static int unknown_key(struct place *at, const struct field *fields, const char *skip, const char *key)
{
    const char *names[40];
    size_t n = 0;
    for (const struct field *f = fields; f->key && n < 39; f++)
        names[n++] = f->key;
    if (skip)
        names[n++] = skip;
    const char *near = scenario_nearest(key, names, n);
    size_t mark = scenario_enter(at, key);
    int rc = near ? scenario_error(at, ERR_INVALID, "unknown key; did you mean %s?", near)
                  : scenario_error(at, ERR_INVALID, "unknown key");
    scenario_leave(at, mark);
    return rc;
}

int scenario_read_object(struct place *at, const json_t *o, const struct field *fields, const char *skip,
                         void *out)
{
    if (!json_is_object(o))
        return scenario_error(at, ERR_INVALID, "must be an object, not %s", type_name(o));
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        const struct field *f = fields;
        while (f->key && strcmp(f->key, key) != 0)
            f++;
        if (!f->key) {
            if (skip && strcmp(key, skip) == 0)
                continue;
            return unknown_key(at, fields, skip, key);
        }
        size_t mark = scenario_enter(at, key);
        int rc = read_field(at, f, out, v);
        scenario_leave(at, mark);
        if (rc)
            return rc;
    }
    for (const struct field *f = fields; f->key; f++) {
        if (f->required && !json_object_get(o, f->key))
            return scenario_error(at, ERR_INVALID, "lacks the key %s", f->key);
    }
    return 0;
}

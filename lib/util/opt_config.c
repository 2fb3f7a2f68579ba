#include "util/opt_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/units.h"

#define CONFIG_BYTES_MAX (1 << 20)

void opt_env_name(const struct opt_tool *tool, const char *name, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s%s", tool->env_prefix, name);
    for (int i = (int)strlen(tool->env_prefix); i < n && i < (int)cap - 1; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

static bool is_config_option(const struct opt_set *s, const struct opt *o)
{
    return s->config_option && strcmp(o->name, s->config_option) == 0;
}

int opt_take_environment(struct opt_set *s, struct err_ctx *ctx)
{
    if (!s->tool->env_prefix)
        return 0;
    for (int i = 0; i < s->count; i++) {
        const struct opt *o = s->rows[i];
        if (!o->config && !is_config_option(s, o))
            continue;
        char name[128];
        opt_env_name(s->tool, o->name, name, sizeof name);
        const char *text = getenv(name);
        if (!text || !*text)
            continue;
        int rc = 0;
        if (o->type == OPT_LIST) {
            char *copy = strdup(text), *save = NULL;
            if (!copy)
                return err_set(ctx, ERR_NOMEM, "out of memory");
            for (char *w = strtok_r(copy, ",", &save); w && !rc; w = strtok_r(NULL, ",", &save))
                rc = opt_take(s, i, w, OPT_ENVIRONMENT, name, ctx);
            free(copy);
        } else {
            rc = opt_take(s, i, text, OPT_ENVIRONMENT, name, ctx);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* A JSON scalar as the text that the option's parser reads. */
static int take_scalar(struct opt_set *s, int i, const json_t *v, const char *what, struct err_ctx *ctx)
{
    char text[64];
    const char *p = text;
    enum opt_type type = s->rows[i]->type;
    bool text_only = type == OPT_STRING || type == OPT_LIST;
    if (json_is_string(v) && type != OPT_FLAG) {
        p = json_string_value(v);
        if (strlen(p) != json_string_length(v))
            return err_set(ctx, ERR_INVALID, "%s: a NUL character", what);
    } else if (json_is_boolean(v) && type == OPT_FLAG)
        p = json_is_true(v) ? "true" : "false";
    else if (json_is_integer(v) && !text_only && type != OPT_FLAG)
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v) && !text_only && type != OPT_FLAG)
        snprintf(text, sizeof text, "%.6f", json_real_value(v));
    else
        return err_set(ctx, ERR_INVALID, "%s: must be %s", what,
                       type == OPT_FLAG ? "true or false"
                       : text_only      ? "a string"
                                        : "a number or a string");
    return opt_take(s, i, p, OPT_FILE, what, ctx);
}

static int take_key(struct opt_set *s, const char *path, const char *key, const json_t *v,
                    struct err_ctx *ctx)
{
    char what[600], hint[96];
    int i = opt_index(s, key, strlen(key));
    if (i < 0 || !s->rows[i]->config) {
        struct nearest near = {.wanted = key, .wanted_n = strlen(key)};
        for (int r = 0; r < s->count; r++) {
            if (s->rows[r]->config)
                nearest_offer(&near, s->rows[r]->name);
        }
        return i < 0 ? err_set(ctx, ERR_INVALID, "%s: unknown key '%s'%s", path, key,
                               nearest_hint(&near, "", hint))
                     : err_set(ctx, ERR_INVALID, "%s: '%s' cannot stand in a config file", path, key);
    }
    snprintf(what, sizeof what, "%s: %s", path, key);
    if (s->rows[i]->type != OPT_LIST || !json_is_array(v))
        return take_scalar(s, i, v, what, ctx);
    for (size_t k = 0; k < json_array_size(v); k++) {
        snprintf(what, sizeof what, "%s: %s[%zu]", path, key, k);
        int rc = take_scalar(s, i, json_array_get(v, k), what, ctx);
        if (rc)
            return rc;
    }
    return 0;
}

static int load(json_t **root, const char *path, struct err_ctx *ctx)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f)
        return err_errno(ctx, "%s", path);
    if (fstat(fileno(f), &st) == 0 && (S_ISDIR(st.st_mode) || st.st_size > CONFIG_BYTES_MAX)) {
        fclose(f);
        return err_set(ctx, ERR_INVALID, "%s: no config file (a folder, or larger than 1 MiB)", path);
    }
    json_error_t e;
    *root = json_loadf(f, JSON_REJECT_DUPLICATES, &e);
    fclose(f);
    if (!*root)
        return err_set(ctx, ERR_INVALID, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    if (json_is_object(*root))
        return 0;
    json_decref(*root);
    return err_set(ctx, ERR_INVALID, "%s: must hold one JSON object", path);
}

int opt_take_file(struct opt_set *s, struct err_ctx *ctx)
{
    if (!s->config_option)
        return 0;
    const char *path = opt_string(s, s->config_option), *key;
    json_t *root = NULL, *v;
    if (!path)
        return 0;
    int rc = load(&root, path, ctx);
    if (rc)
        return rc;
    json_object_foreach(root, key, v)
    {
        rc = take_key(s, path, key, v, ctx);
        if (rc)
            break;
    }
    json_decref(root);
    return rc;
}

/* Shown with at most three decimals when that is exact, else in the base unit. */
static void show_exact(struct buf *out, uint64_t v, void (*show)(char[32], uint64_t),
                       int (*parse)(uint64_t *, const char *, struct err_ctx *), const char *base)
{
    char text[32];
    uint64_t back = 0;
    show(text, v);
    if (parse(&back, text, NULL) == 0 && back == v)
        buf_str(out, text);
    else
        buf_printf(out, "%" PRIu64 "%s", v, base);
}

/* v / 10^digits (at most 9) without trailing zeros. */
static void show_decimal(struct buf *out, uint64_t v, int digits, const char *unit)
{
    char frac[16];
    uint64_t den = 1;
    for (int i = 0; i < digits; i++)
        den *= 10;
    int n = snprintf(frac, sizeof frac, ".%0*u", digits, (unsigned)(v % den));
    while (n > 1 && frac[n - 1] == '0')
        n--;
    buf_u64(out, v / den);
    buf_add(out, frac, n > 1 ? (size_t)n : 0);
    buf_str(out, unit);
}

void opt_show(const struct opt *o, const struct opt_value *v, struct buf *out)
{
    switch (o->type) {
    case OPT_DURATION:
        show_exact(out, v->number, units_show_duration, units_duration, "ns");
        break;
    case OPT_SIZE:
        show_exact(out, v->number, units_show_size, units_size, "B");
        break;
    case OPT_RATE:
        show_decimal(out, v->number, 3, "/s");
        break;
    case OPT_SHARE:
        show_decimal(out, v->number, 4, "%");
        break;
    case OPT_U64:
        buf_u64(out, v->number);
        break;
    case OPT_STRING:
        buf_str(out, v->text ? v->text : "");
        break;
    case OPT_FLAG:
    case OPT_LIST:
        break;
    }
}

static void print_value(const struct opt *o, const struct opt_value *v, struct buf *out)
{
    struct buf text = BUF_INIT(CONFIG_BYTES_MAX);
    if (o->type == OPT_FLAG) {
        buf_str(out, v->number ? "true" : "false");
    } else if (o->type == OPT_LIST) {
        buf_char(out, '[');
        for (int i = 0; i < v->list_n; i++) {
            if (i)
                buf_str(out, ", ");
            buf_json_str(out, v->list[i], strlen(v->list[i]));
        }
        buf_char(out, ']');
    } else if (o->type == OPT_U64 && v->number <= INT64_MAX) {
        buf_u64(out, v->number);
    } else {
        opt_show(o, v, &text);
        const char *p = buf_cstr(&text);
        buf_json_str(out, p, strlen(p));
    }
    buf_release(&text);
}

void opt_print_config(const struct opt_set *s, struct buf *out)
{
    bool first = true;
    buf_str(out, "{");
    for (int i = 0; i < s->count; i++) {
        const struct opt *o = s->rows[i];
        const struct opt_value *v = &s->values[i];
        const char *command = s->command ? s->command->name : NULL;
        bool unset = !v->text && !v->list_n && o->type != OPT_FLAG;
        if (!o->config || unset || !opt_applies(o, command))
            continue;
        buf_printf(out, "%s\n  \"%s\": ", first ? "" : ",", o->name);
        print_value(o, v, out);
        first = false;
    }
    buf_str(out, "\n}\n");
}

static bool same(const struct opt_value *a, const struct opt_value *b, enum opt_type type)
{
    if (type == OPT_LIST) {
        if (a->list_n != b->list_n)
            return false;
        for (int i = 0; i < a->list_n; i++) {
            if (strcmp(a->list[i], b->list[i]) != 0)
                return false;
        }
        return true;
    }
    if (type == OPT_FLAG)
        return a->number == b->number;
    if (!a->text != !b->text)
        return false;
    return type == OPT_STRING ? !a->text || strcmp(a->text, b->text) == 0 : a->number == b->number;
}

/* Make fresh's value the one of s, with at least the strength `source`. */
static int copy_value(struct opt_set *fresh, const struct opt_set *s, int i, enum opt_source source,
                      struct err_ctx *ctx)
{
    const struct opt_value *v = &s->values[i];
    const char *what = s->rows[i]->name;
    int rc = 0;
    for (int k = 0; k < v->list_n && !rc; k++)
        rc = opt_take(fresh, i, v->list[k], source, what, ctx);
    if (v->text)
        rc = opt_take(fresh, i, v->text, source, what, ctx);
    return rc;
}

static void value_move(struct opt_value *to, struct opt_value *from)
{
    struct opt_value old = *to;
    *to = *from;
    *from = old;
}

/* Options that may not change at run time keep their old value; their names go to `ignored`. */
static int keep_fixed(struct opt_set *fresh, const struct opt_set *s, struct buf *ignored,
                      struct err_ctx *ctx)
{
    struct opt_set *scratch = NULL;
    int rc = opt_set_new(&scratch, s->tool, s->config_option);
    for (int i = 0; i < s->count && !rc; i++) {
        const struct opt *o = s->rows[i];
        if (o->reload || same(&fresh->values[i], &s->values[i], o->type))
            continue;
        if (ignored)
            buf_printf(ignored, "%s%s", ignored->len ? ", " : "", o->name);
        enum opt_source source = s->values[i].source;
        if (source == OPT_DEFAULT) { /* the scratch set holds the default already */
            value_move(&fresh->values[i], &scratch->values[i]);
            continue;
        }
        rc = copy_value(scratch, s, i, source, ctx);
        value_move(&fresh->values[i], &scratch->values[i]);
    }
    opt_free(scratch);
    return rc;
}

int opt_reload(struct opt_set **fresh, const struct opt_set *s, struct buf *ignored, struct err_ctx *ctx)
{
    struct opt_set *n = NULL;
    *fresh = NULL;
    int rc = opt_set_new(&n, s->tool, s->config_option);
    if (rc)
        return err_set(ctx, rc, "out of memory");
    n->command = s->command;
    n->rest = s->rest;
    n->verbose = s->verbose;
    n->drawn_seed = s->drawn_seed;
    n->operands = calloc((size_t)s->operands_n + 1, sizeof *n->operands);
    if (!n->operands) {
        rc = err_set(ctx, ERR_NOMEM, "out of memory");
        goto out;
    }
    memcpy(n->operands, s->operands, (size_t)s->operands_n * sizeof *n->operands);
    n->operands_n = s->operands_n;
    for (int i = 0; i < s->count && !rc; i++) {
        if (s->values[i].source >= OPT_ENVIRONMENT)
            rc = copy_value(n, s, i, s->values[i].source, ctx);
    }
    if (rc || (rc = opt_take_file(n, ctx)) || (rc = keep_fixed(n, s, ignored, ctx)))
        goto out;
    *fresh = n;
    return 0;
out:
    opt_free(n);
    return rc;
}

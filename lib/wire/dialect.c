/* Reading a dialect. (Applying it: dialect_scan.c.) */
#include "wire/dialect.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "wire/dialect_impl.h"

/* The files in dialects/ become part of the library: they are read from the root of the source when it is
 * built. */
#define EMBED(symbol, file)                                                                                  \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"lib/wire/dialects/" file "\"\n" #symbol               \
            "_end:\n.byte 0\n.previous\n");                                                                  \
    extern const char symbol[], symbol##_end[]

EMBED(dialect_text_centrifugo, "centrifugo.json");
EMBED(dialect_text_mattermost, "mattermost.json");
EMBED(dialect_text_socket_io, "socket.io.json");

static const struct {
    const char *name, *text, *end;
} builtin[] = {
    {"centrifugo", dialect_text_centrifugo, dialect_text_centrifugo_end},
    {"mattermost", dialect_text_mattermost, dialect_text_mattermost_end},
    {"socket.io", dialect_text_socket_io, dialect_text_socket_io_end},
};
#define BUILTIN ((int)(sizeof builtin / sizeof *builtin))

const char *dialect_builtin(int i)
{
    return i >= 0 && i < BUILTIN ? builtin[i].name : NULL;
}

struct reading {
    struct err_ctx *ctx;
    const char *name;
    size_t entry;
};

static int bad(const struct reading *r, const char *key, const char *what)
{
    return err_set(r->ctx, ERR_INVALID, "%s: messages[%zu]%s%s: %s", r->name, r->entry, key ? "." : "",
                   key ? key : "", what);
}

static int take_text(const struct reading *r, const json_t *v, const char *key,
                     char out[DIALECT_POINTER_MAX + 1])
{
    const char *s = json_string_value(v);
    if (!s)
        return bad(r, key, "is no string");
    if (strlen(s) > DIALECT_POINTER_MAX || strlen(s) != json_string_length(v))
        return bad(r, key, "is longer than 127 bytes, or holds a zero");
    strcpy(out, s);
    return 0;
}

static int take_pointer(const struct reading *r, const char *s, const char *key)
{
    if (s[0] != '/' && strcmp(s, "@type") != 0 && strcmp(s, "@namespace") != 0 && strcmp(s, "@ack") != 0)
        return bad(r, key, "is no JSON pointer (they begin with /), nor @type, @namespace or @ack");
    return 0;
}

static int take_when(const struct reading *r, const json_t *when, struct dialect_entry *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(when) || json_object_size(when) > DIALECT_WHEN_MAX)
        return bad(r, "when", "is no object of at most 4 conditions");
    json_object_foreach((json_t *)when, key, v)
    {
        struct dialect_when *w = &e->when[e->whens++];
        int rc = take_pointer(r, key, "when");
        if (rc < 0)
            return rc;
        if (strlen(key) > DIALECT_POINTER_MAX)
            return bad(r, "when", "has a pointer of more than 127 bytes");
        strcpy(w->pointer, key);
        if (json_is_true(v))
            w->any = true;
        else if (json_is_string(v))
            rc = take_text(r, v, "when", w->value);
        else if (json_is_integer(v))
            snprintf(w->value, sizeof w->value, "%lld", (long long)json_integer_value(v));
        else
            rc = bad(r, "when", "asks for what is neither text, integer nor true");
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int take_choice(const struct reading *r, const json_t *v, const char *key, const char *const *names,
                       int n, uint8_t *out)
{
    for (int i = 0; i < n; i++)
        if (json_is_string(v) && !strcmp(json_string_value(v), names[i])) {
            *out = (uint8_t)(i + 1);
            return 0;
        }
    return bad(r, key, "is none of the words it may be");
}

static int take_entry(const struct reading *r, const json_t *o, struct dialect_entry *e)
{
    static const char *const sides[] = {"client", "server"}, *const roles[] = {"send", "push", "accept",
                                                                               "ack"};
    struct {
        const char *key;
        char *to;
    } fields[] = {{"t", e->t},     {"id", e->id},         {"chat", e->chat},
                  {"seq", e->seq}, {"sender", e->sender}, {"ack", e->ack}};
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return bad(r, NULL, "is no object");
    json_object_foreach((json_t *)o, key, v)
    {
        int rc = 1;
        for (size_t i = 0; i < sizeof fields / sizeof *fields && rc > 0; i++)
            if (!strcmp(key, fields[i].key)) {
                rc = take_text(r, v, key, fields[i].to);
                if (!rc && !(fields[i].to == e->t && e->t[0] == '='))
                    rc = take_pointer(r, fields[i].to, key);
            }
        if (rc > 0)
            rc = !strcmp(key, "from")   ? take_choice(r, v, key, sides, 2, &e->from)
                 : !strcmp(key, "role") ? take_choice(r, v, key, roles, 4, &e->role)
                 : !strcmp(key, "when") ? take_when(r, v, e)
                                        : bad(r, key, "is no known key");
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int take_all(struct dialect *d, const json_t *o, const char *name, struct err_ctx *ctx)
{
    static const char *const framings[] = {"json", "lines", "socket.io"};
    struct reading r = {ctx, name, 0};
    const json_t *list = json_object_get(o, "messages"), *framing = json_object_get(o, "framing"), *v;
    const char *key;
    if (!json_is_object(o) || !json_is_array(list))
        return err_set(ctx, ERR_INVALID, "%s: no object with an array \"messages\"", name);
    json_object_foreach((json_t *)o, key, v)
    {
        if (strcmp(key, "name") && strcmp(key, "about") && strcmp(key, "framing") && strcmp(key, "messages"))
            return err_set(ctx, ERR_INVALID, "%s: %s: is no known key", name, key);
    }
    if (json_array_size(list) > DIALECT_MESSAGES_MAX)
        return err_set(ctx, ERR_LIMIT, "%s: messages: more than %d entries", name, DIALECT_MESSAGES_MAX);
    if (json_is_string(json_object_get(o, "name")))
        snprintf(d->name, sizeof d->name, "%s", json_string_value(json_object_get(o, "name")));
    if (framing && take_choice(&r, framing, "framing", framings, 3, &d->framing) < 0)
        return err_set(ctx, ERR_INVALID, "%s: framing: is none of json, lines, socket.io", name);
    for (r.entry = 0; r.entry < json_array_size(list); r.entry++) {
        int rc = take_entry(&r, json_array_get(list, r.entry), &d->entry[d->entries++]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int dialect_parse(struct dialect **out, const char *text, size_t n, const char *name, struct err_ctx *ctx)
{
    json_error_t e;
    struct dialect *d = calloc(1, sizeof *d);
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    int rc = !d  ? err_set(ctx, ERR_NOMEM, "%s: out of memory", name)
             : o ? take_all(d, o, name, ctx)
                 : err_set(ctx, ERR_INVALID, "%s: line %d, column %d: %s", name, e.line, e.column, e.text);
    json_decref(o);
    *out = NULL;
    if (rc < 0)
        dialect_free(d);
    else
        *out = d;
    return rc;
}

#define FILE_MAX (1u << 20)

int dialect_load(struct dialect **out, const char *path, struct err_ctx *ctx)
{
    *out = NULL;
    for (int i = 0; i < BUILTIN; i++)
        if (!strcmp(path, builtin[i].name))
            return dialect_parse(out, builtin[i].text, (size_t)(builtin[i].end - builtin[i].text), path, ctx);
    FILE *f = fopen(path, "re");
    if (!f) {
        int rc = err_errno(ctx, "%s", path);
        return rc == ERR_NOTFOUND
                   ? err_set(ctx, rc,
                             "%s: no such file, and no dialect that comes with the tool (centrifugo, "
                             "mattermost, socket.io)",
                             path)
                   : rc;
    }
    char *text = malloc(FILE_MAX + 1);
    size_t n = text ? fread(text, 1, FILE_MAX + 1, f) : 0;
    int rc = !text          ? err_set(ctx, ERR_NOMEM, "%s: out of memory", path)
             : ferror(f)    ? err_errno(ctx, "%s", path)
             : n > FILE_MAX ? err_set(ctx, ERR_LIMIT, "%s: more than 1 MiB", path)
                            : dialect_parse(out, text, n, path, ctx);
    fclose(f);
    free(text);
    return rc;
}

void dialect_free(struct dialect *d)
{
    free(d);
}

const char *dialect_name(const struct dialect *d)
{
    return d->name;
}

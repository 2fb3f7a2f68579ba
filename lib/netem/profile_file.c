/* Profile files: a JSON object of the words of keys.def, with "profile" for a base and "up", "down" for one
 * way. */
#include "netem/profile_impl.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

struct file_values {
    struct netem_profile *p;
    struct netem_sources *from;
    const char *path;
};

/* Files that a profile file names are found from where it stands. */
static int set_word(const struct file_values *f, const char *word, const char *value, struct err_ctx *ctx)
{
    char whole[NETEM_DESCRIPTION_MAX];
    const char *bare = strchr(word, '.'), *slash = strrchr(f->path, '/'), *name = value;
    unsigned k = netem_key_of(bare ? bare + 1 : word);
    bool table = k == KEY_dist && strncmp(value, "table:", 6) == 0;
    if (table)
        name += 6;
    if (slash && (table || (k == KEY_trace && *value && strcmp(value, "none") != 0)) && name[0] != '/') {
        if (snprintf(whole, sizeof whole, "%s%.*s/%s", table ? "table:" : "", (int)(slash - f->path), f->path,
                     name) >= (int)sizeof whole)
            return err_set(ctx, ERR_RANGE, "%s: the path is too long", word);
        value = whole;
    }
    return netem_set(f->p, f->from, "profile file", word, value, ctx);
}

static int set_all(const struct file_values *f, const json_t *object, const char *prefix, struct err_ctx *ctx)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool top = !*prefix;
        char word[80];
        int rc;
        if (top && strcmp(key, "profile") == 0)
            continue;
        if (top && json_is_object(value) && (strcmp(key, "up") == 0 || strcmp(key, "down") == 0)) {
            rc = set_all(f, value, key[0] == 'u' ? "up." : "down.", ctx);
        } else if (!json_is_string(value)) {
            rc = err_set(ctx, ERR_INVALID, "%s%s: must be a string", prefix, key);
        } else if (snprintf(word, sizeof word, "%s%s", prefix, key) >= (int)sizeof word) {
            rc = err_set(ctx, ERR_INVALID, "unknown word '%s%.40s...'", prefix, key);
        } else {
            rc = set_word(f, word, json_string_value(value), ctx);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* "profile": one name, or several joined by '+'. */
static int set_base(const struct file_values *f, const char *names, struct err_ctx *ctx)
{
    char name[64];
    int rc = 0;
    for (size_t n; !rc; names += n + 1) {
        n = strcspn(names, "+");
        if (snprintf(name, sizeof name, "%.*s", (int)n, names) >= (int)sizeof name)
            return err_set(ctx, ERR_INVALID, "profile: '%.40s...' is no profile", names);
        rc = netem_named(f->p, f->from, name, ctx);
        if (!names[n])
            break;
    }
    return rc;
}

static int from_json(const struct file_values *f, const json_t *root, struct err_ctx *ctx)
{
    const json_t *base = json_object_get(root, "profile");
    if (!json_is_object(root))
        return err_set(ctx, ERR_INVALID, "must be a JSON object");
    if (base && !json_is_string(base))
        return err_set(ctx, ERR_INVALID, "profile: must be a string");
    int rc = base ? set_base(f, json_string_value(base), ctx) : 0;
    return rc ? rc : set_all(f, root, "", ctx);
}

static int read_file(char *text, size_t cap, size_t *len, const char *path, struct err_ctx *ctx)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_errno(ctx, "%s", path);
    *len = fread(text, 1, cap, f);
    int rc = ferror(f) ? err_errno(ctx, "%s", path) : 0;
    fclose(f);
    if (!rc && *len == cap)
        rc = err_set(ctx, ERR_RANGE, "%s: is longer than %zu bytes", path, cap - 1);
    return rc;
}

int netem_file(struct netem_profile *p, struct netem_sources *from, const char *path, struct err_ctx *ctx)
{
    char *text = malloc(NETEM_FILE_MAX + 1);
    size_t len = 0;
    json_error_t where;
    if (!text)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    int rc = read_file(text, NETEM_FILE_MAX + 1, &len, path, ctx);
    if (rc)
        goto out;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        rc = err_set(ctx, ERR_INVALID, "%s: offset %d: %s", path, where.position, where.text);
        goto out;
    }
    rc = from_json(&(struct file_values){p, from, path}, root, ctx);
    if (rc)
        err_prefix(ctx, "%s: ", path);
    json_decref(root);
out:
    free(text);
    return rc;
}

/* Profile files: a JSON object of the words of keys.def, with "profile" for a base and "up", "down" for one
 * way. */
#include "netem/profile_impl.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static int set_all(struct netem_profile *p, struct netem_sources *from, const json_t *object,
                   const char *prefix, struct err_ctx *ctx)
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
            rc = set_all(p, from, value, key[0] == 'u' ? "up." : "down.", ctx);
        } else if (!json_is_string(value)) {
            rc = err_set(ctx, ERR_INVALID, "%s%s: must be a string", prefix, key);
        } else if (snprintf(word, sizeof word, "%s%s", prefix, key) >= (int)sizeof word) {
            rc = err_set(ctx, ERR_INVALID, "unknown word '%s%.40s...'", prefix, key);
        } else {
            rc = netem_set(p, from, "profile file", word, json_string_value(value), ctx);
        }
        if (rc)
            return rc;
    }
    return 0;
}

static int from_json(struct netem_profile *p, struct netem_sources *from, const json_t *root,
                     struct err_ctx *ctx)
{
    const json_t *base = json_object_get(root, "profile");
    if (!json_is_object(root))
        return err_set(ctx, ERR_INVALID, "must be a JSON object");
    if (base && !json_is_string(base))
        return err_set(ctx, ERR_INVALID, "profile: must be a string");
    int rc = base ? netem_named(p, from, json_string_value(base), ctx) : 0;
    return rc ? rc : set_all(p, from, root, "", ctx);
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
    rc = from_json(p, from, root, ctx);
    if (rc)
        err_prefix(ctx, "%s: ", path);
    json_decref(root);
out:
    free(text);
    return rc;
}

#include "scenario/scenario_impl.h"

#include <string.h>

/* The element of an array whose "name" is `name`; *index says where. */
static json_t *element(const json_t *array, const char *name, size_t n, size_t *index)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *e = json_array_get(array, i);
        const char *s = json_string_value(json_object_get(e, "name"));
        if (s && strlen(s) == n && memcmp(s, name, n) == 0) {
            *index = i;
            return e;
        }
    }
    return NULL;
}

static int assign(struct place *at, json_t *node, const char *path, const json_t *value);

static int assign_in_array(struct place *at, json_t *array, const char *head, size_t n, const char *rest,
                           const json_t *value)
{
    size_t i;
    if (n == 1 && *head == '*') {
        if (!rest)
            return scenario_error(at, ERR_INVALID, "a star needs a key behind it");
        json_t *e;
        json_array_foreach(array, i, e)
        {
            int rc = assign(at, e, rest, value);
            if (rc)
                return rc;
        }
        return 0;
    }
    json_t *e = element(array, head, n, &i);
    if (!e)
        return scenario_error(at, ERR_INVALID, "there is no element named %.*s", (int)n, head);
    if (rest)
        return assign(at, e, rest, value);
    if (json_is_null(value))
        return json_array_remove(array, i);
    return json_array_set_new(array, i, json_deep_copy(value)) ? ERR_NOMEM : 0;
}

/* Set the value at a dotted path below `node`, making objects on the way; the result is checked as a whole
 * afterwards, so a misspelt key is found there. */
static int assign(struct place *at, json_t *node, const char *path, const json_t *value)
{
    const char *dot = strchr(path, '.'), *rest = dot ? dot + 1 : NULL;
    size_t n = dot ? (size_t)(dot - path) : strlen(path);
    if (n == 0 || n >= SCENARIO_NAME)
        return scenario_error(at, ERR_INVALID, "is no dotted path");
    if (json_is_array(node))
        return assign_in_array(at, node, path, n, rest, value);
    if (!json_is_object(node))
        return scenario_error(at, ERR_INVALID, "there is nothing below %.*s", (int)n, path);
    char key[SCENARIO_NAME];
    memcpy(key, path, n);
    key[n] = 0;
    if (!rest) {
        if (json_is_null(value))
            return json_object_del(node, key)
                       ? scenario_error(at, ERR_INVALID, "there is no %s to remove", key)
                       : 0;
        return json_object_set_new(node, key, json_deep_copy(value)) ? ERR_NOMEM : 0;
    }
    json_t *child = json_object_get(node, key);
    if (!child) {
        child = json_object();
        if (json_object_set_new(node, key, child))
            return ERR_NOMEM;
    }
    return assign(at, child, rest, value);
}

int scenario_apply_variant(struct place *at, json_t *root, const char *name)
{
    json_t *all = json_object_get(root, "variants"), *v = json_object_get(all, name);
    size_t top = scenario_enter(at, "variants"), mark = scenario_enter(at, name);
    int rc = 0;
    if (!v)
        rc = scenario_error(at, ERR_NOTFOUND, "no such variant");
    else if (!json_is_object(v))
        rc = scenario_error(at, ERR_INVALID, "must be an object");
    const char *key;
    json_t *value;
    json_object_foreach(v, key, value)
    {
        if (rc)
            break;
        if (strcmp(key, "why") == 0)
            continue;
        size_t deep = strlen(at->path);
        snprintf(at->path + deep, sizeof at->path - deep, "[\"%s\"]", key);
        rc = strncmp(key, "variants", 8) == 0 || strcmp(key, "name") == 0
                 ? scenario_error(at, ERR_INVALID, "a variant can't change this")
                 : assign(at, root, key, value);
        if (rc == ERR_NOMEM)
            rc = err_set(at->ctx, rc, "%s: out of memory", at->file);
        scenario_leave(at, deep);
    }
    scenario_leave(at, mark);
    scenario_leave(at, top);
    return rc;
}

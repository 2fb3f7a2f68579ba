/* Links files: what is asked for, checked whole before anything starts. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "util/units.h"

static int take_string(char *out, size_t cap, const json_t *value, const char *key, struct err_ctx *err)
{
    if (!json_is_string(value) || !*json_string_value(value))
        return err_set(err, ERR_INVALID, "%s: must be a string", key);
    if (snprintf(out, cap, "%s", json_string_value(value)) >= (int)cap)
        return err_set(err, ERR_INVALID, "%s: is longer than %zu bytes", key, cap - 1);
    return 0;
}

static bool name_is_plain(const char *name)
{
    size_t n = strlen(name);
    if (!n || n >= LINKS_NAME || !isalnum((unsigned char)name[0]))
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
            return false;
    return true;
}

/* Blocks of 2^k addresses, of which the first is not a phone's (a block of one is). */
static int set_block(struct link_spec *l, uint32_t base, int prefix, struct err_ctx *err)
{
    uint64_t size = 1ull << (32 - prefix);
    if (prefix < 16 || (base & 0xFFFF0000u) != NETEM_NEAR_NET || base & (size - 1))
        return err_set(err, ERR_RANGE, "must be an aligned block within 198.18.0.0/16");
    l->block = base;
    l->prefix = prefix;
    l->first = base + (size > 1);
    l->count = (uint32_t)(size > 1 ? size - 1 : 1);
    return 0;
}

/* "198.18.4.0/22" */
static int parse_block(struct link_spec *l, const char *text, struct err_ctx *err)
{
    unsigned a, b, c, d, prefix;
    char end;
    if (sscanf(text, "%u.%u.%u.%u/%u%c", &a, &b, &c, &d, &prefix, &end) != 5 || a > 255 || b > 255 ||
        c > 255 || d > 255 || prefix > 32)
        return err_set(err, ERR_INVALID, "'%s' is no block of addresses like 198.18.4.0/22", text);
    return set_block(l, a << 24 | b << 16 | c << 8 | d, (int)prefix, err);
}

/* As many phones as asked for, in the first aligned block behind those before. */
static int place_block(struct links_file *f, struct link_spec *l, uint64_t phones, struct err_ctx *err)
{
    int prefix = 32;
    uint64_t next = NETEM_NEAR_NET;
    if (!phones || phones > 65535)
        return err_set(err, ERR_RANGE, "1..65535 phones are possible");
    while ((1ull << (32 - prefix)) < phones + 1)
        prefix--;
    for (uint32_t i = 0; i < f->n; i++)
        if (f->link[i].block + (1ull << (32 - f->link[i].prefix)) > next)
            next = f->link[i].block + (1ull << (32 - f->link[i].prefix));
    uint64_t size = 1ull << (32 - prefix);
    next = (next + size - 1) / size * size;
    if (next + size > NETEM_NEAR_NET + 0x10000ull)
        return err_set(err, ERR_RANGE, "198.18.0.0/16 has no room left for %llu phones",
                       (unsigned long long)phones);
    int rc = set_block(l, (uint32_t)next, prefix, err);
    l->count = (uint32_t)phones;
    return rc;
}

static int place(struct links_file *f, struct link_spec *l, const json_t *addresses, struct err_ctx *err)
{
    int rc;
    if (json_is_string(addresses))
        rc = parse_block(l, json_string_value(addresses), err);
    else if (!addresses || (json_is_integer(addresses) && json_integer_value(addresses) > 0))
        rc = place_block(f, l, addresses ? (uint64_t)json_integer_value(addresses) : 255, err);
    else
        rc = err_set(err, ERR_INVALID, "must be a number of phones or a block like \"198.18.4.0/22\"");
    for (uint32_t i = 0; !rc && i < f->n; i++) {
        const struct link_spec *o = &f->link[i];
        int wide = o->prefix < l->prefix ? o->prefix : l->prefix;
        if ((o->block ^ l->block) >> (32 - wide) == 0)
            rc = err_set(err, ERR_RANGE, "overlaps the block of '%s'", o->name);
    }
    return rc ? err_prefix(err, "addresses: ") : 0;
}

static int add_link(struct links_file *f, const char *name, const json_t *o, struct err_ctx *err)
{
    struct link_spec *l = &f->link[f->n];
    struct netem_profile p;
    const char *key;
    json_t *value;
    if (!name_is_plain(name))
        return err_set(err, ERR_INVALID, "a name is 1..%d letters, digits, '.', '_' or '-'", LINKS_NAME - 1);
    if (f->n == LINKS_MAX)
        return err_set(err, ERR_LIMIT, "a file has at most %d links", LINKS_MAX);
    if (!json_is_object(o))
        return err_set(err, ERR_INVALID, "must be an object");
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        if (strcmp(key, "profile") && strcmp(key, "addresses"))
            return err_set(err, ERR_INVALID, "%.60s: unknown key (profile, addresses)", key);
    }
    snprintf(l->name, sizeof l->name, "%s", name);
    int rc = take_string(l->profile, sizeof l->profile, json_object_get(o, "profile"), "profile", err);
    if (!rc && (rc = netem_profile_parse(&p, l->profile, err)))
        err_prefix(err, "profile: ");
    rc = rc ? rc : place(f, l, json_object_get(o, "addresses"), err);
    f->n += !rc;
    return rc;
}

static int add_links(struct links_file *f, const json_t *links, struct err_ctx *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(links) || !json_object_size(links))
        return err_set(err, ERR_INVALID, "links: must be an object with at least one link");
    json_object_foreach((json_t *)(uintptr_t)links, name, value)
    {
        if (add_link(f, name, value, err))
            return err_prefix(err, "links.%.60s: ", name);
    }
    return 0;
}

static int add_exposed(struct links_file *f, const json_t *list, struct err_ctx *err)
{
    size_t i;
    json_t *value;
    char key[32];
    if (!json_is_array(list) || json_array_size(list) > LINKS_EXPOSE_MAX)
        return err_set(err, ERR_INVALID, "expose: must be a list of at most %d strings", LINKS_EXPOSE_MAX);
    json_array_foreach(list, i, value)
    {
        snprintf(key, sizeof key, "expose[%zu]", i);
        int rc = take_string(f->expose[i], sizeof f->expose[i], value, key, err);
        if (rc)
            return rc;
    }
    f->expose_n = (uint32_t)i;
    return 0;
}

static int add_key(struct links_file *f, const char *key, const json_t *value, struct err_ctx *err)
{
    if (strcmp(key, "links") == 0)
        return add_links(f, value, err);
    if (strcmp(key, "expose") == 0)
        return add_exposed(f, value, err);
    if (strcmp(key, "trace") == 0)
        return take_string(f->trace, sizeof f->trace, value, key, err);
    if (strcmp(key, "capture") == 0)
        return take_string(f->capture, sizeof f->capture, value, key, err);
    if (strcmp(key, "seed") != 0)
        return err_set(err, ERR_INVALID, "%.60s: unknown key (links, expose, seed, trace, capture)", key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(err, ERR_INVALID, "seed: must be a number");
    f->seed = (uint64_t)json_integer_value(value);
    f->seeded = true;
    return 0;
}

static int go_to_folder(struct links_file *f, const char *path, struct err_ctx *err)
{
    char whole[PATH_MAX];
    if (!realpath(path, whole))
        return err_errno(err, "%s", path);
    if (strlen(whole) >= sizeof f->path)
        return err_set(err, ERR_RANGE, "%.60s...: the path is too long", whole);
    strcpy(f->path, whole);
    strcpy(f->folder, whole);
    char *slash = strrchr(f->folder, '/');
    slash[slash == f->folder] = 0;
    return chdir(f->folder) ? err_errno(err, "%s", f->folder) : 0;
}

int links_load(struct links_file *f, const char *path, struct err_ctx *err)
{
    json_error_t where;
    const char *key;
    json_t *value;
    *f = (struct links_file){0};
    int rc = go_to_folder(f, path, err);
    if (rc)
        return rc;
    json_t *root = json_load_file(f->path, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(err, ERR_INVALID, "%s: line %d, column %d: %s", path, where.line, where.column,
                       where.text);
    if (!json_is_object(root))
        rc = err_set(err, ERR_INVALID, "must be a JSON object");
    else if (!json_object_get(root, "links"))
        rc = err_set(err, ERR_INVALID, "links: missing");
    json_object_foreach(root, key, value)
    {
        if (rc || (rc = add_key(f, key, value, err)))
            break;
    }
    json_decref(root);
    return rc ? err_prefix(err, "%s: ", path) : 0;
}

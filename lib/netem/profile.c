#include "netem/profile_impl.h"

#include <string.h>

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

unsigned netem_key_of(const char *word)
{
    unsigned k = 0;
    while (k < KEY_COUNT && strcmp(netem_keys[k].word, word) != 0)
        k++;
    return k;
}

/* Words that say the same thing in different ways: the last one counts. */
static void set_aside(struct netem_profile *p, struct netem_sources *from, unsigned k, unsigned dir)
{
    static const unsigned groups[][3] = {{KEY_rate, KEY_trace, KEY_COUNT},
                                         {KEY_blackout_every, KEY_blackout_period, KEY_blackout_at}};
    for (unsigned g = 0; g < 2; g++) {
        bool in = false;
        for (unsigned i = 0; i < 3; i++)
            in |= groups[g][i] == k;
        for (unsigned i = 0; in && i < 3; i++) {
            unsigned other = groups[g][i];
            if (other == k || other == KEY_COUNT)
                continue;
            if (other == KEY_blackout_at)
                memset(&p->blackout_at, 0, sizeof p->blackout_at);
            else
                memset(netem_key_field(p, other, dir), 0, sizeof(uint64_t));
            if (from)
                from->of[dir][other] = NULL;
        }
    }
}

/* Whether the value says "none of this", which sets nothing aside. */
static bool says_none(const struct netem_profile *p, unsigned k, unsigned dir)
{
    if (k == KEY_blackout_at)
        return !p->blackout_at.n;
    uint64_t zero = 0;
    return memcmp(netem_key_field(p, k, dir), &zero, sizeof zero) == 0;
}

int netem_set(struct netem_profile *p, struct netem_sources *from, const char *source, const char *word,
              const char *value, struct err_ctx *ctx)
{
    unsigned first = NETEM_UP, last = NETEM_DOWN;
    const char *bare = word;
    if (strncmp(word, "up.", 3) == 0) {
        bare = word + 3;
        last = NETEM_UP;
    } else if (strncmp(word, "down.", 5) == 0) {
        bare = word + 5;
        first = NETEM_DOWN;
    }
    unsigned k = netem_key_of(bare);
    if (k == KEY_COUNT || (bare != word && !netem_keys[k].each_way))
        return err_set(ctx, ERR_INVALID, "unknown word '%s'", word);
    if (!*value)
        return err_set(ctx, ERR_INVALID, "%s: the value is missing", word);
    if (!netem_keys[k].each_way)
        last = first;
    for (unsigned d = first; d <= last; d++) {
        int rc = netem_value_parse(netem_key_field(p, k, d), netem_keys[k].type, value, ctx);
        if (rc) {
            err_prefix(ctx, "%s: ", word);
            return rc;
        }
        if (!says_none(p, k, d))
            set_aside(p, from, k, d);
        if (from)
            from->of[d][k] = source;
    }
    return 0;
}

bool netem_is_named(const char *name, size_t n)
{
    for (size_t r = 0; r < ROWS; r++)
        if (rows[r].name && strlen(rows[r].name) == n && memcmp(rows[r].name, name, n) == 0)
            return true;
    return false;
}

/* The first name, then "+" and the others, as far as they fit. */
static void add_name(struct netem_profile *p, const char *name)
{
    size_t n = strlen(p->name);
    if (strcmp(p->name, "custom") == 0)
        snprintf(p->name, sizeof p->name, "%s", name);
    else
        snprintf(p->name + n, sizeof p->name - n, "+%s", name);
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
    add_name(p, name);
    return 0;
}

/* The end of the part that begins at `text`: a ',', or a '+' with a new part behind it. The '+' of a list of
 * blackouts (12.4s+800ms) or of a file's name is none of those. */
static char *part_end(char *text)
{
    for (char *at = text; *at; at++) {
        if (*at == ',')
            return at;
        if (*at != '+')
            continue;
        const char *next = at + 1;
        size_t n = strcspn(next, ",+"), word = strspn(next, "abcdefghijklmnopqrstuvwxyz_.");
        bool file = n > 5 && memcmp(next + n - 5, ".json", 5) == 0;
        if (netem_is_named(next, n) || next[word] == '=' || file)
            return at;
    }
    return text + strlen(text);
}

static int describe_part(struct netem_profile *p, struct netem_sources *from, char *part, struct err_ctx *ctx)
{
    char *equals = strchr(part, '=');
    size_t n = strlen(part);
    if (equals) {
        *equals = 0;
        return netem_set(p, from, "given", part, equals + 1, ctx);
    }
    if (strchr(part, '/') || (n > 5 && strcmp(part + n - 5, ".json") == 0))
        return netem_file(p, from, part, ctx);
    return netem_named(p, from, part, ctx);
}

static int describe_parts(struct netem_profile *p, struct netem_sources *from, char *text,
                          struct err_ctx *ctx)
{
    bool any = false;
    while (*text) {
        char *end = part_end(text);
        bool more = *end;
        *end = 0;
        int rc = *text ? describe_part(p, from, text, ctx) : 0;
        if (rc)
            return rc;
        any |= *text != 0;
        text = more ? end + 1 : end;
    }
    return any ? 0 : err_set(ctx, ERR_INVALID, "an empty description");
}

int netem_describe(struct netem_profile *p, struct netem_sources *from, const char *description,
                   struct err_ctx *ctx)
{
    char text[NETEM_DESCRIPTION_MAX];
    if (strlen(description) >= sizeof text)
        return err_set(ctx, ERR_RANGE, "a network's description is longer than %zu bytes", sizeof text - 1);
    strcpy(text, description);
    struct netem_profile made;
    memset(&made, 0, sizeof made);
    strcpy(made.name, "custom");
    int rc = describe_parts(&made, from, text, ctx);
    rc = rc ? rc : netem_finish(&made, ctx);
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

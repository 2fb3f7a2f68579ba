#include "util/opt_impl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct opt_value *value(const struct opt_set *s, const char *name, unsigned types)
{
    int i = opt_index(s, name, strlen(name));
    BUG_ON(i < 0);
    BUG_ON(!(types >> s->rows[i]->type & 1));
    return &s->values[i];
}

const char *opt_command(const struct opt_set *s)
{
    return s->command && s->command->name ? s->command->name : "";
}

int opt_operands(const struct opt_set *s)
{
    return s->operands_n;
}

const char *opt_operand(const struct opt_set *s, int i)
{
    BUG_ON(i < 0 || i >= s->operands_n);
    return s->operands[i];
}

char **opt_rest(const struct opt_set *s)
{
    return s->rest;
}

bool opt_flag(const struct opt_set *s, const char *name)
{
    return value(s, name, 1u << OPT_FLAG)->number;
}

const char *opt_string(const struct opt_set *s, const char *name)
{
    return value(s, name, 1u << OPT_STRING)->text;
}

uint64_t opt_u64(const struct opt_set *s, const char *name)
{
    return value(s, name,
                 1u << OPT_U64 | 1u << OPT_DURATION | 1u << OPT_SIZE | 1u << OPT_RATE | 1u << OPT_SHARE)
        ->number;
}

int opt_list(const struct opt_set *s, const char *name, const char *const **values)
{
    const struct opt_value *v = value(s, name, 1u << OPT_LIST);
    *values = (const char *const *)v->list;
    return v->list_n;
}

bool opt_given(const struct opt_set *s, const char *name)
{
    return value(s, name, ~0u)->source != OPT_DEFAULT;
}

const char *opt_source(const struct opt_set *s, const char *name)
{
    static const char *const names[] = {"default", "file", "environment", "flag"};
    return names[value(s, name, ~0u)->source];
}

bool opt_json(const struct opt_set *s)
{
    return opt_flag(s, "json");
}

int opt_verbosity(const struct opt_set *s)
{
    if (opt_flag(s, "quiet"))
        return -1;
    return s->verbose > 2 ? 2 : s->verbose;
}

bool opt_color(const struct opt_set *s, int fd)
{
    const char *when = opt_string(s, "color"), *no = getenv("NO_COLOR"), *term = getenv("TERM");
    if (strcmp(when, "auto") != 0)
        return strcmp(when, "always") == 0;
    return !(no && *no) && !(term && strcmp(term, "dumb") == 0) && isatty(fd);
}

uint64_t opt_seed(const struct opt_set *s)
{
    return opt_given(s, "seed") ? opt_u64(s, "seed") : s->drawn_seed;
}

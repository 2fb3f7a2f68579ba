#include "util/opt_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/units.h"

const struct opt opt_common[] = {
    OPT("help", 'h', FLAG, NULL, NULL, "print this help (after a command: the command's) and exit", NULL,
        false, false)                                                                     /* */
    OPT("version", 0, FLAG, NULL, NULL, "print the version and exit", NULL, false, false) /* */
    OPT("json", 0, FLAG, NULL, NULL, "print one JSON object with the results on stdout", NULL, false,
        false) /* */
    OPT("seed", 0, U64, "N", NULL, "seed of all random choices (drawn and printed when not given)", NULL,
        false, false)                                                                             /* */
    OPT("quiet", 'q', FLAG, NULL, NULL, "say nothing but errors and results", NULL, false, false) /* */
    OPT("verbose", 'v', FLAG, NULL, NULL, "say more; twice: still more", NULL, false, false)      /* */
    OPT("color", 0, STRING, "auto|always|never", "auto",
        "colours in output for people; NO_COLOR is respected", NULL, false, false)                   /* */
    OPT("man", 0, FLAG, NULL, NULL, "print the man page (roff) and exit", NULL, false, false)        /* */
    OPT("completion", 0, FLAG, NULL, NULL, "print the bash completion and exit", NULL, false, false) /* */
    OPT_END};

/* --- names ------------------------------------------------------------------------------------------- */

bool opt_applies(const struct opt *o, const char *command)
{
    if (!o->only || !command)
        return true;
    size_t n = strlen(command);
    for (const char *p = o->only; (p = strstr(p, command)) != NULL; p += n) {
        if ((p == o->only || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    }
    return false;
}

bool opt_has_choices(const struct opt *o)
{
    if (!o->arg || o->type == OPT_FLAG || !strchr(o->arg, '|'))
        return false;
    return strspn(o->arg, "abcdefghijklmnopqrstuvwxyz0123456789-|") == strlen(o->arg);
}

static const char *command_name(const struct opt_set *s)
{
    return s->command && s->command->name ? s->command->name : NULL;
}

static int index_where(const struct opt_set *s, const char *name, size_t n, char letter)
{
    int other = -1;
    for (int i = 0; i < s->count; i++) {
        const struct opt *o = s->rows[i];
        bool match = letter ? o->letter == letter : strlen(o->name) == n && memcmp(o->name, name, n) == 0;
        if (match && opt_applies(o, command_name(s)))
            return i;
        if (match && other < 0)
            other = i;
    }
    return other;
}

int opt_index(const struct opt_set *s, const char *name, size_t n)
{
    return index_where(s, name, n, 0);
}

/* --- the set ----------------------------------------------------------------------------------------- */

static void value_clear(struct opt_value *v)
{
    free(v->text);
    for (int i = 0; i < v->list_n; i++)
        free(v->list[i]);
    free(v->list);
    *v = (struct opt_value){0};
}

void opt_free(struct opt_set *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++)
        value_clear(&s->values[i]);
    free(s->values);
    free(s->rows);
    free(s->operands);
    free(s);
}

static void check_table(const struct opt_set *s)
{
    for (int i = 0; i < s->count; i++) {
        const struct opt *a = s->rows[i];
        BUG_ON((a->type == OPT_FLAG) != (a->arg == NULL));
        BUG_ON(!a->help || strncmp(a->name, "no-", 3) == 0);
        for (int j = 0; j < i; j++) {
            const struct opt *b = s->rows[j];
            if (strcmp(a->name, b->name) != 0)
                continue;
            BUG_ON((a->type == OPT_FLAG) != (b->type == OPT_FLAG)); /* arity must not depend on the command */
            BUG_ON(!a->only || !b->only);                           /* the same name twice for one command */
        }
    }
}

int opt_set_new(struct opt_set **out, const struct opt_tool *tool, const char *config_option)
{
    struct opt_set *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    int own = 0, common = 0;
    while (tool->options && tool->options[own].name)
        own++;
    while (opt_common[common].name)
        common++;
    s->tool = tool;
    s->config_option = config_option;
    s->rows = calloc((size_t)(own + common), sizeof *s->rows);
    s->values = calloc((size_t)(own + common), sizeof *s->values);
    if (!s->rows || !s->values) {
        opt_free(s);
        return ERR_NOMEM;
    }
    for (int i = 0; i < own + common; i++)
        s->rows[i] = i < own ? &tool->options[i] : &opt_common[i - own];
    s->count = own + common;
    check_table(s);
    for (int i = 0; i < s->count; i++) {
        struct err_ctx bug = {0};
        if (s->rows[i]->def && opt_take(s, i, s->rows[i]->def, OPT_DEFAULT, s->rows[i]->name, &bug))
            BUG_ON(bug.code != ERR_NOMEM); /* a default that does not parse */
    }
    *out = s;
    return 0;
}

/* --- values ------------------------------------------------------------------------------------------ */

static int parse_flag(uint64_t *v, const char *text, struct err_ctx *ctx)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *v = i & 1;
            return 0;
        }
    }
    return err_set(ctx, ERR_INVALID, "'%s' is neither true nor false", text);
}

static int check_choice(const struct opt *o, const char *text, struct err_ctx *ctx)
{
    struct nearest near = {.wanted = text, .wanted_n = strlen(text)};
    char words[256], hint[96], *save = NULL;
    if (!opt_has_choices(o))
        return 0;
    snprintf(words, sizeof words, "%s", o->arg);
    for (char *w = strtok_r(words, "|", &save); w; w = strtok_r(NULL, "|", &save)) {
        if (strcmp(w, text) == 0)
            return 0;
        nearest_offer(&near, w);
    }
    return err_set(ctx, ERR_INVALID, "'%s' is none of %s%s", text, o->arg, nearest_hint(&near, "", hint));
}

static int parse_value(const struct opt *o, uint64_t *number, const char *text, struct err_ctx *ctx)
{
    uint32_t ppm = 0;
    int rc;
    switch (o->type) {
    case OPT_FLAG:
        return parse_flag(number, text, ctx);
    case OPT_U64:
        return units_u64(number, text, ctx);
    case OPT_DURATION:
        return units_duration(number, text, ctx);
    case OPT_SIZE:
        return units_size(number, text, ctx);
    case OPT_RATE:
        return units_rate(number, text, ctx);
    case OPT_SHARE:
        rc = units_share(&ppm, text, ctx);
        *number = ppm;
        return rc;
    default:
        return check_choice(o, text, ctx);
    }
}

int opt_take(struct opt_set *s, int i, const char *text, enum opt_source source, const char *what,
             struct err_ctx *ctx)
{
    const struct opt *o = s->rows[i];
    struct opt_value *v = &s->values[i];
    struct err_ctx local = {0};
    uint64_t number = 0;
    int rc = parse_value(o, &number, text, &local);
    if (rc)
        return err_set(ctx, source == OPT_FILE ? rc : ERR_USAGE, "%s: %s", what, local.text);
    if (source < v->source)
        return 0;
    if (source > v->source || o->type != OPT_LIST)
        value_clear(v);
    v->source = source;
    v->number = number;
    char *copy = strdup(text);
    if (copy && o->type == OPT_LIST) {
        char **list = realloc(v->list, (size_t)(v->list_n + 1) * sizeof *list);
        if (!list) {
            free(copy);
            return err_set(ctx, ERR_NOMEM, "%s: out of memory", what);
        }
        v->list = list;
        list[v->list_n++] = copy;
    } else {
        v->text = copy;
    }
    return copy ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", what);
}

/* --- the command line -------------------------------------------------------------------------------- */

/* One argument of the command line, taken apart. */
struct arg {
    int row;                 /* -1: no such option */
    const char *value;       /* inside the argument ("--x=v", "-xv"), or NULL */
    const char *more;        /* further letters of "-abc", or NULL */
    const char *dash, *name; /* as written, for errors: "" and "--x", or "-" and "x" */
    int name_n;
    bool negated; /* --no-x */
};

static bool is_option(const char *a)
{
    return a[0] == '-' && a[1];
}

static struct arg split_long(const struct opt_set *s, const char *a)
{
    size_t n = strcspn(a + 2, "=");
    struct arg r = {.row = opt_index(s, a + 2, n), .dash = "", .name = a, .name_n = (int)n + 2};
    if (a[2 + n] == '=')
        r.value = a + 3 + n;
    if (r.row < 0 && n > 3 && memcmp(a + 2, "no-", 3) == 0) {
        r.row = opt_index(s, a + 5, n - 3);
        r.negated = r.row >= 0;
        if (r.negated && s->rows[r.row]->type != OPT_FLAG)
            r.row = -1;
    }
    return r;
}

/* `at` points to a letter inside "-abc". */
static struct arg split_short(const struct opt_set *s, const char *at)
{
    struct arg r = {.row = index_where(s, "", 0, *at), .dash = "-", .name = at, .name_n = 1};
    if (!at[1])
        return r;
    if (r.row >= 0 && s->rows[r.row]->type != OPT_FLAG)
        r.value = at[1] == '=' ? at + 2 : at + 1;
    else
        r.more = at + 1;
    return r;
}

static bool wants_next(const struct opt_set *s, const struct arg *a)
{
    return a->row >= 0 && s->rows[a->row]->type != OPT_FLAG && !a->value;
}

static int unknown_option(const struct opt_set *s, const struct arg *a, struct err_ctx *ctx)
{
    char hint[96];
    struct nearest near = {0};
    if (!*a->dash) {
        near = (struct nearest){.wanted = a->name + 2, .wanted_n = (size_t)a->name_n - 2};
        for (int i = 0; i < s->count; i++) {
            if (opt_applies(s->rows[i], command_name(s)))
                nearest_offer(&near, s->rows[i]->name);
        }
    }
    return err_set(ctx, ERR_USAGE, "unknown option '%s%.*s'%s", a->dash, a->name_n, a->name,
                   nearest_hint(&near, "--", hint));
}

static int take_option(struct opt_set *s, const struct arg *a, const char *next, bool *used,
                       struct err_ctx *ctx)
{
    char what[80];
    if (a->row < 0)
        return unknown_option(s, a, ctx);
    const struct opt *o = s->rows[a->row];
    if (!opt_applies(o, command_name(s)))
        return err_set(ctx, ERR_USAGE, "'%s%.*s' is an option of %s, not of %s", a->dash, a->name_n, a->name,
                       o->only, command_name(s));
    snprintf(what, sizeof what, "%s%.*s", a->dash, a->name_n, a->name);
    if (o->type == OPT_FLAG) {
        if (a->negated && a->value)
            return err_set(ctx, ERR_USAGE, "%s takes no value", what);
        if (strcmp(o->name, "verbose") == 0 && !a->negated)
            s->verbose++;
        return opt_take(s, a->row, a->negated ? "false" : a->value ? a->value : "true", OPT_GIVEN, what, ctx);
    }
    const char *value = a->value;
    if (!value) {
        if (!next || (strncmp(next, "--", 2) == 0 && (!next[2] || split_long(s, next).row >= 0)))
            return err_set(ctx, ERR_USAGE, "%s needs a value: %s %s", what, what, o->arg);
        value = next;
        *used = true;
    }
    return opt_take(s, a->row, value, OPT_GIVEN, what, ctx);
}

static int find_command(struct opt_set *s, const char *word, int *operand_from, struct err_ctx *ctx)
{
    const struct opt_command *c = s->tool->commands;
    *operand_from = 0;
    if (!c || !c->help)
        return 0;
    struct nearest near = {.wanted = word, .wanted_n = word ? strlen(word) : 0};
    char hint[96];
    for (; c->help; c++) {
        if (!c->name) {
            s->command = c;
            return 0;
        }
        if (word && strcmp(word, c->name) == 0) {
            s->command = c;
            *operand_from = 1;
            return 0;
        }
        if (word)
            nearest_offer(&near, c->name);
    }
    if (s->tool->default_first && (!word || s->tool->commands->max != 0)) {
        s->command = s->tool->commands;
        return 0;
    }
    if (!word)
        return err_set(ctx, ERR_USAGE, "a command is missing; see --help");
    return err_set(ctx, ERR_USAGE, "unknown command '%s'%s", word, nearest_hint(&near, "", hint));
}

/* First look: the first word that is no option (it may name the command), the questions that are answered
 * whatever else is wrong, and whether an unknown option stands before that word (which then may be its
 * value).
 */
static const char *scan(const struct opt_set *s, int argc, char **argv, const char **question,
                        struct arg *bad)
{
    static const char *const questions[] = {"help", "version", "man", "completion"};
    const char *word = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (!is_option(argv[i])) {
            word = word ? word : argv[i];
            continue;
        }
        struct arg a;
        const char *at = argv[i] + 1;
        do {
            a = argv[i][1] == '-' ? split_long(s, argv[i]) : split_short(s, at);
            for (size_t q = 0; a.row >= 0 && q < 4; q++) {
                if (strcmp(s->rows[a.row]->name, questions[q]) == 0)
                    *question = questions[q];
            }
            if (a.row < 0 && !word && !bad->name)
                *bad = a;
            at = a.more;
        } while (a.more);
        if (wants_next(s, &a))
            i++;
    }
    return word;
}

static int check_operands(const struct opt_set *s, struct err_ctx *ctx)
{
    const struct opt_command *c = s->command;
    const char *name = command_name(s) ? command_name(s) : s->tool->name;
    int n = s->operands_n;
    if (!c)
        return n ? err_set(ctx, ERR_USAGE, "unexpected argument '%s'", s->operands[0]) : 0;
    if (n < c->min)
        return err_set(ctx, ERR_USAGE, "%s needs %s", name, c->operands ? c->operands : "more operands");
    if (c->max >= 0 && n > c->max)
        return err_set(ctx, ERR_USAGE, "%s: unexpected argument '%s'", name, s->operands[c->max]);
    return 0;
}

/* Second look: all options and operands, now that the command is known. */
static int take_arguments(struct opt_set *s, int argc, char **argv, int skip, struct err_ctx *ctx)
{
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        if (ended || !is_option(argv[i])) {
            if (skip)
                skip = 0;
            else
                s->operands[s->operands_n++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            if (s->command && s->command->operands && strstr(s->command->operands, "-- ")) {
                s->rest = argv + i + 1;
                break;
            }
            ended = true;
            continue;
        }
        const char *at = argv[i] + 1;
        bool used = false;
        struct arg a;
        do {
            a = argv[i][1] == '-' ? split_long(s, argv[i]) : split_short(s, at);
            int rc = take_option(s, &a, i + 1 < argc ? argv[i + 1] : NULL, &used, ctx);
            if (rc)
                return rc;
            at = a.more;
        } while (a.more);
        i += used;
    }
    return check_operands(s, ctx);
}

static bool answered(const struct opt_set *s, const char *question, const char *word, struct buf *answer)
{
    int skip;
    if (!question)
        return false;
    if (strcmp(question, "help") == 0) {
        struct opt_set probe = *s;
        bool known = word && !find_command(&probe, word, &skip, NULL) && skip;
        opt_help_text(s->tool, known ? probe.command : NULL, answer);
    } else if (strcmp(question, "man") == 0) {
        opt_man_text(s->tool, answer);
    } else if (strcmp(question, "completion") == 0) {
        opt_completion_text(s->tool, answer);
    } else {
        buf_printf(answer, "%s %s\n", s->tool->name, CHAT_VERSION);
    }
    return true;
}

int opt_parse(struct opt_set **set, const struct opt_tool *tool, int argc, char **argv,
              const char *config_option, struct buf *answer, struct err_ctx *ctx)
{
    struct opt_set *s = NULL;
    const char *question = NULL;
    int skip = 0;
    *set = NULL;
    int rc = opt_set_new(&s, tool, config_option);
    if (rc)
        return err_set(ctx, rc, "out of memory");
    s->operands = calloc((size_t)argc + 1, sizeof *s->operands);
    if (!s->operands) {
        rc = err_set(ctx, ERR_NOMEM, "out of memory");
        goto out;
    }
    struct arg bad = {0};
    const char *word = scan(s, argc, argv, &question, &bad);
    if (answered(s, question, word, answer)) {
        rc = answer->failed ? err_set(ctx, ERR_NOMEM, "out of memory") : 0;
        goto out;
    }
    if (bad.name) {
        rc = unknown_option(s, &bad, ctx);
        goto out;
    }
    if ((rc = find_command(s, word, &skip, ctx)) || (rc = take_arguments(s, argc, argv, skip, ctx)) ||
        (rc = opt_take_environment(s, ctx)) || (rc = opt_take_file(s, ctx)))
        goto out;
    if (getrandom(&s->drawn_seed, sizeof s->drawn_seed, 0) != sizeof s->drawn_seed) {
        rc = err_errno(ctx, "getrandom");
        goto out;
    }
    s->drawn_seed >>= 11;
    *set = s;
    return 0;
out:
    opt_free(s);
    return rc;
}

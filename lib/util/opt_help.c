#include "util/opt_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HELP_COLUMN 28 /* where the explanations begin */

static const struct {
    int status;
    const char *text;
} statuses[] = {{0, "as expected"},     {1, "found what it looks for (loss, difference, failed expectation)"},
                {2, "inconclusive"},    {64, "wrong usage"},
                {65, "bad input data"}, {69, "a needed service or kernel feature is missing"},
                {70, "internal error"}, {74, "input/output error"},
                {77, "no permission"},  {130, "interrupted"}};

/* Between 80 and 100: COLUMNS, else the terminal, else 80. */
static int width(void)
{
    const char *env = getenv("COLUMNS");
    struct winsize w = {0};
    int n = env ? atoi(env) : 0;
    if (n <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0)
        n = w.ws_col;
    return n < 80 ? 80 : n > 100 ? 100 : n;
}

/* Words of `text` from column `at` on, broken to lines that start at column `indent`; ends with a newline. */
static void wrap(struct buf *out, const char *text, int at, int indent, int columns)
{
    bool first = true;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (!first && at + 1 + (int)n > columns) {
            buf_printf(out, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            buf_char(out, ' ');
            at++;
        }
        buf_add(out, text, n);
        at += (int)n;
        first = false;
        text += n + (text[n] == ' ');
    }
    buf_char(out, '\n');
}

/* `left`, then the explanation in its column (on the next line when left is too long). */
static void entry(struct buf *out, const char *left, const char *text, int columns)
{
    int n = (int)strlen(left);
    buf_str(out, left);
    if (n + 2 > HELP_COLUMN)
        buf_printf(out, "\n%*s", HELP_COLUMN, "");
    else
        buf_printf(out, "%*s", HELP_COLUMN - n, "");
    wrap(out, text, HELP_COLUMN, HELP_COLUMN, columns);
}

static const char *synopsis_options(const struct opt_tool *t)
{
    return t->commands && t->commands->help && t->commands->name ? "COMMAND [OPTION]..." : "[OPTION]...";
}

static bool has_commands(const struct opt_tool *t)
{
    return t->commands && t->commands->help && t->commands->name;
}

static void option_left(const struct opt *o, char *out, size_t cap)
{
    char letter[5] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(out, cap, "  %s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void option_entry(struct buf *out, const struct opt *o, int columns)
{
    char left[160], text[1024];
    option_left(o, left, sizeof left);
    snprintf(text, sizeof text, "%s%s%s%s%s", o->help, o->type == OPT_LIST ? " (repeatable)" : "",
             o->def ? " (default " : "", o->def ? o->def : "", o->def ? ")" : "");
    entry(out, left, text, columns);
}

static bool same_group(const struct opt *a, const struct opt *b)
{
    return a->only == b->only || (a->only && b->only && strcmp(a->only, b->only) == 0);
}

/* "Options of run and up:" */
static void group_title(const struct opt *o, char *out, size_t cap)
{
    char words[256], *save = NULL;
    size_t n = 0;
    if (!o->only) {
        snprintf(out, cap, "Options");
        return;
    }
    snprintf(words, sizeof words, "%s", o->only);
    out[0] = 0;
    for (char *w = strtok_r(words, " ", &save), *next; w; w = next) {
        next = strtok_r(NULL, " ", &save);
        int k = snprintf(out + n, cap - n, "%s%s", !n ? "Options of " : next ? ", " : " and ", w);
        n = k < 0 || n + (size_t)k >= cap ? cap - 1 : n + (size_t)k;
    }
}

/* Calls `each` for the option groups of the tool, in order of first appearance; without a command the general
 * group comes first. */
static void groups(const struct opt_tool *t, const char *command,
                   void (*each)(void *arg, const struct opt_tool *t, const struct opt *first), void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        for (const struct opt *o = t->options; o && o->name; o++) {
            if ((pass == 0) != (o->only == NULL) || !opt_applies(o, command))
                continue;
            bool seen = false;
            for (const struct opt *p = t->options; p < o && !seen; p++)
                seen = same_group(p, o);
            if (!seen)
                each(arg, t, o);
        }
    }
}

struct help {
    struct buf *out;
    int columns;
};

static void help_group(void *arg, const struct opt_tool *t, const struct opt *first)
{
    struct help *h = arg;
    char title[320];
    group_title(first, title, sizeof title);
    buf_printf(h->out, "\n%s:\n", title);
    for (const struct opt *o = t->options; o->name; o++) {
        if (same_group(o, first))
            option_entry(h->out, o, h->columns);
    }
}

static void command_left(const struct opt_command *c, char *out, size_t cap)
{
    snprintf(out, cap, "  %s%s%s", c->name, c->operands ? " " : "", c->operands ? c->operands : "");
}

/* Each line indented, unless it is already. */
static void help_examples(struct buf *out, const char *text)
{
    buf_str(out, "\nExamples:\n");
    while (*text) {
        size_t n = strcspn(text, "\n");
        buf_printf(out, "%s%.*s\n", n && *text != ' ' ? "  " : "", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

void opt_help_text(const struct opt_tool *t, const struct opt_command *command, struct buf *out)
{
    struct help h = {out, width()};
    char left[160];
    if (command) {
        buf_printf(out, "Usage: %s %s%s%s [OPTION]...\n\n", t->name, command->name,
                   command->operands ? " " : "", command->operands ? command->operands : "");
        wrap(out, command->help, 0, 0, h.columns);
    } else {
        const struct opt_command *c = t->commands;
        const char *operands = c && c->help && !c->name ? c->operands : NULL;
        buf_printf(out, "%s - %s\n\nUsage: %s %s%s%s\n", t->name, t->summary, t->name, synopsis_options(t),
                   operands ? " " : "", operands ? operands : "");
    }
    if (!command && has_commands(t)) {
        buf_str(out, "\nCommands:\n");
        for (const struct opt_command *c = t->commands; c->help; c++) {
            char text[600];
            bool def = t->default_first && c == t->commands;
            command_left(c, left, sizeof left);
            snprintf(text, sizeof text, "%s%s", c->help, def ? " (the default command)" : "");
            entry(out, left, text, h.columns);
        }
    }
    groups(t, command ? command->name : NULL, help_group, &h);
    buf_str(out, "\nCommon options:\n");
    for (const struct opt *o = opt_common; o->name; o++)
        option_entry(out, o, h.columns);
    if (!command && t->examples)
        help_examples(out, t->examples);
    if (!command && has_commands(t)) {
        snprintf(left, sizeof left, "'%s COMMAND --help' shows one command's options, --man the manual.",
                 t->name);
        buf_char(out, '\n');
        wrap(out, left, 0, 0, h.columns);
    }
}

/* --- man page ---------------------------------------------------------------------------------------- */

static void roff(struct buf *out, const char *s)
{
    bool line_start = true;
    for (; *s; s++) {
        if (line_start && (*s == '.' || *s == '\''))
            buf_str(out, "\\&");
        line_start = *s == '\n';
        if (*s == '\\')
            buf_str(out, "\\e");
        else if (*s == '-')
            buf_str(out, "\\-");
        else if (*s == '\'' || *s == '`' || *s == '^' || *s == '~')
            buf_printf(out, "\\(%s", *s == '\'' ? "aq" : *s == '`' ? "ga" : *s == '^' ? "ha" : "ti");
        else
            buf_char(out, *s);
    }
}

/* Blank lines part paragraphs. */
static void roff_paragraphs(struct buf *out, const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);
        char *part = strndup(text, n);
        if (!part)
            return;
        roff(out, part);
        free(part);
        buf_str(out, "\n");
        text += n + (end ? strspn(text + n, "\n") : 0);
        if (*text)
            buf_str(out, ".PP\n");
    }
}

static void man_option(struct buf *out, const struct opt_tool *t, const struct opt *o)
{
    char env[128];
    buf_str(out, ".TP\n\\fB");
    if (o->letter)
        buf_printf(out, "\\-%c\\fR, \\fB", o->letter);
    buf_str(out, "\\-\\-");
    roff(out, o->name);
    buf_str(out, "\\fR");
    if (o->arg) {
        buf_str(out, " \\fI");
        roff(out, o->arg);
        buf_str(out, "\\fR");
    }
    buf_char(out, '\n');
    roff(out, o->help);
    if (o->type == OPT_LIST)
        buf_str(out, "; may be given several times");
    buf_str(out, ".");
    if (o->def) {
        buf_str(out, " Default: ");
        roff(out, o->def);
        buf_char(out, '.');
    }
    if (o->config && t->env_prefix) {
        opt_env_name(t, o->name, env, sizeof env);
        buf_printf(out, " Environment: %s.", env);
    }
    if (o->reload)
        buf_str(out, " May change on SIGHUP.");
    buf_char(out, '\n');
}

static void man_group(void *arg, const struct opt_tool *t, const struct opt *first)
{
    char title[320];
    struct buf *out = arg;
    group_title(first, title, sizeof title);
    buf_str(out, ".SS ");
    roff(out, title);
    buf_char(out, '\n');
    for (const struct opt *o = t->options; o->name; o++) {
        if (same_group(o, first))
            man_option(out, t, o);
    }
}

void opt_man_text(const struct opt_tool *t, struct buf *out)
{
    buf_str(out, ".TH \"");
    for (const char *p = t->name; *p; p++)
        buf_char(out, (char)toupper((unsigned char)*p));
    buf_printf(out, "\" 1 \"\" \"chatd %s\" \"chatd toolkit\"\n.SH NAME\n", CHAT_VERSION);
    roff(out, t->name);
    buf_str(out, " \\- ");
    roff(out, t->summary);
    buf_printf(out, "\n.SH SYNOPSIS\n.B ");
    roff(out, t->name);
    buf_printf(out, "\n%s\n", synopsis_options(t));
    buf_str(out, ".SH DESCRIPTION\n");
    roff_paragraphs(out, t->description ? t->description : t->summary);
    if (has_commands(t)) {
        buf_str(out, ".SH COMMANDS\n");
        for (const struct opt_command *c = t->commands; c->help; c++) {
            buf_str(out, ".TP\n\\fB");
            roff(out, c->name);
            buf_str(out, "\\fR \\fI");
            roff(out, c->operands ? c->operands : "");
            buf_str(out, "\\fR\n");
            roff(out, c->help);
            buf_str(out, ".\n");
        }
    }
    buf_str(out, ".SH OPTIONS\n");
    groups(t, NULL, man_group, out);
    buf_str(out, ".SS Common options\n");
    for (const struct opt *o = opt_common; o->name; o++)
        man_option(out, t, o);
    buf_str(out, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        buf_printf(out, ".TP\n.B %d\n%s.\n", statuses[i].status, statuses[i].text);
    if (t->env_prefix)
        buf_printf(
            out,
            ".SH ENVIRONMENT\nA flag goes before the environment, that before the config file.\n"
            "Options with a variable of their own (%s...) name it above. NO_COLOR turns colours off.\n",
            t->env_prefix);
    if (t->examples) {
        buf_str(out, ".SH EXAMPLES\n.nf\n");
        roff(out, t->examples);
        buf_str(out, "\n.fi\n");
    }
}

/* --- bash completion --------------------------------------------------------------------------------- */

/* What may follow an option: its choices, files, folders or nothing. */
static void completion_case(struct buf *out, const struct opt *o)
{
    const char *action = "COMPREPLY=()";
    if (o->type == OPT_FLAG)
        return;
    buf_printf(out, "    --%s", o->name);
    if (o->letter)
        buf_printf(out, "|-%c", o->letter);
    buf_str(out, ") ");
    if (opt_has_choices(o)) {
        buf_str(out, "COMPREPLY=($(compgen -W '");
        for (const char *p = o->arg; *p; p++)
            buf_char(out, *p == '|' ? ' ' : *p);
        buf_str(out, "' -- \"$cur\"))");
    } else {
        if (strstr(o->arg, "FILE") || strstr(o->arg, "SRC") || strstr(o->arg, "PROFILE"))
            action = "COMPREPLY=($(compgen -f -- \"$cur\"))";
        else if (strstr(o->arg, "DIR"))
            action = "COMPREPLY=($(compgen -d -- \"$cur\"))";
        buf_str(out, action);
    }
    buf_str(out, "; return ;;\n");
}

static void completion_words(struct buf *out, const struct opt_tool *t, const char *command)
{
    for (const struct opt *o = t->options; o && o->name; o++) {
        if (opt_applies(o, command))
            buf_printf(out, " --%s", o->name);
    }
    for (const struct opt *o = opt_common; o->name; o++)
        buf_printf(out, " --%s", o->name);
}

void opt_completion_text(const struct opt_tool *t, struct buf *out)
{
    char fn[64];
    snprintf(fn, sizeof fn, "_%s", t->name);
    for (char *p = fn; *p; p++)
        *p = *p == '-' ? '_' : *p;
    buf_printf(out, "# bash completion for %s\n%s() {\n", t->name, fn);
    buf_str(out,
            "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= w words\n"
            "    COMPREPLY=()\n    for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        case $w in\n");
    if (has_commands(t)) {
        buf_str(out, "        ");
        for (const struct opt_command *c = t->commands; c->help; c++)
            buf_printf(out, "%s%s", c == t->commands ? "" : "|", c->name);
        buf_str(out, ") cmd=$w; break ;;\n");
    }
    buf_str(out, "        esac\n    done\n    case $prev in\n");
    for (const struct opt *o = t->options; o && o->name; o++)
        completion_case(out, o);
    for (const struct opt *o = opt_common; o->name; o++)
        completion_case(out, o);
    buf_str(out, "    esac\n    case $cmd in\n");
    for (const struct opt_command *c = t->commands; has_commands(t) && c->help; c++) {
        buf_printf(out, "    %s) words='", c->name);
        completion_words(out, t, c->name);
        buf_str(out, "' ;;\n");
    }
    buf_str(out, "    *) words='");
    completion_words(out, t, NULL);
    buf_str(out, "' ;;\n    esac\n"
                 "    if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n");
    if (has_commands(t)) {
        buf_str(out, "    elif [[ -z $cmd ]]; then COMPREPLY=($(compgen -W '");
        for (const struct opt_command *c = t->commands; c->help; c++)
            buf_printf(out, " %s", c->name);
        buf_str(out, "' -- \"$cur\"))\n");
    }
    buf_printf(out, "    else COMPREPLY=($(compgen -f -- \"$cur\")); fi\n}\ncomplete -o filenames -F %s %s\n",
               fn, t->name);
}

/* Options of a tool from one table (cmd/<tool>/options.def): parser, --help, man page, shell completion,
 * config file and environment all come from it, so that they cannot disagree.
 *
 * A tool's options.def is a list of rows
 *     OPT(name, letter, TYPE, arg, default, help, only, config, reload)
 * e.g. OPT("listen", 'l', STRING, "ADDR:PORT", "127.0.0.1:8080", "where to accept clients", "serve", true,
 * false) and its main.c makes the table of it in three lines (OPT is defined below): static const struct opt
 * options[] = { #include "cmd/chatd-server/options.def" OPT_END}; Then main calls opt_parse; on an error it
 * prints ctx.text on stderr and exits with err_exit_status(rc), and when `answer` holds text it prints that
 * on stdout and exits 0.
 *
 * Precedence: flag > environment > config file > default. Common options (--help --version --json --seed -q
 * -v
 * --color --man --completion) are added by opt itself. Unknown options, values that do not parse and missing
 * arguments are ERR_USAGE with a sentence (unknown names with the nearest known one); --help, --version,
 * --man and --completion are answered by opt_parse itself (into *answer).
 *
 * A placeholder of lower-case words ("reliable|legacy") is a list of choices: other values are refused.
 * Two rows may share a name when their commands differ and both or neither take a value. A list's environment
 * variable is comma-separated; in the file it is an array. An empty environment variable counts as unset. */
#ifndef UTIL_OPT_H
#define UTIL_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

enum opt_type {
    OPT_FLAG,     /* bool: --x, or --no-x */
    OPT_STRING,   /* const char * */
    OPT_U64,      /* decimal */
    OPT_DURATION, /* u64 nanoseconds */
    OPT_SIZE,     /* u64 bytes */
    OPT_RATE,     /* u64 events per 1000 s */
    OPT_SHARE,    /* u64 ppm */
    OPT_LIST,     /* repeatable string */
};

struct opt {
    const char *name; /* long name without dashes: "listen" */
    char letter;      /* short name or 0 */
    enum opt_type type;
    const char *arg;  /* placeholder in help: "ADDR:PORT"; NULL for flags */
    const char *def;  /* default as text; NULL for none */
    const char *help; /* one sentence, no period */
    const char *only; /* space-separated commands it belongs to; NULL: all */
    bool config;      /* may stand in the config file and environment */
    bool reload;      /* may change on SIGHUP */
};

#define OPT(name, letter, TYPE, arg, def, help, only, config, reload)                                        \
    {name, letter, OPT_##TYPE, arg, def, help, only, config, reload},
#define OPT_END                                                                                              \
    {                                                                                                        \
        0                                                                                                    \
    }

struct opt_command {
    const char *name;     /* NULL: the tool has no commands */
    const char *operands; /* "FILE..." */
    const char *help;
    int min, max; /* number of operands (those after "--" of a "-- CMD" not counted); max < 0: any number */
};

struct opt_tool {
    const char *name, *summary, *description; /* description: paragraphs for the man page */
    const struct opt_command
        *commands;             /* ends with .help = NULL; the first is the default if default_first */
    bool default_first;        /* "chatd-server" alone means its first command */
    const struct opt *options; /* ends with .name = NULL */
    const char *env_prefix;    /* "CHATD_": --fsync-max is CHATD_FSYNC_MAX; NULL: no environment */
    const char *examples;      /* lines of at most 78 characters, for help and man page */
};

struct opt_set; /* the parsed result; opaque. Keeps pointers to the tool and to argv. */

/* Parse argv. On 0 *set is the result (free with opt_free), unless *answer holds text to print and then exit
 * 0 (*set is NULL then, as it is on an error).
 * "--" ends options; for a command whose operands contain "-- CMD", everything after "--" is opt_rest().
 * `config_option` (may be NULL) names the option whose value is a JSON config file; its environment variable
 * counts always. A fault in that file is ERR_INVALID, ERR_NOTFOUND or ERR_IO with file, line or key. */
int opt_parse(struct opt_set **set, const struct opt_tool *tool, int argc, char **argv,
              const char *config_option, struct buf *answer, struct err_ctx *ctx);
void opt_free(struct opt_set *s); /* NULL is fine */

const char *opt_command(const struct opt_set *s); /* "" when the tool has none */
int opt_operands(const struct opt_set *s);
const char *opt_operand(const struct opt_set *s, int i);
char **opt_rest(const struct opt_set *s); /* NULL-terminated argv after "--", or NULL */

/* Values by name; asking for a name that is not in the table, or with another type, is a bug (aborts). */
bool opt_flag(const struct opt_set *s, const char *name);
const char *opt_string(const struct opt_set *s, const char *name); /* NULL when unset */
uint64_t opt_u64(const struct opt_set *s, const char *name);       /* U64, DURATION, SIZE, RATE, SHARE */
int opt_list(const struct opt_set *s, const char *name, const char *const **values);
bool opt_given(const struct opt_set *s, const char *name); /* set by flag, environment or file */
const char *opt_source(const struct opt_set *s,
                       const char *name); /* "flag", "environment", "file", "default" */

/* The effective configuration as the JSON object that --config reads (only .config options). */
void opt_print_config(const struct opt_set *s, struct buf *out);
/* Read the config file again; *fresh is a new set in which only .reload options may differ from `s`; others
 * that differ are listed in `ignored` ("threads, data"; NULL: not wanted). On an error *fresh is NULL. */
int opt_reload(struct opt_set **fresh, const struct opt_set *s, struct buf *ignored, struct err_ctx *ctx);

/* Common options, already interpreted. */
bool opt_json(const struct opt_set *s);
int opt_verbosity(const struct opt_set *s); /* -1 quiet, 0, 1, 2 */
bool opt_color(const struct opt_set *s, int fd);
uint64_t opt_seed(const struct opt_set *s); /* drawn from the kernel when not given (< 2^53); print it */

#endif

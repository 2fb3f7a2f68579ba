/* Inside of util/opt: the set, and what its three files (opt.c parse, opt_config.c file and environment,
 * opt_help.c texts) share. */
#ifndef UTIL_OPT_IMPL_H
#define UTIL_OPT_IMPL_H

#include "util/opt.h"

enum opt_source { OPT_DEFAULT, OPT_FILE, OPT_ENVIRONMENT, OPT_GIVEN }; /* a later one wins */

struct opt_value {
    enum opt_source source;
    uint64_t number; /* flags too */
    char *text;      /* as it was written; NULL: unset */
    char **list;
    int list_n;
};

struct opt_set {
    const struct opt_tool *tool;
    const struct opt_command *command; /* NULL: none */
    const char *config_option;
    const struct opt **rows; /* the tool's, then the common ones */
    struct opt_value *values;
    int count;
    char **operands;
    int operands_n;
    char **rest;
    int verbose;
    uint64_t drawn_seed;
};

extern const struct opt opt_common[]; /* ends with .name = NULL */

bool opt_applies(const struct opt *o, const char *command);
/* Is the placeholder a list of choices ("auto|always|never")? */
bool opt_has_choices(const struct opt *o);
/* Index of the row for a name: the one of this command first, else any; -1 if none. */
int opt_index(const struct opt_set *s, const char *name, size_t n);
/* Take a value as text, unless a stronger source gave one; checked in any case. `what` names it in errors. */
int opt_take(struct opt_set *s, int i, const char *text, enum opt_source source, const char *what,
             struct err_ctx *ctx);
/* The value as text that opt_take reads back to the same value; "" for flags and lists. */
void opt_show(const struct opt *o, const struct opt_value *v, struct buf *out);
void opt_env_name(const struct opt_tool *tool, const char *name, char *out, size_t cap);
int opt_take_environment(struct opt_set *s, struct err_ctx *ctx);
int opt_take_file(struct opt_set *s, struct err_ctx *ctx);
int opt_set_new(struct opt_set **out, const struct opt_tool *tool, const char *config_option);

void opt_help_text(const struct opt_tool *tool, const struct opt_command *command, struct buf *out);
void opt_man_text(const struct opt_tool *tool, struct buf *out);
void opt_completion_text(const struct opt_tool *tool, struct buf *out);

/* Nearest of the names offered so far, for "did you mean". Zero-initialise but for `wanted`. */
struct nearest {
    const char *wanted;
    size_t wanted_n;
    const char *best;
    int distance;
};
void nearest_offer(struct nearest *n, const char *name);
/* Sets "; did you mean '<prefix><name>'?" or "" into out. */
const char *nearest_hint(const struct nearest *n, const char *prefix, char out[96]);

#endif

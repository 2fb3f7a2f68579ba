/* Inside the room: the words of a description, and where each value came from. */
#ifndef NETEM_PROFILE_IMPL_H
#define NETEM_PROFILE_IMPL_H

#include <stddef.h>

#include "netem/profile.h"

enum netem_type {
    TYPE_RATE,
    TYPE_TRACE,
    TYPE_TIME,
    TYPE_DIST,
    TYPE_SHARE,
    TYPE_QUEUE,
    TYPE_DROP,
    TYPE_BURST,
    TYPE_COUNT,
    TYPE_SPAN,
    TYPE_LIST
};

enum {
#define KEY(word, type, field, help) KEY_##word,
#define ONE(word, type, field, help) KEY_##word,
#include "netem/keys.def"
#undef KEY
#undef ONE
    KEY_COUNT
};

struct netem_key {
    const char *word, *help;
    enum netem_type type;
    bool each_way;
    size_t offset; /* into netem_direction or netem_profile */
};
extern const struct netem_key netem_keys[KEY_COUNT];

/* Static strings, or NULL for a default; whole-radio values use [0]. */
struct netem_sources {
    const char *of[2][KEY_COUNT];
};

/* Where key `k` of direction `dir` lies in `p`. */
void *netem_key_field(const struct netem_profile *p, unsigned k, unsigned dir);
/* The key of a word that has no "up." or "down."; KEY_COUNT: there is none. */
unsigned netem_key_of(const char *word);
/* One word of a description, with or without "up." or "down.". */
int netem_set(struct netem_profile *p, struct netem_sources *from, const char *source, const char *word,
              const char *value, struct err_ctx *ctx);
/* Evenly between two lengths: 'A..B'. */
void netem_span_even(struct netem_span *s, uint64_t low_ns, uint64_t high_ns);
/* The value of a key from text, and as text again. */
int netem_value_parse(void *field, enum netem_type type, const char *value, struct err_ctx *ctx);
void netem_value_show(struct buf *out, const void *field, enum netem_type type);
/* Derives what follows from the values given; refuses what cannot be. */
int netem_finish(struct netem_profile *p, struct err_ctx *ctx);
/* The values of a named profile. ERR_INVALID. */
int netem_named(struct netem_profile *p, struct netem_sources *from, const char *name, struct err_ctx *ctx);
bool netem_is_named(const char *name, size_t n);
/* The values of a JSON file. */
int netem_file(struct netem_profile *p, struct netem_sources *from, const char *path, struct err_ctx *ctx);
/* A whole description; `from` may be NULL. */
int netem_describe(struct netem_profile *p, struct netem_sources *from, const char *description,
                   struct err_ctx *ctx);

/* A Mahimahi trace or a delay table of tc-netem(8), read once per process; never released. ERR_NOTFOUND,
 * ERR_IO, ERR_INVALID (with the line), ERR_LIMIT. */
int netem_trace_file(const struct netem_trace **t, const char *path, struct err_ctx *ctx);
int netem_table_file(const struct netem_table **t, const char *path, struct err_ctx *ctx);
/* "normal", "pareto", "paretonormal"; NULL: no such one. */
const struct netem_table *netem_table_named(const char *name);

#endif

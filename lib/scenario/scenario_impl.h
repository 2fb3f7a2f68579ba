/* Inside the room: how a JSON object is read by a table of its keys. */
#ifndef SCENARIO_SCENARIO_IMPL_H
#define SCENARIO_SCENARIO_IMPL_H

#include <jansson.h>
#include <stddef.h>

#include "scenario/scenario.h"

/* Where we are in the document, for error sentences: "load[0].habits". */
struct place {
    const char *file;
    char path[256];
    struct err_ctx *ctx;
};

enum field_type {
    FIELD_TEXT,
    FIELD_U32,
    FIELD_U64,
    FIELD_INT,
    FIELD_DURATION,
    FIELD_RATE,
    FIELD_SHARE,
    FIELD_CUSTOM
};

/* One key of an object: read into `out + offset` (FIELD_TEXT: at most `size` bytes with NUL), or by `custom`,
 * which is handed the whole struct. */
struct field {
    const char *key;
    enum field_type type;
    size_t offset, size;
    bool required;
    int (*custom)(struct place *at, void *out, const json_t *v);
};

/* Reads every key of `o`; unknown keys, wrong types and missing required keys are errors with the path. The
 * table ends with a NULL key. `skip` (may be NULL): one more key that is allowed and not read. */
int scenario_read_object(struct place *at, const json_t *o, const struct field *fields, const char *skip,
                         void *out);
int scenario_error(const struct place *at, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Push "key" or "[i]" on the path; the return value goes to scenario_leave. */
size_t scenario_enter(struct place *at, const char *key);
size_t scenario_enter_index(struct place *at, size_t i);
void scenario_leave(struct place *at, size_t mark);
/* The candidate nearest to `word` (edit distance <= 3 and less than half of it), or NULL. */
const char *scenario_nearest(const char *word, const char *const *candidates, size_t n);

/* Apply variant `name` of `root` in place. */
int scenario_apply_variant(struct place *at, json_t *root, const char *name);
/* The whole document, variants excepted, into *s. */
int scenario_read(struct place *at, const json_t *root, struct scenario *s);
bool fault_by_name(enum fault_do *what, const char *name);
/* Names that refer to each other, ranges, faults within the load. */
int scenario_check(struct place *at, struct scenario *s);

#endif

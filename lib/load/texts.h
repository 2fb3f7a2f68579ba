/* What people say: the lines of a file, or a seeded babble of several scripts with emoji. Always valid UTF-8.
 */
#ifndef LOAD_TEXTS_H
#define LOAD_TEXTS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"
#include "util/err.h"
#include "util/rng.h"

#define TEXTS_FILE_MAX (64u << 20)

struct texts {
    char *data;
    struct slice *lines;
    uint32_t n;
};

/* path NULL or "": the babble. Empty lines are left out; a line that is no UTF-8 or longer than
 * PROTO_BODY_MAX is ERR_INVALID, naming file and line; a file without lines too. */
int texts_init(struct texts *t, const char *path, struct err_ctx *ctx);
void texts_release(struct texts *t);
/* A text; babble has between min and max bytes (max >= 1), written to `out` of PROTO_BODY_MAX bytes; lines
 * are given as they stand. */
struct slice texts_pick(const struct texts *t, struct rng *r, uint32_t min, uint32_t max, char *out);

#endif

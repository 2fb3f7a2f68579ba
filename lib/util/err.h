/* Errors: every function returns 0 or a negative `enum err`; the sentence for people climbs in an err_ctx.
 *
 * Four kinds, never mixed: a bug aborts (BUG_ON), bad input and environment come back as codes, a reached
 * limit has a stated behaviour. The library never exits and never prints. */
#ifndef UTIL_ERR_H
#define UTIL_ERR_H

#include <stdio.h>
#include <stdlib.h>

enum err_index {
    ERR_INDEX_OK,
#define E(name, text, status) ERR_INDEX_##name,
#include "util/errors.def"
#undef E
    ERR_INDEX_COUNT
};

enum err {
    ERR_OK = 0,
#define E(name, text, status) ERR_##name = -(int)ERR_INDEX_##name,
#include "util/errors.def"
#undef E
};

/* A sentence of at most 511 bytes, the outermost context first: "scenario.json: faults[2].at: '5x' is no
 * duration". Zero-initialise it. Every function takes NULL for "no sentence wanted". */
struct err_ctx {
    int code;
    char text[512];
};

/* Set the sentence (replacing an earlier one) and return `code`, so that `return err_set(...)` reads well. */
int err_set(struct err_ctx *ctx, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put context in front: err_prefix(ctx, "%s: ", path). Returns the code already set. */
int err_prefix(struct err_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Set from errno, as "<what>: <strerror>"; maps ENOSPC/EDQUOT to ERR_FULL, EACCES/EPERM to ERR_PERM, ENOENT
 * to ERR_NOTFOUND, ENOMEM to ERR_NOMEM, the rest to ERR_IO. */
int err_errno(struct err_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The stable name ("io"), the text, and the exit status of design.md section 9 for a code. */
const char *err_name(int code);
const char *err_text(int code);
int err_exit_status(int code);

/* A bug in this program: print where, abort. Always on. */
#define BUG_ON(cond)                                                                                         \
    do {                                                                                                     \
        if (__builtin_expect(!!(cond), 0)) {                                                                 \
            fprintf(stderr, "BUG at %s:%d: %s\n", __FILE__, __LINE__, #cond);                                \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif

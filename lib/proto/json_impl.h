/* A strict, non-allocating scanner of JSON text (RFC 8259, UTF-8 of RFC 3629) with a sticky error: after the
 * first fault every call returns at once; check `err` when done. Inside of proto only. */
#ifndef PROTO_JSON_IMPL_H
#define PROTO_JSON_IMPL_H

#include "proto/proto.h"

#define JSON_DEPTH_MAX 8

struct json {
    const char *p, *end, *start;
    struct proto_scratch *scratch; /* unescaped strings go here */
    struct slice key;              /* named in errors */
    struct err_ctx *ctx;
    int err, depth;
};

/* Sets the sticky error: "<key>: <what> at byte <at>". */
int json_fail(struct json *j, int code, const char *at, const char *what);
/* The same, or "ends too early" if the text ends here. */
int json_expected(struct json *j, const char *what);

static inline void json_space(struct json *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
        j->p++;
}
/* Skip space; the next character, or 0 at the end (or after an error). */
static inline char json_peek(struct json *j)
{
    if (j->err)
        return 0;
    json_space(j);
    return j->p < j->end ? *j->p : 0;
}
/* Take the next character if it is c. */
static inline bool json_take(struct json *j, char c)
{
    if (json_peek(j) != c || !c)
        return false;
    j->p++;
    return true;
}

/* Containers: json_open takes '{' or '['; then `while (json_more(j, '}', &first))` one member after the
 * other. */
bool json_open(struct json *j, char c);
bool json_more(struct json *j, char close, bool *first);
/* "key" and ':'. */
bool json_key(struct json *j, struct slice *key);

bool proto_json_string(struct json *j, struct slice *s);
bool json_uint(struct json *j, uint64_t max, uint64_t *v);
bool json_bool(struct json *j, bool *v);
/* A decimal number in a string. */
bool json_u64s(struct json *j, uint64_t *v);
/* Any value, checked and thrown away. */
bool json_skip(struct json *j);

bool json_is_utf8(const char *p, size_t n);

/* Room in the scratch, 8-aligned; NULL sets ERR_LIMIT. */
void *json_room(struct json *j, size_t n);

#endif

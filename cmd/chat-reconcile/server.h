/* A running server, asked over HTTP with an operator's token (pages: node/node.h). */
#ifndef CHAT_RECONCILE_SERVER_H
#define CHAT_RECONCILE_SERVER_H

#include <jansson.h>
#include <stdint.h>

#include "util/err.h"
#include "util/opt.h"

#define SERVER_ANSWER_MAX (128u << 20)

struct server_conn;

/* base: "http://HOST:PORT". The token is --token's file, or is made with --keys (for a day). Asks nothing
 * yet. */
int server_conn_open(struct server_conn **out, const char *base, const struct opt_set *o,
                     struct err_ctx *err);
void server_conn_close(struct server_conn *c); /* takes NULL */

/* GET of `path` ("/reconcile"): an object, the caller's. What may pass by itself (no connection, a cut
 * answer, 5xx) is tried once more. ERR_UNAVAILABLE: not reached, or 5xx; ERR_PERM: 401, 403; ERR_NOTFOUND:
 * 404; ERR_CORRUPT: the answer is no JSON object. The sentence names the whole URL. */
int server_get(struct server_conn *c, const char *path, json_t **out, struct err_ctx *err);

/* A number, also as a decimal string. False: it is none. */
bool server_u64(const json_t *object, const char *name, uint64_t *out);

#endif

/* The phones of lib/load on real sockets: one libev loop, ws_clients, the kernel's clock. */
#ifndef RUN_LOADGEN_H
#define RUN_LOADGEN_H

#include "crypto/keys.h"
#include "load/load.h"

#define LOADGEN_SERVERS_MAX 16

struct loadgen_config {
    struct load_config load; /* all but .world and .trace */
    struct loadgen_server {
        uint32_t ip; /* host order */
        uint16_t port;
    } servers[LOADGEN_SERVERS_MAX]; /* of several, phones begin one after the other; a socket that they
                                       make later goes to any, so that whose node is dead finds another */
    uint32_t servers_n;
    const char *path;
    const char *keys_dir;  /* tokens are minted with these keys */
    const char *trace_dir; /* NULL: none */
    bool progress;         /* a line on stderr, rewritten */
};

/* "ws://IP:PORT/path" (localhost too), or "ws://IP:PORT,IP:PORT/path"; the path points into the text.
 * ERR_USAGE. */
int loadgen_parse_url(struct loadgen_config *c, const char *url, struct err_ctx *ctx);
/* Raise this process's limit of open files as far as the kernel lets us; ERR_UNAVAILABLE when `sockets` do
 * not fit, saying what stops it. */
int loadgen_raise_files(uint64_t sockets, struct err_ctx *ctx);
/* Runs to the end, or to SIGINT / SIGTERM (interrupted). `report` is called once with what was done, unless
 * it could not even begin. */
int loadgen_run(const struct loadgen_config *c,
                void (*report)(void *arg, const struct load *l, bool interrupted), void *arg,
                struct err_ctx *ctx);

#endif

/* lib/load's flood in the real world: its phones are sessions of a few chat.mux.v1 connections on one libev
 * loop, or real sockets with chat.v1.bin. */
#ifndef RUN_FLOOD_H
#define RUN_FLOOD_H

#include "load/flood.h"
#include "run/loadgen.h"

struct flood_run_config {
    struct flood_config flood; /* all but .world and .credit */
    uint32_t server_ip;
    uint16_t server_port;
    const char *path, *keys_dir;
    const char *store_url; /* the server's store, to compare with when all is drained; NULL: don't */
    const char *trace_dir; /* NULL: none */
    uint32_t trace_sample; /* of so many users one is traced */
    bool progress;
};

/* `report` is called once with what was done, unless it could not even begin. */
int flood_run(const struct flood_run_config *c,
              void (*report)(void *arg, const struct flood *f, bool interrupted), void *arg,
              struct err_ctx *ctx);

#endif

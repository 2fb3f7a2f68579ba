/* Re-enacting an incident against a server: a trace's or a capture's clients (load/replay.h) on real sockets
 * (run/loadgen.h). */
#ifndef RUN_REPLAY_H
#define RUN_REPLAY_H

#include "load/replay.h"
#include "run/loadgen.h"

struct replay_config {
    const char *const *sources; /* folders and files of one trace, or captures */
    int sources_n;
    const char *users_file;        /* "OLD NEW" lines, # comments; NULL: everybody as themselves */
    struct replay_options options; /* but users */
    struct loadgen_config loadgen; /* server, keys, trace, progress; load.seed, load.drain_ns */
    const char *ids_file;          /* what goes by which id: {"id":"...","as":"..."} rows; NULL: not kept */
};

/* What was found out before it began: told once, by `about`. */
struct replay_facts {
    const struct replay *replay;
    uint64_t problems; /* of the source: it is not whole */
    uint32_t too_old;  /* ids beyond the server's dedup window, or no UUIDv7: refused when kept the same */
    uint32_t messages; /* SAY and PRESS */
    const char *kind;  /* "trace", "capture" */
};

struct replay_ops {
    void (*about)(void *arg, const struct replay_facts *f);
    void (*report)(void *arg, const struct load *l, bool interrupted);
    void *arg;
};

/* Runs to the end. ERR_INVALID: the source holds nothing to re-enact; else as loadgen_run. */
int replay_run(const struct replay_config *c, const struct replay_ops *ops, struct err_ctx *ctx);

/* A capture as the source: connections, hello's users, what was said with its text. Several captures of one
 * moment are read one behind the other. In run/replay_capture.c. */
int replay_from_captures(struct replay *r, const char *const *paths, int n, const struct replay_options *o,
                         uint64_t *problems, struct err_ctx *ctx);

#endif

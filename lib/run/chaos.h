/* The conductor in the real world: plays one scenario with real processes - chatd-server in one network
 * namespace, chat-loadgen in another, a user-space link in between - and judges it (scenario/world.h,
 * scenario/judge.h).
 *
 * A scenario without links runs on loopback and needs no privileges. Everything it starts dies with it. Into
 * its folder it writes summary.json, report.html, junit.xml, load.json, server.log, load.log and the folders
 * trace, journal, data, keys and, when wanted, capture (near.pcapng, far.pcapng). It replaces only what an
 * earlier run left there. */
#ifndef RUN_CHAOS_H
#define RUN_CHAOS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "report/report.h"
#include "scenario/scenario.h"

struct chaos_config {
    const char *file, *variant; /* variant NULL: the file as it stands */
    const char *dir;            /* where results go; made if missing */
    const char *programs;       /* folder of chatd-server and chat-loadgen; NULL: beside our own executable */
    uint64_t seed;              /* 0: the scenario's */
    bool capture;               /* both ends of the links, whole packets; ERR_USAGE where there are none */
    /* Told a few times a second what is going on; NULL: nobody. */
    void (*progress)(void *arg, const char *text);
    void *arg;
    /* Set by the program's signal handler: end early, with a summary of what was done so far. */
    const volatile sig_atomic_t *interrupted;
};

/* 0 when the run was made, whatever its verdict (*out is whole then); ERR_INTERRUPTED: *out holds what there
 * was so far, and the files are written. ERR_PERM, ERR_UNAVAILABLE: what is missing and what to do about it.
 */
int chaos_run(struct report_run *out, const struct chaos_config *c, struct err_ctx *ctx);

#endif

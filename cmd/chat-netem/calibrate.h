/* Drivers that `chat-netem calibrate` can try. A driver is one row of the table in calibrate.c; its functions
 * stand in a file of its own. */
#ifndef CHAT_NETEM_CALIBRATE_H
#define CHAT_NETEM_CALIBRATE_H

#include "netem/calibrate.h"
#include "util/opt.h"

struct calibrate_driver {
    enum netem_driver kind;
    bool tells_reasons, exact; /* as in struct calibrate_options */
    uint64_t packets,
        time_ns; /* what --packets and a phase's time are unless given; time 0: virtual time, no limit */
    /* Whether it can be tried here: 0, or ERR_UNAVAILABLE / ERR_PERM with advice. NULL: always. */
    int (*ready)(struct err_ctx *ctx);
    /* Runs phase i and tells `c` all of it (calibrate_see; calibrate_lacks if it can't). */
    int (*run)(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
               struct err_ctx *ctx);
};

extern const struct calibrate_driver calibrate_kernel, calibrate_model, calibrate_proxy, calibrate_tun;

/* Exit status 0: every row passes; 1: one fails; 2: else, one is unknown. */
int tool_calibrate(const struct opt_set *o, int *status, struct err_ctx *err);

#endif

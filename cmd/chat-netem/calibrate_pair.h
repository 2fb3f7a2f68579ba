/* Two namespaces joined by a veth pair, for calibrating rules on its near end. */
#ifndef CHAT_NETEM_CALIBRATE_PAIR_H
#define CHAT_NETEM_CALIBRATE_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/kernel/kernel.h"

#define PAIR_NEAR "near0"
#define PAIR_FAR  "far0"

struct pair {
    int near_ns, far_ns;
    int out_fd[2],
        watch_fd[2];         /* by direction: UDP from that side, AF_PACKET with timestamps after the rules */
    bool watch_leaving[2];   /* what counts there are the frames that leave the device, or those that come */
    uint8_t ethernet[2][14]; /* the header of an undamaged frame */
    uint8_t ports[4];
};

#define PAIR_NONE                                                                                            \
    {                                                                                                        \
        .near_ns = -1, .far_ns = -1, .out_fd = {-1, -1}, .watch_fd = { -1, -1 }                              \
    }

/* The calling thread moves into the near namespace for good: give it a thread of its own. */
int pair_make(struct pair *p, struct err_ctx *err);
/* After the rules are on. */
int pair_watch(struct pair *p, const struct kernel_device *near, struct err_ctx *err);
void pair_release(struct pair *p);

#endif

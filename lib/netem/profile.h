/* What a network does to packets, as plain data. A profile has a name (profiles.def), or is described inline,
 * or stands in a JSON file:
 *
 *     lte-lossy
 *     rate=10mbit,delay=40ms,jitter=5ms,loss=2%,burst=4,queue=64kB
 *     lte-lossy,loss=1%,up.rate=1mbit
 *     ./train.json,handover_every=20s       {"profile": "lte-lossy", "rate": "10mbit", "up": {"loss": "1%"}}
 *
 * keys.def lists the words. Each value holds for each direction, delay is one-way. Later words win.
 * Must not know: packets, clocks, links. Only files are read here, and only when the description names one.
 */
#ifndef NETEM_PROFILE_H
#define NETEM_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

#define NETEM_DESCRIPTION_MAX 1024         /* bytes of an inline description */
#define NETEM_FILE_MAX        65536        /* bytes of a profile file */
#define NETEM_WINDOW_MIN_NS   100000000ull /* blackouts, handovers and stalls come no denser, on average */

enum netem_dir { NETEM_UP, NETEM_DOWN }; /* from the phone, to the phone */

/* A distribution of lengths by its quantiles, straight lines between them. */
struct netem_span {
    uint64_t min_ns, p50_ns, p90_ns, p99_ns, max_ns;
};

/* Windows of time that come again and again: the time between them is exponential. */
struct netem_windows {
    uint64_t every_ns; /* mean from one's end to the next one's start; 0: there are none */
    struct netem_span length;
};

struct netem_direction {
    uint64_t rate_bps, delay_ns, jitter_ns, queue_bytes;
    uint32_t loss_ppm, burst_milli;
    /* Derived: a Gilbert-Elliott chain that loses every packet in its bad state and none in the good one.
     * With mean loss L and mean burst B it leaves the bad state with r = 1/B and enters it with p = rL/(1-L).
     * Scaled by 2^32. burst 0 is independent loss, which is p = L, r = 1-L. */
    uint64_t enter_p32, leave_p32, bad_p32;
};

struct netem_profile {
    char name[32]; /* "lte-lossy"; "custom" when there is no name in the description */
    struct netem_direction dir[2];
    struct netem_windows blackout, handover, stall;
    uint32_t handover_loses_ppm;
    uint64_t nat_idle_ns, rrc_idle_ns, rrc_promotion_ns;
};

/* Reads a description. ERR_INVALID or ERR_RANGE name the offending word; ERR_NOTFOUND, ERR_IO: the file.
 * `p` is whole on success and untouched on failure. */
int netem_profile_parse(struct netem_profile *p, const char *description, struct err_ctx *ctx);

/* Appends the effective values of a description, each with its source, as a table or as one JSON object. */
int netem_profile_show(struct buf *out, const char *description, bool json, struct err_ctx *ctx);

/* The named profiles: name and summary of number i, or false past the end. */
bool netem_profile_list(unsigned i, const char **name, const char **summary);

#endif

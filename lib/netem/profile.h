/* What a network does to packets, as plain data. A profile has a name (profiles.def), or is described inline,
 * or stands in a JSON file; parts are joined by ',' or '+', and a later part sets only what it names:
 *
 *     lte-lossy
 *     rate=10mbit,delay=40ms,jitter=5ms,loss=2%,burst=4,queue=64kB
 *     lte-good+handover+loss=1%,up.rate=1mbit
 *     trace=./Verizon-LTE-short.down,up.trace=./Verizon-LTE-short.up,delay=20ms
 *     ./train.json,handover_every=20s       {"profile": "lte-lossy", "rate": "10mbit", "up": {"loss": "1%"}}
 *
 * keys.def lists the words. Each value holds for each direction, delay is one-way. Later words win; of words
 * that exclude each other (rate and trace; blackout_every, blackout_period and blackout_at) the last one
 * counts. Must not know: packets, clocks, links. Only files are read here, and only when the description
 * names one.
 *
 * Ownership: a profile is copied freely and owns nothing. Mahimahi traces and delay tables that it points to
 * are read once per process and file version, shared by all profiles that name them, never changed and never
 * released; at most NETEM_FILES_MAX of them.
 */
#ifndef NETEM_PROFILE_H
#define NETEM_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

#define NETEM_DESCRIPTION_MAX 4096         /* bytes of an inline description */
#define NETEM_FILE_MAX        65536        /* bytes of a profile file */
#define NETEM_FILES_MAX       256          /* traces and tables in a process */
#define NETEM_TRACE_MAX       (1u << 23)   /* delivery opportunities in a trace */
#define NETEM_LIST_MAX        32           /* blackouts in a list */
#define NETEM_WINDOW_MIN_NS   100000000ull /* blackouts, handovers and stalls come no denser, on average */
#define NETEM_OPPORTUNITY     1500u        /* bytes that one line of a Mahimahi trace carries */

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

/* Blackouts by the clock: offsets from the link's beginning, rising, not overlapping. */
struct netem_list {
    struct {
        uint64_t at_ns, length_ns;
    } of[NETEM_LIST_MAX];
    uint32_t n;
};

/* A Mahimahi trace: line i is an opportunity to deliver NETEM_OPPORTUNITY bytes at at_ms[i]; it begins again
 * at period_ms, the last line's time. Opportunity n of the endless link is at (n / count) periods + at_ms[n %
 * count]. */
struct netem_trace {
    const char *path;
    const uint32_t *at_ms;
    uint32_t count, period_ms;
};
/* Mean bits per second. */
uint64_t netem_trace_mean_bps(const struct netem_trace *t);
/* How many opportunities lie at or before `ms`. */
uint64_t netem_trace_rank(const struct netem_trace *t, uint64_t ms);
/* The time of opportunity n. */
uint64_t netem_trace_ms(const struct netem_trace *t, uint64_t n);

/* How jitter is distributed; tables are those of tc-netem(8): a value v at the quantile i / n means v / 8192
 * jitters away from the delay. Without a table (uniform) the delay varies evenly by +- jitter. */
struct netem_table {
    const char *name; /* "uniform", "normal", "pareto", "paretonormal" or "table:FILE" */
    const int16_t *at;
    uint32_t n;
};

struct netem_direction {
    uint64_t rate_bps, delay_ns, jitter_ns;
    uint64_t queue_bytes, queue_ns;  /* what may wait; queue_ns is 0 unless the queue was given as time */
    const struct netem_trace *trace; /* NULL: rate_bps counts */
    const struct netem_table *dist;  /* NULL: uniform */
    uint32_t loss_ppm, burst_milli, loss_good_ppm;
    uint32_t jitter_corr_ppm, corrupt_ppm, duplicate_ppm;
    uint32_t reorder_ppm, reorder_corr_ppm, reorder_gap;
    uint32_t queue_head; /* 1: a full queue drops its oldest packet, 0: the one that comes */
    /* Derived: a Gilbert-Elliott chain that loses every packet in its bad state and none in the good one
     * (but for loss_good). With mean loss L and mean burst B it leaves the bad state with r = 1/B and enters
     * it with p = rL/(1-L). Scaled by 2^32. burst 0 is independent loss, which is p = L, r = 1-L. */
    uint64_t enter_p32, leave_p32, bad_p32;
};

struct netem_profile {
    char name[32]; /* "lte-lossy", "lte-good+handover"; "custom" when there is no name in the description */
    struct netem_direction dir[2];
    struct netem_windows blackout, handover, cell, stall; /* cell: handover within a technology */
    uint64_t blackout_period_ns;                          /* from start to start; 0: not periodic */
    struct netem_list blackout_at;
    uint32_t blackout_loses_ppm, handover_loses_ppm;
    uint64_t nat_idle_ns;
    /* Radio resource control, all by silence since the last packet. */
    uint64_t rrc_idle_ns, rrc_promotion_ns, rrc_fach_ns, rrc_fach_promotion_ns;
    uint64_t drx_after_ns, drx_short_ns, drx_short_for_ns, drx_long_ns, paging_ns;
};

/* Reads a description. ERR_INVALID or ERR_RANGE name the offending word; ERR_NOTFOUND, ERR_IO: the file;
 * ERR_LIMIT: more than NETEM_FILES_MAX files. `p` is whole on success and untouched on failure. */
int netem_profile_parse(struct netem_profile *p, const char *description, struct err_ctx *ctx);

/* Appends the effective values of a description, each with its source, as a table (and what drivers lack) or
 * as one JSON object. */
int netem_profile_show(struct buf *out, const char *description, bool json, struct err_ctx *ctx);

/* The named profiles: name and summary of number i, or false past the end. */
bool netem_profile_list(unsigned i, const char **name, const char **summary);

/* --- what a driver can't do ---
 *
 * Every driver asks this before it starts and shows the sentences; the user decides. Each names the word,
 * what the driver does instead (leave it out, never a guess) and stands on a line of its own. `proxy` carries
 * streams, so whatever is about packets is beyond it. */
enum netem_driver { NETEM_DRIVER_MODEL, NETEM_DRIVER_TUN, NETEM_DRIVER_KERNEL, NETEM_DRIVER_PROXY };
/* Appends the sentences; returns how many. 0: the driver does all that the profile says. */
unsigned netem_profile_lacks(const struct netem_profile *p, enum netem_driver driver, struct buf *out);
const char *netem_driver_name(enum netem_driver driver);
/* ERR_INVALID. */
int netem_driver_parse(enum netem_driver *driver, const char *name, struct err_ctx *ctx);

#endif

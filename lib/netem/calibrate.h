/* Are the links true? What was asked of a link against what was seen of it, whoever drove it. Pure: no clock,
 * no socket; the driver sends the traffic of the plan and tells what became of each packet.
 *
 *     calibrate_new(&c, &profile, &options, ctx);
 *     for (i = 0; (phase = calibrate_phase(c, i)); i++)
 *         set up a link of phase->profile, send phase->way[dir], calibrate_see() each packet
 *     calibrate_judge(c); calibrate_show(c, out, json); calibrate_free(c);
 *
 * A quantity is measured where it can be seen: each phase switches off what would hide it (loss while the
 * rate is measured, outages while loss is), so phase->profile is the asked profile with some words cleared. A
 * driver that can't do a word (netem_profile_lacks) leaves it out, and says so by calibrate_lacks(): its rows
 * become unknown.
 *
 * A row passes when what was achieved is within its tolerance, and, where chance has a say, the test's p is
 * not below CALIBRATE_P_MIN. Outside of the tolerance it fails if the difference is above 3 standard errors,
 * else it is unknown: too few packets to tell. Figures state the number of packets that they rest on.
 * Tolerances: loss and burst 5 %; delay quantiles 2 ms or 5 %; rate 3 %; outages 10 ms; Mahimahi traces 2 %
 * per second.
 *
 * Memory: about 8 bytes a packet of the largest phase; at most CALIBRATE_PACKETS_MAX packets a phase and
 * direction. */
#ifndef NETEM_CALIBRATE_H
#define NETEM_CALIBRATE_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "trace/trace.h"
#include "util/buf.h"
#include "util/err.h"

#define CALIBRATE_PACKETS_MAX 20000000u
#define CALIBRATE_P_MIN       0.0001
#define CALIBRATE_SILENCES    16
#define CALIBRATE_ROWS_MAX    128

enum calibrate_kind {
    CALIBRATE_LOSS,    /* dense: loss, bursts, damage, copies */
    CALIBRATE_DELAY,   /* sparse, so that nothing queues: delay quantiles, jitter correlation */
    CALIBRATE_REORDER, /* packets closer than the delay */
    CALIBRATE_FULL,    /* more than the rate: rate or trace, queue */
    CALIBRATE_OUTAGE,  /* probes: blackouts; another phase for handovers */
    CALIBRATE_HOLD,    /* probes: stalls; another phase for handovers between cells */
    CALIBRATE_SLEEP,   /* silences: promotions and DRX */
    CALIBRATE_NAT,     /* silences: expiry */
    CALIBRATE_WHOLE,   /* all at once, only for drivers that tell reasons: loss outside of outages */
    CALIBRATE_KINDS
};
const char *calibrate_kind_name(enum calibrate_kind kind);

/* The traffic of one phase. Directions run at the same time, on the same link. */
struct calibrate_phase {
    enum calibrate_kind kind;
    struct netem_profile profile; /* what the link must be meanwhile */
    struct {
        uint64_t packets, gap_ns; /* packet i is offered at i * gap; packets 0: none this way */
        uint32_t bytes;           /* of IP, all headers included */
    } way[2];
    /* SLEEP and NAT: one sequence of `turns` packets instead; packet i comes calibrate_silence(phase, i)
     * after packet i - 1, in the direction calibrate_turn(phase, i). NAT: all go down in one flow; the driver
     * opens it by a packet up first (which it does not tell), and again, at once, whenever one has expired.
     */
    uint64_t turns;
    uint64_t silence_ns[CALIBRATE_SILENCES], spread_ns[CALIBRATE_SILENCES];
    uint32_t silences;
};
uint64_t calibrate_silence(const struct calibrate_phase *phase, uint64_t i);
enum netem_dir calibrate_turn(const struct calibrate_phase *phase, uint64_t i);

struct calibrate_options {
    enum netem_driver driver;
    uint64_t packets; /* wanted in each phase and direction; 0: 2,000,000, and more where loss needs them */
    uint64_t time_ns; /* a phase must not take longer by the link's clock: fewer packets then; 0: no limit */
    bool tells_reasons; /* of drops */
    bool exact;         /* the driver's times are the model's own: p of delays counts too */
    uint64_t late_ns;   /* delays may be this much off, where timers are coarse; 0: 2 ms */
};

/* The reason of a packet that did not arrive, when nobody says why. */
#define CALIBRATE_UNTOLD 255

struct calibrate_packet {
    uint64_t offered_ns;
    uint64_t delivered_ns; /* when reason is REASON_NONE */
    uint64_t copy_ns;      /* a second copy arrived; 0: none */
    uint32_t bytes;
    uint8_t dir;    /* enum netem_dir */
    uint8_t reason; /* REASON_NONE: delivered; enum reason of a drop, or CALIBRATE_UNTOLD */
    bool corrupt;   /* what arrived differs from what was sent */
};

struct calibrate;

/* Plans. `p` is copied. ERR_NOMEM. */
int calibrate_new(struct calibrate **c, const struct netem_profile *p, const struct calibrate_options *o,
                  struct err_ctx *ctx);
void calibrate_free(struct calibrate *c); /* NULL is fine */
/* Phase number i, or NULL past the end. */
const struct calibrate_phase *calibrate_phase(const struct calibrate *c, unsigned i);

/* When the link of phase i began, if not with its first packet: Mahimahi traces and lists of blackouts count
 * from there. */
void calibrate_began(struct calibrate *c, unsigned i, uint64_t ns);
/* What became of a packet of phase i: in order of offered_ns in each direction, every packet that was
 * offered, no other ones. Packets beyond the plan are counted as well, up to CALIBRATE_PACKETS_MAX. */
void calibrate_see(struct calibrate *c, unsigned i, const struct calibrate_packet *p);
/* OUTAGE and HOLD: the link says that it was dark or held from start for length (as link_state does).
 * Optional: with it every outage is compared with its own length, without it only their distribution is. In
 * order of time. */
void calibrate_see_window(struct calibrate *c, unsigned i, uint64_t start_ns, uint64_t length_ns);
/* Drives phase i by the link model itself, in virtual time (tells_reasons, exact). ERR_NOMEM. */
int calibrate_run_model(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
                        struct err_ctx *ctx);
/* The driver does not do this phase, or not this kind of thing, because `why` (a static sentence). */
void calibrate_lacks(struct calibrate *c, enum calibrate_kind kind, const char *why);

enum calibrate_verdict { CALIBRATE_PASS, CALIBRATE_FAIL, CALIBRATE_UNKNOWN };
struct calibrate_row {
    enum calibrate_kind kind;
    uint8_t dir;            /* enum netem_dir, or 2: both */
    char what[40];          /* "loss", "delay p99" */
    const char *unit;       /* "%", "packets", "ms", "Mbit/s", "s", "" */
    double asked, achieved; /* in that unit */
    double tolerance;       /* how far off is fine, in that unit */
    double error;           /* the standard error, in that unit; 0: chance has no say */
    double p;               /* of the goodness-of-fit test; < 0: none was made */
    const char *test;       /* "chi-square of 12 run lengths"; "" */
    uint64_t packets;       /* what the row rests on */
    enum calibrate_verdict verdict;
    char why[120]; /* of what is not passed */
};
/* Makes the rows; then any number of looks at them. The whole's verdict: fail if one fails, else unknown if
 * one is. */
enum calibrate_verdict calibrate_judge(struct calibrate *c);
const struct calibrate_row *calibrate_row(const struct calibrate *c, unsigned i); /* NULL past the end */
const char *calibrate_verdict_name(enum calibrate_verdict v);
/* A table for people, or one JSON object:
 * {"profile","driver","verdict","packets","rows":[{"phase","direction","what",
 * "unit","asked","achieved","tolerance","standard_error","p","test","packets","verdict","why"}],"lacks":[...]}.
 */
void calibrate_show(const struct calibrate *c, struct buf *out, bool json);

#endif

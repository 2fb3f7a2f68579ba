/* Inside the room: how a row comes about. */
#ifndef NETEM_CALIBRATE_JUDGE_IMPL_H
#define NETEM_CALIBRATE_JUDGE_IMPL_H

#include "netem/calibrate_impl.h"

#define MS              1e6
#define S               1e9
#define RATE_TOLERANCE  0.03
#define DELAY_SHARE     0.05
#define DELAY_MS        2.0
#define OUTAGE_MS       10.0
#define TRACE_TOLERANCE 0.02

/* What a row is about, before it is judged. */
struct claim {
    const struct phase_seen *f;
    int dir; /* 2: both */
    const char *what, *unit, *test;
    double asked, achieved, tolerance, error; /* standard error; 0: exact */
    double p;                                 /* < 0: none */
    bool p_counts;
    uint64_t packets;
};
/* Judges it and keeps the row. */
void calibrate_claim(struct calibrate *c, const struct claim *k);

/* calibrate_judge_time.c: outages and holds, the radio's sleep, the NAT. */
void calibrate_judge_weather(struct calibrate *c, const struct phase_seen *f);
void calibrate_judge_sleep(struct calibrate *c, struct phase_seen *f);
void calibrate_judge_nat(struct calibrate *c, const struct phase_seen *f);

#endif

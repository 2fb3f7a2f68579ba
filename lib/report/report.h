/* What a run was and found, as plain data, and its forms: text table, summary.json (design.md section 8, read
 * back for comparisons), JUnit XML, and one self-contained HTML page with inline SVG for one run or two
 * (before and after).
 *
 * Must not know: scenarios, worlds, sockets. Whoever ran something fills a struct report_run; everything has
 * a stated maximum, and what does not fit is cut visibly by the filler (report_life.cut). */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

#define REPORT_POPULATIONS_MAX 16
#define REPORT_NETS_MAX        16
#define REPORT_VERDICTS_MAX    24
#define REPORT_EXPECT_MAX      64
#define REPORT_FAULTS_MAX      64
#define REPORT_LIVES_MAX       3
#define REPORT_STEPS_MAX       48
#define REPORT_POINTS_MAX      64
#define REPORT_FINDINGS_MAX    20
#define REPORT_NAME            48
#define REPORT_HTML_MAX        (16u << 20)

struct report_times {
    double p50, p95, p99, max; /* ms */
};
struct report_population {
    char name[REPORT_NAME], net[16];
    uint64_t sent, accepted, expected, delivered, duplicates, reordered, resends, duplicates_seen, gave_up;
    struct report_times latency, accept;
    double send_lag_p99_ms;
    char doubt[160]; /* why its load can't be trusted; "": it can */
};
struct report_count {
    char name[32]; /* "delivered", "lost_uplink" */
    uint64_t n;
};
/* The funnel of one network: each (message, recipient) pair has one verdict. */
struct report_net {
    char name[16];
    struct report_count verdict[REPORT_VERDICTS_MAX];
    uint32_t verdicts_n;
    double connected_hours;
    uint64_t disconnects;
};
/* Share of the expected pairs that had arrived after `ms`; rising in both. The last share is what arrived at
 * all. */
struct report_point {
    double ms, share;
};
struct report_curve {
    char name[REPORT_NAME]; /* network */
    struct report_point points[REPORT_POINTS_MAX];
    uint32_t points_n;
};
struct report_expect {
    char text[160], value[64], verdict[16], why[256];
};
struct report_fault {
    char name[REPORT_NAME], text[160];
    double at_s;
};
/* What happened to one message on its way to one recipient. */
struct report_step {
    double ms; /* since the person's intent */
    char who[24], what[160];
    bool bad; /* the step that lost it, or that is evidence for it */
};
struct report_life {
    char id[40], net[16], verdict[32], why[256];
    struct report_step steps[REPORT_STEPS_MAX];
    uint32_t steps_n, cut; /* steps left out in the middle */
};
struct report_server {
    uint64_t rss_bytes_max, sessions_max, commits, messages;
    double cpu_s;
    uint32_t starts;
};
struct report_run {
    char scenario[REPORT_NAME], variant[REPORT_NAME], world[16], commit[64], why[512], variant_why[520];
    char verdict[16]; /* pass, fail, unknown */
    char note[256];   /* "interrupted after 12 s"; "" */
    uint64_t seed;
    double seconds;
    struct report_population load[REPORT_POPULATIONS_MAX];
    struct report_net nets[REPORT_NETS_MAX];
    struct report_curve curves[REPORT_NETS_MAX];
    struct report_expect expect[REPORT_EXPECT_MAX];
    struct report_fault faults[REPORT_FAULTS_MAX];
    struct report_life lives[REPORT_LIVES_MAX];
    uint32_t load_n, nets_n, curves_n, expect_n, faults_n, lives_n;
    struct report_server server;
    bool server_known, audit_known;
    uint64_t trace_dropped, trace_records;
    uint64_t audit_violations;
    struct report_count audit[16];
    uint32_t audit_n;
    char findings[REPORT_FINDINGS_MAX][240];
    uint32_t findings_n;
};

/* Append. They never fail on their own account; check buf.failed. */
void report_text(struct buf *out, const struct report_run *r, bool color);
void report_json(struct buf *out, const struct report_run *r);
void report_junit(struct buf *out, const struct report_run *const *runs, uint32_t n);
/* One run, or two to be compared (the first is "before"). */
void report_html(struct buf *out, const struct report_run *const *runs, uint32_t n);

/* A summary.json back into *r. What a newer writer added is ignored; a value of the wrong type is
 * ERR_INVALID. */
int report_read(struct report_run *r, const char *path, struct err_ctx *ctx);
/* Write through a temporary name, so that a reader never sees half a file. */
int report_write(const char *path, const struct buf *b, struct err_ctx *ctx);

uint64_t report_net_total(const struct report_net *n);
uint64_t report_net_count(const struct report_net *n, const char *verdict);

#endif

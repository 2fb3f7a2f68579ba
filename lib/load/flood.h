/* A flood: millions of phones, each one client_step behind a lossy link of its own, over any kind of session.
 *
 * What lib/load does for thousands of people with habits and a ledger of every message, this does for up to
 * FLOOD_PHONES_MAX with 400 bytes each: counts and order-independent sums of id hashes instead of a ledger,
 * chats by formula instead of lists, weather by cell instead of by phone. The timeline:
 *
 *   ramp     all connect, spread over ramp_ns, at most 100,000 under way; when all are there, the first
 * member of each chat makes it settle   for settle_ns plateau  for for_ns: messages at `rate` from random
 * phones (open loop: the time a message was meant to be said stands in its body), heartbeats from all but
 * `silent` planted phones, churn: sockets cut mass     mass_share of all phones lose their sockets at once,
 * are dark for dark_ns, and come back drain    nobody speaks; until every message is accepted and surfaced
 * everywhere, or drain_ns
 *
 * The way of a message is measured in two parts: `served` from its coming out of the sender's link to its
 * frame's going into the recipient's (sockets, queues, commit and fan-out), `links` is the rest of what the
 * person waited. Both are of what was to be
 * said before the mass reconnect; a message of that time waits for whoever is dark.
 *
 * A session that the server ends for its silence was ended wrongly, unless the phone was planted, or its link
 * had let nothing through for 20 s.
 *
 * A phone's link: Gilbert-Elliott loss, delay and jitter of the profile are its own (TCP-like: what is lost
 * goes again after 200 ms, doubling, and holds up what is behind it); stalls, handovers and blackouts are
 * those of its cell, one struct link for each of FLOOD_CELLS; addresses are never lost (that is what churn is
 * for). Chat sizes are Zipf with exponent 2 from 2 to chat_max, members are neighbours. One thread. Must not
 * know: transports, loops. */
#ifndef LOAD_FLOOD_H
#define LOAD_FLOOD_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "store/store.h"
#include "trace/trace.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/err.h"

#define FLOOD_PHONES_MAX 12000000u
#define FLOOD_CELLS      1024u

struct flood;

/* What the phones ask of the world; `phone` is its number from 0. */
struct flood_world {
    struct now (*now)(void *arg);
    /* Begin a session; it ends with flood_closed, whoever ended it, and only then it may be opened again. */
    void (*open)(void *arg, uint32_t phone, uint64_t user);
    void (*data)(void *arg, uint32_t phone, const char *p, size_t n); /* chat.v1.bin */
    void (*beat)(void *arg, uint32_t phone);
    void (*credit)(void *arg, uint32_t phone, uint32_t bytes);
    void (*cut)(void *arg, uint32_t phone, uint64_t bytes); /* its stream broke after `bytes` */
    /* Does the transport take more? Else the phones' time stands still, and counts as lag. */
    bool (*room)(void *arg);
    void (*phase)(void *arg, const char *name);
    /* The 4-tuple of the session that was opened last. */
    void (*flow)(void *arg, uint32_t phone, struct trace_flow *out);
    void *arg;
};

struct flood_config {
    const char *name; /* in the summary; NULL: "flood" */
    uint32_t phones, silent, chat_max, body_max;
    uint64_t rate_per_1000s, churn_per_1000s;
    uint32_t mass_ppm;
    uint64_t settle_ns; /* between the last chat's making and the plateau: stores tidy up after so many */
    uint64_t ramp_ns, setup_ns, for_ns, dark_ns, drain_ns, lag_max_ns;
    uint64_t seed, first_chat, first_user; /* of a server that was flooded before: take fresh ones */
    uint32_t credit;                       /* of a fresh session */
    const struct netem_profile *link;      /* NULL: none, everything passes at once */
    /* Phones whose users it wants leave records of all that lib/load's phones do; NULL: none. */
    struct trace_writer *trace;
    struct flood_world world;
};

int flood_new(struct flood **out, const struct flood_config *c, struct err_ctx *ctx);
void flood_free(struct flood *f);
/* The world is ready for sessions. */
void flood_start(struct flood *f, uint32_t credit);
/* Often, at least each 2 ms. */
void flood_tick(struct flood *f);
bool flood_ended(const struct flood *f);
/* Something made it pointless to go on. */
void flood_fail(struct flood *f, int code, const char *text);
void flood_interrupt(struct flood *f);
int flood_result(const struct flood *f, struct err_ctx *ctx);

/* Its frame comes soon: fetch the phone. */
void flood_soon(const struct flood *f, uint32_t phone);
/* A session received a frame; it is over (code as on the wire; 0: cut). */
void flood_data(struct flood *f, uint32_t phone, const char *p, size_t n);
void flood_closed(struct flood *f, uint32_t phone, int code);

/* Compare with what the store holds: every phone's count and sum of ids with those of its chat. *bad: phones
 * that differ. */
int flood_verify(struct flood *f, struct store *s, uint64_t *bad, struct err_ctx *ctx);

/* The world's own measurements, for the report. */
struct flood_outside {
    /* bytes, 0: unknown; sessions: when all are connected, before the first chat; connected: when the
     * plateau begins, all chats made; loaded: when it ends */
    uint64_t rss_before, rss_connected, rss_loaded, server_rss_before, server_rss_sessions,
        server_rss_connected, server_rss_loaded;
};
void flood_set_outside(struct flood *f, const struct flood_outside *o);

struct flood_status {
    const char *phase;
    uint64_t phones, ready, chats, chats_ready, sent, accepted, delivered, expected, outboxes, lag_ms;
    double elapsed_s;
    bool all_came; /* once */
};
void flood_status(const struct flood *f, struct flood_status *s);
const char *flood_doubt(const struct flood *f);
void flood_report_json(const struct flood *f, struct buf *out);
void flood_report_text(const struct flood *f, struct buf *out);
/* METRIC OP NUMBER, e.g. "p(99)<1000", "lost==0": ERR_USAGE, else 1 when it holds, 0 when not; *value as
 * text. */
int flood_expect(const struct flood *f, const char *text, struct buf *value, struct err_ctx *ctx);

#endif

/* What became of each (message, recipient): exactly one verdict, citing the records it rests on.
 *
 * There is no default branch. A loss needs positive evidence, and the absence of a record counts as evidence
 * only where the stream it would stand in is provably complete: the lane has its SOCKET_CLOSE and no hole
 * since the moment the record would have stood there, or every writer of that side (servers, link, load) is
 * complete. Everything else is not_observed. So taking records away moves pairs to not_observed and nowhere
 * else (tests/unit/trace/test_deletion.c).
 *
 * "No other path" needs a proof too. It is given by the fan-out's TRACE_FLAG_ONE_PUSH (one push per recipient
 * and no redelivery) together with one of: CLIENT_SUBMIT with TRACE_FLAG_ONE_SEND, a GIVE_UP that counts the
 * attempts, or complete load or server records. A submit flagged TRACE_FLAG_OUTBOX that was neither accepted
 * nor given up is pending. SERVER_EPOCH with a chat says that this chat's head in a restored store is `user`.
 *
 * Recipients are the chat's members at that time (SERVER_MEMBER) without the sender, and whoever was pushed
 * to. Of a sample (trace.h) only messages whose sender is in it have pairs: where the records are complete, a
 * message without a record of its sender is outside. The network of a pair is the sender's until the server
 * received the message, the recipient's from then on. */
#ifndef TRACE_JOIN_H
#define TRACE_JOIN_H

#include "trace/reader.h"
#include "util/buf.h"
#include "util/hist.h"

enum verdict {
#define V(name, json, text) VERDICT_##name,
#include "trace/verdicts.def"
#undef V
    VERDICT_COUNT
};
const char *verdict_name(int v); /* "lost_uplink" */
const char *verdict_text(int v); /* "lost on the way up" */
static inline bool verdict_is_loss(int v)
{
    return v >= VERDICT_LOST_UPLINK && v <= VERDICT_LOST_IN_RESTORE;
}

#define TRACE_EVIDENCE_MAX 8

struct trace_pair {
    struct id id;
    uint64_t chat, sender, recipient; /* chat, sender: 0 when no record says */
    enum verdict verdict;
    enum net net;
    uint8_t reason;     /* enum reason: the cause, where one is known */
    uint8_t evidence_n; /* indices into trace_run.event, rising by stage */
    uint32_t evidence[TRACE_EVIDENCE_MAX];
    uint64_t submit_ns, surface_ns; /* 0: not seen */
    const char *why;                /* one clause for people, static */
};

/* Build the index: lanes of both ends matched by 4-tuple and time, messages, flows, members. Called once
 * after loading; 10 M records take seconds. ERR_NOMEM, ERR_LIMIT. */
int trace_join(struct trace_run *r, struct err_ctx *ctx);

/* Judge every pair in order of message; return false to stop. 0, or ERR_NOMEM. */
typedef bool trace_pair_fn(void *arg, const struct trace_pair *p);
int trace_pairs(const struct trace_run *r, trace_pair_fn *fn, void *arg);
/* The pairs of one message. ERR_NOTFOUND: no record has this id. */
int trace_pairs_of(const struct trace_run *r, const struct id *id, trace_pair_fn *fn, void *arg);

/* Each message once, with its records in order of time and its pairs; return false to stop. 0 or ERR_NOMEM.
 */
struct trace_message {
    struct id id;
    uint64_t chat, sender; /* 0: no record says */
    const uint32_t *record;
    const struct trace_pair *pair;
    uint32_t records, pairs;
};
typedef bool trace_message_fn(void *arg, const struct trace_message *m);
int trace_messages(const struct trace_run *r, trace_message_fn *fn, void *arg);

/* Each packet of the link that carried bytes of a message, once for each record (CLIENT_SEND, SERVER_PUSH)
 * that wrote those bytes; connection by connection. Return false to stop. */
typedef bool trace_carried_fn(void *arg, uint32_t packet, uint32_t record);
void trace_carried(const struct trace_run *r, trace_carried_fn *fn, void *arg);
/* The 4-tuple of a record's connection, its client's end being src; false: not on record. */
bool trace_connection(const struct trace_run *r, uint32_t record, struct trace_flow *out);

/* ---- figures of a whole run ---- */

struct trace_cause {
    enum verdict verdict;
    uint8_t reason;
    uint64_t count;
};

struct trace_summary {
    uint64_t hop[HOP_COUNT]; /* records */
    uint64_t verdict[NET_COUNT][VERDICT_COUNT];
    uint64_t total[VERDICT_COUNT];
    uint64_t cause[VERDICT_COUNT][REASON_COUNT];
    uint64_t pairs, messages, losses;
    uint64_t outside;         /* messages of senders who are not in the sample */
    uint64_t resends;         /* a person pressed "send again" */
    uint64_t duplicates_seen; /* a person saw one intent, or one id, more than once on a device */
    uint64_t disconnects[NET_COUNT], connected_ns[NET_COUNT];
    struct hist *latency[NET_COUNT]; /* ns from submit to surface; NULL: none */
    uint64_t records, dropped, missing;
};
/* Release with trace_summary_release also after an error. */
int trace_summarize(struct trace_summary *s, const struct trace_run *r, struct err_ctx *ctx);
void trace_summary_release(struct trace_summary *s);
/* Drops of connections per hour of connection; 0 when there was none. */
double trace_disconnects_per_hour(const struct trace_summary *s, enum net net);
/* The most frequent (loss or pending or not observed, reason) first; returns how many were written. */
int trace_top_causes(const struct trace_summary *s, struct trace_cause *out, int max);
/* { "<network>": {"delivered": n, ...} }, networks with pairs only (design.md section 8). */
void trace_summary_verdicts_json(const struct trace_summary *s, struct buf *out);

/* ---- one message ---- */

/* Its life as text for one screen. ERR_NOTFOUND when no record has this id. */
int trace_explain(const struct trace_run *r, const struct id *id, struct buf *out, struct err_ctx *ctx);

/* Where a delivered pair's time went. */
enum trace_leg {
    LEG_OUTBOX,   /* submit -> first send */
    LEG_UPLINK,   /* -> server received it */
    LEG_COMMIT,   /* -> durable */
    LEG_FANOUT,   /* -> pushed to this recipient's socket (includes waiting for one) */
    LEG_DOWNLINK, /* -> received */
    LEG_CLIENT,   /* -> surfaced */
    LEG_COUNT
};
const char *trace_leg_text(int leg);
struct trace_latency {
    struct trace_pair pair;
    uint64_t total_ns, leg_ns[LEG_COUNT]; /* a leg without its records is counted in the next one */
    uint32_t sends, pushes;               /* attempts seen */
};
/* The `max` slowest delivered pairs, slowest first; *n says how many. */
int trace_slowest(const struct trace_run *r, struct trace_latency *out, int max, int *n, struct err_ctx *ctx);

#endif

/* Phones: populations of people with their habits, who chat over core/client's state machine.
 *
 * The room owns what happens to phones and when: arrivals (open loop, Poisson: latency counts from the
 * intended time, so a stalled generator can't hide it), background, network changes, storage loss, faults,
 * healing and draining; it keeps the ledger and the diary and writes the clients' part of the trace. What a
 * socket and a clock are, it is told by struct load_world, so that the same phones run on real sockets and on
 * simulated ones. One thread.
 *
 * Limits: LOAD_POPULATIONS_MAX populations, LOAD_PHONES_MAX phones, `messages_max` messages (then it ends
 * with ERR_LIMIT). Must not know: transports, loops, scenario files. */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "trace/trace.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/err.h"

#define LOAD_POPULATIONS_MAX 16u
#define LOAD_PHONES_MAX      1000000u
#define LOAD_FAULTS_MAX      64u
#define LOAD_FIRST_USER      1000u
#define LOAD_ADDRESS_STRIDE  16u /* addresses of one phone; it moves to the next on a network change */

/* Means of exponential distributions in ns unless it says fixed; 0: never. */
struct load_habits {
    uint64_t background_every, background_for;
    uint64_t kill_after; /* fixed: in the background, until the system kills the socket */
    uint64_t network_change_every, network_change_gap /* fixed */;
    uint64_t resend_after; /* fixed */
    uint32_t resend_share_ppm, storage_loss_ppm;
    uint64_t typing_every, typing_for; /* begins to type in one of its chats; and thinks better of it */
    uint32_t watch;                    /* shows the presence of so many of its chats' members */
    uint64_t read_after; /* reads what it is shown, and watches who has read in its chats (the first 8) */
};

struct load_population {
    char name[48];
    enum net net;
    uint32_t clients;
    uint8_t features;          /* enum client_feature */
    uint64_t rate_per_1000s;   /* messages of the whole population */
    uint32_t chat_size;        /* 2 .. PROTO_USERS_MAX */
    bool joins;                /* its phones are in the chats of the population before it */
    uint32_t chats_per_client; /* groupings: the first is consecutive, the others are shuffled */
    uint32_t body_min, body_max;
    const char *texts; /* file, or NULL */
    uint32_t retries;
    uint64_t resync_window_ns;
    uint8_t on_gap;     /* enum client_on_gap */
    uint32_t forge_ppm; /* of the copies a phone offers: so many forged ones are offered beside them */
    struct load_habits habits;
    uint32_t first_address, addresses; /* 0: no address of their own */
};

enum load_fault_do { LOAD_KILL_SOCKET, LOAD_NETWORK_CHANGE };
struct load_fault {
    uint64_t at_ns; /* after the load began */
    enum load_fault_do what;
    uint32_t population, share_ppm;
    bool mid_frame;
};

/* A phone's end of a connection; the world's. */
struct load_socket;
struct load_phone;
struct client;
struct client_effect;

struct load_world {
    struct now (*now)(void *arg);
    /* Append a token for the user's device. */
    int (*token)(void *arg, uint64_t user, uint32_t device, struct buf *out);
    /* Begin to connect from `source` (0: any). load_opened or load_closed follow, never from inside. */
    int (*connect)(void *arg, uint32_t source, struct load_phone *p, struct load_socket **out,
                   struct err_ctx *ctx);
    int (*send)(struct load_socket *s, const char *p, size_t n, uint64_t *end_offset);
    void (*free)(struct load_socket *s);  /* end it, no load_closed follows; so for vanish and cut */
    int (*vanish)(struct load_socket *s); /* neither FIN nor RST; ERR_PERM: it was a plain free */
    int (*cut)(struct load_socket *s, const char *p, size_t n, size_t bytes, uint64_t *end_offset);
    void (*freeze)(struct load_socket *s, bool frozen);
    uint64_t (*written)(const struct load_socket *s);
    uint64_t (*read)(const struct load_socket *s);
    uint64_t (*acked)(const struct load_socket *s);
    void (*flow)(const struct load_socket *s, struct trace_flow *out);
    /* Tell the link that the phone left an address or is back (enum netem_control_op). */
    void (*radio)(void *arg, uint32_t address, int op);
    /* "setup", "load", "drain", "end" begin. */
    void (*phase)(void *arg, const char *name);
    /* For a checker, may be NULL: each effect of each phone's client, before it is carried out; and that a
     * phone lost what it had surfaced. */
    void (*watch)(void *arg, const struct client *c, const struct client_effect *e);
    void (*forgot)(void *arg, uint64_t user, uint32_t device);
    /* Likewise: the user is connected, with their person before the phone, or no longer. */
    void (*here)(void *arg, uint64_t user, bool there);
    /* May be NULL: the world knows of more that should still arrive, so the drain is not over yet. */
    bool (*more)(void *arg);
    void *arg;
};

struct load_script;

struct load_config {
    const struct load_population *populations;
    uint32_t populations_n;
    const struct load_fault *faults;
    uint32_t faults_n;
    const struct load_script *script; /* load/script.h, or NULL. Of the populations, name, net, clients,
                                         features, retries and resync_window_ns then count. No diary */
    uint64_t seed;
    uint64_t duration_ns, drain_ns; /* drain: longest wait after the load */
    uint64_t setup_ns;              /* longest time until all are connected; 0: 120 s */
    uint64_t lag_max_ns;            /* send lag p99 above which nothing is concluded; 0: 100 ms */
    uint64_t first_chat;            /* number of the first chat; 0: 1,000,001 */
    uint32_t messages_max;          /* 0: 8 Mi */
    const char *diary;              /* folder, or NULL */
    bool diary_sync;
    bool keep_copies;           /* phones keep what they are shown, with its tags (load/copies.h) */
    struct trace_writer *trace; /* may be NULL */
    struct load_world world;
};

struct load;

/* Checks the configuration (ERR_INVALID names the population), reads texts, replays the outbox. */
int load_new(struct load **out, const struct load_config *c, struct err_ctx *ctx);
void load_free(struct load *l);

/* Begin; then the world calls load_tick at load_next (at the latest), and reports sockets. */
void load_start(struct load *l);
void load_tick(struct load *l);
uint64_t load_next(const struct load *l); /* mono ns; 0: nothing is planned */
void load_opened(struct load_phone *p);
void load_frame(struct load_phone *p, const char *data, size_t n);
void load_closed(struct load_phone *p, int code, enum reason reason);
/* A person lost patience: sum up what was done so far. */
void load_interrupt(struct load *l);
bool load_ended(const struct load *l);
/* It ended because everything owed had arrived. */
bool load_drained(const struct load *l);
/* Why it could not do its work: 0, or the error with its sentence. */
int load_result(const struct load *l, struct err_ctx *ctx);

/* What phones offered after a restore, and what became of it. */
struct load_recovery {
    uint64_t notices, unconfirmed, offered, forged, ok, refused, forged_refused;
    uint64_t discarded, asked, marked, said_yes, came_back;
    uint64_t forged_unanswered; /* their offer was never answered: the connection ended */
};
void load_recovery(const struct load *l, struct load_recovery *out);

struct load_status {
    const char *phase;
    uint64_t phones, connected, chats, chats_ready, sent, delivered, expected, outboxes;
    bool began;          /* people talk, or did */
    uint64_t elapsed_ns; /* since then */
};
void load_status(const struct load *l, struct load_status *s);

/* The summary: {"load":{<population>:{...}},"health":{...},"drained":bool,"inconclusive":false|"why"}, and
 * for people. */
void load_report_json(const struct load *l, struct buf *out);
void load_report_text(const struct load *l, struct buf *out);
/* Why the figures can't be trusted, or NULL. */
const char *load_doubt(const struct load *l);

/* A threshold: metric[{population}] op number[%|ms]: p(95)<500, p(99){lte}<2000, lost==0, ratio>=99.99%.
 * Metrics: p(Q) and accept_p(Q) in ms, max, sent, accepted, expected, delivered, lost, ratio, duplicates,
 * duplicates_seen, reordered, gave_up, resends. ERR_USAGE with a sentence for anything else. */
struct load_threshold {
    char text[96], population[48];
    uint8_t metric, op;
    uint32_t permyriad; /* of p(Q) */
    double number;
};
int load_threshold_parse(struct load_threshold *t, const char *text, struct err_ctx *ctx);
/* ERR_USAGE when the population is none of these. */
int load_threshold_check(const struct load_threshold *t, const struct load_population *list, uint32_t n,
                         struct err_ctx *ctx);
/* True: it holds. *value as text; percentiles of nothing never hold. */
bool load_threshold_holds(const struct load *l, const struct load_threshold *t, struct buf *value);

#endif

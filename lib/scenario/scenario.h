/* Scenario files (design.md section 8): parsed, checked, a variant applied, every unknown key refused with
 * its path. World-neutral data; lib/run and lib/sim act on it, cmd/chat-loadgen turns its populations into
 * phones.
 *
 * A variant is a set of "dotted.path": value overrides; elements of load and faults are addressed by their
 * name, or all at once by a star ("load.mobile.client", "load.*.client"); null removes ("faults.kill-1":
 * null). Each variant of a file is checked when the file is read, whichever is asked for. "before+3g" is
 * both, one after the other.
 *
 * Relative paths of files (profile, texts) are relative to the scenario file. */
#ifndef SCENARIO_SCENARIO_H
#define SCENARIO_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define SCENARIO_POPULATIONS_MAX 16
#define SCENARIO_LINKS_MAX       16
#define SCENARIO_FAULTS_MAX      64
#define SCENARIO_EXPECT_MAX      64
#define SCENARIO_VARIANTS_MAX    32
#define SCENARIO_NODES_MAX       16
#define SCENARIO_NAME            32

struct scenario_link {
    char name[SCENARIO_NAME];
    char profile[256]; /* name, file or inline description */
    char net[16];      /* what hello says: wifi, lte, ...; default: derived from the profile */
};

/* How people and phones behave; all durations are means of exponential distributions in ns, 0: never. */
struct scenario_habits {
    uint64_t background_every, background_for; /* app leaves the foreground; nothing is read meanwhile */
    uint64_t kill_after;                       /* fixed: a suspended app's socket is killed after this long */
    uint64_t network_change_every;     /* new source address; the old socket is left behind silently */
    uint64_t network_change_gap;       /* fixed: time without any network in between */
    uint64_t resend_after;             /* fixed: a person presses "send again" when no tick came */
    uint32_t resend_share_ppm;         /* so many do */
    uint64_t typing_every, typing_for; /* a person begins to type, and sends nothing after all */
    uint32_t watch;                    /* presence of so many of those it shares chats with is shown */
    uint64_t read_after;               /* what is shown is read, and its readers are watched */
    uint32_t storage_loss_ppm;         /* of returns to the foreground: the phone lost what it had surfaced */
};

/* With this, a population is a flood: sessions of chat.mux.v1, up to millions, each behind a simulated link
 * of its own (load/flood.h), instead of sockets on real links. It is then the only population; its chats are
 * Zipf up to chat_size; habits, chats_per_client, texts and faults of phones do not apply. */
struct scenario_flood {
    bool on;
    uint32_t silent, mass_ppm, trace_sample; /* one user in so many is traced; 0: nobody */
    uint64_t churn_per_1000s, dark, ramp, settle, setup;
};

struct scenario_population {
    char name[SCENARIO_NAME];
    char link[SCENARIO_NAME]; /* "" : plain, no link */
    uint32_t clients;
    char client[64];             /* "reliable", "legacy", "legacy+retry+ack+resync" (any subset) */
    uint64_t rate_per_1000s;     /* messages of the whole population per 1000 s, open loop (Poisson) */
    uint32_t chat_size;          /* members per chat, default 6; chats stay within the population */
    char joins[SCENARIO_NAME];   /* "": its own chats; else in those of the population before it, or of that
                                    which it joins */
    uint32_t chats_per_client;   /* default 1 */
    uint32_t body_min, body_max; /* bytes, default 20..200 */
    char texts[256];             /* file of texts, one a line; "": built-in seeded generator */
    uint32_t retries;            /* "not sent yet" is shown after so many, default 3 */
    uint64_t resync_window;      /* sync {since} on coming to the foreground; default 30m */
    char on_gap[16];    /* what is done about what the server has lost: "offer" (default), "discard", "ask",
                           "keep" */
    uint32_t forge_ppm; /* of the copies that are offered, so many get a forged one beside them */
    struct scenario_habits habits;
    struct scenario_flood flood;
};

enum fault_do {
    FAULT_KILL_SOCKET,
    FAULT_KILL_SERVER,
    FAULT_BLACKOUT, /* nothing passes */
    FAULT_NETWORK_CHANGE,
    FAULT_LINK,   /* the link's values change: "set" is laid over its profile */
    FAULT_DETACH, /* phones leave the network and come back: queues and NAT mappings are gone, addresses stay
                   */
    /* those from here on exist in the simulated world only (fault_only_simulated) */
    FAULT_TOXIC,      /* what the chaos proxy does to streams: "set" is its SPEC (netem/proxy/toxic.h) */
    FAULT_POWER_CUT,  /* the server's machine is off: what was not synced is gone, in parts */
    FAULT_RESTORE,    /* its store is put back: to the last backup, or (simulated only) to what it was `for`
                         ago. `set`: restore (default; by chatd-server restore), cp (the folder by hand),
                         blind (KEYS/mark goes back with it), sudden (the server is killed, its mark up to a
                         second old) */
    FAULT_DISK_FULL,  /* for a while nothing can be written */
    FAULT_SYNC_FAILS, /* the next write fails, nobody knows with what result: the process ends */
    FAULT_CLOCK_JUMP, /* wall clock of "server" or "phones", `by` */
    FAULT_REMOVE_MEMBER, /* in a share of a population's chats somebody is removed, and invited back after
                            `for` */
    /* in both worlds again */
    FAULT_BACKUP,  /* a backup is made, beside the running server */
    FAULT_CORRUPT, /* the server dies and its store is damaged, `set`: truncate, flip, missing-sst, torn-wal.
                      In the simulated world the store is gone, however. A restore follows */
    FAULT_REDIS, /* what shares presence and joins nodes fails, `set`: kill (it forgets all), stop (SIGSTOP),
                    cut (nothing arrives, nobody is told); it is back after `for` */
    FAULT_DO_COUNT
};

struct scenario_fault {
    char name[SCENARIO_NAME]; /* default "fault-<index>" */
    uint64_t at;              /* ns after the load began */
    enum fault_do what;
    /* population (kill-socket, network-change), link or "*" (blackout, link, detach), "server" (toxic too),
     * or one of several: "server-2" (kill-server, power-cut, disk-full, sync-fails, redis cut) */
    char target[SCENARIO_NAME];
    uint32_t node;      /* 2 of "server-2"; 0: none is named, so one is drawn (redis: it concerns all) */
    uint32_t share_ppm; /* of the target's clients (not for link); default all */
    bool mid_frame;     /* kill-socket: "when": "mid-frame" */
    int signal;         /* kill-server: "KILL" (default), "TERM", "STOP"... */
    uint64_t restart;   /* kill-server: start again (STOP: continue) after; 0: stays down */
    uint64_t duration;  /* blackout, detach, link (0: until the load has ended) */
    int64_t by;         /* clock-jump, ns */
    char set[128];      /* link: "loss=10%,delay=200ms", or another profile's name; toxic: its SPEC */
};

struct scenario {
    char path[512], name[SCENARIO_NAME], why[512];
    char variant[SCENARIO_NAME], variant_why[520]; /* as asked for: "before+3g"; the variants' own whys */
    int incident;
    uint64_t seed, duration, drain; /* drain: longest wait after the load, default 60s */
    uint64_t send_lag_max;          /* the generator may lag so far (p99) before a result is unknown; 250ms */
    char server_delivery[64];       /* "reliable", "legacy", "legacy+retry+durable+ack+resync" (any subset) */
    char server_args[512];          /* further flags for chatd-server: "server.args" */
    bool server_redis;              /* "server.redis": presence is shared through one */
    uint32_t server_nodes;          /* "server.nodes": so many processes, joined by that Redis; default 1 */
    struct scenario_link links[SCENARIO_LINKS_MAX];
    struct scenario_population load[SCENARIO_POPULATIONS_MAX];
    struct scenario_fault faults[SCENARIO_FAULTS_MAX];
    char *expect[SCENARIO_EXPECT_MAX];
    struct {
        char name[SCENARIO_NAME];
        char why[256];
    } variants[SCENARIO_VARIANTS_MAX];
    uint32_t links_n, load_n, faults_n, expect_n, variants_n;
};

/* Read, apply `variant` (NULL: the file as it stands), check. ERR_LIMIT: SCENARIO_NAME. ERR_NOTFOUND for an
 * unknown variant. */
int scenario_load(struct scenario *s, const char *path, const char *variant, struct err_ctx *ctx);
void scenario_release(struct scenario *s);
/* Append it as a file, variants left out: read back, it is the same scenario (times to the microsecond). */
struct buf;
void scenario_write(struct buf *out, const struct scenario *s);
const struct scenario_link *scenario_find_link(const struct scenario *s, const char *name);
const struct scenario_population *scenario_find_load(const struct scenario *s, const char *name);
const char *fault_name(enum fault_do what); /* "kill-socket" */
bool fault_only_simulated(enum fault_do what);
/* What it does, for people: "blackout of lte for 2s". */
void fault_describe(char *out, size_t size, const struct scenario_fault *f);
/* The description of link `l` while the faults in `active` (bit i: faults[i], a FAULT_LINK) change it.
 * ERR_LIMIT: too long. */
int scenario_link_profile(const struct scenario *s, const struct scenario_link *l, uint64_t active, char *out,
                          size_t size);
/* Does fault f concern population p? (FAULT_BLACKOUT, FAULT_LINK, FAULT_DETACH name links.) */
bool fault_hits(const struct scenario_fault *f, const struct scenario_population *p);
/* Population i owns the inner addresses first .. first+count-1 (host order, within 198.18.0.0/16): phone k of
 * it starts at first + k * stride and moves within its stride on network changes. The one rule that link and
 * load share. A population without a link owns none (count 0). */
#define SCENARIO_ADDRESS_STRIDE 16
void scenario_addresses(const struct scenario *s, uint32_t population, uint32_t *first, uint32_t *count);

#endif

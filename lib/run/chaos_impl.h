/* Inside the conductor: its state, and the parts of its work. */
#ifndef RUN_CHAOS_IMPL_H
#define RUN_CHAOS_IMPL_H

#include "netem/tun/tun.h"
#include "run/chaos.h"
#include "run/child.h"
#include "scenario/evidence.h"
#include "scenario/world.h"
#include "trace/trace.h"

#define CHAOS_LINE_MAX 512

/* What is known of a server, alone or one node of several, over all its incarnations. */
struct chaos_server {
    uint16_t port;
    pid_t pid; /* 0: down */
    bool stopped, killed_by_us;
    uint64_t restart_at, continue_at; /* monotonic ns; 0: nothing planned */
    uint32_t starts;
    uint64_t rss, sessions_max;
    double cpu_before, cpu_now;                                  /* of earlier incarnations; of this one */
    uint64_t commits_before, commits, messages_before, messages; /* likewise */
};

/* What shares presence and joins nodes, and the forwarder in each server's way to it. */
struct chaos_redis {
    pid_t pid; /* 0: down */
    uint16_t port;
    uint64_t restart_at, continue_at; /* monotonic ns; 0: nothing planned */
    struct chaos_way {
        pid_t pid;
        uint16_t port;
        uint64_t joined_at;
    } way[SCENARIO_NODES_MAX];
};

struct chaos {
    struct world world;
    const struct chaos_config *config;
    struct scenario s;
    char dir[512];
    bool linked; /* with links: namespaces; without: loopback */
    bool flood;  /* sessions of chat.mux.v1 over loopback; they keep sums instead of traces and journals */
    struct tun_world *tun;
    uint64_t link_faults, link_until[SCENARIO_FAULTS_MAX]; /* those that last, a bit each; monotonic ns */
    uint32_t addr, server_addr; /* where phones find it; where it listens, which differs behind a proxy */
    uint16_t port, server_port;
    pid_t proxy;                                    /* 0: none */
    uint32_t toxic[SCENARIO_FAULTS_MAX];            /* number of a fault's toxic */
    struct chaos_server server[SCENARIO_NODES_MAX]; /* the first s.server_nodes */
    uint64_t rss_max;                               /* of all together */
    uint64_t usage_at, metrics_at;                  /* their next samples */
    struct chaos_redis redis;
    pid_t load;
    int load_status, load_err; /* load_err: read end of its stderr, -1 when closed */
    bool load_ended, drained;
    int phase; /* enum world_phase last announced by the generator, -1 before */
    char line[CHAOS_LINE_MAX], last_line[CHAOS_LINE_MAX]; /* of its stderr: being read; last one for people */
    size_t line_n;
    FILE *load_log;
    uint64_t began, t0, ended; /* start of the run, of the load, and when the generator was done */
    uint64_t progress_at;
    uint32_t backups;
    bool damage_named; /* `verify` found what was damaged */
    struct trace *trace;
    struct trace_writer *tw;
    char doubt[256], note[256];
    struct report_run *out;
};

extern const struct world_ops chaos_world_ops; /* chaos_world.c */

/* chaos_server.c */
/* All of them, one after the other; several: until they hear each other. */
int chaos_server_start(struct chaos *c, struct err_ctx *ctx);
/* Reap those that ended, sample them, restart or continue each when that is due. */
int chaos_server_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx);
int chaos_server_kill(struct chaos *c, uint32_t fault, struct err_ctx *ctx);
/* What still waits to go on or to come back does so now. */
void chaos_server_heal(struct chaos *c, uint64_t now);
uint32_t chaos_server_down(const struct chaos *c);
void chaos_server_stop(struct chaos *c);
/* The sums over all of them. */
struct report_server chaos_server_totals(const struct chaos *c);

/* It was killed and reaped. */
void chaos_server_gone(struct chaos *c, struct chaos_server *s);
/* What belongs to one: "data", "server.log", or of several "data-2", "server-2.log". */
void chaos_server_path(const struct chaos *c, uint32_t node, char *out, size_t size, const char *name,
                       const char *end);

/* chaos_store.c */
int chaos_backup(struct chaos *c, struct err_ctx *ctx);
int chaos_corrupt(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx);
int chaos_restore(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx);

/* chaos_link.c */
int chaos_links_start(struct chaos *c, struct err_ctx *ctx);
int chaos_link_fault(struct chaos *c, uint32_t index, struct err_ctx *ctx);
/* End the faults of links whose time is over. */
int chaos_links_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx);

/* chaos_proxy.c */
/* Decides where the server listens, and starts a proxy if the scenario needs one. */
int chaos_proxy_start(struct chaos *c, struct err_ctx *ctx);
int chaos_proxy_tend(struct chaos *c, struct err_ctx *ctx);
int chaos_toxic_begins(struct chaos *c, uint32_t index, struct err_ctx *ctx);
int chaos_toxic_ends(struct chaos *c, uint32_t index, struct err_ctx *ctx);
void chaos_proxy_stop(struct chaos *c);

/* chaos_redis.c: each does nothing when the scenario has none */
int chaos_redis_start(struct chaos *c, struct err_ctx *ctx);
void chaos_redis_url(const struct chaos *c, uint32_t node, char *out, size_t size);
int chaos_redis_fault(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx);
/* End what is due, and see that all are still there. */
int chaos_redis_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx);
void chaos_redis_heal(struct chaos *c, uint64_t now);
void chaos_redis_stop(struct chaos *c);

/* chaos_load.c */
int chaos_load_start(struct chaos *c, struct err_ctx *ctx);
/* Read what it says, at most `ns`, and reap it. */
int chaos_load_tend(struct chaos *c, uint64_t ns, struct err_ctx *ctx);
void chaos_load_stop(struct chaos *c, int signal, uint64_t ns);
/* Its summary into facts and report. */
int chaos_load_read(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx);

/* chaos_evidence.c */
struct evidence chaos_evidence(struct chaos *c);
int chaos_read_journal(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx);

/* A port that is free now; only used on loopback. */
int chaos_free_port(uint16_t *port, struct err_ctx *ctx);
void chaos_address(char *out, size_t size, uint32_t addr, uint16_t port); /* "198.19.0.1:8080" */
void chaos_path(const struct chaos *c, char *out, size_t size, const char *name);
void chaos_event(struct chaos *c, enum hop hop, uint64_t arg);
/* Release what still runs, however far it came. */
void chaos_stop_all(struct chaos *c);

#endif

/* Inside the simulated world: its state, and the calls between its files. */
#ifndef SIM_SIM_IMPL_H
#define SIM_SIM_IMPL_H

#include "bus/mem.h"
#include "crypto/keys.h"
#include "load/load.h"
#include "netem/link.h"
#include "netem/stream.h"
#include "node/node.h"
#include "presence/shared_mem.h"
#include "sim/sim.h"

#define SIM_SERVER_ADDR   0xC6130001u /* 198.19.0.1, as in the real world */
#define SIM_SERVER_PORT   8080u
#define SIM_STREAM        (9ull << 40) /* of the seed: the world's own dice */
#define SIM_TRACE_EVERY   16384u       /* events after which the trace's files catch up */
#define SIM_TICK_NS       (20 * NS_PER_MS)
#define SIM_REQUEST_BYTES 196u /* the HTTP upgrade, and its answer */
#define SIM_ANSWER_BYTES  166u

enum sim_kind {
    SIM_PACKET,     /* p: struct sim_packet */
    SIM_TIMER,      /* p: connection, a: side: a stream's deadline */
    SIM_LOAD,       /* the phones' next timer */
    SIM_TICK,       /* p: server, a: incarnation */
    SIM_COMMIT,     /* p: commit_job; a: server_mark */
    SIM_READ,       /* p: read_job; a: server_mark */
    SIM_LOOK,       /* p: connection: the phone looks at its socket again */
    SIM_LATE,       /* p: connection, a: side: connecting, or closing, took too long */
    SIM_START,      /* p: a server that starts (again) */
    SIM_CONTINUE,   /* p: server, a: incarnation: after SIGSTOP */
    SIM_WEATHER,    /* p: radio: its state may change (only with a trace) */
    SIM_FAULT_ENDS, /* a: index */
    SIM_IMAGE,      /* a: index of the restore that will want it */
    SIM_MEMBERS,    /* p: struct sim_change */
    SIM_BUS,        /* a datagram between nodes is due */
    SIM_SHARED,     /* what nodes share of presence: something is due */
    SIM_BUS_CUT,    /* p: a node that is cut off; a: 1, or 0: joined again */
    SIM_KINDS
};

struct sim_event {
    uint64_t at_ns, order;
    void *p;
    uint32_t a;
    enum sim_kind kind;
};

struct sim_radio {
    struct link link;
    uint16_t group;
    uint8_t state; /* enum link_state as last traced */
    bool live;
    uint64_t look_ns, blackout_until_ns;
};

/* One frame on its way: what the phone wrote, or references to what the server did. */
struct sim_frame {
    struct sim_frame *next;
    uint64_t end;     /* in the byte stream of its direction */
    uint64_t sent_ns; /* of the server's */
    uint32_t n;       /* bytes of `data`, or number of `object`s */
    int code;         /* a close frame: its code; 0: none */
    union {
        struct shared_frame *object[1];
        char data[1];
    };
};
struct sim_queue {
    struct sim_frame *first, *last;
};

struct sim;
struct sim_server;
/* A connection, both ends. Phones know it as their socket. */
struct load_socket {
    struct sim *sim;
    struct sim_server *server; /* the node at its other end */
    struct stream stream;
    struct load_phone *phone; /* NULL: it has let go */
    struct load_socket *next, *prev, *next_dirty;
    struct sim_radio *radio; /* NULL: no link */
    uint64_t user;           /* who said hello here; 0: nobody yet */
    uint32_t refs, source, isn[2];
    uint16_t port;
    bool console;                                           /* no network: an administrator's session */
    bool frozen, upgraded, served, dirty, closing, unheard; /* unheard: while the server was stopped */
    uint8_t ended[2]; /* enum stream_event that its owner has not been told; 0: none */
    uint64_t timer_ns[2];
    /* the phone's end */
    uint64_t up_end, up_given,
        read_end;        /* queued up to; given to the stream; end of the last whole message */
    struct sim_queue up; /* not yet read by the server */
    /* the server's end */
    uint64_t number, down_end; /* node's conn, 0: none */
    struct shared_frame **pending;
    uint32_t pending_first, pending_n, pending_cap;
    int close_code;
    char close_text[64];
    struct sim_queue down; /* not yet read by the phone */
};

struct sim_packet {
    struct sim_packet *next;
    struct load_socket *conn;
    uint64_t depart_ns;
    bool corrupt;
    struct stream_packet p;
};

#define SIM_NODES_MAX SCENARIO_NODES_MAX
struct sim_server {
    struct sim *sim;
    uint16_t index;
    struct bus *bus; /* NULL: alone, or down */
    struct shared *shared;
    struct kv *kv;
    struct store *store;
    struct node *node;
    bool up, stopped, draining, closing, unmarked;
    bool dark;   /* the whole machine is off */
    bool broken; /* its store is damaged: it does not start */
    uint32_t incarnation, conns;
    bool told_to_stop; /* SIGTERM has come, perhaps while it was stopped */
    bool armed;        /* the disk was told to fail */
    uint32_t cuts;     /* faults that last and keep Redis from this node alone */
    bool sync_fails;   /* the next write */
    uint64_t full_until_ns;
    char keys_dir[64]; /* where the mark is kept; "": none is */
    uint64_t restart_ns, reads_until_ns, marked_ns, drain_until_ns, tick_ns;
    struct commit_job *flying;
    uint64_t starts, commits, messages, sessions_max; /* of earlier incarnations */
};

struct sim_note;
struct sim {
    struct world world;
    struct sim_config config;
    const struct scenario *s;
    uint64_t now_ns, order, hash, events;
    struct sim_event *heap;
    size_t heap_n, heap_cap;
    struct rng rng; /* latencies, coins of crashes */
    struct keys keys;
    int64_t server_skew_us, phones_skew_us;
    /* net.c */
    struct sim_radio *radios;
    uint32_t first_address, radios_n;
    struct netem_profile profile[SCENARIO_POPULATIONS_MAX][2]; /* before and after a change */
    uint8_t profile_at[SCENARIO_POPULATIONS_MAX];
    struct link_nat nat;
    bool calm;
    struct load_socket *conns;
    struct sim_packet *spare;
    uint64_t conns_made;
    struct buf text; /* several objects as one frame */
    /* server.c: the nodes, one unless server.nodes or server.args say more */
    struct sim_server servers[SIM_NODES_MAX];
    uint16_t nodes;
    unsigned features;
    struct node_limits limits;
    uint64_t sequential_ns; /* delivery_fanout_parse */
    bool presence_legacy;
    uint64_t disk_ns; /* mean time of a commit with its fsync */
    struct load_socket *dirty;
    struct bus_mem *bus;
    uint64_t bus_ns; /* when SIM_BUS is planned; 0: not */
    uint64_t bus_drop, cut_every_ns, cut_for_ns;
    bool healed;
    uint64_t stood_ns;         /* when a server last went on after SIGSTOP */
    struct shared_mem *shared; /* NULL: presence is each node's own */
    uint64_t shared_ns;        /* when SIM_SHARED is planned; 0: not */
    uint32_t shared_faults;    /* that last */
    /* phones.c */
    struct load *load;
    struct load_population populations[SCENARIO_POPULATIONS_MAX];
    struct load_fault faults[SCENARIO_FAULTS_MAX];
    uint64_t greeter; /* whose token was asked for last */
    uint64_t load_ns; /* when SIM_LOAD is planned; 0: not */
    int phase;        /* enum world_phase, -1 before */
    uint64_t t0_ns, began_ns, ended_ns, look_ns;
    bool converged;
    /* faults.c, members.c */
    uint64_t link_faults; /* those that last, a bit each */
    struct kv *image[SCENARIO_FAULTS_MAX], *backup;
    char mark[2][512]; /* KEYS/mark as it was with the image, and with the backup; "": was not */
    struct sim_change *changes;
    /* watch.c */
    struct live *live;
    struct sim_note *notes;
    uint64_t notes_n, watched_ns;
    /* traces */
    struct trace *trace[4];
    struct trace_writer *server_trace, *link_trace, *load_trace, *run_trace;
    char doubt[200];
};

extern const struct world_ops sim_world_ops; /* world.c */

/* faults.c: do phones keep copies? Only where a store may be put back, and all of them offer what they have.
 */
bool sim_keeps_copies(const struct sim *s);

/* sim.c */
int sim_close_traces(struct sim *s);
void sim_plan(struct sim *s, uint64_t at_ns, enum sim_kind kind, void *p, uint32_t a);
void sim_mix(struct sim *s, uint64_t v);
/* Of a job: which server asked, and in which of its lives. */
static inline uint32_t server_mark(const struct sim_server *v)
{
    return v->incarnation * SIM_NODES_MAX + v->index;
}
static inline struct sim_server *server_of_mark(struct sim *s, uint32_t mark)
{
    return &s->servers[mark % SIM_NODES_MAX];
}
static inline struct now sim_now(const struct sim *s, int64_t skew_us)
{
    return (struct now){s->now_ns, 1764000000000000ull + (uint64_t)((int64_t)(s->now_ns / 1000) + skew_us)};
}
/* Steps until `until_ns`, or until it must stop. */
int sim_run(struct sim *s, uint64_t until_ns, bool (*enough)(struct sim *s), struct err_ctx *ctx);
bool sim_failed(const struct sim *s);

/* net.c */
int net_init(struct sim *s, struct err_ctx *ctx);
void net_release(struct sim *s);
void net_begin(struct sim *s); /* the weather begins */
void net_blackout(struct sim *s, uint32_t address, uint64_t ns);
void net_profile(struct sim *s, uint32_t population, const struct netem_profile *p);
void net_radio(struct sim *s, uint32_t address, int op);
void net_weather(struct sim *s, struct sim_radio *r);
void net_packet(void *arg, struct stream *st, const struct stream_packet *p);
void net_arrive(struct sim *s, struct sim_packet *packet);
struct sim_radio *net_radio_of(struct sim *s, uint32_t address);

/* conn.c */
struct load_socket *conn_new(struct sim *s, uint32_t source);
void conn_arm(struct load_socket *c);
void conn_unref(struct load_socket *c); /* frees it when nothing can reach it any more */
void conn_timer(struct load_socket *c, uint32_t side, uint64_t at_ns);
struct sim_frame *frame_new(size_t bytes);
void queue_push(struct sim_queue *q, struct sim_frame *f);
struct sim_frame *queue_pop(struct sim_queue *q, uint64_t received); /* NULL: no whole frame */
void frame_free(struct sim_frame *f, bool objects);
void conn_free_all(struct sim *s);
void conn_drop_server(struct load_socket *c); /* the server's process has let go of it */

/* phones.c */
int phones_new(struct sim *s, struct err_ctx *ctx);
void phones_event(struct load_socket *c, enum stream_event e);
void phones_look(struct load_socket *c);
void phones_late(struct load_socket *c);
void phones_plan(struct sim *s); /* plan SIM_LOAD for the next timer */

/* server.c */
int server_init(struct sim *s, struct err_ctx *ctx);
int server_start(struct sim_server *v, struct err_ctx *ctx);
uint64_t server_step(struct sim_server *v, struct node_event *e);
void server_flush(struct sim *s); /* what steps have queued goes into the sockets */
void server_effect(void *arg, const struct effect *e);
void server_plan_tick(struct sim_server *v, uint64_t at_ns);
void server_fail_a_write(struct sim_server *v); /* the next one, or the one after it */
void server_wake(struct load_socket *c);        /* what came while it was stopped */
void server_event(struct load_socket *c, enum stream_event e);
bool server_listens(const struct sim_server *v);
void server_tick(struct sim_server *v);
bool server_all_up(const struct sim *s);
/* The one a fault hits. */
struct sim_server *server_some(struct sim *s);
void server_done(struct sim *s, const struct sim_event *e); /* SIM_COMMIT, SIM_READ */
void server_late(struct load_socket *c);
void server_kill(struct sim_server *v, int signal, uint64_t again_ns);
void server_stop(struct sim_server *v,
                 uint64_t again_ns); /* in peace: what was written is synced and marked */
void server_power_cut(struct sim_server *v, uint64_t again_ns);
/* A session without a network; false: the server is down. */
bool server_console(struct load_socket *c);
void server_frame(struct sim *s, struct load_socket *c, const char *p, size_t n);
void server_continue(struct sim_server *v);
void server_release(struct sim *s);
void server_counts(const struct sim *s, uint64_t *commits, uint64_t *messages, uint64_t *sessions_max);

/* nodes.c: what joins the nodes */
int nodes_init(struct sim *s, struct err_ctx *ctx);
void nodes_release(struct sim *s);
void nodes_plug(struct sim_server *v);
void nodes_plan(struct sim *s);
void nodes_due(struct sim *s, uint64_t at_ns);
void nodes_begin(struct sim *s); /* the load begins: nodes are cut off now and then */
void nodes_cut(struct sim_server *v, bool cut);
void nodes_heal(struct sim *s);
void nodes_freeze(struct sim_server *v, bool frozen);
void nodes_unplug(struct sim_server *v);
void nodes_order(struct sim_server *v, const struct shared_order *o);
void nodes_shared_due(struct sim *s, uint64_t at_ns);
void nodes_redis(struct sim *s, const struct scenario_fault *f, bool begins);

/* faults.c */
int faults_check(struct sim *s, struct err_ctx *ctx);
void faults_begin(struct sim *s); /* the load begins */
int faults_do(struct sim *s, uint32_t index, struct err_ctx *ctx);
int faults_end(struct sim *s, uint32_t index, struct err_ctx *ctx);
int faults_heal(struct sim *s, struct err_ctx *ctx);
void faults_image(struct sim *s, uint32_t index);
void faults_release(struct sim *s);

/* members.c */
struct sim_change;
void members_remove(struct sim *s, uint32_t index);
void members_change(struct sim *s, struct sim_change *x);
void members_release(struct sim *s);

#endif

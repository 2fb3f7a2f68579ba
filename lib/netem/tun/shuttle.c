#include "netem/tun/shuttle_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netem/link.h"
#include "netem/tun/held_impl.h"
#include "netem/tun/packet_impl.h"
#include "netem/tun/sweep_impl.h"
#include "trace/trace.h"
#include "util/clock.h"

#define RADIOS    65536u /* NETEM_NEAR_NET is a /16 */
#define BATCH     64     /* packets read from one side before the other gets its turn */
#define NAT_FLOWS 131072 /* 2 MiB */
/* What every link is until SHUTTLE_BEGIN: perfect, behind a NAT that learns the flows and forgets none. */
static const struct netem_profile calm_weather = {.name = "calm", .nat_idle_ns = UINT64_MAX / 4};

#define NO_GROUP 0xFFFFu

struct radio {
    struct link link;
    uint64_t timer_ns; /* when its state is looked at next; UINT64_MAX: not */
    uint32_t held;
    uint16_t group;
    uint8_t state; /* enum link_state, as last traced */
    bool live;
};

struct shuttle {
    const struct shuttle_config *c;
    struct pool pool;
    struct heap due;    /* of packets */
    struct heap states; /* of radios whose state may change; only when there is a trace */
    struct radio *radios;
    uint16_t *group_of; /* by the low half of the address */
    uint64_t blackout_until_ns[TUN_GROUPS_MAX];
    struct link_nat nat;
    struct trace *trace;
    struct trace_writer *writer;
    uint8_t spare[HELD_PACKET_SIZE]; /* where a packet is read to when the pool is empty */
    bool stop, orphaned, calm;
};

/* Counters are read by the owner meanwhile; this process alone writes them. */
static void count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static struct tun_stats *stats_of(struct shuttle *s, uint32_t group)
{
    return &s->c->stats[group == NO_GROUP ? s->c->groups_n : group];
}

/* ---- trace ---- */

static void trace_packet(struct shuttle *s, enum hop hop, enum reason reason, enum netem_dir dir,
                         const struct packet *p, uint64_t now_ns)
{
    struct trace_flow f = {p->src, p->dst, p->sport, p->dport, p->tcp_seq};
    struct trace_event e = {.ts_ns = now_ns,
                            .user = dir == NETEM_UP ? p->src : p->dst,
                            .arg = p->protocol == IPPROTO_TCP ? p->payload : 0,
                            .node = TRACE_NODE_LINK,
                            .hop = (uint8_t)hop,
                            .reason = (uint8_t)reason,
                            .flags = (uint8_t)(p->flags | (dir == NETEM_DOWN ? TRACE_FLAG_DOWN : 0))};
    memcpy(&e.id, &f, sizeof f);
    trace_emit(s->writer, &e);
}

static void trace_state(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    static const uint8_t reasons[] = {[LINK_HANDOVER] = REASON_HANDOVER,
                                      [LINK_HANDOVER_LOSES] = REASON_HANDOVER,
                                      [LINK_BLACKOUT] = REASON_BLACKOUT,
                                      [LINK_DETACHED] = REASON_DETACHED};
    enum link_state state = link_state(&r->link, now_ns);
    if (state == r->state)
        return;
    r->state = (uint8_t)state;
    struct trace_event e = {.ts_ns = now_ns,
                            .user = NETEM_NEAR_NET + (uint32_t)(r - s->radios),
                            .arg = state,
                            .node = TRACE_NODE_LINK,
                            .hop = HOP_LINK_STATE,
                            .reason = reasons[state]};
    trace_emit(s->writer, &e);
}

/* Trace a change of state and be back for the next one. An entry of the heap that is not the radio's earliest
 * is stale and ignored; past RADIOS * 2 entries, which only many orders for blackouts could reach, ends of
 * blackouts are traced late. */
static void watch_state(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    if (!s->writer)
        return;
    trace_state(s, r, now_ns);
    uint64_t next = link_state_until(&r->link, now_ns);
    if (r->timer_ns > now_ns && r->timer_ns <= next)
        return;
    r->timer_ns = next;
    if (next != UINT64_MAX && !heap_push(&s->states, next, (uint32_t)(r - s->radios)))
        r->timer_ns = UINT64_MAX;
}

static void run_states(struct shuttle *s, uint64_t now_ns)
{
    while (heap_first_ns(&s->states) <= now_ns) {
        uint64_t at = heap_first_ns(&s->states);
        struct radio *r = &s->radios[heap_pop(&s->states)];
        if (r->timer_ns != at)
            continue;
        r->timer_ns = UINT64_MAX;
        watch_state(s, r, now_ns);
    }
}

/* ---- packets ---- */

static void drop(struct shuttle *s, uint32_t group, enum reason reason, enum netem_dir dir,
                 const struct packet *p, uint64_t now_ns)
{
    count(&stats_of(s, group)->dropped[reason], 1);
    trace_packet(s, HOP_LINK_DROP, reason, dir, p, now_ns);
}

/* Hand a packet to the kernel of the other side. */
static void deliver(struct shuttle *s, struct radio *r, enum netem_dir dir, const struct packet *p,
                    const uint8_t *at, uint32_t len, uint64_t now_ns)
{
    if (write(s->c->tun_fd[dir == NETEM_UP], at, len) != (ssize_t)len) {
        drop(s, r->group, REASON_QUEUE_FULL, dir, p, now_ns);
        return;
    }
    if (s->writer && p->protocol == IPPROTO_TCP && (p->payload || p->flags))
        trace_packet(s, HOP_LINK_DELIVER, REASON_NONE, dir, p, now_ns);
}

/* The oldest held packet arrives, or is lost after all. */
static void release(struct shuttle *s, uint64_t now_ns, enum reason forced)
{
    uint32_t slot = heap_pop(&s->due);
    struct held *h = &s->pool.held[slot];
    struct radio *r = &s->radios[h->phone & 0xFFFF];
    struct packet p;
    packet_parse(&p, s->pool.packet[slot], h->len);
    r->held--;
    enum reason reason = forced ? forced : link_recheck(&r->link, h->dir, h->depart_ns);
    if (reason)
        drop(s, r->group, reason, h->dir, &p, now_ns);
    else
        deliver(s, r, h->dir, &p, s->pool.packet[slot], h->len, now_ns);
    pool_give(&s->pool, slot);
}

static void init_link(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    const struct netem_profile *p = s->calm ? &calm_weather : &s->c->groups[r->group].profile;
    r->timer_ns = UINT64_MAX;
    link_init(&r->link, p, s->c->seed, NETEM_NEAR_NET + (uint32_t)(r - s->radios), now_ns);
    if (s->blackout_until_ns[r->group] > now_ns)
        link_blackout(&r->link, now_ns, s->blackout_until_ns[r->group]);
}

static struct radio *radio_of(struct shuttle *s, uint32_t phone, uint64_t now_ns)
{
    if ((phone & 0xFFFF0000u) != NETEM_NEAR_NET || s->group_of[phone & 0xFFFF] == NO_GROUP)
        return NULL;
    struct radio *r = &s->radios[phone & 0xFFFF];
    if (r->live)
        return r;
    r->live = true;
    r->group = s->group_of[phone & 0xFFFF];
    init_link(s, r, now_ns);
    watch_state(s, r, now_ns);
    return r;
}

static void take_order(struct shuttle *s, const struct packet *p, const uint8_t *at, uint64_t now_ns)
{
    struct netem_control order;
    struct radio *r = radio_of(s, p->src, now_ns);
    if (!r || p->payload < sizeof order)
        return;
    memcpy(&order, at + p->payload_at, sizeof order);
    if (memcmp(order.magic, "nctl", 4) != 0)
        return;
    if (order.op == NETEM_DETACH)
        link_detach(&r->link, now_ns);
    else if (order.op == NETEM_ATTACH)
        link_attach(&r->link, now_ns);
    watch_state(s, r, now_ns);
}

/* NAT and radio in the order in which a packet meets them. */
static struct link_verdict fate(struct shuttle *s, struct radio *r, enum netem_dir dir,
                                const struct packet *p, uint32_t len, uint64_t now_ns)
{
    struct link_flow f = {.phone = dir == NETEM_UP ? p->src : p->dst,
                          .peer = dir == NETEM_UP ? p->dst : p->src,
                          .phone_port = dir == NETEM_UP ? p->sport : p->dport,
                          .peer_port = dir == NETEM_UP ? p->dport : p->sport,
                          .protocol = p->protocol,
                          .syn = (p->flags & TRACE_FLAG_SYN) && !p->ack};
    struct link_verdict v = {0};
    if (dir == NETEM_DOWN && !p->later_fragment)
        v.reason = link_nat_pass(&r->link, &s->nat, dir, now_ns, &f);
    if (!v.reason)
        v = link_offer(&r->link, dir, now_ns, len);
    if (dir == NETEM_UP && !v.reason && !p->later_fragment)
        v.reason = link_nat_pass(&r->link, &s->nat, dir, now_ns, &f);
    return v;
}

/* Hot path: a packet was read into `at`; pool slot `slot`, or -1 when the pool is empty. True: the slot is
 * kept. */
static bool take(struct shuttle *s, enum netem_dir dir, const uint8_t *at, uint32_t len, int64_t slot)
{
    struct packet p;
    uint64_t now_ns = clock_mono_ns();
    if (!packet_parse(&p, at, len)) {
        count(&stats_of(s, NO_GROUP)->dropped[REASON_NO_ROUTE], 1);
        return false;
    }
    uint32_t phone = dir == NETEM_UP ? p.src : p.dst, peer = dir == NETEM_UP ? p.dst : p.src;
    if (peer == NETEM_CONTROL_ADDR && p.protocol == IPPROTO_UDP && p.dport == NETEM_CONTROL_PORT) {
        take_order(s, &p, at, now_ns);
        return false;
    }
    struct radio *r = peer == NETEM_FAR_ADDR ? radio_of(s, phone, now_ns) : NULL;
    struct tun_stats *stats = stats_of(s, r ? r->group : NO_GROUP);
    count(dir == NETEM_UP ? &stats->packets_up : &stats->packets_down, 1);
    count(dir == NETEM_UP ? &stats->bytes_up : &stats->bytes_down, len);
    if (!r) {
        drop(s, NO_GROUP, REASON_NO_ROUTE, dir, &p, now_ns);
        return false;
    }
    struct link_verdict v = fate(s, r, dir, &p, len, now_ns);
    if (!v.reason && v.deliver_ns <= now_ns && !r->held) {
        deliver(s, r, dir, &p, at, len, now_ns);
        return false;
    }
    if (!v.reason && (slot < 0 || !heap_push(&s->due, v.deliver_ns, (uint32_t)slot)))
        v.reason = REASON_QUEUE_FULL;
    if (v.reason) {
        drop(s, r->group, v.reason, dir, &p, now_ns);
        return false;
    }
    s->pool.held[slot] = (struct held){v.depart_ns, phone, (uint16_t)len, (uint8_t)dir};
    r->held++;
    return true;
}

static void read_batch(struct shuttle *s, enum netem_dir dir)
{
    int64_t slot = pool_take(&s->pool);
    for (int i = 0; i < BATCH; i++) {
        uint8_t *at = slot < 0 ? s->spare : s->pool.packet[slot];
        ssize_t n = read(s->c->tun_fd[dir == NETEM_DOWN], at, HELD_PACKET_SIZE);
        if (n <= 0)
            break;
        if (take(s, dir, at, (uint32_t)n, slot))
            slot = pool_take(&s->pool);
    }
    if (slot >= 0)
        pool_give(&s->pool, (uint32_t)slot);
}

/* ---- orders ---- */

static void black_out(struct shuttle *s, uint32_t group, uint64_t ns)
{
    uint64_t now_ns = clock_mono_ns(), until_ns = now_ns + (ns < UINT64_MAX / 4 ? ns : UINT64_MAX / 4);
    for (uint32_t g = 0; g < s->c->groups_n; g++) {
        const struct tun_group *of = &s->c->groups[g];
        if (group != UINT32_MAX && group != g)
            continue;
        if (s->blackout_until_ns[g] < until_ns)
            s->blackout_until_ns[g] = until_ns;
        for (uint32_t i = 0; i < of->count; i++) {
            struct radio *r = &s->radios[(of->first + i) & 0xFFFF];
            if (!r->live || r->group != g)
                continue;
            link_blackout(&r->link, now_ns, until_ns);
            watch_state(s, r, now_ns);
        }
    }
}

/* The weather begins. Flows that were set up in the calm go on: the NAT knows them, by the link's era. */
static void begin(struct shuttle *s)
{
    uint64_t now_ns = clock_mono_ns();
    s->calm = false;
    for (uint32_t i = 0; i < RADIOS; i++) {
        struct radio *r = &s->radios[i];
        if (!r->live)
            continue;
        uint32_t era = r->link.nat_era;
        bool detached = r->link.detached;
        init_link(s, r, now_ns);
        r->link.nat_era = era;
        if (detached)
            link_detach(&r->link, now_ns);
        watch_state(s, r, now_ns);
    }
}

static void answer(struct shuttle *s, int rc, const char *text)
{
    struct shuttle_answer a = {.rc = rc};
    snprintf(a.text, sizeof a.text, "%s", text);
    send(s->c->control_fd, &a, sizeof a, MSG_NOSIGNAL);
}

static void take_control(struct shuttle *s)
{
    struct shuttle_order o;
    ssize_t n = recv(s->c->control_fd, &o, sizeof o, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != sizeof o) {
        s->stop = s->orphaned = true;
    } else if (o.op == SHUTTLE_BEGIN) {
        begin(s);
        answer(s, 0, "");
    } else if (o.op == SHUTTLE_BLACKOUT) {
        black_out(s, o.group, o.ns);
        answer(s, 0, "");
    } else {
        s->stop = true;
    }
}

/* ---- the process ---- */

static int start(struct shuttle *s, struct err_ctx *ctx)
{
    s->radios = map_zeroed(RADIOS * sizeof *s->radios);
    s->group_of = map_zeroed(RADIOS * sizeof *s->group_of);
    if (!s->radios || !s->group_of || pool_init(&s->pool) || heap_init(&s->due, HELD_MAX) ||
        heap_init(&s->states, RADIOS * 2) || link_nat_init(&s->nat, NAT_FLOWS))
        return err_set(ctx, ERR_NOMEM, "out of memory");
    memset(s->group_of, 0xFF, RADIOS * sizeof *s->group_of);
    for (uint32_t g = 0; g < s->c->groups_n; g++)
        for (uint32_t i = 0; i < s->c->groups[g].count; i++)
            s->group_of[(s->c->groups[g].first + i) & 0xFFFF] = (uint16_t)g;
    if (!s->c->trace_dir)
        return 0;
    struct trace_config tc = {.dir = s->c->trace_dir,
                              .name = "link",
                              .node = TRACE_NODE_LINK,
                              .seed = s->c->seed,
                              .ring_events = 1 << 18};
    int rc = trace_open(&s->trace, &tc, ctx);
    return rc ? rc : trace_writer_new(&s->writer, s->trace, ctx);
}

static void loop(struct shuttle *s)
{
    struct pollfd fds[] = {
        {s->c->tun_fd[0], POLLIN, 0}, {s->c->tun_fd[1], POLLIN, 0}, {s->c->control_fd, POLLIN, 0}};
    pid_t owner = getppid();
    sigset_t none;
    sigemptyset(&none);
    while (!s->stop) {
        uint64_t now_ns = clock_mono_ns(), next_ns = heap_first_ns(&s->due);
        if (heap_first_ns(&s->states) < next_ns)
            next_ns = heap_first_ns(&s->states);
        uint64_t left = next_ns > now_ns ? next_ns - now_ns : 0;
        struct timespec wait = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
        int n = ppoll(fds, 3, next_ns == UINT64_MAX ? NULL : &wait, &none);
        if (getppid() != owner && n < 0)
            s->stop = s->orphaned = true;
        now_ns = clock_mono_ns();
        while (heap_first_ns(&s->due) <= now_ns)
            release(s, now_ns, REASON_NONE);
        run_states(s, now_ns);
        if (n <= 0)
            continue;
        if (fds[2].revents)
            take_control(s);
        if (fds[0].revents)
            read_batch(s, NETEM_UP);
        if (fds[1].revents)
            read_batch(s, NETEM_DOWN);
    }
    while (s->due.count)
        release(s, clock_mono_ns(), REASON_RUN_END);
}

static void nothing(int sig)
{
    (void)sig;
}

/* The terminal's signals are the owner's to interpret. SIGTERM is also how the kernel says that the owner
 * died; it is let through only while waiting. */
static void set_signals(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, wake = {.sa_handler = nothing};
    static const int ignored[] = {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        sigaction(ignored[i], &ignore, NULL);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_SETMASK, &term, NULL);
    sigaction(SIGTERM, &wake, NULL);
}

void shuttle_run(const struct shuttle_config *c)
{
    static struct shuttle s; /* the group table alone is 2 kB; one per process */
    struct err_ctx ctx = {0};
    s.c = c;
    s.calm = c->calm;
    set_signals();
    prctl(PR_SET_NAME, "netem-shuttle");
    prctl(PR_SET_TIMERSLACK, 1000ul); /* 1 us instead of 50: packets arrive on time */
    int rc = start(&s, &ctx);
    answer(&s, rc, ctx.text);
    if (!rc)
        loop(&s);
    int trace_rc = trace_close(s.trace);
    if (s.orphaned)
        sweep_namespaces(c->ns_fd, 2, 0);
    else if (!rc)
        answer(&s, trace_rc, "the link's trace could not be written whole");
}

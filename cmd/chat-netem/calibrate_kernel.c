/* The kernel driver under calibration: UDP over a veth pair between two namespaces, with the rules on the
 * near end. Every frame is watched where it leaves the rules, so that damaged ones are seen as well: upwards
 * at the far end of the pair, downwards where the IFB hands it over. Times are the kernel's own. Needs root
 * and sch_netem; all of it lives in namespaces of one thread and ends with it. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cmd/chat-netem/calibrate.h"
#include "cmd/chat-netem/calibrate_pair.h"
#include "netem/kernel/kernel.h"
#include "util/clock.h"

#define FRAME_MAX   2048
#define QUIET_NS    (NS_PER_S / 2) /* after everything has had its time */
#define HEADERS     28u            /* IPv4 and UDP */
#define PAYLOAD_AT  (ETHER_HDR_LEN + HEADERS)
#define PAYLOAD_MIN 24u /* three numbers, of which a damaged frame spares two */

struct sent {
    uint64_t offered_ns, delivered_ns, copy_ns;
    bool corrupt;
};
struct way {
    struct sent *sent;
    uint64_t planned, offered, gap_ns;
    uint32_t payload;
    int out_fd, watch_fd;
};
struct run {
    struct calibrate *c;
    unsigned phase_n;
    const struct calibrate_phase *phase;
    struct pair pair;
    struct way way[2];
    struct kernel_plan plan;
    struct kernel_weather *weather;
    uint64_t seed, began_ns, window_ns; /* start of the latest window that was told */
    int rc;
    struct err_ctx *err;
};

static uint64_t real_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); /* which packet timestamps are of */
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void fill(uint8_t *payload, uint32_t n, uint64_t i)
{
    memset(payload, 0x5a, n);
    for (unsigned k = 0; k < 3; k++)
        memcpy(payload + k * 8, &i, 8);
}

/* Which packet this is, or UINT64_MAX: what at least two of its three numbers say. */
static uint64_t number_of(const uint8_t *payload)
{
    uint64_t v[3];
    memcpy(v, payload, sizeof v);
    if (v[0] == v[1] || v[0] == v[2])
        return v[0];
    return v[1] == v[2] ? v[1] : UINT64_MAX;
}

static bool checksum_holds(const uint8_t *ip)
{
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum == 0xffff;
}

/* Whether anything of a frame differs from what was sent. */
static bool damaged(const struct run *r, int dir, const uint8_t *f, uint32_t n, uint64_t i)
{
    uint8_t want[FRAME_MAX];
    fill(want, n - PAYLOAD_AT, i);
    return memcmp(f, r->pair.ethernet[dir], ETHER_HDR_LEN) != 0 || !checksum_holds(f + ETHER_HDR_LEN) ||
           memcmp(f + ETHER_HDR_LEN + 20, r->pair.ports, 4) != 0 || f[PAYLOAD_AT - 2] || f[PAYLOAD_AT - 1] ||
           (f[PAYLOAD_AT - 4] << 8 | f[PAYLOAD_AT - 3]) != (int)(n - ETHER_HDR_LEN - 20) ||
           memcmp(f + PAYLOAD_AT, want, n - PAYLOAD_AT) != 0;
}

static void arrived(struct run *r, int dir, const uint8_t *f, uint32_t n, uint64_t at_ns)
{
    struct way *w = &r->way[dir];
    if (n != PAYLOAD_AT + w->payload)
        return;
    uint64_t i = number_of(f + PAYLOAD_AT);
    if (i >= w->offered)
        return;
    struct sent *s = &w->sent[i];
    if (!s->delivered_ns) {
        s->delivered_ns = at_ns;
        s->corrupt = damaged(r, dir, f, n, i);
    } else if (!s->copy_ns) {
        s->copy_ns = at_ns;
    }
}

static void watch(struct run *r, int dir)
{
    uint8_t frame[FRAME_MAX];
    union {
        char room[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    for (;;) {
        struct sockaddr_ll from;
        struct iovec v = {frame, sizeof frame};
        struct msghdr m = {.msg_name = &from,
                           .msg_namelen = sizeof from,
                           .msg_iov = &v,
                           .msg_iovlen = 1,
                           .msg_control = control.room,
                           .msg_controllen = sizeof control.room};
        ssize_t n = recvmsg(r->way[dir].watch_fd, &m, MSG_DONTWAIT);
        if (n < 0)
            return;
        struct timespec t;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        bool leaves = from.sll_pkttype == PACKET_OUTGOING;
        if (!c || c->cmsg_type != SO_TIMESTAMPNS || leaves != r->pair.watch_leaving[dir])
            continue;
        memcpy(&t, CMSG_DATA(c), sizeof t);
        arrived(r, dir, frame, (uint32_t)n, (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec);
    }
}

static uint64_t next_ns(const struct run *r, const struct way *w)
{
    return w->offered < w->planned ? r->began_ns + w->offered * w->gap_ns : UINT64_MAX;
}

/* Late packets keep their distance, so that a machine that stood still does not send a flood. */
static void send_due(struct run *r, struct way *w)
{
    uint8_t payload[FRAME_MAX];
    for (int burst = 0; burst < 16 && next_ns(r, w) <= real_ns(); burst++) {
        struct sent *s = &w->sent[w->offered];
        fill(payload, w->payload, w->offered);
        s->offered_ns = real_ns();
        w->offered++;
        if (send(w->out_fd, payload, w->payload, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
            w->offered--; /* the socket's account is full: later */
            return;
        }
    }
}

/* The longest that a packet may be under way. */
static uint64_t longest_ns(const struct netem_profile *p)
{
    uint64_t longest = 0;
    for (int d = 0; d < 2; d++) {
        const struct netem_direction *w = &p->dir[d];
        uint64_t queue = w->rate_bps ? w->queue_bytes * 8 * NS_PER_S / w->rate_bps : 0;
        uint64_t ns = w->delay_ns + 8 * w->jitter_ns + queue + w->queue_ns;
        longest = ns > longest ? ns : longest;
    }
    return longest + QUIET_NS;
}

/* Brings the weather up to now, tells each window once, and says when to come again. */
static int play(struct run *r, uint64_t *next)
{
    uint64_t start, length;
    int rc = kernel_weather_step(r->weather, real_ns(), next, r->err);
    if (!rc && kernel_weather_window(r->weather, &start, &length) && start != r->window_ns) {
        calibrate_see_window(r->c, r->phase_n, start, length);
        r->window_ns = start;
    }
    return rc;
}

static int traffic(struct run *r)
{
    uint64_t end_ns = 0, weather_ns = UINT64_MAX;
    r->began_ns = real_ns() + 10 * NS_PER_MS;
    calibrate_began(r->c, r->phase_n, r->began_ns);
    if (r->plan.has_weather) {
        int rc = kernel_weather_new(&r->weather, &r->plan, r->seed, r->began_ns, r->err);
        if (rc)
            return rc;
        weather_ns = r->began_ns;
    }
    for (;;) {
        uint64_t next = UINT64_MAX, now = real_ns();
        if (weather_ns <= now) {
            int rc = play(r, &weather_ns);
            if (rc)
                return rc;
        }
        for (int d = 0; d < 2; d++) {
            send_due(r, &r->way[d]);
            watch(r, d);
            uint64_t at = next_ns(r, &r->way[d]);
            next = at < next ? at : next;
        }
        now = real_ns();
        if (next == UINT64_MAX) {
            end_ns = end_ns ? end_ns : now + longest_ns(&r->phase->profile);
            if (now >= end_ns)
                return 0;
            next = end_ns;
        }
        next = weather_ns < next ? weather_ns : next;
        if (next <= now)
            continue;
        struct timespec t = {(time_t)((next - now) / NS_PER_S), (long)((next - now) % NS_PER_S)};
        struct pollfd f[2] = {{r->way[0].watch_fd, POLLIN, 0}, {r->way[1].watch_fd, POLLIN, 0}};
        ppoll(f, 2, &t, NULL);
    }
}

static void tell(struct run *r)
{
    for (int d = 0; d < 2; d++) {
        for (uint64_t i = 0; i < r->way[d].offered; i++) {
            const struct sent *s = &r->way[d].sent[i];
            struct calibrate_packet p = {.offered_ns = s->offered_ns,
                                         .delivered_ns = s->delivered_ns,
                                         .copy_ns = s->copy_ns,
                                         .bytes = r->way[d].payload + HEADERS,
                                         .dir = (uint8_t)d,
                                         .reason = s->delivered_ns ? REASON_NONE : CALIBRATE_UNTOLD,
                                         .corrupt = s->corrupt};
            calibrate_see(r->c, r->phase_n, &p);
        }
    }
}

static int prepare(struct run *r)
{
    struct kernel_device dev;
    int rc = pair_make(&r->pair, r->err);
    rc = rc ? rc : kernel_device_find(&dev, PAIR_NEAR, r->err);
    if (!rc)
        kernel_plan_make(&r->plan, &r->phase->profile, "calibrate", &dev, false, 0);
    rc = rc ? rc : kernel_apply(&r->plan, NULL, r->err);
    rc = rc ? rc : pair_watch(&r->pair, &dev, r->err);
    for (int d = 0; d < 2 && !rc; d++) {
        struct way *w = &r->way[d];
        uint32_t bytes = r->phase->way[d].bytes;
        w->planned = r->phase->way[d].packets;
        w->gap_ns = r->phase->way[d].gap_ns;
        w->payload = bytes > HEADERS + PAYLOAD_MIN ? bytes - HEADERS : PAYLOAD_MIN;
        w->out_fd = r->pair.out_fd[d];
        w->watch_fd = r->pair.watch_fd[d];
        w->sent = calloc(w->planned + 1, sizeof *w->sent);
        if (!w->sent)
            rc = err_set(r->err, ERR_NOMEM, "memory");
    }
    return rc;
}

static void release(struct run *r)
{
    kernel_weather_free(r->weather);
    pair_release(&r->pair);
    free(r->way[0].sent);
    free(r->way[1].sent);
}

/* A rate is only seen when more than it was offered all the time. */
static bool kept_up(const struct run *r)
{
    for (int d = 0; d < 2 && r->phase->kind == CALIBRATE_FULL; d++) {
        const struct way *w = &r->way[d];
        if (w->offered < 2)
            continue;
        uint64_t took = w->sent[w->offered - 1].offered_ns - w->sent[0].offered_ns;
        if (took > (w->offered - 1) * w->gap_ns / 10 * 11 + 100 * NS_PER_MS)
            return false;
    }
    return true;
}

static void *work(void *arg)
{
    struct run *r = arg;
    r->rc = prepare(r);
    r->rc = r->rc ? r->rc : traffic(r);
    if (!r->rc && kept_up(r))
        tell(r);
    else if (!r->rc)
        calibrate_lacks(r->c, r->phase->kind, "this machine could not send as much as the rate takes");
    release(r);
    return NULL;
}

/* What no rule of the kernel's can do, by the phase that would show it. */
static const char *beyond(const struct calibrate_phase *p)
{
    switch (p->kind) {
    case CALIBRATE_SLEEP:
        return "rrc and drx: netem does not know when the radio sleeps";
    case CALIBRATE_NAT:
        return "nat_idle: netem knows no flows";
    case CALIBRATE_FULL:
        if (p->profile.dir[0].trace || p->profile.dir[1].trace)
            return "trace: the kernel has rates, not delivery times";
        if (p->profile.dir[0].queue_head || p->profile.dir[1].queue_head)
            return "queue_drop=head: the kernel's queue drops the packet that comes";
        return NULL;
    default:
        return NULL;
    }
}

/* The plan and its weather are large for a stack. */
static int in_thread(void *(*work)(void *), struct calibrate *c, unsigned i,
                     const struct calibrate_phase *phase, uint64_t seed, struct err_ctx *err)
{
    struct run *r = calloc(1, sizeof *r);
    pthread_t t;
    if (!r)
        return err_set(err, ERR_NOMEM, "memory");
    r->c = c;
    r->phase_n = i;
    r->phase = phase;
    r->pair = (struct pair)PAIR_NONE;
    r->seed = seed;
    r->err = err;
    int e = pthread_create(&t, NULL, work, r), rc;
    if (!e)
        pthread_join(t, NULL);
    rc = e ? err_set(err, ERR_NOMEM, "starting a thread: %s", strerror(e)) : r->rc;
    free(r);
    return rc;
}

static int kernel_run(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
                      struct err_ctx *err)
{
    const char *why = beyond(phase);
    if (!why)
        return in_thread(work, c, i, phase, seed, err);
    calibrate_lacks(c, phase->kind, why);
    return 0;
}

static void *try_out(void *arg)
{
    struct run *r = arg;
    r->rc = prepare(r);
    release(r);
    return NULL;
}

/* Whether this kernel can be asked at all. */
static int kernel_ready(struct err_ctx *err)
{
    struct calibrate_phase phase = {
        .profile.dir = {{.delay_ns = NS_PER_MS, .rate_bps = 1000000, .queue_bytes = 32000},
                        {.delay_ns = NS_PER_MS, .rate_bps = 1000000, .queue_bytes = 32000}}};
    return in_thread(try_out, NULL, 0, &phase, 0, err);
}

const struct calibrate_driver calibrate_kernel = {
    .kind = NETEM_DRIVER_KERNEL,
    .packets = 20000,
    .time_ns = 20 * NS_PER_S,
    .ready = kernel_ready,
    .run = kernel_run,
};

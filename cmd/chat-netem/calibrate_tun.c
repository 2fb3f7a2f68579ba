/* The TUN driver under calibration, seen from outside: UDP probes between two namespaces, timed by the kernel
 * where they come out of the TUN device. Damaged packets are seen as well, since a packet socket watches. And
 * seen from inside: each fate that the shuttle logged is asked again of a fresh link, and must be the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cmd/chat-netem/calibrate.h"
#include "netem/link.h"
#include "netem/tun/tun.h"
#include "util/clock.h"

#define PHONE        (NETEM_NEAR_NET + 1)
#define PORT         9999
#define HEADERS      28u /* IPv4 and UDP */
#define PAYLOAD_MIN  24u /* three times the number, of which a flipped bit spares two */
#define PACKET_MAX   2048
#define ROOM         (32 << 20)
#define QUIET_NS     (NS_PER_S / 5) /* after everything has had its time */
#define SETTLE_NS    (10 * NS_PER_MS)
#define BURST        16
#define EDGE_PACKETS 100
#define TURN_LATE_NS (2 * NS_PER_MS)
#define WINDOWS      8
#define LATE_NS      NS_PER_MS
#define LATE_SHARE   200 /* one packet in so many may be later than that */

struct probe {
    uint64_t offered_ns, delivered_ns, copy_ns;
    bool corrupt;
};
struct way {
    struct probe *sent;
    uint64_t planned, offered;
    uint32_t payload;
    int out_fd, watch_fd;
};
struct run {
    const struct calibrate_phase *phase;
    struct tun_world *world;
    struct tun_fates *fates;
    struct tun_group group;
    struct way way[2];
    uint64_t began_ns, turn, turn_ns; /* of turns: which is next, and when the one before was */
    uint64_t turn_late_ns;            /* by how much a silence was longer than planned, at most */
    uint64_t opened;                  /* packets that opened a NAT */
    uint64_t expired;                 /* of a NAT: as counted when it was opened last */
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

/* ---- what comes out ---- */

static bool checksum_holds(const uint8_t *ip)
{
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum == 0xffff;
}

/* Which probe it is: what two of its three numbers say. */
static uint64_t number_of(const uint8_t *payload)
{
    uint64_t v[3];
    memcpy(v, payload, sizeof v);
    if (v[0] == v[1] || v[0] == v[2])
        return v[0];
    return v[1] == v[2] ? v[1] : UINT64_MAX;
}

static bool damaged(const uint8_t *ip, uint32_t n, uint64_t i)
{
    uint8_t want[PACKET_MAX];
    const uint8_t udp[8] = {
        PORT >> 8, PORT & 255, PORT >> 8, PORT & 255, (uint8_t)((n - 20) >> 8), (uint8_t)((n - 20) & 255),
        0,         0};
    fill(want, n - HEADERS, i);
    return !checksum_holds(ip) || memcmp(ip + 20, udp, sizeof udp) != 0 ||
           memcmp(ip + HEADERS, want, n - HEADERS) != 0;
}

static void arrived(struct way *w, const uint8_t *ip, uint32_t n, uint64_t at_ns)
{
    if (n != HEADERS + w->payload)
        return;
    uint64_t i = number_of(ip + HEADERS);
    if (i >= w->offered)
        return;
    struct probe *s = &w->sent[i];
    bool bad = damaged(ip, n, i);
    if (!s->delivered_ns) {
        s->delivered_ns = at_ns;
        s->corrupt = bad;
    } else if (!s->copy_ns) {
        s->copy_ns = at_ns;
        s->corrupt = s->corrupt || bad; /* the copy is whole, and may come first */
    }
}

static void watch(struct way *w)
{
    uint8_t packet[PACKET_MAX];
    union {
        char room[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    for (;;) {
        struct sockaddr_ll from;
        struct iovec v = {packet, sizeof packet};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1};
        m.msg_control = control.room;
        m.msg_controllen = sizeof control.room;
        ssize_t n = recvmsg(w->watch_fd, &m, MSG_DONTWAIT);
        if (n < 0)
            return;
        struct timespec t;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        if (!c || c->cmsg_type != SO_TIMESTAMPNS || from.sll_pkttype == PACKET_OUTGOING ||
            n < (ssize_t)HEADERS)
            continue;
        memcpy(&t, CMSG_DATA(c), sizeof t);
        arrived(w, packet, (uint32_t)n, (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec);
    }
}

/* ---- what goes in ---- */

static bool has_turns(const struct run *r)
{
    return r->phase->turns > 0;
}

/* When the next probe is to go, and which way. UINT64_MAX: none is left. */
static uint64_t next_ns(const struct run *r, enum netem_dir *dir)
{
    uint64_t first = UINT64_MAX;
    if (has_turns(r)) {
        *dir = calibrate_turn(r->phase, r->turn);
        return r->turn < r->phase->turns ? r->turn_ns + calibrate_silence(r->phase, r->turn) : UINT64_MAX;
    }
    for (int d = 0; d < 2; d++) {
        uint64_t at = r->began_ns + r->way[d].offered * r->phase->way[d].gap_ns;
        if (r->way[d].offered >= r->way[d].planned || at >= first)
            continue;
        first = at;
        *dir = d;
    }
    return first;
}

static void send_probe(struct run *r, enum netem_dir dir)
{
    uint8_t payload[PACKET_MAX];
    struct way *w = &r->way[dir];
    struct probe *s = &w->sent[w->offered];
    fill(payload, w->payload, w->offered);
    s->offered_ns = real_ns();
    if (send(w->out_fd, payload, w->payload, MSG_DONTWAIT) < 0 && errno == EAGAIN)
        return; /* the socket's account is full: later */
    w->offered++;
    r->turn++;
    r->turn_ns = s->offered_ns;
}

/* A packet up that nobody counts opens the NAT's mapping. */
static void open_nat(struct run *r)
{
    struct tun_stats s;
    tun_world_stats(r->world, "*", &s);
    uint64_t before = s.packets_up, end = clock_mono_ns() + NS_PER_S;
    send(r->way[NETEM_UP].out_fd, "open", 4, 0);
    while (s.packets_up == before && clock_mono_ns() < end) {
        nanosleep(&(struct timespec){0, 50000}, NULL); /* the shuttle may need this very core */
        tun_world_stats(r->world, "*", &s);
    }
    r->turn_ns = real_ns();
    r->opened++;
}

/* Open it again when the last probe found it expired. */
static void tend_nat(struct run *r)
{
    struct tun_stats s;
    tun_world_stats(r->world, "*", &s);
    if (s.dropped[REASON_NAT_EXPIRED] == r->expired)
        return;
    r->expired = s.dropped[REASON_NAT_EXPIRED];
    open_nat(r);
}

/* The longest that a packet may be under way. */
static uint64_t longest_ns(const struct netem_profile *p)
{
    uint64_t longest = 0;
    for (int d = 0; d < 2; d++) {
        const struct netem_direction *w = &p->dir[d];
        uint64_t bps = w->trace ? netem_trace_mean_bps(w->trace) : w->rate_bps;
        uint64_t queue = bps ? w->queue_bytes * 8 * NS_PER_S / bps : 0;
        uint64_t ns = w->delay_ns + 8 * w->jitter_ns + queue + w->queue_ns;
        longest = ns > longest ? ns : longest;
    }
    longest += p->stall.every_ns ? p->stall.length.max_ns : 0;
    longest += p->cell.every_ns ? p->cell.length.max_ns : 0;
    return longest + p->rrc_promotion_ns + p->paging_ns + QUIET_NS;
}

/* Whether everything that was offered has come to its end; `from` moves on. */
static bool all_ended(const struct run *r, uint64_t *from)
{
    const struct tun_fates *f = r->fates;
    uint64_t n = __atomic_load_n(&f->n, __ATOMIC_ACQUIRE), now = clock_mono_ns();
    for (; *from < n; ++*from) {
        const struct tun_fate *one = &f->at[*from];
        bool final =
            one->kind != TUN_FATE_PACKET || __atomic_load_n(&one->flags, __ATOMIC_ACQUIRE) & TUN_FATE_FINAL;
        if (!final || one->copy_ns > now)
            return false;
    }
    return n >= r->way[0].offered + r->way[1].offered + r->opened;
}

static void wait_until(const struct run *r, uint64_t at_ns)
{
    uint64_t now = real_ns(), left = at_ns > now ? at_ns - now : 0;
    if (r->phase->kind == CALIBRATE_NAT && left > NS_PER_MS)
        left = NS_PER_MS; /* its expiry is to be seen soon */
    struct timespec t = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
    struct pollfd f[2] = {{r->way[0].watch_fd, POLLIN, 0}, {r->way[1].watch_fd, POLLIN, 0}};
    if (left)
        ppoll(f, 2, &t, NULL);
}

static void traffic(struct run *r)
{
    uint64_t end_ns = 0, from = 0;
    enum netem_dir dir = NETEM_UP;
    r->began_ns = r->turn_ns = real_ns() + 10 * NS_PER_MS;
    if (r->phase->kind == CALIBRATE_NAT)
        open_nat(r);
    for (;;) {
        uint64_t due;
        for (int burst = 0; burst < BURST && (due = next_ns(r, &dir)) <= real_ns(); burst++) {
            send_probe(r, dir);
            if (has_turns(r) && r->turn_ns - due > r->turn_late_ns)
                r->turn_late_ns = r->turn_ns - due;
        }
        watch(&r->way[0]);
        watch(&r->way[1]);
        if (r->phase->kind == CALIBRATE_NAT)
            tend_nat(r);
        uint64_t next = next_ns(r, &dir), now = real_ns();
        if (next == UINT64_MAX) {
            end_ns = end_ns ? end_ns : now + longest_ns(&r->phase->profile);
            if (now >= end_ns)
                return;
            if (all_ended(r, &from) && end_ns > now + SETTLE_NS)
                end_ns = now + SETTLE_NS;
            next = end_ns < now + SETTLE_NS ? end_ns : now + SETTLE_NS;
        }
        wait_until(r, next);
    }
}

/* Others must not make the probes late; EPERM leaves it at that, and was_punctual() judges. */
static void on_time(bool is)
{
    struct sched_param p = {.sched_priority = is ? 1 : 0};
    sched_setscheduler(0, is ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER, &p);
    prctl(PR_SET_TIMERSLACK, is ? 1000ul : 0ul);
}

/* ---- a phase ---- */

/* Without a checksum, so that damage is not hidden; nobody reads what it gets. */
static int open_out(struct run *r, enum netem_dir dir, struct err_ctx *err)
{
    bool up = dir == NETEM_UP;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(PORT)}, to = from;
    int on = 1, room = ROOM, none = 0, *fd = &r->way[dir].out_fd;
    from.sin_addr.s_addr = htonl(up ? PHONE : NETEM_FAR_ADDR);
    to.sin_addr.s_addr = htonl(up ? NETEM_FAR_ADDR : PHONE);
    int rc = tun_world_socket(r->world, up, AF_INET, SOCK_DGRAM, fd, err);
    if (!rc && (bind(*fd, (struct sockaddr *)&from, sizeof from) ||
                connect(*fd, (struct sockaddr *)&to, sizeof to) ||
                setsockopt(*fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on)))
        rc = err_errno(err, "a UDP socket");
    if (rc)
        return rc;
    setsockopt(*fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &none, sizeof none);
    return 0;
}

static int open_watch(struct run *r, enum netem_dir dir, struct err_ctx *err)
{
    int on = 1, room = ROOM, *fd = &r->way[dir].watch_fd;
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int rc = tun_world_socket(r->world, dir == NETEM_DOWN, AF_PACKET, SOCK_DGRAM, fd, err);
    if (rc)
        return rc;
    /* loopback carries nothing there, so every device may be watched */
    if (setsockopt(*fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ||
        setsockopt(*fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
        bind(*fd, (struct sockaddr *)&a, sizeof a))
        return err_errno(err, "a packet socket");
    return 0;
}

static int prepare(struct run *r, uint64_t seed, struct err_ctx *err)
{
    uint64_t all = 0;
    int rc = 0;
    for (int d = 0; d < 2 && !rc; d++) {
        struct way *w = &r->way[d];
        uint32_t bytes = r->phase->way[d].bytes;
        w->planned = has_turns(r) ? r->phase->turns : r->phase->way[d].packets;
        w->payload = bytes > HEADERS + PAYLOAD_MIN ? bytes - HEADERS : PAYLOAD_MIN;
        w->sent = calloc(w->planned + 1, sizeof *w->sent);
        all += w->planned;
        rc = w->sent ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    }
    r->fates = tun_fates_new(2 * all + 1024);
    if (!rc && !r->fates)
        rc = err_set(err, ERR_NOMEM, "out of memory");
    r->group = (struct tun_group){.name = "probe", .profile = r->phase->profile, .first = PHONE, .count = 1};
    struct tun_config c = {.groups = &r->group, .groups_n = 1, .seed = seed, .fates = r->fates};
    rc = rc ? rc : tun_world_start(&r->world, &c, err);
    for (int d = 0; d < 2 && !rc; d++) {
        rc = open_out(r, d, err);
        rc = rc ? rc : open_watch(r, d, err);
    }
    return rc;
}

/* Both directions in the order of time: turns are one sequence. */
static void tell(const struct run *r, struct calibrate *c, unsigned i)
{
    uint64_t told[2] = {0, 0};
    for (;;) {
        int d = told[0] < r->way[0].offered ? 0 : 1;
        if (told[d] >= r->way[d].offered)
            return;
        if (!d && told[1] < r->way[1].offered &&
            r->way[1].sent[told[1]].offered_ns < r->way[0].sent[told[0]].offered_ns)
            d = 1;
        const struct probe *s = &r->way[d].sent[told[d]++];
        struct calibrate_packet p = {.offered_ns = s->offered_ns,
                                     .delivered_ns = s->delivered_ns,
                                     .copy_ns = s->copy_ns,
                                     .bytes = r->way[d].payload + HEADERS,
                                     .dir = (uint8_t)d,
                                     .reason = s->delivered_ns ? REASON_NONE : CALIBRATE_UNTOLD,
                                     .corrupt = s->corrupt};
        calibrate_see(c, i, &p);
    }
}

/* When the link was dark or held: its weather is the seed's alone, whatever was sent. */
static void tell_windows(const struct run *r, struct calibrate *c, unsigned i, uint64_t seed)
{
    struct link l;
    uint64_t shift = real_ns() - clock_mono_ns(), end = clock_mono_ns();
    unsigned n = 0;
    if ((r->phase->kind != CALIBRATE_OUTAGE && r->phase->kind != CALIBRATE_HOLD) || !r->fates->n)
        return;
    uint64_t t = r->fates->at[0].at_ns, since = 0;
    link_init(&l, &r->phase->profile, seed, PHONE, t);
    for (; t < end; t = link_state_until(&l, t)) {
        bool up = link_state(&l, t) == LINK_UP;
        if (up && since) {
            calibrate_see_window(c, i, since + shift, t - since);
            n++;
        }
        since = up ? 0 : since ? since : t;
    }
    if (n < WINDOWS && r->phase->profile.blackout_at.n == 0)
        calibrate_lacks(c, r->phase->kind, "so rare a thing needs more time (--time) to come 8 times");
}

/* Whether this machine kept the link's time: of each probe, how long the shuttle took to hear of it and to
 * hand it over beyond its delay. */
static bool was_punctual(const struct run *r)
{
    uint64_t shift = real_ns() - clock_mono_ns(), seen[2] = {0, 0}, late = 0, all = 0;
    for (uint64_t k = 0; k < r->fates->n; k++) {
        const struct tun_fate *f = &r->fates->at[k];
        const struct way *w = &r->way[f->dir];
        if (f->kind != TUN_FATE_PACKET || f->bytes != HEADERS + w->payload || seen[f->dir] >= w->offered)
            continue;
        uint64_t offered = w->sent[seen[f->dir]++].offered_ns, at = f->at_ns + shift;
        uint64_t lag = at > offered ? at - offered : 0;
        lag += f->handed_ns > f->deliver_ns ? f->handed_ns - f->deliver_ns : 0;
        late += lag > LATE_NS;
        all++;
    }
    return late * LATE_SHARE <= all && r->turn_late_ns <= TURN_LATE_NS;
}

/* The edges of a distribution need so many. */
static bool shows_edges(const struct run *r)
{
    return r->phase->kind != CALIBRATE_DELAY ||
           (r->way[NETEM_UP].planned >= EDGE_PACKETS && r->way[NETEM_DOWN].planned >= EDGE_PACKETS);
}

/* The inside view. */
static int check_fates(const struct run *r, uint64_t seed, struct err_ctx *err)
{
    struct tun_replay replay;
    int rc = tun_fates_replay(r->fates, &r->group, 1, seed, &replay, err);
    if (!rc && replay.differ)
        rc = err_set(err, ERR_CORRUPT,
                     "%" PRIu64 " of %" PRIu64
                     " packets had another fate than the model gives them; the first "
                     "is number %" PRIu64,
                     replay.differ, replay.packets, replay.first);
    return rc;
}

static void finish(struct run *r)
{
    tun_world_stop(r->world);
    tun_fates_free(r->fates);
    for (int d = 0; d < 2; d++) {
        free(r->way[d].sent);
        if (r->way[d].out_fd >= 0)
            close(r->way[d].out_fd);
        if (r->way[d].watch_fd >= 0)
            close(r->way[d].watch_fd);
    }
}

static int tun_run(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
                   struct err_ctx *err)
{
    struct run r = {.phase = phase, .way = {{.out_fd = -1, .watch_fd = -1}, {.out_fd = -1, .watch_fd = -1}}};
    struct tun_stats s = {0};
    int rc = prepare(&r, seed + i, err);
    if (!rc) {
        on_time(true);
        traffic(&r);
        on_time(false);
        tun_world_stats(r.world, "*", &s);
        if (s.overrun)
            calibrate_lacks(c, phase->kind, "this machine was too slow: packets were lost before the link");
        tell(&r, c, i);
        tell_windows(&r, c, i, seed + i);
        tun_world_stop(r.world); /* what still waits comes to its end */
        r.world = NULL;
        if (phase->kind != CALIBRATE_LOSS && phase->kind != CALIBRATE_FULL && !s.overrun && !was_punctual(&r))
            calibrate_lacks(c, phase->kind, "this machine was too busy: packets were carried over 1 ms late");
        if (!shows_edges(&r))
            calibrate_lacks(c, phase->kind, "so slow a network needs more time (--time) for 100 packets");
        rc = check_fates(&r, seed + i, err);
    }
    finish(&r);
    return rc;
}

static int tun_ready(struct err_ctx *err)
{
    struct tun_group g = {.name = "probe", .first = PHONE, .count = 1};
    struct tun_config c = {.groups = &g, .groups_n = 1};
    struct tun_world *w;
    int rc = tun_world_start(&w, &c, err);
    if (!rc)
        tun_world_stop(w);
    return rc;
}

const struct calibrate_driver calibrate_tun = {
    .kind = NETEM_DRIVER_TUN,
    .packets = 20000,
    .time_ns = 2 * NS_PER_S,
    .ready = tun_ready,
    .run = tun_run,
};

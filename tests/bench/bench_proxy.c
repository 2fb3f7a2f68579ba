/* What the chaos proxy adds when no fault is at work: throughput through it against a direct connection, and
 * the latency of a small round trip, both in one run, turn by turn. Loopback, three processes on what cores
 * there are. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

int main(void)
{
    static struct hist direct, through;
    double d[ROUNDS], t[ROUNDS], ratio[ROUNDS];
    int port, proxy;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_any(&port);
    pid_t server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    pid_t pid = start_proxy(port, &proxy);
    double cpu = 0;
    for (int i = 0; i < ROUNDS; i++) {
        d[i] = throughput(port);
        cpu -= cpu_s(pid);
        t[i] = throughput(proxy);
        cpu += cpu_s(pid);
        ratio[i] = t[i] / d[i];
        trips(port, &direct);
        trips(proxy, &through);
        printf("round %d: direct %.2f GB/s, through the proxy %.2f GB/s\n", i + 1, d[i], t[i]);
    }
    kill(pid, SIGKILL);
    kill(server, SIGKILL);
    while (wait(NULL) > 0)
        ;
    qsort(d, ROUNDS, sizeof *d, by_value);
    qsort(t, ROUNDS, sizeof *t, by_value);
    qsort(ratio, ROUNDS, sizeof *ratio, by_value);
    /* a round trip passes the proxy twice */
    double p50 = ((double)hist_quantile(&through, 5000) - (double)hist_quantile(&direct, 5000)) / 2000;
    double p99 = ((double)hist_quantile(&through, 9900) - (double)hist_quantile(&direct, 9900)) / 2000;
    printf("round trip of %d B: direct p50 %.1f us p99 %.1f us, through the proxy p50 %.1f us p99 %.1f us\n",
           TRIP_LEN, (double)hist_quantile(&direct, 5000) / 1000, (double)hist_quantile(&direct, 9900) / 1000,
           (double)hist_quantile(&through, 5000) / 1000, (double)hist_quantile(&through, 9900) / 1000);
    printf("BENCH proxy_throughput %.2f GB/s (median of %d) ratio %.2f budget 1.00 GB/s %s\n", t[ROUNDS / 2],
           ROUNDS, ratio[ROUNDS / 2], t[ROUNDS / 2] >= 1.0 ? "ok" : "MISSED");
    printf("BENCH proxy_cpu %.2f s/GB\n", cpu / ((double)BULK / 1e9 * ROUNDS));
    printf("BENCH proxy_added_p50 %.1f us budget 100 us %s\n", p50, p50 < 100 ? "ok" : "MISSED");
    printf("BENCH proxy_added_p99 %.1f us budget 100 us %s\n", p99, p99 < 100 ? "ok" : "MISSED");
    return 0;
}

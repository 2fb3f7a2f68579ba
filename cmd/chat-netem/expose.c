/* --expose: a child process that relays TCP connections of the far side to a server of the host. The
 * listening socket was made in the far namespace; connections to the server are made from the host's. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/chat-netem/tool.h"
#include "util/units.h"

#define RELAYS_MAX 1024 /* connections at a time; more wait in the backlog */
#define CHUNK      (64 << 10)

struct pump { /* one direction of one connection */
    int from, to;
    size_t at, n;
    bool over;
    char data[CHUNK];
};

static int connect_to(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Move what can be moved; false when this direction is over. */
static bool pump_step(struct pump *p, short from_events, short to_events)
{
    if (!p->n && from_events & (POLLIN | POLLHUP | POLLERR)) {
        ssize_t n = recv(p->from, p->data, sizeof p->data, 0);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        p->at = 0;
        p->n = (size_t)n;
    }
    if (p->n && to_events & (POLLOUT | POLLERR)) {
        ssize_t n = send(p->to, p->data + p->at, p->n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->at += (size_t)n;
        p->n -= (size_t)n;
    }
    return true;
}

/* Both directions of one connection, until both are over. A process of its own, so that it needs no more
 * state. */
static void relay(int near_fd, int server_fd)
{
    struct pump *p = calloc(2, sizeof *p);
    if (!p)
        return;
    p[0].from = p[1].to = near_fd;
    p[0].to = p[1].from = server_fd;
    while (!p[0].over || !p[1].over) {
        struct pollfd f[2] = {{near_fd, 0, 0}, {server_fd, 0, 0}};
        for (int i = 0; i < 2; i++) {
            f[i].events |= !p[i].over && !p[i].n ? POLLIN : 0;
            f[!i].events |= !p[i].over && p[i].n ? POLLOUT : 0;
        }
        for (int i = 0; i < 2; i++) /* a hang-up on a side that nobody waits for must not wake us */
            f[i].fd = f[i].events ? f[i].fd : -1;
        if (poll(f, 2, -1) < 0 && errno != EINTR)
            break;
        for (int i = 0; i < 2; i++) {
            if (p[i].over || pump_step(&p[i], f[i].revents, f[!i].revents))
                continue;
            p[i].over = true;
            shutdown(p[i].to, SHUT_WR);
        }
    }
    free(p);
}

static void serve(int listener, const struct addrinfo *server)
{
    int running = 0;
    signal(SIGINT, SIG_IGN);
    for (;;) {
        while (running && waitpid(-1, NULL, running < RELAYS_MAX ? WNOHANG : 0) > 0)
            running--;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            poll(NULL, 0, 10); /* out of descriptors or memory, which others may give back */
            continue;
        }
        pid_t parent = getpid(), pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            int to = getppid() == parent ? connect_to(server) : -1;
            if (to >= 0)
                relay(fd, to);
            _exit(0);
        }
        running += pid > 0;
        close(fd);
    }
}

static int resolve(struct addrinfo **server, uint16_t *port, const char *text, struct err_ctx *err)
{
    char left[8] = "", host[256];
    const char *equals = strchr(text, '='), *colon = strrchr(text, ':');
    uint64_t n = 0;
    if (equals && equals - text < (long)sizeof left)
        snprintf(left, sizeof left, "%.*s", (int)(equals - text), text);
    if (!equals || !colon || colon < equals || colon - equals > 250 || units_u64(&n, left, NULL) || !n ||
        n > 65535)
        return err_set(err, ERR_USAGE, "--expose '%s': PORT=HOST:PORT is wanted", text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - equals - 1), equals + 1);
    struct addrinfo want = {.ai_socktype = SOCK_STREAM};
    int e = getaddrinfo(host, colon + 1, &want, server);
    *port = (uint16_t)n;
    return e ? err_set(err, ERR_UNAVAILABLE, "--expose '%s': %s", text, gai_strerror(e)) : 0;
}

int tool_expose(struct tun_world *w, const char *text, struct err_ctx *err)
{
    struct addrinfo *server;
    uint16_t port;
    int fd, one = 1, rc = resolve(&server, &port, text, err);
    rc = rc ? rc : tun_world_socket(w, false, AF_INET, SOCK_STREAM, &fd, err);
    if (rc)
        return rc;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(NETEM_FAR_ADDR)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    pid_t parent = getpid(), pid = -1;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, RELAYS_MAX))
        rc = err_errno(err, "--expose %s", text);
    else if ((pid = fork()) < 0)
        rc = err_errno(err, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "netem-relay");
        if (getppid() == parent)
            serve(fd, server);
        _exit(0);
    }
    close(fd);
    freeaddrinfo(server);
    return rc;
}

/* Addresses, accepting clients, connecting to the server. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/proxy/driver_impl.h"
#include "util/clock.h"
#include "util/log.h"

#define CONNECT_NS (10 * NS_PER_S)

int dial_resolve(struct addrinfo **a, const char *text, bool passive, struct err_ctx *ctx)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0};
    if (!colon || n >= sizeof host || !colon[1])
        return err_set(ctx, ERR_USAGE, "'%s' is no address: HOST:PORT is wanted", text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    memcpy(host, text, n);
    host[n] = 0;
    int e = getaddrinfo(n ? host : NULL, colon + 1, &want, a);
    return e ? err_set(ctx, ERR_UNAVAILABLE, "'%s%s': %s", host, colon, gai_strerror(e)) : 0;
}

bool watch(struct proxy *p, struct endpoint *e, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = e};
    return epoll_ctl(p->epoll, EPOLL_CTL_ADD, e->fd, &ev) == 0;
}

void reset_fd(int *fd)
{
    struct linger now = {1, 0};
    if (*fd < 0)
        return;
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(*fd);
    *fd = -1;
}

int dial_listen(struct proxy *p, struct err_ctx *ctx)
{
    struct addrinfo *a = NULL;
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    char host[64], port[8];
    int one = 1, rc = dial_resolve(&a, p->config.listen, true, ctx);
    if (rc)
        return err_prefix(ctx, "--listen: ");
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    p->listener.fd = fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&at, &n)) {
        bool busy = errno == EADDRINUSE;
        rc = err_errno(ctx, "--listen %s", p->config.listen);
        rc = busy ? ERR_BUSY : rc;
        if (ctx && busy)
            ctx->code = rc;
    } else if (getnameinfo((struct sockaddr *)&at, n, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        p->port = (uint16_t)atoi(port);
        snprintf(p->listen_text, sizeof p->listen_text, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    }
    freeaddrinfo(a);
    return rc;
}

static void tune(int fd)
{
    int one = 1, idle = 60, between = 10, tries = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
}

/* --- the server --------------------------------------------------------------------------------------- */

void dial_server(struct proxy *p, struct conn *c)
{
    struct endpoint *e = &c->end[SERVER];
    for (; c->trying; c->trying = c->trying->ai_next) {
        if (e->fd >= 0)
            close(e->fd);
        e->fd = socket(c->trying->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (e->fd < 0)
            break;
        tune(e->fd);
        e->can_read = e->can_write = e->hung_up = false;
        int rc = connect(e->fd, c->trying->ai_addr, c->trying->ai_addrlen);
        if ((rc == 0 || errno == EINPROGRESS) && watch(p, e, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) {
            c->connecting = true;
            return;
        }
    }
    p->counts.refused_upstream++;
    log_info("connection %llu: %s does not answer", (unsigned long long)p->counts.accepted, p->config.to);
    relay_end(p, c, true);
}

bool dial_done(struct proxy *p, struct conn *c)
{
    int e = 0;
    socklen_t n = sizeof e;
    getsockopt(c->end[SERVER].fd, SOL_SOCKET, SO_ERROR, &e, &n);
    if (e) {
        c->trying = c->trying->ai_next;
        dial_server(p, c);
        return false;
    }
    c->connecting = false;
    c->trying = NULL;
    return true;
}

/* --- clients ------------------------------------------------------------------------------------------ */

static void refuse(struct proxy *p, int fd, const char *why)
{
    p->counts.refused_full++;
    if (!p->full_told)
        log_error("%s: more connections are refused (and counted)", why);
    p->full_told = true;
    reset_fd(&fd);
}

static void take_client(struct proxy *p, int fd, uint64_t now_ns)
{
    char why[96];
    if (p->counts.open >= p->connections_max) {
        snprintf(why, sizeof why, "%u connections are open, the limit%s", p->connections_max,
                 p->config.connections_max ? "" : " of file descriptors (ulimit -n)");
        refuse(p, fd, why);
        return;
    }
    struct conn *c = calloc(1, sizeof *c);
    if (c && heap_reserve(&p->heap))
        c->core = proxy_conn_new(&p->rules, p->counts.accepted + 1, now_ns, told, p);
    if (!c || !c->core) {
        free(c);
        refuse(p, fd, "out of memory");
        return;
    }
    p->counts.accepted++;
    p->counts.open++;
    c->heap_at = UINT32_MAX;
    for (int s = 0; s < 2; s++)
        c->end[s] = (struct endpoint){.kind = ON_CONN, .side = (uint8_t)s, .fd = -1};
    c->end[CLIENT].fd = fd;
    c->next = p->conns;
    if (p->conns)
        p->conns->prev = c;
    p->conns = c;
    c->trying = p->to;
    tune(fd);
    heap_set(&p->heap, c, now_ns + CONNECT_NS);
    if (!watch(p, &c->end[CLIENT], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
        relay_end(p, c, true);
    else
        dial_server(p, c);
}

void dial_accept(struct proxy *p, uint64_t now_ns)
{
    for (int i = 0; i < 256; i++) { /* then others have their turn; the listener is level-triggered */
        int fd = accept4(p->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_client(p, fd, now_ns);
        } else if ((errno == EMFILE || errno == ENFILE) && p->spare >= 0) {
            close(p->spare);
            fd = accept4(p->listener.fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                refuse(p, fd, "no file descriptor is left (ulimit -n)");
            p->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

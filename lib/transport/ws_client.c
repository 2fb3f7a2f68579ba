#include "transport/ws_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/buf.h"
#include "util/clock.h"
#include "wire/ws.h"

#define READ_BYTES      (64u << 10)
#define IP_NO_PORT_YET  24 /* IP_BIND_ADDRESS_NO_PORT, hidden by some libc headers */
#define CLOSE_TIMEOUT_S 5.0

enum state { CONNECTING, UPGRADING, OPEN, CLOSING };

struct ws_client {
    struct ws_client_config cfg;
    ev_io io;
    ev_timer timer; /* connecting, upgrading, closing */
    int fd;
    uint8_t state;
    bool frozen, in_callback, freed, close_sent;
    struct buf out; /* bytes the kernel has not taken */
    struct buf in;  /* the upgrade answer, while it is not whole */
    struct ws_parser parser;
    uint64_t written; /* bytes handed over by the owner, framing and handshake included */
    uint64_t upgrade_read;
    uint64_t read_end; /* end of the last whole message in the stream */
    char key[WS_KEY_TEXT + 1];
};

static void watch(struct ws_client *c)
{
    int events = c->frozen ? 0 : EV_READ | (c->out.len || c->state == CONNECTING ? EV_WRITE : 0);
    if ((c->io.events & (EV_READ | EV_WRITE)) == events && ev_is_active(&c->io) == (events != 0))
        return;
    ev_io_stop(c->cfg.loop, &c->io);
    if (!events)
        return;
    ev_io_set(&c->io, c->fd, events);
    ev_io_start(c->cfg.loop, &c->io);
}

static void destroy(struct ws_client *c)
{
    ev_io_stop(c->cfg.loop, &c->io);
    ev_timer_stop(c->cfg.loop, &c->timer);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (c->in_callback) { /* the stack above us still looks at it */
        c->freed = true;
        return;
    }
    buf_release(&c->out);
    buf_release(&c->in);
    ws_parser_release(&c->parser);
    free(c);
}

static enum reason reason_of(int sys_errno)
{
    switch (sys_errno) {
    case 0:
        return REASON_CLOSED_BY_PEER;
    case ECONNREFUSED:
        return REASON_REFUSED;
    case ETIMEDOUT:
        return REASON_TIMED_OUT;
    default:
        return REASON_RESET;
    }
}

/* The connection is over by itself: tell the owner, free. */
static void end(struct ws_client *c, int code, enum reason reason, int sys_errno)
{
    void (*tell)(void *, int, enum reason, int) = c->cfg.ops->close;
    void *arg = c->cfg.arg;
    destroy(c);
    tell(arg, code, reason, sys_errno);
}

static int new_socket(const struct ws_client_config *c, struct err_ctx *ctx)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(ctx, "socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->source_ip) {
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(c->source_ip)};
        setsockopt(fd, IPPROTO_IP, IP_NO_PORT_YET, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from)) {
            int rc = err_errno(ctx, "bind");
            close(fd);
            return rc;
        }
    }
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(c->server_port), .sin_addr.s_addr = htonl(c->server_ip)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        int rc = err_errno(ctx, "connect");
        close(fd);
        return rc;
    }
    return fd;
}

/* Give the kernel what it takes. False: the connection broke and is gone. */
static bool flush(struct ws_client *c)
{
    while (c->out.len && c->state != CONNECTING && !c->frozen) {
        ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            end(c, 0, reason_of(errno), errno);
            return false;
        }
        buf_consume(&c->out, (size_t)n);
    }
    if (!c->out.cap || c->out.len)
        return true;
    if (c->out.cap > 4096)
        buf_release(&c->out); /* idle connections keep no buffer */
    return true;
}

static void frame(struct ws_client *c, enum ws_opcode op, const void *p, size_t n)
{
    uint64_t r = rng_u64(c->cfg.rng);
    uint8_t mask[4];
    memcpy(mask, &r, 4);
    size_t before = c->out.len;
    ws_frame(&c->out, op, p, n, mask);
    c->written += c->out.len - before;
}

static void start_upgrade(struct ws_client *c)
{
    char host[32];
    uint64_t random[2] = {rng_u64(c->cfg.rng), rng_u64(c->cfg.rng)};
    uint32_t ip = c->cfg.server_ip;
    snprintf(host, sizeof host, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255,
             c->cfg.server_port);
    ws_key(c->key, (const uint8_t *)random);
    ws_upgrade_request(&c->out, host, c->cfg.path, c->key, c->cfg.subprotocol, NULL);
    c->written = c->out.len;
    c->state = UPGRADING;
}

/* One whole message or control frame. False: the client is gone. */
static bool on_message(struct ws_client *c, const struct ws_message *m)
{
    switch (m->opcode) {
    case WS_TEXT:
        c->read_end = c->upgrade_read + m->end;
        if (c->state == OPEN) {
            c->in_callback = true;
            c->cfg.ops->frame(c->cfg.arg, m->p, m->n);
            c->in_callback = false;
            if (c->freed) {
                destroy(c);
                return false;
            }
        }
        return true;
    case WS_PING:
        frame(c, WS_PONG, m->p, m->n);
        return true;
    case WS_CLOSE:
        if (!c->close_sent) {
            uint8_t payload[WS_CONTROL_MAX];
            int code = m->close_code == WS_CLOSE_NONE ? WS_CLOSE_NORMAL : m->close_code;
            frame(c, WS_CLOSE, payload, ws_close_payload(payload, code, ""));
            if (!flush(c))
                return false;
        }
        end(c, m->close_code == WS_CLOSE_NONE ? 0 : m->close_code,
            c->state == CLOSING ? REASON_CLOSED_BY_US : REASON_CLOSED_BY_PEER, 0);
        return false;
    default:
        return true;
    }
}

/* False: gone. */
static bool on_bytes(struct ws_client *c, char *p, size_t n)
{
    struct ws_message m;
    int rc;
    while ((rc = ws_parser_next(&c->parser, &p, &n, &m, NULL)) == 1)
        if (!on_message(c, &m))
            return false;
    if (rc == 0)
        return true;
    uint8_t payload[WS_CONTROL_MAX];
    frame(c, WS_CLOSE, payload, ws_close_payload(payload, c->parser.close_code, ""));
    if (flush(c))
        end(c, 0, REASON_PROTOCOL, 0);
    return false;
}

static bool on_upgrade_bytes(struct ws_client *c, char *p, size_t n)
{
    int status = 0;
    buf_add(&c->in, p, n);
    int used = ws_upgrade_check(c->in.data, c->in.len, c->key, c->cfg.subprotocol, &status, NULL);
    if (used == 0 && !c->in.failed)
        return true;
    if (used <= 0) {
        end(c, 0, status ? REASON_REFUSED : REASON_PROTOCOL, 0);
        return false;
    }
    struct buf rest = c->in;
    c->in = (struct buf){.max = rest.max};
    c->upgrade_read = c->read_end = (uint64_t)used;
    c->state = OPEN;
    ev_timer_stop(c->cfg.loop, &c->timer);
    c->in_callback = true;
    c->cfg.ops->open(c->cfg.arg);
    c->in_callback = false;
    bool alive = !c->freed;
    if (!alive)
        destroy(c);
    else if (rest.len > (size_t)used)
        alive = on_bytes(c, rest.data + used, rest.len - (size_t)used);
    buf_release(&rest);
    return alive;
}

/* False: gone. */
static bool read_some(struct ws_client *c)
{
    static __thread char shared[READ_BYTES]; /* a loop's connections take turns */
    while (!c->frozen) {
        ssize_t n = recv(c->fd, shared, sizeof shared, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0) {
            end(c, 0,
                n                     ? reason_of(errno)
                : c->state == CLOSING ? REASON_CLOSED_BY_US
                                      : REASON_CLOSED_BY_PEER,
                n ? errno : 0);
            return false;
        }
        if (!(c->state == UPGRADING ? on_upgrade_bytes(c, shared, (size_t)n)
                                    : on_bytes(c, shared, (size_t)n)))
            return false;
        if ((size_t)n < sizeof shared)
            return true;
    }
    return true;
}

static void on_io(struct ev_loop *loop, ev_io *w, int events)
{
    struct ws_client *c = w->data;
    (void)loop;
    if (c->state == CONNECTING && events & EV_WRITE) {
        int e = 0;
        socklen_t n = sizeof e;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &n);
        if (e) {
            end(c, 0, reason_of(e), e);
            return;
        }
        start_upgrade(c);
    }
    if (events & EV_READ && c->state != CONNECTING && !read_some(c))
        return;
    if (flush(c))
        watch(c);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int events)
{
    struct ws_client *c = w->data;
    (void)loop;
    (void)events;
    end(c, 0, c->state == CLOSING ? REASON_CLOSED_BY_US : REASON_TIMED_OUT, ETIMEDOUT);
}

int ws_client_new(struct ws_client **out, const struct ws_client_config *cfg, struct err_ctx *ctx)
{
    struct ws_client *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(ctx, ERR_NOMEM, "no memory for a connection");
    c->cfg = *cfg;
    c->fd = new_socket(cfg, ctx);
    if (c->fd < 0) {
        int rc = c->fd;
        free(c);
        return rc;
    }
    buf_init(&c->out, (size_t)cfg->queue_bytes_max + WS_UPGRADE_MAX);
    buf_init(&c->in, WS_UPGRADE_MAX + READ_BYTES);
    ws_parser_init(&c->parser, WS_FROM_SERVER, cfg->frame_max);
    ev_io_init(&c->io, on_io, c->fd, EV_WRITE);
    ev_timer_init(&c->timer, on_timer, (double)cfg->connect_timeout_ns / (double)NS_PER_S, 0);
    c->io.data = c->timer.data = c;
    ev_io_start(cfg->loop, &c->io);
    ev_timer_start(cfg->loop, &c->timer);
    *out = c;
    return 0;
}

int ws_client_send(struct ws_client *c, const char *p, size_t n, uint64_t *end_offset)
{
    if (c->state != OPEN)
        return ERR_UNAVAILABLE;
    if (c->out.len + n + WS_HEADER_MAX > c->cfg.queue_bytes_max)
        return ERR_LIMIT;
    frame(c, WS_TEXT, p, n);
    if (c->out.failed) {
        c->out.failed = false;
        return ERR_NOMEM;
    }
    if (end_offset)
        *end_offset = c->written;
    if (c->in_callback || c->out.len > READ_BYTES) {
        watch(c); /* the loop writes, so that an error never ends us under the caller */
        return 0;
    }
    ssize_t took = c->frozen ? 0 : send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
    if (took > 0)
        buf_consume(&c->out, (size_t)took);
    watch(c);
    return 0;
}

void ws_client_close(struct ws_client *c, int code)
{
    uint8_t payload[WS_CONTROL_MAX];
    if (c->state == OPEN && !c->close_sent) {
        frame(c, WS_CLOSE, payload, ws_close_payload(payload, code, ""));
        c->close_sent = true;
    }
    c->state = CLOSING;
    ev_timer_stop(c->cfg.loop, &c->timer);
    ev_timer_set(&c->timer, CLOSE_TIMEOUT_S, 0);
    ev_timer_start(c->cfg.loop, &c->timer);
    watch(c);
}

void ws_client_free(struct ws_client *c)
{
    if (c)
        destroy(c);
}

int ws_client_vanish(struct ws_client *c)
{
    int on = 1, rc = 0;
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on))
        rc = ERR_PERM;
    destroy(c);
    return rc;
}

int ws_client_cut_mid_frame(struct ws_client *c, const char *p, size_t n, size_t bytes, uint64_t *end_offset)
{
    struct linger now = {1, 0};
    int rc = 0;
    if (c->state != OPEN)
        rc = ERR_UNAVAILABLE;
    if (!rc) {
        size_t before = c->out.len;
        frame(c, WS_TEXT, p, n);
        if (c->out.len > before + bytes) {
            c->written -= c->out.len - before - bytes;
            c->out.len = before + bytes;
        }
        if (end_offset)
            *end_offset = c->written;
        if (!c->frozen && send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL) < 0)
            rc = ERR_IO;
    }
    /* RST right away would throw away what is still in our own send buffer on a lossy link: that is what a
     * killed process does too, so it is meant */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    destroy(c);
    return rc;
}

void ws_client_freeze(struct ws_client *c, bool frozen)
{
    c->frozen = frozen;
    watch(c);
}

bool ws_client_is_open(const struct ws_client *c)
{
    return c && c->state == OPEN;
}

uint64_t ws_client_written(const struct ws_client *c)
{
    return c->written;
}

uint64_t ws_client_read(const struct ws_client *c)
{
    return c->read_end;
}

uint64_t ws_client_acked(const struct ws_client *c)
{
    int queued = 0;
    if (c->fd < 0 || ioctl(c->fd, SIOCOUTQ, &queued))
        return 0;
    uint64_t kernel_took = c->written - c->out.len;
    return kernel_took > (uint64_t)queued ? kernel_took - (uint64_t)queued : 0;
}

void ws_client_flow(const struct ws_client *c, struct trace_flow *flow)
{
    struct sockaddr_in a = {0};
    socklen_t n = sizeof a;
    *flow = (struct trace_flow){.dst = c->cfg.server_ip, .dport = c->cfg.server_port};
    if (c->fd >= 0 && !getsockname(c->fd, (struct sockaddr *)&a, &n)) {
        flow->src = ntohl(a.sin_addr.s_addr);
        flow->sport = ntohs(a.sin_port);
    }
}

#include "transport/ws_client_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* --- the end ----------------------------------------------------------------------------------------- */

/* What the kernel was given, less what it still holds unacknowledged. */
static uint64_t acked_now(const struct ws_client *c)
{
    int unacked = 0;
    uint64_t given = c->written - (c->queue.len - c->queue_at);
    if (c->state == CLIENT_CONNECTING)
        return 0;
    if (ioctl(c->fd, SIOCOUTQ, &unacked) || unacked < 0)
        return 0;
    return (uint64_t)unacked > given ? 0 : given - (uint64_t)unacked;
}

void client_end(struct ws_client *c)
{
    if (c->state == CLIENT_DEAD)
        return;
    c->acked_at_end = acked_now(c);
    c->state = CLIENT_DEAD;
    ev_io_stop(c->loop, &c->io);
    ev_timer_stop(c->loop, &c->timer);
    ev_clear_pending(c->loop, &c->io);
    ev_clear_pending(c->loop, &c->timer);
    close(c->fd);
    c->fd = -1;
    if (c->handshake)
        buf_release(&c->handshake->answer);
    free(c->handshake);
    c->handshake = NULL;
    c->queue_at = 0;
    buf_release(&c->queue);
    buf_release(&c->later);
}

void client_finish(struct ws_client *c, int code, enum reason reason, int sys_errno)
{
    BUG_ON(!c->busy);
    client_end(c);
    c->ops->close(c->arg, code, reason, sys_errno);
    c->freed = true;
}

void client_leave(struct ws_client *c)
{
    c->busy = false;
    if (!c->freed)
        return;
    ws_parser_release(&c->parser);
    free(c);
}

void ws_client_free(struct ws_client *c)
{
    if (!c)
        return;
    client_end(c);
    c->freed = true;
    if (!c->busy) /* else its handler frees it */
        client_leave(c);
}

int ws_client_vanish(struct ws_client *c)
{
    int on = 1, rc = 0;
    /* Closing a socket under repair sends nothing (tcp(7) does not say; net/ipv4/tcp.c, tcp_close) */
    if (c->state != CLIENT_DEAD && setsockopt(c->fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on))
        rc = errno == EPERM ? ERR_PERM : ERR_IO;
    ws_client_free(c);
    return rc;
}

int ws_client_cut_mid_frame(struct ws_client *c, const char *p, size_t n, size_t bytes, uint64_t *end_offset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    int rc = c->state == CLIENT_OPEN ? 0 : ERR_UNAVAILABLE;
    if (!rc) {
        struct buf frame = BUF_INIT(n + WS_HEADER_MAX);
        uint64_t random = rng_u64(c->rng);
        uint8_t mask[4];
        memcpy(mask, &random, sizeof mask);
        ws_frame(&frame, c->binary ? WS_BINARY : WS_TEXT, p, n, mask);
        size_t take = bytes < frame.len ? bytes : frame.len;
        buf_add(&c->queue, frame.data, take);
        if (frame.failed || c->queue.failed)
            rc = ERR_NOMEM;
        else
            c->written += take;
        buf_release(&frame);
        if (!c->frozen)
            client_flush(c);
    }
    if (end_offset)
        *end_offset = c->written - (c->queue.len - c->queue_at);
    if (c->state != CLIENT_DEAD)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ws_client_free(c);
    return rc;
}

void client_timer(struct ws_client *c, double seconds)
{
    ev_timer_stop(c->loop, &c->timer);
    ev_now_update(c->loop); /* the loop's idea of now may be old */
    ev_timer_set(&c->timer, seconds, 0);
    ev_timer_start(c->loop, &c->timer);
    c->timeout_s = seconds;
}

void client_on_timer(struct ev_loop *loop, ev_timer *w, int events)
{
    struct ws_client *c = w->data;
    (void)loop;
    (void)events;
    c->busy = true;
    if (c->state == CLIENT_CLOSING) /* closed before it was open, or the peer's FIN does not come */
        client_finish(c, c->close_code, c->closed_by_us ? REASON_CLOSED_BY_US : REASON_CLOSED_BY_PEER, 0);
    else if (c->state != CLIENT_DEAD)
        client_finish(c, 0, REASON_TIMED_OUT, ETIMEDOUT);
    client_leave(c);
}

/* --- the beginning ----------------------------------------------------------------------------------- */

static int open_socket(struct ws_client *c, const struct ws_client_config *conf, struct err_ctx *ctx)
{
    int on = 1;
    struct sockaddr_in us = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(conf->source_ip)};
    struct sockaddr_in peer = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(conf->server_ip),
                               .sin_port = htons(conf->server_port)};
    char text[INET_ADDRSTRLEN];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return err_errno(ctx, "socket");
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        return err_errno(ctx, "TCP_NODELAY");
    if (conf->source_ip) {
        /* the port is chosen at connect, per (address, destination): more than 64 Ki connections from one
         * host */
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&us, sizeof us))
            return err_errno(ctx, "bind to %s", inet_ntop(AF_INET, &us.sin_addr, text, sizeof text));
    }
    if (connect(c->fd, (struct sockaddr *)&peer, sizeof peer) && errno != EINPROGRESS)
        return err_errno(ctx, "connect to %s:%u", inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text),
                         (unsigned)conf->server_port);
    return 0;
}

static int queue_request(struct ws_client *c, const struct ws_client_config *conf, struct err_ctx *ctx)
{
    struct client_handshake *h = calloc(1, sizeof *h);
    uint64_t random[2] = {rng_u64(c->rng), rng_u64(c->rng)};
    char host[32], ip[INET_ADDRSTRLEN];
    struct in_addr a = {htonl(conf->server_ip)};
    c->handshake = h;
    if (!h)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    if (conf->subprotocol && strlen(conf->subprotocol) >= sizeof h->subprotocol)
        return err_set(ctx, ERR_INVALID, "subprotocol '%s' is too long", conf->subprotocol);
    buf_init(&h->answer, WS_UPGRADE_MAX + CLIENT_PIECE);
    snprintf(h->subprotocol, sizeof h->subprotocol, "%s", conf->subprotocol ? conf->subprotocol : "");
    ws_key(h->key, (const uint8_t *)random);
    snprintf(host, sizeof host, "%s:%u", inet_ntop(AF_INET, &a, ip, sizeof ip), (unsigned)conf->server_port);
    ws_upgrade_request(&c->queue, host, conf->path, h->key, conf->subprotocol, NULL);
    if (c->queue.failed)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    c->written = c->queue.len;
    return 0;
}

int ws_client_new(struct ws_client **out, const struct ws_client_config *conf, struct err_ctx *ctx)
{
    struct ws_client *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    *c = (struct ws_client){.loop = conf->loop,
                            .ops = conf->ops,
                            .arg = conf->arg,
                            .rng = conf->rng,
                            .fd = -1,
                            .binary = conf->binary,
                            .queue_bytes_max = conf->queue_bytes_max,
                            .flow = {.dst = conf->server_ip, .dport = conf->server_port}};
    buf_init(&c->queue, SIZE_MAX / 2); /* its limit is kept by ws_client_send */
    buf_init(&c->later, WS_UPGRADE_MAX + 2 * CLIENT_PIECE);
    ws_parser_init(&c->parser, WS_FROM_SERVER, conf->frame_max);
    int rc = open_socket(c, conf, ctx);
    if (!rc)
        rc = queue_request(c, conf, ctx);
    if (rc) {
        if (c->fd >= 0)
            close(c->fd);
        free(c->handshake);
        buf_release(&c->queue);
        free(c);
        return rc;
    }
    ev_io_init(&c->io, client_on_io, c->fd, 0);
    ev_timer_init(&c->timer, client_on_timer, 0, 0);
    c->io.data = c->timer.data = c;
    client_watch(c);
    client_timer(c, conf->connect_timeout_ns ? (double)conf->connect_timeout_ns / 1e9 : 10);
    *out = c;
    return 0;
}

/* --- in between -------------------------------------------------------------------------------------- */

int ws_client_send(struct ws_client *c, const char *p, size_t n, uint64_t *end_offset)
{
    if (c->state != CLIENT_OPEN)
        return ERR_UNAVAILABLE;
    size_t queued = c->queue.len - c->queue_at;
    if (queued && queued + n + WS_HEADER_MAX > c->queue_bytes_max)
        return ERR_LIMIT;
    int rc = client_put(c, c->binary ? WS_BINARY : WS_TEXT, p, n);
    if (!rc && end_offset)
        *end_offset = c->written;
    return rc;
}

void ws_client_close(struct ws_client *c, int code)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    bool open = c->state == CLIENT_OPEN;
    if (open)
        client_put_close(c, code);
    c->closed_by_us = true;
    c->state = CLIENT_CLOSING;
    client_timer(c, open ? CLIENT_CLOSE_WAIT_S : 0);
    client_watch(c);
}

void ws_client_freeze(struct ws_client *c, bool frozen)
{
    if (c->state == CLIENT_DEAD || c->frozen == frozen)
        return;
    c->frozen = frozen;
    if (frozen) {
        ev_timer_stop(c->loop, &c->timer);
    } else {
        if (c->state != CLIENT_OPEN)
            client_timer(c, c->timeout_s);
        if (c->later.len)
            ev_feed_event(c->loop, &c->io, EV_CUSTOM);
    }
    client_watch(c);
}

bool ws_client_is_open(const struct ws_client *c)
{
    return c && c->state == CLIENT_OPEN;
}

uint64_t ws_client_written(const struct ws_client *c)
{
    return c->written;
}

size_t ws_client_queued(const struct ws_client *c)
{
    return c->queue.len - c->queue_at;
}

uint64_t ws_client_read(const struct ws_client *c)
{
    return c->read_end;
}

uint64_t ws_client_acked(const struct ws_client *c)
{
    return c->state == CLIENT_DEAD ? c->acked_at_end : acked_now(c);
}

void ws_client_flow(const struct ws_client *c, struct trace_flow *flow)
{
    *flow = c->flow;
}

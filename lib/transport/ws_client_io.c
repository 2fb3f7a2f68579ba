#include "transport/ws_client_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One of each per thread: pieces are taken apart, and frames are made, before the next connection's turn. */
static _Thread_local char rx[CLIENT_PIECE];
static _Thread_local char tx[CLIENT_PIECE];

static enum reason reason_of(int e)
{
    switch (e) {
    case ECONNREFUSED:
        return REASON_REFUSED;
    case ETIMEDOUT:
        return REASON_TIMED_OUT;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
        return REASON_NO_ROUTE;
    default:
        return REASON_RESET;
    }
}

/* Closed before it was open: only the timer ends it. */
static bool given_up(const struct ws_client *c)
{
    return c->state == CLIENT_CLOSING && c->handshake;
}

/* Who ended it, when the stream has ended with `e` (0: FIN). */
static void finish_stream(struct ws_client *c, int e)
{
    enum reason reason = c->closed_by_us           ? REASON_CLOSED_BY_US
                         : c->close_seen || e == 0 ? REASON_CLOSED_BY_PEER
                                                   : reason_of(e);
    client_finish(c, c->close_code, reason, e);
}

void client_watch(struct ws_client *c)
{
    int want = 0;
    if (c->state == CLIENT_DEAD)
        return;
    if (!c->frozen && !given_up(c)) {
        want = c->state == CLIENT_CONNECTING ? EV_WRITE : EV_READ;
        if (c->queue.len > c->queue_at)
            want |= EV_WRITE;
    }
    if (want == c->events)
        return;
    ev_io_stop(c->loop, &c->io);
    c->events = want;
    if (want) {
        ev_io_set(&c->io, c->fd, want);
        ev_io_start(c->loop, &c->io);
    }
}

/* --- out --------------------------------------------------------------------------------------------- */

/* Bytes that the kernel took. */
static size_t push(struct ws_client *c, const char *p, size_t n)
{
    size_t done = 0;
    while (done < n && !c->send_errno) {
        ssize_t k = send(c->fd, p + done, n - done, MSG_NOSIGNAL);
        if (k >= 0)
            done += (size_t)k;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        else if (errno != EINTR)
            c->send_errno = errno;
    }
    if (c->send_errno)
        ev_feed_event(c->loop, &c->io, EV_WRITE); /* told by the loop, not from inside a call */
    return done;
}

void client_flush(struct ws_client *c)
{
    if (c->queue.len == c->queue_at)
        return;
    c->queue_at += push(c, c->queue.data + c->queue_at, c->queue.len - c->queue_at);
    if (c->queue_at == c->queue.len) {
        buf_release(&c->queue);
        c->queue_at = 0;
    }
}

static bool writable_now(const struct ws_client *c)
{
    return c->queue.len == c->queue_at && !c->frozen && c->state != CLIENT_CONNECTING;
}

int client_put(struct ws_client *c, enum ws_opcode opcode, const void *p, size_t n)
{
    uint64_t random = rng_u64(c->rng);
    uint8_t mask[4];
    memcpy(mask, &random, sizeof mask);
    size_t at = c->queue.len;
    if (n + WS_HEADER_MAX < CLIENT_PIECE && writable_now(c)) {
        struct buf frame = {.data = tx, .cap = sizeof tx, .max = sizeof tx - 1}; /* never grows */
        ws_frame(&frame, opcode, p, n, mask);
        size_t done = push(c, frame.data, frame.len);
        if (done < frame.len)
            buf_add(&c->queue, frame.data + done, frame.len - done);
        if (c->queue.failed) { /* half a frame is out: the stream cannot go on */
            c->queue.failed = false;
            c->send_errno = ENOMEM;
            ev_feed_event(c->loop, &c->io, EV_WRITE);
        }
        c->written += frame.len;
    } else {
        ws_frame(&c->queue, opcode, p, n, mask);
        if (c->queue.failed) {
            c->queue.failed = false;
            return ERR_NOMEM;
        }
        c->written += c->queue.len - at;
        if (!c->frozen && c->state != CLIENT_CONNECTING && !at)
            client_flush(c);
    }
    client_watch(c);
    return 0;
}

void client_put_close(struct ws_client *c, int code)
{
    uint8_t payload[WS_CONTROL_MAX];
    if (c->close_sent)
        return;
    c->close_sent = true;
    bool bare = code == WS_CLOSE_NONE;
    client_put(c, WS_CLOSE, payload, bare ? 0 : ws_close_payload(payload, code, NULL));
}

/* --- in ---------------------------------------------------------------------------------------------- */

static void take_close(struct ws_client *c, const struct ws_message *m)
{
    c->close_seen = true;
    c->close_code = m->close_code == WS_CLOSE_NONE ? 0 : m->close_code;
    client_put_close(c, m->close_code);
    if (c->state == CLIENT_OPEN) {
        c->state = CLIENT_CLOSING;
        client_timer(c, CLIENT_CLOSE_WAIT_S);
    }
}

static void take_message(struct ws_client *c, const struct ws_message *m)
{
    switch (m->opcode) {
    case WS_TEXT:
    case WS_BINARY:
        c->read_end = c->head + m->end;
        if (c->state == CLIENT_OPEN)
            c->ops->frame(c->arg, m->p, m->n);
        break;
    case WS_PING: /* a peer that floods us with pings and reads no answer: the rest goes unanswered */
        if (c->queue.len - c->queue_at <= c->queue_bytes_max)
            client_put(c, WS_PONG, m->p, m->n);
        break;
    case WS_CLOSE:
        take_close(c, m);
        break;
    default:
        break;
    }
}

/* Hot path: a piece of the server's stream after the handshake. */
static void feed(struct ws_client *c, char *p, size_t n)
{
    struct ws_message m;
    while (c->state != CLIENT_DEAD && !c->frozen) {
        int rc = ws_parser_next(&c->parser, &p, &n, &m, NULL);
        if (rc == 0)
            return;
        if (rc < 0) {
            client_put_close(c, c->parser.close_code);
            client_finish(c, 0, REASON_PROTOCOL, 0);
            return;
        }
        take_message(c, &m);
    }
    if (c->state != CLIENT_DEAD && n)
        buf_add(&c->later, p, n); /* frozen by a callback */
}

static void take_answer(struct ws_client *c, const char *p, size_t n)
{
    struct client_handshake *h = c->handshake;
    int status = 0;
    buf_add(&h->answer, p, n);
    int head = h->answer.failed ? ERR_LIMIT
                                : ws_upgrade_check(h->answer.data, h->answer.len, h->key,
                                                   h->subprotocol[0] ? h->subprotocol : NULL, &status, NULL);
    if (head < 0)
        client_finish(c, 0, head == ERR_UNAVAILABLE ? REASON_REFUSED : REASON_PROTOCOL, 0);
    if (head <= 0)
        return;
    struct buf answer = h->answer;
    free(h);
    c->handshake = NULL;
    c->head = c->read_end = (uint64_t)head;
    c->state = CLIENT_OPEN;
    ev_timer_stop(c->loop, &c->timer);
    c->ops->open(c->arg);
    feed(c, answer.data + head, answer.len - (size_t)head);
    buf_release(&answer);
}

static void read_once(struct ws_client *c)
{
    ssize_t n = recv(c->fd, rx, sizeof rx, 0);
    if (n == 0)
        finish_stream(c, 0);
    else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        finish_stream(c, errno);
    else if (n > 0 && c->state == CLIENT_UPGRADING)
        take_answer(c, rx, (size_t)n);
    else if (n > 0)
        feed(c, rx, (size_t)n);
}

static void take_later(struct ws_client *c)
{
    struct buf later = c->later;
    buf_init(&c->later, later.max);
    feed(c, later.data, later.len);
    buf_release(&later);
}

/* TCP is up, or not. */
static void take_connected(struct ws_client *c)
{
    int e = 0;
    socklen_t n = sizeof e;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &n))
        e = errno;
    if (e) {
        client_finish(c, 0, reason_of(e), e);
        return;
    }
    struct sockaddr_storage us;
    n = sizeof us;
    if (getsockname(c->fd, (struct sockaddr *)&us, &n) == 0 && us.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&us;
        c->flow.src = ntohl(in->sin_addr.s_addr);
        c->flow.sport = ntohs(in->sin_port);
    }
    c->state = CLIENT_UPGRADING;
}

static bool can_go_on(const struct ws_client *c)
{
    return c->state > CLIENT_CONNECTING && c->state != CLIENT_DEAD && !c->frozen && !given_up(c);
}

void client_on_io(struct ev_loop *loop, ev_io *w, int events)
{
    struct ws_client *c = w->data;
    (void)loop;
    c->busy = true;
    if (c->state == CLIENT_CONNECTING && !c->frozen && events & EV_WRITE)
        take_connected(c);
    if (can_go_on(c) && c->later.len)
        take_later(c);
    if (can_go_on(c) && events & EV_READ)
        read_once(c);
    if (can_go_on(c) && events & EV_WRITE)
        client_flush(c);
    if (can_go_on(c) && c->send_errno)
        finish_stream(c, c->send_errno);
    client_watch(c);
    client_leave(c);
}

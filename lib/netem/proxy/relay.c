/* One connection between its two sockets. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/proxy/driver_impl.h"
#include "util/clock.h"

#define LINGER_NS                                                                                            \
    (2 * NS_PER_S) /* how long the rest of a cut connection is read, so that what was sent arrives */

void relay_end(struct proxy *p, struct conn *c, bool reset)
{
    if (c->dead)
        return;
    c->dead = true;
    for (int s = 0; s < 2; s++) {
        if (reset)
            reset_fd(&c->end[s].fd);
        else if (c->end[s].fd >= 0)
            close(c->end[s].fd);
        c->end[s].fd = -1;
    }
    p->counts.resets += reset;
    p->counts.silent -= c->silent;
    p->counts.open--;
    p->full_told = false;
    heap_set(&p->heap, c, UINT64_MAX);
    if (c->prev)
        c->prev->next = c->next;
    else
        p->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->next = p->dead;
    p->dead = c;
}

static bool again(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Nothing can be written to this side any more. What it said before is still read and passed on; a reset
 * follows. */
static void break_off(struct endpoint *e)
{
    e->broken = e->can_read = e->hung_up = true;
}

/* send(), except that a side that broke off takes everything. */
static size_t write_to(struct endpoint *to, const char *p, size_t n)
{
    if (to->broken)
        return n;
    ssize_t w = send(to->fd, p, n, MSG_NOSIGNAL);
    if (w < 0 && !again()) {
        break_off(to);
        return n;
    }
    to->can_write = w == (ssize_t)n;
    return w > 0 ? (size_t)w : 0;
}

/* Write what may be written now. False: nothing moved. */
static bool write_out(struct conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct endpoint *to = &c->end[!d];
    bool moved = false;
    const char *p;
    size_t n;
    while (to->can_write && (n = proxy_conn_ready(c->core, d, now_ns, &p))) {
        n = write_to(to, p, n);
        if (!n)
            break;
        proxy_conn_took(c->core, d, now_ns, n);
        moved = true;
    }
    return moved;
}

/* Nothing needs these bytes: straight through; what the other side does not take waits in the core. */
static void pass_straight(struct conn *c, enum netem_dir d, uint64_t now_ns, const char *p, size_t n)
{
    size_t w = write_to(&c->end[!d], p, n);
    proxy_conn_passed(c->core, d, w);
    if (w < n)
        proxy_conn_put(c->core, d, now_ns, p + w, n - w);
}

static bool read_in(struct proxy *p, struct conn *c, enum netem_dir d, uint64_t now_ns)
{
    struct endpoint *from = &c->end[d];
    bool idle = proxy_conn_idle(c->core, d, now_ns);
    size_t room = idle ? PIECE : proxy_conn_room(c->core, d);
    if (!from->can_read || from->eof || !room || (idle && !c->end[!d].can_write))
        return false;
    room = room < PIECE ? room : PIECE;
    ssize_t n = recv(from->fd, p->piece, room, 0);
    if (n < 0 && again() && !from->broken) {
        from->can_read = false;
        return false;
    }
    if (n <= 0) {
        from->eof = true;
        from->broken |= n < 0;
        if (!from->broken) /* else tell_resets() */
            proxy_conn_put_fin(c->core, d, now_ns);
        return true;
    }
    p->counts.bytes[d] += (uint64_t)n;
    from->can_read = (size_t)n == room || from->hung_up; /* edge-triggered: more makes an event */
    if (idle)
        pass_straight(c, d, now_ns, p->piece, (size_t)n);
    else
        proxy_conn_put(c->core, d, now_ns, p->piece, (size_t)n);
    return true;
}

/* A side that broke off, when all that it said has been read. */
static void tell_resets(struct conn *c, uint64_t now_ns)
{
    for (int s = 0; s < 2; s++) {
        struct endpoint *e = &c->end[s];
        if (e->broken && e->eof && !e->told)
            proxy_conn_put_reset(c->core, (enum netem_dir)s, now_ns);
        e->told |= e->broken && e->eof;
    }
}

/* A cut connection: FIN both ways, then read into nothing until both sides are gone or have had their time.
 */
static void drain(struct proxy *p, struct conn *c)
{
    for (int s = 0; s < 2; s++) {
        struct endpoint *e = &c->end[s];
        while (e->can_read && !e->eof) {
            ssize_t n = recv(e->fd, p->piece, PIECE, 0);
            e->can_read = n > 0;
            e->eof = n == 0 || (n < 0 && !again());
        }
    }
    if (c->end[0].eof && c->end[1].eof)
        relay_end(p, c, false);
}

/* Leave the silent sides alone, with everything they still send; nobody watches them any more. */
static void go_silent(struct proxy *p, struct conn *c)
{
    unsigned sides = proxy_conn_silent(c->core);
    for (int s = 0; s < 2; s++) {
        if (sides >> s & 1)
            epoll_ctl(p->epoll, EPOLL_CTL_DEL, c->end[s].fd, NULL);
        else
            reset_fd(&c->end[s].fd);
    }
    c->silent = true;
    p->counts.silent++;
    heap_set(&p->heap, c, proxy_conn_wake(c->core, clock_mono_ns()));
}

static void come_to_end(struct proxy *p, struct conn *c, enum proxy_end end, uint64_t now_ns)
{
    switch (end) {
    case PROXY_GOES_ON:
        break;
    case PROXY_ENDS_CLOSE:
        c->closing = true;
        for (int s = 0; s < 2; s++)
            shutdown(c->end[s].fd, SHUT_WR);
        heap_set(&p->heap, c, now_ns + LINGER_NS);
        drain(p, c);
        break;
    case PROXY_ENDS_RESET:
        relay_end(p, c, true);
        break;
    case PROXY_ENDS_SILENT:
        if (!c->silent)
            go_silent(p, c);
        break;
    }
}

static void one_more_turn(struct proxy *p, struct conn *c)
{
    if (c->in_turn)
        return;
    c->in_turn = true;
    c->turn = p->turns;
    p->turns = c;
}

void relay_run(struct proxy *p, struct conn *c, uint64_t now_ns)
{
    bool moved = true;
    if (c->dead)
        return;
    if (c->closing) {
        if (now_ns >= c->wake_ns)
            relay_end(p, c, false);
        else
            drain(p, c);
        return;
    }
    if (c->connecting && now_ns >= c->wake_ns) { /* this address does not answer */
        c->trying = c->trying->ai_next;
        heap_set(&p->heap, c, now_ns + 10 * NS_PER_S);
        dial_server(p, c);
        return;
    }
    if (c->connecting)
        return;
    proxy_conn_tick(c->core, now_ns);
    uint64_t before = p->counts.bytes[0] + p->counts.bytes[1];
    while (moved && proxy_conn_verdict(c->core, now_ns) == PROXY_GOES_ON) {
        moved = false;
        for (int d = 0; d < 2; d++) {
            moved |= write_out(c, (enum netem_dir)d, now_ns);
            moved |= read_in(p, c, (enum netem_dir)d, now_ns);
        }
        if (moved && p->counts.bytes[0] + p->counts.bytes[1] - before > TURN) {
            one_more_turn(p, c);
            break;
        }
    }
    tell_resets(c, now_ns);
    for (int d = 0; d < 2; d++) {
        if (proxy_conn_fin(c->core, (enum netem_dir)d, now_ns)) {
            shutdown(c->end[!d].fd, SHUT_WR);
            c->fins++;
        }
    }
    enum proxy_end end = proxy_conn_verdict(c->core, now_ns);
    if (end)
        come_to_end(p, c, end, now_ns);
    else if (c->fins == 2)
        relay_end(p, c, false);
    else
        heap_set(&p->heap, c, proxy_conn_wake(c->core, now_ns));
}

void relay_event(struct proxy *p, struct endpoint *e, uint32_t events)
{
    struct conn *c = (struct conn *)(e->side ? e - 1 : e); /* `end` stands first in it */
    if (c->dead)
        return;
    e->can_read |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    e->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    e->can_write |= (events & (EPOLLOUT | EPOLLERR)) != 0;
    e->broken |= (events & EPOLLERR) && e->eof; /* a reset behind its FIN: reading would not tell */
    if (c->connecting &&
        (e->side != SERVER || !(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) || !dial_done(p, c)))
        return;
    relay_run(p, c, clock_mono_ns());
}

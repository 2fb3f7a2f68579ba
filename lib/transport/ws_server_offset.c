/* Exact positions in the TCP byte streams.
 *
 * Data frames are counted as they pass. Control frames (ping, pong, close) are answered inside lws and never
 * shown to us, and lws may leave us in doubt about a frame's header; so after each of its reads the kernel is
 * asked how much was taken (1 us), which also gives away that control frames were among it, and then the
 * kernel's count of what was sent is taken before the next frame of ours. All of it only where somebody wants
 * to know (not no_offsets). */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "transport/ws_server_impl.h"

uint32_t ws_header_bytes(uint64_t payload)
{
    return payload < 126 ? 2 : payload < 65536 ? 4 : 10;
}

static bool tcp_info(int fd, struct tcp_info *ti)
{
    socklen_t n = sizeof *ti;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &n) == 0 &&
           n >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof ti->tcpi_bytes_received;
}

/* Bytes taken from the socket by its reader, at least `known`. The kernel's count of received bytes includes
 * the peer's FIN. */
static bool bytes_taken(int fd, uint64_t *out, uint64_t known)
{
    struct tcp_info ti, again;
    int waiting;
    if (!tcp_info(fd, &ti))
        return false;
    if (ti.tcpi_bytes_received == known) { /* no more has come, so none is waiting */
        *out = known;
        return true;
    }
    for (int tries = 0; tries < 8; tries++) {
        if (ioctl(fd, SIOCINQ, &waiting) < 0)
            return false;
        if (waiting == 0)
            break; /* nothing can have come between the two questions */
        if (!tcp_info(fd, &again))
            return false;
        bool still = again.tcpi_bytes_received == ti.tcpi_bytes_received;
        ti = again;
        if (still)
            break;
    }
    bool fin = ti.tcpi_state == STATE_CLOSE_WAIT || ti.tcpi_state == STATE_LAST_ACK ||
               ti.tcpi_state == STATE_CLOSING || ti.tcpi_state == STATE_TIME_WAIT;
    *out = ti.tcpi_bytes_received - (uint64_t)waiting - fin;
    return true;
}

/* Bytes handed to the socket by its writer = acknowledged + still in the send queue. The server's SYN is not
 * counted by the kernel (RFC 4898 tcpEStatsAppHCThruOctetsAcked); its FIN would be, but we ask before that.
 */
static bool bytes_handed(int fd, uint64_t *out)
{
    struct tcp_info ti;
    int queued, again = -1;
    if (ioctl(fd, SIOCOUTQ, &queued) < 0)
        return false;
    for (int tries = 0; tries < 8 && queued != again; tries++) {
        if (again >= 0)
            queued = again;
        if (!tcp_info(fd, &ti) || ioctl(fd, SIOCOUTQ, &again) < 0)
            return false;
    }
    *out = ti.tcpi_bytes_acked + (uint64_t)again;
    return true;
}

/* Runs after lws's own watcher of the same socket (lower priority), so after each of its reads. */
static void after_read(struct ev_loop *loop, ev_io *w, int events)
{
    struct ws_conn *c = w->data;
    uint64_t taken;
    (void)loop;
    (void)events;
    if (!bytes_taken(c->fd, &taken, c->read_base + c->read_seen))
        return;
    if (taken - c->read_base != c->read_seen && (c->state == CONN_OPEN || c->state == CONN_CLOSING)) {
        c->recount = true;
        lws_callback_on_writable(c->wsi); /* comes after the pongs, if any */
    }
    c->read_base = taken;
    c->read_seen = 0;
}

void ws_offset_start(struct ws_conn *c)
{
    bytes_handed(c->fd, &c->written);
    bytes_taken(c->fd, &c->read_base, UINT64_MAX);
    c->read_end = c->read_base;
    c->opened_turn = ev_iteration(c->s->cfg.loop);
    if (c->s->cfg.no_offsets)
        return;
    ev_io_init(&c->after_read, after_read, c->fd, EV_READ);
    ev_set_priority(&c->after_read, -1);
    c->after_read.data = c;
    ev_io_start(c->s->cfg.loop, &c->after_read);
}

void ws_offset_stop(struct ws_conn *c)
{
    ev_io_stop(c->s->cfg.loop, &c->after_read);
}

/* lws hands out n bytes of a data frame at p. Where p lies in its read buffer tells the exact position; bytes
 * that came together with the handshake, and empty frames, live elsewhere and are counted by rule. */
void ws_offset_data(struct ws_conn *c, const char *p, size_t n)
{
    const unsigned char *at = (const unsigned char *)p, *buf = c->s->service_buf;
    uint32_t header = 0;
    if (c->s->cfg.no_offsets)
        return;
    if (c->frame_left == 0)
        header = ws_header_bytes(n + lws_remaining_packet_payload(c->wsi)) + 4;
    c->frame_left = (uint32_t)lws_remaining_packet_payload(c->wsi);
    c->read_seen += header + (uint32_t)n;
    if (n && ev_iteration(c->s->cfg.loop) != c->opened_turn && at >= buf && at < buf + WS_SERVICE_BYTES)
        c->read_end = c->read_base + (uint64_t)(at - buf) + n;
    else
        c->read_end += header + n;
}

void ws_offset_recount(struct ws_conn *c)
{
    uint64_t handed;
    if (!c->recount || c->blocked || !bytes_handed(c->fd, &handed))
        return;
    c->written = handed;
}

enum reason ws_offset_end(const struct ws_conn *c)
{
    struct tcp_info ti;
    if (!tcp_info(c->fd, &ti) || (!c->s->cfg.no_offsets && ti.tcpi_bytes_received > c->read_base) ||
        ti.tcpi_state != STATE_CLOSE)
        return REASON_CLOSED_BY_PEER; /* the FIN counts as a byte */
    return ti.tcpi_retransmits > 5 || ti.tcpi_probes > 5 ? REASON_TIMED_OUT : REASON_RESET;
}

uint64_t ws_written_offset(const struct ws_conn *c)
{
    return c->written;
}

uint64_t ws_read_offset(const struct ws_conn *c)
{
    return c->read_end;
}

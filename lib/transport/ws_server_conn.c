/* The life of one WebSocket connection. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/ws_server_impl.h"
#include "util/clock.h"

#define CLOSE_TEXT_MAX 120 /* a control frame has at most 125 bytes, RFC 6455 section 5.5 */

int ws_conn_established(struct ws_conn *c, struct lws *wsi)
{
    struct ws_server *s = c->s;
    c->wsi = wsi;
    c->state = CONN_OPEN;
    const struct lws_protocols *of = lws_get_protocol(wsi);
    while (c->protocol < WS_MUX && strcmp(of->name, ws_protocol_names[c->protocol]) != 0)
        c->protocol++;
    s->open++;
    ws_offset_start(c);
    c->arg = s->cfg.ops->open(s->cfg.arg, c);
    if (c->arg)
        c->opened = true;
    else
        ws_close(c, 4004, "refused");
    return 0;
}

static void begin_close(struct ws_conn *c, int code, const char *text, enum reason reason)
{
    struct ws_server *s = c->s;
    if (c->state != CONN_OPEN)
        return;
    c->state = CONN_CLOSING;
    c->code = code;
    c->reason = reason;
    c->close_text = text && *text ? strndup(text, CLOSE_TEXT_MAX) : NULL;
    c->deadline_ns = clock_mono_ns() + WS_CLOSE_NS;
    link_append(&s->closing, &c->deadline);
    ws_arm_deadline(s);
    if (!c->blocked && link_empty(&c->dirty))
        link_append(&s->dirty, &c->dirty);
}

void ws_close(struct ws_conn *c, int code, const char *text)
{
    begin_close(c, code, text, REASON_CLOSED_BY_US);
}

void ws_conn_fail(struct ws_conn *c, int code, const char *text)
{
    ws_queue_drop(c);
    begin_close(c, code, text, REASON_PROTOCOL);
}

void ws_abort(struct ws_conn *c)
{
    if (c->state == CONN_DEAD || c->state == CONN_HTTP)
        return;
    bool ours = c->state == CONN_CLOSING || c->state == CONN_CLOSE_SENT;
    c->state = CONN_DEAD;
    if (!ours) {
        c->code = 0;
        c->reason = REASON_KILLED;
    }
    ws_queue_drop(c);
    /* Dissolving the association sends RST and throws both buffers away, but leaves the descriptor to lws,
     * which finds the socket dead on the loop's next turn (connect(2), "AF_UNSPEC"). */
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (connect(c->fd, &none, sizeof none) < 0)
        shutdown(c->fd, SHUT_RDWR);
}

/* Returns false when memory or the limit is exhausted; the connection is then closing. */
static bool join(struct ws_conn *c, const char *p, size_t n)
{
    if (!c->joined) {
        buf_init(&c->rx, c->s->cfg.frame_max);
        c->joined = true;
    }
    buf_add(&c->rx, p, n);
    if (!c->rx.failed)
        return true;
    ws_conn_fail(c, 1011, "out of memory");
    return false;
}

int ws_conn_receive(struct ws_conn *c, const char *p, size_t n)
{
    struct ws_server *s = c->s;
    struct lws *wsi = c->wsi;
    s->turns.reads++;
    ws_offset_data(c, p, n);
    if (c->state != CONN_OPEN)
        return 0;
    if (!lws_frame_is_binary(wsi) != (c->protocol == WS_JSON)) {
        ws_conn_fail(c, 1003, c->protocol == WS_JSON ? "text frames only" : "binary frames only");
        return 0;
    }
    if (c->rx.len + n + lws_remaining_packet_payload(wsi) > s->cfg.frame_max) {
        ws_conn_fail(c, 1009, "message too long");
        return 0;
    }
    bool whole = lws_is_final_fragment(wsi);
    if (whole && !c->joined) {
        s->cfg.ops->frame(s->cfg.arg, c->arg, p ? p : "", n);
        return 0;
    }
    if (!join(c, p, n) || !whole)
        return 0;
    s->cfg.ops->frame(s->cfg.arg, c->arg, c->rx.data ? c->rx.data : "", c->rx.len);
    buf_release(&c->rx); /* idle connections keep no buffer */
    c->joined = false;
    return 0;
}

int ws_conn_writeable(struct ws_conn *c)
{
    c->blocked = false;
    c->blocked_bytes = 0;
    if (c->state != CONN_OPEN && c->state != CONN_CLOSING)
        return 0;
    ws_offset_recount(c);
    c->recount = false;
    if (c->head) {
        ws_flush(c);
        if (c->state == CONN_CLOSING && !c->head && !c->blocked)
            lws_callback_on_writable(c->wsi);
        return 0;
    }
    if (c->state == CONN_CLOSING) {
        size_t n = c->close_text ? strlen(c->close_text) : 0;
        lws_close_reason(c->wsi, (enum lws_close_status)c->code, (unsigned char *)c->close_text, n);
        c->written += 2 + 2 + n;
        c->state = CONN_CLOSE_SENT;
        return -1;
    }
    ws_check_drained(c);
    return 0;
}

int ws_conn_peer_close(struct ws_conn *c, const unsigned char *p, size_t n)
{
    if (c->state != CONN_OPEN && c->state != CONN_CLOSING)
        return 0;
    if (c->state == CONN_OPEN) {
        c->code = n >= 2 ? p[0] << 8 | p[1] : 0;
        c->reason = REASON_CLOSED_BY_PEER;
    }
    c->state = CONN_PEER_CLOSE;
    ws_queue_drop(c);
    return 0;
}

/* Nobody told us why; lws's own close reason or the state of the TCP connection do. */
static void find_reason(struct ws_conn *c)
{
    c->reason = ws_offset_end(c);
    if (lws_get_close_length(c->wsi) >= 2) { /* lws itself found the fault: 1002, 1007 */
        const unsigned char *p = lws_get_close_payload(c->wsi);
        c->code = p[0] << 8 | p[1];
        c->reason = REASON_PROTOCOL;
    }
}

void ws_conn_gone(struct ws_conn *c)
{
    struct ws_server *s = c->s;
    if (c->state == CONN_HTTP)
        return;
    if (s->freeing && c->reason == REASON_NONE) {
        c->code = 1001;
        c->reason = REASON_SHUTDOWN;
    }
    if (c->reason == REASON_NONE)
        find_reason(c);
    c->state = CONN_DEAD;
    ws_offset_stop(c);
    ws_queue_drop(c);
    link_remove(&c->deadline);
    s->open--;
    if (c->opened) {
        c->opened = false;
        s->cfg.ops->close(s->cfg.arg, c->arg, c->code, c->reason);
    }
    buf_release(&c->rx);
    free(c->close_text);
    c->close_text = NULL;
    c->state = CONN_HTTP; /* nothing of a WebSocket is left */
}

/* At the server's end there is no loop left that would send lws's close frame: send it past lws, where that
 * does not land in the middle of another frame. What is unread is taken first, or close(2) would send RST. */
void ws_conn_say_bye(struct ws_conn *c, int code)
{
    unsigned char frame[] = {0x88, 2, (unsigned char)(code >> 8), (unsigned char)code};
    char sink[4096];
    if (c->state != CONN_OPEN && c->state != CONN_CLOSING)
        return;
    c->state = CONN_CLOSING; /* nothing more is queued */
    while (c->head && !c->blocked && c->state != CONN_DEAD)
        ws_flush(c);
    if (c->blocked || c->state == CONN_DEAD)
        return;
    for (int i = 0; i < 64 && recv(c->fd, sink, sizeof sink, MSG_DONTWAIT) > 0; i++)
        ;
    if (send(c->fd, frame, sizeof frame, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof frame)
        c->written += sizeof frame;
}

/* Host order; an IPv4 peer of a dual-stack listener counts as IPv4. */
static uint32_t peer_ip4(const struct ws_conn *c)
{
    uint32_t ip = 0;
    if (c->peer.sa.sa_family == AF_INET)
        ip = c->peer.v4.sin_addr.s_addr;
    else if (IN6_IS_ADDR_V4MAPPED(&c->peer.v6.sin6_addr))
        memcpy(&ip, &c->peer.v6.sin6_addr.s6_addr[12], 4);
    return ntohl(ip);
}

static uint16_t peer_port(const struct ws_conn *c)
{
    return ntohs(c->peer.sa.sa_family == AF_INET ? c->peer.v4.sin_port : c->peer.v6.sin6_port);
}

void ws_peer(const struct ws_conn *c, struct trace_flow *flow)
{
    uint32_t ip = peer_ip4(c);
    *flow = (struct trace_flow){0};
    if (!ip)
        return;
    *flow = (struct trace_flow){.src = ip, .dst = c->local_ip, .sport = peer_port(c), .dport = c->local_port};
}

const char *ws_peer_text(const struct ws_conn *c)
{
    char ip[INET6_ADDRSTRLEN], *out = c->s->peer_text;
    uint32_t ip4 = htonl(peer_ip4(c));
    if (ip4) {
        inet_ntop(AF_INET, &ip4, ip, sizeof ip);
        snprintf(out, sizeof c->s->peer_text, "%s:%u", ip, peer_port(c));
    } else {
        inet_ntop(AF_INET6, &c->peer.v6.sin6_addr, ip, sizeof ip);
        snprintf(out, sizeof c->s->peer_text, "[%s]:%u", ip, peer_port(c));
    }
    return out;
}

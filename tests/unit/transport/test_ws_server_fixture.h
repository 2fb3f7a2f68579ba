/* A server on a loop of the test's own, and raw clients that count their bytes. Everything runs on one
 * thread: the test pumps the loop until what it waits for has happened, with a deadline. */
#ifndef TEST_WS_SERVER_FIXTURE_H
#define TEST_WS_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/ws_server.h"
#include "util/clock.h"

#define MANY   2048
#define HELPER static __attribute__((unused)) /* not every test program needs all */

struct peer { /* what the server's owner keeps of a connection */
    struct ws_conn *c;
    char text[64];
    char last[256];
    uint64_t frames, read_end, start_read, start_written, closes, drained;
    uint64_t written_cookie[256], written_end[256];
    uint32_t written_in_frame[256], written_n;
    size_t last_len;
    int close_code;
    enum reason close_reason;
};

struct fix {
    struct ev_loop *loop;
    struct ws_server *s;
    struct peer peers[MANY];
    uint32_t opened, closed;
    bool echo, refuse, http_later;
    uint64_t http_id;
    uint32_t http_seen;
    char http_text[512];
};
static struct fix fx;

static void *on_open(void *arg, struct ws_conn *c)
{
    struct fix *f = arg;
    if (f->refuse)
        return NULL;
    assert_true(f->opened < MANY);
    struct peer *p = &f->peers[f->opened++];
    p->c = c;
    p->start_read = ws_read_offset(c);
    p->start_written = ws_written_offset(c);
    snprintf(p->text, sizeof p->text, "%s", ws_peer_text(c));
    return p;
}

static void on_frame(void *arg, void *conn, const char *data, size_t n)
{
    struct fix *f = arg;
    struct peer *p = conn;
    p->frames++;
    p->last_len = n;
    snprintf(p->last, sizeof p->last, "%.*s", (int)n, data);
    p->read_end = ws_read_offset(p->c);
    if (f->echo) {
        struct shared_frame *m = shared_frame_new(data, n);
        ws_send(p->c, m, 0);
        shared_frame_unref(m);
    }
}

static void on_close(void *arg, void *conn, int code, enum reason reason)
{
    struct fix *f = arg;
    struct peer *p = conn;
    f->closed++;
    p->closes++;
    p->close_code = code;
    p->close_reason = reason;
    p->c = NULL;
}

static void on_written(void *arg, void *conn, uint64_t cookie, uint64_t end, uint32_t in_frame)
{
    struct peer *p = conn;
    (void)arg;
    if (p->written_n < 256) {
        p->written_cookie[p->written_n] = cookie;
        p->written_end[p->written_n] = end;
        p->written_in_frame[p->written_n] = in_frame;
    }
    p->written_n++;
}

static void on_drained(void *arg, void *conn)
{
    struct peer *p = conn;
    (void)arg;
    p->drained++;
}

static void on_http(void *arg, const struct ws_http_request *r)
{
    struct fix *f = arg;
    f->http_seen++;
    f->http_id = ws_http_id(r->conn);
    snprintf(f->http_text, sizeof f->http_text, "%s|%s|%s|%s", r->method, r->path, r->query,
             r->authorization);
    if (!f->http_later)
        ws_http_reply(r->conn, 200, "text/plain", f->http_text, strlen(f->http_text));
}

static const struct ws_server_ops ops = {.open = on_open,
                                         .frame = on_frame,
                                         .close = on_close,
                                         .written = on_written,
                                         .drained = on_drained,
                                         .http = on_http};

static struct ws_server_config config(void)
{
    return (struct ws_server_config){.loop = fx.loop,
                                     .listen = "127.0.0.1:0",
                                     .conns_max = 1500,
                                     .frame_max = 100000,
                                     .queue_bytes_max = 1 << 20,
                                     .queue_msgs_max = 4096,
                                     .ops = &ops,
                                     .arg = &fx};
}

static void start(const struct ws_server_config *c)
{
    struct err_ctx e = {0};
    if (ws_server_new(&fx.s, c, &e))
        fail_msg("%s", e.text);
}

static int setup(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof fx);
    fx.loop = ev_loop_new(EVFLAG_AUTO);
    struct ws_server_config c = config();
    start(&c);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ws_server_free(fx.s);
    ev_loop_destroy(fx.loop);
    return 0;
}

static void turn(void)
{
    ev_run(fx.loop, EVRUN_NOWAIT);
}

/* Pump until the condition holds; fails the test after 10 s. */
#define WAIT(cond)                                                                                           \
    do {                                                                                                     \
        uint64_t end_ns_ = clock_mono_ns() + 10 * NS_PER_S;                                                  \
        while (!(cond)) {                                                                                    \
            if (clock_mono_ns() > end_ns_)                                                                   \
                fail_msg("%s:%d: never came true: %s", __FILE__, __LINE__, #cond);                           \
            turn();                                                                                          \
        }                                                                                                    \
    } while (0)

struct client {
    int fd;
    uint64_t sent, got;         /* bytes of the TCP stream, handshake included */
    unsigned char buf[1 << 19]; /* what was read and not yet parsed */
    size_t len;
    bool eof;
    int err;
};

static void client_connect(struct client *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons((uint16_t)ws_server_port(fx.s))};
    c->sent = c->got = c->len = 0;
    c->eof = false;
    c->err = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static struct client *client_new(void)
{
    struct client *c = calloc(1, sizeof *c);
    client_connect(c);
    return c;
}

static void client_free(struct client *c)
{
    close(c->fd);
    free(c);
}

static void client_write(struct client *c, const void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t w = send(c->fd, (const char *)p + done, n - done, MSG_NOSIGNAL);
        if (w > 0)
            done += (size_t)w;
        else if (errno != EAGAIN)
            fail_msg("client write: %s", strerror(errno));
        else
            turn();
    }
    c->sent += n;
}

static bool client_read(struct client *c) /* true: something came */
{
    ssize_t r = recv(c->fd, c->buf + c->len, sizeof c->buf - c->len, 0);
    if (r > 0) {
        c->len += (size_t)r;
        c->got += (uint64_t)r;
    } else if (r == 0)
        c->eof = true;
    else if (errno != EAGAIN)
        c->err = errno;
    return r > 0;
}

static void client_drop(struct client *c, size_t n)
{
    memmove(c->buf, c->buf + n, c->len - n);
    c->len -= n;
}

/* Reads up to the blank line; returns the status, and the head in out. */
static int client_head(struct client *c, char *out, size_t cap)
{
    char *end;
    WAIT((c->buf[c->len] = 0, end = strstr((char *)c->buf, "\r\n\r\n")) || !(client_read(c), 1) || c->eof);
    if (!end)
        return 0;
    size_t n = (size_t)(end - (char *)c->buf) + 4;
    snprintf(out, cap, "%.*s", (int)n, c->buf);
    client_drop(c, n);
    return atoi(out + 9);
}

static void client_hello(struct client *c, const char *protocol)
{
    char req[512];
    int n = snprintf(req, sizeof req,
                     "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                     protocol ? "Sec-WebSocket-Protocol: " : "", protocol ? protocol : "",
                     protocol ? "\r\n" : "");
    client_write(c, req, (size_t)n);
}

HELPER struct client *client_ws(void)
{
    char head[1024];
    uint32_t before = fx.opened;
    struct client *c = client_new();
    client_hello(c, "chat.v1");
    assert_int_equal(client_head(c, head, sizeof head), 101);
    assert_non_null(strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")); /* RFC 6455 section 1.3 */
    assert_non_null(strstr(head, "chat.v1"));
    assert_null(strstr(head, "xtension"));
    WAIT(fx.opened > before);
    return c;
}

/* One masked frame. first: the first byte (FIN, RSV, opcode). Returns its length. */
static size_t frame_make(unsigned char *out, int first, const void *p, size_t n)
{
    static const unsigned char mask[4] = {1, 2, 3, 4};
    size_t h = 0;
    out[h++] = (unsigned char)first;
    if (n < 126)
        out[h++] = (unsigned char)(0x80 | n);
    else if (n < 65536) {
        out[h++] = 0x80 | 126;
        out[h++] = (unsigned char)(n >> 8);
        out[h++] = (unsigned char)n;
    } else {
        out[h++] = 0x80 | 127;
        for (int i = 7; i >= 0; i--)
            out[h++] = (unsigned char)((uint64_t)n >> (8 * i));
    }
    memcpy(out + h, mask, 4);
    h += 4;
    for (size_t i = 0; i < n; i++)
        out[h + i] = ((const unsigned char *)p)[i] ^ mask[i & 3];
    return h + n;
}

static void client_frame(struct client *c, int first, const void *p, size_t n)
{
    unsigned char *out = malloc(n + 14);
    client_write(c, out, frame_make(out, first, p, n));
    free(out);
}

HELPER void client_text(struct client *c, const char *s)
{
    client_frame(c, 0x81, s, strlen(s));
}

/* Takes one whole frame from what was read; returns false when there is none yet. */
static bool client_take(struct client *c, int *first, char *out, size_t cap, size_t *len)
{
    if (c->len < 2)
        return false;
    size_t n = c->buf[1] & 0x7f, h = 2;
    assert_false(c->buf[1] & 0x80); /* a server does not mask */
    if (n == 126) {
        n = (size_t)c->buf[2] << 8 | c->buf[3];
        h = 4;
    } else if (n == 127) {
        n = 0;
        for (int i = 2; i < 10; i++)
            n = n << 8 | c->buf[i];
        h = 10;
    }
    if (c->len < h + n)
        return false;
    *first = c->buf[0];
    *len = n;
    if (cap) {
        size_t copy = n < cap - 1 ? n : cap - 1;
        memcpy(out, c->buf + h, copy);
        out[copy] = 0;
    }
    client_drop(c, h + n);
    return true;
}

HELPER int client_expect(struct client *c, char *out, size_t cap, size_t *len)
{
    int first = -1;
    size_t n = 0;
    WAIT(client_take(c, &first, out, cap, &n) || (client_read(c), 0) || c->eof || c->err);
    if (len)
        *len = n;
    return first;
}

HELPER int send_text(struct peer *p, const char *s, uint64_t cookie)
{
    struct shared_frame *f = shared_frame_new(s, strlen(s));
    int rc = ws_send(p->c, f, cookie);
    assert_int_equal(f->refs, rc == 0 ? 2 : 1);
    shared_frame_unref(f);
    return rc;
}

#endif

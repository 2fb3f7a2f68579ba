/* Echoes a second over 1,000 real WebSocket connections on loopback: ws_server (libwebsockets on libev)
 * against a bare epoll server that does nothing else, the same generator for both, in one run. One message is
 * in flight per connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/ws_server.h"
#include "util/clock.h"
#include "wire/ws.h"

#define CONNS   1000
#define SECONDS 3
#define TEXT    "{\"t\":\"beat\",\"filler\":\"0123456789012345678901234567890123456789\"}"

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- server one: ours ---- */

static void *on_open(void *arg, struct ws_conn *c)
{
    (void)arg;
    return c;
}

static void on_frame(void *arg, void *conn, const char *p, size_t n)
{
    (void)arg;
    struct shared_frame *f = shared_frame_new(p, n);
    ws_send(conn, f, 0);
    shared_frame_unref(f);
}

static void on_close(void *arg, void *conn, int code, enum reason reason)
{
    (void)arg;
    (void)conn;
    (void)code;
    (void)reason;
}

static void serve_ours(int port_pipe)
{
    static const struct ws_server_ops ops = {.open = on_open, .frame = on_frame, .close = on_close};
    struct ev_loop *loop = ev_loop_new(0);
    struct ws_server *s;
    struct err_ctx err = {0};
    struct ws_server_config c = {.loop = loop,
                                 .listen = "127.0.0.1:0",
                                 .conns_max = CONNS + 10,
                                 .frame_max = 65536,
                                 .queue_bytes_max = 1 << 20,
                                 .queue_msgs_max = 1000,
                                 .ops = &ops};
    if (ws_server_new(&s, &c, &err))
        die(err.text);
    int port = ws_server_port(s);
    if (write(port_pipe, &port, sizeof port) != sizeof port)
        die("pipe");
    ev_run(loop, 0);
}

/* ---- server two: bare epoll ---- */

struct bare {
    struct ws_parser parser;
    char head[4096];
    size_t head_n;
    bool open;
};

static void bare_read(int fd, struct bare *c)
{
    static char buf[65536];
    ssize_t n = recv(fd, buf, sizeof buf, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            close(fd);
        return;
    }
    if (!c->open) {
        struct ws_request r;
        if (c->head_n + (size_t)n > sizeof c->head)
            return;
        memcpy(c->head + c->head_n, buf, (size_t)n);
        c->head_n += (size_t)n;
        if (ws_upgrade_parse(&r, c->head, c->head_n, NULL) <= 0)
            return;
        struct buf answer = BUF_INIT(4096);
        ws_upgrade_response(&answer, r.key, r.key_n, "chat.v1");
        if (send(fd, answer.data, answer.len, MSG_NOSIGNAL) < 0)
            die("send");
        buf_release(&answer);
        ws_parser_init(&c->parser, WS_FROM_CLIENT, 65536);
        c->open = true;
        return;
    }
    char *p = buf;
    size_t left = (size_t)n;
    struct ws_message m;
    while (ws_parser_next(&c->parser, &p, &left, &m, NULL) == 1) {
        uint8_t out[WS_HEADER_MAX + 4096];
        struct ws_header h = {.fin = true, .opcode = WS_TEXT, .len = m.n};
        size_t head = ws_header_encode(out, &h);
        memcpy(out + head, m.p, m.n < 4096 ? m.n : 4096);
        if (send(fd, out, head + m.n, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
            close(fd);
    }
}

static int listen_any(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (struct sockaddr *)&a, n) || listen(fd, 1024) || getsockname(fd, (struct sockaddr *)&a, &n))
        die("listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static void serve_bare(int port_pipe)
{
    static struct bare *conns[65536];
    int port, one = 1, listener = listen_any(&port), ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, got[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    if (write(port_pipe, &port, sizeof port) != sizeof port)
        die("pipe");
    for (;;) {
        int n = epoll_wait(ep, got, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            if (fd != listener) {
                bare_read(fd, conns[fd]);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
                conns[fd] = calloc(1, sizeof *conns[fd]);
                e.data.fd = fd;
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            }
        }
    }
}

/* ---- the generator ---- */

static int dial(int port, const char *request, size_t n)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char answer[4096];
    size_t got = 0;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) || send(fd, request, n, 0) != (ssize_t)n)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, 1, &one, sizeof one);
    while (got < sizeof answer - 1) {
        ssize_t r = recv(fd, answer + got, sizeof answer - 1 - got, 0);
        if (r <= 0)
            die("handshake");
        got += (size_t)r;
        answer[got] = 0;
        if (strstr(answer, "\r\n\r\n"))
            break;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static double generate(int port)
{
    struct buf request = BUF_INIT(4096), message = BUF_INIT(4096);
    uint8_t random[16] = {1}, mask[4] = {1, 2, 3, 4};
    char key[WS_KEY_TEXT + 1], buf[65536];
    ws_key(key, random);
    ws_upgrade_request(&request, "127.0.0.1", "/", key, "chat.v1", NULL);
    ws_frame(&message, WS_TEXT, TEXT, strlen(TEXT), mask);
    int ep = epoll_create1(0);
    struct epoll_event got[256];
    for (int i = 0; i < CONNS; i++) {
        int fd = dial(port, request.data, request.len);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
        if (send(fd, message.data, message.len, MSG_NOSIGNAL) < 0)
            die("send");
    }
    size_t echo = strlen(TEXT) + 2; /* header of an unmasked frame below 126 bytes */
    uint64_t began = clock_mono_ns(), end = began + SECONDS * NS_PER_S, echoes = 0;
    while (clock_mono_ns() < end) {
        int n = epoll_wait(ep, got, 256, 100);
        for (int i = 0; i < n; i++) {
            ssize_t r = recv(got[i].data.fd, buf, sizeof buf, 0);
            if (r != (ssize_t)echo)
                die("an echo is not whole");
            echoes++;
            if (send(got[i].data.fd, message.data, message.len, MSG_NOSIGNAL) < 0)
                die("send");
        }
    }
    return (double)echoes * 1e9 / (double)(clock_mono_ns() - began);
}

static long resident_kb(pid_t pid)
{
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

/* *kb: how much the server grew by the connections and the load. */
static double measure(void (*serve)(int port_pipe), long *kb)
{
    int ports[2], rates[2], port;
    double rate;
    if (pipe(ports) || pipe(rates))
        die("pipe");
    pid_t server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(ports[1]);
    }
    if (read(ports[0], &port, sizeof port) != sizeof port)
        die("server");
    long before = resident_kb(server);
    pid_t generator = fork();
    if (generator == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        rate = generate(port);
        _exit(write(rates[1], &rate, sizeof rate) != sizeof rate);
    }
    close(rates[1]);
    if (read(rates[0], &rate, sizeof rate) != sizeof rate)
        die("generator");
    *kb = resident_kb(server) - before;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    waitpid(generator, NULL, 0);
    close(rates[0]);
    close(ports[0]);
    close(ports[1]);
    return rate;
}

int main(void)
{
    double ours[3], bare[3];
    long kb;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        bare[i] = measure(serve_bare, &kb);
        ours[i] = measure(serve_ours, &kb);
        printf("round %d: bare epoll %.0f echoes/s, ws_server %.0f echoes/s\n", i + 1, bare[i], ours[i]);
    }
    double o = ours[0] + ours[1] + ours[2], b = bare[0] + bare[1] + bare[2];
    long each = kb * 1024 / CONNS;
    printf("BENCH ws_conn_bytes %ld B budget 3072 %s\n", each, each <= 3072 ? "ok" : "MISSED");
    printf("BENCH ws_echo_1000 %.0f echoes/s ratio %.2f\n", o / 3, o / b);
    return 0;
}

/* The client's socket against a peer made of bytes (each octet scripted here) and against python3-websockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/ws_client.h"
#include "util/buf.h"
#include "util/clock.h"
#include "wire/ws.h"

struct scene {
    struct ev_loop *loop;
    struct ws_client *client;
    struct rng rng;
    int listener, peer; /* the scripted side */
    uint16_t port;
    struct buf heard; /* what the peer received after the handshake */
    int opened, frames, closes, close_code, close_errno, freeze_at, send_at_open;
    enum reason close_reason;
    uint64_t acked_at_close, head, end_of_frame;
    char last[256];
    size_t last_n;
    uint32_t queue_max;
};

static void on_open(void *arg)
{
    struct scene *s = arg;
    s->opened++;
    if (s->send_at_open)
        assert_int_equal(ws_client_send(s->client, "first", 5, NULL), 0);
}

static void on_frame(void *arg, const char *p, size_t n)
{
    struct scene *s = arg;
    s->frames++;
    s->last_n = n;
    s->end_of_frame = ws_client_read(s->client);
    snprintf(s->last, sizeof s->last, "%.*s", (int)(n < 200 ? n : 200), p);
    if (s->frames == s->freeze_at)
        ws_client_freeze(s->client, true);
}

static void on_close(void *arg, int code, enum reason reason, int sys_errno)
{
    struct scene *s = arg;
    s->closes++;
    s->close_code = code;
    s->close_reason = reason;
    s->close_errno = sys_errno;
    s->acked_at_close = ws_client_acked(s->client);
    s->client = NULL;
}

static void nothing(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop;
    (void)w;
    (void)events;
}

/* Run the loop until the condition holds; fails the test after 10 s. */
#define until(s, cond)                                                                                       \
    do {                                                                                                     \
        ev_timer t_;                                                                                         \
        bool ok_ = false; /* a condition may do something: never asked again once it held */                 \
        uint64_t deadline_ = clock_mono_ns() + 10 * NS_PER_S;                                                \
        ev_timer_init(&t_, nothing, 0.005, 0.005);                                                           \
        ev_timer_start((s)->loop, &t_);                                                                      \
        while (!(ok_ = (cond)) && clock_mono_ns() < deadline_)                                               \
            ev_run((s)->loop, EVRUN_ONCE);                                                                   \
        ev_timer_stop((s)->loop, &t_);                                                                       \
        assert_true(ok_);                                                                                    \
    } while (0)

static int listen_any(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(listen(fd, 1024), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static const struct ws_client_ops ops = {on_open, on_frame, on_close};

static int dial(struct scene *s, uint32_t source, struct err_ctx *err)
{
    struct ws_client_config c = {.loop = s->loop,
                                 .server_ip = 0x7f000001,
                                 .source_ip = source,
                                 .server_port = s->port,
                                 .path = "/p?q",
                                 .subprotocol = "chat.v1",
                                 .connect_timeout_ns = 5 * NS_PER_S,
                                 .queue_bytes_max = s->queue_max ? s->queue_max : 1 << 20,
                                 .frame_max = 1 << 20,
                                 .rng = &s->rng,
                                 .ops = &ops,
                                 .arg = s};
    return ws_client_new(&s->client, &c, err);
}

/* Take what has come in; false once the stream has ended. */
static bool hear(struct scene *s)
{
    char piece[65536];
    ssize_t n;
    while ((n = recv(s->peer, piece, sizeof piece, MSG_DONTWAIT)) > 0)
        buf_add(&s->heard, piece, (size_t)n);
    return n < 0 && errno == EAGAIN;
}

/* Dial, accept, and read the request; the answer is `answer`, or the right one. */
static void connect_up(struct scene *s, const char *answer)
{
    struct ws_request r;
    struct buf out = BUF_INIT(4096);
    int used = 0;
    assert_int_equal(dial(s, 0, NULL), 0);
    until(s, (s->peer = accept(s->listener, NULL, NULL)) >= 0);
    until(s, hear(s) && (used = ws_upgrade_parse(&r, s->heard.data, s->heard.len, NULL)) != 0);
    assert_int_equal(used, s->heard.len);
    assert_int_equal(used, ws_client_written(s->client));
    assert_int_equal(r.path_n, 4);
    if (answer)
        buf_str(&out, answer);
    else
        ws_upgrade_response(&out, r.key, r.key_n, "chat.v1");
    buf_reset(&s->heard);
    s->head = out.len;
    assert_int_equal(send(s->peer, out.data, out.len, 0), out.len);
    buf_release(&out);
    if (!answer)
        until(s, s->opened == 1);
}

static void scene_init(struct scene *s)
{
    *s = (struct scene){.loop = ev_loop_new(0), .peer = -1};
    buf_init(&s->heard, 64 << 20);
    rng_seed(&s->rng, 5);
    s->listener = listen_any(&s->port);
}

static void scene_up(struct scene *s)
{
    scene_init(s);
    connect_up(s, NULL);
}

static void scene_close(struct scene *s)
{
    ws_client_free(s->client);
    if (s->peer >= 0)
        close(s->peer);
    close(s->listener);
    buf_release(&s->heard);
    ev_loop_destroy(s->loop);
}

static void say(struct scene *s, const char *bytes, size_t n)
{
    assert_int_equal(send(s->peer, bytes, n, 0), n);
}
#define SAY(s, literal) say(s, literal, sizeof(literal) - 1)

/* The first message in what the peer heard. */
static struct ws_message heard_message(struct scene *s)
{
    struct ws_parser w;
    struct ws_message m = {0};
    struct buf copy = BUF_INIT(64 << 20);
    static char text[256];
    buf_add(&copy, s->heard.data, s->heard.len);
    char *p = copy.data;
    size_t n = copy.len;
    ws_parser_init(&w, WS_FROM_CLIENT, 1 << 20);
    if (ws_parser_next(&w, &p, &n, &m, NULL) == 1) {
        snprintf(text, sizeof text, "%.*s", (int)(m.n < 200 ? m.n : 200), m.p);
        m.p = text;
    }
    ws_parser_release(&w);
    buf_release(&copy);
    return m;
}

static void test_pings_are_answered_and_fragments_joined(void **state)
{
    (void)state;
    struct scene s;
    scene_up(&s);
    SAY(&s, "\x01\x03one\x89\x04ping\x80\x03two");
    until(&s, s.frames == 1 && hear(&s) && s.heard.len > 0);
    assert_string_equal(s.last, "onetwo");
    assert_int_equal(s.end_of_frame, s.head + 16);
    struct ws_message m = heard_message(&s);
    assert_int_equal(m.opcode, WS_PONG);
    assert_string_equal(m.p, "ping");
    scene_close(&s);
}

static void test_frames_behind_the_answer_in_one_piece_are_not_lost(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    struct ws_request r;
    struct buf out = BUF_INIT(4096);
    s.send_at_open = 1;
    assert_int_equal(dial(&s, 0, NULL), 0);
    until(&s, (s.peer = accept(s.listener, NULL, NULL)) >= 0);
    until(&s, hear(&s) && ws_upgrade_parse(&r, s.heard.data, s.heard.len, NULL) > 0);
    ws_upgrade_response(&out, r.key, r.key_n, "chat.v1");
    buf_add(&out, "\x81\x02hi\x81\x03", 6);
    buf_reset(&s.heard);
    say(&s, out.data, out.len);
    until(&s, s.frames == 1);
    SAY(&s, "you");
    until(&s, s.frames == 2 && hear(&s) && s.heard.len > 0);
    assert_string_equal(s.last, "you");
    assert_string_equal(heard_message(&s).p, "first");
    buf_release(&out);
    scene_close(&s);
}

static void test_cut_sends_exactly_the_bytes_asked_for_and_resets(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 20; bytes += 3) {
        struct scene s;
        scene_up(&s);
        uint64_t end = 0, head = ws_client_written(s.client);
        assert_int_equal(ws_client_cut_mid_frame(s.client, "0123456789", 10, bytes, &end), 0);
        s.client = NULL;
        size_t want = bytes < 16 ? bytes : 16; /* 6 of header, 10 of text */
        assert_int_equal(end, head + want);
        bool open = true;
        until(&s, !(open = hear(&s)));
        assert_int_equal(errno, ECONNRESET);
        assert_int_equal(s.heard.len, want);
        assert_int_equal(s.closes, 0);
        scene_close(&s);
    }
}

static void test_free_ends_with_fin(void **state)
{
    (void)state;
    struct scene s;
    scene_up(&s);
    ws_client_free(s.client);
    s.client = NULL;
    char c;
    ssize_t n = -1;
    until(&s, (n = recv(s.peer, &c, 1, MSG_DONTWAIT)) >= 0);
    assert_int_equal(n, 0);
    scene_close(&s);
}

static void test_vanish_tells_the_peer_nothing(void **state)
{
    (void)state;
    struct scene s;
    struct tcp_info ti;
    socklen_t n = sizeof ti;
    scene_up(&s);
    int rc = ws_client_vanish(s.client);
    s.client = NULL;
    if (rc == ERR_PERM) {
        scene_close(&s);
        print_message("# TCP_REPAIR needs CAP_NET_ADMIN\n");
        skip();
    }
    assert_int_equal(rc, 0);
    assert_true(hear(&s)); /* on loopback a FIN or RST would be there when close() returns */
    assert_int_equal(getsockopt(s.peer, IPPROTO_TCP, TCP_INFO, &ti, &n), 0);
    assert_int_equal(ti.tcpi_state, TCP_ESTABLISHED);
    scene_close(&s);
}

static void test_full_queue_refuses_and_nothing_accepted_is_lost(void **state)
{
    (void)state;
    struct scene s;
    char text[5000];
    uint64_t end = 0, taken = 0;
    int rc;
    scene_init(&s);
    s.queue_max = 100000;
    connect_up(&s, NULL);
    uint64_t head = ws_client_written(s.client);
    memset(text, 'q', sizeof text);
    while ((rc = ws_client_send(s.client, text, 1 + taken % sizeof text, &end)) == 0)
        taken++;
    assert_int_equal(rc, ERR_LIMIT);
    assert_int_equal(ws_client_written(s.client), end);
    assert_true(ws_client_acked(s.client) < end);
    until(&s, (hear(&s), s.heard.len == end - head));
    until(&s, ws_client_acked(s.client) == end);
    assert_int_equal(ws_client_send(s.client, "x", 1, &end), 0);
    struct ws_parser w;
    struct ws_message m;
    char *p = s.heard.data;
    size_t n = s.heard.len;
    ws_parser_init(&w, WS_FROM_CLIENT, 1 << 20);
    for (uint64_t i = 0; i < taken; i++) {
        assert_int_equal(ws_parser_next(&w, &p, &n, &m, NULL), 1);
        assert_int_equal(m.n, 1 + i % sizeof text);
        assert_true(m.p[0] == 'q' && m.p[m.n - 1] == 'q');
    }
    assert_int_equal(n, 0);
    ws_parser_release(&w);
    scene_close(&s);
}

static void test_frame_larger_than_the_shared_buffers_goes_out_whole(void **state)
{
    (void)state;
    struct scene s;
    size_t n = 3 << 20;
    uint64_t end = 0;
    char *big = malloc(n);
    memset(big, 'b', n);
    scene_init(&s);
    s.queue_max = 1000;
    connect_up(&s, NULL);
    uint64_t head = ws_client_written(s.client);
    assert_int_equal(ws_client_send(s.client, big, n, &end), 0);
    until(&s, (hear(&s), s.heard.len == end - head));
    assert_int_equal(end - head, n + 14);
    free(big);
    scene_close(&s);
}

static void test_freeze_in_a_callback_holds_back_the_rest_of_the_piece(void **state)
{
    (void)state;
    struct scene s;
    scene_up(&s);
    s.freeze_at = 1;
    SAY(&s, "\x81\x03one\x81\x03two\x81\x05th");
    until(&s, s.frames == 1);
    SAY(&s, "ree");
    for (int i = 0; i < 20; i++)
        ev_run(s.loop, EVRUN_NOWAIT);
    assert_int_equal(s.frames, 1);
    ws_client_freeze(s.client, false);
    until(&s, s.frames == 3);
    assert_string_equal(s.last, "three");
    scene_close(&s);
}

static void test_frozen_client_is_acknowledged_by_its_kernel_only(void **state)
{
    (void)state;
    struct scene s;
    scene_up(&s);
    ws_client_freeze(s.client, true);
    uint64_t end;
    assert_int_equal(ws_client_send(s.client, "late", 4, &end), 0);
    for (int i = 0; i < 20; i++)
        ev_run(s.loop, EVRUN_NOWAIT);
    assert_true(hear(&s));
    assert_int_equal(s.heard.len, 0);
    assert_true(ws_client_acked(s.client) < end);
    ws_client_freeze(s.client, false);
    until(&s, hear(&s) && s.heard.len == 10);
    scene_close(&s);
}

static void test_violation_is_answered_with_its_code(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int code;
    } cases[] = {
        {"\x81\x80zzzz", 6, 1002}, {"\x81\x01\xff", 3, 1007}, {"\x81\x7f\0\0\0\0\0\x20\0\0", 10, 1009}};
    for (int i = 0; i < 3; i++) {
        struct scene s;
        scene_up(&s);
        say(&s, cases[i].bytes, cases[i].n);
        until(&s, s.closes == 1 && (hear(&s), s.heard.len));
        assert_int_equal(s.close_reason, REASON_PROTOCOL);
        assert_int_equal(heard_message(&s).close_code, cases[i].code);
        scene_close(&s);
    }
}

static void test_bad_answers_to_the_handshake(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        enum reason reason;
    } cases[] = {{"HTTP/1.1 503 Service Unavailable\r\n\r\n", REASON_REFUSED},
                 {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", REASON_PROTOCOL},
                 {"220 smtp ready\r\n\r\n", REASON_PROTOCOL}};
    for (int i = 0; i < 3; i++) {
        struct scene s;
        scene_init(&s);
        connect_up(&s, cases[i].answer);
        until(&s, s.closes == 1);
        assert_int_equal(s.close_reason, cases[i].reason);
        assert_int_equal(s.opened, 0);
        scene_close(&s);
    }
}

static void test_ways_a_stream_ends(void **state)
{
    (void)state;
    struct scene s;
    scene_up(&s);
    shutdown(s.peer, SHUT_WR); /* FIN without a close frame */
    until(&s, s.closes == 1);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_PEER);
    assert_int_equal(s.close_code, 0);
    assert_int_equal(s.acked_at_close > 0, 1);
    scene_close(&s);
    scene_up(&s);
    struct linger now = {1, 0};
    setsockopt(s.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(s.peer);
    s.peer = -1;
    until(&s, s.closes == 1);
    assert_int_equal(s.close_reason, REASON_RESET);
    assert_int_equal(s.close_errno, ECONNRESET);
    scene_close(&s);
    scene_up(&s); /* a peer that never answers our close, and never reads */
    ws_client_close(s.client, 4000);
    until(&s, s.closes == 1);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_US);
    hear(&s);
    assert_int_equal(heard_message(&s).close_code, 4000);
    scene_close(&s);
}

static void test_close_before_the_connection_is_up(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    assert_int_equal(dial(&s, 0, NULL), 0);
    ws_client_close(s.client, 1000);
    assert_int_equal(s.closes, 0); /* never from inside a call */
    until(&s, s.closes == 1);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_US);
    assert_int_equal(s.opened, 0);
    scene_close(&s);
}

static void test_source_address_that_is_not_ours_is_an_error_at_once(void **state)
{
    (void)state;
    struct scene s;
    struct err_ctx err = {0};
    scene_init(&s);
    assert_int_equal(dial(&s, 0xc6120001, &err), ERR_IO); /* 198.18.0.1 */
    assert_null(s.client);
    assert_non_null(strstr(err.text, "bind to 198.18.0.1: "));
    scene_close(&s);
}

/* --- many --------------------------------------------------------------------------------------------- */

static int many_open, many_closed;
static void many_on_open(void *arg)
{
    (void)arg;
    many_open++;
}
static void many_on_frame(void *arg, const char *p, size_t n)
{
    (void)arg;
    (void)p;
    (void)n;
}
static void many_on_close(void *arg, int code, enum reason reason, int sys_errno)
{
    (void)code;
    (void)reason;
    (void)sys_errno;
    *(struct ws_client **)arg = NULL;
    many_closed++;
}

static void accept_all(struct scene *s, int *fds, int *n)
{
    char text[4096];
    int fd;
    while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        fds[(*n)++] = fd;
    for (int i = 0; i < *n; i++) {
        struct ws_request r;
        struct buf out = BUF_INIT(4096);
        ssize_t k = recv(fds[i], text, sizeof text, 0);
        if (k > 0 && ws_upgrade_parse(&r, text, (size_t)k, NULL) > 0) {
            ws_upgrade_response(&out, r.key, r.key_n, "chat.v1");
            assert_int_equal(send(fds[i], out.data, out.len, 0), out.len);
        }
        buf_release(&out);
    }
}

#define MANY 2000
static void test_thousands_in_one_process_stay_small(void **state)
{
    (void)state;
    static struct ws_client *clients[MANY];
    static int fds[MANY];
    static const struct ws_client_ops many_ops = {many_on_open, many_on_frame, many_on_close};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 2 * MANY + 50) {
        print_message("# open files are limited to %llu\n", (unsigned long long)limit.rlim_max);
        skip();
    }
    struct scene s;
    int accepted = 0;
    scene_init(&s);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < MANY; i++) {
        struct ws_client_config c = {.loop = s.loop,
                                     .server_ip = 0x7f000001,
                                     .source_ip = 0x7f010001 + (uint32_t)i % 250,
                                     .server_port = s.port,
                                     .path = "/",
                                     .subprotocol = "chat.v1",
                                     .queue_bytes_max = 1 << 20,
                                     .frame_max = 4 << 20,
                                     .rng = &s.rng,
                                     .ops = &many_ops,
                                     .arg = &clients[i]};
        assert_int_equal(ws_client_new(&clients[i], &c, NULL), 0);
        if (i % 500 == 499)
            until(&s, (accept_all(&s, fds, &accepted), many_open == i + 1));
    }
    size_t each = (mallinfo2().uordblks - before) / MANY;
    print_message("# %zu bytes a connection (allocator's count)\n", each);
    if (mallinfo2().uordblks > 0) /* a sanitizer's allocator counts nothing */
        assert_true(each <= 3072);
    for (int i = 0; i < MANY; i += 2) {
        ws_client_free(clients[i]);
        clients[i] = NULL;
    }
    for (int i = 0; i < accepted; i++)
        close(fds[i]);
    until(&s, many_closed == MANY / 2);
    scene_close(&s);
}

/* --- a stock peer ------------------------------------------------------------------------------------- */

static const char python[] =
    "import asyncio, sys, websockets\n"
    "async def serve(ws, path=None):\n"
    "    async for m in ws:\n"
    "        if m == 'ping me':\n"
    "            await (await ws.ping(b'abc'))\n"
    "            await ws.send('pong came')\n"
    "        elif m == 'fragments':\n"
    "            await ws.send(['one ', 'two ', 'three'])\n"
    "        elif m == 'close':\n"
    "            await ws.close(4001, 'enough')\n"
    "            return\n"
    "        else:\n"
    "            await ws.send(m)\n"
    "async def main():\n"
    "    async with websockets.serve(serve, '127.0.0.1', 0, subprotocols=['chat.v1'], max_size=None) as s:\n"
    "        print(s.sockets[0].getsockname()[1], flush=True)\n"
    "        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)\n"
    "asyncio.run(main())\n";

static void test_python_websockets_understands_us(void **state)
{
    (void)state;
    struct scene s;
    int in[2], out[2];
    char line[64] = "";
    scene_init(&s);
    assert_int_equal(pipe(in) | pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 200; fd++)
            close(fd);
        execl("/usr/bin/python3", "python3", /* the distribution's, where the package is */ "-W", "ignore",
              "-c", python, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    FILE *from = fdopen(out[0], "r");
    if (!fgets(line, sizeof line, from)) {
        fclose(from);
        close(in[1]);
        waitpid(pid, NULL, 0);
        scene_close(&s);
        print_message("# python3-websockets is absent\n");
        skip();
    }
    s.port = (uint16_t)atoi(line);
    assert_int_equal(dial(&s, 0x7f000005, NULL), 0);
    until(&s, s.opened);
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *text = malloc(sizes[i] + 1);
        memset(text, 'a' + (int)i, sizes[i] + 1);
        assert_int_equal(ws_client_send(s.client, text, sizes[i], NULL), 0);
        until(&s, s.frames == (int)i + 1);
        assert_int_equal(s.last_n, sizes[i]);
        assert_true(!sizes[i] || s.last[0] == 'a' + (int)i);
        free(text);
    }
    static const char *const talk[][2] = {
        {"ping me", "pong came"}, {"fragments", "one two three"}, {"\xc3\xa4", "\xc3\xa4"}};
    for (int i = 0; i < 3; i++) {
        int before = s.frames;
        assert_int_equal(ws_client_send(s.client, talk[i][0], strlen(talk[i][0]), NULL), 0);
        until(&s, s.frames == before + 1);
        assert_string_equal(s.last, talk[i][1]);
    }
    assert_int_equal(ws_client_send(s.client, "close", 5, NULL), 0);
    until(&s, s.closes == 1);
    assert_int_equal(s.close_code, 4001);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_PEER);
    s.opened = 0;
    assert_int_equal(dial(&s, 0, NULL), 0);
    until(&s, s.opened);
    ws_client_close(s.client, 1000);
    until(&s, s.closes == 2);
    assert_int_equal(s.close_code, 1000);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_US);
    close(in[1]);
    fclose(from);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    scene_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pings_are_answered_and_fragments_joined),
        cmocka_unit_test(test_frames_behind_the_answer_in_one_piece_are_not_lost),
        cmocka_unit_test(test_cut_sends_exactly_the_bytes_asked_for_and_resets),
        cmocka_unit_test(test_free_ends_with_fin),
        cmocka_unit_test(test_vanish_tells_the_peer_nothing),
        cmocka_unit_test(test_full_queue_refuses_and_nothing_accepted_is_lost),
        cmocka_unit_test(test_frame_larger_than_the_shared_buffers_goes_out_whole),
        cmocka_unit_test(test_freeze_in_a_callback_holds_back_the_rest_of_the_piece),
        cmocka_unit_test(test_frozen_client_is_acknowledged_by_its_kernel_only),
        cmocka_unit_test(test_violation_is_answered_with_its_code),
        cmocka_unit_test(test_bad_answers_to_the_handshake),
        cmocka_unit_test(test_ways_a_stream_ends),
        cmocka_unit_test(test_close_before_the_connection_is_up),
        cmocka_unit_test(test_source_address_that_is_not_ours_is_an_error_at_once),
        cmocka_unit_test(test_thousands_in_one_process_stay_small),
        cmocka_unit_test(test_python_websockets_understands_us),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("ws_client peers", tests, NULL, NULL);
}

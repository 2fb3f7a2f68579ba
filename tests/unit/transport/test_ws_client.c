/* The client's socket against libwebsockets (our server side), on one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/ws_client.h"
#include "transport/ws_server.h"
#include "util/clock.h"

struct scene {
    struct ev_loop *loop;
    struct ws_server *server;
    struct ws_conn *conn;
    struct ws_client *client;
    struct rng rng;
    int opened, frames, closes, server_frames, server_closes;
    int close_code, server_close_code, close_errno;
    enum reason close_reason, server_close_reason;
    char last[256], server_last[256];
    uint64_t server_read, server_written;
    bool free_in_frame;
};

static void *server_open(void *arg, struct ws_conn *c)
{
    struct scene *s = arg;
    s->conn = c;
    return s;
}

static void server_frame(void *arg, void *conn, const char *p, size_t n)
{
    struct scene *s = arg;
    (void)conn;
    s->server_frames++;
    snprintf(s->server_last, sizeof s->server_last, "%.*s", (int)(n < 200 ? n : 200), p);
    s->server_read = ws_read_offset(s->conn);
}

static void server_close(void *arg, void *conn, int code, enum reason reason)
{
    struct scene *s = arg;
    (void)conn;
    s->server_closes++;
    s->server_close_code = code;
    s->server_close_reason = reason;
    s->conn = NULL;
}

static void server_written(void *arg, void *conn, uint64_t cookie, uint64_t end, uint32_t in_frame)
{
    struct scene *s = arg;
    (void)conn;
    (void)cookie;
    (void)in_frame;
    s->server_written = end;
}

static void client_open(void *arg)
{
    ((struct scene *)arg)->opened++;
}

static void client_frame(void *arg, const char *p, size_t n)
{
    struct scene *s = arg;
    s->frames++;
    snprintf(s->last, sizeof s->last, "%.*s", (int)(n < 200 ? n : 200), p);
    if (s->free_in_frame) {
        ws_client_free(s->client);
        s->client = NULL;
    }
}

static void client_close(void *arg, int code, enum reason reason, int sys_errno)
{
    struct scene *s = arg;
    s->closes++;
    s->close_code = code;
    s->close_reason = reason;
    s->close_errno = sys_errno;
    s->client = NULL;
}

static const struct ws_client_ops client_ops = {client_open, client_frame, client_close};

static void nothing(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop;
    (void)w;
    (void)events;
}

/* Run the loop until the condition holds; fails the test after 5 s. */
#define until(s, cond)                                                                                       \
    do {                                                                                                     \
        ev_timer t_;                                                                                         \
        uint64_t deadline_ = clock_mono_ns() + 5 * NS_PER_S;                                                 \
        ev_timer_init(&t_, nothing, 0.01, 0.01);                                                             \
        ev_timer_start((s)->loop, &t_);                                                                      \
        while (!(cond) && clock_mono_ns() < deadline_)                                                       \
            ev_run((s)->loop, EVRUN_ONCE);                                                                   \
        ev_timer_stop((s)->loop, &t_);                                                                       \
        assert_true(cond);                                                                                   \
    } while (0)

static void dial(struct scene *s, int port, uint64_t timeout)
{
    struct err_ctx err = {0};
    struct ws_client_config c = {.loop = s->loop,
                                 .server_ip = 0x7f000001,
                                 .source_ip = 0x7f000203, /* 127.0.2.3 */
                                 .server_port = (uint16_t)port,
                                 .path = "/",
                                 .subprotocol = "chat.v1",
                                 .connect_timeout_ns = timeout,
                                 .queue_bytes_max = 1 << 20,
                                 .frame_max = 1 << 20,
                                 .rng = &s->rng,
                                 .ops = &client_ops,
                                 .arg = s};
    assert_int_equal(ws_client_new(&s->client, &c, &err), 0);
}

static void scene_open(struct scene *s)
{
    static const struct ws_server_ops ops = {
        .open = server_open, .frame = server_frame, .close = server_close, .written = server_written};
    *s = (struct scene){.loop = ev_loop_new(0)};
    rng_seed(&s->rng, 1);
    struct ws_server_config c = {.loop = s->loop,
                                 .listen = "127.0.0.1:0",
                                 .conns_max = 10,
                                 .frame_max = 1 << 20,
                                 .queue_bytes_max = 8 << 20,
                                 .queue_msgs_max = 1000,
                                 .ops = &ops,
                                 .arg = s};
    struct err_ctx err = {0};
    assert_int_equal(ws_server_new(&s->server, &c, &err), 0);
    dial(s, ws_server_port(s->server), NS_PER_S);
    until(s, s->opened && s->conn);
}

static void scene_close(struct scene *s)
{
    ws_client_free(s->client);
    s->client = NULL;
    ws_server_free(s->server);
    ev_loop_destroy(s->loop);
}

static void server_say(struct scene *s, const char *text)
{
    struct shared_frame *f = shared_frame_new(text, strlen(text));
    assert_int_equal(ws_send(s->conn, f, 1), 0);
    shared_frame_unref(f);
}

static void test_both_sides_count_the_same_bytes(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    uint64_t end = 0;
    for (int i = 1; i <= 3; i++) {
        char text[70001];
        size_t n = i == 1 ? 10 : i == 2 ? 1000 : 70000; /* each length form of the header */
        memset(text, 'x', n);
        assert_int_equal(ws_client_send(s.client, text, n, &end), 0);
        until(&s, s.server_frames == i);
        assert_int_equal(s.server_read, end);
    }
    server_say(&s, "{\"hello\":1}");
    until(&s, s.frames == 1);
    assert_int_equal(ws_client_read(s.client), s.server_written);
    until(&s, ws_client_acked(s.client) == ws_client_written(s.client));
    struct trace_flow flow, seen;
    ws_client_flow(s.client, &flow);
    ws_peer(s.conn, &seen);
    assert_int_equal(flow.src, 0x7f000203);
    assert_int_equal(flow.src, seen.src);
    assert_int_equal(flow.sport, seen.sport);
    assert_int_equal(flow.dport, ws_server_port(s.server));
    scene_close(&s);
}

static void test_frame_cut_in_the_middle_never_reaches_the_server(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    uint64_t end, before = ws_client_written(s.client);
    assert_int_equal(ws_client_cut_mid_frame(s.client, "0123456789", 10, 7, &end), 0);
    s.client = NULL;
    assert_int_equal(end, before + 7);
    until(&s, s.server_closes == 1);
    assert_int_equal(s.server_frames, 0);
    assert_int_equal(s.closes, 0); /* the owner did it himself */
    scene_close(&s);
}

static void test_frozen_client_reads_nothing_until_it_thaws(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    ws_client_freeze(s.client, true);
    server_say(&s, "while asleep");
    until(&s, s.server_written > 0);
    for (int i = 0; i < 20; i++)
        ev_run(s.loop, EVRUN_NOWAIT);
    assert_int_equal(s.frames, 0);
    ws_client_freeze(s.client, false);
    until(&s, s.frames == 1);
    assert_string_equal(s.last, "while asleep");
    scene_close(&s);
}

static void test_close_codes_are_told_on_both_sides(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    ws_close(s.conn, 4000, "bye");
    until(&s, s.closes == 1);
    assert_int_equal(s.close_code, 4000);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_PEER);
    until(&s, s.server_closes == 1);
    s.opened = 0;
    dial(&s, ws_server_port(s.server), NS_PER_S);
    until(&s, s.opened && s.conn);
    ws_client_close(s.client, 1000);
    until(&s, s.server_closes == 2 && s.closes == 2);
    assert_int_equal(s.close_reason, REASON_CLOSED_BY_US);
    scene_close(&s);
}

static void test_owner_may_free_inside_a_callback(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    s.free_in_frame = true;
    server_say(&s, "one");
    server_say(&s, "two");
    until(&s, s.server_closes == 1);
    assert_int_equal(s.frames, 1);
    scene_close(&s);
}

static void test_refused_and_silent_peers_are_told_apart(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    ws_client_free(s.client);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound, not listening: refused */
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    dial(&s, ntohs(a.sin_port), NS_PER_S);
    until(&s, s.closes == 1);
    assert_int_equal(s.close_reason, REASON_REFUSED);
    assert_int_equal(listen(fd, 1), 0); /* listening, never answering */
    dial(&s, ntohs(a.sin_port), NS_PER_S / 10);
    until(&s, s.closes == 2);
    assert_int_equal(s.close_reason, REASON_TIMED_OUT);
    close(fd);
    scene_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_sides_count_the_same_bytes),
        cmocka_unit_test(test_frame_cut_in_the_middle_never_reaches_the_server),
        cmocka_unit_test(test_frozen_client_reads_nothing_until_it_thaws),
        cmocka_unit_test(test_close_codes_are_told_on_both_sides),
        cmocka_unit_test(test_owner_may_free_inside_a_callback),
        cmocka_unit_test(test_refused_and_silent_peers_are_told_apart),
    };
    return cmocka_run_group_tests_name("ws_client", tests, NULL, NULL);
}

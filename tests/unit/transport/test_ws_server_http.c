#include "test_ws_server_fixture.h"

static void ask(struct client *c, const char *request)
{
    client_write(c, request, strlen(request));
}

/* Reads head and body; returns the status. */
static int answer(struct client *c, char *head, size_t head_cap, char *body, size_t body_cap)
{
    int status = client_head(c, head, head_cap);
    const char *l = strstr(head, "Content-Length: ");
    size_t n = status && l ? strtoul(l + 16, NULL, 10) : 0;
    assert_true(n < body_cap);
    WAIT(c->len >= n || (client_read(c), 0));
    memcpy(body, c->buf, n);
    body[n] = 0;
    client_drop(c, n);
    return status;
}

static char head[2048], body[400000];
#define ANSWER(c) answer(c, head, sizeof head, body, sizeof body)

static void test_request_goes_up_whole(void **state)
{
    (void)state;
    struct client *c = client_new();
    ask(c, "GET /history/17?after=0&limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc.def\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "GET|/history/17|after=0&limit=100|Bearer abc.def");
    assert_non_null(strstr(head, "Content-Type: text/plain\r\n"));
    client_free(c);
}

static void test_connection_is_kept_for_the_next_request(void **state)
{
    (void)state;
    struct client *c = client_new();
    for (int i = 0; i < 20; i++) {
        ask(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_int_equal(ANSWER(c), 200);
        assert_string_equal(body, "GET|/healthz||");
    }
    ask(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"); /* pipelined */
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "GET|/a||");
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "GET|/b||");
    ask(c, "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    assert_non_null(strstr(head, "Connection: close\r\n"));
    WAIT(c->eof || (client_read(c), 0));
    client_free(c);
}

static void test_old_http_closes(void **state)
{
    (void)state;
    struct client *c = client_new();
    ask(c, "GET /old HTTP/1.0\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    WAIT(c->eof || (client_read(c), 0));
    client_free(c);
}

static void test_reply_may_come_later(void **state)
{
    (void)state;
    static char big[300000];
    struct client *c = client_new();
    fx.http_later = true;
    ask(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT(fx.http_seen == 1);
    uint64_t id = fx.http_id;
    for (int i = 0; i < 100; i++)
        turn();
    struct ws_conn *k = ws_http_alive(fx.s, id);
    assert_non_null(k);
    memset(big, 'B', sizeof big);
    ws_http_reply(k, 200, "application/json", big, sizeof big);
    assert_null(ws_http_alive(fx.s, id));
    assert_int_equal(ANSWER(c), 200);
    assert_int_equal(strlen(body), sizeof big);
    ask(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT(fx.http_seen == 2);
    assert_true(fx.http_id > id);
    ws_http_reply(ws_http_alive(fx.s, fx.http_id), 404, "text/plain", "no", 2);
    assert_int_equal(ANSWER(c), 404);
    client_free(c);
}

static void at_the_end(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)w;
    (void)events;
    ev_break(loop, EVBREAK_ONE);
}

static void test_waiting_for_a_reply_does_not_spin(void **state)
{
    (void)state;
    struct client *c = client_new();
    fx.http_later = true;
    ask(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT(fx.http_seen == 1);
    ask(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"); /* readable while nobody may read */
    for (int i = 0; i < 20; i++)
        turn();
    unsigned before = ev_iteration(fx.loop);
    ev_timer stop;
    ev_timer_init(&stop, at_the_end, 0.05, 0);
    ev_timer_start(fx.loop, &stop);
    uint64_t end = clock_mono_ns() + 50 * NS_PER_MS;
    while (clock_mono_ns() < end)
        ev_run(fx.loop, EVRUN_ONCE);
    ev_timer_stop(fx.loop, &stop);
    assert_true(ev_iteration(fx.loop) - before < 100);
    ws_http_reply(ws_http_alive(fx.s, fx.http_id), 200, "text/plain", "1", 1);
    WAIT(fx.http_seen == 2);
    ws_http_reply(ws_http_alive(fx.s, fx.http_id), 200, "text/plain", "2", 1);
    assert_int_equal(ANSWER(c), 200);
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "2");
    client_free(c);
}

static void test_peer_that_left_is_not_alive(void **state)
{
    (void)state;
    struct linger now = {1, 0};
    struct client *c = client_new();
    fx.http_later = true;
    ask(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT(fx.http_seen == 1);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    client_free(c);
    for (int i = 0; i < 20; i++)
        turn();
    struct ws_conn *k = ws_http_alive(fx.s, fx.http_id);
    if (k) /* not noticed before the reply is tried: harmless */
        ws_http_reply(k, 200, "text/plain", "x", 1);
    for (int i = 0; i < 20; i++)
        turn();
    assert_null(ws_http_alive(fx.s, fx.http_id));
}

static void test_bodies_are_read_and_thrown_away(void **state)
{
    (void)state;
    static char post[70000];
    struct client *c = client_new();
    ask(c, "POST /presence/7/typing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    int n = snprintf(post, sizeof post, "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
    memset(post + n, 'b', 60000);
    client_write(c, post, (size_t)n + 60000);
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "POST|/b||");
    ask(c, "GET /after HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "GET|/after||");
    ask(c, "POST /c HTTP/1.1\r\nHost: x\r\n\r\n"); /* as curl -X POST does; no length, no body */
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "POST|/c||");
    client_free(c);
}

static void test_bodies_have_a_limit(void **state)
{
    (void)state;
    struct client *c = client_new();
    ask(c, "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n");
    assert_int_equal(ANSWER(c), 413);
    client_free(c);
    c = client_new();
    ask(c, "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_int_equal(ANSWER(c), 411);
    client_free(c);
    assert_int_equal(fx.http_seen, 0);
}

static void test_head_has_no_body(void **state)
{
    (void)state;
    struct client *c = client_new();
    ask(c, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(client_head(c, head, sizeof head), 200);
    assert_non_null(strstr(head, "Content-Length: 9\r\n"));
    ask(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    assert_string_equal(body, "GET|/x||");
    client_free(c);
}

static void test_broken_handshakes_are_answered(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: "
         "chat.v1\r\n"
         "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         426},
        {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: "
         "chat.v1\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
         400},
        {"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: "
         "chat.v1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client *c = client_new();
        ask(c, cases[i].request);
        assert_int_equal(ANSWER(c), cases[i].status);
        client_free(c);
    }
    assert_int_equal(fx.opened, 0);
}

static void test_hostile_requests_close_and_nothing_more(void **state)
{
    (void)state;
    static char wide[20000];
    memset(wide, 'w', sizeof wide - 1);
    memcpy(wide, "GET /", 5);
    const char *cases[] = {"\r\n\r\n\r\n\r\n",
                           "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
                           "GET nowhere HTTP/1.1\r\n\r\n",
                           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                           wide,
                           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client *c = client_new();
        ask(c, cases[i]);
        for (int k = 0; k < 20; k++)
            turn();
        client_read(c);
        client_free(c);
    }
    struct client *c = client_new();
    ask(c, "GET /fine HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(ANSWER(c), 200);
    client_free(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_request_goes_up_whole),
        T(test_connection_is_kept_for_the_next_request),
        T(test_old_http_closes),
        T(test_reply_may_come_later),
        T(test_waiting_for_a_reply_does_not_spin),
        T(test_peer_that_left_is_not_alive),
        T(test_bodies_are_read_and_thrown_away),
        T(test_bodies_have_a_limit),
        T(test_head_has_no_body),
        T(test_broken_handshakes_are_answered),
        T(test_hostile_requests_close_and_nothing_more),
    };
    return cmocka_run_group_tests_name("ws_server_http", tests, NULL, NULL);
}

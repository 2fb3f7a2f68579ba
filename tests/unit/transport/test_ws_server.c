#include "test_ws_server_fixture.h"

#include <signal.h>
#include <sys/wait.h>

static void test_handshake_opens_and_names_the_peer(void **state)
{
    (void)state;
    struct client *c = client_ws();
    struct sockaddr_in me;
    socklen_t n = sizeof me;
    char want[64];
    struct trace_flow flow;
    getsockname(c->fd, (struct sockaddr *)&me, &n);
    snprintf(want, sizeof want, "127.0.0.1:%u", ntohs(me.sin_port));
    assert_string_equal(fx.peers[0].text, want);
    ws_peer(fx.peers[0].c, &flow);
    assert_int_equal(flow.src, 0x7f000001);
    assert_int_equal(flow.dst, 0x7f000001);
    assert_int_equal(flow.sport, ntohs(me.sin_port));
    assert_int_equal(flow.dport, ws_server_port(fx.s));
    assert_int_equal(ws_server_conns(fx.s), 1);
    client_free(c);
    WAIT(fx.closed == 1);
    assert_int_equal(ws_server_conns(fx.s), 0);
}

static void refused(const char *protocol)
{
    char head[1024];
    struct client *c = client_new();
    client_hello(c, protocol);
    assert_int_equal(client_head(c, head, sizeof head), 400);
    WAIT(c->eof || (client_read(c), 0));
    assert_int_equal(fx.opened, 0);
    client_free(c);
}

static void test_other_subprotocols_are_refused_with_400(void **state)
{
    (void)state;
    refused(NULL);
    refused("mqtt");
    refused("chat.v10, xchat.v1");
}

static void test_subprotocol_may_be_one_of_several(void **state)
{
    (void)state;
    char head[1024];
    struct client *c = client_new();
    client_hello(c, "mqtt, chat.v1");
    assert_int_equal(client_head(c, head, sizeof head), 101);
    assert_non_null(strstr(head, "rotocol: chat.v1\r\n"));
    client_free(c);
}

static void test_owner_may_refuse(void **state)
{
    (void)state;
    char text[64];
    struct client *c = client_new();
    fx.refuse = true;
    client_hello(c, "chat.v1");
    assert_int_equal(client_head(c, text, sizeof text), 101);
    assert_int_equal(client_expect(c, text, sizeof text, NULL), 0x88);
    assert_int_equal((unsigned char)text[0] << 8 | (unsigned char)text[1], 4004);
    client_free(c);
    WAIT(ws_server_conns(fx.s) == 0);
    assert_int_equal(fx.closed, 0);
}

static void test_single_object_stays_an_object_and_several_become_an_array(void **state)
{
    (void)state;
    char out[4096];
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    assert_int_equal(send_text(p, "{\"a\":1}", 0), 0);
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    assert_string_equal(out, "{\"a\":1}");
    assert_int_equal(send_text(p, "{\"a\":2}", 0), 0);
    assert_int_equal(send_text(p, "{\"a\":3}", 0), 0);
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    assert_string_equal(out, "[{\"a\":2},{\"a\":3}]");
    client_free(c);
}

static void test_frames_hold_50_objects_and_64_kib(void **state)
{
    (void)state;
    static char out[200000], big[40001];
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    for (int i = 0; i < 120; i++)
        assert_int_equal(send_text(p, "7", 0), 0);
    for (int left = 120; left > 0; left -= 50) {
        assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
        size_t want = left > 50 ? 50 : (size_t)left;
        assert_int_equal(strlen(out), 2 * want + 1);
    }
    memset(big, '8', sizeof big - 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_text(p, big, 0), 0);
    for (int i = 0; i < 3; i++) { /* two of them would pass 64 KiB */
        assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
        assert_int_equal(strlen(out), sizeof big - 1);
    }
    client_free(c);
}

static void test_object_larger_than_a_frame_goes_alone(void **state)
{
    (void)state;
    static char big[150001];
    size_t n;
    struct client *c = client_ws();
    memset(big, 'x', sizeof big - 1);
    assert_int_equal(send_text(&fx.peers[0], big, 0), 0);
    assert_int_equal(client_expect(c, NULL, 0, &n), 0x81);
    assert_int_equal(n, sizeof big - 1);
    client_free(c);
}

static void test_echo_of_a_fragmented_message(void **state)
{
    (void)state;
    static char out[100000], half[30000];
    struct client *c = client_ws();
    fx.echo = true;
    memset(half, 'h', sizeof half);
    client_frame(c, 0x01, half, sizeof half);
    client_frame(c, 0x89, "ping", 4); /* control frames may stand between fragments */
    client_frame(c, 0x00, half, sizeof half);
    client_frame(c, 0x80, "end", 3);
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x8a);
    assert_string_equal(out, "ping");
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    assert_int_equal(strlen(out), 60003);
    assert_string_equal(out + 60000, "end");
    client_text(c, ""); /* an empty message is a message */
    WAIT(fx.peers[0].frames == 2);
    assert_int_equal(fx.peers[0].last_len, 0);
    client_free(c);
}

static void closes_with(struct client *c, int code)
{
    char out[256];
    int first;
    while ((first = client_expect(c, out, sizeof out, NULL)) != 0x88)
        assert_int_not_equal(first, -1);
    assert_int_equal((unsigned char)out[0] << 8 | (unsigned char)out[1], code);
}

static void test_protocol_errors_have_their_close_codes(void **state)
{
    (void)state;
    static char big[100001];
    static const unsigned char bad_utf8[] = {'"', 0xff, 0xfe, '"'};
    struct client *c = client_ws();
    client_frame(c, 0x82, "bin", 3);
    closes_with(c, 1003);
    client_free(c);
    c = client_ws();
    memset(big, 'b', sizeof big);
    client_frame(c, 0x81, big, sizeof big); /* one byte too many */
    closes_with(c, 1009);
    client_free(c);
    c = client_ws();
    client_frame(c, 0x01, big, 60000);
    client_frame(c, 0x80, big, 60000); /* together too many */
    closes_with(c, 1009);
    client_free(c);
    c = client_ws();
    client_frame(c, 0x83, "?", 1);
    closes_with(c, 1002);
    client_free(c);
    c = client_ws();
    client_frame(c, 0x81, bad_utf8, sizeof bad_utf8);
    closes_with(c, 1007);
    client_free(c);
    WAIT(fx.closed == 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(fx.peers[i].closes, 1);
        assert_int_equal(fx.peers[i].frames, 0);
        assert_int_equal(fx.peers[i].close_reason, REASON_PROTOCOL);
    }
    assert_int_equal(fx.peers[1].close_code, 1009);
    assert_int_equal(fx.peers[3].close_code, 1002);
}

static void test_message_of_frame_max_is_taken(void **state)
{
    (void)state;
    static char big[100000];
    struct client *c = client_ws();
    memset(big, 'b', sizeof big);
    client_frame(c, 0x81, big, sizeof big);
    WAIT(fx.peers[0].frames == 1);
    assert_int_equal(fx.peers[0].last_len, sizeof big);
    client_free(c);
}

static void test_peer_close_is_answered_and_reported(void **state)
{
    (void)state;
    struct client *c = client_ws();
    client_frame(c, 0x88, "\x0f\xa1why", 5); /* 4001 */
    closes_with(c, 4001);
    WAIT(fx.closed == 1);
    assert_int_equal(fx.peers[0].close_code, 4001);
    assert_int_equal(fx.peers[0].close_reason, REASON_CLOSED_BY_PEER);
    client_free(c);
}

static void test_fin_and_reset_are_told_apart(void **state)
{
    (void)state;
    struct linger now = {1, 0};
    struct client *c = client_ws();
    client_free(c);
    WAIT(fx.closed == 1);
    assert_int_equal(fx.peers[0].close_code, 0);
    assert_int_equal(fx.peers[0].close_reason, REASON_CLOSED_BY_PEER);
    c = client_ws();
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    client_free(c);
    WAIT(fx.closed == 2);
    assert_int_equal(fx.peers[1].close_reason, REASON_RESET);
}

static void test_our_close_flushes_first(void **state)
{
    (void)state;
    char out[2048];
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    send_text(p, "1", 0);
    send_text(p, "2", 0);
    ws_close(p->c, 4100, "out of here");
    assert_int_equal(send_text(p, "3", 0), ERR_UNAVAILABLE);
    client_text(c, "late");
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    assert_string_equal(out, "[1,2]");
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x88);
    assert_int_equal((unsigned char)out[0] << 8 | (unsigned char)out[1], 4100);
    assert_string_equal(out + 2, "out of here");
    client_frame(c, 0x88, "\x10\x04", 2);
    WAIT(fx.closed == 1);
    assert_int_equal(p->closes, 1);
    assert_int_equal(p->close_code, 4100);
    assert_int_equal(p->close_reason, REASON_CLOSED_BY_US);
    assert_int_equal(p->frames, 0);
    client_free(c);
}

static void test_close_of_a_peer_that_does_not_read_is_cut(void **state)
{
    (void)state;
    static char big[60001], asking[] = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
    struct client *c = client_ws(), *other = client_new();
    struct peer *p = &fx.peers[0];
    fx.http_later = true; /* another deadline, further away, must not hide this one */
    client_write(other, asking, sizeof asking - 1);
    WAIT(fx.http_seen == 1);
    memset(big, 'z', sizeof big - 1);
    while (send_text(p, big, 0) == 0)
        for (int i = 0; i < 3; i++)
            turn();
    ws_close(p->c, 4000, NULL);
    uint64_t start = clock_mono_ns();
    WAIT(fx.closed == 1);
    assert_true(clock_mono_ns() - start > 4 * NS_PER_S);
    assert_int_equal(p->close_code, 4000);
    client_free(c);
    client_free(other);
}

static void test_abort_resets_without_a_close_frame(void **state)
{
    (void)state;
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    send_text(p, "never sent", 0);
    ws_abort(p->c);
    WAIT(fx.closed == 1);
    WAIT((client_read(c), c->err));
    assert_int_equal(c->err, ECONNRESET);
    assert_int_equal(c->len, 0);
    assert_int_equal(p->closes, 1);
    assert_int_equal(p->close_reason, REASON_KILLED);
    client_free(c);
}

static void test_abort_from_within_callbacks(void **state)
{
    (void)state;
    struct client *c = client_ws();
    for (int i = 0; i < 3; i++)
        client_text(c, "x");
    WAIT(fx.peers[0].frames > 0);
    ws_abort(fx.peers[0].c);
    WAIT(fx.closed == 1);
    client_free(c);
}

static void test_full_queue_says_limit_and_drained_follows(void **state)
{
    (void)state;
    static char big[10001], out[200000];
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    int rc;
    memset(big, 'q', sizeof big - 1);
    while ((rc = send_text(p, big, 0)) == 0)
        turn();
    assert_int_equal(rc, ERR_LIMIT);
    assert_true(ws_queued_bytes(p->c) <= 1 << 20);
    assert_true(ws_queued_bytes(p->c) > (1 << 20) - 20000);
    assert_int_equal(p->drained, 0);
    while (!p->drained)
        assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    assert_true(ws_queued_bytes(p->c) <= 1 << 19);
    assert_int_equal(p->drained, 1);
    assert_int_equal(send_text(p, big, 0), 0);
    client_free(c);
}

static void test_queue_counts_messages_too(void **state)
{
    (void)state;
    struct client *c = client_ws();
    for (int i = 0; i < 4096; i++)
        assert_int_equal(send_text(&fx.peers[0], "1", 0), 0);
    assert_int_equal(send_text(&fx.peers[0], "1", 0), ERR_LIMIT);
    client_free(c);
}

static void test_slow_reader_does_not_delay_another(void **state)
{
    (void)state;
    static char big[50001];
    char out[64];
    struct client *slow = client_ws(), *quick = client_ws();
    memset(big, 's', sizeof big - 1);
    while (send_text(&fx.peers[0], big, 0) == 0)
        turn();
    fx.echo = true;
    uint64_t worst = 0;
    for (int i = 0; i < 200; i++) {
        uint64_t start = clock_mono_ns();
        client_text(quick, "hi");
        assert_int_equal(client_expect(quick, out, sizeof out, NULL), 0x81);
        uint64_t took = clock_mono_ns() - start;
        worst = took > worst ? took : worst;
    }
    assert_true(worst < 500 * NS_PER_MS);
    client_free(slow);
    client_free(quick);
}

/* A frame's rest that the socket did not take goes before anything else, a pong too. */
static void test_frames_stay_whole_when_the_socket_is_full_and_a_ping_comes(void **state)
{
    (void)state;
    static char big[50001], got[50001];
    struct client *c = client_ws();
    int frames = 0, pongs = 0, first;
    size_t len;
    memset(big, 's', sizeof big - 1);
    for (; send_text(&fx.peers[0], big, 0) == 0; frames++) {
        turn();
        if (frames == 100)
            client_frame(c, 0x89, "ping", 4);
    }
    client_frame(c, 0x89, "pong", 4);
    for (int i = 0; i < frames || !pongs;) {
        first = client_expect(c, got, sizeof got, &len);
        if (first == 0x8a) {
            pongs++;
            continue;
        }
        assert_int_equal(first, 0x81);
        assert_int_equal(len, sizeof big - 1);
        assert_int_equal(memcmp(got, big, len), 0);
        i++;
    }
    fx.echo = true;
    client_text(c, "hi"); /* and nothing is left over */
    do
        first = client_expect(c, got, sizeof got, &len);
    while (first == 0x8a);
    assert_int_equal(first, 0x81);
    client_free(c);
}

static void test_written_tells_cookie_end_and_company(void **state)
{
    (void)state;
    char out[64];
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    send_text(p, "11", 71);
    send_text(p, "22", 0);
    send_text(p, "33", 73);
    client_expect(c, out, sizeof out, NULL);
    assert_int_equal(p->written_n, 2);
    assert_int_equal(p->written_cookie[0], 71);
    assert_int_equal(p->written_cookie[1], 73);
    assert_int_equal(p->written_in_frame[0], 3);
    assert_int_equal(p->written_end[1], c->got);
    client_free(c);
}

/* The server's idea of both streams against the client's own count. */
static void test_offsets_are_exact_whatever_control_frames_pass(void **state)
{
    (void)state;
    static char big[70001], out[100000];
    unsigned char *burst = malloc(300000);
    struct client *c = client_ws();
    struct peer *p = &fx.peers[0];
    assert_int_equal(p->start_read, c->sent);
    assert_int_equal(p->start_written, c->got);
    memset(big, 'o', sizeof big - 1);
    size_t sizes[] = {1, 125, 126, 1000, 5000, 65535, 65536, 70000};
    for (int round = 0; round < 40; round++) {
        uint64_t frames = p->frames, cookie = p->written_n;
        size_t n = 0, size = sizes[round % 8], len;
        if (round % 2) /* a ping, and more pings while the first has no answer: lws drops those */
            for (int i = 0; i < round % 5; i++)
                n += frame_make(burst + n, 0x89, "pingping", (size_t)(round % 9));
        if (round % 3 == 0) /* unasked pongs, also empty */
            n += frame_make(burst + n, 0x8a, "pong", (size_t)(round % 2) * 4);
        n += frame_make(burst + n, 0x81, big, size);
        uint64_t end = c->sent + n;
        if (round % 4 == 0)
            n += frame_make(burst + n, 0x89, "after", 5);
        client_write(c, burst, n);
        WAIT(p->frames == frames + 1);
        assert_int_equal(p->read_end, end);
        if (round % 3)
            turn();
        big[sizes[(round + 3) % 8]] = 0; /* all lengths of header, our way too */
        send_text(p, big, 1);
        while (client_expect(c, out, sizeof out, &len) != 0x81)
            ;
        assert_int_equal(len, sizes[(round + 3) % 8]);
        big[len] = 'o';
        assert_int_equal(p->written_n, cookie + 1);
        assert_int_equal(p->written_end[cookie], c->got - c->len);
    }
    free(burst);
    client_free(c);
}

static void test_two_messages_in_one_segment_have_their_own_ends(void **state)
{
    (void)state;
    unsigned char two[64];
    struct client *c = client_ws();
    size_t n = frame_make(two, 0x81, "one", 3);
    n += frame_make(two + n, 0x89, "ping", 4);
    size_t first = n;
    n += frame_make(two + n, 0x81, "two", 3);
    client_write(c, two, n);
    WAIT(fx.peers[0].frames == 2);
    assert_int_equal(fx.peers[0].read_end, c->sent);
    (void)first;
    client_free(c);
}

static void test_thousand_connections_echo(void **state)
{
    (void)state;
    char out[64], text[32];
    struct client **c = calloc(1000, sizeof *c);
    fx.echo = true;
    for (int i = 0; i < 1000; i++)
        c[i] = client_ws();
    assert_int_equal(ws_server_conns(fx.s), 1000);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof text, "%d", i * 3 + round);
            client_text(c[i], text);
        }
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof text, "%d", i * 3 + round);
            assert_int_equal(client_expect(c[i], out, sizeof out, NULL), 0x81);
            assert_string_equal(out, text);
        }
    }
    for (int i = 0; i < 1000; i++)
        client_free(c[i]);
    WAIT(fx.closed == 1000);
    free(c);
}

static void test_free_says_1001_to_all(void **state)
{
    (void)state;
    char out[64];
    struct client *a = client_ws(), *b = client_ws();
    send_text(&fx.peers[0], "last words", 0);
    ws_server_free(fx.s);
    fx.s = NULL;
    assert_int_equal(fx.closed, 2);
    assert_int_equal(fx.peers[0].close_reason, REASON_SHUTDOWN);
    assert_int_equal(client_expect(a, out, sizeof out, NULL), 0x81);
    closes_with(a, 1001);
    closes_with(b, 1001);
    client_free(a);
    client_free(b);
}

static void test_stop_accepting_keeps_what_is_open(void **state)
{
    (void)state;
    char out[64];
    struct client *c = client_ws();
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons((uint16_t)ws_server_port(fx.s))};
    ws_server_stop_accepting(fx.s);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), -1);
    close(fd);
    fx.echo = true;
    client_text(c, "still");
    assert_int_equal(client_expect(c, out, sizeof out, NULL), 0x81);
    client_free(c);
}

static void test_listen_failures_name_the_address(void **state)
{
    (void)state;
    struct ws_server_config c = config();
    struct ws_server *s;
    struct err_ctx e = {0};
    char addr[64];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", ws_server_port(fx.s));
    c.listen = addr;
    assert_int_equal(ws_server_new(&s, &c, &e), ERR_BUSY);
    assert_non_null(strstr(e.text, addr));
    assert_null(s);
    c.listen = "nonsense";
    assert_int_equal(ws_server_new(&s, &c, &e), ERR_INVALID);
    c.listen = "192.0.2.1:80";
    assert_int_equal(ws_server_new(&s, &c, &e), ERR_IO);
    assert_non_null(strstr(e.text, "192.0.2.1:80"));
}

static void test_ipv6_listener(void **state)
{
    (void)state;
    struct ws_server_config c = config();
    struct ws_server *v6;
    struct err_ctx e = {0};
    char head[512];
    c.listen = "[::1]:0";
    if (ws_server_new(&v6, &c, &e))
        skip(); /* no IPv6 on this machine */
    struct sockaddr_in6 a = {.sin6_family = AF_INET6,
                             .sin6_addr = IN6ADDR_LOOPBACK_INIT,
                             .sin6_port = htons((uint16_t)ws_server_port(v6))};
    struct client *k = calloc(1, sizeof *k);
    k->fd = socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(connect(k->fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
    client_hello(k, "chat.v1");
    assert_int_equal(client_head(k, head, sizeof head), 101);
    assert_memory_equal(fx.peers[0].text, "[::1]:", 6);
    struct trace_flow flow;
    ws_peer(fx.peers[0].c, &flow);
    assert_int_equal(flow.src, 0);
    ws_server_free(v6);
    client_free(k);
}

static void test_conns_max_gives_503(void **state)
{
    (void)state;
    char head[1024];
    struct ws_server_config c = config();
    ws_server_free(fx.s);
    c.conns_max = 2;
    start(&c);
    struct client *a = client_ws(), *b = client_ws(), *d = client_new();
    client_hello(d, "chat.v1");
    assert_int_equal(client_head(d, head, sizeof head), 503);
    client_free(a);
    WAIT(fx.closed == 1);
    client_free(d);
    for (int i = 0; i < 50; i++)
        turn();
    d = client_ws();
    client_free(b);
    client_free(d);
}

static void test_survives_a_peer_that_vanishes_while_we_write(void **state)
{
    (void)state;
    struct linger now = {1, 0};
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 20; i++) {
        struct client *c = client_ws();
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        client_free(c);
        struct peer *p = &fx.peers[i];
        for (int k = 0; p->c && k < 50; k++) {
            send_text(p, "{\"to\":\"nobody\"}", 0);
            turn();
        }
        WAIT(p->closes == 1);
    }
    assert_int_equal(fx.closed, 20);
}

static void test_stock_client_agrees(void **state)
{
    (void)state;
    static const char script[] = "import asyncio, sys, websockets\n"
                                 "async def main(url):\n"
                                 "    async with websockets.connect(url, subprotocols=['chat.v1']) as w:\n"
                                 "        assert w.subprotocol == 'chat.v1'\n"
                                 "        for n in (1, 125, 126, 3000, 65535, 65536, 99000):\n"
                                 "            await w.send('x' * n)\n"
                                 "            assert await w.recv() == 'x' * n, n\n"
                                 "        await w.send(['frag', 'ment', 'ed'])\n"
                                 "        assert await w.recv() == 'fragmented'\n"
                                 "        await (await w.ping(b'hello'))\n"
                                 "        await w.send('\\u00fcber \\U0001f600')\n"
                                 "        assert await w.recv() == '\\u00fcber \\U0001f600'\n"
                                 "    assert w.close_code == 1000, w.close_code\n"
                                 "asyncio.run(asyncio.wait_for(main(sys.argv[1]), 9))\n";
    char url[64];
    int status = 0;
    const char *python = "/usr/bin/python3"; /* Debian's, which has Debian's module */
    if (system("/usr/bin/python3 -c 'import websockets' >/dev/null 2>&1") != 0) {
        print_message("# python3-websockets is missing\n");
        skip();
    }
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", ws_server_port(fx.s));
    fx.echo = true;
    pid_t pid = fork();
    if (pid == 0) {
        execl(python, python, "-c", script, url, (char *)NULL);
        _exit(127);
    }
    pid_t got = 0;
    WAIT((got = waitpid(pid, &status, WNOHANG)) == pid);
    assert_int_equal(got, pid);
    assert_int_equal(status, 0);
    WAIT(fx.closed == 1);
    assert_int_equal(fx.peers[0].close_code, 1000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_handshake_opens_and_names_the_peer),
        T(test_other_subprotocols_are_refused_with_400),
        T(test_subprotocol_may_be_one_of_several),
        T(test_owner_may_refuse),
        T(test_single_object_stays_an_object_and_several_become_an_array),
        T(test_frames_hold_50_objects_and_64_kib),
        T(test_object_larger_than_a_frame_goes_alone),
        T(test_echo_of_a_fragmented_message),
        T(test_protocol_errors_have_their_close_codes),
        T(test_message_of_frame_max_is_taken),
        T(test_peer_close_is_answered_and_reported),
        T(test_fin_and_reset_are_told_apart),
        T(test_our_close_flushes_first),
        T(test_close_of_a_peer_that_does_not_read_is_cut),
        T(test_abort_resets_without_a_close_frame),
        T(test_abort_from_within_callbacks),
        T(test_full_queue_says_limit_and_drained_follows),
        T(test_queue_counts_messages_too),
        T(test_slow_reader_does_not_delay_another),
        T(test_frames_stay_whole_when_the_socket_is_full_and_a_ping_comes),
        T(test_written_tells_cookie_end_and_company),
        T(test_offsets_are_exact_whatever_control_frames_pass),
        T(test_two_messages_in_one_segment_have_their_own_ends),
        T(test_thousand_connections_echo),
        T(test_free_says_1001_to_all),
        T(test_stop_accepting_keeps_what_is_open),
        T(test_listen_failures_name_the_address),
        T(test_ipv6_listener),
        T(test_conns_max_gives_503),
        T(test_survives_a_peer_that_vanishes_while_we_write),
        T(test_stock_client_agrees),
    };
    return cmocka_run_group_tests_name("ws_server", tests, NULL, NULL);
}

/* Records of chat.mux.v1: what is written is read, and what is none is refused; and both ends against each
 * other over a socket: sessions, credit, ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "transport/mux_client.h"
#include "transport/mux_server.h"
#include "util/clock.h"

/* ---- records ---- */

static void test_records_round_trip(void **state)
{
    (void)state;
    static char big[MUX_PAYLOAD_MAX];
    struct buf out = BUF_INIT(8u << 20);
    mux_put(&out, 7, MUX_OPEN, "\0\0\0\0\0\0\0\1", 8);
    mux_put(&out, MUX_SESSIONS_MAX - 1, MUX_DATA, big, sizeof big);
    mux_put(&out, 1, MUX_CREDIT, "\0\1\0\0", 4);
    assert_false(out.failed);
    const char *p = out.data, *end = out.data + out.len;
    struct mux_record r;
    assert_int_equal(mux_next(&p, end, &r), 1);
    assert_int_equal(r.session, 7);
    assert_int_equal(r.op, MUX_OPEN);
    assert_int_equal(mux_get(r.payload, 8), 1);
    assert_int_equal(mux_next(&p, end, &r), 1);
    assert_int_equal(r.session, MUX_SESSIONS_MAX - 1);
    assert_int_equal(r.len, MUX_PAYLOAD_MAX);
    assert_int_equal(mux_next(&p, end, &r), 1);
    assert_int_equal(mux_get(r.payload, 4), 65536);
    assert_int_equal(mux_next(&p, end, &r), 0);
    buf_release(&out);
}

static int read_one(const char *bytes, size_t n)
{
    struct mux_record r;
    char *exact = calloc(1, n ? n : 1);
    memcpy(exact, bytes, n);
    const char *p = exact;
    int rc = mux_next(&p, exact + n, &r);
    free(exact);
    return rc;
}
#define READ(literal) read_one(literal, sizeof literal - 1)

static void test_what_is_no_record_is_refused(void **state)
{
    (void)state;
    assert_int_equal(READ("\0\0\0\1\2\0\0\1x"), 1);
    assert_int_equal(READ(""), 0);
    assert_int_equal(READ("\0\0\0\1\2\0\0"), ERR_TRUNCATED);
    assert_int_equal(READ("\0\0\0\1\2\0\0\2x"), ERR_TRUNCATED);
    assert_int_equal(READ("\0\0\0\1\0\0\0\1x"), ERR_INVALID);     /* op 0 */
    assert_int_equal(READ("\0\0\0\1\7\0\0\1x"), ERR_INVALID);     /* op 7 */
    assert_int_equal(READ("\1\0\0\0\2\0\0\1x"), ERR_INVALID);     /* session 2^24 */
    assert_int_equal(READ("\0\0\0\1\2\0\0\0"), ERR_INVALID);      /* DATA of nothing */
    assert_int_equal(READ("\0\0\0\1\3\0\0\5abcde"), ERR_INVALID); /* CREDIT of 5 bytes */
    assert_int_equal(READ("\0\0\0\1\4\0\0\4abcd"), ERR_INVALID);  /* CUT of 4 */
    assert_int_equal(READ("\0\0\0\1\2\x10\0\1x"), ERR_LIMIT);     /* more than 1 MiB */
}

/* ---- both ends ---- */

#define SESSIONS 300

struct world {
    struct ev_loop *loop;
    struct ws_server *ws;
    struct mux_server *mux;
    struct mux_conn *conn;
    struct mux_client *client;
    struct rng rng;
    ev_prepare turn, flush;
    /* server */
    struct mux_session *session[SESSIONS + 1]; /* by handle: the user */
    uint64_t beats[SESSIONS + 1], said[SESSIONS + 1], written[SESSIONS + 1], up_end[SESSIONS + 1];
    int closed_code[SESSIONS + 1];
    enum reason closed_why[SESSIONS + 1];
    uint32_t opened, ended;
    bool refuse;
    /* client */
    uint32_t credit, got[SESSIONS + 1], got_bytes[SESSIONS + 1];
    int closes[SESSIONS + 1], close_code[SESSIONS + 1], over_code;
    bool over;
};

static int authenticate(void *arg, const char *token, size_t n, uint64_t *expires_s)
{
    (void)arg;
    *expires_s = 77;
    return n == 4 && !memcmp(token, "good", 4) ? 0 : 4101;
}

static uint64_t opened(void *arg, struct mux_session *s, uint64_t user, uint64_t expires_s,
                       const struct trace_flow *flow)
{
    struct world *w = arg;
    assert_int_equal(expires_s, 77);
    assert_int_equal(flow->src >> 24, 10);
    if (w->refuse)
        return 0;
    w->session[user] = s;
    w->closed_why[user] = REASON_NONE;
    w->opened++;
    return user;
}

static void data(void *arg, uint64_t handle, const char *p, size_t n, uint64_t offset)
{
    struct world *w = arg;
    (void)p;
    w->said[handle] += n;
    w->up_end[handle] = offset;
}

static void beats(void *arg, const uint64_t *handles, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((struct world *)arg)->beats[handles[i]]++;
}

static void written(void *arg, uint64_t handle, struct shared_frame *f, uint64_t offset)
{
    struct world *w = arg;
    w->written[handle] += f->len;
    assert_int_equal(offset, w->written[handle]);
}

static void closed(void *arg, uint64_t handle, int code, enum reason reason)
{
    struct world *w = arg;
    assert_int_equal(w->closed_why[handle], REASON_NONE);
    w->closed_code[handle] = code;
    w->closed_why[handle] = reason;
    w->session[handle] = NULL;
    w->ended++;
}

static const struct mux_server_ops mux_ops = {.authenticate = authenticate,
                                              .open = opened,
                                              .data = data,
                                              .beats = beats,
                                              .written = written,
                                              .closed = closed};

static void *ws_open(void *arg, struct ws_conn *c)
{
    struct world *w = arg;
    assert_int_equal(ws_protocol(c), WS_MUX);
    return w->conn = mux_conn_new(w->mux, c);
}
static void ws_frame_in(void *arg, void *conn, const char *p, size_t n)
{
    (void)arg;
    mux_conn_frame(conn, p, n);
}
static void ws_closed(void *arg, void *conn, int code, enum reason reason)
{
    ((struct world *)arg)->conn = NULL;
    mux_conn_closed(conn, code, reason);
}
static void ws_drained(void *arg, void *conn)
{
    (void)arg;
    mux_conn_drained(conn);
}

static void on_ready(void *arg, uint32_t credit)
{
    ((struct world *)arg)->credit = credit;
}
static void on_data(void *arg, uint32_t session, const char *p, size_t n)
{
    struct world *w = arg;
    (void)p;
    w->got[session]++;
    w->got_bytes[session] += (uint32_t)n;
}
static void on_closed(void *arg, uint32_t session, int code)
{
    struct world *w = arg;
    w->closes[session]++;
    w->close_code[session] = code;
}
static void on_over(void *arg, int code, enum reason reason)
{
    struct world *w = arg;
    (void)reason;
    w->over = true;
    w->over_code = code;
}

static void turn(struct ev_loop *loop, ev_prepare *p, int events)
{
    (void)loop;
    (void)events;
    mux_turn(((struct world *)p->data)->mux);
}
static void flush(struct ev_loop *loop, ev_prepare *p, int events)
{
    struct world *w = p->data;
    (void)loop;
    (void)events;
    if (w->client)
        mux_client_flush(w->client);
}

static struct world *begin(const char *token, uint32_t sessions_max)
{
    static const struct ws_server_ops ops = {
        .open = ws_open, .frame = ws_frame_in, .close = ws_closed, .drained = ws_drained};
    static const struct mux_client_ops client_ops = {
        .ready = on_ready, .data = on_data, .closed = on_closed, .over = on_over};
    struct world *w = calloc(1, sizeof *w);
    w->loop = ev_loop_new(EVFLAG_AUTO);
    rng_seed(&w->rng, 1);
    struct mux_server_config mc = {.sessions_max = sessions_max, .ops = &mux_ops, .arg = w};
    assert_int_equal(mux_server_new(&w->mux, &mc, NULL), 0);
    struct ws_server_config sc = {.loop = w->loop,
                                  .listen = "127.0.0.1:0",
                                  .conns_max = 4,
                                  .frame_max = 1u << 20,
                                  .queue_bytes_max = 16u << 20,
                                  .queue_msgs_max = 1u << 20,
                                  .ops = &ops,
                                  .arg = w};
    struct err_ctx err = {0};
    if (ws_server_new(&w->ws, &sc, &err))
        fail_msg("%s", err.text);
    ev_prepare_init(&w->turn, turn);
    ev_prepare_init(&w->flush, flush);
    ev_set_priority(&w->turn, 1);
    w->turn.data = w->flush.data = w;
    ev_prepare_start(w->loop, &w->turn);
    ev_prepare_start(w->loop, &w->flush);
    struct mux_client_config cc = {.loop = w->loop,
                                   .server_ip = 0x7f000001,
                                   .server_port = (uint16_t)ws_server_port(w->ws),
                                   .path = "/",
                                   .token = token,
                                   .rng = &w->rng,
                                   .ops = &client_ops,
                                   .arg = w};
    assert_int_equal(mux_client_new(&w->client, &cc, NULL), 0);
    return w;
}

static void end(struct world *w)
{
    mux_client_free(w->client);
    w->client = NULL;
    ws_server_free(w->ws);
    ev_prepare_stop(w->loop, &w->turn);
    ev_prepare_stop(w->loop, &w->flush);
    assert_int_equal(mux_server_sessions(w->mux), 0);
    assert_int_equal(w->opened, w->ended);
    mux_server_free(w->mux);
    ev_loop_destroy(w->loop);
    free(w);
}

static void nothing(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop;
    (void)t;
    (void)events;
}

/* Run the loop until cond, at most 10 s. */
#define UNTIL(w, cond)                                                                                       \
    do {                                                                                                     \
        ev_timer tick_;                                                                                      \
        uint64_t limit_ = clock_mono_ns() + 10 * NS_PER_S;                                                   \
        ev_timer_init(&tick_, nothing, 0.001, 0.001);                                                        \
        ev_timer_start((w)->loop, &tick_);                                                                   \
        while (!(cond) && clock_mono_ns() < limit_)                                                          \
            ev_run((w)->loop, EVRUN_ONCE);                                                                   \
        ev_timer_stop((w)->loop, &tick_);                                                                    \
        assert_true(cond);                                                                                   \
    } while (0)

static void open_all(struct world *w, uint32_t n)
{
    UNTIL(w, w->credit);
    for (uint32_t i = 1; i <= n; i++)
        mux_client_open(w->client, i, i);
    UNTIL(w, w->opened == n);
}

static void push(struct world *w, uint64_t user, size_t n)
{
    char bytes[60000];
    memset(bytes, 'x', sizeof bytes);
    struct shared_frame *f = shared_frame_new(bytes, n);
    mux_send(w->session[user], f);
    shared_frame_unref(f);
}

static void test_sessions_carry_data_both_ways(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, SESSIONS);
    for (uint32_t i = 1; i <= SESSIONS; i++) {
        mux_client_data(w->client, i, "hello", 5);
        push(w, i, i);
    }
    UNTIL(w, w->said[SESSIONS] == 5 && w->got[SESSIONS] == 1);
    for (uint32_t i = 1; i <= SESSIONS; i++) {
        assert_int_equal(w->said[i], 5);
        assert_int_equal(w->up_end[i], 5);
        assert_int_equal(w->got_bytes[i], i);
        assert_int_equal(w->written[i], i);
    }
    assert_int_equal(mux_client_opens(w->client), SESSIONS);
    end(w);
}

static void test_without_credit_one_waits_and_the_others_do_not(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, 2);
    for (int i = 0; i < 10; i++) {
        push(w, 1, 20000);
        push(w, 2, 2000);
    }
    UNTIL(w, w->got[2] == 10);
    assert_int_equal(w->got[1], 4); /* the fourth overdraws 64 KiB */
    assert_int_equal(w->written[1], 80000);
    mux_client_credit(w->client, 1, 80000 - MUX_CREDIT_START); /* even: still nothing may go */
    mux_client_data(w->client, 2, "x", 1);
    UNTIL(w, w->said[2] == 1);
    assert_int_equal(w->got[1], 4);
    mux_client_credit(w->client, 1, 1u << 20);
    UNTIL(w, w->got[1] == 10);
    assert_int_equal(w->got_bytes[1], 200000);
    end(w);
}

static void test_every_end_is_told_once_on_both_sides(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, 4);
    mux_client_cut(w->client, 1, 0);
    mux_client_close(w->client, 2, 1000);
    push(w, 3, 100);
    mux_close(w->session[3], 4001, "idle");
    UNTIL(w, w->closes[1] && w->closes[2] && w->closes[3]);
    assert_int_equal(w->closed_why[1], REASON_RESET);
    assert_int_equal(w->closed_why[2], REASON_CLOSED_BY_PEER);
    assert_int_equal(w->closed_code[2], 1000);
    assert_int_equal(w->closed_why[3], REASON_CLOSED_BY_US);
    assert_int_equal(w->close_code[3], 4001);
    assert_int_equal(w->got[3], 1);        /* what was queued went out before */
    mux_client_data(w->client, 1, "x", 1); /* passed over: nobody is there */
    mux_client_open(w->client, 1, 1);
    mux_client_data(w->client, 1, "y", 1);
    UNTIL(w, w->said[1] == 1);
    assert_int_equal(w->closes[1], 1);
    assert_int_equal(w->closes[4], 0);
    end(w); /* session 1 and 4 end with the connection: counted there */
}

static void test_a_session_that_is_closed_without_credit_is_not_waited_for(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, 1);
    for (int i = 0; i < 10; i++)
        push(w, 1, 50000);
    mux_close(w->session[1], 4003, "slow");
    UNTIL(w, w->closes[1]);
    assert_true(w->got[1] < 10);
    end(w);
}

static void test_beats_reach_those_whose_bits_are_set(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, SESSIONS);
    uint8_t bits[40];
    memset(bits, 0x55, sizeof bits);
    mux_client_beats(w->client, 1, bits, sizeof bits); /* reaches beyond the last: passed over */
    UNTIL(w, w->beats[299]);
    for (uint32_t i = 1; i <= SESSIONS; i++)
        assert_int_equal(w->beats[i], i & 1);
    end(w);
}

static void test_refusals(void **state)
{
    (void)state;
    struct world *w = begin("evil", 1000);
    UNTIL(w, w->over);
    assert_int_equal(w->over_code, 4101);
    end(w);
    w = begin("good", 2);
    open_all(w, 2);
    mux_client_open(w->client, 3, 3);
    UNTIL(w, w->closes[3]);
    assert_int_equal(w->close_code[3], 4004); /* too many */
    mux_client_close(w->client, 2, 1000);
    UNTIL(w, w->closes[2]);
    w->refuse = true;
    mux_client_open(w->client, 2, 2);
    UNTIL(w, w->closes[2] == 2);
    assert_int_equal(w->close_code[2], 4004);
    mux_client_open(w->client, 1, 1); /* is open */
    UNTIL(w, w->over);
    assert_int_equal(w->over_code, 4103);
    end(w);
}

static void test_a_full_socket_holds_frames_back_and_lets_them_go(void **state)
{
    (void)state;
    struct world *w = begin("good", 1000);
    open_all(w, SESSIONS);
    for (uint32_t i = 1; i <= SESSIONS; i++)
        mux_client_credit(w->client, i, 1u << 20);
    mux_client_data(w->client, 1, "x", 1);
    UNTIL(w, w->said[1]);
    for (int k = 0; k < 5; k++) /* 30 MB at once: far beyond what a socket and its queue take */
        for (uint32_t i = 1; i <= SESSIONS; i++)
            push(w, i, 20000);
    uint64_t all = 0;
    UNTIL(w, (all = 0, ({
                  for (uint32_t i = 1; i <= SESSIONS; i++)
                      all += w->got[i];
                  all == 5 * SESSIONS;
              })));
    assert_false(w->over);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_round_trip),
        cmocka_unit_test(test_what_is_no_record_is_refused),
        cmocka_unit_test(test_sessions_carry_data_both_ways),
        cmocka_unit_test(test_without_credit_one_waits_and_the_others_do_not),
        cmocka_unit_test(test_every_end_is_told_once_on_both_sides),
        cmocka_unit_test(test_a_session_that_is_closed_without_credit_is_not_waited_for),
        cmocka_unit_test(test_beats_reach_those_whose_bits_are_set),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_a_full_socket_holds_frames_back_and_lets_them_go),
    };
    return cmocka_run_group_tests_name("mux", tests, NULL, NULL);
}

/* What a client says of what its person has read, and what it shows of others: one phone, the server by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/client.h"

#define CHAT  17
#define EPOCH 48121

struct story {
    struct client c;
    struct client_config config;
    struct client_pool pool;
    struct client_io io;
    struct rng rng;
    struct claim claims[16];
    uint64_t timer_ns;
    char said[4000]; /* "ack 3, read 2, " */
    uint64_t delivered, read;
    int shown, counts;
};

static void note(void *arg, struct client *c, const struct client_effect *e)
{
    struct story *s = arg;
    (void)c;
    size_t n = strlen(s->said);
    if (e->type == CLIENT_SET_TIMER)
        s->timer_ns = e->at_ns;
    if (e->type == CLIENT_DO_SEND && (e->m->t == MSG_ACK || e->m->t == MSG_READ))
        snprintf(s->said + n, sizeof s->said - n, "%s %llu, ", msg_type_name(e->m->t),
                 (unsigned long long)e->m->seq);
    if (e->type == CLIENT_DO_SEND && e->m->t == MSG_RECEIPTS)
        snprintf(s->said + n, sizeof s->said - n, "receipts %d, ", e->m->away);
    if (e->type == CLIENT_RECEIPT) {
        s->delivered = e->delivered;
        s->read = e->seq;
        s->shown++;
    }
    s->counts += e->type == CLIENT_COUNTS;
}

static void step(struct story *s, struct client_event e)
{
    client_step(&s->c, &e, &s->io);
}

static void pass(struct story *s, uint64_t ns)
{
    uint64_t end = s->io.now.mono_ns + ns;
    while (s->timer_ns && s->timer_ns <= end) {
        uint64_t at = s->timer_ns > s->io.now.mono_ns ? s->timer_ns : s->io.now.mono_ns;
        s->io.now.mono_ns = at;
        s->timer_ns = 0;
        step(s, (struct client_event){.type = CLIENT_TIMER});
    }
    s->io.now.mono_ns = end;
}

static void hear(struct story *s, struct msg m)
{
    step(s, (struct client_event){.type = CLIENT_MESSAGE, .m = &m});
}

static void connect(struct story *s, uint64_t epoch, uint64_t head)
{
    struct claim chat = {CHAT, epoch, head};
    for (int i = 0; i < 100 && s->c.state != CLIENT_CONNECTING; i++)
        pass(s, NS_PER_S);
    step(s, (struct client_event){.type = CLIENT_CONNECTED});
    s->said[0] = 0;
    hear(s, (struct msg){.t = MSG_WELCOME,
                         .epoch = epoch,
                         .ts = s->io.now.wall_us,
                         .beat_s = 10,
                         .resume = &chat,
                         .resume_n = 1});
}

static void hears_msg(struct story *s, uint64_t epoch, uint64_t seq)
{
    struct id id = {{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, [14] = (uint8_t)(seq >> 32), [15] = (uint8_t)seq}};
    hear(s,
         (struct msg){.t = MSG_MSG, .chat = CHAT, .epoch = epoch, .seq = seq, .id = id, .from = 8, .ts = 1});
}

static void begin(struct story *s)
{
    *s = (struct story){.config = {.features = CLIENT_RELIABLE,
                                   .retries = 3,
                                   .resync_window_ns = NS_PER_S,
                                   .outbox_max = 8,
                                   .outbox_bytes_max = 8000}};
    client_pool_init(&s->pool, 16);
    rng_seed(&s->rng, 3);
    s->io = (struct client_io){.now = {NS_PER_S, 1764000000000000ull},
                               .rng = &s->rng,
                               .pool = &s->pool,
                               .claims = s->claims,
                               .claims_max = 16,
                               .emit = note,
                               .arg = s};
    client_init(&s->c, &s->config, 7, 1);
    step(s, (struct client_event){.type = CLIENT_START});
    connect(s, EPOCH, 0);
}

static void end(struct story *s)
{
    client_release(&s->c, &s->pool);
    client_pool_release(&s->pool);
}

static void reads(struct story *s, uint64_t seq)
{
    step(s, (struct client_event){.type = CLIENT_READ, .chat = CHAT, .seq = seq});
}

static void test_read_is_said_once_for_many_and_stands_for_the_ack(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (uint64_t seq = 1; seq <= 5; seq++) {
        hears_msg(&s, EPOCH, seq);
        reads(&s, seq);
    }
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "read 5, ");
    hears_msg(&s, EPOCH, 6);
    hears_msg(&s, EPOCH, 7);
    reads(&s, 6);
    reads(&s, 4); /* nobody unreads */
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "read 5, ack 7, read 6, ");
    reads(&s, 4000); /* no more than is here */
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "read 5, ack 7, read 6, read 7, ");
    end(&s);
}

static void test_what_was_said_on_a_broken_connection_is_said_again(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    hears_msg(&s, EPOCH, 1);
    hears_msg(&s, EPOCH, 2);
    reads(&s, 1);
    pass(&s, NS_PER_S);
    for (int i = 0; i < 2; i++) { /* each time: nobody knows what arrived */
        step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
        connect(&s, EPOCH, 2);
        pass(&s, NS_PER_S);
        assert_string_equal(s.said, "ack 2, read 1, ");
    }
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    reads(&s, 2); /* without a connection */
    connect(&s, EPOCH, 2);
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "read 2, ");
    end(&s);
}

/* A socket that is full drops words without telling: nobody but us would miss these. */
static void test_what_may_not_have_left_is_said_again_at_the_next_beat(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    hears_msg(&s, EPOCH, 1);
    reads(&s, 1);
    step(&s, (struct client_event){.type = CLIENT_RECEIPTS, .chat = CHAT, .on = true});
    pass(&s, NS_PER_S);
    s.said[0] = 0;
    pass(&s, 12 * NS_PER_S);
    assert_non_null(strstr(s.said, "read 1, "));
    assert_non_null(strstr(s.said, "receipts 1, "));
    hear(&s, (struct msg){.t = MSG_DONE, .re = SLICE("receipts"), .chat = CHAT});
    s.said[0] = 0;
    pass(&s, 60 * NS_PER_S);
    assert_string_equal(s.said, ""); /* once is enough, and what was answered is heard */
    end(&s);
}

/* The store is put back, and what was read is not there any more; it returns, and was read. */
static void test_what_was_read_stays_read_over_a_restore(void **state)
{
    (void)state;
    struct story s;
    uint64_t first = 1ull << 32;
    begin(&s);
    for (uint64_t seq = 1; seq <= 5; seq++)
        hears_msg(&s, EPOCH, seq);
    reads(&s, 5);
    pass(&s, NS_PER_S);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    connect(&s, EPOCH + 1, first - 1);
    hear(&s,
         (struct msg){.t = MSG_GAP, .chat = CHAT, .gap_from = 6, .to = first - 1, .reason = SLICE("epoch")});
    hears_msg(&s, EPOCH + 1, first);
    pass(&s, NS_PER_S);
    char want[100];
    snprintf(want, sizeof want, "ack %llu, read 5, ", (unsigned long long)first);
    assert_string_equal(s.said, want);
    end(&s);
}

/* A store of another past counts from 1 again: its messages were never read. */
static void test_messages_of_another_past_are_not_read(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (uint64_t seq = 1; seq <= 5; seq++)
        hears_msg(&s, EPOCH, seq);
    reads(&s, 5);
    pass(&s, NS_PER_S);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    connect(&s, 99, 0);
    hears_msg(&s, 99, 1);
    hears_msg(&s, 99, 2);
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "ack 2, ");
    reads(&s, 1);
    pass(&s, NS_PER_S);
    assert_string_equal(s.said, "ack 2, read 1, ");
    end(&s);
}

static void test_receipts_shown_do_not_go_back(void **state)
{
    (void)state;
    struct story s;
    uint64_t delivered, read;
    begin(&s);
    struct msg m = {.t = MSG_RECEIPT, .chat = CHAT, .user = 8, .delivered = 5, .read = 3};
    hear(&s, m);
    assert_int_equal(s.shown, 0); /* not asked for */
    step(&s, (struct client_event){.type = CLIENT_RECEIPTS, .chat = CHAT, .on = true});
    assert_string_equal(s.said, "receipts 1, ");
    hear(&s, m);
    assert_true(s.shown == 1 && s.delivered == 5 && s.read == 3);
    m.delivered = 4;
    m.read = 2;
    hear(&s, m); /* a server that lost its last second */
    assert_int_equal(s.shown, 1);
    m.read = 4;
    hear(&s, m);
    assert_true(s.shown == 2 && s.delivered == 5 && s.read == 4);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    connect(&s, EPOCH, 0);
    assert_string_equal(s.said, "receipts 1, "); /* asked for again, and what was shown stays */
    assert_true(client_receipt(&s.c, CHAT, 8, &delivered, &read) && delivered == 5 && read == 4);
    hear(&s,
         (struct msg){.t = MSG_ERROR, .code = SLICE("not_member"), .re = SLICE("receipts"), .chat = CHAT});
    hears_msg(&s, EPOCH, 1); /* a member again */
    assert_string_equal(s.said, "receipts 1, receipts 1, ");
    struct msg_count row = {1, 1, 3, 2, 4};
    hear(&s, (struct msg){.t = MSG_RECEIPT, .chat = CHAT, .counts = &row, .counts_n = 1});
    assert_int_equal(s.counts, 1);
    step(&s, (struct client_event){.type = CLIENT_RECEIPTS, .chat = CHAT, .on = false});
    assert_false(client_receipt(&s.c, CHAT, 8, &delivered, &read));
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_is_said_once_for_many_and_stands_for_the_ack),
        cmocka_unit_test(test_what_was_said_on_a_broken_connection_is_said_again),
        cmocka_unit_test(test_what_may_not_have_left_is_said_again_at_the_next_beat),
        cmocka_unit_test(test_what_was_read_stays_read_over_a_restore),
        cmocka_unit_test(test_messages_of_another_past_are_not_read),
        cmocka_unit_test(test_receipts_shown_do_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

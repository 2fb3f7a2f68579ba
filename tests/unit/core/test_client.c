/* The client's rules, told as stories: one phone, a clock that the story moves, and the server played by
 * hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "core/client.h"

#define MS      NS_PER_MS
#define S       NS_PER_S
#define ME      7
#define CHAT    17
#define EPOCH   48121
#define WALL_US 1764000000000000ull

struct seen {
    enum client_effect_type type;
    enum msg_type t;
    struct id id;
    uint64_t chat, seq, after, since, at_ns;
    uint32_t claims_n;
    struct claim claims[4];
    bool has_resume;
    enum reason reason;
    uint8_t attempt;
};

struct story {
    struct client c;
    struct client_config config;
    struct client_pool pool;
    struct client_io io;
    struct rng rng;
    struct claim claims[16];
    struct seen seen[512];
    unsigned n;
    uint64_t timer_ns;
    struct id last;
};

static void note(void *arg, struct client *c, const struct client_effect *e)
{
    struct story *s = arg;
    (void)c;
    assert_true(s->n < 512);
    struct seen *x = &s->seen[s->n++];
    *x = (struct seen){.type = e->type,
                       .id = e->id,
                       .chat = e->chat,
                       .seq = e->seq,
                       .at_ns = e->at_ns,
                       .reason = e->reason,
                       .attempt = e->attempt};
    if (e->m) {
        x->t = e->m->t;
        x->id = e->m->id;
        x->chat = e->m->chat;
        x->seq = e->m->seq;
        x->after = e->m->after;
        x->since = e->m->since;
        x->has_resume = (e->m->has & MSG_HAS(resume)) != 0;
        x->claims_n = e->m->resume_n;
        for (unsigned i = 0; i < e->m->resume_n && i < 4; i++)
            x->claims[i] = e->m->resume[i];
    }
    if (e->type == CLIENT_SET_TIMER)
        s->timer_ns = e->at_ns;
    if (e->type == CLIENT_SUBMITTED || (e->type == CLIENT_RESENT && !id_equal(&e->id, &(struct id){{0}})))
        s->last = e->id;
}

static void step(struct story *s, struct client_event e)
{
    client_step(&s->c, &e, &s->io);
}

/* Move the clock; timers fire on their way. */
static void pass(struct story *s, uint64_t ns)
{
    uint64_t end = s->io.now.mono_ns + ns;
    for (int guard = 0; s->timer_ns && s->timer_ns <= end; guard++) {
        assert_true(guard < 10000);
        uint64_t by = s->timer_ns > s->io.now.mono_ns ? s->timer_ns - s->io.now.mono_ns : 0;
        s->io.now.mono_ns += by;
        s->io.now.wall_us += by / 1000;
        s->timer_ns = 0;
        step(s, (struct client_event){.type = CLIENT_TIMER});
    }
    s->io.now.wall_us += (end - s->io.now.mono_ns) / 1000;
    s->io.now.mono_ns = end;
}

static void hear(struct story *s, struct msg m)
{
    step(s, (struct client_event){.type = CLIENT_MESSAGE, .m = &m});
}

static void welcome_of(struct story *s, uint64_t epoch, struct claim *chats, uint32_t n)
{
    hear(s, (struct msg){.t = MSG_WELCOME,
                         .epoch = epoch,
                         .ts = s->io.now.wall_us + 5000000,
                         .beat_s = 10,
                         .resume = chats,
                         .resume_n = n});
}

static void welcome(struct story *s, struct claim *chats, uint32_t n)
{
    welcome_of(s, EPOCH, chats, n);
}

static struct id id_no(uint8_t n)
{
    return (struct id){{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, [15] = n}};
}

static void msg_of(struct story *s, uint64_t epoch, uint64_t seq, uint64_t from, struct id id)
{
    hear(s, (struct msg){.t = MSG_MSG,
                         .chat = CHAT,
                         .epoch = epoch,
                         .seq = seq,
                         .id = id,
                         .from = from,
                         .ts = s->io.now.wall_us,
                         .kind = SLICE("text"),
                         .body = SLICE("hi")});
}
static void push(struct story *s, uint64_t seq)
{
    msg_of(s, EPOCH, seq, 8, id_no((uint8_t)seq));
}
static void accept(struct story *s, struct id id, uint64_t seq)
{
    hear(s, (struct msg){.t = MSG_ACCEPTED, .id = id, .chat = CHAT, .epoch = EPOCH, .seq = seq});
}
static void say(struct story *s)
{
    step(
        s,
        (struct client_event){
            .type = CLIENT_SUBMIT, .chat = CHAT, .intent = 1, .kind = SLICE("text"), .body = SLICE("hello")});
}
static void sync_done(struct story *s, uint64_t to, bool more)
{
    hear(s, (struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = CHAT, .to = to, .more = more});
}

static void begin_as(struct story *s, const char *features, bool connect)
{
    memset(s, 0, sizeof *s);
    assert_int_equal(client_features_parse(&s->config.features, features, NULL), 0);
    s->config.net = NET_LTE;
    s->config.retries = 3;
    s->config.resync_window_ns = 1800 * S;
    s->config.outbox_max = 4;
    s->config.outbox_bytes_max = 1 << 20;
    client_pool_init(&s->pool, 100);
    rng_seed(&s->rng, 1);
    s->io = (struct client_io){.now = {1000 * S, WALL_US},
                               .rng = &s->rng,
                               .pool = &s->pool,
                               .claims = s->claims,
                               .claims_max = 16,
                               .emit = note,
                               .arg = s};
    client_init(&s->c, &s->config, ME, 1);
    step(s, (struct client_event){.type = CLIENT_START});
    if (connect) {
        step(s, (struct client_event){.type = CLIENT_CONNECTED});
        welcome(s, NULL, 0);
        s->n = 0;
    }
}
static void begin(struct story *s)
{
    begin_as(s, "reliable", true);
}
static void finish(struct story *s)
{
    client_release(&s->c, &s->pool);
    assert_int_equal(s->pool.used, 0);
    client_pool_release(&s->pool);
}

static unsigned count(const struct story *s, enum client_effect_type type)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->n; i++)
        n += s->seen[i].type == type;
    return n;
}
static const struct seen *sent(const struct story *s, enum msg_type t, unsigned which)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->seen[i].type == CLIENT_DO_SEND && s->seen[i].t == t && which-- == 0)
            return &s->seen[i];
    return NULL;
}
static unsigned count_sent(const struct story *s, enum msg_type t)
{
    unsigned n = 0;
    while (sent(s, t, n))
        n++;
    return n;
}
static const struct seen *first(const struct story *s, enum client_effect_type type)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->seen[i].type == type)
            return &s->seen[i];
    return NULL;
}
/* "1 2 3": the seqs in the order they were surfaced. */
static void assert_surfaced(const struct story *s, const char *want)
{
    char got[512] = "";
    for (unsigned i = 0; i < s->n; i++)
        if (s->seen[i].type == CLIENT_SURFACE)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%llu", *got ? " " : "",
                     (unsigned long long)s->seen[i].seq);
    assert_string_equal(got, want);
}
static void reconnect(struct story *s, enum reason why, struct claim *chats, uint32_t n)
{
    step(s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = why});
    s->n = 0;
    pass(s, CLIENT_RECONNECT_MAX_NS);
    assert_non_null(first(s, CLIENT_DO_CONNECT));
    step(s, (struct client_event){.type = CLIENT_CONNECTED});
    welcome(s, chats, n);
}

static void test_features_are_words_joined_by_plus(void **state)
{
    (void)state;
    uint8_t f;
    struct err_ctx ctx = {0};
    assert_int_equal(client_features_parse(&f, "legacy", NULL), 0);
    assert_int_equal(f, 0);
    assert_int_equal(client_features_parse(&f, "legacy+retry+resync", NULL), 0);
    assert_int_equal(f, CLIENT_RETRY | CLIENT_RESYNC);
    assert_int_equal(client_features_parse(&f, "reliable", NULL), 0);
    assert_int_equal(f, CLIENT_RELIABLE);
    assert_int_equal(client_features_parse(&f, "legacy+rety", &ctx), ERR_INVALID);
    assert_non_null(strstr(ctx.text, "'rety'"));
    assert_int_equal(client_features_parse(&f, "", NULL), ERR_INVALID);
    assert_int_equal(client_features_parse(&f, "legacy+", NULL), ERR_INVALID);
}

static void test_id_carries_the_servers_time_and_exists_before_the_first_attempt(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    assert_int_equal(s.seen[0].type, CLIENT_SUBMITTED);
    assert_non_null(sent(&s, MSG_SEND, 0));
    assert_true(id_equal(&sent(&s, MSG_SEND, 0)->id, &s.last));
    assert_true(id_is_v7(&s.last));
    assert_int_equal(id_unix_ms(&s.last), (WALL_US + 5000000) / 1000);
    finish(&s);
}

static void test_lost_accepted_is_retried_with_the_same_id_and_is_no_duplicate(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    struct id id = s.last;
    pass(&s, 2900 * MS);
    assert_int_equal(count_sent(&s, MSG_SEND), 1);
    pass(&s, 200 * MS);
    assert_int_equal(count_sent(&s, MSG_SEND), 2);
    assert_true(id_equal(&sent(&s, MSG_SEND, 1)->id, &id));
    assert_int_equal(sent(&s, MSG_SEND, 1)->attempt, 2);
    accept(&s, id, 1);
    accept(&s, id, 1); /* the answer to the second attempt */
    assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
    assert_int_equal(count(&s, CLIENT_FORGET), 1);
    pass(&s, 60 * S);
    assert_int_equal(count_sent(&s, MSG_SEND), 2);
    assert_surfaced(&s, "");
    finish(&s);
}

static void test_msg_with_an_id_of_the_outbox_is_its_accepted(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    msg_of(&s, EPOCH, 1, ME, s.last);
    assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
    assert_surfaced(&s, "");
    struct claim at;
    assert_true(client_cursor(&s.c, CHAT, &at));
    assert_int_equal(at.seq, 1);
    finish(&s);
}

static void test_resends_back_off_within_bounds(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    uint64_t before = s.io.now.mono_ns, longest = 0;
    for (unsigned n = 2; n <= 40; n++) {
        while (count_sent(&s, MSG_SEND) < n) {
            s.n = 0;
            for (unsigned i = 0; i < n - 1; i++) /* keep the tally while the log is cut */
                s.seen[s.n++] = (struct seen){.type = CLIENT_DO_SEND, .t = MSG_SEND};
            hear(&s, (struct msg){.t = MSG_NOTICE}); /* something is heard: the connection lives */
            pass(&s, 100 * MS);
            assert_true(s.io.now.mono_ns - before <= CLIENT_RETRY_MAX_NS + 200 * MS);
        }
        uint64_t took = s.io.now.mono_ns - before;
        if (n == 2)
            assert_in_range(took, 2900 * MS, 3200 * MS);
        if (n == 3)
            assert_true(took <= 6 * S + 200 * MS);
        longest = took > longest ? took : longest;
        before = s.io.now.mono_ns;
    }
    assert_true(longest > 15 * S);
    finish(&s);
}

static void test_after_three_attempts_it_is_shown_as_not_sent_yet_and_stays(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    for (int i = 0; i < 4; i++)
        reconnect(&s, REASON_RESET, NULL, 0);
    assert_int_equal(s.c.outbox.count, 1);
    assert_true(s.c.outbox.first->shown);
    step(&s, (struct client_event){.type = CLIENT_GIVE_UP, .id = s.last});
    assert_int_equal(count(&s, CLIENT_GAVE_UP), 1);
    assert_int_equal(s.c.outbox.count, 0);
    finish(&s);
}

static void test_outbox_is_flushed_in_order_after_a_reconnect(void **state)
{
    (void)state;
    struct story s;
    struct id ids[3];
    begin(&s);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    for (int i = 0; i < 3; i++) {
        say(&s);
        ids[i] = s.last;
    }
    assert_int_equal(count_sent(&s, MSG_SEND), 0);
    s.n = 0;
    pass(&s, S);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    assert_int_equal(count_sent(&s, MSG_SEND), 0);
    welcome(&s, NULL, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_true(id_equal(&sent(&s, MSG_SEND, i)->id, &ids[i]));
    finish(&s);
}

static void test_full_outbox_gives_the_message_up_and_says_so(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (int i = 0; i < 5; i++)
        say(&s);
    assert_int_equal(count(&s, CLIENT_GAVE_UP), 1);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_OUTBOX_FULL);
    finish(&s);
}

static void test_outbox_survives_a_restart_of_the_app(void **state)
{
    (void)state;
    struct buf file = BUF_INIT(1 << 20);
    struct id id = id_no(9);
    outbox_row_encode(&file, &(struct outbox_row){OUTBOX_PUT, 1, ME, CHAT, 5, id, SLICE("text"),
                                                  SLICE("later \xf0\x9f\x99\x82")});
    size_t whole = file.len;
    outbox_row_encode(&file, &(struct outbox_row){.op = OUTBOX_FORGET, .device = 1, .user = ME, .id = id});
    struct outbox_row row;
    for (size_t n = 0; n < whole; n++) /* torn anywhere */
        assert_int_equal(outbox_row_decode(file.data, n, &row), ERR_TRUNCATED);
    assert_int_equal(outbox_row_decode(file.data, file.len, &row), whole);
    assert_int_equal(row.op, OUTBOX_PUT);
    assert_int_equal(row.user, ME);
    file.data[whole - 20] ^= 1;
    assert_int_equal(outbox_row_decode(file.data, file.len, &(struct outbox_row){0}), ERR_CORRUPT);
    file.data[whole - 20] ^= 1;

    struct story s;
    begin_as(&s, "reliable", false);
    step(&s, (struct client_event){.type = CLIENT_RESTORE,
                                   .id = row.id,
                                   .chat = row.chat,
                                   .intent = row.intent,
                                   .kind = row.kind,
                                   .body = row.body});
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    welcome(&s, NULL, 0);
    assert_true(id_equal(&sent(&s, MSG_SEND, 0)->id, &id));
    assert_int_equal(outbox_row_decode(file.data + whole, file.len - whole, &row), file.len - whole);
    assert_int_equal(row.op, OUTBOX_FORGET);
    finish(&s);
    buf_release(&file);
}

static void test_messages_surface_once_and_are_acknowledged_cumulatively(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    push(&s, 2);
    push(&s, 2);
    push(&s, 3);
    assert_surfaced(&s, "1 2 3");
    assert_int_equal(count(&s, CLIENT_DUPLICATE), 1);
    pass(&s, 99 * MS);
    assert_int_equal(count_sent(&s, MSG_ACK), 0);
    pass(&s, 101 * MS);
    assert_int_equal(count_sent(&s, MSG_ACK), 1);
    assert_int_equal(sent(&s, MSG_ACK, 0)->seq, 3);
    pass(&s, S);
    assert_int_equal(count_sent(&s, MSG_ACK), 1);
    push(&s, 3); /* the server did not hear it */
    pass(&s, 200 * MS);
    assert_int_equal(count_sent(&s, MSG_ACK), 2);
    finish(&s);
}

static void test_acknowledgements_wait_longer_while_messages_keep_coming(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    unsigned seq = 0;
    for (; seq < 100; pass(&s, 100 * MS)) /* 10 s */
        push(&s, ++seq);
    pass(&s, 1600 * MS);
    assert_in_range(count_sent(&s, MSG_ACK), 7, 15);
    assert_int_equal(sent(&s, MSG_ACK, count_sent(&s, MSG_ACK) - 1)->seq, 100);
    s.n = 0;
    pass(&s, 2 * S);
    push(&s, ++seq);
    pass(&s, 200 * MS); /* alone again */
    assert_int_equal(count_sent(&s, MSG_ACK), 1);
    finish(&s);
}

/* Or the server would hear from all of a group at one time. */
static void test_devices_acknowledge_at_different_times(void **state)
{
    (void)state;
    unsigned early = 0;
    for (unsigned device = 1; device <= 100; device++) {
        struct story s;
        begin(&s);
        s.c.device = device;
        push(&s, 1);
        pass(&s, 150 * MS);
        early += count_sent(&s, MSG_ACK);
        finish(&s);
    }
    assert_in_range(early, 30, 70);
}

static void test_hole_is_asked_for_and_filled_in_order(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    push(&s, 4);
    push(&s, 5);
    assert_surfaced(&s, "1");
    assert_int_equal(count_sent(&s, MSG_SYNC), 1);
    assert_int_equal(sent(&s, MSG_SYNC, 0)->after, 1);
    for (uint64_t q = 2; q <= 4; q++)
        push(&s, q);
    sync_done(&s, 4, false); /* 5 was too young for the page */
    assert_int_equal(count_sent(&s, MSG_SYNC), 2);
    assert_int_equal(sent(&s, MSG_SYNC, 1)->after, 4);
    push(&s, 5);
    sync_done(&s, 5, false);
    assert_surfaced(&s, "1 2 3 4 5");
    pass(&s, 8 * S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 2);
    finish(&s);
}

static void test_accepted_fills_the_place_of_an_own_message(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    say(&s);
    accept(&s, s.last, 3); /* committed with 2, whose push is on its way */
    push(&s, 2);
    push(&s, 4);
    assert_surfaced(&s, "1 2 4");
    pass(&s, 5 * S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 0);
    finish(&s);
}

static void test_hole_before_an_own_message_is_asked_for_after_a_while(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    say(&s);
    accept(&s, s.last, 3);
    pass(&s, 400 * MS);
    assert_int_equal(count_sent(&s, MSG_SYNC), 0);
    pass(&s, 200 * MS);
    assert_int_equal(count_sent(&s, MSG_SYNC), 1);
    push(&s, 2);
    struct claim at;
    assert_true(client_cursor(&s.c, CHAT, &at));
    assert_int_equal(at.seq, 3);
    finish(&s);
}

static void test_gap_is_accepted_as_a_jump(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    hear(&s, (struct msg){
                 .t = MSG_GAP, .chat = CHAT, .gap_from = 2, .to = 1ull << 32, .reason = SLICE("restored")});
    msg_of(&s, 99, (1ull << 32) + 1, 8, id_no(50));
    assert_surfaced(&s, "1 4294967297");
    assert_int_equal(count_sent(&s, MSG_SYNC), 0);
    struct claim at;
    assert_true(client_cursor(&s.c, CHAT, &at));
    assert_int_equal(at.epoch, 99);
    finish(&s);
}

static void test_entry_that_returns_after_an_epoch_change_is_known_by_its_place(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (uint64_t q = 1; q <= 5; q++)
        push(&s, q);
    /* the store was restored from when the head was 3 */
    struct claim head = {CHAT, 99, 3};
    reconnect(&s, REASON_RESET, &head, 1);
    s.n = 0;
    push(&s, 4);
    push(&s, 5);
    assert_surfaced(&s, "");
    assert_int_equal(count(&s, CLIENT_DUPLICATE), 2);
    push(&s, 6); /* recovered from another phone: we never had it */
    assert_surfaced(&s, "6");
    finish(&s);
}

/* Entries that came back: 1 to 20 of CHAT, then of the chat before it. */
static void begin_with_ranges(struct story *s)
{
    begin(s);
    push(s, 1);
    for (uint64_t chat = CHAT + 1; chat-- > CHAT - 1;)
        hear(s, (struct msg){.t = MSG_MSG,
                             .chat = chat,
                             .epoch = 99,
                             .seq = chat == CHAT ? 2 : 1,
                             .ts = 1,
                             .id = id_no(60 + (uint32_t)(CHAT - chat)),
                             .kind = SLICE("recovered"),
                             .body = SLICE("{\"ranges\":[[1,20]]}")});
    assert_int_equal(count_sent(s, MSG_SYNC), 1);
    assert_int_equal(sent(s, MSG_SYNC, 0)->chat, CHAT);
}

/* Of another chat's range that the server refuses: it does not stand in the way for ever. */
static void test_ranges_of_a_chat_one_is_out_of_do_not_hold_up_others(void **state)
{
    (void)state;
    struct story s;
    begin_with_ranges(&s);
    hear(&s, (struct msg){.t = MSG_ERROR, .re = SLICE("sync"), .chat = CHAT, .code = SLICE("not_member")});
    assert_int_equal(count_sent(&s, MSG_SYNC), 2);
    hear(&s, (struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = CHAT - 1, .to = 20});
    pass(&s, 20 * NS_PER_S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 2);
    finish(&s);
}

/* `answer` says that the server could not read CHAT: the other chat's turn is next, then CHAT's again, from
 * where it was; each asked for once until it is answered. */
static void assert_put_off(struct msg answer)
{
    struct story s;
    begin_with_ranges(&s);
    hear(&s, answer);
    assert_int_equal(count_sent(&s, MSG_SYNC), 1); /* not at once: the server is not well */
    pass(&s, 4 * S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 2);
    assert_int_equal(sent(&s, MSG_SYNC, 1)->chat, CHAT - 1);
    hear(&s, (struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = CHAT - 1, .to = 20});
    assert_int_equal(count_sent(&s, MSG_SYNC), 3);
    assert_int_equal(sent(&s, MSG_SYNC, 2)->chat, CHAT);
    assert_int_equal(sent(&s, MSG_SYNC, 2)->after, 0);
    sync_done(&s, 20, false);
    pass(&s, 20 * S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 3);
    finish(&s);
}

static void test_sync_that_the_server_could_not_read_is_put_off_behind_other_chats(void **state)
{
    (void)state;
    assert_put_off((struct msg){
        .t = MSG_ERROR, .re = SLICE("sync"), .chat = CHAT, .code = SLICE("overloaded"), .retry_ms = 1000});
    assert_put_off((struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = CHAT, .more = true});
}

static bool no_copy(void *arg, const struct client *c, uint64_t chat, uint64_t from, uint64_t to, bool last,
                    struct msg *out)
{
    (void)arg, (void)c, (void)chat, (void)from, (void)to, (void)last, (void)out;
    return false;
}

static void test_entry_that_returns_before_the_new_epoch_has_said_anything_is_shown(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.io.copy = no_copy;
    push(&s, 1);
    struct claim head = {CHAT, EPOCH, 1};
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    pass(&s, CLIENT_RECONNECT_MAX_NS);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    welcome_of(&s, EPOCH + 1, &head, 1);
    hear(&s,
         (struct msg){
             .t = MSG_GAP, .chat = CHAT, .gap_from = 2, .to = (1ull << 32) - 1, .reason = SLICE("epoch")});
    msg_of(&s, EPOCH, 2, 8, id_no(50));
    assert_surfaced(&s, "1 2");
    finish(&s);
}

static void test_server_with_an_empty_store_is_believed(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    push(&s, 2);
    s.c.epoch = 99;
    msg_of(&s, 99, 1, 8, id_no(60));
    msg_of(&s, 99, 2, 8, id_no(61));
    assert_surfaced(&s, "1 2 1 2");
    finish(&s);
}

static void test_what_an_empty_store_took_before_we_came_back_is_read_from_its_start(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (uint64_t q = 1; q <= 5; q++)
        push(&s, q);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    pass(&s, 30 * S);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    struct claim head = {CHAT, 99, 3}; /* made again by another, who has talked since */
    welcome_of(&s, 99, &head, 1);
    s.n = 0;
    for (uint8_t q = 1; q <= 3; q++)
        msg_of(&s, 99, q, 8, id_no(60 + q));
    assert_surfaced(&s, "1 2 3");
    assert_int_equal(count(&s, CLIENT_DUPLICATE), 0);
    finish(&s);
}

static void test_hello_resumes_from_the_cursors(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    push(&s, 2);
    struct claim head = {CHAT, EPOCH, 3};
    reconnect(&s, REASON_RESET, &head, 1);
    const struct seen *hello = sent(&s, MSG_HELLO, 0);
    assert_true(hello->has_resume);
    assert_int_equal(hello->claims_n, 1);
    assert_int_equal(hello->claims[0].seq, 2);
    assert_int_equal(hello->claims[0].epoch, EPOCH);
    /* the server said there is a 3, and does not send it */
    pass(&s, 2100 * MS);
    assert_int_equal(count_sent(&s, MSG_SYNC), 1);
    finish(&s);
}

static void test_coming_to_the_foreground_asks_for_what_was_missed(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    step(&s, (struct client_event){.type = CLIENT_BACKGROUND});
    assert_int_equal(count_sent(&s, MSG_ACK), 1); /* last words */
    assert_int_equal(s.timer_ns, 0);
    s.n = 0;
    pass(&s, 60 * S);
    assert_int_equal(s.n, 0);
    step(&s, (struct client_event){.type = CLIENT_FOREGROUND});
    assert_int_equal(count_sent(&s, MSG_SYNC), 1);
    assert_int_equal(sent(&s, MSG_SYNC, 0)->since, WALL_US + 5000000 - CLIENT_SINCE_MARGIN_US);
    push(&s, 1);
    push(&s, 2);
    sync_done(&s, 2, false);
    assert_surfaced(&s, "2");
    finish(&s);
}

static void test_phone_that_lost_its_storage_shows_the_last_half_hour_again_in_order(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (uint64_t q = 1; q <= 9; q++)
        push(&s, q);
    pass(&s, S);
    step(&s, (struct client_event){.type = CLIENT_STORAGE_LOST});
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 1);
    s.n = 0;
    pass(&s, S);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    assert_int_equal(sent(&s, MSG_HELLO, 0)->claims_n, 0);
    struct claim head = {CHAT, EPOCH, 9};
    welcome(&s, &head, 1);
    assert_int_equal(sent(&s, MSG_SYNC, 0)->since, s.io.now.wall_us + 5000000 - 1800 * 1000000ull);
    push(&s, 10); /* a live one comes first */
    for (uint64_t q = 7; q <= 9; q++)
        push(&s, q);
    sync_done(&s, 9, false);
    assert_surfaced(&s, "");
    assert_int_equal(sent(&s, MSG_SYNC, 1)->after, 6);
    for (uint64_t q = 7; q <= 10; q++)
        push(&s, q);
    sync_done(&s, 10, false);
    assert_surfaced(&s, "7 8 9 10");
    assert_false(s.c.rebuild);
    finish(&s);
}

static void test_silence_after_a_send_means_a_dead_connection(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    pass(&s, 9 * S);
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 0);
    pass(&s, 1100 * MS);
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 1);
    assert_int_equal(first(&s, CLIENT_DO_CLOSE)->reason, REASON_TIMED_OUT);
    pass(&s, S);
    assert_non_null(first(&s, CLIENT_DO_CONNECT));
    finish(&s);
}

static void test_idle_connection_is_not_taken_as_dead(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    pass(&s, 300 * S);
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 0);
    assert_in_range(count_sent(&s, MSG_BEAT), 29, 31);
    finish(&s);
}

static void test_reconnects_come_fast_first_and_then_back_off(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    for (int i = 0; i < 20; i++) {
        uint64_t ceiling = i > 5 ? CLIENT_RECONNECT_MAX_NS : CLIENT_RECONNECT_BASE_NS << i;
        if (ceiling > CLIENT_RECONNECT_MAX_NS)
            ceiling = CLIENT_RECONNECT_MAX_NS;
        s.n = 0;
        step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_REFUSED});
        assert_true(s.timer_ns > s.io.now.mono_ns);
        assert_true(s.timer_ns - s.io.now.mono_ns <= ceiling);
        pass(&s, ceiling);
        assert_non_null(first(&s, CLIENT_DO_CONNECT));
    }
    finish(&s);
}

static void test_terminal_close_is_the_end(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .code = CLOSE_BAD_TOKEN});
    assert_int_equal(count(&s, CLIENT_ENDED), 1);
    pass(&s, 60 * S);
    assert_null(first(&s, CLIENT_DO_CONNECT));
    finish(&s);
}

static void refuse(struct story *s, const char *code, uint32_t retry_ms)
{
    hear(s, (struct msg){.t = MSG_ERROR,
                         .code = slice_of(code),
                         .id = s->last,
                         .retry_ms = retry_ms,
                         .re = SLICE("send")});
}

static void test_refusals_wait_or_end_as_their_code_says(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    refuse(&s, "rate_limited", 400);
    pass(&s, 390 * MS);
    assert_int_equal(count_sent(&s, MSG_SEND), 1);
    pass(&s, 300 * MS);
    assert_int_equal(count_sent(&s, MSG_SEND), 2);
    refuse(&s, "id_conflict", 0);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_ID_CONFLICT);
    s.n = 0;
    say(&s);
    refuse(&s, "not_member", 0);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_NOT_MEMBER);
    assert_int_equal(s.c.outbox.count, 0);
    finish(&s);
}

static void test_message_waits_for_a_chat_that_is_not_there_yet(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    for (unsigned tries = 1; tries <= 6; tries++) {
        assert_int_equal(count_sent(&s, MSG_SEND), tries);
        refuse(&s, "no_such_chat", 0);
        assert_int_equal(s.c.outbox.count, 1);
        pass(&s, (200 * MS << tries) - MS); /* ever longer: nobody may be making it */
        assert_int_equal(count_sent(&s, MSG_SEND), tries);
        pass(&s, (100 * MS << tries) + 2 * MS);
    }
    assert_int_equal(count(&s, CLIENT_GAVE_UP), 0);
    hear(&s, (struct msg){.t = MSG_ACCEPTED, .id = s.last, .chat = CHAT, .epoch = EPOCH, .seq = 1});
    assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
    assert_int_equal(s.c.outbox.count, 0);
    finish(&s);
}

static void test_refusal_is_the_end_for_who_keeps_no_outbox(void **state)
{
    (void)state;
    struct story s;
    begin_as(&s, "legacy", true);
    say(&s);
    refuse(&s, "no_such_chat", 0);
    assert_int_equal(count(&s, CLIENT_GAVE_UP), 1);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_NOT_MEMBER);
    assert_true(id_equal(&first(&s, CLIENT_GAVE_UP)->id, &s.last));
    pass(&s, 60 * S);
    assert_int_equal(count_sent(&s, MSG_SEND), 1);
    finish(&s);
}

static void test_id_too_old_is_looked_for_in_the_log_before_the_person_is_asked(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    refuse(&s, "id_too_old", 0);
    assert_int_equal(sent(&s, MSG_SYNC, 0)->chat, CHAT);
    assert_int_equal(sent(&s, MSG_SYNC, 0)->since, (id_unix_ms(&s.last) - 1000) * 1000);
    msg_of(&s, EPOCH, 1, ME, s.last);
    sync_done(&s, 1, false);
    assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
    assert_int_equal(count(&s, CLIENT_GAVE_UP), 0);
    say(&s);
    refuse(&s, "id_too_old", 0);
    sync_done(&s, 1, false);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_ID_TOO_OLD);
    finish(&s);
}

static void test_pressing_send_again_reoffers_the_same_id_at_once(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    struct id id = s.last;
    step(&s, (struct client_event){.type = CLIENT_PRESS, .id = id, .chat = CHAT, .intent = 1});
    assert_int_equal(count(&s, CLIENT_RESENT), 1);
    assert_int_equal(count_sent(&s, MSG_SEND), 2);
    assert_true(id_equal(&sent(&s, MSG_SEND, 1)->id, &id));
    finish(&s);
}

static void test_legacy_forgets_what_it_said_and_shows_what_it_hears(void **state)
{
    (void)state;
    struct story s;
    begin_as(&s, "legacy", true);
    say(&s);
    struct id id = s.last;
    pass(&s, 60 * S);
    assert_int_equal(count_sent(&s, MSG_SEND), 1);
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 0); /* it believes its socket */
    push(&s, 4);
    push(&s, 2);
    push(&s, 2);
    assert_surfaced(&s, "4 2 2");
    assert_int_equal(count_sent(&s, MSG_ACK) + count_sent(&s, MSG_SYNC), 0);
    step(&s, (struct client_event){.type = CLIENT_PRESS,
                                   .id = id,
                                   .chat = CHAT,
                                   .intent = 1,
                                   .kind = SLICE("text"),
                                   .body = SLICE("hello")});
    assert_int_equal(count_sent(&s, MSG_SEND), 2);
    assert_false(id_equal(&sent(&s, MSG_SEND, 1)->id, &id));
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    s.n = 0;
    say(&s);
    assert_int_equal(first(&s, CLIENT_GAVE_UP)->reason, REASON_NOT_CONNECTED);
    pass(&s, S);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    assert_false(sent(&s, MSG_HELLO, 0)->has_resume);
    welcome(&s, NULL, 0);
    assert_int_equal(count_sent(&s, MSG_SEND), 0);
    finish(&s);
}

static void test_resync_against_a_server_that_serves_none_passes_holes_over(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    push(&s, 1);
    push(&s, 3);
    hear(&s, (struct msg){.t = MSG_ERROR, .code = SLICE("unknown_type"), .re = SLICE("sync")});
    push(&s, 4);
    push(&s, 7);
    assert_surfaced(&s, "1 4 7");
    pass(&s, 30 * S);
    assert_int_equal(count_sent(&s, MSG_SYNC), 1);
    finish(&s);
}

static void test_without_network_nothing_is_tried(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    step(&s, (struct client_event){.type = CLIENT_OFFLINE});
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_NETWORK_CHANGED});
    s.n = 0;
    pass(&s, 60 * S);
    assert_null(first(&s, CLIENT_DO_CONNECT));
    step(&s, (struct client_event){.type = CLIENT_ONLINE});
    assert_non_null(first(&s, CLIENT_DO_CONNECT));
    finish(&s);
}

static void test_an_own_message_can_be_the_first_that_a_device_without_memory_is_pushed(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    say(&s);
    struct id id = first(&s, CLIENT_SUBMITTED)->id;
    step(&s,
         (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET}); /* accepted is lost */
    pass(&s, S);
    step(&s, (struct client_event){.type = CLIENT_CONNECTED});
    welcome(&s, &(struct claim){CHAT, EPOCH, 1}, 1);
    s.n = 0;
    msg_of(&s, EPOCH, 1, ME, id);
    assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
    pass(&s, S);
    assert_int_equal(sent(&s, MSG_ACK, 0)->seq, 1); /* else the server would close, and push it again */
    s.n = 0;
    msg_of(&s, EPOCH, 1, ME, id);
    assert_int_equal(count(&s, CLIENT_SURFACE), 0);
    assert_int_equal(count(&s, CLIENT_DUPLICATE), 1);
    finish(&s);
}

/* It says something before it knows where the chat begins; then the log comes, with that in it. */
static void test_what_a_device_without_memory_had_accepted_is_not_shown_to_it(void **state)
{
    (void)state;
    for (unsigned rebuilds = 0; rebuilds < 2; rebuilds++) {
        struct story s;
        begin_as(&s, "reliable", false);
        step(&s, (struct client_event){.type = CLIENT_CONNECTED});
        s.c.rebuild = rebuilds;
        welcome(&s, &(struct claim){CHAT, EPOCH, 2}, 1);
        for (uint64_t seq = 3; seq <= 5; seq += 2) {
            s.n = 0;
            say(&s);
            struct id id = first(&s, CLIENT_SUBMITTED)->id;
            accept(&s, id, seq);
            assert_int_equal(count(&s, CLIENT_ACCEPTED), 1);
        }
        s.n = 0;
        for (uint64_t seq = 1; seq <= 6; seq++)
            msg_of(&s, EPOCH, seq, seq == 3 || seq == 5 ? ME : 8, id_no((uint8_t)(100 + seq)));
        if (rebuilds) {
            hear(&s, (struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = CHAT, .to = 6});
            assert_int_equal(count(&s, CLIENT_SURFACE), 0); /* only noted: all is asked for in order */
            for (uint64_t seq = 1; seq <= 6; seq++)
                msg_of(&s, EPOCH, seq, seq == 3 || seq == 5 ? ME : 8, id_no((uint8_t)(100 + seq)));
        }
        assert_int_equal(count(&s, CLIENT_SURFACE), 4);
        struct claim at;
        assert_true(client_cursor(&s.c, CHAT, &at));
        assert_true(at.epoch == EPOCH && at.seq == 6);
        finish(&s);
    }
}

static void types(struct story *s, uint64_t user, uint64_t until_us)
{
    hear(s, (struct msg){.t = MSG_TYPING, .chat = CHAT, .user = user, .to = until_us});
}

/* The server's clock is 5 s ahead (welcome_of). */
static uint64_t server_now(const struct story *s)
{
    return s->io.now.wall_us + 5000000;
}

static void test_typing_is_shown_until_the_server_s_time_and_at_most_ten_seconds(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    types(&s, 8, server_now(&s) + 4000000);
    types(&s, 9, server_now(&s) + 3600000000);
    types(&s, ME, server_now(&s) + 4000000);
    types(&s, 10, server_now(&s) - 1); /* long on its way */
    assert_int_equal(count(&s, CLIENT_TYPING), 2);
    pass(&s, 3900 * MS);
    assert_true(client_shows_typing(&s.c, CHAT, 8));
    pass(&s, 200 * MS);
    assert_false(client_shows_typing(&s.c, CHAT, 8));
    pass(&s, 5800 * MS);
    assert_true(client_shows_typing(&s.c, CHAT, 9));
    pass(&s, 200 * MS);
    assert_int_equal(count(&s, CLIENT_TYPING_OVER), 2);
    finish(&s);
}

static void test_typing_ends_with_the_typist_s_message_and_when_the_app_sleeps(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    types(&s, 8, 0);
    push(&s, 1);
    assert_false(client_shows_typing(&s.c, CHAT, 8));
    hear(&s, (struct msg){.t = MSG_TYPING, .chat = CHAT, .user = 8, .ts = s.io.now.wall_us + 1});
    push(&s, 2); /* older: it comes with the log */
    assert_true(client_shows_typing(&s.c, CHAT, 8));
    step(&s, (struct client_event){.type = CLIENT_BACKGROUND});
    assert_false(client_shows_typing(&s.c, CHAT, 8));
    finish(&s);
}

static void test_typing_is_over_in_time_also_without_a_connection(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    types(&s, 8, 0);
    step(&s, (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET});
    pass(&s, 10 * S);
    assert_false(client_shows_typing(&s.c, CHAT, 8));
    finish(&s);
}

static void test_who_types_says_so_every_three_seconds(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    for (int i = 0; i < 10; i++) { /* a key a second */
        step(&s, (struct client_event){.type = CLIENT_TYPE, .chat = CHAT});
        pass(&s, S);
    }
    assert_int_equal(count_sent(&s, MSG_TYPING), 4);
    finish(&s);
}

static void test_who_watches_says_so_again_and_leaves_a_connection_that_does_not_answer(void **state)
{
    struct story s;
    uint64_t users[] = {8, 9};
    (void)state;
    begin(&s);
    step(&s, (struct client_event){.type = CLIENT_WATCH, .users = users, .users_n = 2});
    assert_int_equal(count_sent(&s, MSG_WATCH), 1);
    pass(&s, 20 * S); /* a beat within 10 s, 10 s without an answer */
    assert_int_equal(count(&s, CLIENT_DO_CLOSE), 1);
    assert_int_equal(count(&s, CLIENT_PRESENCE_LOST), 1);
    reconnect(&s, REASON_TIMED_OUT, NULL, 0);
    assert_int_equal(count_sent(&s, MSG_WATCH), 1);
    finish(&s);
}

static void test_who_waited_long_for_its_welcome_says_at_once_that_it_is_there(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        struct story s;
        begin_as(&s, "reliable", false);
        step(&s, (struct client_event){.type = CLIENT_CONNECTED});
        pass(&s, late ? 6 * S : S);
        s.n = 0;
        welcome(&s, NULL, 0);
        assert_int_equal(count_sent(&s, MSG_BEAT), late);
        pass(&s, 30 * S); /* and then every 10 s */
        assert_int_equal(count_sent(&s, MSG_BEAT), 3 + late);
        finish(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_typing_is_shown_until_the_server_s_time_and_at_most_ten_seconds),
        cmocka_unit_test(test_typing_ends_with_the_typist_s_message_and_when_the_app_sleeps),
        cmocka_unit_test(test_typing_is_over_in_time_also_without_a_connection),
        cmocka_unit_test(test_who_types_says_so_every_three_seconds),
        cmocka_unit_test(test_who_watches_says_so_again_and_leaves_a_connection_that_does_not_answer),
        cmocka_unit_test(test_features_are_words_joined_by_plus),
        cmocka_unit_test(test_id_carries_the_servers_time_and_exists_before_the_first_attempt),
        cmocka_unit_test(test_lost_accepted_is_retried_with_the_same_id_and_is_no_duplicate),
        cmocka_unit_test(test_msg_with_an_id_of_the_outbox_is_its_accepted),
        cmocka_unit_test(test_resends_back_off_within_bounds),
        cmocka_unit_test(test_after_three_attempts_it_is_shown_as_not_sent_yet_and_stays),
        cmocka_unit_test(test_outbox_is_flushed_in_order_after_a_reconnect),
        cmocka_unit_test(test_full_outbox_gives_the_message_up_and_says_so),
        cmocka_unit_test(test_outbox_survives_a_restart_of_the_app),
        cmocka_unit_test(test_messages_surface_once_and_are_acknowledged_cumulatively),
        cmocka_unit_test(test_acknowledgements_wait_longer_while_messages_keep_coming),
        cmocka_unit_test(test_devices_acknowledge_at_different_times),
        cmocka_unit_test(test_hole_is_asked_for_and_filled_in_order),
        cmocka_unit_test(test_accepted_fills_the_place_of_an_own_message),
        cmocka_unit_test(test_hole_before_an_own_message_is_asked_for_after_a_while),
        cmocka_unit_test(test_gap_is_accepted_as_a_jump),
        cmocka_unit_test(test_entry_that_returns_after_an_epoch_change_is_known_by_its_place),
        cmocka_unit_test(test_ranges_of_a_chat_one_is_out_of_do_not_hold_up_others),
        cmocka_unit_test(test_sync_that_the_server_could_not_read_is_put_off_behind_other_chats),
        cmocka_unit_test(test_entry_that_returns_before_the_new_epoch_has_said_anything_is_shown),
        cmocka_unit_test(test_server_with_an_empty_store_is_believed),
        cmocka_unit_test(test_what_an_empty_store_took_before_we_came_back_is_read_from_its_start),
        cmocka_unit_test(test_hello_resumes_from_the_cursors),
        cmocka_unit_test(test_coming_to_the_foreground_asks_for_what_was_missed),
        cmocka_unit_test(test_phone_that_lost_its_storage_shows_the_last_half_hour_again_in_order),
        cmocka_unit_test(test_silence_after_a_send_means_a_dead_connection),
        cmocka_unit_test(test_idle_connection_is_not_taken_as_dead),
        cmocka_unit_test(test_reconnects_come_fast_first_and_then_back_off),
        cmocka_unit_test(test_terminal_close_is_the_end),
        cmocka_unit_test(test_refusals_wait_or_end_as_their_code_says),
        cmocka_unit_test(test_message_waits_for_a_chat_that_is_not_there_yet),
        cmocka_unit_test(test_refusal_is_the_end_for_who_keeps_no_outbox),
        cmocka_unit_test(test_id_too_old_is_looked_for_in_the_log_before_the_person_is_asked),
        cmocka_unit_test(test_pressing_send_again_reoffers_the_same_id_at_once),
        cmocka_unit_test(test_legacy_forgets_what_it_said_and_shows_what_it_hears),
        cmocka_unit_test(test_resync_against_a_server_that_serves_none_passes_holes_over),
        cmocka_unit_test(test_without_network_nothing_is_tried),
        cmocka_unit_test(test_who_waited_long_for_its_welcome_says_at_once_that_it_is_there),
        cmocka_unit_test(test_what_a_device_without_memory_had_accepted_is_not_shown_to_it),
        cmocka_unit_test(test_an_own_message_can_be_the_first_that_a_device_without_memory_is_pushed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

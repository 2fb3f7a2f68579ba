/* The codec against an independent one (jansson), on random messages and on real chat text; and its speed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_msg.h"
#include "util/clock.h"

#define ROUNDS 20000

static struct proto_scratch scratch;
static struct err_ctx ctx;

static int setup(void **state)
{
    (void)state;
    scratch = (struct proto_scratch){malloc(PROTO_SCRATCH), PROTO_SCRATCH, 0};
    return scratch.data ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(scratch.data);
    return 0;
}

static void decode(const char *p, size_t n, struct msg *m)
{
    struct proto_frame f;
    if (proto_frame_begin(&f, p, n, &scratch, &ctx) || proto_frame_next(&f, m, &ctx) != 1)
        fail_msg("%s: %.*s", ctx.text, (int)n, p);
    assert_int_equal(proto_frame_next(&f, m, &ctx), 0);
}

static void same_text(struct slice a, struct slice b)
{
    assert_int_equal(a.n, b.n);
    if (a.n)
        assert_memory_equal(a.p, b.p, a.n);
}

/* Every member that both have: field by field through the table of members, so that none is forgotten. */
static void same_msg(const struct msg *a, const struct msg *b, uint64_t fields)
{
    assert_int_equal(a->t, b->t);
#define HAS(f) (fields & MSG_HAS(f))
#define NUM(f)                                                                                               \
    if (HAS(f))                                                                                              \
    assert_true(a->f == b->f)
#define TXT(f)                                                                                               \
    if (HAS(f))                                                                                              \
    same_text(a->f, b->f)
    NUM(device);
    NUM(chat);
    NUM(seq);
    NUM(away);
    NUM(after);
    NUM(limit);
    NUM(since);
    NUM(user);
    NUM(epoch);
    NUM(ts);
    NUM(beat_s);
    NUM(dup);
    NUM(from);
    NUM(to);
    NUM(more);
    NUM(gap_from);
    NUM(retry_ms);
    NUM(reconnect);
    TXT(token);
    TXT(net);
    TXT(kind);
    TXT(body);
    TXT(session);
    TXT(re);
    TXT(reason);
    TXT(code);
    TXT(text);
    if (HAS(id))
        assert_memory_equal(&a->id, &b->id, sizeof a->id);
    if (HAS(limits))
        assert_memory_equal(&a->limits, &b->limits, sizeof a->limits);
    if (HAS(tag)) {
        assert_int_equal(a->tag_len, b->tag_len);
        assert_memory_equal(a->tag, b->tag, a->tag_len);
    }
    NUM(ok);
    NUM(delivered);
    NUM(read);
    if (HAS(counts)) {
        assert_int_equal(a->counts_n, b->counts_n);
        for (uint32_t i = 0; i < a->counts_n; i++) {
            const struct msg_count *x = &a->counts[i], *y = &b->counts[i];
            assert_true(x->from == y->from && x->to == y->to);
            assert_true(x->delivered == y->delivered && x->read == y->read && x->of == y->of);
        }
    }
    if (HAS(ranges)) {
        assert_int_equal(a->ranges_n, b->ranges_n);
        for (uint32_t i = 0; i < a->ranges_n; i++) {
            assert_true(a->ranges[i].from == b->ranges[i].from);
            assert_true(a->ranges[i].to == b->ranges[i].to);
        }
    }
    if (HAS(reports)) {
        assert_int_equal(a->reports_n, b->reports_n);
        for (uint32_t i = 0; i < a->reports_n; i++) {
            assert_true(a->reports[i].chat == b->reports[i].chat);
            assert_true(a->reports[i].epoch == b->reports[i].epoch);
            assert_true(a->reports[i].head == b->reports[i].head);
            assert_int_equal(a->reports[i].hash_len, b->reports[i].hash_len);
            assert_memory_equal(a->reports[i].hash, b->reports[i].hash, a->reports[i].hash_len);
        }
    }
    if (HAS(refused)) {
        assert_int_equal(a->refused_n, b->refused_n);
        for (uint32_t i = 0; i < a->refused_n; i++) {
            assert_memory_equal(&a->refused[i].id, &b->refused[i].id, sizeof a->id);
            same_text(a->refused[i].code, b->refused[i].code);
        }
    }
    if (HAS(entries)) {
        assert_int_equal(a->entries_n, b->entries_n);
        for (uint32_t i = 0; i < a->entries_n; i++) {
            const struct msg_entry *x = &a->entries[i], *y = &b->entries[i];
            assert_true(x->epoch == y->epoch && x->seq == y->seq && x->from == y->from && x->ts == y->ts);
            assert_memory_equal(&x->id, &y->id, sizeof x->id);
            same_text(x->kind, y->kind);
            same_text(x->body, y->body);
            assert_int_equal(x->tag_len, y->tag_len);
            assert_memory_equal(x->tag, y->tag, x->tag_len);
        }
    }
    if (HAS(resume)) {
        assert_int_equal(a->resume_n, b->resume_n);
        if (a->resume_n)
            assert_memory_equal(a->resume, b->resume, a->resume_n * sizeof *a->resume);
    }
    if (HAS(users)) {
        assert_int_equal(a->users_n, b->users_n);
        if (a->users_n)
            assert_memory_equal(a->users, b->users, a->users_n * sizeof *a->users);
    }
    if (HAS(notices)) {
        assert_int_equal(a->notices_n, b->notices_n);
        for (uint32_t i = 0; i < a->notices_n; i++)
            same_text(a->notices[i], b->notices[i]);
    }
#undef HAS
#undef NUM
#undef TXT
}

static void test_random_messages_come_back_equal(void **state)
{
    (void)state;
    struct rng r;
    struct buf b = BUF_INIT(8 << 20);
    rng_seed(&r, 7);
    for (int i = 0; i < ROUNDS; i++) {
        struct msg m = random_msg(&r, (enum msg_type)(1 + i % (MSG_TYPE_COUNT - 1))), back;
        buf_reset(&b);
        proto_encode(&b, &m);
        decode(b.data, b.len, &back);
        same_msg(&m, &back, back.has);
    }
    buf_release(&b);
}

static void check_u64s(const json_t *v, uint64_t want)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)want);
    assert_string_equal(json_string_value(v), text);
}

/* What jansson reads out of our text, against the message that was written. */
static void check_with_jansson(const struct buf *b, const struct msg *m)
{
    json_error_t e;
    json_t *o = json_loadb(b->data, b->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e), *v;
    if (!o)
        fail_msg("jansson: %s in %.*s", e.text, (int)b->len, b->data);
    assert_string_equal(json_string_value(json_object_get(o, "t")), msg_type_name(m->t));
    if ((v = json_object_get(o, "chat")))
        check_u64s(v, m->chat);
    if ((v = json_object_get(o, "epoch")))
        check_u64s(v, m->epoch);
    if ((v = json_object_get(o, "seq")))
        assert_true((uint64_t)json_integer_value(v) == m->seq);
    if ((v = json_object_get(o, "ts")))
        assert_true((uint64_t)json_integer_value(v) == m->ts);
    if ((v = json_object_get(o, "dup")))
        assert_int_equal(json_is_true(v), m->dup);
    if ((v = json_object_get(o, "device")))
        assert_int_equal(json_integer_value(v), m->device);
    if ((v = json_object_get(o, "body")))
        same_text((struct slice){json_string_value(v), json_string_length(v)}, m->body);
    if ((v = json_object_get(o, "code")))
        same_text((struct slice){json_string_value(v), json_string_length(v)}, m->code);
    if ((v = json_object_get(o, "users"))) {
        assert_int_equal(json_array_size(v), m->users_n);
        for (uint32_t i = 0; i < m->users_n; i++)
            check_u64s(json_array_get(v, i), m->users[i]);
    }
    if (m->t != MSG_REPORT && (v = json_object_get(o, m->t == MSG_HELLO ? "resume" : "chats"))) {
        assert_int_equal(json_array_size(v), m->resume_n);
        for (uint32_t i = 0; i < m->resume_n; i++) {
            json_t *claim = json_array_get(v, i);
            assert_int_equal(json_array_size(claim), 3);
            check_u64s(json_array_get(claim, 0), m->resume[i].chat);
            check_u64s(json_array_get(claim, 1), m->resume[i].epoch);
            assert_true((uint64_t)json_integer_value(json_array_get(claim, 2)) == m->resume[i].seq);
        }
    }
    json_decref(o);
}

static void test_jansson_reads_what_we_write(void **state)
{
    (void)state;
    struct rng r;
    struct buf b = BUF_INIT(8 << 20);
    rng_seed(&r, 8);
    for (int i = 0; i < ROUNDS / 4; i++) {
        struct msg m = random_msg(&r, (enum msg_type)(1 + i % (MSG_TYPE_COUNT - 1)));
        buf_reset(&b);
        proto_encode(&b, &m);
        check_with_jansson(&b, &m);
    }
    buf_release(&b);
}

/* jansson writes it its own way: keys sorted, all beyond ASCII escaped, indented. */
static void test_we_read_what_jansson_writes(void **state)
{
    (void)state;
    static const size_t styles[] = {JSON_ENSURE_ASCII | JSON_SORT_KEYS, JSON_INDENT(3),
                                    JSON_COMPACT | JSON_ESCAPE_SLASH};
    struct rng r;
    struct buf b = BUF_INIT(8 << 20);
    rng_seed(&r, 9);
    for (int i = 0; i < ROUNDS / 4; i++) {
        struct msg m = random_msg(&r, (enum msg_type)(1 + i % (MSG_TYPE_COUNT - 1))), back;
        buf_reset(&b);
        proto_encode(&b, &m);
        json_t *o = json_loadb(b.data, b.len, JSON_ALLOW_NUL, NULL);
        char *text = json_dumps(o, styles[i % 3]);
        assert_non_null(text);
        decode(text, strlen(text), &back);
        same_msg(&m, &back, back.has);
        free(text);
        json_decref(o);
    }
    buf_release(&b);
}

/* Valid or not, both must agree: our frame of one object of unknown type against jansson. */
static void test_we_refuse_what_jansson_refuses(void **state)
{
    (void)state;
    static const char *const values[] = {"1",
                                         "-0",
                                         "0.5e-7",
                                         "1.",
                                         ".1",
                                         "+1",
                                         "0x1",
                                         "00",
                                         "1e",
                                         "tru",
                                         "true",
                                         "nul",
                                         "null",
                                         "[]",
                                         "[1 2]",
                                         "[1,]",
                                         "{}",
                                         "{\"a\"}",
                                         "{\"a\":}",
                                         "\"\\u12\"",
                                         "\"\t\"",
                                         "\"\\a\"",
                                         "\"\"",
                                         "\"\x7f\"",
                                         "\"\xc3\"",
                                         "\"\xe0\x80\x80\"",
                                         "\"\xef\xbf\xbf\"",
                                         "'a'",
                                         "[[[]]]",
                                         "NaN"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char text[200];
        struct proto_frame f;
        struct msg m;
        snprintf(text, sizeof text, "{\"t\":\"x\",\"v\":%s}", values[i]);
        json_t *o = json_loads(text, 0, NULL);
        bool ours =
            !proto_frame_begin(&f, text, strlen(text), &scratch, NULL) && proto_frame_next(&f, &m, NULL) == 1;
        if (ours != (o != NULL))
            fail_msg("%s: %d, jansson %d", text, ours, o != NULL);
        json_decref(o);
    }
}

static void test_real_chat_text_round_trips(void **state)
{
    (void)state;
    glob_t g;
    size_t lines = 0;
    struct buf b = BUF_INIT(8 << 20);
    if (glob("../shared/data/chat/irc-disentanglement/*/*.txt", 0, NULL, &g)) {
        print_message("../shared/data/chat is absent\n");
        skip();
    }
    for (size_t i = 0; i < g.gl_pathc; i++) {
        FILE *f = fopen(g.gl_pathv[i], "r");
        char *line = NULL;
        size_t cap = 0;
        ssize_t n;
        assert_non_null(f);
        while ((n = getline(&line, &cap, f)) > 0) {
            struct msg m = {.t = MSG_SEND, .kind = SLICE("text"), .body = {line, (size_t)n}}, back;
            struct proto_frame fr;
            buf_reset(&b);
            proto_encode(&b, &m);
            json_t *o = json_loadb(b.data, b.len, 0, NULL); /* some lines are no UTF-8 */
            int rc = proto_frame_begin(&fr, b.data, b.len, &scratch, &ctx);
            rc = rc ? rc : proto_frame_next(&fr, &back, &ctx);
            assert_int_equal(rc == 1, o != NULL);
            if (o)
                same_text(m.body, back.body);
            json_decref(o);
            lines++;
        }
        free(line);
        fclose(f);
    }
    globfree(&g);
    print_message("# %zu lines\n", lines);
    assert_true(lines > 1000);
    buf_release(&b);
}

/* Not a judge of the machine, only of an accident: 20 times slower than usual would be one. */
static void test_decoding_is_fast(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(1 << 20);
    struct rng r;
    rng_seed(&r, 1);
    struct msg m = {.t = MSG_MSG,
                    .chat = 17,
                    .epoch = 4812148121481214812,
                    .seq = 123456,
                    .from = 7000001,
                    .ts = 1764000000000000,
                    .kind = SLICE("text"),
                    .tag_len = 16,
                    .id = id_new(1764000000000, &r)};
    m.body = SLICE("so the plan is to meet at seven near the old station, and then we walk - \"if it does "
                   "not rain\" - to "
                   "the place by the river that \xc3\x85sa found last week");
    proto_encode(&b, &m);
    uint64_t best_in = UINT64_MAX, best_out = UINT64_MAX;
    for (int k = 0; k < 5; k++) {
        uint64_t t0 = clock_mono_ns();
        for (int i = 0; i < 10000; i++) {
            struct msg back;
            decode(b.data, b.len, &back);
        }
        uint64_t t1 = clock_mono_ns();
        for (int i = 0; i < 10000; i++) {
            size_t keep = b.len;
            proto_encode(&b, &m);
            b.len = keep;
        }
        uint64_t t2 = clock_mono_ns();
        best_in = t1 - t0 < best_in ? t1 - t0 : best_in;
        best_out = t2 - t1 < best_out ? t2 - t1 : best_out;
    }
    print_message("# %zu bytes: decode %.0f MB/s (%.0f ns), encode %.0f ns\n", b.len,
                  (double)b.len * 1e7 / (double)best_in, (double)best_in / 10000, (double)best_out / 10000);
    assert_true(best_in < 10000ull * 20000);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_messages_come_back_equal),
        cmocka_unit_test(test_jansson_reads_what_we_write),
        cmocka_unit_test(test_we_read_what_jansson_writes),
        cmocka_unit_test(test_we_refuse_what_jansson_refuses),
        cmocka_unit_test(test_real_chat_text_round_trips),
        cmocka_unit_test(test_decoding_is_fast),
    };
    return cmocka_run_group_tests_name("peer", tests, setup, teardown);
}

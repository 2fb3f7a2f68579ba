/* chat.v1 in JSON: what is read, what is written, and what is refused with which sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/proto.h"

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

/* Read all of a frame; the last message in *m, the number of messages or the error back. The text is copied
 * to memory of its exact size, so that a sanitizer sees each read behind its end. */
static char *held;
static int read_frame(const char *text, size_t n, struct msg *m)
{
    struct proto_frame f;
    int count = 0, rc;
    free(held);
    held = malloc(n ? n : 1);
    memcpy(held, text, n);
    memset(&ctx, 0, sizeof ctx);
    rc = proto_frame_begin(&f, held, n, &scratch, &ctx);
    while (!rc && (rc = proto_frame_next(&f, m, &ctx)) == 1) {
        count++;
        rc = 0;
        if (f.done && f.p == f.end)
            break;
    }
    if (rc < 0) {
        assert_int_equal(ctx.code, rc);
        assert_true(proto_frame_next(&f, m, NULL) <= 0); /* spent */
    } else {
        assert_int_equal(proto_frame_next(&f, m, &ctx), 0);
    }
    return rc < 0 ? rc : count;
}

static int read_one(const char *text, struct msg *m)
{
    struct proto_frame f;
    free(held);
    held = strdup(text);
    int rc = proto_frame_begin(&f, held, strlen(text), &scratch, &ctx);
    return rc ? rc : proto_frame_next(&f, m, &ctx);
}

#define ID  "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f"
#define TAG "AAECAwQFBgcICQoLDA0ODw"

/* One line of each type, in the encoder's own form. */
static const char *const lines[] = {
    "{\"t\":\"hello\",\"token\":\"a.b.c\",\"device\":1,\"net\":\"lte\",\"resume\":[[\"17\",\"48121\",5],["
    "\"18\",\"1\",0]]}",
    "{\"t\":\"send\",\"id\":\"" ID
    "\",\"chat\":\"17\",\"kind\":\"text\",\"body\":\"hi \\\"you\\\" \xc3\xa4\\n\"}",
    "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1}",
    "{\"t\":\"read\",\"chat\":\"17\",\"seq\":9007199254740991}",
    "{\"t\":\"beat\",\"away\":true}",
    "{\"t\":\"sync\",\"chat\":\"17\",\"after\":4,\"limit\":100}",
    "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"7\",\"18446744073709551615\"]}",
    "{\"t\":\"join\",\"chat\":\"17\"}",
    "{\"t\":\"leave\",\"chat\":\"17\"}",
    "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"7\"}",
    "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"7\"}",
    "{\"t\":\"welcome\",\"session\":\"9f\",\"epoch\":\"48121\",\"ts\":1764000000000000,\"beat_s\":10,"
    "\"limits\":{\"body\":"
    "65536,\"batch\":50,\"rate_per_s\":100,\"chats\":4096},\"notices\":[\"a\",\"b\"],\"chats\":[]}",
    "{\"t\":\"accepted\",\"id\":\"" ID
    "\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1,\"ts\":1764000000000000,\"tag\":\"" TAG
    "\",\"dup\":false}",
    "{\"t\":\"msg\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1,\"id\":\"" ID
    "\",\"from\":\"7\",\"ts\":1764000000000000,\"kind\":\"text\",\"body\":\"hi\",\"tag\":\"" TAG "\"}",
    "{\"t\":\"done\",\"re\":\"create\",\"chat\":\"17\",\"to\":4,\"more\":true}",
    "{\"t\":\"gap\",\"chat\":\"17\",\"from\":1,\"to\":9,\"reason\":\"retention\"}",
    "{\"t\":\"notice\",\"code\":\"x\",\"text\":\"y\"}",
    "{\"t\":\"error\",\"code\":\"limit\",\"text\":\"y\",\"retry_ms\":50,\"id\":\"" ID
    "\",\"re\":\"send\",\"chat\":\"17\"}",
    "{\"t\":\"bye\",\"code\":\"x\",\"text\":\"y\",\"reconnect\":true}",
    "{\"t\":\"report\",\"chats\":[[\"17\",\"48121\",5,\"" TAG "\"],[\"18\",\"0\",0,\"\"]]}",
    "{\"t\":\"ask\",\"chat\":\"17\",\"ranges\":[[5,9],[12,12]]}",
    "{\"t\":\"offer\",\"chat\":\"17\",\"entries\":[[\"48121\",5,\"" ID
    "\",\"7\",1764000000000000,\"text\",\"h\\\"i\",\"" TAG "\"]],\"more\":true}",
    "{\"t\":\"offered\",\"chat\":\"17\",\"ok\":1,\"refused\":[[\"" ID "\",\"forged\"]]}",
    "{\"t\":\"quiet\",\"chat\":\"17\",\"on\":true}",
    "{\"t\":\"unread\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":5}",
    "{\"t\":\"typing\",\"chat\":\"17\",\"user\":\"7\",\"until\":1748952000000000,\"ts\":5}",
    "{\"t\":\"watch\",\"users\":[\"7\",\"8\"]}",
    "{\"t\":\"presence\",\"user\":\"7\",\"state\":\"away\",\"seen\":5}",
    "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true,\"seqs\":[[5,9],[12,12]]}",
    "{\"t\":\"receipt\",\"chat\":\"17\",\"user\":\"8\",\"delivered\":9,\"read\":7}",
    "{\"t\":\"receipt\",\"chat\":\"17\",\"counts\":[[5,9,3,2,4],[12,12,0,0,4]]}",
};

static void test_every_message_round_trips(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1 << 20);
    bool seen[MSG_TYPE_COUNT] = {0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct msg m;
        if (read_one(lines[i], &m) != 1)
            fail_msg("%s: %s", lines[i], ctx.text);
        buf_reset(&out);
        proto_encode(&out, &m);
        assert_string_equal(buf_cstr(&out), lines[i]);
        seen[m.t] = true;
    }
    for (int t = 1; t < MSG_TYPE_COUNT; t++) {
        if (!seen[t])
            fail_msg("no line of type %s here", msg_type_name((enum msg_type)t));
    }
    buf_release(&out);
}

static void test_fields_arrive_where_they_belong(void **state)
{
    (void)state;
    struct msg m;
    assert_int_equal(read_one(lines[13], &m), 1);
    assert_int_equal(m.t, MSG_MSG);
    assert_int_equal(m.chat, 17);
    assert_int_equal(m.epoch, 48121);
    assert_int_equal(m.seq, 1);
    assert_int_equal(m.from, 7);
    assert_int_equal(m.ts, 1764000000000000);
    assert_true(slice_is(m.kind, "text"));
    assert_true(slice_is(m.body, "hi"));
    assert_int_equal(m.tag_len, 16);
    assert_int_equal(m.tag[15], 15);
    assert_true(m.has & MSG_HAS(tag));
    assert_false(m.has & MSG_HAS(user));
    char id[ID_TEXT + 1];
    assert_string_equal(id_str(&m.id, id), ID);
    assert_int_equal(read_one(lines[0], &m), 1);
    assert_int_equal(m.resume_n, 2);
    assert_int_equal(m.resume[0].seq, 5);
    assert_int_equal(m.resume[1].chat, 18);
    assert_int_equal(read_one(lines[15], &m), 1);
    assert_int_equal(m.gap_from, 1);
    assert_int_equal(m.from, 0);
    assert_int_equal(read_one(lines[6], &m), 1);
    assert_int_equal(m.users[1], UINT64_MAX);
}

static void test_order_space_escapes_and_unknown_keys_do_not_matter(void **state)
{
    (void)state;
    struct msg m;
    assert_int_equal(
        read_one(" { \"seq\" : 1 , "
                 "\"x\":[{\"y\":[1,-2.5e+3,null,true,\"\\ud83d\\ude00\"]}],\n\t\"chat\":\"1\\u0037\","
                 "\"\\u0074\":\"a\\u0063k\"}\r\n ",
                 &m),
        1);
    assert_int_equal(m.t, MSG_ACK);
    assert_int_equal(m.chat, 17);
    assert_int_equal(read_one("{\"t\":\"send\",\"id\":\"" ID
                              "\",\"chat\":\"1\",\"kind\":\"k\",\"body\":\"a\\u00e4\\\"\\\\\\/"
                              "\\b\\f\\n\\r\\t\\u0000\\uD83D\\uDe00z\"}",
                              &m),
                     1);
    assert_int_equal(m.body.n, 17);
    assert_memory_equal(m.body.p, "a\xc3\xa4\"\\/\b\f\n\r\t\0\xf0\x9f\x98\x80z", 17);
}

static void test_unknown_type_comes_back_with_its_name(void **state)
{
    (void)state;
    struct msg m;
    assert_int_equal(read_one("{\"t\":\"dance\",\"chat\":5}", &m), 1);
    assert_int_equal(m.t, MSG_NONE);
    assert_true(slice_is(m.code, "dance"));
    assert_int_equal(read_one("{\"a\":\"\\n\",\"t\":\"d\\u0061nce\",\"b\":\"\\t\\t\\t\\t\\t\\t\\t\\t\"}", &m),
                     1);
    assert_true(slice_is(m.code, "dance"));
}

static void test_frames_of_many(void **state)
{
    (void)state;
    struct msg m;
    struct buf b = BUF_INIT(1 << 20);
    for (int n = 1; n <= 51; n++) {
        buf_reset(&b);
        for (int i = 0; i < n; i++)
            buf_printf(&b, "%s{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%d}", i ? ", " : "[ ", i);
        buf_str(&b, " ] ");
        assert_int_equal(read_frame(b.data, b.len, &m), n <= 50 ? n : ERR_LIMIT);
    }
    assert_non_null(strstr(ctx.text, "more than 50 objects in a frame at byte"));
    buf_release(&b);
}

#define ACK "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1}"
static const struct {
    const char *text;
    int code;
    const char *sentence;
} refusals[] = {
    {"", ERR_TRUNCATED, "the text ends too early at byte 0"},
    {"  ", ERR_TRUNCATED, "the text ends too early at byte 2"},
    {"7", ERR_INVALID, "a frame is an object or an array of objects at byte 0"},
    {"[]", ERR_INVALID, "an empty array at byte 1"},
    {"[1]", ERR_INVALID, "a frame holds objects at byte 1"},
    {"[" ACK ",]", ERR_INVALID, "a frame holds objects at byte 33"},
    {"[" ACK, ERR_TRUNCATED, "the text ends too early at byte 32"},
    {"[" ACK "}", ERR_INVALID, "expected ',' or ']' at byte 32"},
    {ACK "x", ERR_INVALID, "text after the end of the frame at byte 31"},
    {ACK "," ACK, ERR_INVALID, "text after the end of the frame at byte 31"},
    {"{}", ERR_INVALID, "the key t is missing at byte 0"},
    {"{\"chat\":\"17\"}", ERR_INVALID, "the key t is missing at byte 0"},
    {"{\"t\":5}", ERR_INVALID, "t: must be a string at byte 5"},
    {"{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1,\"t\":\"ack\"}", ERR_INVALID,
     "the key t stands twice at byte 31"},
    {"{\"t\":\"ack\",\"chat\":\"17\",\"chat\":\"17\"}", ERR_INVALID, "chat: stands twice at byte 23"},
    {"{\"t\":\"ack\",\"chat\":\"17\",\"ch\\u0061t\":\"17\"}", ERR_INVALID, "chat: stands twice at byte 23"},
    {"{\"t\":\"ack\",\"chat\":\"17\"}", ERR_INVALID, "seq: is missing at byte 0"},
    {"{\"t\":\"ack\",\"chat\":17,\"seq\":1}", ERR_INVALID, "chat: must be a string at byte 18"},
    {"{\"t\":\"ack\",\"chat\":\"017\",\"seq\":1}", ERR_INVALID,
     "chat: must be a decimal number in quotes at byte 18"},
    {"{\"t\":\"ack\",\"chat\":\"\",\"seq\":1}", ERR_INVALID,
     "chat: must be a decimal number in quotes at byte 18"},
    {"{\"t\":\"ack\",\"chat\":\"1 \",\"seq\":1}", ERR_INVALID,
     "chat: must be a decimal number in quotes at byte 18"},
    {"{\"t\":\"ack\",\"chat\":\"18446744073709551616\",\"seq\":1}", ERR_RANGE,
     "chat: is larger than 2^64-1 at byte 18"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":1.0}", ERR_INVALID,
     "seq: must be an integer, without fraction, exponent or leading zero at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":1e3}", ERR_INVALID,
     "seq: must be an integer, without fraction, exponent or leading zero at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":01}", ERR_INVALID,
     "seq: must be an integer, without fraction, exponent or leading zero at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":-1}", ERR_INVALID, "seq: must not be negative at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":\"1\"}", ERR_INVALID, "seq: must be an integer at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":null}", ERR_INVALID, "seq: must be an integer at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":9007199254740992}", ERR_RANGE,
     "seq: is larger than 2^53-1 at byte 28"},
    {"{\"t\":\"ack\",\"chat\":\"1\",\"seq\":99999999999999999999999}", ERR_RANGE,
     "seq: is larger than 2^53-1 at byte 28"},
    {"{\"t\":\"hello\",\"token\":\"\",\"device\":4294967296}", ERR_RANGE,
     "device: is larger than 2^32-1 at byte 33"},
    {"{\"t\":\"hello\",\"token\":\"\",\"device\":1,\"resume\":[[\"1\",\"2\"]]}", ERR_INVALID,
     "resume: a claim is [chat, epoch, seq] at byte 53"},
    {"{\"t\":\"hello\",\"token\":\"\",\"device\":1,\"resume\":[[\"1\",\"2\",3,4]]}", ERR_INVALID,
     "resume: a claim is [chat, epoch, seq] at byte 55"},
    {"{\"t\":\"hello\",\"token\":\"\",\"device\":1,\"resume\":{}}", ERR_INVALID,
     "resume: must be an array at byte 44"},
    {"{\"t\":\"welcome\",\"limits\":{\"body\":1,\"body\":1}}", ERR_INVALID,
     "limits: a limit stands twice at byte 41"},
    {"{\"t\":\"welcome\",\"limits\":[]}", ERR_INVALID, "limits: must be an object at byte 24"},
    {"{\"t\":\"beat\",\"away\":1}", ERR_INVALID, "away: must be true or false at byte 19"},
    {"{\"t\":\"beat\",\"away\":tru}", ERR_INVALID, "away: expected a value at byte 19"},
    {"{\"t\":\"beat\",\"away\":tru", ERR_TRUNCATED, "away: the text ends too early at byte 22"},
    {"{\"t\":\"send\",\"id\":\"0193a1c2\"}", ERR_INVALID, "id: must be a UUID of 36 characters at byte 17"},
    {"{\"t\":\"accepted\",\"tag\":\"AAECAwQFBgcICQoLDA0ODxA\"}", ERR_INVALID,
     "tag: must be base64url of at most 16 bytes at byte 22"},
    {"{\"t\":\"accepted\",\"tag\":\"A+\"}", ERR_INVALID,
     "tag: must be base64url of at most 16 bytes at byte 22"},
    {"{\"t\":\"send\",\"kind\":\"01234567890123456789012345678901\"}", ERR_LIMIT,
     "kind: longer than 31 bytes at byte 19"},
    {"{\"t\":\"send\",\"body\":\"a\nb\"}", ERR_INVALID, "body: a control character in a string at byte 21"},
    {"{\"t\":\"send\",\"body\":\"a\\x\"}", ERR_INVALID, "body: an unknown escape at byte 21"},
    {"{\"t\":\"send\",\"body\":\"\\u12g4\"}", ERR_INVALID,
     "body: \\u needs four hexadecimal digits at byte 22"},
    {"{\"t\":\"send\",\"body\":\"\\ud800\"}", ERR_INVALID, "body: half of a surrogate pair at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\\udc00\\ud800\"}", ERR_INVALID,
     "body: half of a surrogate pair at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\\ud800\\u0041\"}", ERR_INVALID,
     "body: half of a surrogate pair at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\xff\"}", ERR_INVALID, "body: text that is no UTF-8 at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\xc0\x80\"}", ERR_INVALID, "body: text that is no UTF-8 at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\xed\xa0\x80\"}", ERR_INVALID, "body: text that is no UTF-8 at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\xf4\x90\x80\x80\"}", ERR_INVALID, "body: text that is no UTF-8 at byte 20"},
    {"{\"t\":\"send\",\"body\":\"\xe2\x82", ERR_INVALID, "body: text that is no UTF-8 at byte 20"},
    {"{\"t\":\"send\",\"body\":\"abc", ERR_TRUNCATED, "body: the text ends inside a string at byte 23"},
    {"{\"t\":\"send\",\"body\":\"abc\\", ERR_TRUNCATED, "body: the text ends inside a string at byte 24"},
    {"{\"t\":\"ack\",\"x\":[[[[[[[[1]]]]]]]]}", ERR_LIMIT, "nested more than 8 deep at byte 22"},
    {"{\"t\":\"ack\",\"x\":[1,]}", ERR_INVALID, "expected a value at byte 18"},
    {"{\"t\":\"ack\",\"x\":{\"a\" 1}}", ERR_INVALID, "expected ':' at byte 20"},
    {"{\"t\":\"ack\",}", ERR_INVALID, "expected a key at byte 11"},
    {"{\"t\":\"ack\" \"a\":1}", ERR_INVALID, "expected ',' or '}' at byte 11"},
    {"{\"t\":\"ack\",\"x\":.5}", ERR_INVALID, "expected a value at byte 15"},
    {"{\"t\":\"ack\",\"x\":-}", ERR_INVALID, "expected a digit at byte 16"},
    {"{\"t\":\"ack\",\"x\":1.}", ERR_INVALID, "expected a digit at byte 17"},
    {"{\"t\":\"ack\",\"x\":01}", ERR_INVALID, "expected ',' or '}' at byte 16"},
    {"{\"t\":\"ack\",\"x\":nul}", ERR_INVALID, "expected a value at byte 15"},
    {"{t:1}", ERR_INVALID, "expected a key at byte 1"},
};

static void test_each_refusal_has_its_sentence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct msg m;
        int rc = read_frame(refusals[i].text, strlen(refusals[i].text), &m);
        if (rc != refusals[i].code || strcmp(ctx.text, refusals[i].sentence) != 0)
            fail_msg("%s gives %d '%s', not '%s'", refusals[i].text, rc, ctx.text, refusals[i].sentence);
    }
}

static void test_every_cut_of_a_frame_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        for (size_t n = 0; n < strlen(lines[i]); n++) {
            struct msg m;
            assert_true(read_frame(lines[i], n, &m) < 0);
        }
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct msg m;
    struct buf b = BUF_INIT(8 << 20);
    const struct {
        const char *head, *each, *tail;
        size_t most;
    } cases[] = {
        {"{\"t\":\"send\",\"id\":\"" ID "\",\"chat\":\"1\",\"kind\":\"k\",\"body\":\"", "a", "\"}",
         PROTO_BODY_MAX},
        {"{\"t\":\"send\",\"id\":\"" ID "\",\"chat\":\"1\",\"kind\":\"k\",\"body\":\"", "\\n", "\"}",
         PROTO_BODY_MAX},
        {"{\"t\":\"create\",\"chat\":\"1\",\"users\":[\"1\"", ",\"2\"", "]}", PROTO_USERS_MAX - 1},
        {"{\"t\":\"hello\",\"token\":\"\",\"device\":1,\"resume\":[[\"1\",\"2\",3]", ",[\"1\",\"2\",3]", "]}",
         PROTO_CLAIMS_MAX - 1},
        {"{\"t\":\"welcome\",\"session\":\"\",\"epoch\":\"1\",\"ts\":1,\"beat_s\":1,\"notices\":[\"\\n\"",
         ",\"\\n\"", "]}", PROTO_NOTICES_MAX - 1},
        {"{\"t\":\"beat\",\"x\":\"", "a", "\"}", PROTO_FRAME_MAX - 19},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t more = 0; more < 2; more++) {
            buf_reset(&b);
            buf_str(&b, cases[i].head);
            for (size_t k = 0; k < cases[i].most + more; k++)
                buf_str(&b, cases[i].each);
            buf_str(&b, cases[i].tail);
            int rc = read_frame(b.data, b.len, &m);
            if (rc != (more ? ERR_LIMIT : 1))
                fail_msg("case %zu + %zu: %d %s", i, more, rc, ctx.text);
        }
    }
    buf_release(&b);
}

static void test_small_scratch_is_a_limit_not_a_crash(void **state)
{
    (void)state;
    char room[16], text[] = "{\"t\":\"hello\",\"token\":\"\\n\",\"device\":1,\"resume\":[[\"1\",\"2\",3]]}";
    struct proto_scratch small = {room, 0, 0};
    struct proto_frame f;
    struct msg m;
    for (small.cap = 0; small.cap <= sizeof room; small.cap++) {
        assert_int_equal(proto_frame_begin(&f, text, strlen(text), &small, &ctx), 0);
        assert_int_equal(proto_frame_next(&f, &m, &ctx), ERR_LIMIT);
    }
}

static void test_encoder_writes_nothing_when_it_does_not_fit(void **state)
{
    (void)state;
    struct msg m;
    struct buf b = BUF_INIT(40);
    buf_str(&b, "before");
    assert_int_equal(read_one(lines[1], &m), 1);
    proto_encode(&b, &m);
    assert_true(b.failed);
    assert_int_equal(b.len, 6);
    buf_release(&b);
}

static void test_has_forces_an_empty_field(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(400);
    struct msg m = {.t = MSG_SYNC, .has = MSG_HAS(chat) | MSG_HAS(after), .chat = 0};
    proto_encode(&b, &m);
    assert_string_equal(buf_cstr(&b), "{\"t\":\"sync\",\"chat\":\"0\",\"after\":0}");
    buf_release(&b);
}

static void test_codes(void **state)
{
    (void)state;
    assert_string_equal(proto_error_code(PROTO_NOT_MEMBER), "not_member");
    assert_true(proto_error_retryable(PROTO_OVERLOADED));
    assert_false(proto_error_retryable(PROTO_ID_CONFLICT));
    assert_non_null(strstr(proto_error_text(PROTO_ID_TOO_OLD), "older"));
    assert_non_null(strstr(close_code_text(CLOSE_REPLACED), "connected again"));
    assert_string_equal(close_code_text(1000), "");
    for (int e = 0; e < PROTO_ERROR_COUNT; e++) {
        for (int o = 0; o < e; o++)
            assert_string_not_equal(proto_error_code((enum proto_error)e),
                                    proto_error_code((enum proto_error)o));
    }
    assert_true(msg_from_client(MSG_SEND));
    assert_false(msg_from_client(MSG_MSG));
    assert_string_equal(msg_type_name(MSG_NONE), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_round_trips),
        cmocka_unit_test(test_fields_arrive_where_they_belong),
        cmocka_unit_test(test_order_space_escapes_and_unknown_keys_do_not_matter),
        cmocka_unit_test(test_unknown_type_comes_back_with_its_name),
        cmocka_unit_test(test_frames_of_many),
        cmocka_unit_test(test_each_refusal_has_its_sentence),
        cmocka_unit_test(test_every_cut_of_a_frame_is_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_small_scratch_is_a_limit_not_a_crash),
        cmocka_unit_test(test_encoder_writes_nothing_when_it_does_not_fit),
        cmocka_unit_test(test_has_forces_an_empty_field),
        cmocka_unit_test(test_codes),
    };
    int rc = cmocka_run_group_tests_name("messages", tests, setup, teardown);
    free(held);
    return rc;
}

/* chat.v1.bin: it says what JSON says, in bytes that stay the same for ever, and refuses what JSON refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "proto/bin.h"
#include "random_msg.h"

static struct proto_scratch scratch, other;
static struct err_ctx ctx;

static int setup(void **state)
{
    (void)state;
    scratch = (struct proto_scratch){malloc(PROTO_SCRATCH), PROTO_SCRATCH, 0};
    other = (struct proto_scratch){malloc(PROTO_SCRATCH), PROTO_SCRATCH, 0};
    return scratch.data && other.data ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(scratch.data);
    free(other.data);
    return 0;
}

/* Read all of a frame from memory of its exact size; the last message in *m, the count or the error back. */
static char *held;
static int read_frame(enum proto_codec codec, const char *p, size_t n, struct msg *m, struct proto_scratch *s)
{
    struct proto_frame f;
    int count = 0, rc;
    free(held);
    held = malloc(n ? n : 1);
    if (n)
        memcpy(held, p, n);
    memset(&ctx, 0, sizeof ctx);
    rc = proto_frame_begin_as(&f, codec, held, n, s, &ctx);
    while (!rc && (rc = proto_frame_next(&f, m, &ctx)) == 1) {
        count++;
        rc = 0;
        if (f.done && f.p == f.end)
            break;
    }
    if (rc < 0) {
        assert_int_equal(ctx.code, rc);
        assert_true(ctx.text[0]);
        assert_true(proto_frame_next(&f, m, NULL) < 0); /* spent */
    }
    return rc < 0 ? rc : count;
}

static void test_both_codecs_agree_on_random_messages(void **state)
{
    (void)state;
    struct rng r;
    struct buf json = BUF_INIT(8 << 20), bin = BUF_INIT(8 << 20), again = BUF_INIT(8 << 20);
    size_t bytes[2] = {0};
    rng_seed(&r, 20);
    for (int i = 0; i < 20000; i++) {
        enum msg_type t = (enum msg_type)(1 + rng_below(&r, MSG_TYPE_COUNT - 1));
        struct msg m = random_msg(&r, t), from_json, from_bin;
        if (rng_below(&r, 2)) { /* half of the messages leave optional fields out */
            struct msg bare = {.t = t, .has = rng_u64(&r), .id = m.id, .kind = m.kind, .body = m.body};
            m = bare;
        }
        buf_reset(&json);
        buf_reset(&bin);
        proto_encode(&json, &m);
        proto_bin_encode(&bin, &m);
        bytes[0] += json.len;
        bytes[1] += bin.len;
        assert_int_equal(read_frame(PROTO_BIN, bin.data, bin.len, &from_bin, &scratch), 1);
        buf_reset(&again); /* bin -> json gives the json of the original ... */
        proto_encode(&again, &from_bin);
        if (again.len != json.len || memcmp(again.data, json.data, json.len) != 0)
            fail_msg("%s\n%s", buf_cstr(&json), buf_cstr(&again));
        assert_int_equal(read_frame(PROTO_JSON, json.data, json.len, &from_json, &other), 1);
        assert_true(from_json.has == from_bin.has);
        buf_reset(&again); /* ... and json -> bin its bin */
        proto_bin_encode(&again, &from_json);
        assert_int_equal(again.len, bin.len);
        assert_memory_equal(again.data, bin.data, bin.len);
    }
    assert_true(bytes[1] < bytes[0]);
    buf_release(&json);
    buf_release(&bin);
    buf_release(&again);
}

#define ID_HEX   "0193a1c27b1e7c4a9d550a1b2c3d4e5f"
#define TAG_HEX  "000102030405060708090a0b0c0d0e0f"
#define JSON_ID  "\"id\":\"0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f\""
#define JSON_TAG "\"tag\":\"AAECAwQFBgcICQoLDA0ODw\""

/* Once released, a line here may be added but never changed. */
static const struct {
    const char *hex, *json;
} golden[] = {
    {"19010605612e622e6308010e036c7465120811f9f70205120000",
     "{\"t\":\"hello\",\"token\":\"a.b.c\",\"device\":1,\"net\":\"lte\",\"resume\":[[\"17\",\"48121\",5],["
     "\"18\","
     "\"48121\",0]]}"},
    {"1e0205" ID_HEX "08110e047465787412026869",
     "{\"t\":\"send\"," JSON_ID ",\"chat\":\"17\",\"kind\":\"text\",\"body\":\"hi\"}"},
    {"050304110801", "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1}"},
    {"0c04041108ffffffffffffff0f", "{\"t\":\"read\",\"chat\":\"17\",\"seq\":9007199254740991}"},
    {"0105", "{\"t\":\"beat\"}"},
    {"03050401", "{\"t\":\"beat\",\"away\":true}"},
    {"0706041108040c64", "{\"t\":\"sync\",\"chat\":\"17\",\"after\":4,\"limit\":100}"},
    {"100704110a0b07ffffffffffffffffff01",
     "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"7\",\"18446744073709551615\"]}"},
    {"03080411", "{\"t\":\"join\",\"chat\":\"17\"}"},
    {"03090411", "{\"t\":\"leave\",\"chat\":\"17\"}"},
    {"050a04110807", "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"7\"}"},
    {"050b04110807", "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"7\"}"},
    {"250c0602396608f9f7020c80e0c1f599d58d03100a1607808004326480201a04016101621e00",
     "{\"t\":\"welcome\",\"session\":\"9f\",\"epoch\":\"48121\",\"ts\":1748952000000000,\"beat_s\":10,"
     "\"limits\":{"
     "\"body\":65536,\"batch\":50,\"rate_per_s\":100,\"chats\":4096},\"notices\":[\"a\",\"b\"],\"chats\":[]"
     "}"},
    {"370d05" ID_HEX "08110cf9f70210011480e0c1f599d58d031a10" TAG_HEX "1c00",
     "{\"t\":\"accepted\"," JSON_ID
     ",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1,\"ts\":1748952000000000," JSON_TAG ",\"dup\":false}"},
    {"410e041108f9f7020c0111" ID_HEX "14071880e0c1f599d58d031e0474657874220268692610" TAG_HEX,
     "{\"t\":\"msg\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1," JSON_ID
     ",\"from\":\"7\",\"ts\":1748952000000000,\"kind\":\"text\",\"body\":\"hi\"," JSON_TAG "}"},
    {"0f0f060663726561746508110c041001",
     "{\"t\":\"done\",\"re\":\"create\",\"chat\":\"17\",\"to\":4,\"more\":true}"},
    {"0b10041108010c0912027879", "{\"t\":\"gap\",\"chat\":\"17\",\"from\":1,\"to\":9,\"reason\":\"xy\"}"},
    {"07110601780a0179", "{\"t\":\"notice\",\"code\":\"x\",\"text\":\"y\"}"},
    {"22120601780a01790c3211" ID_HEX "160473656e641811",
     "{\"t\":\"error\",\"code\":\"x\",\"text\":\"y\",\"retry_ms\":50," JSON_ID
     ",\"re\":\"send\",\"chat\":\"17\"}"},
    {"06130601780c01", "{\"t\":\"bye\",\"code\":\"x\",\"reconnect\":true}"},
    {"0906041108040c641409", "{\"t\":\"sync\",\"chat\":\"17\",\"after\":4,\"limit\":100,\"to\":9}"},
    {"440f0606637265617465081114f9f70218011d" ID_HEX "200724052a066372656174652e0268693210" TAG_HEX,
     "{\"t\":\"done\",\"re\":\"create\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1," JSON_ID
     ",\"from\":\"7\",\"ts\":5,\"kind\":\"create\",\"body\":\"hi\"," JSON_TAG "}"},
    {"0b110601780a01790c051007", "{\"t\":\"notice\",\"code\":\"x\",\"text\":\"y\",\"since\":5,\"until\":7}"},
    {"1d14061a11f9f7020510" TAG_HEX "12000000",
     "{\"t\":\"report\",\"chats\":[[\"17\",\"48121\",5,\"AAECAwQFBgcICQoLDA0ODw\"],[\"18\",\"0\",0,\"\"]]}"},
    {"091504110a0405090c0c", "{\"t\":\"ask\",\"chat\":\"17\",\"ranges\":[[5,9],[12,12]]}"},
    {"3d1604110a36f9f70205" ID_HEX "0780e0c1f599d58d030474657874026869"
     "10" TAG_HEX "0c01",
     "{\"t\":\"offer\",\"chat\":\"17\",\"entries\":[[\"48121\",5,\"0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f\","
     "\"7\","
     "1748952000000000,\"text\",\"hi\",\"AAECAwQFBgcICQoLDA0ODw\"]],\"more\":true}"},
    {"1e17041108010e17" ID_HEX "06666f72676564",
     "{\"t\":\"offered\",\"chat\":\"17\",\"ok\":1,\"refused\":[[\"0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f\","
     "\"forged\"]]}"},
    {"051804110801", "{\"t\":\"quiet\",\"chat\":\"17\",\"on\":true}"},
    {"0919041108f9f7020c05", "{\"t\":\"unread\",\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":5}"},
    {"101a041108070c80e0c1f599d58d031005",
     "{\"t\":\"typing\",\"chat\":\"17\",\"user\":\"7\",\"until\":1748952000000000,\"ts\":5}"},
    {"051b06020708", "{\"t\":\"watch\",\"users\":[\"7\",\"8\"]}"},
    {"0b1c04070a04617761790c05", "{\"t\":\"presence\",\"user\":\"7\",\"state\":\"away\",\"seen\":5}"},
    {"091d041108010e020509", "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true,\"seqs\":[[5,9]]}"},
    {"091e041108080c091007", "{\"t\":\"receipt\",\"chat\":\"17\",\"user\":\"8\",\"delivered\":9,\"read\":7}"},
    {"0a1e041116050509030204", "{\"t\":\"receipt\",\"chat\":\"17\",\"counts\":[[5,9,3,2,4]]}"},
};

static size_t from_hex(char *out, const char *hex)
{
    size_t n = 0;
    for (unsigned v; sscanf(hex + 2 * n, "%2x", &v) == 1; n++)
        out[n] = (char)v;
    return n;
}

static void test_golden_vectors(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1 << 20), hex = BUF_INIT(1 << 20);
    bool seen[MSG_TYPE_COUNT] = {0};
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct msg m;
        char raw[512];
        size_t n = from_hex(raw, golden[i].hex);
        assert_int_equal(read_frame(PROTO_JSON, golden[i].json, strlen(golden[i].json), &m, &scratch), 1);
        seen[m.t] = true;
        buf_reset(&out);
        buf_reset(&hex);
        proto_bin_encode(&out, &m);
        for (size_t k = 0; k < out.len; k++)
            buf_printf(&hex, "%02x", (uint8_t)out.data[k]);
        assert_string_equal(buf_cstr(&hex), golden[i].hex);
        if (read_frame(PROTO_BIN, raw, n, &m, &scratch) != 1)
            fail_msg("%s: %s", golden[i].hex, ctx.text);
        buf_reset(&out);
        proto_encode(&out, &m);
        assert_string_equal(buf_cstr(&out), golden[i].json);
    }
    for (int t = 1; t < MSG_TYPE_COUNT; t++)
        if (!seen[t])
            fail_msg("no golden vector of type %s", msg_type_name((enum msg_type)t));
    buf_release(&out);
    buf_release(&hex);
}

static void test_refusals_say_what_and_where(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        int rc;
        const char *says;
    } bad[] = {
        {"", ERR_TRUNCATED, "an empty frame"},
        {"05", ERR_TRUNCATED, "ends too early at byte 1"},
        {"05030411", ERR_TRUNCATED, "ends too early at byte 4"},
        {"03030411", ERR_INVALID, "seq: is missing at byte 1"},
        {"0703041108010801", ERR_INVALID, "seq: stands twice at byte 6"},
        {"050305110801", ERR_INVALID, "chat: has the wrong shape at byte 2"},
        {"06030491000801", ERR_INVALID, "chat: a number not in its shortest form at byte 3"},
        {"0e0304ffffffffffffffffff020801", ERR_RANGE, "chat: is larger than 2^64-1 at byte 3"},
        {"0c030411088080808080808010", ERR_RANGE, "seq: is larger than 2^53-1 at byte 5"},
        {"03050402", ERR_RANGE, "away: must be 0 or 1 at byte 3"},
        {"0b060c808080801008010401", ERR_RANGE, "limit: is larger than 2^32-1 at byte 3"},
        {"0403570000", ERR_INVALID, "a field of unknown shape at byte 3"},
        {"03030001", ERR_INVALID, "field 0 is no field at byte 2"},
        {"06110602c32800", ERR_INVALID, "code: text that is no UTF-8 at byte 3"},
        {"060504017b0000", ERR_INVALID, "a field of unknown shape"},
        {"050704110a02", ERR_TRUNCATED, "users: ends too early"},
        {"060704110a0180", ERR_TRUNCATED, "users: ends too early"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct msg m;
        char raw[512];
        int rc = read_frame(PROTO_BIN, raw, from_hex(raw, bad[i].hex), &m, &scratch);
        if (rc != bad[i].rc || strncmp(ctx.text, bad[i].says, strlen(bad[i].says)) != 0)
            fail_msg("%s: %d '%s', not %d '%s'", bad[i].hex, rc, ctx.text, bad[i].rc, bad[i].says);
    }
}

static void test_what_a_newer_peer_sends_is_skipped(void **state)
{
    (void)state;
    struct msg m;
    char raw[512];
    /* an ack with unknown fields 20 (varint), 21 (16 bytes), 22 (bytes) */
    const char *ack = "1e0350ff0155" ID_HEX "5a0361626304110801";
    assert_int_equal(read_frame(PROTO_BIN, raw, from_hex(raw, ack), &m, &scratch), 1);
    assert_int_equal(m.t, MSG_ACK);
    assert_int_equal(m.chat, 17);
    assert_int_equal(m.seq, 1);
    assert_int_equal(read_frame(PROTO_BIN, raw, from_hex(raw, "04c8010401"), &m, &scratch), 1);
    assert_int_equal(m.t, MSG_NONE);
    assert_true(slice_is(m.code, "#200"));
    /* welcome with a fifth limit */
    const char *welcome = "160c0602396608010c01100a160501020304051e001a00";
    assert_int_equal(read_frame(PROTO_BIN, raw, from_hex(raw, welcome), &m, &scratch), 1);
    assert_int_equal(m.limits.chats, 4);
}

static void put_random(struct buf *out, struct rng *r, enum msg_type t)
{
    struct msg m = random_msg(r, t);
    proto_bin_encode(out, &m);
}

static void test_a_frame_holds_fifty(void **state)
{
    (void)state;
    struct rng r;
    struct buf out = BUF_INIT(8 << 20);
    struct msg m;
    rng_seed(&r, 1);
    for (int i = 0; i < 50; i++)
        put_random(&out, &r, MSG_ACK);
    assert_int_equal(read_frame(PROTO_BIN, out.data, out.len, &m, &scratch), 50);
    put_random(&out, &r, MSG_ACK);
    assert_int_equal(read_frame(PROTO_BIN, out.data, out.len, &m, &scratch), ERR_LIMIT);
    buf_release(&out);
}

static void test_limits_are_those_of_json(void **state)
{
    (void)state;
    static char body[PROTO_BODY_MAX + 1], kind[PROTO_KIND_MAX + 1];
    static uint64_t users[PROTO_USERS_MAX + 1];
    static struct claim claims[PROTO_CLAIMS_MAX + 1];
    static struct slice notices[PROTO_NOTICES_MAX + 1];
    memset(body, 'x', sizeof body);
    memset(kind, 'k', sizeof kind);
    for (int over = 0; over < 2; over++) {
        unsigned more = (unsigned)over;
        struct msg all[] = {
            {.t = MSG_SEND, .kind = SLICE("k"), .body = {body, PROTO_BODY_MAX + more}},
            {.t = MSG_SEND, .kind = {kind, PROTO_KIND_MAX + more}, .body = SLICE("b")},
            {.t = MSG_CREATE, .users = users, .users_n = PROTO_USERS_MAX + more},
            {.t = MSG_HELLO, .resume = claims, .resume_n = PROTO_CLAIMS_MAX + more},
            {.t = MSG_WELCOME, .notices = notices, .notices_n = PROTO_NOTICES_MAX + more},
        };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            for (int codec = 0; codec < PROTO_CODECS; codec++) {
                struct buf out = BUF_INIT(8 << 20);
                struct msg m;
                proto_encode_as(&out, (enum proto_codec)codec, &all[i]);
                int rc = read_frame((enum proto_codec)codec, out.data, out.len, &m, &scratch);
                assert_int_equal(rc, over ? ERR_LIMIT : 1);
                buf_release(&out);
            }
    }
    struct msg m;
    char *big = calloc(1, PROTO_FRAME_MAX + 1);
    assert_int_equal(read_frame(PROTO_BIN, big, PROTO_FRAME_MAX + 1, &m, &scratch), ERR_LIMIT);
    free(big);
}

static void test_a_full_buffer_keeps_nothing_of_a_message(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (size_t max = 0; max < 200; max++) {
        struct buf out = BUF_INIT(max);
        struct msg m = random_msg(&r, MSG_MSG);
        proto_bin_encode(&out, &m);
        assert_true(!out.failed || out.len == 0);
        buf_release(&out);
    }
}

static void test_any_cut_or_flip_is_refused_or_read_whole(void **state)
{
    (void)state;
    struct rng r;
    struct buf out = BUF_INIT(8 << 20);
    rng_seed(&r, 7);
    for (int i = 0; i < 3000; i++) {
        struct msg m;
        buf_reset(&out);
        put_random(&out, &r, (enum msg_type)(1 + rng_below(&r, MSG_TYPE_COUNT - 1)));
        int rc = read_frame(PROTO_BIN, out.data, rng_below(&r, out.len), &m, &scratch);
        assert_true(rc < 0); /* the length in front tells every cut */
        out.data[rng_below(&r, out.len)] ^= (char)(1 << rng_below(&r, 8));
        read_frame(PROTO_BIN, out.data, out.len, &m, &scratch);
    }
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_codecs_agree_on_random_messages),
        cmocka_unit_test(test_golden_vectors),
        cmocka_unit_test(test_refusals_say_what_and_where),
        cmocka_unit_test(test_what_a_newer_peer_sends_is_skipped),
        cmocka_unit_test(test_a_frame_holds_fifty),
        cmocka_unit_test(test_limits_are_those_of_json),
        cmocka_unit_test(test_a_full_buffer_keeps_nothing_of_a_message),
        cmocka_unit_test(test_any_cut_or_flip_is_refused_or_read_whole),
    };
    int rc = cmocka_run_group_tests_name("bin", tests, setup, teardown);
    free(held);
    return rc;
}

/* Toxics as text: the table, the grammar, and sentences that name the word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "netem/proxy/rules.h"
#include "util/clock.h"

static struct err_ctx ctx;

static int parse(struct proxy_toxic *t, const char *spec)
{
    memset(&ctx, 0, sizeof ctx);
    return proxy_toxic_parse(t, spec, &ctx);
}

static void test_a_spec_is_read_word_by_word(void **state)
{
    (void)state;
    struct proxy_toxic t;
    assert_int_equal(parse(&t, "latency:delay=40ms,jitter=5ms,dir=up,share=20%,after=1s,for=2s,every=10s"),
                     0);
    assert_int_equal(t.kind, PROXY_LATENCY);
    assert_true(t.delay_ns == 40 * NS_PER_MS && t.jitter_ns == 5 * NS_PER_MS && t.ways == 1 << NETEM_UP);
    assert_true(t.share_ppm == 200000 && t.after_ns == NS_PER_S && t.for_ns == 2 * NS_PER_S);
    assert_true(t.every_ns == 10 * NS_PER_S && !proxy_toxic_by_place(&t));
    assert_int_equal(parse(&t, "cut:id=0193A1C2-7b1e-7c4a-9d55-0a1b2c3d4e5f,dir=down,at=17B,how=half-open"),
                     0);
    assert_true(t.has_id && t.id.b[0] == 0x01 && t.id.b[15] == 0x5f && t.ways == 1 << NETEM_DOWN);
    assert_memory_equal(t.id_text, "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f", ID_TEXT);
    assert_true(!t.at.share && t.at.n == 17 && t.how == PROXY_BY_HALF_OPEN && t.times == 1);
    assert_int_equal(parse(&t, "duplicate:each=3,copies=2,of=control"), 0);
    assert_true(t.each == 3 && t.copies == 2 && t.of == PROXY_OF_CONTROL && t.ways == 3 && !t.times);
    assert_int_equal(parse(&t, "limit:bytes=64kB"), 0);
    assert_true(t.bytes == 64000 && proxy_toxic_by_place(&t) && !proxy_toxic_by_frame(&t));
    assert_int_equal(parse(&t, "reset"), 0);
    assert_int_equal(parse(&t, "profile=rate=8mbit,delay=20ms"), 0);
    assert_true(t.kind == PROXY_PROFILE && t.profile->dir[0].rate_bps == 8000000);
    proxy_toxic_release(&t);
}

static void test_sentences_name_the_word(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"", "''"},
        {"latncy:delay=1ms", "'latncy' is no toxic: latency, bandwidth"},
        {"latency:dly=1ms", "'dly' is no word of latency, which takes delay, jitter"},
        {"latency:nth=3,delay=1ms", "'nth' is no word of latency"},
        {"latency:", "''"},
        {"latency:delay", "delay has no value (delay=TIME)"},
        {"latency:delay=", "delay has no value"},
        {"latency:delay=5parsecs", "delay: '5parsecs'"},
        {"latency:delay=1ms,delay=1ms", "delay stands twice"},
        {"latency:delay=1ms,", "''"},
        {"latency:jitter=1ms", "needs one of delay"},
        {"latency:delay=1ms,jitter=2ms", "jitter is more than delay"},
        {"latency:delay=2h", "more than 1h"},
        {"bandwidth:rate=0", "begin at 1"},
        {"bandwidth:rate=fast", "rate: 'fast'"},
        {"reset:dir=left", "dir: 'left' is none of up|down|both"},
        {"reset:dir=up|down", "dir: 'up|down'"},
        {"reset:share=120%", "share: "},
        {"cut", "cut needs one of"},
        {"cut:at=50%", "cut needs one of"},
        {"cut:nth=0", "nth: counting begins at 1"},
        {"cut:nth=-1", "nth: "},
        {"cut:id=0193a1c2", "id: '0193a1c2' is no UUID"},
        {"cut:nth=1,bytes=10", "only one of nth"},
        {"cut:bytes=10,at=50%", "at needs a frame"},
        {"cut:nth=1,at=150%", "at: "},
        {"stall:every=5s", "every must be at least `for`"},
        {"stall:every=1s,for=2s", "every must be at least `for`"},
        {"stall:nth=1,for=1s,every=5s", "every is about time"},
        {"slicer:size=10,vary=10", "vary must be less than size"},
        {"duplicate:nth=1,copies=17", "copies: at most 16"},
        {"limit:how=reset", "limit needs one of bytes"},
        {"profile=", "profile="},
        {"profile=nonesuch", "nonesuch"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct proxy_toxic t;
        char quoted[128];
        snprintf(quoted, sizeof quoted, "toxic '%s': ", wrong[i][0]);
        int rc = parse(&t, wrong[i][0]);
        if (rc >= 0 || !strstr(ctx.text, wrong[i][1]) || strncmp(ctx.text, quoted, strlen(quoted)) != 0)
            fail_msg("'%s': %d %s", wrong[i][0], rc, ctx.text);
    }
    char long_spec[PROXY_SPEC_MAX + 10];
    struct proxy_toxic t;
    memset(long_spec, 'x', sizeof long_spec - 1);
    long_spec[sizeof long_spec - 1] = 0;
    assert_int_equal(parse(&t, long_spec), ERR_LIMIT);
}

static void test_help_tells_every_kind_and_word(void **state)
{
    (void)state;
    static const char *const words[] = {
#define KIND(name, word, takes, needs, help)      word, help,
#define PARAM(name, word, type, field, arg, help) "  " word "=" arg, help,
#include "netem/proxy/toxics.def"
    };
    struct buf b = BUF_INIT(1 << 16);
    proxy_toxic_help(&b);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strstr(buf_cstr(&b), words[i]))
            fail_msg("the help lacks '%s'", words[i]);
    }
    buf_release(&b);
}

static void test_rules_number_toxics_and_have_a_limit(void **state)
{
    (void)state;
    struct proxy_rules r;
    proxy_rules_init(&r, 1, 1 << 20);
    for (int i = 0; i < PROXY_TOXICS_MAX; i++)
        assert_int_equal(proxy_rules_add(&r, "latency:delay=1ms", 0, &ctx), 0);
    assert_int_equal(proxy_rules_add(&r, "latency:delay=1ms", 0, &ctx), ERR_LIMIT);
    assert_int_equal(proxy_rules_remove(&r, 7, &ctx), 0);
    assert_int_equal(proxy_rules_remove(&r, 7, &ctx), ERR_NOTFOUND);
    assert_int_equal(proxy_rules_add(&r, "cut:nth=1", 0, &ctx), 0);
    assert_int_equal(r.last_number, PROXY_TOXICS_MAX + 1);
    assert_true(proxy_rules_by_frame(&r));
    assert_int_equal(proxy_rules_add(&r, "nonsense", 0, &ctx), ERR_INVALID);
    proxy_rules_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spec_is_read_word_by_word),
        cmocka_unit_test(test_sentences_name_the_word),
        cmocka_unit_test(test_help_tells_every_kind_and_word),
        cmocka_unit_test(test_rules_number_toxics_and_have_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

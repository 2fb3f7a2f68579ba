/* The same seed gives the same fates on every machine and compiler: one number for each part of the model.
 * They change only when the model or a profile does, and then on purpose. */
#include "tests/unit/netem/link_try.h"

#include <string.h>
#include <unistd.h>

#define PACKETS 20000

/* Both directions, steps of 0 to 40 ms, now and then a minute's silence; sizes from 40 to 1500 bytes. */
static uint64_t fates(const struct netem_profile *p, uint64_t seed)
{
    struct link l;
    uint64_t now = S, h = 0, x = 88172645463325252ull;
    link_init(&l, p, seed, 7, now);
    for (int i = 0; i < PACKETS; i++) {
        x ^= x << 13; /* xorshift64 (Marsaglia 2003) */
        x ^= x >> 7;
        x ^= x << 17;
        now += x % (40 * MS) + (x >> 40 & 0xFFF ? 0 : 60 * S);
        struct link_verdict v = link_offer(&l, x >> 33 & 1, now, 40 + (uint32_t)(x >> 20) % 1461);
        uint64_t more[2] = {link_state(&l, now), link_address_era(&l, now)};
        h = hash_bytes(more, sizeof more, hash_verdict(h, &v));
    }
    return h;
}

static void test_every_part_of_the_model_repeats_itself(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t golden;
        bool chance; /* the seed has a say */
    } cases[] = {
        {"lte-lossy", 0xeeaa356827d35cd7ull, true},
        {"lte-good+handover", 0x9381fc63892417f4ull, true},
        {"lte-driving", 0xda67ed4f311becb0ull, true},
        {"lte-subway", 0x9e84a228c27ad094ull, true},
        {"3g-driving", 0xc4efa5ab397d6d47ull, true},
        {"5g", 0x19bf74e7e9e08f4bull, true},
        {"wifi-poor", 0xac182732879b4a7bull, true},
        {"airplane", 0x15afac876132a490ull, false},
        {"satellite-leo", 0x9bf2920c3fa83a6full, true},
        {"delay=40ms,jitter=10ms,jitter_corr=70%,dist=pareto", 0x3e329e39bf4f7ffdull, true},
        {"delay=40ms,jitter=10ms,dist=paretonormal,loss=2%,burst=3,loss_good=1%", 0xb47ce2e529c96231ull,
         true},
        {"delay=40ms,reorder=20%,reorder_corr=30%,reorder_gap=4,duplicate=5%,corrupt=5%",
         0x85a619bb3132dd26ull, true},
        {"blackout_at=3s+1s/9s+20s,cell_every=2s,cell_for=30ms..50ms,rate=2mbit,queue=100ms",
         0x8bc4f4ed12c97c8cull, true},
    };
    bool same = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct netem_profile p = profile(cases[i].text);
        uint64_t h = fates(&p, 42);
        assert_true(h == fates(&p, 42));
        assert_true(h != fates(&p, 43) || !cases[i].chance);
        if (h != cases[i].golden)
            print_error("{\"%s\", %#llxull},\n", cases[i].text, (unsigned long long)h);
        same &= h == cases[i].golden;
    }
    assert_true(same);
}

static void test_a_trace_repeats_itself(void **state)
{
    (void)state;
    char path[] = "/tmp/test-trace-XXXXXX", text[100];
    FILE *f = fdopen(mkstemp(path), "w");
    for (unsigned i = 0, ms = 0; i < 500; i++) {
        ms += i * i % 23;
        fprintf(f, "%u\n", ms);
    }
    fclose(f);
    snprintf(text, sizeof text, "trace=%s,stall_every=5s,stall_for=200ms", path);
    struct netem_profile p = profile(text);
    unlink(path);
    uint64_t h = fates(&p, 42), golden = 0x415c90b94c175ea6ull;
    if (h != golden)
        print_error("trace: %#llxull\n", (unsigned long long)h);
    assert_true(h == golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_of_the_model_repeats_itself),
        cmocka_unit_test(test_a_trace_repeats_itself),
    };
    return cmocka_run_group_tests_name("link_golden", tests, NULL, NULL);
}

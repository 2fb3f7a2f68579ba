/* The generator's golden vectors: the replay of every simulated run and every drawn scenario rests on them.
 * The 64-bit ones come from an independent implementation of splitmix64 and xoshiro256** (its authors'
 * definition, in Python); the splitmix64 behind them gives the published 6457827717110365317 for seed
 * 1234567. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/rng.h"

static void expect(void (*seed)(struct rng *), uint64_t (*next)(struct rng *), const uint64_t *want, size_t n)
{
    struct rng r;
    seed(&r);
    for (size_t i = 0; i < n; i++)
        assert_true(next(&r) == want[i]);
}

static void seed_1(struct rng *r)
{
    rng_seed(r, 1);
}
static void seed_42(struct rng *r)
{
    rng_seed(r, 42);
}
static void stream_7(struct rng *r)
{
    rng_seed_stream(r, 42, 7);
}
static uint64_t below(struct rng *r)
{
    return rng_below(r, 1000);
}
static uint64_t exponential(struct rng *r)
{
    return rng_exp(r, 1000000000);
}

static void test_it_is_xoshiro256_seeded_by_splitmix64(void **state)
{
    static const uint64_t one[] = {0xb3f2af6d0fc710c5ull, 0x853b559647364ceaull, 0x92f89756082a4514ull,
                                   0x642e1c7bc266a3a7ull, 0xb27a48e29a233673ull};
    static const uint64_t other[] = {0x15780b2e0c2ec716ull, 0x6104d9866d113a7eull, 0xae17533239e499a1ull,
                                     0xecb8ad4703b360a1ull, 0xfde6dc7fe2ec5e64ull};
    (void)state;
    expect(seed_1, rng_u64, one, 5);
    expect(seed_42, rng_u64, other, 5);
}

static void test_what_is_drawn_from_it_is_pinned(void **state)
{
    static const uint64_t stream[] = {0x198a93c238b57ba4ull};
    static const uint64_t thousand[] = {702, 520, 574, 391, 697, 143};
    static const uint64_t times[] = {352509583, 653087166, 554941753, 938207657, 360713923, 1940918371};
    struct rng r;
    unsigned hits = 0;
    (void)state;
    expect(stream_7, rng_u64, stream, 1);
    expect(seed_1, below, thousand, 6);
    expect(seed_1, exponential, times, 6);
    rng_seed(&r, 1);
    for (int i = 0; i < 100000; i++)
        hits += rng_hit(&r, RNG_SHARE(20000));
    assert_int_equal(hits, 2038); /* 2 % of them, within a standard error of 44 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_xoshiro256_seeded_by_splitmix64),
        cmocka_unit_test(test_what_is_drawn_from_it_is_pinned),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}

/* Objects named by numbers: numbers and pointers agree, what is given back is reused, nothing moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "util/rng.h"
#include "util/slab.h"

struct thing {
    uint64_t value;
    uint32_t more[5];
};

static void test_numbers_and_pointers_name_the_same_object(void **state)
{
    (void)state;
    struct slab s;
    static struct thing *at[5001];
    slab_init(&s, 28, 10000);
    for (uint32_t i = 1; i <= 5000; i++) {
        at[i] = slab_take(&s);
        assert_int_equal(slab_number(&s, at[i]), i);
        memset(at[i], (int)i, 28);
    }
    for (uint32_t i = 1; i <= 5000; i++) {
        assert_ptr_equal(slab_at(&s, i), at[i]);
        assert_int_equal(((uint8_t *)at[i])[27], (uint8_t)i);
    }
    assert_int_equal(slab_top(&s), 5000);
    slab_release(&s);
}

static void test_what_is_given_back_comes_again_and_is_zero(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, sizeof(struct thing), 100);
    struct thing *a = slab_take(&s), *b = slab_take(&s);
    a->value = b->value = UINT64_MAX;
    slab_give(&s, a);
    slab_give(&s, b);
    assert_int_equal(s.live, 0);
    assert_int_equal(b->more[0], 0); /* a walk can tell: all but the first 4 bytes are zero */
    struct thing *c = slab_take(&s), *d = slab_take(&s);
    assert_ptr_equal(c, b);
    assert_ptr_equal(d, a);
    assert_int_equal(c->value, 0);
    assert_int_equal(d->value, 0);
    assert_int_equal(slab_top(&s), 2);
    slab_release(&s);
}

/* From 8 MiB on chunks come in larger groups. */
static void test_a_large_pool_keeps_its_numbers(void **state)
{
    (void)state;
    struct slab s;
    enum { N = 9000 }; /* of 4 KiB: 36 MiB */
    static void *at[N + 1];
    slab_init(&s, 4096, N);
    for (uint32_t i = 1; i <= N; i++) {
        at[i] = slab_take(&s);
        memset(at[i], (int)(i % 251), 8);
    }
    for (uint32_t i = 1; i <= N; i++) {
        assert_ptr_equal(slab_at(&s, i), at[i]);
        assert_int_equal(slab_number(&s, at[i]), i);
        assert_int_equal(*(uint8_t *)at[i], i % 251);
    }
    slab_release(&s);
}

static void test_the_limit_holds(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 8, 3);
    void *a = slab_take(&s);
    assert_non_null(slab_take(&s));
    assert_non_null(slab_take(&s));
    assert_null(slab_take(&s));
    slab_give(&s, a);
    assert_ptr_equal(slab_take(&s), a);
    assert_null(slab_take(&s));
    slab_release(&s);
}

static void test_takes_and_gives_in_any_order(void **state)
{
    (void)state;
    struct slab s;
    struct rng r;
    static struct thing *held[3000];
    size_t n = 0;
    rng_seed(&r, 4);
    slab_init(&s, sizeof(struct thing), 4000);
    for (int i = 0; i < 100000; i++) {
        if (n < 3000 && rng_below(&r, 5) < 3) {
            struct thing *t = slab_take(&s);
            assert_int_equal(t->value, 0);
            t->value = slab_number(&s, t);
            held[n++] = t;
        } else if (n) {
            size_t k = rng_below(&r, n);
            assert_int_equal(held[k]->value, slab_number(&s, held[k]));
            slab_give(&s, held[k]);
            held[k] = held[--n];
        }
        assert_int_equal(s.live, n);
    }
    slab_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers_and_pointers_name_the_same_object),
                                       cmocka_unit_test(test_what_is_given_back_comes_again_and_is_zero),
                                       cmocka_unit_test(test_a_large_pool_keeps_its_numbers),
                                       cmocka_unit_test(test_the_limit_holds),
                                       cmocka_unit_test(test_takes_and_gives_in_any_order)};
    return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}

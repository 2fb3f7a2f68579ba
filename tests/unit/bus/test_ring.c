/* The bus between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "bus/ring.h"

#define EACH 200000u

struct end {
    struct bus *bus;
    sem_t bell;
    uint32_t next[3], heard, lost;
    bool wrong;
    unsigned self;
};

static struct end ends[3];

static void ring(void *arg)
{
    sem_post(&((struct end *)arg)->bell);
}

static void hear(void *arg, const char *p, size_t n)
{
    struct end *e = arg;
    uint32_t x[2];
    if (n != sizeof x) {
        e->wrong = true;
        return;
    }
    memcpy(x, p, n);
    e->wrong |= x[1] < e->next[x[0]]; /* what is lost leaves a hole; nothing comes twice or early */
    e->next[x[0]] = x[1] + 1;
    e->heard++;
}

static void *talk(void *arg)
{
    struct end *e = arg;
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t x[2] = {e->self, i};
        bus_send(e->bus, BUS_ALL, (char *)x, sizeof x);
        if (i % 64 == 0)
            bus_ring_take(e->bus);
    }
    return NULL;
}

static struct bus_rings *open_rings(void)
{
    struct bus_rings *r;
    assert_int_equal(bus_rings_new(&r, 3, NULL), 0);
    memset(ends, 0, sizeof ends);
    for (unsigned i = 0; i < 3; i++) {
        sem_init(&ends[i].bell, 0, 0);
        ends[i].self = i;
        ends[i].bus = bus_ring_open(r, (uint16_t)i, &(struct bus_sink){hear, &ends[i]}, ring, &ends[i]);
    }
    return r;
}

static void test_three_threads_talk_at_once_in_order(void **state)
{
    (void)state;
    struct bus_rings *r = open_rings();
    pthread_t t[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, talk, &ends[i]), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    uint64_t heard = 0, lost = 0;
    for (unsigned i = 0; i < 3; i++) {
        bus_ring_take(ends[i].bus);
        assert_false(ends[i].wrong);
        heard += ends[i].heard;
        lost += bus_ring_lost(ends[i].bus);
    }
    assert_int_equal(heard + lost, 6 * EACH);
    bus_rings_free(r);
}

static void test_the_bell_rings_once_until_what_came_is_taken(void **state)
{
    (void)state;
    struct bus_rings *r = open_rings();
    uint32_t x[2] = {0, 0};
    int rung;
    for (x[1] = 0; x[1] < 5; x[1]++)
        assert_int_equal(bus_send(ends[0].bus, 1, (char *)x, sizeof x), 0);
    sem_getvalue(&ends[1].bell, &rung);
    assert_int_equal(rung, 1);
    assert_int_equal(bus_ring_take(ends[1].bus), 5);
    assert_int_equal(bus_ring_take(ends[1].bus), 0);
    bus_send(ends[0].bus, 1, (char *)x, sizeof x);
    sem_getvalue(&ends[1].bell, &rung);
    assert_int_equal(rung, 2);
    bus_rings_free(r); /* with one on its way */
}

static void test_a_full_ring_loses(void **state)
{
    (void)state;
    struct bus_rings *r = open_rings();
    uint32_t x[2] = {0, 0};
    for (; x[1] < BUS_RING_SLOTS; x[1]++)
        assert_int_equal(bus_send(ends[0].bus, 1, (char *)x, sizeof x), 0);
    assert_int_equal(bus_send(ends[0].bus, 1, (char *)x, sizeof x), ERR_FULL);
    assert_int_equal(bus_ring_lost(ends[0].bus), 1);
    assert_int_equal(bus_ring_take(ends[1].bus), BUS_RING_SLOTS);
    assert_int_equal(bus_send(ends[0].bus, 1, (char *)x, sizeof x), 0);
    bus_rings_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_threads_talk_at_once_in_order),
        cmocka_unit_test(test_the_bell_rings_once_until_what_came_is_taken),
        cmocka_unit_test(test_a_full_ring_loses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

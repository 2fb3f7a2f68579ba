/* What processes share of presence: the cells, and the copy in memory that behaves as Redis does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* order matters */
#include <cmocka.h>

#include "presence/shared_mem.h"

#define SECOND 1000000000ull

struct node {
    struct shared *shared;
    bool up;
    uint32_t ups, states_n, typing_n, also_n, swept;
    struct shared_state states[8];
    struct shared_typing typing[8];
    uint64_t also;
};

struct world {
    struct shared_mem *mem;
    struct now now;
    struct node a, b;
};

static void news(void *arg, const struct shared_news *n)
{
    struct node *x = arg;
    switch (n->kind) {
    case SHARED_UP:
        x->up = true;
        x->ups++;
        break;
    case SHARED_DOWN:
        x->up = false;
        break;
    case SHARED_STATES:
        x->states_n = n->n;
        memcpy(x->states, n->states, n->n * sizeof *n->states);
        break;
    case SHARED_TYPES:
        for (uint32_t i = 0; i < n->n; i++)
            x->typing[x->typing_n++] = n->typing[i];
        break;
    case SHARED_ALSO:
        x->also = n->ids[0];
        x->also_n++;
        break;
    case SHARED_SWEPT:
        x->swept += n->n;
        break;
    }
}

static void pass(struct world *w, uint64_t ns)
{
    uint64_t end = w->now.mono_ns + ns, next;
    do {
        next = shared_mem_next(w->mem);
        uint64_t to = next < end ? next : end;
        w->now.wall_us += (to - w->now.mono_ns) / 1000;
        w->now.mono_ns = to;
        shared_mem_now(w->mem, w->now);
        shared_mem_deliver(w->mem);
    } while (w->now.mono_ns < end);
}

static void open_as(struct world *w, struct node *x, uint16_t slot)
{
    *x = (struct node){0};
    x->shared = shared_mem_open(w->mem, slot, &(struct shared_sink){news, x});
    assert_non_null(x->shared);
    pass(w, SECOND / 100);
    assert_true(x->up);
}

static struct world *world(void)
{
    struct world *w = calloc(1, sizeof *w);
    assert_int_equal(shared_mem_new(&w->mem, 1000, NULL), 0);
    w->now = (struct now){SECOND, 1764000000000000ull};
    shared_mem_now(w->mem, w->now);
    open_as(w, &w->a, 0);
    open_as(w, &w->b, 1);
    return w;
}

static void end(struct world *w)
{
    shared_mem_free(w->mem);
    free(w);
}

static void beat(struct world *w, struct node *x)
{
    shared_send(x->shared, &(struct shared_order){.op = SHARED_BEAT});
    pass(w, SECOND / 100);
}

/* Seconds, while these are heard. */
static void live(struct world *w, unsigned s, struct node *x, struct node *y)
{
    for (unsigned i = 0; i < s; i++) {
        if (x)
            beat(w, x);
        if (y)
            beat(w, y);
        pass(w, SECOND - (x ? SECOND / 100 : 0) - (y ? SECOND / 100 : 0));
    }
}

static void put(struct world *w, struct node *x, uint64_t user, enum presence_state state)
{
    struct shared_state s = {.user = user, .state = state, .at_s = w->now.wall_us / 1000000};
    shared_send(x->shared, &(struct shared_order){.op = SHARED_PUT, .n = 1, .states = &s});
    pass(w, SECOND / 100);
}

static const struct shared_state *look(struct world *w, struct node *x, uint64_t user)
{
    x->states_n = 0;
    shared_send(x->shared, &(struct shared_order){.op = SHARED_ASK, .request = 1, .n = 1, .ids = &user});
    pass(w, SECOND / 100);
    return x->states_n ? &x->states[0] : NULL;
}

static void test_a_cell_keeps_state_and_time(void **state)
{
    (void)state;
    uint64_t now = 1764000000;
    uint16_t slot;
    uint8_t cell[3];
    struct shared_state in = {.state = PRESENCE_AWAY}, out;
    shared_cell_put(cell, &in, 63);
    shared_cell_get(cell, now, &out, &slot);
    assert_int_equal(out.state, PRESENCE_AWAY);
    assert_int_equal(slot, 63);
    for (uint64_t ago = 0; ago < 4ull * 365 * 86400; ago += 7 * 86400 + 13) {
        /* also where the count of units has begun anew since */
        for (uint64_t later = 0; later < 3; later++) {
            uint64_t at = now + later * 4 * 365 * 86400;
            in = (struct shared_state){.state = PRESENCE_OFFLINE, .at_s = at - ago};
            if (in.at_s <= PRESENCE_BEGIN_S + SHARED_UNIT_S)
                continue;
            shared_cell_put(cell, &in, 0);
            shared_cell_get(cell, at, &out, &slot);
            assert_int_equal(out.state, PRESENCE_OFFLINE);
            assert_int_equal(slot, SHARED_NOBODY);
            if (out.at_s) /* one time in four years is taken by "not known" */
                assert_in_range(in.at_s - out.at_s, 0, SHARED_UNIT_S - 1);
        }
    }
}

static void test_what_one_node_knows_others_can_ask(void **state)
{
    (void)state;
    struct world *w = world();
    live(w, 1, &w->a, &w->b);
    put(w, &w->a, 7, PRESENCE_ONLINE);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_ONLINE);
    assert_int_equal(look(w, &w->b, 8)->state, PRESENCE_UNKNOWN);
    put(w, &w->a, 7, PRESENCE_OFFLINE);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_OFFLINE);
    assert_in_range(look(w, &w->b, 7)->at_s, w->now.wall_us / 1000000 - 40, w->now.wall_us / 1000000);
    end(w);
}

static void test_who_is_at_two_nodes_is_not_offline_when_one_of_them_says_so(void **state)
{
    (void)state;
    struct world *w = world();
    live(w, 1, &w->a, &w->b);
    put(w, &w->a, 7, PRESENCE_ONLINE);
    put(w, &w->b, 7, PRESENCE_ONLINE); /* it is B's now, and both hear of it */
    assert_int_equal(w->a.also, 7);
    assert_int_equal(w->b.also, 7);
    put(w, &w->a, 7, PRESENCE_OFFLINE);
    assert_int_equal(look(w, &w->a, 7)->state, PRESENCE_ONLINE);
    put(w, &w->a, 7, PRESENCE_AWAY);
    assert_int_equal(look(w, &w->a, 7)->state, PRESENCE_ONLINE);
    end(w);
}

static void test_nobody_believes_a_silent_node(void **state)
{
    (void)state;
    struct world *w = world();
    live(w, 1, &w->a, &w->b);
    put(w, &w->a, 7, PRESENCE_ONLINE);
    live(w, 8, NULL, &w->b);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_ONLINE);
    live(w, 4, NULL, &w->b);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_UNKNOWN);
    assert_true(look(w, &w->b, 7)->doubted);
    live(w, 15, NULL, &w->b);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_OFFLINE);
    end(w);
}

static void test_a_node_that_is_back_vouches_for_nobody(void **state)
{
    (void)state;
    struct world *w = world();
    live(w, 1, &w->a, &w->b);
    put(w, &w->a, 7, PRESENCE_ONLINE);
    shared_close(w->a.shared); /* kill -9 */
    open_as(w, &w->a, 0);
    live(w, 1, &w->a, &w->b);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_OFFLINE);
    end(w);
}

static void test_what_is_stale_for_an_hour_is_swept(void **state)
{
    (void)state;
    struct world *w = world();
    live(w, 1, &w->a, &w->b);
    put(w, &w->a, 7, PRESENCE_ONLINE);
    put(w, &w->b, 8, PRESENCE_ONLINE);
    uint64_t left_s = w->now.wall_us / 1000000;
    live(w, 3500, NULL, &w->b);
    shared_send(w->b.shared, &(struct shared_order){.op = SHARED_SWEEP});
    live(w, 1, NULL, &w->b);
    assert_int_equal(w->b.swept, 0);
    live(w, 110, NULL, &w->b);
    shared_send(w->b.shared, &(struct shared_order){.op = SHARED_SWEEP});
    live(w, 1, NULL, &w->b);
    assert_int_equal(w->b.swept, 1); /* and not 8, for whom somebody vouches */
    assert_false(look(w, &w->b, 7)->doubted);
    assert_int_equal(look(w, &w->b, 7)->state, PRESENCE_OFFLINE);
    assert_in_range(look(w, &w->b, 7)->at_s, left_s - 40, left_s + 2);
    assert_int_equal(look(w, &w->b, 8)->state, PRESENCE_ONLINE);
    end(w);
}

static void test_typing_is_told_kept_and_over(void **state)
{
    (void)state;
    struct world *w = world();
    uint64_t chat = 17;
    struct shared_typing t = {.chat = chat, .user = 7, .until_us = w->now.wall_us + 9500000};
    shared_send(w->a.shared, &(struct shared_order){.op = SHARED_TYPE, .n = 1, .typing = &t});
    pass(w, SECOND / 10);
    assert_int_equal(w->b.typing_n, 1);
    assert_int_equal(w->a.typing_n, 0);
    struct shared_order who = {.op = SHARED_TYPISTS, .request = 1, .n = 1, .ids = &chat};
    shared_send(w->b.shared, &who);
    pass(w, SECOND / 10);
    assert_int_equal(w->b.typing_n, 2);
    struct shared_typing quiet = {.chat = chat, .user = 7, .until_us = t.until_us - 1, .quiet = true};
    shared_send(w->a.shared, &(struct shared_order){.op = SHARED_TYPE, .n = 1, .typing = &quiet});
    pass(w, SECOND / 10);
    w->b.typing_n = 0;
    shared_send(w->b.shared, &who); /* what was said since then goes on */
    pass(w, SECOND / 10);
    assert_int_equal(w->b.typing_n, 1);
    pass(w, 10 * SECOND);
    shared_send(w->b.shared, &who);
    pass(w, SECOND / 10);
    assert_int_equal(w->b.typing_n, 1);
    end(w);
}

static void test_its_failures_are_found_out_and_it_comes_back(void **state)
{
    (void)state;
    struct world *w = world();
    for (enum shared_mem_state how = SHARED_MEM_KILLED; how <= SHARED_MEM_CUT; how++) {
        live(w, 1, &w->a, &w->b);
        put(w, &w->a, 7, PRESENCE_ONLINE);
        uint32_t ups = w->a.ups;
        shared_mem_set(w->mem, how);
        put(w, &w->a, 7, PRESENCE_AWAY);
        pass(w, 4 * SECOND);
        assert_false(w->a.up);
        assert_int_equal(shared_send(w->a.shared, &(struct shared_order){.op = SHARED_BEAT}),
                         ERR_UNAVAILABLE);
        shared_mem_set(w->mem, SHARED_MEM_WELL);
        pass(w, SECOND);
        assert_true(w->a.up);
        assert_int_equal(w->a.ups, ups + 1);
        live(w, 1, &w->a, &w->b);
        enum presence_state then = how == SHARED_MEM_KILLED   ? PRESENCE_UNKNOWN
                                   : how == SHARED_MEM_FROZEN ? PRESENCE_AWAY
                                                              : PRESENCE_ONLINE;
        assert_int_equal(look(w, &w->b, 7)->state, then);
    }
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cell_keeps_state_and_time),
        cmocka_unit_test(test_what_one_node_knows_others_can_ask),
        cmocka_unit_test(test_who_is_at_two_nodes_is_not_offline_when_one_of_them_says_so),
        cmocka_unit_test(test_nobody_believes_a_silent_node),
        cmocka_unit_test(test_a_node_that_is_back_vouches_for_nobody),
        cmocka_unit_test(test_what_is_stale_for_an_hour_is_swept),
        cmocka_unit_test(test_typing_is_told_kept_and_over),
        cmocka_unit_test(test_its_failures_are_found_out_and_it_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

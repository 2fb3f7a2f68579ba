/* Receipts at one node: who is told what, and when. */
#include "tests/unit/node/world.h"

static void cursors_saved(struct world *w)
{
    for (int i = 0; i < 65; i++) { /* 1.3 s: saved, then told */
        world_pass(w, 20);
        world_settle(w);
    }
}

static void join_chat(struct world *w, struct peer *admin, struct peer *p)
{
    peer_say(w, admin, "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"%llu\"}", (unsigned long long)p->user);
    world_settle(w);
    peer_say(w, p, "{\"t\":\"join\",\"chat\":\"17\"}");
    world_settle(w);
}

static uint64_t say_hi(struct world *w, struct peer *p)
{
    char id[ID_TEXT + 1];
    peer_send(w, p, world_id(w, id), 17, "hi");
    world_settle(w);
    json_t *o = peer_take(p, "accepted");
    assert_non_null(o);
    return (uint64_t)number_of(o, "seq");
}

static void watch(struct world *w, struct peer *p)
{
    peer_say(w, p, "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true}");
    world_settle(w);
    world_pass(w, 200);
    world_settle(w);
}

/* The receipts that came of one user: how many, and the last one. */
static int receipts_of(struct peer *p, const char *user, long long *delivered, long long *read)
{
    int n = 0;
    *delivered = *read = -1;
    for (size_t i = 0; i < json_array_size(p->got); i++) {
        json_t *o = json_array_get(p->got, i);
        if (strcmp(text_of(o, "t"), "receipt") || strcmp(text_of(o, "user"), user))
            continue;
        *delivered = number_of(o, "delivered");
        *read = number_of(o, "read");
        n++;
    }
    return n;
}

static void forget_got(struct peer *p)
{
    json_array_clear(p->got);
}

static void test_members_are_told_last_values_in_one_frame(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    watch(w, a);
    uint64_t seq = 0;
    for (int i = 0; i < 20; i++)
        seq = say_hi(w, a);
    for (uint64_t i = 1; i <= seq; i++)
        peer_say(w, b, "{\"t\":\"%s\",\"chat\":\"17\",\"seq\":%llu}", i % 2 ? "ack" : "read",
                 (unsigned long long)i);
    forget_got(a);
    struct node_stats before, after;
    node_stats(w->node, &before);
    cursors_saved(w);
    node_stats(w->node, &after);
    assert_int_equal(receipts_of(a, "8", &d, &r), 1);
    assert_int_equal(d, seq);
    assert_int_equal(r, seq);
    assert_int_equal(after.counters.receipts_told - before.counters.receipts_told, 1);
    assert_int_equal(receipts_of(b, "7", &d, &r), 0); /* who does not ask is told nothing */
    peer_say(w, a, "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":false}");
    seq = say_hi(w, a);
    peer_say(w, b, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    forget_got(a);
    cursors_saved(w);
    assert_int_equal(receipts_of(a, "8", &d, &r), 0);
    world_free(w);
}

static void test_state_is_told_to_who_comes_back_also_after_a_restart(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    uint64_t one = say_hi(w, a), two = say_hi(w, a);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)two);
    peer_say(w, b, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)one);
    cursors_saved(w);
    watch(w, a);
    assert_int_equal(receipts_of(a, "8", &d, &r), 1);
    assert_true(d == (long long)two && r == (long long)one);
    world_restart(w);
    a = peer_hello(w, 7, 1, NULL);
    watch(w, a);
    assert_int_equal(receipts_of(a, "8", &d, &r), 1);
    assert_true(d == (long long)two && r == (long long)one);
    world_free(w);
}

/* A device that resumes, or that starts from nothing, takes nothing back; of two devices the maximum counts.
 */
static void test_maximum_over_devices_and_over_resumes(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b1 = peer_hello(w, 8, 1, NULL),
                *b2 = peer_hello(w, 8, 2, NULL);
    world_chat(w, a);
    uint64_t one = say_hi(w, a), two = say_hi(w, a), three = say_hi(w, a);
    peer_say(w, b1, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)two);
    peer_say(w, b2, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)three);
    peer_say(w, b2, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)one);
    watch(w, a);
    cursors_saved(w);
    assert_true(receipts_of(a, "8", &d, &r) && d == (long long)three && r == (long long)two);
    peer_gone(w, b1);
    b1 = peer_hello(w, 8, 1, "[]"); /* it knows nothing any more, and reads from the beginning */
    peer_say(w, b1, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)one);
    cursors_saved(w);
    peer_gone(w, a);
    a = peer_hello(w, 7, 1, NULL);
    watch(w, a);
    assert_true(receipts_of(a, "8", &d, &r) && d == (long long)three && r == (long long)two);
    struct cursor c;
    assert_int_equal(store_cursor(w->store, 17, 8, 1, &c, NULL), 0);
    assert_true(c.read == two);
    /* more than was pushed cannot be read */
    peer_say(w, b1, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":4000}");
    forget_got(a);
    cursors_saved(w);
    assert_true(receipts_of(a, "8", &d, &r) == 1 && r == (long long)three);
    world_free(w);
}

/* What hello claims was acknowledged on a connection that broke, and perhaps never heard: the next word
 * counts. */
static void test_acknowledgement_said_again_after_resume_is_kept(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    watch(w, a);
    uint64_t seq = say_hi(w, a);
    peer_gone(w, b); /* with its ack */
    char resume[100];
    snprintf(resume, sizeof resume, "[[\"17\",\"%llu\",%llu]]", (unsigned long long)store_epoch(w->store),
             (unsigned long long)seq);
    b = peer_hello(w, 8, 1, resume);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    cursors_saved(w);
    assert_true(receipts_of(a, "8", &d, &r) == 1 && d == (long long)seq && r == 0);
    world_free(w);
}

static void test_removed_member_hears_nothing_and_newcomer_begins_at_their_join(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL),
                *c = peer_hello(w, 9, 1, NULL);
    world_chat(w, a);
    uint64_t seq = say_hi(w, a);
    peer_say(w, b, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    join_chat(w, a, c);
    watch(w, a);
    watch(w, b);
    watch(w, c);
    assert_int_equal(receipts_of(a, "9", &d, &r), 0); /* has got nothing since */
    assert_int_equal(receipts_of(c, "8", &d, &r), 1);
    peer_say(w, a, "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"8\"}");
    world_settle(w);
    seq = say_hi(w, a);
    peer_say(w, c, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    peer_say(w, b, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    forget_got(a);
    forget_got(b);
    cursors_saved(w);
    assert_int_equal(json_array_size(b->got), 0);
    assert_true(receipts_of(a, "9", &d, &r) == 1 && r == (long long)seq);
    assert_int_equal(receipts_of(a, "8", &d, &r), 0);
    /* back again: what was read before the new membership is not said of it */
    join_chat(w, a, b);
    peer_gone(w, a);
    a = peer_hello(w, 7, 1, NULL);
    watch(w, a);
    assert_int_equal(receipts_of(a, "8", &d, &r), 0);
    assert_true(receipts_of(b, "9", &d, &r) >= 1); /* still watching: told what holds now */
    uint64_t next = say_hi(w, a);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)next);
    cursors_saved(w);
    assert_true(receipts_of(a, "8", &d, &r) == 1 && d == (long long)next);
    world_free(w);
}

static void test_outsider_may_not_watch(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *x = peer_hello(w, 99, 1, NULL);
    world_chat(w, a);
    watch(w, x);
    assert_string_equal(text_of(peer_take(x, "error"), "code"), "not_member");
    peer_say(w, x, "{\"t\":\"receipts\",\"chat\":\"4711\",\"on\":true}");
    assert_string_equal(text_of(peer_take(x, "error"), "code"), "no_such_chat");
    peer_say(w, a, "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true,\"seqs\":[[1,33]]}");
    assert_string_equal(text_of(peer_take(a, "error"), "code"), "limit");
    peer_say(w, a, "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true,\"seqs\":[[1,9007199254740991]]}");
    assert_string_equal(text_of(peer_take(a, "error"), "code"), "limit");
    world_free(w);
}

static void ask_http(struct world *w, uint64_t user, uint64_t seq, uint64_t after, uint32_t limit)
{
    struct buf token = BUF_INIT(4096);
    world_token(w, user, &token);
    world_step(w, (struct node_event){.kind = NODE_RECEIPTS,
                                      .request = 5,
                                      .data = token.data,
                                      .len = token.len,
                                      .chat = 17,
                                      .seq = seq,
                                      .after = after,
                                      .limit = limit});
    world_settle(w);
    buf_release(&token);
}

/* A group of 40: its author is told counts, nobody is told names, and names come page by page. */
static void test_large_group_is_told_in_counts(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *p[40];
    char text[2000] = "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"100\"";
    for (uint64_t i = 0; i < 40; i++)
        p[i] = peer_hello(w, 100 + i, 1, NULL);
    for (int i = 1; i < 40; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), ",\"%d\"", 100 + i);
    peer_say(w, p[0], "%s]}", text);
    world_settle(w);
    uint64_t one = say_hi(w, p[0]), two = say_hi(w, p[1]), three = say_hi(w, p[0]);
    for (int i = 1; i < 11; i++)
        peer_say(w, p[i], "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)three);
    for (int i = 1; i < 4; i++)
        peer_say(w, p[i], "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)one);
    cursors_saved(w);
    forget_got(p[0]);
    peer_say(w, p[0], "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true,\"seqs\":[[%llu,%llu]]}",
             (unsigned long long)one, (unsigned long long)three);
    watch(w, p[1]);
    world_settle(w);
    world_pass(w, 1000);
    world_settle(w);
    /* the middle one is another's */
    json_t *o = peer_take(p[0], "receipt"), *counts = json_object_get(o, "counts");
    char want[200];
    snprintf(want, sizeof want, "[[%llu,%llu,10,3,39],[%llu,%llu,10,0,39]]", (unsigned long long)one,
             (unsigned long long)one, (unsigned long long)three, (unsigned long long)three);
    char *got = json_dumps(counts, JSON_COMPACT);
    assert_string_equal(got, want);
    free(got);
    assert_false(json_object_get(o, "user"));
    assert_int_equal(peer_count(p[1], "receipt"), 0);
    (void)two;

    /* more is read, in many steps, and told once; what was said while watching is among it */
    uint64_t four = say_hi(w, p[0]);
    for (int i = 1; i < 31; i++)
        peer_say(w, p[i], "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)four);
    forget_got(p[0]);
    cursors_saved(w);
    world_pass(w, 1000);
    assert_true(peer_count(p[0], "receipt") <= 2);
    json_t *last = NULL;
    for (size_t i = 0; i < json_array_size(p[0]->got); i++)
        if (!strcmp(text_of(json_array_get(p[0]->got, i), "t"), "receipt"))
            last = json_array_get(p[0]->got, i);
    got = json_dumps(json_object_get(last, "counts"), JSON_COMPACT);
    snprintf(want, sizeof want, "[[%llu,%llu,30,30,39]]", (unsigned long long)one, (unsigned long long)four);
    assert_string_equal(got, want); /* equal neighbours among the author's own: one range */
    free(got);

    /* who */
    ask_http(w, 100, four, 0, 20);
    assert_int_equal(w->http_status, 200);
    o = json_loads(w->http_body, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(o, "users")), 20);
    assert_true(number_of(o, "of") == 39 && number_of(o, "delivered") == 30 && number_of(o, "read") == 30);
    assert_string_equal(text_of(o, "next"), "120");
    json_decref(o);
    ask_http(w, 100, four, 120, 20);
    o = json_loads(w->http_body, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(o, "users")), 10);
    assert_string_equal(text_of(json_array_get(json_object_get(o, "users"), 0), "user"), "121");
    assert_string_equal(text_of(o, "next"), "0");
    json_decref(o);
    ask_http(w, 105, four, 0, 20); /* not the author */
    assert_int_equal(w->http_status, 403);
    ask_http(w, 99, four, 0, 20);
    assert_int_equal(w->http_status, 404);
    ask_http(w, 100, 4000, 0, 20);
    assert_int_not_equal(w->http_status, 200);

    /* who leaves is not counted, who joins later is none of those who might have */
    peer_say(w, p[0], "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"101\"}");
    world_settle(w);
    ask_http(w, 100, four, 0, 20);
    o = json_loads(w->http_body, 0, NULL);
    assert_true(number_of(o, "of") == 38 && number_of(o, "read") == 29);
    json_decref(o);
    struct peer *late = peer_hello(w, 200, 1, NULL);
    join_chat(w, p[0], late);
    ask_http(w, 100, four, 0, 20);
    o = json_loads(w->http_body, 0, NULL);
    assert_int_equal(number_of(o, "of"), 38);
    json_decref(o);
    world_free(w);
}

/* A disk that is full takes no cursors; they are not forgotten. */
static void test_cursors_refused_by_the_store_go_again(void **state)
{
    (void)state;
    long long d, r;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    watch(w, a);
    uint64_t seq = say_hi(w, a);
    w->store_full = true;
    peer_say(w, b, "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%llu}", (unsigned long long)seq);
    cursors_saved(w);
    assert_int_equal(receipts_of(a, "8", &d, &r), 0); /* nothing is told that is not kept */
    w->store_full = false;
    cursors_saved(w);
    assert_true(receipts_of(a, "8", &d, &r) == 1 && r == (long long)seq);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_are_told_last_values_in_one_frame),
        cmocka_unit_test(test_state_is_told_to_who_comes_back_also_after_a_restart),
        cmocka_unit_test(test_maximum_over_devices_and_over_resumes),
        cmocka_unit_test(test_acknowledgement_said_again_after_resume_is_kept),
        cmocka_unit_test(test_removed_member_hears_nothing_and_newcomer_begins_at_their_join),
        cmocka_unit_test(test_outsider_may_not_watch),
        cmocka_unit_test(test_large_group_is_told_in_counts),
        cmocka_unit_test(test_cursors_refused_by_the_store_go_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a node promises, step by step over a memory store. */
#include "tests/unit/node/world.h"

static void test_nothing_is_answered_or_pushed_before_it_is_durable(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    assert_int_equal(w->commits_n, 1);
    assert_null(peer_take(a, "accepted"));
    assert_null(peer_take(b, "msg"));
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_non_null(o);
    assert_string_equal(text_of(o, "id"), id);
    assert_int_equal(number_of(o, "seq"), 1);
    assert_false(json_is_true(json_object_get(o, "dup")));
    o = peer_take(b, "msg");
    assert_non_null(o);
    assert_string_equal(text_of(o, "body"), "hi");
    assert_string_equal(text_of(o, "from"), "7");
    assert_int_equal(number_of(o, "seq"), 1);
    assert_int_equal(peer_count(a, "msg"), 0); /* the sending device has `accepted` */
    world_free(w);
}

static void test_retry_after_lost_accepted_is_a_duplicate_of_the_same_seq(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    peer_gone(w, a);
    a = peer_hello(w, 7, 1, "[]");
    peer_send(w, a, id, 17, "hi");
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_non_null(o);
    assert_true(json_is_true(json_object_get(o, "dup")));
    assert_int_equal(number_of(o, "seq"), 1);
    assert_int_equal(peer_count(b, "msg"), 1);
    world_free(w);
}

static void test_retry_is_found_in_the_store_after_a_restart(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    world_restart(w);
    a = peer_hello(w, 7, 1, "[]");
    peer_send(w, a, id, 17, "hi");
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_non_null(o);
    assert_true(json_is_true(json_object_get(o, "dup")));
    assert_int_equal(number_of(o, "seq"), 1);
    world_free(w);
}

/* After a restart the store may know ids up to a bound; younger ones can't be in it. */
static void test_only_ids_that_the_store_can_know_are_looked_up_and_order_is_kept(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char known[ID_TEXT + 1], old[ID_TEXT + 1], fresh[ID_TEXT + 1];
    peer_send(w, a, world_id(w, known), 17, "stored");
    world_settle(w);
    world_id(w, old);
    world_restart(w);
    world_pass(w, STORE_IDS_AHEAD_MS + 1);
    a = peer_hello(w, 7, 1, "[]");
    peer_send(w, a, world_id(w, fresh), 17, "first");
    assert_int_equal(w->reads_n, 0);
    world_settle(w);
    assert_int_equal(number_of(peer_take(a, "accepted"), "seq"), 2);
    peer_send(w, a, known, 17, "stored");
    peer_send(w, a, old, 17, "second");
    peer_send(w, a, world_id(w, fresh), 17, "third");
    assert_int_equal(w->reads_n, 2);
    assert_int_equal(w->commits_n, 0); /* the third waits for the second */
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_string_equal(text_of(o, "id"), known);
    assert_true(json_is_true(json_object_get(o, "dup")));
    o = peer_take(a, "accepted");
    assert_string_equal(text_of(o, "id"), old);
    assert_int_equal(number_of(o, "seq"), 3);
    o = peer_take(a, "accepted");
    assert_string_equal(text_of(o, "id"), fresh);
    assert_int_equal(number_of(o, "seq"), 4);
    assert_true(node_idle(w->node));
    world_free(w);
}

static void test_server_time_never_falls_in_a_chat_though_the_clock_was_set_back(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    long long before = number_of(peer_take(a, "accepted"), "ts");
    w->now.wall_us -= 60 * 1000000;
    world_restart(w);
    a = peer_hello(w, 7, 1, "[]");
    peer_send(w, a, world_id(w, id), 17, "again");
    world_settle(w);
    long long after = number_of(peer_take(a, "accepted"), "ts");
    assert_true(before > 0 && after >= before);
    world_free(w);
}

static void test_id_that_memory_forgot_is_looked_up_in_the_store(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char first[ID_TEXT + 1], id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, first), 17, "hi");
    world_settle(w);
    for (size_t i = 0; i < ACCEPT_KNOWN_MAX; i++) {
        w->now.mono_ns += NS_PER_MS;
        w->now.wall_us += 1000;
        peer_send(w, a, world_id(w, id), 17, "hi");
        if (i % 256 == 255) {
            world_settle(w);
            json_array_clear(a->got);
        }
    }
    world_settle(w);
    json_array_clear(a->got);
    peer_send(w, a, world_id(w, id), 17, "still fresh");
    assert_int_equal(w->reads_n, 0);
    world_settle(w);
    peer_take(a, "accepted");
    peer_send(w, a, first, 17, "hi");
    assert_int_equal(w->reads_n, 1);
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_true(json_is_true(json_object_get(o, "dup")));
    assert_int_equal(number_of(o, "seq"), 1);
    world_free(w);
}

static void test_retry_in_flight_joins_and_is_answered_after_durability(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_run_read(w);
    struct peer *a2 = peer_open(w, 7); /* the same phone on another connection, before the commit came back */
    struct buf token = BUF_INIT(4096);
    world_token(w, 7, &token);
    peer_say(w, a2, "{\"t\":\"hello\",\"token\":\"%s\",\"device\":1,\"resume\":[[\"17\",\"1\",0]]}",
             buf_cstr(&token));
    buf_release(&token);
    peer_send(w, a2, id, 17, "hi");
    assert_null(peer_take(a2, "accepted"));
    world_settle(w);
    assert_non_null(peer_take(a2, "accepted"));
    assert_int_equal(peer_count(b, "msg"), 1);
    assert_int_equal(a->closed_code, CLOSE_REPLACED);
    world_free(w);
}

static void test_same_id_with_other_content_is_a_conflict(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    peer_send(w, a, id, 17, "ho");
    world_settle(w);
    json_t *o = peer_take(a, "error");
    assert_non_null(o);
    assert_string_equal(text_of(o, "code"), "id_conflict");
    assert_string_equal(text_of(o, "id"), id);
    world_free(w);
}

static void test_id_older_than_the_window_is_refused_with_the_clock_moved_forty_days(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    peer_gone(w, a);
    w->now.wall_us += 40ull * 86400 * 1000000;
    assert_int_equal(store_dedup_sweep(w->store, w->now.wall_us, 1000, NULL),
                     2); /* the message and the create */
    a = peer_hello(w, 7, 1, "[]");
    peer_send(w, a, id, 17, "hi"); /* without the window this would be stored twice now */
    world_settle(w);
    json_t *o = peer_take(a, "error");
    assert_non_null(o);
    assert_string_equal(text_of(o, "code"), "id_too_old");
    world_free(w);
}

static void test_full_store_is_an_error_to_retry_and_leaves_no_hole(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    w->store_full = true;
    char one[ID_TEXT + 1], two[ID_TEXT + 1];
    peer_send(w, a, world_id(w, one), 17, "one");
    peer_send(w, a, world_id(w, two), 17, "two");
    world_settle(w);
    json_t *o = peer_take(a, "error");
    assert_string_equal(text_of(o, "code"), "storage_full");
    assert_string_equal(text_of(o, "id"), one);
    assert_true(number_of(o, "retry_ms") > 0);
    assert_int_equal(peer_count(b, "msg"), 0);
    w->store_full = false;
    peer_send(w, a, one, 17, "one");
    world_settle(w);
    o = peer_take(a, "accepted");
    assert_int_equal(number_of(o, "seq"), 1);
    assert_int_equal(number_of(peer_take(b, "msg"), "seq"), 1);
    world_free(w);
}

static void test_offline_member_is_sent_what_it_missed_and_the_claim_rules(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    for (int i = 0; i < 250; i++) { /* more than two pages */
        peer_send(w, a, world_id(w, id), 17, "m");
        world_settle(w);
    }
    struct peer *b = peer_hello(w, 8, 1, NULL);
    assert_int_equal(peer_count(b, "msg"), 250);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":200}");
    world_pass(w, 600);
    world_settle(w);
    peer_gone(w, b);
    b = peer_hello(w, 8, 1, NULL); /* says nothing: the saved cursor counts */
    assert_int_equal(peer_count(b, "msg"), 50);
    assert_int_equal(number_of(peer_take(b, "msg"), "seq"), 201);
    peer_gone(w, b);
    char resume[64];
    snprintf(resume, sizeof resume, "[[\"17\",\"%llu\",240]]", (unsigned long long)store_epoch(w->store));
    b = peer_hello(w, 8, 1, resume); /* claims more: the claim rules */
    assert_int_equal(peer_count(b, "msg"), 10);
    world_free(w);
}

static void test_missing_ack_closes_the_connection_and_resume_redelivers(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    world_pass(w, 9000);
    assert_int_equal(b->closed_code, 0);
    world_pass(w, 1500);
    assert_int_equal(b->closed_code, CLOSE_ACK_TIMEOUT);
    assert_int_equal(a->closed_code, 0); /* the sender owes nothing */
    peer_gone(w, b);
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "msg"), 1);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1}");
    world_pass(w, 11000);
    assert_int_equal(b->closed_code, 0);
    world_free(w);
}

/* TCP delivers what an app had sent before it gave the socket up, be it minutes later. "Replaced" is for
 * good: a phone that hears it does not come back. */
static void test_a_late_hello_on_an_older_connection_does_not_replace_the_newer_one(void **state)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct buf token = BUF_INIT(4096);
    (void)state;
    world_token(w, 7, &token);
    struct peer *old = peer_open(w, 7), *fresh = peer_hello(w, 7, 1, NULL);
    assert_int_equal(peer_count(fresh, "welcome"), 1);
    peer_say(w, old, "{\"t\":\"hello\",\"token\":\"%s\",\"device\":1,\"net\":\"lte\"}", buf_cstr(&token));
    world_settle(w);
    assert_int_equal(old->closed_code, CLOSE_REPLACED);
    assert_int_equal(fresh->closed_code, 0);
    struct peer *next = peer_hello(w, 7, 1, NULL);
    assert_int_equal(peer_count(next, "welcome"), 1);
    assert_int_equal(fresh->closed_code, CLOSE_REPLACED);
    buf_release(&token);
    world_free(w);
}

static void test_silent_connection_is_closed_after_the_idle_timeout(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    for (int i = 0; i < 4; i++) {
        world_pass(w, 9000);
        peer_say(w, a, "{\"t\":\"beat\"}");
    }
    assert_int_equal(a->closed_code, 0);
    assert_int_equal(b->closed_code, CLOSE_IDLE);
    world_free(w);
}

static void test_removed_member_is_sent_nothing_from_the_next_seq_on(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1], late[ID_TEXT + 1];
    /* all in one turn: the removal is a barrier, what follows is judged by the new membership */
    peer_send(w, a, world_id(w, id), 17, "before");
    peer_say(w, a, "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"8\"}");
    world_settle(w);
    peer_send(w, a, world_id(w, id), 17, "after");
    peer_send(w, b, world_id(w, late), 17, "I am still here");
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 2); /* before, and the removal itself */
    assert_string_equal(text_of(peer_take(b, "msg"), "body"), "before");
    assert_string_equal(text_of(peer_take(b, "msg"), "kind"), "remove");
    json_t *o = peer_take(b, "error");
    assert_string_equal(text_of(o, "code"), "not_member");
    world_pass(w, 12000); /* nor does anybody wait for its acknowledgements */
    assert_int_equal(b->closed_code, 0);
    peer_gone(w, b);
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "msg"), 0);
    world_free(w);
}

/* The removal flies in the batch that was sealed when the one before it came back. */
static void test_who_is_being_removed_gets_nothing_into_the_batch_after_it(void **state)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    char id[ID_TEXT + 1];
    (void)state;
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    peer_send(w, b, world_id(w, id), 17, "before");
    peer_say(w, a, "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"8\"}");
    assert_true(world_run_commit(w)); /* "before" is applied, the removal flies */
    peer_send(w, b, world_id(w, id), 17, "too late");
    world_settle(w);
    assert_int_equal(peer_count(b, "accepted"), 1);
    assert_string_equal(text_of(peer_take(b, "error"), "code"), "not_member");
    assert_int_equal(peer_count(a, "msg"), 2); /* "before", and the removal */
    world_free(w);
}

static void test_join_needs_an_invitation_and_starts_at_its_own_entry(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *c = peer_hello(w, 9, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "old news");
    peer_say(w, c, "{\"t\":\"join\",\"chat\":\"17\"}");
    world_settle(w);
    assert_string_equal(text_of(peer_take(c, "error"), "code"), "not_allowed");
    peer_say(w, a, "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"9\"}");
    world_settle(w);
    assert_int_equal(peer_count(c, "msg"), 0); /* invited is not yet a member */
    peer_say(w, c, "{\"t\":\"join\",\"chat\":\"17\"}");
    world_settle(w);
    json_t *gap = peer_take(c, "gap");
    assert_non_null(gap);
    assert_int_equal(number_of(gap, "from"), 1);
    assert_int_equal(number_of(gap, "to"), 2);
    assert_string_equal(text_of(gap, "reason"), "before_join");
    json_t *o = peer_take(c, "msg");
    assert_string_equal(text_of(o, "kind"), "join");
    assert_int_equal(number_of(o, "seq"), 3);
    world_restart(w); /* and it is so after a restart */
    c = peer_hello(w, 9, 1, "[]");
    assert_int_equal(number_of(peer_take(c, "msg"), "seq"), 3);
    world_free(w);
}

static void test_create_again_is_done_for_its_creator_and_refused_for_others(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *c = peer_hello(w, 9, 1, NULL);
    world_chat(w, a);
    world_chat(w, a);
    peer_say(w, c, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"9\"]}");
    world_settle(w);
    assert_string_equal(text_of(peer_take(c, "error"), "code"), "chat_exists");
    world_free(w);
}

static void test_who_sends_while_the_chat_is_being_made_is_told_to_come_again(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    char id[ID_TEXT + 1];
    peer_say(w, a, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"7\",\"8\"]}");
    assert_int_equal(w->commits_n, 1); /* the creation flies: nobody is a member yet */
    peer_send(w, b, world_id(w, id), 17, "early");
    assert_string_equal(text_of(peer_take(b, "error"), "code"), "no_such_chat");
    world_settle(w);
    peer_send(w, b, id, 17, "early");
    world_settle(w);
    assert_int_equal(number_of(peer_take(b, "accepted"), "seq"), 1);
    world_free(w);
}

static void test_restored_store_goes_on_in_a_new_epoch_above_a_gap(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1], resume[64];
    for (int i = 0; i < 3; i++)
        peer_send(w, a, world_id(w, id), 17, "old");
    world_settle(w);
    uint64_t before = store_epoch(w->store);
    assert_int_equal(store_close(w->store, NULL), 0);
    struct store_config sc = {.now_us = w->now.wall_us, .random = 1234567, .restored = true};
    assert_int_equal(store_open_on(&w->store, w->kv, &sc, NULL), 0);
    assert_true(store_epoch(w->store) != before);
    world_restart(w);
    /* the phone claims seq 5 of the old epoch: two of its messages were lost with the store */
    snprintf(resume, sizeof resume, "[[\"17\",\"%llu\",5]]", (unsigned long long)before);
    a = peer_hello(w, 7, 1, "[]");
    struct peer *b = peer_hello(w, 8, 1, resume);
    peer_send(w, a, world_id(w, id), 17, "new");
    world_settle(w);
    json_t *o = peer_take(a, "accepted");
    assert_int_equal(number_of(o, "seq"), 1ll << 32);
    o = peer_take(b, "gap");
    assert_non_null(o);
    assert_int_equal(number_of(o, "to"), (1ll << 32) - 1);
    assert_string_equal(text_of(o, "reason"), "epoch");
    o = peer_take(b, "msg");
    assert_string_equal(text_of(o, "body"), "new");
    assert_true(strtoull(text_of(o, "epoch"), NULL, 10) == store_epoch(w->store));
    /* a phone that was rebuilding its memory when the gap was announced asks from below it */
    peer_say(w, b, "{\"t\":\"sync\",\"chat\":\"17\",\"after\":3,\"limit\":100}");
    world_settle(w);
    o = peer_take(b, "gap");
    assert_non_null(o);
    assert_int_equal(number_of(o, "from"), 4);
    assert_int_equal(number_of(o, "to"), (1ll << 32) - 1);
    assert_int_equal(number_of(peer_take(b, "msg"), "seq"), 1ll << 32);
    world_free(w);
}

static void test_slow_connection_falls_behind_and_is_served_from_the_log(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1], body[32001];
    memset(body, 0x78, 32000);
    body[32000] = 0;
    b->hold = true; /* its socket takes nothing */
    for (int i = 0; i < 100; i++) {
        peer_send(w, a, world_id(w, id), 17, body);
        world_settle(w);
    }
    size_t queued = peer_count(b, "msg");
    assert_in_range(queued, 30, 36);                  /* about 1 MiB, not 3.2 MB */
    assert_int_equal(peer_count(a, "accepted"), 100); /* and nobody waited for it */
    b->hold = false;
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 100);
    for (int i = 1; i <= 100; i++)
        assert_int_equal(number_of(peer_take(b, "msg"), "seq"), i);
    world_free(w);
}

static void test_who_acknowledges_nothing_for_too_long_is_served_from_the_log(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "one");
    world_settle(w);
    world_pass(w, 4999);
    peer_send(w, a, world_id(w, id), 17, "two");
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 2); /* not late yet */
    world_pass(w, 1);
    for (int i = 0; i < 3; i++)
        peer_send(w, a, world_id(w, id), 17, "more");
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 2);
    peer_say(w, b, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":1}"); /* it lives */
    world_settle(w);
    for (int i = 1; i <= 5; i++)
        assert_int_equal(number_of(peer_take(b, "msg"), "seq"), i);
    assert_int_equal(peer_count(b, "gap"), 0);
    world_free(w);
}

static void test_a_chat_that_is_not_shown_costs_one_counter_a_second(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_say(w, b, "{\"t\":\"quiet\",\"chat\":\"17\",\"on\":true}");
    for (int i = 0; i < 3; i++)
        peer_send(w, a, world_id(w, id), 17, "text");
    world_settle(w);
    world_pass(w, 20);
    for (int i = 0; i < 49; i++)
        world_pass(w, 20);
    assert_int_equal(peer_count(b, "msg"), 0);
    assert_int_equal(peer_count(b, "unread"), 1);
    assert_int_equal(number_of(peer_take(b, "unread"), "seq"), 3);
    world_pass(w, 15000);
    assert_int_equal(b->closed_code, 0); /* what was never pushed is not missed */
    assert_int_equal(peer_count(b, "unread"), 0);
    peer_say(w, b, "{\"t\":\"quiet\",\"chat\":\"17\",\"on\":false}");
    world_settle(w);
    peer_send(w, a, world_id(w, id), 17, "live again");
    world_settle(w);
    for (int i = 1; i <= 4; i++)
        assert_int_equal(number_of(peer_take(b, "msg"), "seq"), i);
    peer_say(w, b, "{\"t\":\"quiet\",\"chat\":\"18\",\"on\":true}");
    assert_string_equal(text_of(peer_take(b, "error"), "code"), "no_such_chat");
    world_free(w);
}

/* Incident 2 as it was. */
static void test_sequential_fanout_makes_everybody_wait_for_those_before(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    w->sequential_ns = 45 * NS_PER_MS;
    world_restart(w);
    struct peer *p[4];
    for (uint64_t i = 0; i < 4; i++)
        p[i] = peer_hello(w, 7 + i, 1, NULL);
    peer_say(w, p[0], "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"7\",\"8\",\"9\",\"10\"]}");
    world_settle(w);
    char id[ID_TEXT + 1];
    for (int i = 0; i < 2; i++)
        peer_send(w, p[0], world_id(w, id), 17, "text");
    world_settle(w);
    assert_int_equal(peer_count(p[0], "accepted"), 2);
    size_t n[6][3] = {{1, 0, 0}, {1, 1, 0}, {1, 1, 1}, {2, 1, 1}, {2, 2, 1}, {2, 2, 2}};
    for (int t = 0; t < 6; t++) {
        for (int i = 0; i < 3; i++)
            assert_int_equal(peer_count(p[1 + i], "msg"), n[t][i]);
        world_pass(w, 45);
        world_settle(w);
    }
    peer_send(w, p[0], world_id(w, id), 17, "text"); /* who speaks while others' words are on their way */
    peer_send(w, p[3], world_id(w, id), 17, "text");
    world_settle(w);
    for (int i = 0; i < 8; i++) {
        world_pass(w, 45);
        world_settle(w);
    }
    for (int i = 1; i < 4; i++) {
        assert_int_equal(peer_count(p[i], "gap"), 0);
        assert_int_equal(peer_count(p[i], "msg"), 4); /* p[3]'s own among them: it came in its turn */
    }
    p[1]->hold = true; /* one dead socket, and nobody after it gets anything */
    peer_send(w, p[0], world_id(w, id), 17, "text");
    world_settle(w);
    for (int i = 0; i < 20; i++)
        world_pass(w, 45);
    assert_int_equal(peer_count(p[1], "msg"), 5);
    assert_int_equal(peer_count(p[2], "msg"), 4);
    world_restart(w);
    world_free(w);
}

static void test_sync_answers_a_range_and_a_time(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    for (int i = 0; i < 30; i++) {
        peer_send(w, a, world_id(w, id), 17, "m");
        world_settle(w);
        w->now.wall_us += 60000000;
    }
    struct peer *b = peer_hello(w, 8, 1, NULL);
    while (peer_take(b, "msg"))
        ;
    peer_say(w, b, "{\"t\":\"sync\",\"chat\":\"17\",\"after\":5,\"limit\":3}");
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 3);
    assert_int_equal(number_of(peer_take(b, "msg"), "seq"), 6);
    json_t *done = peer_take(b, "done");
    assert_string_equal(text_of(done, "re"), "sync");
    assert_int_equal(number_of(done, "to"), 8);
    assert_true(json_is_true(json_object_get(done, "more")));
    peer_say(w, b, "{\"t\":\"sync\",\"since\":%llu}",
             (unsigned long long)(w->now.wall_us - 10 * 60000000ull));
    world_settle(w);
    assert_int_equal(peer_count(b, "msg"), 10);
    world_free(w);
}

/* The phone was in the background when the chats began, and asks for what it missed as soon as it is back. */
static void test_what_a_new_device_lacks_comes_before_what_it_asks_for(void **state)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    char id[ID_TEXT + 1];
    long long first[2] = {0, 0};
    json_t *m;
    (void)state;
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    peer_say(w, a, "{\"t\":\"create\",\"chat\":\"18\",\"users\":[\"7\",\"8\"]}");
    world_settle(w);
    for (int i = 0; i < 8; i++) {
        peer_send(w, a, world_id(w, id), 17 + (uint64_t)(i & 1), "x");
        world_settle(w);
        world_pass(w, 20);
    }
    struct peer *b = peer_open(w, 8);
    struct buf token = BUF_INIT(4096);
    world_token(w, 8, &token);
    peer_say(w, b, "{\"t\":\"hello\",\"token\":\"%s\",\"device\":1,\"net\":\"lte\"}", buf_cstr(&token));
    while (!peer_count(b, "welcome"))
        assert_true(world_run_read(w));
    peer_say(w, b, "{\"t\":\"sync\",\"since\":%llu}", (unsigned long long)(w->now.wall_us - 50000));
    world_settle(w);
    while ((m = peer_take(b, "msg"))) {
        long long *chat = &first[strcmp(text_of(m, "chat"), "17") != 0];
        *chat = *chat ? *chat : number_of(m, "seq");
    }
    assert_int_equal(first[0], 1);
    assert_int_equal(first[1], 1);
    buf_release(&token);
    world_free(w);
}

static void test_legacy_pushes_at_once_answers_nothing_and_keeps_nothing(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    struct peer *a = peer_hello(w, 7, 1, NULL), *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_written(w);
    assert_int_equal(w->commits_n, 0);
    assert_int_equal(peer_count(b, "msg"), 1);
    assert_int_equal(peer_count(a, "accepted"), 0);
    peer_gone(w, b);
    peer_send(w, a, world_id(w, id), 17, "lost");
    world_settle(w);
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "msg"), 0);
    assert_int_equal(peer_count(b, "gap"), 0);
    struct node_stats st;
    node_stats(w->node, &st);
    assert_int_equal(st.counters.push_dropped, 1);
    world_free(w);
}

static void test_bad_token_and_no_hello_are_refused(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_open(w, 7);
    peer_send(w, a, "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f", 17, "hi");
    assert_string_equal(text_of(peer_take(a, "error"), "code"), "unauthenticated");
    peer_say(w, a, "{\"t\":\"hello\",\"token\":\"a.b.c\",\"device\":1}");
    assert_int_equal(a->closed_code, CLOSE_BAD_TOKEN);
    struct peer *b = peer_open(w, 8);
    peer_say(w, b, "{\"t\":\"hello\",");
    assert_int_equal(b->closed_code, CLOSE_PROTOCOL);
    struct peer *c = peer_open(w, 9);
    world_pass(w, 11000);
    assert_int_equal(c->closed_code, CLOSE_HELLO_TIMEOUT);
    world_free(w);
}

static void test_history_is_for_members_only(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    static const struct {
        uint64_t user;
        int status;
    } cases[] = {{8, 200}, {9, 404}};
    for (size_t i = 0; i < 2; i++) {
        struct buf token = BUF_INIT(4096);
        world_token(w, cases[i].user, &token);
        w->http_status = 0;
        world_step(w, (struct node_event){.kind = NODE_HISTORY,
                                          .request = 5,
                                          .data = token.data,
                                          .len = token.len,
                                          .chat = 17,
                                          .limit = 10});
        world_settle(w);
        assert_int_equal(w->http_status, cases[i].status);
        if (cases[i].status == 200) {
            json_t *o = json_loads(w->http_body, 0, NULL);
            assert_non_null(o);
            json_t *list = json_object_get(o, "messages");
            assert_int_equal(json_array_size(list), 1);
            assert_string_equal(text_of(json_array_get(list, 0), "body"), "hi");
            assert_int_equal(number_of(o, "head"), 1);
            json_decref(o);
        }
        buf_release(&token);
    }
    world_free(w);
}

static void test_drain_says_bye_refuses_new_messages_and_finishes_those_in_flight(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_send(w, a, world_id(w, id), 17, "in flight");
    world_step(w, (struct node_event){.kind = NODE_DRAIN});
    assert_false(node_idle(w->node));
    peer_send(w, a, world_id(w, id), 17, "too late");
    world_settle(w);
    assert_true(node_idle(w->node));
    assert_non_null(peer_take(a, "bye"));
    assert_string_equal(text_of(peer_take(a, "error"), "code"), "shutting_down");
    assert_non_null(peer_take(a, "accepted"));
    world_step(w, (struct node_event){.kind = NODE_DRAIN, .code = 1});
    assert_int_equal(a->closed_code, CLOSE_SHUTDOWN);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_answered_or_pushed_before_it_is_durable),
        cmocka_unit_test(test_retry_after_lost_accepted_is_a_duplicate_of_the_same_seq),
        cmocka_unit_test(test_retry_is_found_in_the_store_after_a_restart),
        cmocka_unit_test(test_only_ids_that_the_store_can_know_are_looked_up_and_order_is_kept),
        cmocka_unit_test(test_server_time_never_falls_in_a_chat_though_the_clock_was_set_back),
        cmocka_unit_test(test_id_that_memory_forgot_is_looked_up_in_the_store),
        cmocka_unit_test(test_retry_in_flight_joins_and_is_answered_after_durability),
        cmocka_unit_test(test_same_id_with_other_content_is_a_conflict),
        cmocka_unit_test(test_id_older_than_the_window_is_refused_with_the_clock_moved_forty_days),
        cmocka_unit_test(test_full_store_is_an_error_to_retry_and_leaves_no_hole),
        cmocka_unit_test(test_offline_member_is_sent_what_it_missed_and_the_claim_rules),
        cmocka_unit_test(test_missing_ack_closes_the_connection_and_resume_redelivers),
        cmocka_unit_test(test_a_late_hello_on_an_older_connection_does_not_replace_the_newer_one),
        cmocka_unit_test(test_silent_connection_is_closed_after_the_idle_timeout),
        cmocka_unit_test(test_removed_member_is_sent_nothing_from_the_next_seq_on),
        cmocka_unit_test(test_who_is_being_removed_gets_nothing_into_the_batch_after_it),
        cmocka_unit_test(test_join_needs_an_invitation_and_starts_at_its_own_entry),
        cmocka_unit_test(test_create_again_is_done_for_its_creator_and_refused_for_others),
        cmocka_unit_test(test_who_sends_while_the_chat_is_being_made_is_told_to_come_again),
        cmocka_unit_test(test_restored_store_goes_on_in_a_new_epoch_above_a_gap),
        cmocka_unit_test(test_slow_connection_falls_behind_and_is_served_from_the_log),
        cmocka_unit_test(test_who_acknowledges_nothing_for_too_long_is_served_from_the_log),
        cmocka_unit_test(test_a_chat_that_is_not_shown_costs_one_counter_a_second),
        cmocka_unit_test(test_sequential_fanout_makes_everybody_wait_for_those_before),
        cmocka_unit_test(test_sync_answers_a_range_and_a_time),
        cmocka_unit_test(test_what_a_new_device_lacks_comes_before_what_it_asks_for),
        cmocka_unit_test(test_legacy_pushes_at_once_answers_nothing_and_keeps_nothing),
        cmocka_unit_test(test_bad_token_and_no_hello_are_refused),
        cmocka_unit_test(test_history_is_for_members_only),
        cmocka_unit_test(test_drain_says_bye_refuses_new_messages_and_finishes_those_in_flight),
    };
    return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}

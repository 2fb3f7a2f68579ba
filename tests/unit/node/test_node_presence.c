/* What a node tells about who is there and who types: what holds now, never what was. */
#include "tests/unit/node/world.h"

static struct world *room(struct peer **a, struct peer **b)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    world_pass(w, 1);
    *a = peer_hello(w, 7, 1, NULL);
    *b = peer_hello(w, 8, 1, NULL);
    world_chat(w, *a);
    return w;
}

static void beats(struct world *w, struct peer *p)
{
    world_step(w, (struct node_event){.kind = NODE_BEATS, .conns = &p->conn, .len = 1});
}

/* Seconds pass; who beats does so every 10 s. */
static void pass_s(struct world *w, unsigned s, struct peer *beating)
{
    for (unsigned i = 1; i <= s * 2; i++) {
        if (beating && i % 20 == 1)
            beats(w, beating);
        world_pass(w, 500);
        for (int k = 0; k < 25; k++) /* a round of the clocks */
            world_pass(w, 0);
    }
    world_settle(w);
}

static const char *state_of(struct peer *p, const char *user)
{
    static char last[16];
    last[0] = 0;
    for (json_t *o; (o = peer_take(p, "presence"));)
        if (!strcmp(text_of(o, "user"), user))
            snprintf(last, sizeof last, "%s", text_of(o, "state"));
    return last;
}

static void test_typing_goes_to_the_other_members_with_its_end(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    struct peer *other = peer_hello(w, 7, 2, NULL), *stranger = peer_hello(w, 9, 1, NULL);
    peer_say(w, a, "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"9\"}");
    world_settle(w);
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\"}");
    json_t *o = peer_take(b, "typing");
    assert_non_null(o);
    assert_string_equal(text_of(o, "user"), "7");
    assert_true(number_of(o, "until") == (long long)(w->now.wall_us + 9500000));
    assert_int_equal(peer_count(other, "typing") + peer_count(a, "typing") + peer_count(stranger, "typing"),
                     0);
    peer_say(w, stranger, "{\"t\":\"typing\",\"chat\":\"17\"}"); /* invited only */
    assert_string_equal(text_of(peer_take(stranger, "error"), "code"), "not_member");
    assert_int_equal(peer_count(b, "typing"), 0);
    world_free(w);
}

static void test_typing_that_was_long_on_its_way_is_over_by_its_own_clock(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    unsigned long long key = w->now.wall_us;
    world_pass(w, 4000);
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\",\"ts\":%llu}", key);
    assert_true(number_of(peer_take(b, "typing"), "until") == (long long)(key + 9500000));
    world_pass(w, 7000);
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\",\"ts\":%llu}", key);
    assert_int_equal(peer_count(b, "typing"), 0);
    world_free(w);
}

static void test_who_comes_back_is_shown_typing_that_goes_on_and_none_that_is_over(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\"}");
    peer_gone(w, b);
    world_pass(w, 3000);
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\"}");
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "typing"), 1);
    peer_gone(w, b);
    world_pass(w, 10000); /* it has stopped since */
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "typing"), 0);
    world_free(w);
}

static void test_a_message_ends_its_sender_s_typing(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    char id[ID_TEXT + 1];
    peer_say(w, a, "{\"t\":\"typing\",\"chat\":\"17\"}");
    peer_send(w, a, world_id(w, id), 17, "hi");
    world_settle(w);
    peer_gone(w, b);
    b = peer_hello(w, 8, 1, "[]");
    assert_int_equal(peer_count(b, "typing"), 0);
    world_free(w);
}

static void test_watch_is_answered_and_changes_follow(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[\"8\",\"99\"]}");
    json_t *o = peer_take(a, "presence");
    assert_string_equal(text_of(o, "state"), "online");
    o = peer_take(a, "presence");
    assert_string_equal(text_of(o, "state"), "unknown"); /* shares no chat */
    peer_say(w, b, "{\"t\":\"beat\",\"away\":true}");
    world_pass(w, 300);
    assert_string_equal(state_of(a, "8"), "away");
    beats(w, b);
    world_pass(w, 300);
    assert_string_equal(state_of(a, "8"), "online");
    peer_gone(w, b);
    pass_s(w, 4, a);
    assert_int_equal(peer_count(a, "presence"), 0); /* may be back in a moment */
    pass_s(w, 2, a);
    o = peer_take(a, "presence");
    assert_string_equal(text_of(o, "state"), "offline");
    assert_in_range(number_of(o, "seen"), w->now.wall_us / 1000000 - 7, w->now.wall_us / 1000000 - 5);
    b = peer_hello(w, 8, 1, "[]");
    world_pass(w, 300);
    assert_string_equal(state_of(a, "8"), "online");
    world_free(w);
}

static void test_a_reconnect_is_no_news(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[\"8\"]}");
    (void)state_of(a, "8");
    peer_gone(w, b);
    world_pass(w, 2000);
    b = peer_hello(w, 8, 1, "[]");
    pass_s(w, 8, a);
    assert_int_equal(peer_count(a, "presence"), 0);
    world_free(w);
}

static void test_who_falls_silent_is_offline_in_thirty_seconds(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[\"8\"]}");
    (void)state_of(a, "8");
    pass_s(w, 22, a);
    assert_int_equal(peer_count(a, "presence"), 0);
    pass_s(w, 3, a);
    assert_string_equal(state_of(a, "8"), "offline");
    world_free(w);
}

static void test_a_beat_of_who_watches_is_answered(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    beats(w, a);
    assert_int_equal(peer_count(a, "beat"), 0);
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[\"8\"]}");
    beats(w, a);
    peer_say(w, a, "{\"t\":\"beat\"}");
    assert_int_equal(peer_count(a, "beat"), 2);
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[]}");
    beats(w, a);
    assert_int_equal(peer_count(a, "beat"), 2);
    world_free(w);
}

static void test_after_a_start_who_has_not_come_is_unknown_then_offline(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    world_restart(w);
    world_pass(w, 1);
    a = peer_hello(w, 7, 1, "[]");
    peer_say(w, a, "{\"t\":\"watch\",\"users\":[\"8\"]}");
    assert_string_equal(state_of(a, "8"), "unknown");
    pass_s(w, 31, a);
    assert_string_equal(state_of(a, "8"), "offline");
    world_free(w);
}

static void http(struct world *w, struct node_event e, uint64_t as)
{
    struct buf token = BUF_INIT(4096);
    world_token(w, as, &token);
    e.data = buf_cstr(&token);
    e.len = token.len;
    world_step(w, e);
    buf_release(&token);
}

static void test_http_asks_and_types_with_the_user_s_own_token(void **state)
{
    (void)state;
    struct peer *a, *b;
    struct world *w = room(&a, &b);
    uint64_t users[] = {8, 99};
    http(w, (struct node_event){.kind = NODE_PRESENCE, .users = users, .users_n = 2}, 7);
    assert_int_equal(w->http_status, 200);
    assert_string_equal(w->http_body, "{\"users\":[{\"user\":\"8\",\"state\":\"online\"},"
                                      "{\"user\":\"99\",\"state\":\"unknown\"}]}\n");
    http(w, (struct node_event){.kind = NODE_PRESENCE, .users = users, .users_n = 1}, 99);
    assert_non_null(strstr(w->http_body, "unknown"));
    http(w, (struct node_event){.kind = NODE_TYPING, .user = 7, .chat = 17}, 7);
    assert_int_equal(w->http_status, 200);
    assert_int_equal(peer_count(b, "typing"), 1);
    http(w, (struct node_event){.kind = NODE_TYPING, .user = 7, .chat = 17}, 8);
    assert_int_equal(w->http_status, 403);
    http(w, (struct node_event){.kind = NODE_TYPING, .user = 99, .chat = 17}, 99);
    assert_int_equal(w->http_status, 403);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_typing_goes_to_the_other_members_with_its_end),
        cmocka_unit_test(test_typing_that_was_long_on_its_way_is_over_by_its_own_clock),
        cmocka_unit_test(test_who_comes_back_is_shown_typing_that_goes_on_and_none_that_is_over),
        cmocka_unit_test(test_a_message_ends_its_sender_s_typing),
        cmocka_unit_test(test_watch_is_answered_and_changes_follow),
        cmocka_unit_test(test_a_reconnect_is_no_news),
        cmocka_unit_test(test_who_falls_silent_is_offline_in_thirty_seconds),
        cmocka_unit_test(test_a_beat_of_who_watches_is_answered),
        cmocka_unit_test(test_after_a_start_who_has_not_come_is_unknown_then_offline),
        cmocka_unit_test(test_http_asks_and_types_with_the_user_s_own_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

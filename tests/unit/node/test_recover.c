/* A store put back, and what clients bring: the rules of core/recover.h through the node. */
#include "world.h"

#include <string.h>

struct lost {
    struct world *w;
    struct kv *image;
    json_t *entry[16]; /* as they were pushed, in order */
    size_t n;
};

static char offer_text[20000];

static struct kv *backup(struct world *w)
{
    struct kv *copy;
    assert_int_equal(kv_mem_copy(&copy, w->kv, NULL), 0);
    return copy;
}

/* The store as it was; in a new epoch if it is said or the mark in `keys_dir` (NULL: none is kept) says so.
 */
static void put_back_at(struct world *w, struct kv *image, bool noticed, const char *keys_dir)
{
    for (size_t i = 0; i < w->peers_n; i++) {
        peer_gone(w, &w->peers[i]);
        json_decref(w->peers[i].got);
    }
    w->peers_n = 0;
    world_settle(w);
    node_free(w->node);
    store_drop(w->store);
    w->kv->ops->close(w->kv);
    w->kv = image;
    w->now.wall_us += 1000000;
    struct store_config sc = {
        .keys_dir = keys_dir, .now_us = w->now.wall_us, .random = w->now.wall_us, .restored = noticed};
    assert_int_equal(store_open_on(&w->store, w->kv, &sc, NULL), 0);
    world_boot(w);
}

/* In a new epoch, or unnoticed in the same. */
static void put_back(struct world *w, struct kv *image, bool noticed)
{
    put_back_at(w, image, noticed, NULL);
}

static size_t take_all(struct peer *p, const char *t, json_t **out)
{
    size_t n = 0;
    for (json_t *o; (o = peer_take(p, t));)
        out[n++] = json_deep_copy(o);
    return n;
}

static const char *copy_of(json_t *m, const char *body, const char *from, long long seq)
{
    static char text[4][4000];
    static int at;
    char *o = text[at++ & 3];
    bool quotes = text_of(m, "body")[0] == '{'; /* a membership's body */
    char inner[400], *p = inner;
    for (const char *b = body ? body : text_of(m, "body"); *b; b++) {
        if (quotes && *b == '"')
            *p++ = '\\';
        *p++ = *b;
    }
    *p = 0;
    snprintf(o, 4000, "[\"%s\",%lld,\"%s\",\"%s\",%lld,\"%s\",\"%s\",\"%s\"]", text_of(m, "epoch"),
             seq ? seq : number_of(m, "seq"), text_of(m, "id"), from ? from : text_of(m, "from"),
             number_of(m, "ts"), text_of(m, "kind"), inner, text_of(m, "tag"));
    return o;
}

static json_t *offer(struct world *w, struct peer *p, const char *chat, const char *entries)
{
    snprintf(offer_text, sizeof offer_text, "{\"t\":\"offer\",\"chat\":\"%s\",\"entries\":[%s]}", chat,
             entries);
    peer_say(w, p, "%s", offer_text);
    world_settle(w);
    return peer_take(p, "offered");
}

/* Chat 17 of 7 and 8 with "kept", an image of it, then "lost 1", "lost 2" that 8 was sent. */
static struct lost lose_two(bool noticed)
{
    struct lost l = {.w = world_new(DELIVERY_RELIABLE)};
    char id[ID_TEXT + 1];
    struct peer *a = peer_hello(l.w, 7, 1, NULL);
    world_chat(l.w, a);
    struct peer *b = peer_hello(l.w, 8, 1, NULL);
    peer_send(l.w, a, world_id(l.w, id), 17, "kept");
    world_settle(l.w);
    l.image = backup(l.w);
    peer_send(l.w, a, world_id(l.w, id), 17, "lost 1");
    peer_send(l.w, a, world_id(l.w, id), 17, "lost 2");
    world_settle(l.w);
    assert_non_null(peer_take(b, "msg"));
    l.n = take_all(b, "msg", l.entry);
    assert_int_equal(l.n, 2);
    put_back(l.w, l.image, noticed);
    return l;
}

static void end(struct lost *l)
{
    for (size_t i = 0; i < l->n; i++)
        json_decref(l->entry[i]);
    world_free(l->w);
}

static void test_a_lost_message_returns_to_its_own_seq_with_its_id_sender_and_time(void **state)
{
    (void)state;
    struct lost l = lose_two(true);
    struct peer *a = peer_hello(l.w, 7, 1, "[]"), *b = peer_hello(l.w, 8, 1, "[]");
    json_t *o = peer_take(b, "notice");
    assert_string_equal(text_of(o, "code"), "restored");
    assert_true(number_of(o, "since") > 0 && number_of(o, "until") > number_of(o, "since"));
    assert_non_null(peer_take(b, "report"));
    peer_say(l.w, b, "{\"t\":\"report\",\"chats\":[[\"17\",\"%s\",%lld,\"%s\"]]}",
             text_of(l.entry[1], "epoch"), number_of(l.entry[1], "seq"), text_of(l.entry[1], "tag"));
    world_settle(l.w);
    o = peer_take(b, "ask");
    json_t *range = json_array_get(json_object_get(o, "ranges"), 0);
    assert_int_equal(json_integer_value(json_array_get(range, 0)), 2);
    assert_int_equal(json_integer_value(json_array_get(range, 1)), 3);
    char two[8000];
    snprintf(two, sizeof two, "%s,%s", copy_of(l.entry[1], NULL, NULL, 0),
             copy_of(l.entry[0], NULL, NULL, 0));
    o = offer(l.w, b, "17", two);
    assert_int_equal(number_of(o, "ok"), 2);
    /* the member who has neither is told, and syncs */
    o = peer_take(a, "msg");
    while (strcmp(text_of(o, "kind"), "recovered") != 0)
        o = peer_take(a, "msg");
    assert_string_equal(text_of(o, "body"), "{\"ranges\":[[2,3]]}");
    assert_string_equal(text_of(o, "from"), "0");
    peer_say(l.w, a, "{\"t\":\"sync\",\"chat\":\"17\",\"after\":1,\"to\":3}");
    world_settle(l.w);
    for (int i = 0; i < 2; i++) {
        o = peer_take(a, "msg");
        assert_true(json_equal(o, l.entry[i]));
    }
    o = peer_take(a, "done");
    assert_int_equal(number_of(o, "to"), 3);
    end(&l);
}

static void test_a_forged_copy_is_refused_counted_and_changes_nothing(void **state)
{
    (void)state;
    struct lost l = lose_two(true);
    struct peer *b = peer_hello(l.w, 8, 1, "[]");
    uint64_t entries = store_commit_index(l.w->store);
    const char *forged[] = {copy_of(l.entry[0], "I owe you a thousand", NULL, 0),
                            copy_of(l.entry[0], NULL, "8", 0), copy_of(l.entry[0], NULL, NULL, 77),
                            copy_of(l.entry[0], NULL, NULL, 0)};
    for (int i = 0; i < 4; i++) { /* the last is a true entry in another chat */
        json_t *o = offer(l.w, b, i == 3 ? "18" : "17", forged[i]);
        assert_int_equal(number_of(o, "ok"), 0);
        json_t *refused = json_array_get(json_object_get(o, "refused"), 0);
        assert_string_equal(json_string_value(json_array_get(refused, 0)), text_of(l.entry[0], "id"));
        assert_string_equal(json_string_value(json_array_get(refused, 1)), "forged");
    }
    assert_int_equal(store_commit_index(l.w->store), entries);
    struct node_stats st;
    node_stats(l.w->node, &st);
    assert_int_equal(st.recover.refused[RECOVER_FORGED], 4);
    end(&l);
}

static void test_two_clients_that_offer_the_same_message_yield_one(void **state)
{
    (void)state;
    struct lost l = lose_two(true);
    struct peer *a = peer_hello(l.w, 7, 1, "[]"), *b = peer_hello(l.w, 8, 1, "[]");
    snprintf(offer_text, sizeof offer_text, "{\"t\":\"offer\",\"chat\":\"17\",\"entries\":[%s]}",
             copy_of(l.entry[0], NULL, NULL, 0));
    uint64_t entries = store_commit_index(l.w->store);
    peer_say(l.w, a, "%s", offer_text); /* both before anything is read or written */
    peer_say(l.w, b, "%s", offer_text);
    world_settle(l.w);
    assert_int_equal(number_of(peer_take(a, "offered"), "ok"), 1);
    assert_int_equal(number_of(peer_take(b, "offered"), "ok"), 1);
    assert_int_equal(store_commit_index(l.w->store), entries + 2); /* it, and the word of it */
    end(&l);
}

static void test_a_resend_that_waits_is_answered_with_the_old_seq_when_its_copy_comes(void **state)
{
    (void)state;
    struct lost l = lose_two(true);
    struct peer *a = peer_hello(l.w, 7, 1, "[]"), *b = peer_hello(l.w, 8, 1, "[]");
    assert_int_equal(number_of(offer(l.w, b, "17", copy_of(l.entry[0], NULL, NULL, 0)), "ok"), 1);
    peer_send(l.w, a, text_of(l.entry[0], "id"), 17, "lost 1");
    world_settle(l.w);
    json_t *o = peer_take(a, "accepted");
    assert_int_equal(number_of(o, "seq"), 2);
    assert_true(json_is_true(json_object_get(o, "dup")));
    /* the other way round: it was sent again first, and its old copy stays out */
    peer_send(l.w, a, text_of(l.entry[1], "id"), 17, "lost 2");
    world_settle(l.w);
    assert_true(number_of(peer_take(a, "accepted"), "seq") > 1ll << 32);
    o = offer(l.w, b, "17", copy_of(l.entry[1], NULL, NULL, 0));
    assert_string_equal(
        json_string_value(json_array_get(json_array_get(json_object_get(o, "refused"), 0), 1)),
        "id_elsewhere");
    end(&l);
}

/* 9 joined and was removed within the loss. However the two come back, 9 is no member. */
static void removed_stays_removed(bool removal_first)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    json_t *m[16];
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    struct peer *b = peer_hello(w, 8, 1, NULL), *c = peer_hello(w, 9, 1, NULL);
    struct kv *image = backup(w);
    peer_say(w, a, "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"9\"}");
    world_settle(w);
    peer_say(w, c, "{\"t\":\"join\",\"chat\":\"17\"}");
    world_settle(w);
    peer_say(w, a, "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"9\"}");
    world_settle(w);
    size_t n = take_all(b, "msg", m);
    assert_int_equal(n, 3);
    put_back(w, image, true);
    b = peer_hello(w, 8, 1, "[]");
    for (size_t i = 0; i < n; i++) {
        size_t k = removal_first ? n - 1 - i : i;
        assert_int_equal(number_of(offer(w, b, "17", copy_of(m[k], NULL, NULL, 0)), "ok"), 1);
    }
    char id[ID_TEXT + 1];
    c = peer_hello(w, 9, 1, "[]");
    peer_send(w, c, world_id(w, id), 17, "let me in");
    world_settle(w);
    assert_string_equal(text_of(peer_take(c, "error"), "code"), "not_member");
    world_restart(w); /* the rows say the same */
    c = peer_hello(w, 9, 1, "[]");
    assert_int_equal(json_array_size(json_object_get(peer_take(c, "welcome"), "chats")), 0);
    for (size_t i = 0; i < n; i++)
        json_decref(m[i]);
    world_free(w);
}

static void test_who_was_removed_stays_out_when_the_removal_comes_back_first(void **state)
{
    (void)state;
    removed_stays_removed(true);
}

static void test_who_was_removed_stays_out_when_the_removal_comes_back_last(void **state)
{
    (void)state;
    removed_stays_removed(false);
}

/* 9 is a member, and within the loss was removed, invited and joined again; m: these three, from 8's pushes.
 */
static struct world *lose_a_return(json_t **m)
{
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    struct peer *b = peer_hello(w, 8, 1, NULL), *c = peer_hello(w, 9, 1, NULL);
    for (int i = 0; i < 2; i++) {
        struct kv *image = i ? backup(w) : NULL;
        if (i)
            peer_say(w, a, "{\"t\":\"remove\",\"chat\":\"17\",\"user\":\"9\"}");
        world_settle(w);
        peer_say(w, a, "{\"t\":\"invite\",\"chat\":\"17\",\"user\":\"9\"}");
        world_settle(w);
        peer_say(w, c, "{\"t\":\"join\",\"chat\":\"17\"}");
        world_settle(w);
        assert_int_equal(take_all(b, "msg", m), 2 + i);
        if (i)
            put_back(w, image, true);
        else
            for (int k = 0; k < 2; k++)
                json_decref(m[k]);
    }
    return w;
}

static void test_who_left_and_came_back_is_in_whatever_comes_back_first(void **state)
{
    (void)state;
    static const uint8_t orders[][3] = {{0, 1, 2}, {2, 1, 0}, {2, 0, 1}, {1, 2, 0}, {1, 0, 2}, {0, 2, 1}};
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
        json_t *m[16];
        char id[ID_TEXT + 1];
        struct world *w = lose_a_return(m);
        struct peer *b = peer_hello(w, 8, 1, "[]");
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(number_of(offer(w, b, "17", copy_of(m[orders[k][i]], NULL, NULL, 0)), "ok"), 1);
        struct peer *c = peer_hello(w, 9, 1, "[]");
        peer_send(w, c, world_id(w, id), 17, "here I am");
        world_settle(w);
        assert_non_null(peer_take(c, "accepted"));
        /* its first membership's entries are no longer served; the answer says how far it reached */
        peer_say(w, c, "{\"t\":\"sync\",\"chat\":\"17\",\"after\":0,\"limit\":10,\"to\":2}");
        world_settle(w);
        assert_int_equal(number_of(peer_take(c, "done"), "to"), 2);
        for (size_t i = 0; i < 3; i++)
            json_decref(m[i]);
        world_free(w);
    }
}

static void test_who_turns_out_to_be_invited_only_is_pushed_nothing(void **state)
{
    (void)state;
    json_t *m[16];
    char id[ID_TEXT + 1];
    struct world *w = lose_a_return(m);
    struct peer *b = peer_hello(w, 8, 1, "[]"), *c = peer_hello(w, 9, 1, "[]");
    char both[8000]; /* in one offer: 9 is a member before it, and invited after it */
    snprintf(both, sizeof both, "%s,%s", copy_of(m[0], NULL, NULL, 0), copy_of(m[1], NULL, NULL, 0));
    assert_int_equal(number_of(offer(w, b, "17", both), "ok"), 2);
    while (peer_take(c, "msg"))
        continue;
    peer_send(w, b, world_id(w, id), 17, "not for 9");
    world_settle(w);
    assert_non_null(peer_take(b, "accepted"));
    assert_null(peer_take(c, "msg"));
    for (size_t i = 0; i < 3; i++)
        json_decref(m[i]);
    world_free(w);
}

static void test_nobody_gets_a_tag_for_a_membership_by_saying_so(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    char id[ID_TEXT + 1];
    peer_say(w, a, "{\"t\":\"send\",\"id\":\"%s\",\"chat\":\"17\",\"kind\":\"remove\",\"body\":\"{}\"}",
             world_id(w, id));
    world_settle(w);
    assert_string_equal(text_of(peer_take(a, "error"), "code"), "invalid");
    world_free(w);
}

static void test_a_copy_from_above_the_head_begins_a_new_epoch(void **state)
{
    (void)state;
    struct lost l = lose_two(false); /* the mark did not know: the epoch goes on */
    char resume[64], id[ID_TEXT + 1];
    uint64_t before = store_epoch(l.w->store);
    snprintf(resume, sizeof resume, "[[\"17\",\"%llu\",3]]", (unsigned long long)before);
    struct peer *a = peer_hello(l.w, 7, 1, "[]"), *b = peer_hello(l.w, 8, 1, resume);
    json_t *o = peer_take(b, "ask");
    assert_non_null(o);
    /* meanwhile nobody is given a seq that may have been used */
    peer_send(l.w, a, world_id(l.w, id), 17, "new");
    world_settle(l.w);
    assert_null(peer_take(a, "accepted"));
    offer(l.w, b, "17", copy_of(l.entry[1], NULL, NULL, 0));
    assert_int_equal(b->closed_code, CLOSE_COPY);
    assert_int_equal(a->closed_code, CLOSE_COPY);
    assert_true(store_epoch(l.w->store) != before);
    assert_int_equal(store_first_seq(0), store_next_seq(l.w->store, NULL));
    a = peer_hello(l.w, 7, 1, "[]");
    o = peer_take(a, "notice");
    assert_string_equal(text_of(o, "code"), "restored");
    peer_send(l.w, a, id, 17, "new");
    world_settle(l.w);
    assert_true(number_of(peer_take(a, "accepted"), "seq") >= 1ll << 32);
    assert_int_equal(number_of(offer(l.w, a, "17", copy_of(l.entry[0], NULL, NULL, 0)), "ok"), 1);
    end(&l);
}

static void get(struct world *w, enum token_role role, int code)
{
    struct buf token = BUF_INIT(4096);
    uint64_t now = w->now.wall_us / 1000000;
    struct token t = {.user = 1, .issued_s = now, .expires_s = now + 1000, .role = role};
    assert_int_equal(token_mint(&w->keys, &t, &token), 0);
    world_step(w, (struct node_event){.kind = NODE_RECONCILE,
                                      .request = 5,
                                      .data = token.data,
                                      .len = token.len,
                                      .code = code,
                                      .limit = 9});
    buf_release(&token);
}

static void test_the_job_is_over_when_every_member_has_answered(void **state)
{
    (void)state;
    struct lost l = lose_two(true);
    get(l.w, ROLE_USER, 0);
    assert_int_equal(l.w->http_status, 403);
    struct peer *a = peer_hello(l.w, 7, 1, "[]"), *b = peer_hello(l.w, 8, 1, "[]");
    peer_say(l.w, a, "{\"t\":\"report\",\"chats\":[]}");
    world_settle(l.w);
    get(l.w, ROLE_OPERATOR, 0);
    assert_int_equal(l.w->http_status, 200);
    assert_non_null(strstr(l.w->http_body, "\"state\":\"asking\""));
    assert_non_null(strstr(l.w->http_body, "\"chats\":{\"total\":1,\"whole\":0,\"incomplete\":1}"));
    assert_non_null(strstr(l.w->http_body, "\"users\":{\"total\":2,\"answered\":1}"));
    get(l.w, ROLE_OPERATOR, 1);
    assert_non_null(strstr(l.w->http_body, "\"whole\":false,\"waiting\":1"));
    peer_say(l.w, b, "{\"t\":\"report\",\"chats\":[[\"17\",\"%s\",3,\"\"]]}", text_of(l.entry[1], "epoch"));
    world_settle(l.w);
    assert_non_null(peer_take(b, "ask"));
    offer(l.w, b, "17", copy_of(l.entry[0], NULL, NULL, 0)); /* without `more`: that is all it holds */
    json_t *o = peer_take(a, "notice");
    while (o && strcmp(text_of(o, "code"), "recovered") != 0)
        o = peer_take(a, "notice");
    assert_non_null(o);
    get(l.w, ROLE_OPERATOR, 0);
    assert_non_null(strstr(l.w->http_body, "\"state\":\"whole\""));
    assert_non_null(strstr(l.w->http_body, "\"accepted\":1"));
    assert_true(store_is_whole(l.w->store) ||
                store_lineage(l.w->store, &(const struct lineage_entry *){0}) > 1);
    end(&l);
}

/* First an old image is put back, then a newer one: what the second has and the first had not lies below
 * everything that was said in between, in an epoch whose rows are gone. */
static void test_who_comes_from_a_lost_epoch_is_sent_what_it_never_had(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    char id[ID_TEXT + 1], dir[] = "/tmp/chatd-mark-XXXXXX", claim[200], cmd[64];
    assert_non_null(mkdtemp(dir));
    struct peer *a = peer_hello(w, 7, 1, NULL);
    world_chat(w, a);
    peer_send(w, a, world_id(w, id), 17, "kept");
    world_settle(w);
    struct kv *older = backup(w);
    peer_send(w, a, world_id(w, id), 17, "later");
    world_settle(w);
    struct kv *newer = backup(w);

    put_back_at(w, older, true, dir);
    a = peer_hello(w, 7, 1, NULL);
    struct peer *b = peer_hello(w, 8, 1, NULL);
    peer_send(w, a, world_id(w, id), 17, "in between");
    world_settle(w);
    json_t *m = peer_take(b, "msg");
    while (strcmp(text_of(m, "body"), "in between") != 0)
        m = peer_take(b, "msg");
    snprintf(claim, sizeof claim, "[[\"17\",\"%s\",%lld]]", text_of(m, "epoch"), number_of(m, "seq"));

    put_back_at(w, newer, true, dir);
    const struct lineage_entry *l;
    assert_int_equal(store_lineage(w->store, &l), 3);
    assert_true(l[1].started_us == 0);
    b = peer_hello(w, 8, 1, claim);
    json_t *o = peer_take(b, "welcome");
    assert_non_null(o);
    do {
        m = peer_take(b, "msg");
        assert_non_null(m);
    } while (strcmp(text_of(m, "body"), "later") != 0);

    world_free(w);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_message_returns_to_its_own_seq_with_its_id_sender_and_time),
        cmocka_unit_test(test_a_forged_copy_is_refused_counted_and_changes_nothing),
        cmocka_unit_test(test_two_clients_that_offer_the_same_message_yield_one),
        cmocka_unit_test(test_a_resend_that_waits_is_answered_with_the_old_seq_when_its_copy_comes),
        cmocka_unit_test(test_who_was_removed_stays_out_when_the_removal_comes_back_first),
        cmocka_unit_test(test_who_was_removed_stays_out_when_the_removal_comes_back_last),
        cmocka_unit_test(test_who_left_and_came_back_is_in_whatever_comes_back_first),
        cmocka_unit_test(test_who_turns_out_to_be_invited_only_is_pushed_nothing),
        cmocka_unit_test(test_nobody_gets_a_tag_for_a_membership_by_saying_so),
        cmocka_unit_test(test_a_copy_from_above_the_head_begins_a_new_epoch),
        cmocka_unit_test(test_who_comes_from_a_lost_epoch_is_sent_what_it_never_had),
        cmocka_unit_test(test_the_job_is_over_when_every_member_has_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

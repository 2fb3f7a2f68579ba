/* Several nodes over a bus in memory: one owner a chat, the others follow. */
#include "tests/unit/node/world.h"

#include "bus/mem.h"
#include "shard/shard.h"

#define NODES 3u

struct cluster {
    struct bus_mem *mem;
    struct world *w[NODES];
    uint64_t now_ns;
    uint64_t chat[NODES]; /* a chat that this node owns */
};

static void arrived(void *arg, const char *p, size_t n)
{
    struct world *w = arg;
    world_step(w, (struct node_event){.kind = NODE_BUS, .data = p, .len = n});
}

static void plug(struct cluster *k, unsigned i)
{
    k->w[i]->bus = bus_mem_open(k->mem, (uint16_t)i, &(struct bus_sink){arrived, k->w[i]});
}

/* Until neither bus nor stores have anything to do at this moment. */
static void settle(struct cluster *k)
{
    for (bool more = true; more;) {
        more = bus_mem_deliver(k->mem, k->now_ns) != 0;
        for (unsigned i = 0; i < NODES; i++) {
            if (!k->w[i]->node)
                continue;
            more |= world_run_read(k->w[i]) | world_run_commit(k->w[i]);
            world_written(k->w[i]);
        }
    }
}

static void pass(struct cluster *k, uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 20) {
        k->now_ns += 20 * NS_PER_MS;
        bus_mem_now(k->mem, k->now_ns);
        for (unsigned i = 0; i < NODES; i++) {
            struct world *w = k->w[i];
            w->now.mono_ns = NS_PER_S + k->now_ns;
            w->now.wall_us += 20000;
            if (!w->node)
                continue;
            world_step(w, (struct node_event){.kind = NODE_TICK});
            for (size_t p = 0; p < w->peers_n && k->now_ns / NS_PER_MS % 5000 == 0; p++)
                peer_say(w, &w->peers[p], "{\"t\":\"beat\"}");
        }
        settle(k);
    }
}

static struct cluster *cluster_new(uint64_t drop_share)
{
    struct cluster *k = calloc(1, sizeof *k);
    struct bus_mem_config c = {.nodes = NODES, .seed = 3, .delay_ns = 0, .drop_share = drop_share};
    assert_int_equal(bus_mem_new(&k->mem, &c, NULL), 0);
    for (unsigned i = 0; i < NODES; i++) {
        struct node_place place = {.self = (uint16_t)i, .nodes = NODES};
        k->w[i] = world_new_at(DELIVERY_RELIABLE, &place, i ? &k->w[0]->keys : NULL);
        plug(k, i);
        for (k->chat[i] = 17; shard_of_chat(k->chat[i]) % NODES != i;)
            k->chat[i]++;
    }
    pass(k, 100);
    return k;
}

static void crash(struct cluster *k, unsigned i)
{
    struct world *w = k->w[i];
    for (size_t p = 0; p < w->peers_n; p++) {
        peer_gone(w, &w->peers[p]);
        json_decref(w->peers[p].got);
    }
    w->peers_n = 0;
    bus_close(w->bus);
    w->bus = NULL;
    while (w->reads_n)
        read_job_free(w->reads[--w->reads_n]);
    w->commits_n = 0;
    node_free(w->node);
    w->node = NULL;
}

static void restart(struct cluster *k, unsigned i)
{
    world_boot(k->w[i]);
    plug(k, i);
}

static void cluster_free(struct cluster *k)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (!k->w[i]->node)
            world_boot(k->w[i]);
        bus_close(k->w[i]->bus);
        k->w[i]->bus = NULL;
        world_free(k->w[i]);
    }
    bus_mem_free(k->mem);
    free(k);
}

static struct peer *hello(struct cluster *k, unsigned node, uint64_t user, const char *resume)
{
    struct peer *p = peer_hello(k->w[node], user, 1, resume);
    settle(k);
    return p;
}

/* A chat of users 7 (at node `a`) and 8 (at node `b`), made by 7. */
static void make_chat(struct cluster *k, struct peer *seven, unsigned a, uint64_t chat)
{
    peer_say(k->w[a], seven, "{\"t\":\"create\",\"chat\":\"%llu\",\"users\":[\"7\",\"8\"]}",
             (unsigned long long)chat);
    settle(k);
    assert_non_null(peer_take(seven, "done"));
}

static void say(struct cluster *k, unsigned node, struct peer *p, uint64_t chat, const char *text)
{
    char id[ID_TEXT + 1];
    peer_send(k->w[node], p, world_id(k->w[node], id), chat, text);
    settle(k);
}

static void expect_msg(struct peer *p, long long seq, const char *body)
{
    json_t *o = peer_take(p, "msg");
    assert_non_null(o);
    assert_int_equal(number_of(o, "seq"), seq);
    assert_string_equal(text_of(o, "body"), body);
}

/* Sender at one node, recipient at another, owner the third: all of it goes through. */
static void test_a_message_crosses_three_nodes(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[2]);
    say(k, 0, seven, k->chat[2], "one");
    json_t *o = peer_take(seven, "accepted");
    assert_non_null(o);
    assert_int_equal(number_of(o, "seq"), 1);
    expect_msg(eight, 1, "one");
    assert_int_equal(peer_count(seven, "msg"), 0); /* its own message is not pushed to it */
    say(k, 1, eight, k->chat[2], "two");
    expect_msg(seven, 2, "two");
    assert_non_null(peer_take(eight, "accepted"));
    assert_int_equal(store_commit_index(k->w[2]->store), 3);
    assert_int_equal(store_commit_index(k->w[0]->store), 0);
    cluster_free(k);
}

static void test_a_message_crosses_once_for_each_node(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL);
    struct peer *all[20];
    peer_say(k->w[0], seven,
             "{\"t\":\"create\",\"chat\":\"%llu\",\"users\":[\"7\",\"100\",\"101\",\"102\",\"103\",\"104\","
             "\"105\",\"106\",\"107\",\"108\",\"109\"]}",
             (unsigned long long)k->chat[0]);
    settle(k);
    for (unsigned i = 0; i < 10; i++)
        all[i] = hello(k, 1 + i % 2, 100 + i, NULL);
    struct node_stats before, after;
    node_stats(k->w[0]->node, &before);
    say(k, 0, seven, k->chat[0], "one");
    node_stats(k->w[0]->node, &after);
    assert_int_equal(after.counters.bus_hints - before.counters.bus_hints, 2);
    for (unsigned i = 0; i < 10; i++)
        expect_msg(all[i], 1, "one");
    cluster_free(k);
}

static void test_a_hole_is_read_from_the_owner(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[0]);
    say(k, 0, seven, k->chat[0], "one");
    expect_msg(eight, 1, "one");
    bus_mem_drop_next(k->mem, 0, 1, 1);
    say(k, 0, seven, k->chat[0], "two");
    assert_null(peer_take(eight, "msg"));
    say(k, 0, seven, k->chat[0], "three");
    expect_msg(eight, 2, "two");
    expect_msg(eight, 3, "three");
    assert_int_equal(peer_count(eight, "gap"), 0);
    cluster_free(k);
}

/* The last message of a conversation leaves no hole: its head comes again within two seconds. */
static void test_the_last_publish_may_be_lost(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[0]);
    say(k, 0, seven, k->chat[0], "one");
    expect_msg(eight, 1, "one");
    bus_mem_drop_next(k->mem, 0, 1, 1);
    say(k, 0, seven, k->chat[0], "the last one");
    assert_null(peer_take(eight, "msg"));
    pass(k, 2000);
    expect_msg(eight, 2, "the last one");
    cluster_free(k);
}

static void test_a_lost_reply_is_asked_for_again_and_nothing_is_doubled(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[2]);
    bus_mem_drop_next(k->mem, 2, 0, 1);
    say(k, 0, seven, k->chat[2], "one");
    assert_null(peer_take(seven, "accepted"));
    pass(k, 1000);
    json_t *o = peer_take(seven, "accepted");
    assert_non_null(o);
    assert_int_equal(number_of(o, "seq"), 1);
    expect_msg(eight, 1, "one");
    assert_int_equal(store_commit_index(k->w[2]->store), 2);
    cluster_free(k);
}

static void test_a_dead_owner_answers_shard_unavailable_and_its_chats_come_back(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[2]);
    make_chat(k, seven, 0, k->chat[0]);
    say(k, 0, seven, k->chat[2], "one");
    expect_msg(eight, 1, "one");
    crash(k, 2);
    pass(k, 3000);
    say(k, 0, seven, k->chat[2], "into the void");
    json_t *o = peer_take(seven, "error");
    assert_non_null(o);
    assert_string_equal(text_of(o, "code"), "shard_unavailable");
    assert_int_equal(number_of(o, "retry_ms"), 1000);
    say(k, 0, seven, k->chat[0], "elsewhere"); /* chats of other owners go on */
    expect_msg(eight, 1, "elsewhere");
    struct peer *late = hello(k, 1, 9, NULL); /* welcome does not wait for the dead */
    assert_non_null(peer_take(late, "welcome"));
    struct peer *again = peer_hello(k->w[1], 8, 2, NULL);
    settle(k);
    assert_non_null(peer_take(again, "welcome"));
    restart(k, 2);
    pass(k, 3000);
    expect_msg(again, 1, "elsewhere");
    json_t *m = peer_take(again, "msg"); /* the dead owner's chat, after all */
    assert_non_null(m);
    assert_string_equal(text_of(m, "body"), "one");
    say(k, 0, seven, k->chat[2], "two");
    expect_msg(eight, 2, "two");
    expect_msg(again, 2, "two");
    cluster_free(k);
}

static void test_clients_of_a_dead_node_resume_at_another(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[0]);
    say(k, 0, seven, k->chat[0], "one");
    json_t *o = peer_take(eight, "msg");
    char resume[128];
    snprintf(resume, sizeof resume, "[[\"%llu\",\"%s\",1]]", (unsigned long long)k->chat[0],
             text_of(o, "epoch"));
    crash(k, 1);
    say(k, 0, seven, k->chat[0], "two");
    eight = hello(k, 2, 8, resume);
    pass(k, 2000); /* the dead node is asked too, and waited for */
    expect_msg(eight, 2, "two");
    say(k, 0, seven, k->chat[0], "three");
    expect_msg(eight, 3, "three");
    cluster_free(k);
}

static void test_a_node_cut_off_serves_its_own_and_catches_up(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL), *nine = hello(k, 0, 9, NULL);
    make_chat(k, seven, 0, k->chat[0]);
    peer_say(k->w[0], seven, "{\"t\":\"invite\",\"chat\":\"%llu\",\"user\":\"9\"}",
             (unsigned long long)k->chat[0]);
    settle(k);
    peer_say(k->w[0], nine, "{\"t\":\"join\",\"chat\":\"%llu\"}", (unsigned long long)k->chat[0]);
    settle(k);
    while (peer_take(eight, "msg"))
        ;
    while (peer_take(nine, "msg"))
        ;
    bus_mem_cut(k->mem, 0, BUS_ALL, true);
    for (int i = 0; i < 5; i++)
        say(k, 0, seven, k->chat[0], "while alone");
    assert_int_equal(peer_count(nine, "msg"), 5);
    assert_int_equal(peer_count(eight, "msg"), 0);
    pass(k, 40000); /* longer than its interest lives */
    bus_mem_cut(k->mem, 0, BUS_ALL, false);
    pass(k, 3000);
    assert_int_equal(peer_count(eight, "msg"), 5);
    cluster_free(k);
}

static void test_a_member_added_while_away_is_found_by_the_number(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    bus_mem_drop_next(k->mem, 0, 1, 1);
    make_chat(k, seven, 0, k->chat[0]); /* node 1 does not hear of it */
    say(k, 0, seven, k->chat[0], "one");
    assert_int_equal(peer_count(eight, "msg"), 0);
    pass(k, 1500);
    expect_msg(eight, 1, "one");
    cluster_free(k);
}

static void test_who_was_removed_is_sent_nothing_more(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[0]);
    say(k, 0, seven, k->chat[0], "one");
    expect_msg(eight, 1, "one");
    bus_mem_drop_next(k->mem, 0, 1, 1);
    peer_say(k->w[0], seven, "{\"t\":\"remove\",\"chat\":\"%llu\",\"user\":\"8\"}",
             (unsigned long long)k->chat[0]);
    settle(k);
    say(k, 0, seven, k->chat[0], "without you");
    pass(k, 3000);
    assert_int_equal(peer_count(eight, "msg"), 1); /* the removal itself */
    expect_msg(eight, 2, "{\"user\":\"8\"}");
    peer_say(k->w[1], eight, "{\"t\":\"sync\",\"chat\":\"%llu\",\"after\":0,\"limit\":10}",
             (unsigned long long)k->chat[0]);
    settle(k);
    assert_string_equal(text_of(peer_take(eight, "error"), "code"), "not_member");
    cluster_free(k);
}

static void test_history_sync_and_cursors_go_to_the_owner(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[2]);
    for (int i = 0; i < 3; i++)
        say(k, 0, seven, k->chat[2], "text");
    struct buf token = BUF_INIT(4096);
    world_token(k->w[0], 8, &token);
    world_step(k->w[1], (struct node_event){.kind = NODE_HISTORY,
                                            .request = 5,
                                            .data = token.data,
                                            .len = token.len,
                                            .chat = k->chat[2],
                                            .limit = 10});
    settle(k);
    assert_int_equal(k->w[1]->http_status, 200);
    assert_non_null(strstr(k->w[1]->http_body, "\"head\":3"));
    buf_reset(&token);
    world_token(k->w[0], 99, &token);
    world_step(k->w[1], (struct node_event){.kind = NODE_HISTORY,
                                            .request = 5,
                                            .data = token.data,
                                            .len = token.len,
                                            .chat = k->chat[2],
                                            .limit = 10});
    settle(k);
    assert_int_equal(k->w[1]->http_status, 404);
    buf_release(&token);
    while (peer_take(eight, "msg"))
        ;
    peer_say(k->w[1], eight, "{\"t\":\"sync\",\"chat\":\"%llu\",\"after\":1,\"limit\":10}",
             (unsigned long long)k->chat[2]);
    settle(k);
    expect_msg(eight, 2, "text");
    expect_msg(eight, 3, "text");
    assert_non_null(peer_take(eight, "done"));
    peer_say(k->w[1], eight, "{\"t\":\"ack\",\"chat\":\"%llu\",\"seq\":2}", (unsigned long long)k->chat[2]);
    pass(k, 2000);
    struct cursor c;
    assert_int_equal(store_cursor(k->w[2]->store, k->chat[2], 8, 1, &c, NULL), 0);
    assert_int_equal(c.delivered, 2);
    peer_gone(k->w[1], eight);
    struct peer *later = hello(k, 0, 8, NULL); /* another node finds it there */
    expect_msg(later, 3, "text");
    assert_int_equal(peer_count(later, "msg"), 0);
    cluster_free(k);
}

/* Loss, cuts and crashes in random order: in the end everybody has everything, once and in order. */
static void test_random_faults_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct cluster *k = cluster_new(RNG_SHARE(50000));
        struct rng rng;
        rng_seed(&rng, seed);
        struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
        for (unsigned i = 0; i < NODES; i++) {
            peer_say(k->w[0], seven, "{\"t\":\"create\",\"chat\":\"%llu\",\"users\":[\"7\",\"8\"]}",
                     (unsigned long long)k->chat[i]);
            pass(k, 3000);
        }
        char ids[60][ID_TEXT + 1];
        bool ok[60] = {false};
        for (int i = 0; i < 60; i++)
            world_id(k->w[0], ids[i]);
        for (int round = 0; round < 40; round++) {
            for (int i = round; i < 60 && i < round + 5; i++)
                if (!ok[i])
                    peer_send(k->w[0], seven, ids[i], k->chat[i % NODES], ids[i]);
            bus_mem_cut(k->mem, (uint16_t)rng_below(&rng, NODES), BUS_ALL, rng_hit(&rng, RNG_SHARE(300000)));
            if (rng_hit(&rng, RNG_SHARE(100000))) {
                crash(k, 2);
                pass(k, rng_below(&rng, 4000));
                restart(k, 2);
            }
            pass(k, 200 + rng_below(&rng, 1500));
            json_t *o;
            while ((o = peer_take(seven, "accepted")))
                for (int i = 0; i < 60; i++)
                    ok[i] |= !strcmp(ids[i], text_of(o, "id"));
        }
        for (uint16_t i = 0; i < NODES; i++)
            bus_mem_cut(k->mem, i, BUS_ALL, false);
        bus_mem_share(k->mem, 0);
        pass(k, 12000);
        unsigned got[60] = {0};
        long long last[NODES] = {0};
        json_t *o;
        while ((o = peer_take(eight, "msg"))) {
            unsigned which = 0;
            while (k->chat[which] != strtoull(text_of(o, "chat"), NULL, 10))
                which++;
            assert_true(number_of(o, "seq") == last[which] + 1);
            last[which]++;
            for (int i = 0; i < 60; i++)
                got[i] += !strcmp(ids[i], text_of(o, "body"));
        }
        for (int i = 0; i < 60; i++) {
            assert_true(got[i] <= 1);
            assert_true(!ok[i] || got[i] == 1);
        }
        cluster_free(k);
    }
}

/* ---- receipts ---- */

static bool told(struct peer *p, const char *user, long long delivered, long long read)
{
    bool last = false;
    for (size_t i = 0; i < json_array_size(p->got); i++) {
        json_t *o = json_array_get(p->got, i);
        if (!strcmp(text_of(o, "t"), "receipt") && !strcmp(text_of(o, "user"), user))
            last = number_of(o, "delivered") == delivered && number_of(o, "read") == read;
    }
    return last;
}

static void watch_chat(struct cluster *k, unsigned node, struct peer *p, uint64_t chat)
{
    peer_say(k->w[node], p, "{\"t\":\"receipts\",\"chat\":\"%llu\",\"on\":true}", (unsigned long long)chat);
    settle(k);
}

static void read_up_to(struct cluster *k, unsigned node, struct peer *p, uint64_t chat, int seq)
{
    peer_say(k->w[node], p, "{\"t\":\"read\",\"chat\":\"%llu\",\"seq\":%d}", (unsigned long long)chat, seq);
    settle(k);
}

/* Reader at one node, author at another, owner the third; a hint is lost, then the owner dies. */
static void test_receipts_cross_three_nodes_whatever_is_lost(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *seven = hello(k, 0, 7, NULL), *eight = hello(k, 1, 8, NULL);
    make_chat(k, seven, 0, k->chat[2]);
    watch_chat(k, 0, seven, k->chat[2]);
    for (int i = 0; i < 4; i++)
        say(k, 0, seven, k->chat[2], "hi");
    read_up_to(k, 1, eight, k->chat[2], 1);
    pass(k, 3000);
    assert_true(told(seven, "8", 1, 1));

    bus_mem_drop_next(k->mem, 1, 2, 1); /* the cursors: they are said again */
    read_up_to(k, 1, eight, k->chat[2], 2);
    pass(k, 3000);
    assert_true(told(seven, "8", 2, 2));

    read_up_to(k, 1, eight, k->chat[2], 3);
    pass(k, 1100);
    bus_mem_drop_next(k->mem, 2, 0, 3); /* what the owner tells of it (and beats): it is asked for again */
    pass(k, 12000);
    assert_true(told(seven, "8", 3, 3));

    /* the owner dies with what it had not saved; the reader's node has it still */
    read_up_to(k, 1, eight, k->chat[2], 4);
    crash(k, 2);
    pass(k, 3000);
    restart(k, 2);
    pass(k, 15000);
    assert_true(told(seven, "8", 4, 4));
    cluster_free(k);
}

/* At a follower: who was removed hears nothing, and a large group is counted with members of all nodes. */
static void test_receipts_of_a_large_group_at_a_follower(void **state)
{
    (void)state;
    struct cluster *k = cluster_new(0);
    struct peer *p[36];
    char text[1500];
    int n = snprintf(text, sizeof text, "{\"t\":\"create\",\"chat\":\"%llu\",\"users\":[\"100\"",
                     (unsigned long long)k->chat[2]);
    for (unsigned i = 0; i < 36; i++)
        p[i] = hello(k, i % 3, 100 + i, NULL);
    for (unsigned i = 1; i < 36; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, ",\"%u\"", 100 + i);
    peer_say(k->w[0], p[0], "%s]}", text);
    settle(k);
    watch_chat(k, 0, p[0], k->chat[2]);
    say(k, 0, p[0], k->chat[2], "hi");
    for (unsigned i = 1; i < 13; i++)
        read_up_to(k, i % 3, p[i], k->chat[2], 1);
    pass(k, 4000);
    json_t *last = NULL;
    for (size_t i = 0; i < json_array_size(p[0]->got); i++)
        if (!strcmp(text_of(json_array_get(p[0]->got, i), "t"), "receipt"))
            last = json_array_get(p[0]->got, i);
    assert_non_null(last);
    char *got = json_dumps(json_object_get(last, "counts"), JSON_COMPACT);
    assert_string_equal(got, "[[1,1,12,12,35]]");
    free(got);
    for (uint64_t user = 100; user < 102; user++) { /* the pages, through the owner: for the author only */
        struct buf token = BUF_INIT(4096);
        world_token(k->w[0], user, &token);
        world_step(k->w[0], (struct node_event){.kind = NODE_RECEIPTS,
                                                .request = 5,
                                                .data = token.data,
                                                .len = token.len,
                                                .chat = k->chat[2],
                                                .seq = 1,
                                                .limit = 5});
        settle(k);
        buf_release(&token);
        assert_int_equal(k->w[0]->http_status, user == 100 ? 200 : 403);
        if (user == 100)
            assert_non_null(
                strstr(k->w[0]->http_body, "\"of\":35,\"delivered\":12,\"read\":12,\"next\":\"105\""));
    }
    cluster_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_crosses_three_nodes),
        cmocka_unit_test(test_a_message_crosses_once_for_each_node),
        cmocka_unit_test(test_a_hole_is_read_from_the_owner),
        cmocka_unit_test(test_receipts_cross_three_nodes_whatever_is_lost),
        cmocka_unit_test(test_receipts_of_a_large_group_at_a_follower),
        cmocka_unit_test(test_the_last_publish_may_be_lost),
        cmocka_unit_test(test_a_lost_reply_is_asked_for_again_and_nothing_is_doubled),
        cmocka_unit_test(test_a_dead_owner_answers_shard_unavailable_and_its_chats_come_back),
        cmocka_unit_test(test_clients_of_a_dead_node_resume_at_another),
        cmocka_unit_test(test_a_node_cut_off_serves_its_own_and_catches_up),
        cmocka_unit_test(test_a_member_added_while_away_is_found_by_the_number),
        cmocka_unit_test(test_who_was_removed_is_sent_nothing_more),
        cmocka_unit_test(test_history_sync_and_cursors_go_to_the_owner),
        cmocka_unit_test(test_random_faults_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

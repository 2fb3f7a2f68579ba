/* 1000 readers of 1000 messages: no row a message, and not a frame a reading. */
#define PEERS_MAX 1100
#include "tests/unit/node/world.h"

#define READERS  1000u
#define MESSAGES 1000u

static bool count_row(void *arg, const struct cursor *c)
{
    (void)c;
    ++*(size_t *)arg;
    return true;
}

/* What the author was sent of receipts; everybody's frames are let go of. */
static void drain(struct world *w, size_t *frames, size_t *bytes, long long *read)
{
    for (size_t i = 0; i < w->peers_n; i++) {
        json_t *got = w->peers[i].got;
        for (size_t k = 0; i == 0 && k < json_array_size(got); k++) {
            json_t *o = json_array_get(got, k);
            if (strcmp(text_of(o, "t"), "receipt"))
                continue;
            char *text = json_dumps(o, JSON_COMPACT);
            json_t *rows = json_object_get(o, "counts");
            *bytes += strlen(text);
            ++*frames;
            *read = json_integer_value(json_array_get(json_array_get(rows, json_array_size(rows) - 1), 3));
            free(text);
        }
        json_array_clear(got);
    }
}

static void test_a_thousand_readers_of_a_thousand_messages(void **state)
{
    (void)state;
    struct world *w = world_new(DELIVERY_RELIABLE);
    char id[ID_TEXT + 1], *text = malloc(20000);
    size_t frames = 0, bytes = 0, rows = 0;
    long long read = 0;
    int n = snprintf(text, 20000, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"1000\"");
    for (unsigned i = 1; i <= READERS; i++)
        n += snprintf(text + n, 20000 - (size_t)n, ",\"%u\"", 1000 + i);
    for (unsigned i = 0; i <= READERS; i++)
        peer_hello(w, 1000 + i, 1, NULL);
    peer_say(w, &w->peers[0], "%s]}", text);
    free(text);
    world_settle(w);
    peer_say(w, &w->peers[0], "{\"t\":\"receipts\",\"chat\":\"17\",\"on\":true}");
    world_settle(w);
    for (unsigned m = 1; m <= MESSAGES; m++) {
        peer_send(w, &w->peers[0], world_id(w, id), 17, "hi");
        world_settle(w);
        for (unsigned i = 1; i <= READERS; i++)
            peer_say(w, &w->peers[i], "{\"t\":\"read\",\"chat\":\"17\",\"seq\":%u}", m);
        world_pass(w, 100);
        world_settle(w);
        drain(w, &frames, &bytes, &read);
    }
    for (int i = 0; i < 150; i++) {
        world_pass(w, 20);
        world_settle(w);
    }
    drain(w, &frames, &bytes, &read);
    assert_int_equal(store_cursors(w->store, 17, count_row, &rows, NULL), 0);
    assert_int_equal(read, READERS);
    assert_true(rows >= READERS && rows <= READERS + 1); /* the author's own */
    print_message("1000 readers of 1000 messages in 100 s: %zu rows, %zu frames, %zu bytes to the author\n",
                  rows, frames, bytes);
    assert_true(frames <= 110);
    assert_true(bytes <= 100000);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_thousand_readers_of_a_thousand_messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

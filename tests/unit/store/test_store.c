#include "helper.h"

struct fixture {
    struct place place;
    struct store *s;
    struct kv *mem; /* NULL: RocksDB */
};

static void open_store(struct fixture *f)
{
    struct err_ctx ctx = {0};
    struct store_config c = {.url = "mem:", .now_us = T0, .random = 77};
    if (!f->mem)
        f->s = open_place(&f->place, 77);
    else if (store_open_on(&f->s, f->mem, &c, &ctx) != 0)
        fail_msg("%s", ctx.text);
}

static int setup(void **state, bool mem)
{
    struct fixture *f = calloc(1, sizeof *f);
    place_make(&f->place);
    if (mem)
        assert_int_equal(kv_mem_open(&f->mem, NULL), 0);
    open_store(f);
    *state = f;
    return 0;
}

static int setup_mem(void **state)
{
    return setup(state, true);
}

static int setup_rocksdb(void **state)
{
    return setup(state, false);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_drop(f->s);
    if (f->mem)
        f->mem->ops->close(f->mem);
    place_remove(&f->place);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    assert_int_equal(store_close(f->s, NULL), 0);
    open_store(f);
}

static void commit_range(struct store *s, uint64_t epoch, uint64_t chat, uint64_t from, uint64_t to)
{
    static struct entry e[STORE_BATCH_MAX];
    static char body[STORE_BATCH_MAX][64];
    struct store_batch b = {.entries = e, .entries_n = to - from + 1};
    for (uint64_t i = from; i <= to; i++)
        e[i - from] = entry_of(epoch, chat, i, body[i - from]);
    assert_int_equal(store_commit(s, &b, NULL), 0);
}

struct collect {
    uint64_t chat[8192], seq[8192], epoch[8192];
    size_t n, stop_at;
};
static struct collect got;

static bool collect(void *arg, const struct entry *e)
{
    (void)arg;
    assert_entry(e, e->chat, e->seq);
    got.chat[got.n] = e->chat;
    got.seq[got.n] = e->seq;
    got.epoch[got.n] = e->epoch;
    return ++got.n != got.stop_at;
}

static size_t read_chat(struct store *s, uint64_t chat, uint64_t after, uint64_t upto, uint32_t limit,
                        size_t max_bytes)
{
    got.n = 0;
    assert_int_equal(store_read(s, chat, after, upto, limit, max_bytes, collect, NULL, NULL), 0);
    return got.n;
}

static void test_what_is_committed_is_read_back(void **state)
{
    struct fixture *f = *state;
    commit_range(f->s, 5, 17, 1, 20);
    commit_range(f->s, 5, 18, 1, 3);
    reopen(f);
    assert_int_equal(store_commit_index(f->s), 23);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 1 << 20), 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(got.seq[i], i + 1);
    assert_int_equal(read_chat(f->s, 17, 5, 8, 100, 1 << 20), 3);
    assert_int_equal(got.seq[0], 6);
    assert_int_equal(read_chat(f->s, 17, 5, UINT64_MAX, 4, 1 << 20), 4);
    assert_int_equal(read_chat(f->s, 17, 20, UINT64_MAX, 4, 1 << 20), 0);
    assert_int_equal(read_chat(f->s, 17, UINT64_MAX, UINT64_MAX, 4, 1 << 20), 0);
    assert_int_equal(read_chat(f->s, 99, 0, UINT64_MAX, 4, 1 << 20), 0);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 0, 1 << 20), 0);
    got.stop_at = 2;
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 1 << 20), 2);
    got.stop_at = 0;
}

static void test_read_stops_at_bytes_but_gives_one(void **state)
{
    struct fixture *f = *state;
    commit_range(f->s, 5, 17, 1, 9); /* bodies of 20 bytes */
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 20), 1);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 59), 2);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 60), 3);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 100, 0), 1);
}

static void test_dedup_finds_what_was_accepted(void **state)
{
    struct fixture *f = *state;
    struct dedup d;
    char body[64];
    struct entry e = entry_of(5, 17, 2, body);
    assert_int_equal(store_dedup(f->s, e.sender, &e.id, &d, NULL), ERR_NOTFOUND);
    commit_range(f->s, 5, 17, 1, 3);
    assert_int_equal(store_dedup(f->s, e.sender, &e.id, &d, NULL), 0);
    assert_true(d.chat == 17 && d.epoch == 5 && d.seq == 2 && d.ts_us == e.ts_us);
    assert_memory_equal(d.content, e.content, 16);
    assert_memory_equal(d.tag, e.tag, 16);
    assert_int_equal(store_dedup(f->s, e.sender + 1, &e.id, &d, NULL), ERR_NOTFOUND);
}

static void test_bound_of_ids_is_as_durable_as_they_are(void **state)
{
    struct fixture *f = *state;
    char body[64];
    struct entry first = entry_of(5, 17, 1, body), late = entry_of(5, 17, 100, body);
    uint64_t bound = id_unix_ms(&first.id) + STORE_IDS_AHEAD_MS;
    assert_true(store_ids_before(f->s) == 0);
    commit_range(f->s, 5, 17, 1, 1);
    assert_true(store_ids_before(f->s) == bound);
    commit_range(f->s, 5, 17, 2, 9); /* a second apart: still below it */
    assert_true(store_ids_before(f->s) == bound);
    reopen(f);
    assert_true(store_ids_before(f->s) == bound);
    commit_range(f->s, 5, 17, 100, 100);
    reopen(f);
    assert_true(store_ids_before(f->s) == id_unix_ms(&late.id) + STORE_IDS_AHEAD_MS);
    if (f->mem) { /* what was not written moves nothing */
        kv_mem_fail(f->mem, 0, ERR_FULL, false);
        assert_int_equal(commit_one(f->s, 17, 200), ERR_FULL);
        assert_true(store_ids_before(f->s) == id_unix_ms(&late.id) + STORE_IDS_AHEAD_MS);
    }
}

static void test_cursor_never_goes_back_in_an_epoch(void **state)
{
    struct fixture *f = *state;
    struct cursor c[] = {{17, 7, 1, 5, 10, 4}, {17, 7, 1, 5, 8, 6}, {17, 7, 2, 5, 1, 1}}, out;
    struct store_batch b = {.cursors = c, .cursors_n = 3};
    assert_int_equal(store_cursor(f->s, 17, 7, 1, &out, NULL), ERR_NOTFOUND);
    assert_int_equal(store_commit(f->s, &b, NULL), 0);
    assert_int_equal(store_commit_index(f->s), 0);
    assert_int_equal(store_cursor(f->s, 17, 7, 1, &out, NULL), 0);
    assert_true(out.epoch == 5 && out.delivered == 10 && out.read == 6);
    assert_int_equal(store_cursor(f->s, 17, 7, 2, &out, NULL), 0);
    assert_true(out.delivered == 1);
}

static bool take_cursors(void *arg, const struct cursor *c)
{
    struct cursor **at = arg;
    *(*at)++ = *c;
    return true;
}

static void test_cursors_of_a_chat_come_by_user_and_device(void **state)
{
    struct fixture *f = *state;
    struct cursor c[] = {{17, 300, 1, 5, 3, 0},
                         {17, 7, 2, 5, 1, 1},
                         {18, 7, 1, 5, 9, 9},
                         {17, 7, 1, 5, 10, 4},
                         {17, UINT64_MAX, UINT32_MAX, 5, 6, 2},
                         {16, 7, 1, 5, 9, 9}},
                  got[8], *at = got;
    struct store_batch b = {.cursors = c, .cursors_n = 6};
    assert_int_equal(store_commit(f->s, &b, NULL), 0);
    assert_int_equal(store_cursors(f->s, 17, take_cursors, &at, NULL), 0);
    assert_int_equal(at - got, 4);
    assert_true(got[0].user == 7 && got[0].device == 1 && got[0].delivered == 10 && got[0].read == 4);
    assert_true(got[1].user == 7 && got[1].device == 2 && got[1].epoch == 5);
    assert_true(got[2].user == 300 && got[2].delivered == 3);
    assert_true(got[3].user == UINT64_MAX && got[3].device == UINT32_MAX && got[3].read == 2);
}

struct loaded {
    struct chat_head heads[64];
    struct member_row members[64];
    size_t heads_n, members_n;
};

static void on_head(void *arg, const struct chat_head *h)
{
    struct loaded *l = arg;
    l->heads[l->heads_n++] = *h;
}

static void on_member(void *arg, const struct member_row *m)
{
    struct loaded *l = arg;
    l->members[l->members_n++] = *m;
}

static void load(struct store *s, struct loaded *l)
{
    struct store_load sl = {on_head, on_member, l};
    memset(l, 0, sizeof *l);
    assert_int_equal(store_load(s, &sl, NULL), 0);
}

/* Chats shorter and longer than the point where loading jumps instead of reading on, neighbours of all sorts.
 */
static void test_load_gives_the_head_of_each_chat(void **state)
{
    struct fixture *f = *state;
    static const uint64_t length[] = {1, 47, 48, 49, 500, 2, 96, 97, 48, 0, 48, 144};
    const size_t n = sizeof length / sizeof *length;
    struct loaded l;
    load(f->s, &l);
    assert_int_equal(l.heads_n, 0);
    for (size_t i = 0; i < n; i++)
        commit_range(f->s, 5, i, 0, length[i]);
    commit_range(f->s, 9, 4, 1ull << 32, (1ull << 32) + 60);
    load(f->s, &l);
    assert_int_equal(l.heads_n, n);
    uint64_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        const struct chat_head *h = &l.heads[i];
        assert_true(h->chat < n && !(seen & 1ull << h->chat));
        seen |= 1ull << h->chat;
        assert_true(h->seq == (h->chat == 4 ? (1ull << 32) + 60 : length[h->chat]));
        assert_true(h->epoch == (h->chat == 4 ? 9 : 5));
    }
}

static void test_members_keep_a_list_of_ranges(void **state)
{
    struct fixture *f = *state;
    struct member_row m[] = {{17, 7, 0, UINT64_MAX, 1}, {17, 8, 0, UINT64_MAX, 0}, {18, 7, 4, UINT64_MAX, 2}},
                      again[] = {{17, 8, 0, 5, 0}, {17, 8, 9, UINT64_MAX, 0}};
    struct store_batch b = {.members = m, .members_n = 3}, b2 = {.members = again, .members_n = 2};
    struct loaded l;
    assert_int_equal(store_commit(f->s, &b, NULL), 0);
    assert_int_equal(store_commit(f->s, &b2, NULL), 0);
    if (f->mem)
        kv_mem_crash(f->mem); /* members alone are synced too */
    load(f->s, &l);
    assert_int_equal(l.members_n, 4);
    int found = 0;
    for (size_t i = 0; i < 4; i++) {
        struct member_row *r = &l.members[i];
        found += r->chat == 17 && r->user == 7 && r->from == 0 && r->to == UINT64_MAX && r->role == 1;
        found += r->chat == 17 && r->user == 8 && r->from == 0 && r->to == 5 && r->role == 0;
        found += r->chat == 17 && r->user == 8 && r->from == 9 && r->to == UINT64_MAX;
        found += r->chat == 18 && r->user == 7 && r->from == 4 && r->role == 2;
    }
    assert_int_equal(found, 4);
}

static uint64_t since(struct store *s, uint64_t chat, uint64_t us)
{
    uint64_t seq = 0;
    assert_int_equal(store_seq_since(s, chat, us, &seq, NULL), 0);
    return seq;
}

static void test_seq_since_finds_the_time_across_the_hole_of_an_epoch(void **state)
{
    struct fixture *f = *state;
    const uint64_t jump = 1ull << 32;
    assert_int_equal(since(f->s, 17, T0), 1); /* no such chat: head 0, plus 1 */
    commit_range(f->s, 5, 17, 0, 50);
    commit_range(f->s, 5, 18, 1, 50);
    assert_int_equal(since(f->s, 17, 0), 1);
    assert_int_equal(since(f->s, 17, T0 + 20 * 1000000), 20);
    assert_int_equal(since(f->s, 17, T0 + 20 * 1000000 + 1), 21);
    assert_int_equal(since(f->s, 17, UINT64_MAX), 51);
    commit_range(f->s, 9, 17, jump, jump + 9); /* entry_of's times grow with seq */
    assert_true(since(f->s, 17, T0 + 51 * 1000000) == jump);
    assert_true(since(f->s, 17, T0 + (jump + 3) * 1000000) == jump + 3);
    assert_true(since(f->s, 17, UINT64_MAX) == jump + 10);
    assert_int_equal(since(f->s, 17, T0 + 50 * 1000000), 50);
}

static void test_scans_give_everything_in_both_orders(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 1; i <= 30; i++)
        for (uint64_t chat = 1; chat <= 3; chat++)
            assert_int_equal(commit_one(f->s, chat, i), 0);
    got.n = 0;
    assert_int_equal(store_scan(f->s, collect, NULL, NULL), 0);
    assert_int_equal(got.n, 90);
    for (size_t i = 0; i < 90; i++)
        assert_true(got.chat[i] == 1 + i % 3 && got.seq[i] == 1 + i / 3);
    got.n = 0;
    assert_int_equal(store_scan_chats(f->s, collect, NULL, NULL), 0);
    assert_int_equal(got.n, 90);
    for (size_t i = 1; i < 90; i++)
        assert_true(got.chat[i] == got.chat[i - 1] ? got.seq[i] == got.seq[i - 1] + 1 : got.seq[i] == 1);
}

static void test_limits_of_a_batch(void **state)
{
    struct fixture *f = *state;
    static struct entry e[STORE_BATCH_MAX + 1];
    static char big[STORE_BATCH_BYTES + 1];
    char body[64];
    for (size_t i = 0; i <= STORE_BATCH_MAX; i++)
        e[i] = entry_of(5, 17, 1, body);
    struct store_batch b = {.entries = e, .entries_n = STORE_BATCH_MAX + 1};
    assert_int_equal(store_commit(f->s, &b, NULL), ERR_LIMIT);
    e[0].body = big;
    e[0].body_len = STORE_BATCH_BYTES + 1;
    b.entries_n = 1;
    assert_int_equal(store_commit(f->s, &b, NULL), ERR_LIMIT);
    assert_int_equal(store_commit_index(f->s), 0);
    e[0].body_len = STORE_BATCH_BYTES;
    assert_int_equal(store_commit(f->s, &b, NULL), 0);
    assert_int_equal(store_commit_index(f->s), 1);
}

static void test_sweep_takes_only_ids_beyond_the_window(void **state)
{
    struct fixture *f = *state;
    const uint64_t day = 86400000000ull, old = T0 + (STORE_DEDUP_DAYS * 24 + 1) * 3600000000ull;
    struct dedup d;
    for (uint64_t chat = 1; chat <= 20; chat++) /* twenty senders, ids 1 s apart */
        commit_range(f->s, 5, chat, 1, 10);
    assert_int_equal(store_dedup_sweep(f->s, T0 + day, 1000, NULL), 0);
    long swept = 0, n = 1;
    for (int i = 0; i < 100 && (n > 0 || i < 3); i++) {
        n = store_dedup_sweep(f->s, old + 6 * 1000000, 7, NULL); /* older than T0 + 6 s: seq 1..5 */
        assert_in_range(n, 0, 7);
        swept += n;
    }
    assert_int_equal(swept, 20 * 5);
    for (uint64_t chat = 1; chat <= 20; chat++)
        for (uint64_t seq = 1; seq <= 10; seq++) {
            char body[64];
            struct entry e = entry_of(5, chat, seq, body);
            assert_int_equal(store_dedup(f->s, e.sender, &e.id, &d, NULL), seq <= 5 ? ERR_NOTFOUND : 0);
        }
}

static void test_damaged_row_is_named(void **state)
{
    struct fixture *f = *state;
    struct err_ctx ctx = {0};
    struct row_key k;
    struct kv_batch *b;
    char body[64];
    struct buf row = BUF_INIT(1000);
    struct entry e = entry_of(5, 17, 2, body);
    commit_range(f->s, 5, 17, 1, 3);
    key_msg(&k, 17, 2);
    row_msg(&row, &k, &e);
    b = f->mem->ops->batch_new(f->mem);
    for (size_t i = 0; i < row.len; i++) { /* each byte of the row, in turn */
        row.data[i] ^= 0x20;
        f->mem->ops->put(b, KV_MSG, key_bytes(&k), (struct kv_bytes){row.data, row.len});
        assert_int_equal(f->mem->ops->write(f->mem, b, true, NULL), 0);
        f->mem->ops->batch_reset(b);
        got.n = 0;
        assert_int_equal(store_read(f->s, 17, 0, UINT64_MAX, 9, 999, collect, NULL, &ctx), ERR_CORRUPT);
        assert_int_equal(got.n, 1);
        assert_non_null(strstr(ctx.text, "chat 17 seq 2"));
        row.data[i] ^= 0x20;
    }
    /* a row that is whole, but not of this key */
    key_msg(&k, 17, 1);
    f->mem->ops->put(b, KV_MSG, key_bytes(&k), (struct kv_bytes){row.data, row.len});
    assert_int_equal(f->mem->ops->write(f->mem, b, true, NULL), 0);
    assert_int_equal(store_scan_chats(f->s, collect, NULL, &ctx), ERR_CORRUPT);
    f->mem->ops->batch_reset(b);
    f->mem->ops->del(b, KV_MSG, key_bytes(&k));
    assert_int_equal(f->mem->ops->write(f->mem, b, true, NULL), 0);
    assert_int_equal(store_scan(f->s, collect, NULL, &ctx), ERR_CORRUPT);
    assert_non_null(strstr(ctx.text, "its message is missing"));
    f->mem->ops->batch_free(b);
    buf_release(&row);
}

static void test_full_store_refuses_and_goes_on(void **state)
{
    struct fixture *f = *state;
    commit_range(f->s, 5, 17, 1, 3);
    kv_mem_fail(f->mem, 0, ERR_FULL, false);
    assert_int_equal(commit_one(f->s, 17, 4), ERR_FULL);
    assert_int_equal(store_commit_index(f->s), 3);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 9, 999), 3);
    assert_int_equal(commit_one(f->s, 17, 4), 0);
    assert_int_equal(store_commit_index(f->s), 4);
}

static void test_after_a_failed_fsync_only_reopening_helps(void **state)
{
    struct fixture *f = *state;
    commit_range(f->s, 5, 17, 1, 3);
    kv_mem_fail(f->mem, 0, ERR_IO, true);
    assert_int_equal(commit_one(f->s, 17, 4), ERR_IO);
    assert_int_equal(commit_one(f->s, 17, 4), ERR_IO);
    assert_int_equal(store_has_room(f->s), ERR_IO);
    assert_int_equal(store_mark(f->s, NULL), ERR_IO);
    store_drop(f->s);
    kv_mem_crash(f->mem);
    open_store(f);
    assert_int_equal(read_chat(f->s, 17, 0, UINT64_MAX, 9, 999), 3);
    assert_false(store_epoch_is_new(f->s));
}

/* Each write of a little life fails in turn, in each way a write can: nothing acknowledged is missing after
 * the power cut, nothing is there in part, and the life goes on. */
static void test_each_write_fails_in_turn(void **state)
{
    struct fixture *f = *state;
    uint64_t acked = 0;
    for (unsigned at = 0; at < 12; at++)
        for (int how = 0; how < 3; how++) {
            kv_mem_fail(f->mem, at, how == 0 ? ERR_FULL : ERR_IO, how == 2);
            for (int i = 0; i < 12; i++) {
                struct cursor c = {17, 7, 1, store_epoch(f->s), acked, acked};
                struct store_batch lazy = {.cursors = &c, .cursors_n = 1};
                int rc = i % 3 == 2 ? store_commit(f->s, &lazy, NULL) : commit_one(f->s, 17, acked + 1);
                acked += rc == 0 && i % 3 != 2;
                if (rc == ERR_IO) /* it stays refused, whatever is tried */
                    assert_int_equal(commit_one(f->s, 17, acked + 1), ERR_IO);
                else if (rc)
                    assert_int_equal(rc, ERR_FULL);
            }
            store_drop(f->s);
            kv_mem_crash(f->mem);
            open_store(f);
            assert_int_equal(store_commit_index(f->s), acked);
            got.n = 0;
            assert_int_equal(store_scan(f->s, collect, NULL, NULL), 0);
            assert_int_equal(got.n, acked);
        }
}

static void test_open_on_a_failing_disk_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct store_config c = {.url = "mem:", .now_us = T0, .random = 78};
    struct store *s;
    commit_range(f->s, 5, 17, 1, 3);
    store_drop(f->s);
    kv_mem_fail(f->mem, 0, ERR_IO, true);
    assert_int_equal(store_open_on(&s, f->mem, &c, NULL), ERR_IO);
    kv_mem_crash(f->mem);
    open_store(f);
    assert_int_equal(store_epoch(f->s), 77);
    assert_int_equal(store_commit_index(f->s), 3);
}

#define MEM(t)     cmocka_unit_test_setup_teardown(t, setup_mem, teardown)
#define ROCKSDB(t) cmocka_unit_test_setup_teardown(t, setup_rocksdb, teardown)
#define BOTH(t)    MEM(t), ROCKSDB(t)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_what_is_committed_is_read_back),
        BOTH(test_read_stops_at_bytes_but_gives_one),
        BOTH(test_dedup_finds_what_was_accepted),
        BOTH(test_bound_of_ids_is_as_durable_as_they_are),
        BOTH(test_cursor_never_goes_back_in_an_epoch),
        BOTH(test_cursors_of_a_chat_come_by_user_and_device),
        BOTH(test_load_gives_the_head_of_each_chat),
        BOTH(test_members_keep_a_list_of_ranges),
        BOTH(test_seq_since_finds_the_time_across_the_hole_of_an_epoch),
        BOTH(test_scans_give_everything_in_both_orders),
        BOTH(test_limits_of_a_batch),
        BOTH(test_sweep_takes_only_ids_beyond_the_window),
        MEM(test_damaged_row_is_named),
        MEM(test_full_store_refuses_and_goes_on),
        MEM(test_after_a_failed_fsync_only_reopening_helps),
        MEM(test_each_write_fails_in_turn),
        MEM(test_open_on_a_failing_disk_is_an_error),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}

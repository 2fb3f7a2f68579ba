/* Both backends keep the same contract; what one of them has alone comes after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/kv.h"
#include "util/rng.h"

struct fixture {
    struct kv *kv;
    struct kv_batch *b;
    char dir[64];
    bool rocksdb;
};

static struct kv_bytes bytes(const char *s)
{
    return (struct kv_bytes){s, strlen(s)};
}

static void open_kv(struct fixture *f)
{
    struct err_ctx ctx = {0};
    struct kv_rocksdb_config c = {.dir = f->dir, .create = true};
    int rc = f->rocksdb ? kv_rocksdb_open(&f->kv, &c, &ctx) : kv_mem_open(&f->kv, &ctx);
    if (rc)
        fail_msg("%s", ctx.text);
    f->b = f->kv->ops->batch_new(f->kv);
}

static void close_kv(struct fixture *f)
{
    f->kv->ops->batch_free(f->b);
    f->kv->ops->close(f->kv);
}

static int setup(void **state, bool rocksdb)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->rocksdb = rocksdb;
    strcpy(f->dir, "/tmp/test-kv-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    open_kv(f);
    *state = f;
    return 0;
}

static int setup_mem(void **state)
{
    return setup(state, false);
}

static int setup_rocksdb(void **state)
{
    return setup(state, true);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[128];
    close_kv(f);
    snprintf(cmd, sizeof cmd, "rm -rf %s", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

static void put(struct fixture *f, enum kv_family fam, const char *k, const char *v)
{
    f->kv->ops->put(f->b, fam, bytes(k), bytes(v));
}

static int commit(struct fixture *f, bool sync)
{
    int rc = f->kv->ops->write(f->kv, f->b, sync, NULL);
    f->kv->ops->batch_reset(f->b);
    return rc;
}

static void put_now(struct fixture *f, enum kv_family fam, const char *k, const char *v, bool sync)
{
    put(f, fam, k, v);
    assert_int_equal(commit(f, sync), 0);
}

static void assert_value(struct fixture *f, enum kv_family fam, const char *k, const char *v)
{
    struct buf b = BUF_INIT(1000);
    int rc = f->kv->ops->get(f->kv, fam, bytes(k), &b, NULL);
    assert_int_equal(rc, v ? 0 : ERR_NOTFOUND);
    if (v)
        assert_string_equal(buf_cstr(&b), v);
    buf_release(&b);
}

struct seen {
    char text[4096];
    int stop_after;
};

static bool note(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct seen *s = arg;
    char one[64];
    snprintf(one, sizeof one, "%.*s=%.*s ", (int)key.n, (const char *)key.p, (int)val.n, (const char *)val.p);
    strcat(s->text, one);
    return --s->stop_after != 0;
}

static void assert_scan(struct fixture *f, const char *from, const char *to, bool reverse, int stop_after,
                        const char *want)
{
    struct seen s = {.stop_after = stop_after};
    assert_int_equal(f->kv->ops->scan(f->kv, KV_MSG, bytes(from), bytes(to), reverse, note, &s, NULL), 0);
    assert_string_equal(s.text, want);
}

static void test_put_get_delete(void **state)
{
    struct fixture *f = *state;
    put(f, KV_MSG, "a", "1");
    put(f, KV_DEDUP, "a", "other family");
    put(f, KV_MSG, "a", "2");
    assert_value(f, KV_MSG, "a", NULL); /* not before the write */
    assert_int_equal(commit(f, true), 0);
    assert_value(f, KV_MSG, "a", "2");
    assert_value(f, KV_DEDUP, "a", "other family");
    f->kv->ops->del(f->b, KV_MSG, bytes("a"));
    f->kv->ops->del(f->b, KV_MSG, bytes("never was"));
    assert_int_equal(commit(f, false), 0);
    assert_value(f, KV_MSG, "a", NULL);
}

static void test_scan_bounds_and_order(void **state)
{
    struct fixture *f = *state;
    assert_scan(f, "", "", false, 0, "");
    put(f, KV_MSG, "b", "2");
    put(f, KV_MSG, "a", "1");
    put(f, KV_MSG, "ab", "3");
    put(f, KV_MSG, "\xff\xff", "4");
    assert_int_equal(commit(f, true), 0);
    assert_scan(f, "", "", false, 0, "a=1 ab=3 b=2 \xff\xff=4 ");
    assert_scan(f, "", "", true, 0, "\xff\xff=4 b=2 ab=3 a=1 ");
    assert_scan(f, "ab", "b", false, 0, "ab=3 ");
    assert_scan(f, "aa", "c", true, 0, "b=2 ab=3 ");
    assert_scan(f, "a", "\xff", false, 2, "a=1 ab=3 ");
    assert_scan(f, "", "\xff\xff", true, 1, "b=2 ");
    assert_scan(f, "c", "d", false, 0, "");
    assert_scan(f, "c", "d", true, 0, "");
}

static void cursor(uint8_t v[KV_CURSOR_BYTES], uint8_t epoch, uint8_t delivered, uint8_t read)
{
    memset(v, 0, KV_CURSOR_BYTES);
    v[7] = epoch, v[15] = delivered, v[23] = read;
}

static void merge_now(struct fixture *f, uint8_t epoch, uint8_t delivered, uint8_t read)
{
    uint8_t v[KV_CURSOR_BYTES];
    cursor(v, epoch, delivered, read);
    f->kv->ops->merge(f->b, KV_CURSOR, bytes("c"), (struct kv_bytes){v, sizeof v});
    assert_int_equal(commit(f, false), 0);
}

static void assert_cursor(struct fixture *f, uint8_t epoch, uint8_t delivered, uint8_t read)
{
    uint8_t v[KV_CURSOR_BYTES];
    struct buf b = BUF_INIT(1000);
    cursor(v, epoch, delivered, read);
    assert_int_equal(f->kv->ops->get(f->kv, KV_CURSOR, bytes("c"), &b, NULL), 0);
    assert_int_equal(b.len, sizeof v);
    assert_memory_equal(b.data, v, sizeof v);
    buf_release(&b);
}

static void test_cursors_merge_by_maximum_within_an_epoch(void **state)
{
    struct fixture *f = *state;
    merge_now(f, 9, 5, 1);
    merge_now(f, 9, 4, 3);
    assert_cursor(f, 9, 5, 3);
    merge_now(f, 2, 1, 0); /* another epoch written later wins, whatever its number; what was read stays so */
    assert_cursor(f, 2, 1, 3);
    merge_now(f, 9, 2, 2); /* and back: what it had before is not summed up */
    assert_cursor(f, 9, 2, 3);
    merge_now(f, 9, 3, 4);
    assert_cursor(f, 9, 3, 4);
    if (f->rocksdb) { /* the same after flush and compaction have merged what they may */
        close_kv(f);
        open_kv(f);
        assert_cursor(f, 9, 3, 4);
    }
}

struct model {
    char val[100][8];
};

/* Random puts and deletes against an array: the same rows in the same order, forwards and backwards. */
static void test_agrees_with_a_plain_model(void **state)
{
    struct fixture *f = *state;
    struct model m = {0};
    struct rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < 3000; i++) {
        char k[8], v[8];
        unsigned n = (unsigned)rng_below(&r, 100);
        snprintf(k, sizeof k, "%02u", n);
        snprintf(v, sizeof v, "%d", i);
        if (rng_below(&r, 3) == 0) {
            f->kv->ops->del(f->b, KV_MSG, bytes(k));
            m.val[n][0] = 0;
        } else {
            put(f, KV_MSG, k, v);
            strcpy(m.val[n], v);
        }
        if (rng_below(&r, 10) == 0)
            assert_int_equal(commit(f, false), 0);
    }
    assert_int_equal(commit(f, false), 0);
    static struct seen up, down;
    char want_up[4096] = "", want_down[4096] = "", one[16];
    for (int i = 0; i < 100; i++)
        if (m.val[i][0]) {
            snprintf(one, sizeof one, "%02d=%s ", i, m.val[i]);
            strcat(want_up, one);
        }
    for (int i = 99; i >= 0; i--)
        if (m.val[i][0]) {
            snprintf(one, sizeof one, "%02d=%s ", i, m.val[i]);
            strcat(want_down, one);
        }
    up = down = (struct seen){0};
    struct kv_bytes all = {0};
    f->kv->ops->scan(f->kv, KV_MSG, all, all, false, note, &up, NULL);
    f->kv->ops->scan(f->kv, KV_MSG, all, all, true, note, &down, NULL);
    assert_string_equal(up.text, want_up);
    assert_string_equal(down.text, want_down);
}

static void test_value_larger_than_the_buffer_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err_ctx ctx = {0};
    struct buf b = BUF_INIT(3);
    put_now(f, KV_MSG, "a", "12345", true);
    assert_int_equal(f->kv->ops->get(f->kv, KV_MSG, bytes("a"), &b, &ctx), ERR_LIMIT);
    assert_int_equal(ctx.code, ERR_LIMIT);
    buf_release(&b);
}

/* Batch i survives when bit i says so, whole and whatever became of those before it. */
static void test_mem_crash_may_leave_some_of_what_was_not_synced(void **state)
{
    struct fixture *f = *state;
    char key[2] = "a", val[16];
    struct buf out = BUF_INIT(64);
    f->kv->ops->put(f->b, KV_META, bytes("a"), bytes("synced"));
    assert_int_equal(f->kv->ops->write(f->kv, f->b, KV_SYNC, NULL), 0);
    for (int i = 0; i < 4; i++) {
        f->kv->ops->batch_reset(f->b);
        snprintf(val, sizeof val, "%d", i);
        key[0] = (char)('a' + i);
        f->kv->ops->put(f->b, KV_META, bytes(key), bytes(val));
        key[0] = (char)('p' + i);
        f->kv->ops->put(f->b, KV_META, bytes(key), bytes(val));
        assert_int_equal(f->kv->ops->write(f->kv, f->b, KV_LAZY, NULL), 0);
    }
    kv_mem_crash_some(f->kv, 1u << 1 | 1u << 3);
    for (int i = 0; i < 4; i++) {
        bool there = i & 1;
        key[0] = (char)('p' + i);
        buf_reset(&out);
        assert_int_equal(f->kv->ops->get(f->kv, KV_META, bytes(key), &out, NULL), there ? 0 : ERR_NOTFOUND);
        key[0] = (char)('a' + i);
        buf_reset(&out);
        assert_int_equal(f->kv->ops->get(f->kv, KV_META, bytes(key), &out, NULL),
                         there || i == 0 ? 0 : ERR_NOTFOUND);
        if (i == 0)
            assert_string_equal(buf_cstr(&out), "synced");
    }
    kv_mem_crash(f->kv); /* what survived once is on the disk */
    buf_reset(&out);
    assert_int_equal(f->kv->ops->get(f->kv, KV_META, bytes("q"), &out, NULL), 0);
    buf_release(&out);
}

static void test_mem_copy_is_an_image_that_goes_its_own_way(void **state)
{
    struct fixture *f = *state;
    struct kv *image;
    struct buf out = BUF_INIT(64);
    f->kv->ops->put(f->b, KV_META, bytes("a"), bytes("1"));
    assert_int_equal(f->kv->ops->write(f->kv, f->b, KV_LAZY, NULL), 0);
    assert_int_equal(kv_mem_copy(&image, f->kv, NULL), 0);
    f->kv->ops->batch_reset(f->b);
    f->kv->ops->put(f->b, KV_META, bytes("b"), bytes("2"));
    assert_int_equal(f->kv->ops->write(f->kv, f->b, KV_SYNC, NULL), 0);
    kv_mem_crash(image);
    assert_int_equal(image->ops->get(image, KV_META, bytes("a"), &out, NULL), 0);
    assert_int_equal(image->ops->get(image, KV_META, bytes("b"), &out, NULL), ERR_NOTFOUND);
    image->ops->close(image);
    buf_release(&out);
}

static void test_mem_crash_takes_what_was_not_synced(void **state)
{
    struct fixture *f = *state;
    put_now(f, KV_MSG, "a", "1", true);
    put_now(f, KV_MSG, "b", "1", false);
    put_now(f, KV_MSG, "a", "2", false);
    kv_mem_crash(f->kv);
    assert_value(f, KV_MSG, "a", "1");
    assert_value(f, KV_MSG, "b", NULL);
    f->kv->ops->del(f->b, KV_MSG, bytes("a"));
    assert_int_equal(commit(f, false), 0);
    kv_mem_crash(f->kv);
    assert_value(f, KV_MSG, "a", "1");
    put_now(f, KV_MSG, "b", "2", false);
    put_now(f, KV_MSG, "c", "3", true); /* a sync takes along what came before it */
    put_now(f, KV_MSG, "d", "4", false);
    assert_int_equal(f->kv->ops->sync(f->kv, NULL), 0);
    kv_mem_crash(f->kv);
    assert_scan(f, "", "", false, 0, "a=1 b=2 c=3 d=4 ");
}

static void test_mem_planned_failures(void **state)
{
    struct fixture *f = *state;
    kv_mem_fail(f->kv, 1, ERR_FULL, false);
    put_now(f, KV_MSG, "a", "1", true);
    put(f, KV_MSG, "b", "1");
    assert_int_equal(commit(f, true), ERR_FULL);
    assert_value(f, KV_MSG, "b", NULL);
    put_now(f, KV_MSG, "c", "1", true);
    for (int applied = 0; applied < 2; applied++) {
        kv_mem_fail(f->kv, 0, ERR_IO, applied);
        put(f, KV_MSG, "d", "1");
        assert_int_equal(commit(f, true), ERR_IO);
        struct buf b = BUF_INIT(10);
        assert_int_equal(f->kv->ops->get(f->kv, KV_MSG, bytes("a"), &b, NULL), ERR_IO);
        put(f, KV_MSG, "e", "1");
        assert_int_equal(commit(f, true), ERR_IO);
        assert_int_equal(f->kv->ops->sync(f->kv, NULL), ERR_IO);
        assert_int_equal(f->kv->ops->room(f->kv, NULL), ERR_IO);
        kv_mem_crash(f->kv);
        assert_scan(f, "", "", false, 0, "a=1 c=1 ");
    }
}

static void test_rocksdb_reopens_with_everything(void **state)
{
    struct fixture *f = *state;
    put_now(f, KV_MSG, "a", "1", true);
    put_now(f, KV_LOG, "b", "2", false);
    close_kv(f);
    open_kv(f);
    assert_value(f, KV_MSG, "a", "1");
    assert_value(f, KV_LOG, "b", "2");
    assert_true(f->kv->ops->disk_bytes(f->kv) > 0);
}

static void test_rocksdb_reserve_refuses_before_writing(void **state)
{
    struct fixture *f = *state;
    struct err_ctx ctx = {0};
    close_kv(f);
    struct kv_rocksdb_config c = {.dir = f->dir, .reserve_bytes = UINT64_MAX};
    assert_int_equal(kv_rocksdb_open(&f->kv, &c, &ctx), 0);
    f->b = f->kv->ops->batch_new(f->kv);
    put(f, KV_MSG, "a", "1");
    assert_int_equal(f->kv->ops->write(f->kv, f->b, true, &ctx), ERR_FULL);
    assert_non_null(strstr(ctx.text, f->dir));
    assert_int_equal(f->kv->ops->room(f->kv, NULL), ERR_FULL);
    assert_value(f, KV_MSG, "a", NULL);
}

static void test_rocksdb_read_only_sees_but_never_writes(void **state)
{
    struct fixture *f = *state;
    struct kv *ro;
    put_now(f, KV_MSG, "a", "1", true);
    struct kv_rocksdb_config c = {.dir = f->dir, .read_only = true};
    assert_int_equal(kv_rocksdb_open(&ro, &c, NULL), 0); /* beside the writer */
    struct fixture g = {.kv = ro, .b = ro->ops->batch_new(ro)};
    assert_value(&g, KV_MSG, "a", "1");
    put(&g, KV_MSG, "b", "1");
    assert_int_equal(commit(&g, true), ERR_PERM);
    close_kv(&g);
    c.dir = "/nonexistent/store";
    assert_int_equal(kv_rocksdb_open(&ro, &c, NULL), ERR_NOTFOUND);
}

static void test_rocksdb_is_opened_once(void **state)
{
    struct fixture *f = *state;
    struct kv *second;
    struct kv_rocksdb_config c = {.dir = f->dir};
    assert_int_equal(kv_rocksdb_open(&second, &c, NULL), ERR_BUSY);
}

static void test_rocksdb_checkpoint_is_a_copy(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = {.rocksdb = true};
    char cmd[128];
    put_now(f, KV_MSG, "a", "1", true);
    snprintf(copy.dir, sizeof copy.dir, "%.40s-copy", f->dir);
    assert_int_equal(f->kv->ops->checkpoint(f->kv, copy.dir, NULL), 0);
    assert_int_equal(f->kv->ops->checkpoint(f->kv, copy.dir, NULL), ERR_EXISTS);
    put_now(f, KV_MSG, "b", "1", true);
    open_kv(&copy);
    assert_value(&copy, KV_MSG, "a", "1");
    assert_value(&copy, KV_MSG, "b", NULL);
    close_kv(&copy);
    snprintf(cmd, sizeof cmd, "rm -rf %s", copy.dir);
    assert_int_equal(system(cmd), 0);
}

static void test_rocksdb_says_what_holds_up_writes(void **state)
{
    struct fixture *f = *state;
    struct kv_pressure p = {0};
    char copy[80], cmd[128];
    put_now(f, KV_MSG, "a", "1", true);
    f->kv->ops->pressure(f->kv, &p);
    assert_true(p.level0_files == 0 && p.owed_bytes == 0);
    snprintf(copy, sizeof copy, "%s-flushed", f->dir);
    assert_int_equal(f->kv->ops->checkpoint(f->kv, copy, NULL), 0); /* writes a table */
    f->kv->ops->pressure(f->kv, &p);
    assert_true(p.level0_files == 1 && !p.stopped && p.delayed_rate == 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", copy);
    assert_int_equal(system(cmd), 0);
}

/* One flipped bit inside the log of synced writes: an error, not a shorter store that looks whole. */
static void test_rocksdb_damaged_log_is_not_served(void **state)
{
    struct fixture *f = *state;
    struct err_ctx ctx = {0};
    char cmd[600], v[200];
    memset(v, 'v', sizeof v - 1);
    v[sizeof v - 1] = 0;
    for (int i = 0; i < 300; i++) {
        char k[8];
        snprintf(k, sizeof k, "%d", i);
        put_now(f, KV_MSG, k, v, i % 50 == 0);
    }
    assert_int_equal(f->kv->ops->sync(f->kv, NULL), 0);
    snprintf(
        cmd, sizeof cmd,
        "cp -r %s %s-damaged && rm -f %s-damaged/LOCK && "
        "printf '\\001' | dd of=$(ls -S %s-damaged/*.log | head -1) bs=1 seek=30000 conv=notrunc 2>/dev/null",
        f->dir, f->dir, f->dir, f->dir);
    assert_int_equal(system(cmd), 0);
    char damaged[100];
    snprintf(damaged, sizeof damaged, "%s-damaged", f->dir);
    struct kv *kv = NULL;
    struct kv_rocksdb_config c = {.dir = damaged};
    assert_int_equal(kv_rocksdb_open(&kv, &c, &ctx), ERR_CORRUPT);
    snprintf(cmd, sizeof cmd, "rm -rf %s", damaged);
    assert_int_equal(system(cmd), 0);
}

#define BOTH(t)                                                                                              \
    cmocka_unit_test_setup_teardown(t, setup_mem, teardown),                                                 \
        cmocka_unit_test_setup_teardown(t, setup_rocksdb, teardown)
#define MEM(t)     cmocka_unit_test_setup_teardown(t, setup_mem, teardown)
#define ROCKSDB(t) cmocka_unit_test_setup_teardown(t, setup_rocksdb, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_put_get_delete),
        BOTH(test_scan_bounds_and_order),
        BOTH(test_cursors_merge_by_maximum_within_an_epoch),
        BOTH(test_agrees_with_a_plain_model),
        BOTH(test_value_larger_than_the_buffer_is_an_error),
        MEM(test_mem_crash_takes_what_was_not_synced),
        MEM(test_mem_crash_may_leave_some_of_what_was_not_synced),
        MEM(test_mem_copy_is_an_image_that_goes_its_own_way),
        MEM(test_mem_planned_failures),
        ROCKSDB(test_rocksdb_reopens_with_everything),
        ROCKSDB(test_rocksdb_reserve_refuses_before_writing),
        ROCKSDB(test_rocksdb_read_only_sees_but_never_writes),
        ROCKSDB(test_rocksdb_is_opened_once),
        ROCKSDB(test_rocksdb_checkpoint_is_a_copy),
        ROCKSDB(test_rocksdb_says_what_holds_up_writes),
        ROCKSDB(test_rocksdb_damaged_log_is_not_served),
    };
    return cmocka_run_group_tests_name("kv", tests, NULL, NULL);
}

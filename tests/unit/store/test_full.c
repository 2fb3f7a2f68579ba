/* A disk that really fills up: a small tmpfs in a mount namespace of this process. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "helper.h"

#define MIB (1ull << 20)

static bool can_mount;

struct fixture {
    struct place place;
    uint64_t reserve;
    struct store *s;
    uint64_t head;
};

static void fill(struct fixture *f, uint64_t leave)
{
    char path[128];
    struct statvfs v;
    assert_int_equal(statvfs(f->place.root, &v), 0);
    uint64_t room = v.f_bavail * v.f_frsize;
    snprintf(path, sizeof path, "%s/filler", f->place.root);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    if (room > leave)
        assert_int_equal(posix_fallocate(fd, 0, (off_t)(room - leave)), 0);
    close(fd);
}

static void free_space(struct fixture *f)
{
    shell("rm '%s/filler'", f->place.root);
}

static void open_store(struct fixture *f)
{
    struct err_ctx ctx = {0};
    struct store_config c = {.url = f->place.url,
                             .keys_dir = f->place.keys,
                             .now_us = T0,
                             .random = 1,
                             .reserve_bytes = f->reserve};
    if (store_open(&f->s, &c, &ctx) != 0)
        fail_msg("%s", ctx.text);
}

static bool setup(struct fixture *f, unsigned disk_mib, uint64_t reserve)
{
    char opt[32];
    if (!can_mount)
        return false;
    memset(f, 0, sizeof *f);
    place_make(&f->place);
    snprintf(opt, sizeof opt, "size=%um", disk_mib);
    assert_int_equal(mount("none", f->place.root, "tmpfs", 0, opt), 0);
    assert_int_equal(make_dir(f->place.keys, NULL), 0);
    f->reserve = reserve;
    open_store(f);
    return true;
}

static void teardown(struct fixture *f)
{
    store_drop(f->s);
    assert_int_equal(umount2(f->place.root, MNT_DETACH), 0);
    place_remove(&f->place); /* the keys folder below the mount */
}

/* 100 entries with bodies of 4 kB. */
static int commit(struct fixture *f, struct err_ctx *ctx)
{
    static struct entry e[100];
    static char text[100][64], body[4000];
    for (uint64_t i = 0; i < 100; i++) {
        e[i] = entry_of(store_epoch(f->s), 17, f->head + 1 + i, text[i]);
        e[i].body = body;
        e[i].body_len = sizeof body;
        for (size_t j = 0; j < sizeof body; j += 8)
            put_u64((uint8_t *)body + j, (f->head + i + j) * 0x9e3779b97f4a7c15ull);
    }
    struct store_batch b = {.entries = e, .entries_n = 100};
    int rc = store_commit(f->s, &b, ctx);
    if (rc == 0)
        f->head += 100;
    return rc;
}

static bool count(void *arg, const struct entry *e)
{
    (void)e;
    ++*(uint64_t *)arg;
    return true;
}

static void assert_all_there(struct fixture *f)
{
    uint64_t n = 0;
    struct err_ctx ctx = {0};
    if (store_scan(f->s, count, &n, &ctx) != 0)
        fail_msg("%s", ctx.text);
    assert_int_equal(n, f->head);
    assert_int_equal(store_commit_index(f->s), f->head);
}

static int commit_until_it_fails(struct fixture *f, int batches)
{
    struct err_ctx ctx = {0};
    int rc = 0;
    for (int i = 0; i < batches && rc == 0; i++)
        rc = commit(f, &ctx);
    if (rc)
        print_message("# %llu entries, then: %s\n", (unsigned long long)f->head, ctx.text);
    return rc;
}

static void reopen_and_check(struct fixture *f)
{
    struct err_ctx ctx = {0};
    if (store_close(f->s, &ctx) != 0)
        fail_msg("%s", ctx.text);
    open_store(f);
    assert_false(store_epoch_is_new(f->s));
    assert_all_there(f);
}

static void test_reserve_stops_in_time(void **state)
{
    (void)state;
    struct fixture f;
    if (!setup(&f, 64, 8 * MIB))
        skip();
    assert_int_equal(commit_until_it_fails(&f, 1000), ERR_FULL);
    assert_true(f.head > 1000);
    assert_int_equal(store_has_room(f.s), ERR_FULL);
    assert_all_there(&f);
    assert_int_equal(store_mark(f.s, NULL), 0); /* the reserve is there for the mark */
    reopen_and_check(&f);
    teardown(&f);
}

/* --- RocksDB itself runs out of space: writes that may use the reserve (KV_VITAL) take all there is --- */

struct raw {
    struct fixture f;
    struct kv *kv;
    struct kv_batch *b;
    uint64_t n; /* batches in it */
};

static void raw_open(struct raw *r)
{
    struct kv_rocksdb_config c = {.dir = r->f.place.data, .reserve_bytes = 1};
    assert_int_equal(kv_rocksdb_open(&r->kv, &c, NULL), 0);
    r->b = r->kv->ops->batch_new(r->kv);
}

static bool raw_setup(struct raw *r, unsigned disk_mib)
{
    if (!setup(&r->f, disk_mib, 1))
        return false;
    assert_int_equal(store_close(r->f.s, NULL), 0);
    raw_open(r);
    r->n = 0;
    return true;
}

static void raw_teardown(struct raw *r)
{
    r->kv->ops->batch_free(r->b);
    r->kv->ops->close(r->kv);
    r->f.s = NULL;
    teardown(&r->f);
}

/* 100 kB that do not compress. */
static int raw_write(struct raw *r, unsigned how, struct err_ctx *ctx)
{
    static uint64_t v[12800];
    uint8_t k[8];
    for (uint64_t i = 0; i < 12800; i++)
        v[i] = (r->n * 12800 + i) * 0x9e3779b97f4a7c15ull;
    put_u64(k, r->n);
    r->kv->ops->batch_reset(r->b);
    r->kv->ops->put(r->b, KV_MSG, (struct kv_bytes){k, 8}, (struct kv_bytes){v, sizeof v});
    int rc = r->kv->ops->write(r->kv, r->b, how, ctx);
    r->n += rc == 0;
    return rc;
}

static int raw_write_until_it_fails(struct raw *r, unsigned how, int batches, struct err_ctx *ctx)
{
    int rc = 0;
    for (int i = 0; i < batches && rc == 0; i++)
        rc = raw_write(r, how, ctx);
    if (rc)
        print_message("# %llu batches, then: %s\n", (unsigned long long)r->n, ctx->text);
    return rc;
}

static bool raw_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    uint64_t *next = arg, first;
    memcpy(&first, val.p, 8);
    assert_true(get_u64(key.p) == *next && first == *next * 12800 * 0x9e3779b97f4a7c15ull);
    ++*next;
    return true;
}

static void raw_assert_all_there(struct raw *r)
{
    uint64_t next = 0;
    struct kv_bytes all = {0};
    assert_int_equal(r->kv->ops->scan(r->kv, KV_MSG, all, all, false, raw_row, &next, NULL), 0);
    assert_int_equal(next, r->n);
}

static void test_full_in_a_write_is_settled(void **state)
{
    (void)state;
    struct raw r;
    struct err_ctx ctx = {0};
    if (!raw_setup(&r, 64))
        skip();
    for (int round = 0; round < 4; round++) {
        assert_int_equal(raw_write_until_it_fails(&r, KV_SYNC, 10, &ctx), 0);
        fill(&r.f, 3 * MIB);
        assert_int_equal(raw_write_until_it_fails(&r, KV_SYNC | KV_VITAL, 400, &ctx), ERR_FULL);
        raw_assert_all_there(&r); /* nothing of the failed one, and readable while full */
        assert_int_equal(raw_write(&r, KV_SYNC, &ctx), ERR_FULL);
        free_space(&r.f);
        assert_int_equal(raw_write_until_it_fails(&r, KV_SYNC, 10, &ctx), 0);
        raw_assert_all_there(&r);
    }
    raw_teardown(&r);
}

static void test_full_in_a_flush_is_healed(void **state)
{
    (void)state;
    struct raw r;
    struct err_ctx ctx = {0};
    if (!raw_setup(&r, 400))
        skip();
    fill(&r.f, 100 * MIB); /* the log of 64 MiB fits, the table made from it does not */
    int rc = raw_write_until_it_fails(&r, KV_SYNC | KV_VITAL, 2000, &ctx);
    if (rc == ERR_IO) { /* the log itself hit the end, and there was no room to find out what it holds */
        assert_int_equal(raw_write(&r, KV_SYNC, &ctx), ERR_IO);
        free_space(&r.f);
        r.kv->ops->batch_free(r.b);
        r.kv->ops->close(r.kv);
        raw_open(&r);
        uint64_t next = 0;
        struct kv_bytes all = {0};
        assert_int_equal(r.kv->ops->scan(r.kv, KV_MSG, all, all, false, raw_row, &next, NULL), 0);
        assert_in_range(next, r.n, r.n + 1);
        r.n = next;
    } else {
        assert_int_equal(rc, ERR_FULL);
        raw_assert_all_there(&r);
        free_space(&r.f);
    }
    assert_int_equal(raw_write_until_it_fails(&r, KV_SYNC, 500, &ctx), 0);
    raw_assert_all_there(&r);
    raw_teardown(&r);
}

int main(void)
{
    can_mount = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve_stops_in_time),
        cmocka_unit_test(test_full_in_a_write_is_settled),
        cmocka_unit_test(test_full_in_a_flush_is_healed),
    };
    return cmocka_run_group_tests_name("full", tests, NULL, NULL);
}

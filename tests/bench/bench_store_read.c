/* How fast the store is read: 1,000,000 messages of 200 B in 1000 chats, closed and opened again, so that
 * most of it comes from tables (through the page cache). The budget of the scan is chat-reconcile's: 1 M
 * rows/s on one core. Usage: bench_store_read [ROWS] */
#include "tests/bench/bare_rocksdb.h"

static uint64_t seen;

static bool count(void *arg, const struct entry *e)
{
    (void)arg;
    seen += e->body_len == BODY;
    return true;
}

static void on_head(void *arg, const struct chat_head *h)
{
    (void)arg;
    seen += h->seq > 0;
}

static struct store *open_it(const char *url)
{
    struct err_ctx ctx = {0};
    struct store *s;
    struct store_config c = {.url = url, .now_us = clock_wall_us(), .random = 7};
    if (store_open(&s, &c, &ctx) != 0)
        die(ctx.text);
    return s;
}

static double rate(uint64_t n, uint64_t start)
{
    return (double)n * 1e9 / (double)(clock_mono_ns() - start);
}

static void scans(struct store *s, uint64_t rows)
{
    uint64_t t = clock_mono_ns();
    struct store_load load = {.head = on_head};
    seen = 0;
    if (store_load(s, &load, NULL) != 0 || seen != CHATS)
        die("store_load");
    printf("%-28s %10.1f ms\n", "store_load, 1000 chats", (double)(clock_mono_ns() - t) / 1e6);
    seen = 0;
    t = clock_mono_ns();
    if (store_scan_chats(s, count, NULL, NULL) != 0 || seen != rows)
        die("store_scan_chats");
    double r = rate(rows, t);
    printf("BENCH store_scan_chats %.0f rows/s budget 1000000 %s\n", r, r >= 1e6 ? "ok" : "MISSED");
    seen = 0;
    t = clock_mono_ns();
    if (store_scan(s, count, NULL, NULL) != 0 || seen != rows)
        die("store_scan");
    printf("BENCH store_scan %.0f rows/s\n", rate(rows, t));
}

static void lookups(struct store *s, const struct side *side)
{
    struct rng r;
    struct dedup d;
    uint64_t t = clock_mono_ns(), seq;
    rng_seed(&r, 3);
    seen = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t chat = 1 + rng_below(&r, CHATS), after = rng_below(&r, side->seq[chat - 1]);
        if (store_read(s, chat, after, UINT64_MAX, 50, 1 << 20, count, NULL, NULL) != 0)
            die("store_read");
    }
    printf("BENCH store_read_50 %.0f reads/s\n", rate(20000, t));
    t = clock_mono_ns();
    for (int i = 0; i < 20000; i++)
        if (store_seq_since(s, 1 + rng_below(&r, CHATS), rng_u64(&r) >> 12, &seq, NULL) != 0)
            die("store_seq_since");
    printf("BENCH store_seq_since %.0f searches/s\n", rate(20000, t));
    t = clock_mono_ns();
    for (int i = 0; i < 200000; i++) {
        struct id id = id_new(clock_wall_us() / 1000, &r);
        if (store_dedup(s, 1 + rng_below(&r, 10000), &id, &d, NULL) != ERR_NOTFOUND)
            die("store_dedup");
    }
    printf("BENCH store_dedup_fresh %.0f lookups/s\n", rate(200000, t));
}

int main(int argc, char **argv)
{
    static struct side side;
    char dir[] = "./bench-store-XXXXXX", url[64], cmd[64];
    uint64_t rows = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000) / STORE_BATCH_MAX * STORE_BATCH_MAX;
    struct rng r;
    if (!mkdtemp(dir))
        die("mkdtemp failed");
    snprintf(url, sizeof url, "rocksdb:%s", dir);
    make_bodies();
    rng_seed(&r, 1);
    struct store *s = open_it(url);
    for (uint64_t n = 0; n < rows; n += STORE_BATCH_MAX) {
        struct store_batch b = {.entries = entries, .entries_n = STORE_BATCH_MAX};
        make_batch(&side, &r, STORE_BATCH_MAX, clock_wall_us() / 1000);
        if (store_commit(s, &b, NULL) != 0)
            die("store_commit");
    }
    if (store_close(s, NULL) != 0)
        die("store_close");
    uint64_t t = clock_mono_ns();
    s = open_it(url);
    printf("%-28s %10.1f ms\n", "store_open", (double)(clock_mono_ns() - t) / 1e6);
    scans(s, rows);
    lookups(s, &side);
    printf("%-28s %10.1f B\n", "disk a message", (double)store_disk_bytes(s) / (double)rows);
    store_close(s, NULL);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd) != 0;
}

/* store_commit against a bare RocksDB batch writer in one run: same engine options, same three rows an entry,
 * same batch size, one fsync a batch. The bare writer puts bytes that were laid out beforehand. Rounds
 * alternate, so that a slow minute of the machine hits both. Usage: bench_store_commit [SECONDS per cell,
 * default 4] */
#include "tests/bench/bare_rocksdb.h"

#define ROUNDS 8

static void round_of(struct store *s, struct bare *b, struct side *side, struct rng *r, size_t batch,
                     uint64_t ns)
{
    uint64_t spent = 0;
    while (spent < ns) {
        struct store_batch sb = {.entries = entries, .entries_n = batch};
        make_batch(side, r, batch, clock_wall_us() / 1000);
        if (b)
            lay_out(side, batch);
        uint64_t start = clock_mono_ns();
        if (b)
            bare_commit(b, batch);
        else if (store_commit(s, &sb, NULL) != 0)
            die("store_commit failed");
        spent += clock_mono_ns() - start;
        side->rows += batch;
    }
    side->ns += spent;
}

static double measure(const char *dir, size_t batch, uint64_t ns)
{
    static struct side ours, peer;
    char path[2][600], url[620], cmd[1300];
    struct err_ctx ctx = {0};
    struct store *s;
    struct bare b;
    struct rng r;
    snprintf(path[0], sizeof path[0], "%s/ours-%zu", dir, batch);
    snprintf(path[1], sizeof path[1], "%s/peer-%zu", dir, batch);
    snprintf(url, sizeof url, "rocksdb:%s", path[0]);
    struct store_config c = {.url = url, .now_us = clock_wall_us(), .random = 7};
    if (store_open(&s, &c, &ctx) != 0)
        die(ctx.text);
    bare_open(&b, path[1]);
    memset(&ours, 0, sizeof ours);
    memset(&peer, 0, sizeof peer);
    rng_seed(&r, batch);
    for (int i = 0; i < ROUNDS; i++) {
        round_of(s, NULL, &ours, &r, batch, ns / ROUNDS);
        round_of(NULL, &b, &peer, &r, batch, ns / ROUNDS);
    }
    bare_close(&b);
    store_close(s, NULL);
    double o = (double)ours.rows * 1e9 / (double)ours.ns, p = (double)peer.rows * 1e9 / (double)peer.ns;
    printf("%5zu  %12.0f  %12.0f  %5.2f\n", batch, o, p, o / p);
    snprintf(cmd, sizeof cmd, "rm -rf '%s' '%s'", path[0], path[1]);
    if (system(cmd) != 0)
        die("rm failed");
    return o / p;
}

int main(int argc, char **argv)
{
    char dir[] = "./bench-store-XXXXXX";
    uint64_t ns = (argc > 1 ? strtoull(argv[1], NULL, 10) : 4) * NS_PER_S;
    if (!mkdtemp(dir))
        die("mkdtemp failed");
    make_bodies();
    printf("%d B bodies, 3 rows an entry, fsync per batch; entries/s\n", BODY);
    printf("batch  store_commit  bare RocksDB  ratio\n");
    double a = measure(dir, 256, ns), b = measure(dir, 2000, ns);
    printf("BENCH store_commit_256 %.2f x ratio %.2f budget 0.80 %s\n", a, a, a >= 0.8 ? "ok" : "MISSED");
    printf("BENCH store_commit_2000 %.2f x ratio %.2f budget 0.80 %s\n", b, b, b >= 0.8 ? "ok" : "MISSED");
    return rmdir(dir) != 0;
}

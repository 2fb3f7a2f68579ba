/* chat-reconcile check: rows a second of one core, and memory, over binary files, JSONL and a store, with 0,
 * 10 and 1 % differences of each class planted; all must be found, and no others. Beside it, on the same
 * rows, `sort | join` and an anti-join of SQLite.
 *
 *     bench_reconcile [ROWS [STORE_ROWS]]        everything, in a folder of its own
 *     bench_reconcile in DIR STEP ROWS [EACH]    one step; what it makes stays in DIR.
 *
 * Steps: make-a-bin, make-b-bin, make-a-jsonl, make-b-jsonl, make-store, bin, jsonl, shuffle-jsonl,
 * jsonl-unsorted, store (with b.bin), sort-join, sqlite. The budget's size is 100000000 rows: 8 GB a binary
 * side, 14 GB a JSONL side, 6 GB a store.
 */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/reconcile.h"
#include "shard/shard.h"
#include "store/rocksdb/options_impl.h"
#include "store/store_impl.h"
#include "util/clock.h"
#include "util/map.h"

#define CHATS  1000u
#define FIELDS 31u

static char dir[1024] = "/var/tmp/bench-reconcile-XXXXXX", tool[4096];

static void die(const char *what)
{
    fprintf(stderr, "bench_reconcile: %s\n", what);
    exit(1);
}

static uint64_t chats[CHATS]; /* in the order of the store */

static int by_shard(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    if (shard_of_chat(x) != shard_of_chat(y))
        return shard_of_chat(x) < shard_of_chat(y) ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Even seqs are taken; odd ones are free for what is planted. */
static struct reconcile_row row(uint64_t i, uint64_t rows)
{
    uint64_t each = rows / CHATS, h = hash_bytes(&i, sizeof i, 1);
    struct reconcile_row r = {.chat = chats[i / each],
                              .place = shard_of_chat(chats[i / each]),
                              .seq = 2 + 2 * (i % each),
                              .epoch = 5,
                              .from = 1 + h % 5000,
                              .ts_us = i,
                              .has = FIELDS};
    memcpy(r.id.b, &h, 8);
    memcpy(r.id.b + 8, &i, 8);
    h = hash_bytes(&h, sizeof h, 2);
    memcpy(r.hash, &h, 8);
    return r;
}

struct out {
    struct reconcile_bin *bin;
    FILE *jsonl;
    struct buf line;
};

static void put(struct out *o, const struct reconcile_row *r)
{
    if (o->bin && reconcile_bin_add(o->bin, r, NULL))
        die("write");
    if (!o->jsonl)
        return;
    buf_reset(&o->line);
    reconcile_jsonl_write(&o->line, r);
    buf_char(&o->line, '\n');
    fwrite(o->line.data, o->line.len, 1, o->jsonl);
}

/* `each` differences of five classes, spread evenly. */
static void generate(const char *name, uint64_t rows, uint64_t each, bool jsonl)
{
    char path[1200];
    struct out o = {.line = BUF_INIT(4096)};
    uint64_t step = each ? rows / (each * 5) : 0, planted = 0;
    snprintf(path, sizeof path, "%s/%s.%s", dir, name, jsonl ? "jsonl" : "bin");
    if (jsonl ? !(o.jsonl = fopen(path, "we")) : reconcile_bin_new(&o.bin, path, FIELDS, NULL))
        die(path);
    for (uint64_t i = 0; i < rows; i++) {
        struct reconcile_row r = row(i, rows), x = r;
        if (!step || i % step || planted == each * 5) {
            put(&o, &r);
            continue;
        }
        x.seq++;
        switch (planted++ % 5) {
        case 0: /* lost */
            break;
        case 1: /* diverged */
            r.hash[15] ^= 1;
            put(&o, &r);
            break;
        case 2: /* duplicate */
            put(&o, &r);
            put(&o, &x);
            break;
        case 3: /* reordered */
            put(&o, &x);
            break;
        default: /* phantom */
            put(&o, &r);
            x.id.b[0] ^= 0xff;
            x.id.b[15] ^= 0xff;
            put(&o, &x);
        }
    }
    if (o.bin ? reconcile_bin_close(o.bin, NULL) : fclose(o.jsonl))
        die("write");
    buf_release(&o.line);
}

struct ran {
    int status;
    double wall_s, cpu_s;
    uint64_t rss_bytes;
    char out[8192];
};

static void run(struct ran *r, char *const argv[])
{
    int fd[2];
    struct rusage u;
    uint64_t began = clock_mono_ns();
    if (pipe(fd))
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fd[1]);
    size_t n = 0;
    ssize_t k;
    while ((k = read(fd[0], r->out + n, sizeof r->out - 1 - n)) > 0)
        n += (size_t)k;
    r->out[n] = 0;
    close(fd[0]);
    wait4(pid, &r->status, 0, &u);
    r->wall_s = (double)(clock_mono_ns() - began) / 1e9;
    r->cpu_s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    r->rss_bytes = (uint64_t)u.ru_maxrss * 1024;
}

static uint64_t number(const char *json, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = strstr(json, name);
    return p ? strtoull(p + strlen(name), NULL, 10) : UINT64_MAX;
}

static void check(const char *what, const char *a, const char *b, uint64_t each, bool sorted, double budget)
{
    static const char *const classes[] = {"lost", "diverged", "duplicate", "reordered", "phantom"};
    struct ran r;
    char *argv[] = {tool, "check", "--json", (char *)a, (char *)b, sorted ? "--sorted" : NULL, NULL};
    run(&r, argv);
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (number(r.out, classes[i]) != each) {
            fprintf(stderr, "%s: %s %" PRIu64 ", planted %" PRIu64 "\n%s\n", what, classes[i],
                    number(r.out, classes[i]), each, r.out);
            exit(1);
        }
    double rate =
        (double)number(r.out, "rows") / r.cpu_s; /* of the rows; a second pass is part of the cost */
    printf("BENCH reconcile %s, %" PRIu64 " of each class: %.0f rows/s a core, %.1f s, %" PRIu64 " MiB", what,
           each, rate, r.wall_s, r.rss_bytes >> 20);
    if (budget > 0)
        printf(" budget %.0f and 256 MiB %s", budget,
               rate >= budget && r.rss_bytes <= 256u << 20 ? "ok" : "MISSED");
    putchar('\n');
    fflush(stdout);
}

/* The rows of the msg family alone, by RocksDB itself and without its log: check reads no other family. */
static void fill_store(uint64_t rows)
{
    char path[1100], url[1200], body[200], *err = NULL;
    struct store *s;
    struct rocksdb_tuning t;
    struct buf val = BUF_INIT(4096);
    rocksdb_column_family_handle_t *family[ROCKSDB_FAMILIES];
    snprintf(path, sizeof path, "%s/store", dir);
    snprintf(url, sizeof url, "rocksdb:%s", path);
    if (store_open(&s, &(struct store_config){.url = url, .now_us = 1, .random = 7}, NULL))
        die("store");
    store_close(s, NULL);
    memset(body, 'x', sizeof body);
    rocksdb_tuning_init(&t, false);
    rocksdb_t *db = rocksdb_open_column_families(t.db, path, ROCKSDB_FAMILIES, t.names,
                                                 (const rocksdb_options_t *const *)t.family, family, &err);
    rocksdb_writeoptions_t *how = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(how, 1);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (uint64_t i = 0; i < rows && !err;) {
        rocksdb_writebatch_clear(batch);
        for (int n = 0; n < 1000 && i < rows; n++, i++) {
            struct reconcile_row r = row(i, rows);
            struct row_key key;
            struct entry e = {.chat = r.chat,
                              .epoch = r.epoch,
                              .seq = r.seq,
                              .sender = r.from,
                              .ts_us = r.ts_us,
                              .id = r.id,
                              .kind = "text",
                              .kind_len = 4,
                              .body = body,
                              .body_len = sizeof body};
            memcpy(e.content, r.hash, sizeof r.hash);
            key_msg(&key, e.chat, e.seq);
            buf_reset(&val);
            row_msg(&val, &key, &e);
            rocksdb_writebatch_put_cf(batch, family[KV_MSG], (char *)key.b, key.n, val.data, val.len);
        }
        rocksdb_write(db, how, batch, &err);
    }
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(flush, 1);
    if (!err)
        rocksdb_flush_cf(db, flush, family[KV_MSG], &err);
    if (err)
        die(err);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_writebatch_destroy(batch);
    rocksdb_writeoptions_destroy(how);
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        rocksdb_column_family_handle_destroy(family[f]);
    rocksdb_close(db);
    rocksdb_tuning_release(&t);
    buf_release(&val);
}

static void peer(const char *what, const char *command, uint64_t rows, uint64_t differ)
{
    struct ran r;
    char full[2048];
    snprintf(full, sizeof full, "cd %s && %s", dir, command);
    char *argv[] = {"sh", "-c", full, NULL};
    run(&r, argv);
    printf("BENCH peer %s: %.0f rows/s a core, %.1f s, says %.20s", what, (double)rows / r.cpu_s, r.wall_s,
           r.status ? "nothing: it failed\n" : r.out);
    fflush(stdout);
    if (strtoull(r.out, NULL, 10) != differ)
        die("the peer counts otherwise");
}

static void peer_join(uint64_t rows, uint64_t each)
{
    peer("sort | join (lost, phantom by id)",
         "cut -d'\"' -f 14 a.jsonl | LC_ALL=C sort >a.ids; cut -d'\"' -f 14 b.jsonl | LC_ALL=C sort >b.ids; "
         "LC_ALL=C join -v 1 -v 2 a.ids b.ids | wc -l; rm a.ids b.ids",
         2 * rows, 2 * each);
}

static void peer_sqlite(uint64_t rows, uint64_t each)
{
    peer("SQLite anti-join (lost, phantom by id)",
         "cut -d'\"' -f 14 a.jsonl >a.raw; cut -d'\"' -f 14 b.jsonl >b.raw; "
         "sqlite3 t.db 'pragma journal_mode=off' 'pragma synchronous=off' 'create table a(id)' 'create table "
         "b(id)' "
         "'.import a.raw a' '.import b.raw b' 'create index ai on a(id)' 'create index bi on b(id)' "
         "'select (select count(*) from a where not exists (select 1 from b where b.id=a.id)) + (select "
         "count(*) from b where "
         "not exists (select 1 from a where a.id=b.id))' | tail -1; rm t.db a.raw b.raw",
         2 * rows, 2 * each);
}

/* What is in order already is not sorted: JSONL that must be, is taken in a random order. */
static void shuffle(void)
{
    char command[2048];
    snprintf(
        command, sizeof command,
        "cd %s && for s in a b; do shuf $s.jsonl -o $s.shuffled && mv $s.shuffled $s.jsonl || exit; done",
        dir);
    if (system(command))
        die("shuf");
}

static const char *source(char *out, size_t n, const char *type, const char *name)
{
    snprintf(out, n, "%s:%s/%s", type, dir, name);
    return out;
}

static void step(const char *name, uint64_t rows, uint64_t each)
{
    char a[1100], b[1100];
    if (!strncmp(name, "make-a-", 7) || !strncmp(name, "make-b-", 7))
        generate(name[5] == 'a' ? "a" : "b", rows, each, !strcmp(name + 7, "jsonl"));
    else if (!strcmp(name, "make-store"))
        fill_store(rows);
    else if (!strcmp(name, "bin"))
        check("sorted binary", source(a, sizeof a, "bin", "a.bin"), source(b, sizeof b, "bin", "b.bin"), each,
              true, 3e6);
    else if (!strncmp(name, "jsonl", 5))
        check(name[5] ? "JSONL, sorting it too" : "JSONL", source(a, sizeof a, "jsonl", "a.jsonl"),
              source(b, sizeof b, "jsonl", "b.jsonl"), each, !name[5], name[5] ? 0 : 1e6);
    else if (!strcmp(name, "store"))
        check("store and binary", source(a, sizeof a, "store:rocksdb", "store"),
              source(b, sizeof b, "bin", "b.bin"), each, false, 1e6);
    else if (!strcmp(name, "shuffle-jsonl"))
        shuffle();
    else if (!strcmp(name, "sort-join"))
        peer_join(rows, each);
    else if (!strcmp(name, "sqlite"))
        peer_sqlite(rows, each);
    else
        die("unknown step");
}

static void everything(uint64_t rows, uint64_t in_store)
{
    uint64_t each[] = {0, 10, rows / 100};
    char command[1100];
    step("make-a-bin", rows, 0);
    for (size_t i = 0; i < 3; i++) {
        step("make-b-bin", rows, each[i]);
        step("bin", rows, each[i]);
    }
    step("make-a-jsonl", rows, 0);
    for (size_t i = 0; i < 3; i++) {
        step("make-b-jsonl", rows, each[i]);
        step("jsonl", rows, each[i]);
    }
    step("shuffle-jsonl", rows, each[2]);
    step("jsonl-unsorted", rows, each[2]);
    step("sort-join", rows, each[2]);
    step("sqlite", rows, each[2]);
    step("make-store", in_store, 0);
    each[2] = in_store / 100;
    for (size_t i = 0; i < 3; i++) {
        step("make-b-bin", in_store, each[i]);
        step("store", in_store, each[i]);
    }
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command))
        die(dir);
}

static uint64_t rows_of(int argc, char **argv, int i, uint64_t otherwise)
{
    uint64_t n = argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
    if (n < CHATS)
        die("usage: bench_reconcile [ROWS [STORE_ROWS]] | in DIR STEP ROWS [EACH]");
    return n - n % CHATS;
}

int main(int argc, char **argv)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        die("/proc/self/exe");
    self[n] = 0;
    for (uint64_t i = 0; i < CHATS; i++)
        chats[i] = i + 1;
    qsort(chats, CHATS, sizeof *chats, by_shard);
    snprintf(tool, sizeof tool, "%.4000s/../../chat-reconcile", dirname(self));
    if (argc > 3 && !strcmp(argv[1], "in")) {
        snprintf(dir, sizeof dir, "%s", argv[2]);
        step(argv[3], rows_of(argc, argv, 4, 0), argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
        return 0;
    }
    if (!mkdtemp(dir))
        die(dir);
    everything(rows_of(argc, argv, 1, 2000000), rows_of(argc, argv, 2, 3000000));
    return 0;
}

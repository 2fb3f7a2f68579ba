/* chat-reconcile check: rows a second of one core, and memory, over binary files, JSONL and a store, with 0,
 * 10 and 1 % differences of each class planted; all must be found, and no others. Clients' journals as a
 * third source say what was promised, shown, or sent only. Beside it, on the same rows, `sort | join` and an
 * anti-join of SQLite.
 *
 *     bench_reconcile [ROWS [STORE_ROWS]]        everything, in a folder of its own
 *     bench_reconcile in DIR STEP ROWS [EACH]    one step; what it makes stays in DIR.
 *
 * Steps: make-a-bin, make-b-bin, make-a-jsonl, make-b-jsonl, make-store, make-journal, bin, jsonl,
 * shuffle-jsonl, jsonl-unsorted, store (with b.bin), store-zombie (what a.bin knows deleted), sort-join,
 * sqlite; bin, jsonl and store with "-journal" behind: with what journals say, too. The budget's size is
 * 100000000 rows: 8 GB a binary side, 14 GB a JSONL side, 6 GB a store.
 */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* What is planted, `each` times each. */
enum plant {
    PLANT_LOST,
    PLANT_DIVERGED,
    PLANT_DUPLICATE,
    PLANT_REORDERED,
    PLANT_PHANTOM,
    PLANT_ZOMBIE,   /* deleted in a; a store has no tombstones, and is only told of them */
    PLANT_PROMISED, /* lost as well, and a journal holds the server's promise */
    PLANT_KINDS
};

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

/* Every how many rows something is planted. */
static uint64_t spacing(uint64_t rows, uint64_t each)
{
    return each ? rows / (each * PLANT_KINDS) : 0;
}

/* An id that no row has. */
static void another_id(struct reconcile_row *r)
{
    r->id.b[0] ^= 0xff;
    r->id.b[15] ^= 0xff;
}

static void put_planted(struct out *o, struct reconcile_row r, enum plant what)
{
    struct reconcile_row x = r;
    x.seq++;
    switch (what) {
    case PLANT_LOST:
    case PLANT_PROMISED:
        return;
    case PLANT_DIVERGED:
        r.hash[15] ^= 1;
        break;
    case PLANT_DUPLICATE:
        put(o, &r);
        r = x;
        break;
    case PLANT_REORDERED:
        r = x;
        break;
    case PLANT_PHANTOM:
        put(o, &r);
        another_id(&x);
        r = x;
        break;
    default: /* a zombie is as it was */
        break;
    }
    put(o, &r);
}

/* Side a: as things should be. Side b: with `each` differences of each class, spread evenly. */
static void generate(char side, uint64_t rows, uint64_t each, bool jsonl)
{
    char path[1200];
    struct out o = {.line = BUF_INIT(4096)};
    uint64_t step = spacing(rows, each), planted = 0;
    snprintf(path, sizeof path, "%s/%c.%s", dir, side, jsonl ? "jsonl" : "bin");
    if (jsonl ? !(o.jsonl = fopen(path, "we")) : reconcile_bin_new(&o.bin, path, FIELDS, NULL))
        die(path);
    for (uint64_t i = 0; i < rows; i++) {
        struct reconcile_row r = row(i, rows);
        bool here = step && i % step == 0 && planted < each * PLANT_KINDS;
        enum plant what = here ? (enum plant)(planted++ % PLANT_KINDS) : PLANT_KINDS;
        if (side == 'a' && what == PLANT_ZOMBIE)
            r.flags = RECONCILE_DELETED;
        if (side == 'b' && here)
            put_planted(&o, r, what);
        else
            put(&o, &r);
    }
    if (o.bin ? reconcile_bin_close(o.bin, NULL) : fclose(o.jsonl))
        die("write");
    buf_release(&o.line);
}

static void journal_row(FILE *f, const char *op, const struct reconcile_row *r)
{
    char id[ID_TEXT + 1], hash[BASE64_LEN(16) + 1] = "";
    bool surfaced = !strcmp(op, "surfaced");
    fprintf(f, "{\"op\":\"%s\",\"user\":\"%" PRIu64 "\",\"device\":1,\"chat\":\"%" PRIu64 "\",\"id\":\"%s\"",
            op, surfaced ? r->from + 1 : r->from, r->chat, id_str(&r->id, id));
    if (!strcmp(op, "sent")) {
        base64url_encode(hash, r->hash, sizeof r->hash);
        fprintf(f, ",\"ts_us\":%" PRIu64 ",\"intent\":1,\"kind\":\"text\",\"hash\":\"%s\"}\n", r->ts_us,
                hash);
        return;
    }
    fprintf(f, ",\"epoch\":\"%" PRIu64 "\",\"seq\":%" PRIu64, r->epoch, r->seq);
    if (surfaced)
        fprintf(f, ",\"from\":\"%" PRIu64 "\"", r->from);
    fputs("}\n", f);
}

/* The journals know what was promised and lost, what was shown and no log has, what was sent and never
 * accepted; and of as many messages that all is well. */
static void generate_journal(uint64_t rows, uint64_t each)
{
    char path[1200];
    uint64_t step = spacing(rows, each);
    FILE *f;
    snprintf(path, sizeof path, "%s/journal", dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/journal/phones.jsonl", dir);
    if (!(f = fopen(path, "we")))
        die(path);
    for (uint64_t n = 0; n < each * PLANT_KINDS; n++) {
        struct reconcile_row r = row(n * step, rows), x = r;
        x.seq++;
        x.id.b[15] ^= 0xff;
        switch (n % PLANT_KINDS) {
        case PLANT_PROMISED:
            journal_row(f, "sent", &r);
            journal_row(f, "accepted", &r);
            break;
        case PLANT_LOST:
            journal_row(f, "surfaced", &x);
            break;
        case PLANT_DIVERGED:
            journal_row(f, "sent", &x);
            break;
        case PLANT_PHANTOM: /* the true row beside it */
            journal_row(f, "sent", &r);
            journal_row(f, "accepted", &r);
            break;
        default:
            break;
        }
    }
    if (fclose(f))
        die("write");
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

/* What must be found, as the key of the result and how often each of it. */
struct expected {
    const char *key;
    unsigned times;
};

static void compare_counts(const char *what, const struct ran *r, const struct expected *e, uint64_t each)
{
    for (; e->key; e++)
        if (number(r->out, e->key) != e->times * each) {
            fprintf(stderr, "%s: %s %" PRIu64 ", planted %" PRIu64 "\n%s\n", what, e->key,
                    number(r->out, e->key), e->times * each, r->out);
            exit(1);
        }
}

enum {
    SORTED = 1,
    TOMBSTONES = 2, /* a has them, so zombies can be told */
    JOURNAL = 4,
    ZOMBIES = 8 /* and nothing else */
};

static void check(const char *what, const char *a, const char *b, uint64_t each, int how, double budget)
{
    bool all = !(how & ZOMBIES);
    unsigned j = how & JOURNAL ? 1 : 0;
    /* what only journals know is missing from both logs */
    struct expected e[] = {{"lost", 2 * all},
                           {"diverged", all},
                           {"duplicate", all},
                           {"reordered", all},
                           {"phantom", all},
                           {"zombie", how & TOMBSTONES ? 1 : 0},
                           {"accepted_lost", j},
                           {"unconfirmed", 2 * j},
                           {"never_accepted", 2 * j},
                           {"skipped", 0},
                           {NULL, 0}};
    char journal[1100];
    struct ran r;
    snprintf(journal, sizeof journal, "journal:%s/journal", dir);
    char *argv[] = {tool, "check", "--json", (char *)a, (char *)b, NULL, NULL, NULL};
    int n = 5;
    if (how & JOURNAL)
        argv[n++] = journal;
    if (how & SORTED)
        argv[n] = "--sorted";
    run(&r, argv);
    compare_counts(what, &r, e, each);
    double rate =
        (double)number(r.out, "rows") / r.cpu_s; /* of the rows; a second pass is part of the cost */
    printf("BENCH reconcile %s%s, %" PRIu64 " of each class: %.0f rows/s a core, %.1f s, %" PRIu64 " MiB",
           what, how & JOURNAL ? " and journals" : "", each, rate, r.wall_s, r.rss_bytes >> 20);
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
         2 * rows, 3 * each);
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
         2 * rows, 3 * each);
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

static void step_check(const char *name, uint64_t each)
{
    char a[1100], b[1100];
    int how = strstr(name, "-journal") ? JOURNAL : 0;
    source(a, sizeof a, "bin", "a.bin");
    source(b, sizeof b, "bin", "b.bin");
    if (!strncmp(name, "bin", 3))
        check("sorted binary", a, b, each, how | SORTED | TOMBSTONES, 3e6);
    else if (!strcmp(name, "store-zombie"))
        check("binary and store, zombies", a, source(b, sizeof b, "store:rocksdb", "store"), each,
              ZOMBIES | TOMBSTONES, 1e6);
    else if (!strncmp(name, "store", 5))
        check("store and binary", source(a, sizeof a, "store:rocksdb", "store"), b, each, how, 1e6);
    else if (!strncmp(name, "jsonl", 5)) {
        bool sorted = !strstr(name, "-unsorted");
        check(sorted ? "JSONL" : "JSONL, sorting it too", source(a, sizeof a, "jsonl", "a.jsonl"),
              source(b, sizeof b, "jsonl", "b.jsonl"), each, how | TOMBSTONES | (sorted ? SORTED : 0),
              sorted ? 1e6 : 0);
    } else
        die("unknown step");
}

static void step(const char *name, uint64_t rows, uint64_t each)
{
    if (!strncmp(name, "make-a-", 7) || !strncmp(name, "make-b-", 7))
        generate(name[5], rows, each, !strcmp(name + 7, "jsonl"));
    else if (!strcmp(name, "make-store"))
        fill_store(rows);
    else if (!strcmp(name, "make-journal"))
        generate_journal(rows, each);
    else if (!strcmp(name, "shuffle-jsonl"))
        shuffle();
    else if (!strcmp(name, "sort-join"))
        peer_join(rows, each);
    else if (!strcmp(name, "sqlite"))
        peer_sqlite(rows, each);
    else
        step_check(name, each);
}

/* What check is given in all its forms, with so many differences; `kind` is bin or jsonl. */
static void both_sides(const char *kind, uint64_t rows, uint64_t each)
{
    char name[32];
    for (char side = 'a'; side <= 'b'; side++) {
        snprintf(name, sizeof name, "make-%c-%s", side, kind);
        step(name, rows, each);
    }
    step(kind, rows, each);
    if (!each)
        return;
    step("make-journal", rows, each);
    snprintf(name, sizeof name, "%s-journal", kind);
    step(name, rows, each);
}

static void everything(uint64_t rows, uint64_t in_store)
{
    uint64_t each[] = {0, 10, rows / 100};
    char command[1100];
    for (size_t i = 0; i < 3; i++)
        both_sides("bin", rows, each[i]);
    for (size_t i = 0; i < 3; i++)
        both_sides("jsonl", rows, each[i]);
    step("shuffle-jsonl", rows, each[2]);
    step("jsonl-unsorted", rows, each[2]);
    step("sort-join", rows, each[2]);
    step("sqlite", rows, each[2]);
    step("make-store", in_store, 0);
    each[2] = in_store / 100;
    for (size_t i = 0; i < 3; i++) {
        both_sides("bin", in_store, each[i]);
        step("store", in_store, each[i]);
        step("store-zombie", in_store, each[i]);
        if (each[i])
            step("store-journal", in_store, each[i]);
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

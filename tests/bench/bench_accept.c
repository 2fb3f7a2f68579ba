/* accepted-after-fsync: messages a second through node + store in one process (frames in, `accepted` out,
 * group commit with fsync on a thread of its own) against a bare RocksDB batch writer of the same rows and
 * batch size, in one run; and what tracing costs. Through sockets it is another figure: chat-loadgen says
 * that one. */
#include <pthread.h>
#include <sys/stat.h>

#include "node/node.h"
#include "run/store_threads.h"
#include "tests/bench/bare_rocksdb.h"

#define USERS    256
#define SECONDS  3
#define ROUNDS   5
#define SLICES   21
#define SLICE_NS (NS_PER_S / 2)

struct bench {
    struct node *node;
    struct store_threads *threads;
    pthread_mutex_t lock;
    pthread_cond_t bell;
    bool rung;
    uint64_t conns[USERS];
    uint64_t accepted, asked, window;
    struct rng rng;
};

static void ring(void *arg)
{
    struct bench *b = arg;
    pthread_mutex_lock(&b->lock);
    b->rung = true;
    pthread_cond_signal(&b->bell);
    pthread_mutex_unlock(&b->lock);
}

static void emit(void *arg, const struct effect *e)
{
    struct bench *b = arg;
    if (e->kind == EFFECT_COMMIT)
        store_threads_commit(b->threads, e->commit);
    else if (e->kind == EFFECT_READ)
        store_threads_read(b->threads, e->read);
    else if (e->kind == EFFECT_SEND && e->frame->what == FRAME_ACCEPTED)
        b->accepted++;
}

static void step(struct bench *b, struct node_event e)
{
    e.now = clock_now();
    uint64_t conn = node_step(b->node, &e);
    if (e.kind == NODE_OPEN)
        b->conns[(size_t)e.link - 1] = conn;
}

/* Keep `window` messages in flight, so that batches of about that size form. */
static void feed(struct bench *b)
{
    static char frame[BODY + 200];
    char id[ID_TEXT + 1];
    while (b->asked - b->accepted < b->window) {
        size_t u = b->asked++ % USERS;
        struct id fresh = id_new(clock_wall_us() / 1000, &b->rng);
        int n =
            snprintf(frame, sizeof frame,
                     "{\"t\":\"send\",\"id\":\"%s\",\"chat\":\"%zu\",\"kind\":\"text\",\"body\":\"%.*s\"}",
                     id_str(&fresh, id), u + 1, BODY, bodies[rng_below(&b->rng, SLOTS)]);
        step(b,
             (struct node_event){.kind = NODE_FRAME, .conn = b->conns[u], .data = frame, .len = (size_t)n});
    }
}

static void collect(struct bench *b)
{
    struct commit_job *c;
    struct read_job *r;
    while ((r = store_threads_read_done(b->threads)))
        step(b, (struct node_event){.kind = NODE_READ_DONE, .read = r});
    while ((c = store_threads_committed(b->threads)))
        step(b, (struct node_event){.kind = NODE_COMMITTED, .commit = c});
}

static void wait_bell(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->rung)
        pthread_cond_wait(&b->bell, &b->lock);
    b->rung = false;
    pthread_mutex_unlock(&b->lock);
}

static void log_in(struct bench *b, const struct keys *keys)
{
    for (size_t u = 0; u < USERS; u++) {
        struct token t = {.user = u + 1,
                          .issued_s = clock_wall_us() / 1000000,
                          .expires_s = clock_wall_us() / 1000000 + 9999};
        struct buf text = BUF_INIT(8192), token = BUF_INIT(4096);
        token_mint(keys, &t, &token);
        step(b, (struct node_event){.kind = NODE_OPEN, .link = (void *)(u + 1)});
        buf_printf(&text,
                   "[{\"t\":\"hello\",\"token\":\"%s\",\"device\":1,\"resume\":[]},{\"t\":\"create\","
                   "\"chat\":\"%zu\"}]",
                   buf_cstr(&token), u + 1);
        step(b, (struct node_event){
                    .kind = NODE_FRAME, .conn = b->conns[u], .data = text.data, .len = text.len});
        buf_release(&text);
        buf_release(&token);
    }
    while (!node_idle(b->node)) {
        wait_bell(b);
        collect(b);
    }
}

struct side_of_node {
    struct bench b;
    struct keys keys;
    struct store *store;
    struct trace *trace;
};

static void node_start(struct side_of_node *s, const char *dir, uint64_t window, bool traced)
{
    char url[256], keys_dir[256], trace_dir[256];
    snprintf(url, sizeof url, "rocksdb:%s/store", dir);
    snprintf(keys_dir, sizeof keys_dir, "%s/keys", dir);
    snprintf(trace_dir, sizeof trace_dir, "%s/trace", dir);
    *s = (struct side_of_node){
        .b = {.window = window, .lock = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER}};
    struct err_ctx err = {0};
    struct trace_writer *writer = NULL;
    struct bench *b = &s->b;
    rng_seed(&b->rng, 3);
    struct store_config sc = {.url = url, .keys_dir = keys_dir, .now_us = clock_wall_us(), .random = 5};
    struct trace_config tc = {.dir = trace_dir, .name = "bench", .node = TRACE_NODE_SERVER};
    if (mkdir(dir, 0700) || keys_open(&s->keys, keys_dir, true, &err) || store_open(&s->store, &sc, &err) ||
        (traced && (trace_open(&s->trace, &tc, &err) || trace_writer_new(&writer, s->trace, &err))))
        die(err.text);
    struct node_config nc = {.features = DELIVERY_RELIABLE,
                             .limits = node_limits_default(),
                             .beat_s = 10,
                             .keys = &s->keys,
                             .seed = 1,
                             .epoch = store_epoch(s->store),
                             .trace = writer,
                             .emit = emit,
                             .arg = b};
    nc.limits.rate_per_s = 0;
    nc.limits.sending_per_conn = 1u << 20;
    if (node_new(&b->node, &nc, &err) || node_load(b->node, s->store, &err) ||
        store_threads_start(&b->threads, s->store, ring, b, &err))
        die(err.text);
    log_in(b, &s->keys);
}

/* Messages accepted a second over so many ns; everything asked for is answered before it returns. */
static double node_run(struct bench *b, uint64_t ns)
{
    uint64_t began = clock_mono_ns(), before = b->accepted;
    while (clock_mono_ns() < began + ns) {
        feed(b);
        wait_bell(b);
        collect(b);
    }
    double rate = (double)(b->accepted - before) / ((double)(clock_mono_ns() - began) / 1e9);
    while (b->accepted < b->asked) {
        wait_bell(b);
        collect(b);
    }
    return rate;
}

/* *batch: the mean size of the batches that formed. */
static void node_stop(struct side_of_node *s, size_t *batch)
{
    struct node_stats st;
    node_stats(s->b.node, &st);
    *batch = (size_t)(st.counters.entries / st.counters.commits);
    store_threads_stop(s->b.threads);
    node_free(s->b.node);
    store_close(s->store, NULL);
    trace_close(s->trace);
}

static void clean(const char *dir)
{
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf %s/*", dir);
    if (system(cmd))
        exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return v[n / 2];
}

static double bare_rate(const char *dir, size_t batch)
{
    static struct side side;
    struct bare b;
    struct rng r;
    char path[300];
    snprintf(path, sizeof path, "%s/bare", dir);
    memset(&side, 0, sizeof side);
    rng_seed(&r, 9);
    bare_open(&b, path);
    while (side.ns < SECONDS * NS_PER_S) {
        make_batch(&side, &r, batch, clock_wall_us() / 1000);
        uint64_t start = clock_mono_ns(); /* only what the engine needs is timed */
        lay_out(&side, batch);
        bare_commit(&b, batch);
        side.ns += clock_mono_ns() - start;
        side.rows += batch;
    }
    bare_close(&b);
    return (double)side.rows * 1e9 / (double)side.ns;
}

static double node_rate(const char *dir, uint64_t window, size_t *batch)
{
    static struct side_of_node s;
    char path[300];
    snprintf(path, sizeof path, "%s/node", dir);
    node_start(&s, path, window, false);
    double rate = node_run(&s.b, SECONDS * NS_PER_S);
    node_stop(&s, batch);
    return rate;
}

/* What tracing leaves of the rate: two nodes side by side take short turns, so that a noisy machine and a
 * disk that slows down hit both; the median over the pairs. */
static double tracing_ratio(const char *dir, uint64_t window)
{
    static struct side_of_node s[2];
    double ratio[SLICES];
    size_t batch;
    for (int traced = 0; traced < 2; traced++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", dir, traced ? "traced" : "plain");
        node_start(&s[traced], path, window, traced);
        node_run(&s[traced].b, SLICE_NS);
    }
    for (int i = 0; i < SLICES; i++) {
        double rate[2];
        for (int turn = 0; turn < 2; turn++) {
            int traced = (turn + i) % 2;
            rate[traced] = node_run(&s[traced].b, SLICE_NS);
        }
        ratio[i] = rate[1] / rate[0];
    }
    for (int traced = 0; traced < 2; traced++)
        node_stop(&s[traced], &batch);
    return median(ratio, SLICES);
}

static void measure(const char *dir, uint64_t size)
{
    double bare[ROUNDS], node[ROUNDS];
    size_t batch = size;
    for (int k = 0; k < ROUNDS; k++) {
        clean(dir);
        node[k] = node_rate(dir, 2 * size, &batch);
        clean(dir);
        bare[k] = bare_rate(dir, batch < STORE_BATCH_MAX ? batch : STORE_BATCH_MAX);
    }
    clean(dir);
    double b = median(bare, ROUNDS), n = median(node, ROUNDS), t = tracing_ratio(dir, 2 * size);
    printf("%8zu %14.0f %14.0f %8.2f %9.1f%%\n", batch, b, n, n / b, t * 100);
    printf("BENCH accept_batch_%llu %.0f msg/s ratio %.2f budget 0.80 %s\n", (unsigned long long)size, n,
           n / b, n / b >= 0.8 ? "ok" : "MISSED");
    printf("BENCH tracing_batch_%llu ratio %.3f budget 0.97 %s\n", (unsigned long long)size, t,
           t >= 0.97 ? "ok" : "MISSED");
}

int main(void)
{
    char dir[] = "reports/out/bench-accept-XXXXXX", cmd[300];
    if (system("mkdir -p reports/out") || !mkdtemp(dir))
        die("cannot make a folder");
    make_bodies();
    printf(
        "accepted after fsync, %d B bodies: medians of %d runs of %d s taken in turn; tracing: median of %d "
        "pairs of turns\n",
        BODY, ROUNDS, SECONDS, SLICES);
    printf("%8s %14s %14s %8s %10s\n", "batch", "bare msg/s", "node msg/s", "ratio", "tracing");
    measure(dir, 256);
    measure(dir, 2000);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) != 0;
}

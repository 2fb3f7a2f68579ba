/* main() of every fuzz target (int LLVMFuzzerTestOneInput(const uint8_t *, size_t)):
 *
 *   fuzz_X --replay    every file of tests/fuzz/corpus/X/, then mutations of them for FUZZ_SECONDS (default
 * 2); the sequence of inputs is always the same (FUZZ_SEED changes it), only its length depends on time
 *   fuzz_X FILE...     just these inputs
 *
 * Speaks TAP. An input that kills the target, or keeps it busy for 10 s, is written to $TMPDIR/fuzz_X.crash.
 * Each input lies in memory of its exact size, so that a sanitizer sees every read behind its end. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/rng.h"

#define INPUT_BYTES_MAX (64 << 10)
#define CORPUS_MAX      4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct input {
    uint8_t *p;
    size_t n;
};

static struct input corpus[CORPUS_MAX];
static size_t corpus_n;
static struct input current; /* what the target is reading, for the post-mortem */
static char crash_path[512];

static void save_current(void)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    ssize_t done = write(fd, current.p, current.n);
    close(fd);
    const char *text =
        done == (ssize_t)current.n ? "not ok - this input ends the target: " : "not ok - input lost: ";
    if (write(STDOUT_FILENO, text, strlen(text)) < 0 ||
        write(STDOUT_FILENO, crash_path, strlen(crash_path)) < 0 || write(STDOUT_FILENO, "\n", 1) < 0)
        return;
}

static void on_death(int sig)
{
    save_current();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* In time of the processor: a stopped or starved process is not busy. */
static void busy_at_most(int seconds)
{
    setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = seconds}, NULL);
}

static void run(const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        abort();
    memcpy(exact, p, n);
    current = (struct input){exact, n};
    busy_at_most(10);
    LLVMFuzzerTestOneInput(exact, n);
    busy_at_most(0);
    current = (struct input){0};
    free(exact);
}

static int load(const char *path, struct input *in)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) {
        if (f)
            fclose(f);
        return -1;
    }
    in->p = malloc((size_t)st.st_size + 1);
    in->n = in->p ? fread(in->p, 1, (size_t)st.st_size, f) : 0;
    fclose(f);
    return in->p ? 0 : -1;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_corpus(const char *name)
{
    char folder[256], path[600];
    struct dirent **list = NULL;
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name);
    int n = scandir(folder, &list, NULL, by_name); /* sorted: the same sequence everywhere */
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (corpus_n < CORPUS_MAX && load(path, &corpus[corpus_n]) == 0)
            corpus_n++;
        free(list[i]);
    }
    free(list);
}

static void insert(struct input *in, size_t at, const uint8_t *from, size_t n)
{
    if (in->n + n > INPUT_BYTES_MAX)
        return;
    memmove(in->p + at + n, in->p + at, in->n - at);
    memcpy(in->p + at, from, n);
    in->n += n;
}

static void mutate(struct input *in, struct rng *r)
{
    static const uint8_t edges[] = {0,   1,   0x7f, 0x80, 0xff, '"', '\\', '{', '}',
                                    '[', ']', ',',  ':',  '0',  '9', '-',  '\n'};
    uint8_t chunk[64];
    size_t at = rng_below(r, in->n + 1), left = in->n - at, n = rng_below(r, left + 1);
    const struct input *other = corpus_n ? &corpus[rng_below(r, corpus_n)] : in;
    switch (rng_below(r, 8)) {
    case 0:
        if (left)
            in->p[at] ^= (uint8_t)(1u << rng_below(r, 8));
        break;
    case 1:
        if (left)
            in->p[at] = edges[rng_below(r, sizeof edges)];
        break;
    case 2:
        chunk[0] = edges[rng_below(r, sizeof edges)];
        insert(in, at, chunk, 1);
        break;
    case 3: /* drop a part */
        n = n > 16 && rng_below(r, 4) ? 1 + n % 16 : n;
        memmove(in->p + at, in->p + at + n, left - n);
        in->n -= n;
        break;
    case 4: /* say a part twice */
        n = n > sizeof chunk ? sizeof chunk : n;
        memcpy(chunk, in->p + at, n);
        insert(in, at, chunk, n);
        break;
    case 5: /* a part of another one */
        n = rng_below(r, other->n + 1);
        n = n > sizeof chunk ? sizeof chunk : n;
        if (n)
            memcpy(chunk, other->p + rng_below(r, other->n - n + 1), n);
        insert(in, at, chunk, n);
        break;
    case 6:
        if (left)
            in->p[at] = (uint8_t)(in->p[at] + (rng_below(r, 2) ? 1 : -1));
        break;
    default:
        if (rng_below(r, 4) == 0)
            in->n = at;
    }
}

static uint64_t mutations(uint64_t seed, uint64_t seconds)
{
    static uint8_t room[INPUT_BYTES_MAX];
    struct rng r;
    uint64_t count = 0, end = clock_mono_ns() + seconds * NS_PER_S;
    rng_seed(&r, seed);
    for (; (count & 15) || clock_mono_ns() < end; count++) {
        struct input in = {room, 0};
        if (corpus_n) {
            const struct input *from = &corpus[rng_below(&r, corpus_n)];
            in.n = from->n > INPUT_BYTES_MAX ? INPUT_BYTES_MAX : from->n;
            memcpy(in.p, from->p, in.n);
        }
        for (uint64_t k = 1 + rng_below(&r, 6); k; k--)
            mutate(&in, &r);
        run(in.p, in.n);
    }
    return count;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s && *s ? strtoull(s, NULL, 10) : otherwise;
}

static int replay(const char *name)
{
    uint64_t seed = from_env("FUZZ_SEED", 1), seconds = from_env("FUZZ_SECONDS", 2);
    load_corpus(name);
    printf("1..2\n");
    for (size_t i = 0; i < corpus_n; i++)
        run(corpus[i].p, corpus[i].n);
    printf("%sok 1 - %zu inputs of tests/fuzz/corpus/%s\n", corpus_n ? "" : "not ", corpus_n, name);
    fflush(stdout);
    uint64_t count = mutations(seed, seconds);
    printf("ok 2 - %llu mutations, seed %llu\n", (unsigned long long)count, (unsigned long long)seed);
    for (size_t i = 0; i < corpus_n; i++)
        free(corpus[i].p);
    return corpus_n ? 0 : 1;
}

static int run_files(int n, char **paths)
{
    int bad = 0;
    for (int i = 0; i < n; i++) {
        struct input in = {0};
        if (load(paths[i], &in)) {
            printf("not ok %d - cannot read %s\n", i + 1, paths[i]);
            bad = 1;
            continue;
        }
        run(in.p, in.n);
        printf("ok %d - %s\n", i + 1, paths[i]);
        free(in.p);
    }
    return bad;
}

int main(int argc, char **argv)
{
    static const int deadly[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGPROF};
    const char *tmp = getenv("TMPDIR"), *base = strrchr(argv[0], '/');
    base = base ? base + 1 : argv[0];
    snprintf(crash_path, sizeof crash_path, "%s/%s.crash", tmp ? tmp : "/tmp", base);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(save_current);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
        if (!__sanitizer_set_death_callback || deadly[i] == SIGPROF || deadly[i] == SIGABRT)
            signal(deadly[i], on_death);
    }
    if (argc == 2 && strcmp(argv[1], "--replay") == 0)
        return replay(strncmp(base, "fuzz_", 5) == 0 ? base + 5 : base);
    if (argc > 1 && argv[1][0] != '-')
        return run_files(argc - 1, argv + 1);
    fprintf(stderr, "usage: %s --replay | FILE...\n", base);
    return 64;
}

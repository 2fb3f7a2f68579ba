/* chat-trace pcap against tshark on one generated capture, both writing id, seq and payload to a file; and
 * the most memory that it ever had, at this size and at another (BENCH_PCAP_LONG, through a pipe).
 *
 *     bench_pcap                     the benchmark
 *     bench_pcap generate BYTES      a capture on standard output, its truth on standard error
 *
 * BENCH_PCAP_BYTES (default 256 MiB) is the size of the file, BENCH_PCAP_TSHARK (default 32 MiB) what tshark
 * gets: its rate falls as the file grows, so a short file flatters it. */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/pcap_gen.h"
#include "util/clock.h"

static bool to_fd(void *arg, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t k = write(*(int *)arg, at, n);
        if (k <= 0)
            return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static struct gen_truth generate(int fd, uint64_t bytes)
{
    struct gen g = {.c = {.flows = 200,
                          .again_ppm = 30000,
                          .swap_ppm = 10000,
                          .split_ppm = 50000,
                          .body_min = 20,
                          .body_max = 300,
                          .seed = 42},
                    .sink = to_fd,
                    .arg = &fd};
    if (!gen_run(&g, bytes)) {
        fputs("bench_pcap: the capture could not be written\n", stderr);
        exit(1);
    }
    return g.truth;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s && *s ? strtoull(s, NULL, 10) : otherwise;
}

struct ran {
    double seconds;
    long rss_kib;
    int status;
};

/* in_fd: its standard input, or -1. */
static struct ran run(char *const *argv, const char *out, int in_fd)
{
    struct ran r = {0};
    uint64_t start = clock_mono_ns();
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_RDWR);
        dup2(fd, 1);
        dup2(null, 2);
        if (in_fd >= 0)
            dup2(in_fd, 0);
        execvp(argv[0], argv);
        _exit(127);
    }
    struct rusage u;
    wait4(pid, &r.status, 0, &u);
    r.seconds = (double)(clock_mono_ns() - start) / 1e9;
    r.rss_kib = u.ru_maxrss;
    return r;
}

/* Lines of -T tsv --payload: the last column is the text, whose backslashes are doubled. */
static void check(const char *path, const struct gen_truth *t)
{
    static char line[1 << 20];
    uint64_t messages = 0, sum = 0;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        char *p = strrchr(line, '\t'), *o;
        size_t n = 0;
        for (o = ++p; *p && *p != '\n'; p++) {
            if (*p == '\\')
                p++;
            o[n++] = *p;
        }
        messages++;
        sum += gen_hash(o, n);
    }
    if (f)
        fclose(f);
    printf("%s of %llu messages (found %llu)\n", messages == t->messages && sum == t->sum ? "all" : "NOT ALL",
           (unsigned long long)t->messages, (unsigned long long)messages);
    printf("BENCH pcap messages found %llu of %llu, none invented: %s\n", (unsigned long long)messages,
           (unsigned long long)t->messages, messages == t->messages && sum == t->sum ? "ok" : "MISSED");
}

static void memory(const char *tool, const char *out, uint64_t bytes)
{
    char *argv[] = {(char *)tool, "pcap", "-q", "-r", "-", "-T", "tsv", "--payload", NULL};
    int p[2];
    if (pipe(p))
        return;
    pid_t pid = fork();
    if (pid == 0) {
        close(p[0]);
        generate(p[1], bytes);
        _exit(0);
    }
    close(p[1]);
    struct ran r = run(argv, out, p[0]);
    close(p[0]);
    waitpid(pid, NULL, 0);
    printf("BENCH pcap resident %.1f MiB at %.1f GiB (budget 128): %s\n", (double)r.rss_kib / 1024,
           (double)bytes / (1u << 30), r.status == 0 && r.rss_kib <= 128 << 10 ? "ok" : "MISSED");
}

int main(int argc, char **argv)
{
    const char *build = getenv("B"), *tmp = getenv("TMPDIR");
    char tool[512], dir[512], file[600], small[600], out[600];
    uint64_t bytes = from_env("BENCH_PCAP_BYTES", 256u << 20),
             part = from_env("BENCH_PCAP_TSHARK", 32u << 20);
    if (argc == 3 && !strcmp(argv[1], "generate")) {
        struct gen_truth t = generate(1, strtoull(argv[2], NULL, 10));
        fprintf(stderr, "messages %llu sum %llu packets %llu retransmitted %llu out_of_order %llu\n",
                (unsigned long long)t.messages, (unsigned long long)t.sum, (unsigned long long)t.packets,
                (unsigned long long)t.again, (unsigned long long)t.swapped);
        return 0;
    }
    snprintf(tool, sizeof tool, "%s/chat-trace", build ? build : "build");
    snprintf(dir, sizeof dir, "%s/bench-pcap-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    snprintf(file, sizeof file, "%s/all.pcap", dir);
    snprintf(small, sizeof small, "%s/part.pcap", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    int fd = open(file, O_WRONLY | O_CREAT, 0600);
    struct gen_truth t = generate(fd, bytes);
    close(fd);
    printf("%.0f MiB, %llu packets, %llu messages, %.1f %% retransmitted, %.1f %% out of order\n",
           (double)t.bytes / (1 << 20), (unsigned long long)t.packets, (unsigned long long)t.messages,
           100.0 * (double)t.again / (double)t.messages, 100.0 * (double)t.swapped / (double)t.messages);
    char *ours[] = {tool, "pcap", "-q", "-r", file, "-T", "tsv", "--payload", NULL};
    char *ours_json[] = {tool, "pcap", "-q", "-r", file, "-T", "jsonl", "--payload", NULL};
    struct ran r = run(ours, out, -1), again = run(ours, out, -1);
    r = again.seconds < r.seconds ? again : r;
    check(out, &t);
    double rate = (double)t.bytes / 1e6 / r.seconds;
    struct ran j = run(ours_json, out, -1);
    printf("chat-trace: %.0f MB/s as columns, %.0f MB/s as JSON lines, status %d\n", rate,
           (double)t.bytes / 1e6 / j.seconds, r.status);
    printf("BENCH pcap resident %.1f MiB at %.2f GiB (budget 128): %s\n", (double)r.rss_kib / 1024,
           (double)bytes / (1u << 30), r.rss_kib <= 128 << 10 ? "ok" : "MISSED");
    fd = open(small, O_WRONLY | O_CREAT, 0600);
    struct gen_truth s = generate(fd, part);
    close(fd);
    char *theirs[] = {"tshark", "-n",        "-r", small,    "-o", "tcp.reassemble_out_of_order:TRUE",
                      "-Y",     "websocket", "-T", "fields", "-e", "websocket.payload.text",
                      NULL};
    struct ran w = run(theirs, out, -1);
    if (WIFEXITED(w.status) && WEXITSTATUS(w.status) == 0) {
        double other = (double)s.bytes / 1e6 / w.seconds;
        printf("tshark: %.1f MB/s on %.0f MiB, %ld MiB resident\n", other, (double)part / (1 << 20),
               w.rss_kib >> 10);
        printf("BENCH pcap rate %.0f MB/s, tshark %.1f MB/s, ratio %.0f (budget 50): %s\n", rate, other,
               rate / other, rate / other >= 50 ? "ok" : "MISSED");
    } else {
        puts("tshark is not there: no ratio");
    }
    if (from_env("BENCH_PCAP_LONG", 0))
        memory(tool, out, from_env("BENCH_PCAP_LONG", 0));
    unlink(file);
    unlink(small);
    unlink(out);
    rmdir(dir);
    return 0;
}

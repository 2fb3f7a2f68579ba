/* One group of 1,000 members on real sockets: how soon has each of them a message, and what does one delivery
 * cost the server? chatd-server beside mosquitto (MQTT QoS 1), npm ws, nats-server and Redis pub/sub, all by
 * the same generator (one thread, epoll) on the same cores in one run. Latency counts from the time at which
 * a message was meant to be sent. A peer that is not installed is said and skipped.
 *
 *     bench_fanout [--peers chatd,nats] [--rates 25,50,100,250] [--seconds 5] [--members 1000] [--body 200]
 *                  [--server PROGRAM] [--server-args "..."] [--ws DIR (of node_modules)] [--json FILE]
                  [--ack-ms N (a fixed wait instead of our clients' rule)] [--place apart|free (instead of
 what suits)]
 */
#include <getopt.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "core/client.h"
#include "tests/bench/fanout_peers.h"
#include "util/hist.h"

#define RATES_MAX 16
#define WARM_NS   NS_PER_S /* of each step, not counted */
#define DRAIN_NS  (10 * NS_PER_S)
#define READ_MAX  (256 * 1024)

#define ACK_SLOTS 4096 /* milliseconds; more than the longest wait */

static uint64_t ack_fixed_ns; /* 0: as lib/core/client does */
static struct member *ack_slots[ACK_SLOTS];
static uint64_t ack_ms; /* the slots up to here are done */

struct options {
    const char *peers, *json;
    int rates[RATES_MAX], rates_n, seconds;
};

/* One rate against one peer. */
struct step {
    int rate;
    uint64_t sent, expected, delivered, reads;
    double cpu_s, generator_s, others_s, seconds; /* others: any other process of the machine */
    long rss_kb;
    struct hist lag; /* us, intended to really sent */
};

static struct hist latency;           /* us */
static uint64_t now_ns, counted_from; /* messages with a lower number are warm-up */
static uint64_t delivered, delivered_all, disorder;

static uint64_t hex(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 4 | (uint64_t)(p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
    return v;
}

static void got(struct bench *b, struct member *m, const char *body)
{
    uint64_t intended = hex(body + 2, 16), number = hex(body + 18, 8);
    (void)b;
    disorder += number != m->next;
    m->next = (uint32_t)number + 1;
    delivered_all++;
    if (number < counted_from)
        return;
    delivered++;
    hist_add(&latency, now_ns > intended ? (now_ns - intended) / 1000 : 0);
}

/* ---- sockets ---- */

static int ep;

static void want(struct member *m, bool out)
{
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = m};
    if (out == m->waits_out)
        return;
    m->waits_out = out;
    epoll_ctl(ep, EPOLL_CTL_MOD, m->fd, &e);
}

static void flush(struct member *m)
{
    if (!m->out.len)
        return;
    ssize_t r = send(m->fd, m->out.data, m->out.len, MSG_NOSIGNAL);
    if (r < 0 && errno != EAGAIN)
        die("send");
    if (r == (ssize_t)m->out.len)
        buf_reset(&m->out);
    else if (r > 0)
        buf_consume(&m->out, (size_t)r);
    want(m, m->out.len > 0);
}

/* The wait before an acknowledgement, by the rule of lib/core/client: doubled while messages keep coming. */
static uint64_t ack_wait(const struct bench *b, const struct member *m)
{
    uint64_t wait = ack_fixed_ns ? ack_fixed_ns : CLIENT_ACK_NS << m->doublings;
    return wait + wait * (uint64_t)m->number / (uint64_t)(b->members + 1);
}

static void ack_later(struct bench *b, struct member *m)
{
    if (!b->peer->ack || m->ack_due)
        return;
    if (now_ns - m->acked_ns > ack_wait(b, m))
        m->doublings = 0;
    else if (m->doublings < CLIENT_ACK_DOUBLINGS)
        m->doublings++;
    uint64_t slot = (now_ns + ack_wait(b, m)) / NS_PER_MS % ACK_SLOTS;
    m->ack_due = true;
    m->ack_next = ack_slots[slot];
    ack_slots[slot] = m;
}

static void receive(struct bench *b, struct member *m)
{
    static char data[READ_MAX];
    size_t had = m->rest.len;
    if (had)
        memcpy(data, m->rest.data, had);
    ssize_t r = recv(m->fd, data + had, sizeof data - had, 0);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r <= 0)
        die("recv: the server is gone");
    now_ns = clock_mono_ns();
    uint64_t before = delivered_all;
    size_t n = had + (size_t)r, used = b->peer->take(b, m, data, n);
    buf_reset(&m->rest);
    if (used < n)
        buf_add(&m->rest, data + used, n - used);
    if (delivered_all != before)
        ack_later(b, m);
    flush(m);
}

static int dial(int port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 10};
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* ---- the server ---- */

/* The generator keeps to the last core, a server that works in one thread to the others, for all its threads:
 * else it is the scheduler's dice whether the two share a core, and that decides more than any server does
 * (half the CPU a delivery, three times the latency). A server of many threads may use all. */
static void pin(bool generator, bool apart)
{
    cpu_set_t cpus;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    CPU_ZERO(&cpus);
    for (long i = generator ? n - 1 : 0; i < n; i++)
        if (generator || !apart || i < n - 1 || n == 1)
            CPU_SET((size_t)i, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
}

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, n) || getsockname(fd, (struct sockaddr *)&a, &n))
        die("bind");
    close(fd);
    return ntohs(a.sin_port);
}

static bool start(struct bench *b)
{
    char port[16];
    b->port = free_port();
    snprintf(port, sizeof port, "%d", b->port);
    b->pid = fork();
    if (!b->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(false, b->place ? !strcmp(b->place, "apart") : !b->peer->threads);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        if (!getenv("BENCH_TALK"))
            dup2(null, 2);
        b->peer->exec(b, port);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        int fd = dial(b->port);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        if (waitpid(b->pid, NULL, WNOHANG) == b->pid)
            return false;
        usleep(10000);
    }
    return false;
}

static void stop(struct bench *b)
{
    kill(b->pid, SIGKILL);
    waitpid(b->pid, NULL, 0);
    for (int i = 0; i <= b->members; i++) {
        close(b->all[i].fd);
        buf_release(&b->all[i].rest);
        buf_release(&b->all[i].out);
    }
    free(b->all);
    close(ep);
}

static double cpu_of(pid_t pid)
{
    char path[64], text[1024];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fgets(text, sizeof text, f))
        sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    if (f)
        fclose(f);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double cpu_own(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Of all cores, by anybody; what a hypervisor took away counts too. */
static double cpu_all(void)
{
    unsigned long user = 0, nice = 0, kernel = 0, irq = 0, softirq = 0, steal = 0;
    FILE *f = fopen("/proc/stat", "r");
    if (f &&
        fscanf(f, "cpu %lu %lu %lu %*u %*u %lu %lu %lu", &user, &nice, &kernel, &irq, &softirq, &steal) != 6)
        user = 0;
    if (f)
        fclose(f);
    return (double)(user + nice + kernel + irq + softirq + steal) / (double)sysconf(_SC_CLK_TCK);
}

static long resident_kb(pid_t pid)
{
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

static void log_in(struct bench *b)
{
    ep = epoll_create1(EPOLL_CLOEXEC);
    b->all = calloc((size_t)b->members + 1, sizeof *b->all);
    memset(ack_slots, 0, sizeof ack_slots);
    ack_ms = clock_mono_ns() / NS_PER_MS;
    for (int i = 0; i <= b->members; i++) {
        struct member *m = &b->all[i];
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = m};
        *m = (struct member){.fd = dial(b->port), .number = i};
        buf_init(&m->rest, READ_MAX);
        buf_init(&m->out, 16 << 20);
        if (m->fd < 0)
            die("connect");
        b->peer->login(b, m);
        fcntl(m->fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(ep, EPOLL_CTL_ADD, m->fd, &e);
    }
}

/* ---- a step ---- */

struct pace {
    uint64_t began_ns, gap_ns, due, total; /* due: messages sent so far */
    uint64_t first;                        /* number of the first */
    struct hist *lag;
};

static void send_due(struct bench *b, struct pace *p)
{
    char body[BODY_MAX];
    uint64_t now = clock_mono_ns();
    while (p->due < p->total && p->began_ns + p->due * p->gap_ns <= now) {
        uint64_t intended = p->began_ns + p->due * p->gap_ns;
        memset(body, 'x', (size_t)b->body);
        int n = snprintf(body, sizeof body, "@@%016llx%08x", (unsigned long long)intended,
                         (unsigned)(p->first + p->due));
        body[n] = 'x';
        hist_add(p->lag, (now - intended) / 1000);
        b->peer->publish(b, &b->all[0], body, (size_t)b->body);
        flush(&b->all[0]);
        p->due++;
    }
}

static void send_acks(struct bench *b)
{
    uint64_t now = clock_mono_ns();
    for (; ack_ms < now / NS_PER_MS; ack_ms++)
        for (struct member **slot = &ack_slots[ack_ms % ACK_SLOTS]; *slot;) {
            struct member *m = *slot;
            *slot = m->ack_next;
            m->ack_due = false;
            m->acked_ns = now;
            b->peer->ack(b, m);
            flush(m);
        }
}

static void turn(struct bench *b, struct pace *p, struct step *s)
{
    struct epoll_event got_events[64];
    uint64_t now = clock_mono_ns(),
             next = p->due < p->total ? p->began_ns + p->due * p->gap_ns : now + 5 * NS_PER_MS;
    int ms = next > now + NS_PER_MS ? 1 : 0; /* the last millisecond before a message is spent awake */
    int n = epoll_wait(ep, got_events, 64, ms);
    for (int i = 0; i < n; i++) {
        struct member *m = got_events[i].data.ptr;
        if (got_events[i].events & EPOLLOUT)
            flush(m);
        if (got_events[i].events & ~(unsigned)EPOLLOUT) {
            receive(b, m);
            s->reads++;
        }
        if (i % 16 == 15)
            send_due(b, p);
    }
    send_due(b, p);
    if (b->peer->ack)
        send_acks(b);
}

static void run_step(struct bench *b, struct step *s, int seconds, uint64_t *number)
{
    struct pace p = {.gap_ns = NS_PER_S / (uint64_t)s->rate, .first = *number, .lag = &s->lag};
    struct step warm = {0};
    uint64_t warm_n = WARM_NS / p.gap_ns;
    p.total = warm_n + (uint64_t)s->rate * (uint64_t)seconds;
    p.began_ns = clock_mono_ns() + NS_PER_MS;
    counted_from = *number + warm_n;
    hist_reset(&latency);
    delivered = 0;
    while (p.due < warm_n)
        turn(b, &p, &warm);
    hist_reset(&s->lag);
    double cpu = cpu_of(b->pid), own = cpu_own(), all = cpu_all();
    uint64_t began = clock_mono_ns();
    s->expected = (p.total - warm_n) * (uint64_t)b->members;
    while (p.due < p.total)
        turn(b, &p, s);
    uint64_t sent_ns = clock_mono_ns(), last = sent_ns, last_n = delivered;
    while (delivered < s->expected && clock_mono_ns() - last < DRAIN_NS / 4 &&
           clock_mono_ns() - sent_ns < DRAIN_NS) {
        turn(b, &p, s);
        if (delivered != last_n) {
            last_n = delivered;
            last = clock_mono_ns();
        }
    }
    s->seconds = (double)(clock_mono_ns() - began) * 1e-9;
    s->cpu_s = cpu_of(b->pid) - cpu;
    s->generator_s = cpu_own() - own;
    s->others_s = cpu_all() - all - s->cpu_s - s->generator_s;
    s->others_s = s->others_s > 0 ? s->others_s : 0;
    s->rss_kb = resident_kb(b->pid);
    s->sent = p.total - warm_n;
    s->delivered = delivered;
    *number += p.total;
}

/* ---- what it says ---- */

static double ms(unsigned permyriad)
{
    return (double)hist_quantile(&latency, permyriad) / 1000;
}

static void show(const struct bench *b, const struct step *s, FILE *json)
{
    double each = s->delivered ? s->cpu_s * 1e6 / (double)s->delivered : 0;
    printf(
        "%-10s %5d %10llu %8.4f%% %8.1f %8.1f %8.1f %8.1f %8.2f %6.0f%% %6.0f%% %6.0f%% %7.1f %8.1f %6ld\n",
        b->peer->name, s->rate, (unsigned long long)s->delivered,
        100.0 * (double)s->delivered / (double)s->expected, ms(5000), ms(9500), ms(9900),
        (double)latency.max / 1000, each, 100 * s->cpu_s / s->seconds, 100 * s->generator_s / s->seconds,
        100 * s->others_s / s->seconds, (double)s->delivered / (double)(s->reads ? s->reads : 1),
        (double)hist_quantile(&s->lag, 9900) / 1000, s->rss_kb / 1024);
    fflush(stdout);
    if (!json)
        return;
    fprintf(
        json,
        "{\"peer\":\"%s\",\"what\":\"%s\",\"keeps\":%s,\"members\":%d,\"rate\":%d,\"sent\":%llu,\"expected\":"
        "%llu,"
        "\"delivered\":%llu,\"disorder\":%llu,\"latency_ms\":{\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"max\":"
        "%.3f},"
        "\"cpu_us_per_delivery\":%.3f,\"server_cpu\":%.3f,\"generator_cpu\":%.3f,\"others_cpu\":%.3f,"
        "\"messages_per_read\":%.2f,"
        "\"send_lag_ms_p99\":%.3f,\"rss_mib\":%ld}\n",
        b->peer->name, b->peer->what, b->peer->keeps ? "true" : "false", b->members, s->rate,
        (unsigned long long)s->sent, (unsigned long long)s->expected, (unsigned long long)s->delivered,
        (unsigned long long)disorder, ms(5000), ms(9500), ms(9900), (double)latency.max / 1000, each,
        s->cpu_s / s->seconds, s->generator_s / s->seconds, s->others_s / s->seconds,
        (double)s->delivered / (double)(s->reads ? s->reads : 1), (double)hist_quantile(&s->lag, 9900) / 1000,
        s->rss_kb / 1024);
    fflush(json);
}

static bool installed(const char *program)
{
    char command[256];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
    return !*program || system(command) == 0;
}

static bool ws_installed(const struct bench *b)
{
    char path[512];
    snprintf(path, sizeof path, "%s/node_modules/ws/package.json", b->ws_folder);
    return access(path, R_OK) == 0;
}

static void prepare(struct bench *b)
{
    char path[512];
    struct err_ctx err = {0};
    snprintf(path, sizeof path, "rm -rf '%s' && mkdir -p '%s'", b->folder, b->folder);
    if (system(path))
        die(b->folder);
    snprintf(path, sizeof path, "%s/keys", b->folder);
    if (keys_open(&b->keys, path, true, &err))
        die(err.text);
}

static bool chosen(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n]))
            return true;
    return !list;
}

/* The budgets of a group of 1,000, messages of 200 B. */
static void judge(const struct bench *b, const struct step *s)
{
    int budget = s->rate == 100 ? 20 : s->rate == 250 ? 40 : 0;
    if (!budget || b->members != 1000 || strcmp(b->peer->name, "chatd") != 0)
        return;
    bool kept = s->delivered == s->expected && ms(9900) <= budget;
    printf("BENCH fanout_p99_at_%d %.1f ms budget %d %s\n", s->rate, ms(9900), budget,
           kept ? "ok" : "MISSED");
}

/* One rate, with a server of its own. False: it lost messages or was over 5 s late. */
static bool measure(struct bench *b, int rate, int seconds, FILE *json)
{
    static struct step s;
    uint64_t number = 0;
    prepare(b);
    if (!start(b)) {
        printf("%-10s does not start\n", b->peer->name);
        return false;
    }
    log_in(b);
    memset(&s, 0, sizeof s);
    s.rate = rate;
    disorder = 0;
    run_step(b, &s, seconds, &number);
    show(b, &s, json);
    judge(b, &s);
    stop(b);
    return s.delivered == s.expected && latency.max <= 5000000;
}

/* At each rate the peers take turns, so that what the machine does meanwhile befalls all. Who lost messages
 * or was late is not tried at higher rates. */
static void measure_all(struct bench *b, const struct options *o, FILE *json)
{
    bool out[sizeof peers / sizeof *peers] = {0};
    for (int r = 0; r < o->rates_n; r++)
        for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
            b->peer = &peers[i];
            if (out[i] || !chosen(o->peers, b->peer->name))
                continue;
            if (!installed(b->peer->needs) || (!strcmp(b->peer->name, "ws") && !ws_installed(b))) {
                printf("%-10s skipped: not installed\n", b->peer->name);
                out[i] = true;
            } else if (!measure(b, o->rates[r], o->seconds, json)) {
                out[i] = true;
            }
        }
}

static void parse(struct bench *b, struct options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"peers", 1, NULL, 'p'},       {"rates", 1, NULL, 'r'}, {"seconds", 1, NULL, 's'},
        {"members", 1, NULL, 'm'},     {"body", 1, NULL, 'b'},  {"server", 1, NULL, 'S'},
        {"server-args", 1, NULL, 'a'}, {"ws", 1, NULL, 'w'},    {"json", 1, NULL, 'j'},
        {"ack-ms", 1, NULL, 'k'},      {"place", 1, NULL, 'P'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (c) {
        case 'p':
            o->peers = optarg;
            break;
        case 'r':
            o->rates_n = 0;
            for (char *p = optarg; *p && o->rates_n < RATES_MAX; p += *p == ',')
                o->rates[o->rates_n++] = (int)strtol(p, &p, 10);
            break;
        case 's':
            o->seconds = atoi(optarg);
            break;
        case 'm':
            b->members = atoi(optarg);
            break;
        case 'b':
            b->body = atoi(optarg);
            break;
        case 'S':
            b->server = optarg;
            break;
        case 'a':
            b->server_args = optarg;
            break;
        case 'w':
            b->ws_folder = optarg;
            break;
        case 'j':
            o->json = optarg;
            break;
        case 'P':
            b->place = optarg;
            break;
        case 'k':
            ack_fixed_ns = (uint64_t)atoi(optarg) * NS_PER_MS;
            break;
        default:
            exit(64);
        }
}

int main(int argc, char **argv)
{
    static struct bench b = {
        .members = 1000, .body = 200, .server_args = "", .ws_folder = "reports/out/peers"};
    static char server[512], folder[512];
    struct options o = {.rates = {100, 250}, .rates_n = 2, .seconds = 5};
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    snprintf(server, sizeof server, "%s/chatd-server", getenv("B") ? getenv("B") : "build");
    snprintf(folder, sizeof folder, "reports/out/bench-fanout-%d", (int)getpid());
    b.server = server;
    b.folder = folder;
    parse(&b, &o, argc, argv);
    pin(true, false);
    if (b.members < 1 || b.members >= (int)PROTO_USERS_MAX || b.body < STAMP || b.body > BODY_MAX ||
        o.seconds < 1 || ack_fixed_ns > NS_PER_S)
        die("1 to 1023 members, bodies of 26 to 4096 bytes, --ack-ms up to 1000");
    rng_seed(&b.rng, clock_wall_us());
    b.scratch = (struct proto_scratch){.data = malloc(PROTO_SCRATCH), .cap = PROTO_SCRATCH};
    FILE *json = o.json ? fopen(o.json, "w") : NULL;
    printf("%d members, %d B, %d s a step; latency in ms from the intended send time\n", b.members, b.body,
           o.seconds);
    printf("%-10s %5s %10s %9s %8s %8s %8s %8s %8s %7s %7s %7s %7s %8s %6s\n", "peer", "msg/s", "delivered",
           "", "p50", "p95", "p99", "max", "us/each", "server", "gener.", "others", "per read", "lag p99",
           "MiB");
    measure_all(&b, &o, json);
    if (json)
        fclose(json);
    char rm[600];
    snprintf(rm, sizeof rm, "rm -rf '%s'", folder);
    return system(rm) != 0;
}

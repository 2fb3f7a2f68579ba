/* What a million users cost in Redis (INFO memory of a real redis-server), and how fast their states are
 * written and asked for, through the driver that the server uses. Budget: 10 bytes a user. */
#include <ev.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "presence/redis/redis.h"
#include "util/clock.h"

#define BUDGET 10.0
#define PORT   "16399"

static struct {
    struct ev_loop *loop;
    bool up;
    uint64_t answered, wrong, answers;
} b;

static void news(void *arg, const struct shared_news *n)
{
    (void)arg;
    if (n->kind == SHARED_UP) {
        b.up = true;
        ev_break(b.loop, EVBREAK_ALL);
    } else if (n->kind == SHARED_STATES) {
        b.answered += n->n;
        b.answers++;
        for (uint32_t i = 0; i < n->n; i++)
            b.wrong += n->states[i].state != (i % 8 ? PRESENCE_ONLINE : PRESENCE_OFFLINE);
        ev_break(b.loop, EVBREAK_ALL);
    }
}

/* Sequential ids, as a database gives them, or random ones. */
static uint64_t user(uint32_t i, bool random)
{
    return random ? (i + 1) * 0x9e3779b97f4a7c15ull : 1000 + i;
}

static long long memory(redisContext *c)
{
    redisReply *r = redisCommand(c, "INFO memory");
    const char *at = r ? strstr(r->str, "used_memory:") : NULL;
    long long v = at ? atoll(at + 12) : -1;
    freeReplyObject(r);
    return v;
}

static void ask(struct shared *s, uint32_t first, uint32_t n, bool random)
{
    uint64_t ids[SHARED_ORDER_MAX];
    for (uint32_t i = 0; i < n; i++)
        ids[i] = user(first + i, random);
    shared_send(s, &(struct shared_order){.op = SHARED_ASK, .request = first + 1, .n = n, .ids = ids});
    ev_run(b.loop, 0);
}

static void measure(struct shared *s, redisContext *c, uint32_t users, bool random)
{
    static struct shared_state states[SHARED_ORDER_MAX];
    freeReplyObject(redisCommand(c, "FLUSHALL"));
    shared_send(s, &(struct shared_order){.op = SHARED_BEAT});
    ask(s, 0, 1, random);
    b.wrong = b.answered = 0;
    long long before = memory(c);
    uint64_t began = clock_mono_ns();
    for (uint32_t at = 0; at < users; at += SHARED_ORDER_MAX) {
        uint32_t n = users - at < SHARED_ORDER_MAX ? users - at : SHARED_ORDER_MAX;
        for (uint32_t i = 0; i < n; i++)
            states[i] = (struct shared_state){.user = user(at + i, random),
                                              .at_s = PRESENCE_BEGIN_S + 40000000,
                                              .state = i % 8 ? PRESENCE_ONLINE : PRESENCE_OFFLINE};
        shared_send(s, &(struct shared_order){.op = SHARED_PUT, .n = n, .states = states});
        ask(s, at, 1, random); /* it is answered when the order is done */
    }
    double write_s = (double)(clock_mono_ns() - began) / 1e9;
    double each = (double)(memory(c) - before) / users;
    b.wrong = b.answered = 0;
    began = clock_mono_ns();
    shared_send(s, &(struct shared_order){.op = SHARED_BEAT});
    for (uint32_t at = 0; at + SHARED_ORDER_MAX <= users; at += SHARED_ORDER_MAX)
        ask(s, at, SHARED_ORDER_MAX, random);
    double ask_s = (double)(clock_mono_ns() - began) / 1e9;
    printf("%8u users, %s ids: %5.2f B each; written %.0f/s, asked %.0f/s, %" PRIu64 " of %" PRIu64
           " answers wrong\n",
           users, random ? "random" : "sequential", each, users / write_s, (double)b.answered / ask_s,
           b.wrong, b.answered);
    if (users == 1000000)
        printf("BENCH presence_bytes_%s_ids %.2f B budget %.0f %s\n", random ? "random" : "sequential", each,
               BUDGET, each <= BUDGET && !b.wrong ? "ok" : "MISSED");
}

int main(void)
{
    struct err_ctx err = {0};
    pid_t pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen("/dev/null", "w", stdout))
            _exit(1);
        execlp("redis-server", "redis-server", "--port", PORT, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", NULL);
        _exit(127);
    }
    redisContext *c = NULL;
    for (int i = 0; i < 100 && (!c || c->err); i++) {
        if (c)
            redisFree(c);
        usleep(50000);
        c = redisConnect("127.0.0.1", atoi(PORT));
    }
    if (!c || c->err) {
        printf("redis-server is not here: presence was not measured\n");
        return 0;
    }
    b.loop = ev_loop_new(0);
    struct shared *s;
    if (shared_redis_new(&s, b.loop, "redis://127.0.0.1:" PORT "/bench", 0, &(struct shared_sink){news, NULL},
                         &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    ev_run(b.loop, 0);
    measure(s, c, 1000000, true);
    measure(s, c, 1000000, false);
    measure(s, c, 100000, true);
    measure(s, c, 1100000, true);
    shared_close(s);
    redisFree(c);
    ev_loop_destroy(b.loop);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    return 0;
}

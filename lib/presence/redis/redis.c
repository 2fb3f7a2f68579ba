#include "presence/redis/redis.h"

#include <ev.h>
#include <hiredis/async.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <hiredis/adapters/libev.h>
#pragma GCC diagnostic pop

#include "util/clock.h"
#include "util/log.h"
#include "util/redis_url.h"

#define WATCH_S     0.5
#define STALLED_NS  (3 * NS_PER_S)
#define AGAIN_S     0.1
#define AGAIN_MAX_S 2.0
#define KEY_MAX     128u
#define TYPING_MS   "10000"
#define SWEPT_S     "3500"
#define SWEEP_SOME  32u /* pages at a time */
#define DOUBT       "10000"
#define STALE_MS    "3600000"

_Static_assert(SHARED_DOUBT_MS == 10000 && SHARED_STALE_S == 3600, "the texts above");

enum script {
#define SCRIPT(ID, text) SCRIPT_##ID,
#include "presence/redis/scripts.def"
#undef SCRIPT
    SCRIPT_COUNT
};
static const char *const scripts[] = {
#define SCRIPT(ID, text) text,
#include "presence/redis/scripts.def"
#undef SCRIPT
};

/* A record on the channel: what, then these numbers. */
#define RECORD_TYPING 'T' /* chat, user, until: 8 bytes each; flags: 1 quiet, 2 unchecked */
#define RECORD_ALSO   'A' /* user */

struct shared_redis {
    struct shared shared;
    struct shared_sink sink;
    struct ev_loop *loop;
    struct redis_url url;
    uint16_t slot;
    uint64_t self;               /* a random name: of our inbox, and of what we publish */
    redisAsyncContext *in, *out; /* NULL: not connected */
    ev_timer watch, again;
    double again_s;
    uint64_t fed_ns; /* when something last came through */
    char sha[SCRIPT_COUNT][41];
    unsigned subscribed, loaded, bury; /* channels; scripts; pages still to be buried, or swept */
    bool buried, up, closing, sweeping;
    uint32_t swept;
    uint32_t ages[SHARED_SLOTS]; /* ms; UINT32_MAX: it never was there */
    struct shared_redis_stats stats;
};

/* Users of one order, by their page. */
struct placed {
    struct shared_place place;
    uint32_t at; /* in the order */
};

/* What is asked: answered when the last page is. */
struct ask {
    struct shared_redis *redis;
    uint64_t request, asked_ns;
    uint32_t n, waiting;
    bool failed;
    struct placed *placed; /* sorted */
    struct shared_state states[];
};
struct ask_page {
    struct ask *ask;
    uint32_t first, n;
};
struct put_page {
    struct shared_redis *redis;
    uint32_t n;
    uint64_t users[];
};
struct ask_chat {
    struct shared_redis *redis;
    uint64_t request, chat;
};

/* ---- connections ---- */

static void key_of(const struct shared_redis *r, char out[KEY_MAX], const char *kind, uint64_t number)
{
    snprintf(out, KEY_MAX, "chatd:%s:p:%s%" PRIu64, r->url.cluster, kind, number);
}
static void nodes_key(const struct shared_redis *r, char out[KEY_MAX])
{
    snprintf(out, KEY_MAX, "chatd:%s:p:nodes", r->url.cluster);
}
static void channel(const struct shared_redis *r, char out[KEY_MAX], bool own)
{
    int n = snprintf(out, KEY_MAX, "chatd:%s:presence", r->url.cluster);
    if (own)
        snprintf(out + n, KEY_MAX - (size_t)n, ":%" PRIx64, r->self);
}

static void plan_again(struct shared_redis *r)
{
    if (r->closing || ev_is_active(&r->again))
        return;
    ev_timer_set(&r->again, r->again_s, 0);
    ev_timer_start(r->loop, &r->again);
    r->again_s = r->again_s * 2 < AGAIN_MAX_S ? r->again_s * 2 : AGAIN_MAX_S;
}

static void drop(redisAsyncContext **c)
{
    redisAsyncContext *gone = *c;
    *c = NULL; /* first: its callbacks come now */
    if (gone)
        redisAsyncFree(gone);
}

static void is_down(struct shared_redis *r)
{
    bool was = r->up;
    r->up = r->sweeping = false;
    r->subscribed = r->loaded = 0;
    if (was && !r->closing)
        r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_DOWN});
}

static void hang_up(struct shared_redis *r)
{
    drop(&r->in);
    drop(&r->out);
    is_down(r);
}

/* hiredis frees the context itself after these two. */
static void gone(const redisAsyncContext *c, int status)
{
    struct shared_redis *r = c->data;
    if (c != r->in && c != r->out)
        return;
    if (status != REDIS_OK)
        log_warn("presence: redis at %s:%d: %s", r->url.host, r->url.port, c->errstr);
    if (c == r->in)
        r->in = NULL;
    else
        r->out = NULL;
    is_down(r);
    plan_again(r); /* which closes the other one */
}

static void come(const redisAsyncContext *c, int status)
{
    if (status != REDIS_OK)
        gone(c, status);
}

/* Of what Redis answers to: NULL when the connection went first, or an error, which is said and counted. */
static redisReply *good(struct shared_redis *r, redisReply *reply)
{
    if (!reply)
        return NULL;
    r->fed_ns = clock_mono_ns();
    if (reply->type != REDIS_REPLY_ERROR)
        return reply;
    if (!r->stats.failed++)
        log_warn("presence: redis at %s:%d: %s", r->url.host, r->url.port, reply->str);
    if (!strncmp(reply->str, "NOSCRIPT", 8)) /* somebody took the scripts out: begin anew */
        plan_again(r);
    return NULL;
}

static void ignored(redisAsyncContext *c, void *reply, void *arg)
{
    (void)arg;
    good(c->data, reply);
}

/* EVALSHA with keys and then texts. */
struct word {
    const char *p;
    size_t n;
};
static int evaluate(struct shared_redis *r, enum script script, redisCallbackFn *fn, void *arg, unsigned keys,
                    const struct word *words, unsigned n)
{
    const char *argv[10] = {"EVALSHA", r->sha[script], keys == 2 ? "2" : "1"};
    size_t lens[10] = {7, 40, 1};
    for (unsigned i = 0; i < n; i++) {
        argv[3 + i] = words[i].p;
        lens[3 + i] = words[i].n;
    }
    return r->out ? redisAsyncCommandArgv(r->out, fn, arg, (int)(3 + n), argv, lens) : REDIS_ERR;
}
#define WORD(text) ((struct word){text, strlen(text)})
#define EVALUATE(r, s, fn, arg, keys, ...)                                                                   \
    evaluate(r, SCRIPT_##s, fn, arg, keys, (struct word[]){__VA_ARGS__},                                     \
             sizeof((struct word[]){__VA_ARGS__}) / sizeof(struct word))

/* ---- up ---- */

static void look_up(struct shared_redis *r)
{
    if (r->up || r->subscribed < 2 || r->loaded < SCRIPT_COUNT || !r->buried)
        return;
    r->up = true;
    r->again_s = AGAIN_S;
    r->stats.connects++;
    log_info("presence: redis at %s:%d, cluster %s", r->url.host, r->url.port, r->url.cluster);
    r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_UP});
}

static void bury_page(struct shared_redis *r, uint32_t page, redisCallbackFn *fn, int slot)
{
    char key[KEY_MAX], nodes[KEY_MAX], of[16], begin[16], unit[16];
    key_of(r, key, "", page);
    nodes_key(r, nodes);
    snprintf(of, sizeof of, "%d", slot);
    snprintf(begin, sizeof begin, "%u", PRESENCE_BEGIN_S);
    snprintf(unit, sizeof unit, "%u", SHARED_UNIT_S);
    EVALUATE(r, BURY, fn, NULL, 2, WORD(key), WORD(nodes), WORD(of), WORD(STALE_MS), WORD(begin), WORD(unit));
}

static void on_buried(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    (void)arg;
    if (!good(r, reply) || c != r->out || --r->bury)
        return;
    r->buried = true;
    look_up(r);
}

/* An earlier life of this node vouched for users; they have not come back to it yet. */
static void bury_all(struct shared_redis *r)
{
    if (r->slot == SHARED_NOBODY) {
        r->buried = true;
        look_up(r);
        return;
    }
    r->bury = SHARED_PAGES;
    for (uint32_t i = 0; i < SHARED_PAGES; i++)
        bury_page(r, i, on_buried, r->slot);
}

static void on_loaded(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    unsigned script = (unsigned)(uintptr_t)arg;
    if (!m || c != r->out || m->type != REDIS_REPLY_STRING || m->len != 40)
        return;
    memcpy(r->sha[script], m->str, 41);
    if (++r->loaded < SCRIPT_COUNT)
        return;
    if (r->buried)
        look_up(r);
    else
        bury_all(r);
}

/* ---- what others say ---- */

static uint64_t number(const char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | (uint8_t)p[i];
    return v;
}
static void add_number(char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (char)(v >> (8 * i));
}

static void heard(struct shared_redis *r, const char *p, size_t n)
{
    if (n < 8 || number(p) == r->self)
        return;
    p += 8;
    n -= 8;
    while (n) {
        if (*p == RECORD_TYPING && n >= 26) {
            struct shared_typing t = {.chat = number(p + 1),
                                      .user = number(p + 9),
                                      .until_us = number(p + 17),
                                      .quiet = p[25] & 1,
                                      .unchecked = (p[25] & 2) != 0};
            r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_TYPES, .n = 1, .typing = &t});
            p += 26;
            n -= 26;
        } else if (*p == RECORD_ALSO && n >= 9) {
            uint64_t user = number(p + 1);
            r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_ALSO, .n = 1, .ids = &user});
            p += 9;
            n -= 9;
        } else {
            return; /* of a later version */
        }
    }
}

static void on_message(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    const redisReply *m = reply;
    (void)arg;
    if (c != r->in || !m)
        return;
    if (m->type == REDIS_REPLY_ERROR) {
        log_warn("presence: redis at %s:%d: %s", r->url.host, r->url.port, m->str);
        return;
    }
    if (m->type != REDIS_REPLY_ARRAY || m->elements != 3)
        return;
    r->fed_ns = clock_mono_ns();
    if (m->element[2]->type == REDIS_REPLY_INTEGER) { /* subscribed */
        r->subscribed++;
        look_up(r);
    } else if (r->up && m->element[2]->type == REDIS_REPLY_STRING) {
        heard(r, m->element[2]->str, (size_t)m->element[2]->len);
    }
}

static void publish(struct shared_redis *r, bool own, const char *p, size_t n)
{
    char name[KEY_MAX];
    channel(r, name, own);
    const char *words[] = {"PUBLISH", name, p};
    size_t lens[] = {7, strlen(name), n};
    if (r->out)
        redisAsyncCommandArgv(r->out, NULL, NULL, 3, words, lens);
}

/* ---- connecting ---- */

static redisAsyncContext *dial(struct shared_redis *r)
{
    redisAsyncContext *c = redisAsyncConnect(r->url.host, r->url.port);
    if (!c || c->err) {
        log_warn("presence: redis at %s:%d: %s", r->url.host, r->url.port, c ? c->errstr : "no memory");
        if (c)
            redisAsyncFree(c);
        return NULL;
    }
    c->data = r;
    if (redisLibevAttach(r->loop, c) != REDIS_OK) {
        redisAsyncFree(c);
        return NULL;
    }
    redisAsyncSetConnectCallback(c, come);
    redisAsyncSetDisconnectCallback(c, gone);
    if (r->url.password[0])
        redisAsyncCommand(c, NULL, NULL, "AUTH %s", r->url.password);
    return c;
}

static void connect_both(struct shared_redis *r)
{
    char common[KEY_MAX], own[KEY_MAX];
    hang_up(r);
    r->fed_ns = clock_mono_ns();
    r->in = dial(r);
    r->out = r->in ? dial(r) : NULL;
    channel(r, common, false);
    channel(r, own, true);
    int rc = r->out ? redisAsyncCommand(r->in, on_message, NULL, "SUBSCRIBE %s %s", common, own) : REDIS_ERR;
    for (unsigned i = 0; i < SCRIPT_COUNT && rc == REDIS_OK; i++)
        rc = redisAsyncCommand(r->out, on_loaded, (void *)(uintptr_t)i, "SCRIPT LOAD %s", scripts[i]);
    if (rc != REDIS_OK) {
        hang_up(r);
        plan_again(r);
    }
}

static void on_again(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop;
    (void)events;
    connect_both(w->data);
}

static void on_watch(struct ev_loop *loop, ev_timer *w, int events)
{
    struct shared_redis *r = w->data;
    (void)loop;
    (void)events;
    if (ev_is_active(&r->again))
        return;
    if (clock_mono_ns() - r->fed_ns >= STALLED_NS) {
        log_warn("presence: redis at %s:%d does not answer: connecting anew", r->url.host, r->url.port);
        r->stats.stalls++;
        hang_up(r);
        plan_again(r);
        return;
    }
    publish(r, true, "", 0);
}

/* ---- states ---- */

static int by_page(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    return x->place.page != y->place.page ? (x->place.page < y->place.page ? -1 : 1)
           : x->at < y->at                ? -1
                                          : x->at > y->at;
}

/* How many from `first` on share its page. */
static uint32_t run(const struct placed *p, uint32_t first, uint32_t n)
{
    uint32_t end = first + 1;
    while (end < n && p[end].place.page == p[first].place.page)
        end++;
    return end - first;
}

static void on_put(redisAsyncContext *c, void *reply, void *arg)
{
    struct put_page *p = arg;
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    for (size_t i = 0; m && r->up && m->type == REDIS_REPLY_ARRAY && i < m->elements; i++) {
        long long at = m->element[i]->integer;
        if (at < 1 || at > p->n)
            continue;
        uint64_t user = p->users[at - 1];
        char said[17];
        add_number(said, r->self);
        said[8] = RECORD_ALSO;
        add_number(said + 9, user);
        publish(r, false, said, sizeof said);
        r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_ALSO, .n = 1, .ids = &user});
    }
    free(p);
}

static int put_page(struct shared_redis *r, const struct shared_order *o, const struct placed *list,
                    uint32_t n)
{
    char key[KEY_MAX], nodes[KEY_MAX], slot[16];
    struct put_page *p = malloc(sizeof *p + n * sizeof *p->users);
    char *cells = malloc((size_t)n * SHARED_CELL);
    int rc = p && cells ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; !rc && i < n; i++) {
        const struct shared_state *s = &o->states[list[i].at];
        p->users[i] = s->user;
        memcpy(cells + i * SHARED_CELL, list[i].place.print, SHARED_PRINT);
        shared_cell_put((uint8_t *)cells + i * SHARED_CELL + SHARED_PRINT, s, r->slot);
    }
    if (!rc) {
        p->redis = r;
        p->n = n;
        key_of(r, key, "", list[0].place.page);
        nodes_key(r, nodes);
        snprintf(slot, sizeof slot, "%u", r->slot);
        rc = EVALUATE(r, PUT, on_put, p, 2, WORD(key), WORD(nodes), WORD(slot),
                      ((struct word){cells, (size_t)n * SHARED_CELL}), WORD(DOUBT))
                 ? ERR_UNAVAILABLE
                 : 0;
    }
    free(cells);
    if (rc)
        free(p);
    return rc;
}

static int put(struct shared_redis *r, const struct shared_order *o)
{
    struct placed *list = malloc((o->n ? o->n : 1) * sizeof *list);
    uint32_t n = 0;
    int rc = list ? 0 : ERR_NOMEM;
    for (uint32_t i = 0; list && i < o->n; i++)
        if (o->states[i].state != PRESENCE_UNKNOWN && r->slot != SHARED_NOBODY)
            list[n++] = (struct placed){shared_place(o->states[i].user), i};
    if (n)
        qsort(list, n, sizeof *list, by_page);
    for (uint32_t i = 0, some; !rc && i < n; i += some)
        rc = put_page(r, o, list + i, some = run(list, i, n));
    free(list);
    return rc;
}

static void on_ages(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    (void)arg;
    if (!m || m->type != REDIS_REPLY_ARRAY)
        return;
    memset(r->ages, 0xFF, sizeof r->ages);
    for (size_t i = 0; i + 1 < m->elements; i += 2) {
        long long slot = m->element[i]->integer, ms = m->element[i + 1]->integer;
        if (slot >= 0 && slot < (long long)SHARED_SLOTS && ms >= 0)
            r->ages[slot] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
    }
}

static void answer(struct ask *a)
{
    struct shared_redis *r = a->redis;
    r->stats.answer_us = (clock_mono_ns() - a->asked_ns) / NS_PER_US;
    if (!a->failed && r->up)
        r->sink.news(r->sink.arg,
                     &(struct shared_news){
                         .kind = SHARED_STATES, .request = a->request, .n = a->n, .states = a->states});
    free(a->placed);
    free(a);
}

static void on_look(redisAsyncContext *c, void *reply, void *arg)
{
    struct ask_page *p = arg;
    struct ask *a = p->ask;
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    uint64_t now_s = clock_wall_us() / 1000000;
    a->failed |= !m || m->type != REDIS_REPLY_STRING || (size_t)m->len != p->n * 3u;
    for (uint32_t i = 0; !a->failed && i < p->n; i++) {
        struct shared_state *s = &a->states[a->placed[p->first + i].at];
        uint16_t slot;
        shared_cell_get((const uint8_t *)m->str + i * 3u, now_s, s, &slot);
        shared_doubt(s, slot < SHARED_SLOTS ? r->ages[slot] : 0, now_s);
        s->slot = slot;
    }
    free(p);
    if (!--a->waiting)
        answer(a);
}

static bool look_page(struct shared_redis *r, struct ask *a, uint32_t first, uint32_t n)
{
    char key[KEY_MAX];
    struct ask_page *p = malloc(sizeof *p);
    char *prints = malloc((size_t)n * SHARED_PRINT);
    bool good = false;
    if (p && prints) {
        *p = (struct ask_page){a, first, n};
        for (uint32_t i = 0; i < n; i++)
            memcpy(prints + i * SHARED_PRINT, a->placed[first + i].place.print, SHARED_PRINT);
        key_of(r, key, "", a->placed[first].place.page);
        good = EVALUATE(r, LOOK, on_look, p, 1, WORD(key),
                        ((struct word){prints, (size_t)n * SHARED_PRINT})) == REDIS_OK;
    }
    free(prints);
    if (!good)
        free(p);
    return good;
}

static int ask(struct shared_redis *r, const struct shared_order *o)
{
    char nodes[KEY_MAX];
    struct ask *a = calloc(1, sizeof *a + o->n * sizeof *a->states);
    struct placed *list = malloc((o->n ? o->n : 1) * sizeof *list);
    if (!a || !list) {
        free(a);
        free(list);
        return ERR_NOMEM;
    }
    *a = (struct ask){.redis = r,
                      .request = o->request,
                      .asked_ns = clock_mono_ns(),
                      .n = o->n,
                      .waiting = 1,
                      .placed = list};
    for (uint32_t i = 0; i < o->n; i++) {
        a->states[i].user = o->ids[i];
        list[i] = (struct placed){shared_place(o->ids[i]), i};
    }
    qsort(list, o->n, sizeof *list, by_page);
    nodes_key(r, nodes);
    a->failed = EVALUATE(r, AGES, on_ages, NULL, 1, WORD(nodes)) != REDIS_OK;
    for (uint32_t i = 0, some; !a->failed && i < o->n; i += some) {
        some = run(list, i, o->n);
        a->waiting++;
        if (!look_page(r, a, i, some)) {
            a->waiting--;
            a->failed = true;
        }
    }
    bool failed = a->failed;
    if (--a->waiting == 0) { /* it could not be asked; an order of nothing has nothing to tell */
        free(a->placed);
        free(a);
    }
    return failed ? ERR_UNAVAILABLE : 0;
}

/* ---- typing ---- */

static int type(struct shared_redis *r, const struct shared_order *o)
{
    size_t n = 8;
    char *said = malloc(8 + (size_t)o->n * 26), key[KEY_MAX], user[24], until[24];
    if (!said)
        return ERR_NOMEM;
    add_number(said, r->self);
    for (uint32_t i = 0; i < o->n && r->out; i++) {
        const struct shared_typing *t = &o->typing[i];
        key_of(r, key, "t:", t->chat);
        snprintf(user, sizeof user, "%" PRIu64, t->user);
        snprintf(until, sizeof until, "%" PRIu64, t->until_us);
        if (t->quiet) {
            EVALUATE(r, QUIET, ignored, NULL, 1, WORD(key), WORD(user), WORD(until));
        } else if (!t->unchecked) { /* else the chat's node says it again */
            redisAsyncCommand(r->out, ignored, NULL, "HSET %s %s %s", key, user, until);
            redisAsyncCommand(r->out, ignored, NULL, "PEXPIRE %s " TYPING_MS, key);
        }
        said[n] = RECORD_TYPING;
        add_number(said + n + 1, t->chat);
        add_number(said + n + 9, t->user);
        add_number(said + n + 17, t->until_us);
        said[n + 25] = (char)((t->quiet ? 1 : 0) | (t->unchecked ? 2 : 0));
        n += 26;
    }
    publish(r, false, said, n);
    free(said);
    return r->out ? 0 : ERR_UNAVAILABLE;
}

static void on_typists(redisAsyncContext *c, void *reply, void *arg)
{
    struct ask_chat *a = arg;
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    struct shared_typing list[SHARED_TYPISTS_MAX];
    struct shared_news n = {.kind = SHARED_TYPES, .request = a->request, .typing = list};
    uint64_t now = clock_wall_us();
    for (size_t i = 0; m && m->type == REDIS_REPLY_ARRAY && i + 1 < m->elements; i += 2) {
        if (m->element[i]->type != REDIS_REPLY_STRING || m->element[i + 1]->type != REDIS_REPLY_STRING)
            continue;
        uint64_t until = strtoull(m->element[i + 1]->str, NULL, 10);
        if (until > now && n.n < SHARED_TYPISTS_MAX)
            list[n.n++] = (struct shared_typing){
                .chat = a->chat, .user = strtoull(m->element[i]->str, NULL, 10), .until_us = until};
    }
    if (m && r->up && n.n)
        r->sink.news(r->sink.arg, &n);
    free(a);
}

static int typists(struct shared_redis *r, const struct shared_order *o)
{
    char key[KEY_MAX];
    for (uint32_t i = 0; i < o->n; i++) {
        struct ask_chat *a = malloc(sizeof *a);
        if (!a)
            return ERR_NOMEM;
        *a = (struct ask_chat){r, o->request, o->ids[i]};
        key_of(r, key, "t:", o->ids[i]);
        if (!r->out || redisAsyncCommand(r->out, on_typists, a, "HGETALL %s", key) != REDIS_OK) {
            free(a);
            return ERR_UNAVAILABLE;
        }
    }
    return 0;
}

/* ---- the sweep: some pages at a time, so that nobody waits for it ---- */

_Static_assert(SHARED_PAGES % SWEEP_SOME == 0, "rounds of the sweep");
static void on_swept(redisAsyncContext *c, void *reply, void *arg);

static void sweep_some(struct shared_redis *r)
{
    r->bury = SWEEP_SOME;
    for (uint32_t i = 0; i < SWEEP_SOME; i++)
        bury_page(r, r->swept++, on_swept, -1);
}

static void on_swept(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    (void)arg;
    if (!m || c != r->out || !r->sweeping)
        return;
    if (m->type == REDIS_REPLY_INTEGER && m->integer > 0)
        r->sink.news(r->sink.arg, &(struct shared_news){.kind = SHARED_SWEPT, .n = (uint32_t)m->integer});
    if (--r->bury)
        return;
    if (r->swept < SHARED_PAGES)
        sweep_some(r);
    else
        r->sweeping = false;
}

static void on_lock(redisAsyncContext *c, void *reply, void *arg)
{
    struct shared_redis *r = c->data;
    const redisReply *m = good(r, reply);
    (void)arg;
    if (!m || c != r->out || m->type != REDIS_REPLY_STATUS || r->sweeping)
        return; /* another one does */
    r->sweeping = true;
    r->swept = 0;
    sweep_some(r);
}

static int sweep(struct shared_redis *r)
{
    char key[KEY_MAX];
    key_of(r, key, "swept", 0);
    return redisAsyncCommand(r->out, on_lock, NULL, "SET %s 1 NX EX " SWEPT_S, key) == REDIS_OK
               ? 0
               : ERR_UNAVAILABLE;
}

/* ---- the vtable ---- */

static int beat(struct shared_redis *r)
{
    char nodes[KEY_MAX], slot[16];
    if (r->slot == SHARED_NOBODY)
        return 0;
    nodes_key(r, nodes);
    snprintf(slot, sizeof slot, "%u", r->slot);
    return EVALUATE(r, BEAT, ignored, NULL, 1, WORD(nodes), WORD(slot)) == REDIS_OK ? 0 : ERR_UNAVAILABLE;
}

static int execute(struct shared_redis *r, const struct shared_order *o)
{
    switch (o->op) {
    case SHARED_BEAT:
        return beat(r);
    case SHARED_PUT:
        return put(r, o);
    case SHARED_ASK:
        return ask(r, o);
    case SHARED_TYPE:
        return type(r, o);
    case SHARED_TYPISTS:
        return typists(r, o);
    case SHARED_SWEEP:
        return sweep(r);
    }
    return ERR_INVALID;
}

static int redis_send(struct shared *s, const struct shared_order *o)
{
    struct shared_redis *r = (struct shared_redis *)s;
    int rc = o->n > SHARED_ORDER_MAX ? ERR_LIMIT : !r->up || !r->out ? ERR_UNAVAILABLE : 0;
    if (!rc && r->out->c.obuf && sdslen(r->out->c.obuf) > SHARED_REDIS_QUEUE_MAX)
        rc = ERR_FULL;
    rc = rc ? rc : execute(r, o);
    r->stats.orders++;
    r->stats.refused += rc != 0;
    return rc;
}

static void redis_close(struct shared *s)
{
    struct shared_redis *r = (struct shared_redis *)s;
    r->closing = true;
    ev_timer_stop(r->loop, &r->watch);
    ev_timer_stop(r->loop, &r->again);
    hang_up(r);
    free(r);
}

static const struct shared_ops ops = {redis_send, redis_close};

int shared_redis_new(struct shared **out, struct ev_loop *loop, const char *url, uint16_t slot,
                     const struct shared_sink *sink, struct err_ctx *ctx)
{
    struct shared_redis *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(ctx, ERR_NOMEM, "no memory for presence");
    int rc = redis_url_parse(&r->url, url, "presence", ctx);
    if (rc) {
        free(r);
        return rc;
    }
    r->shared.ops = &ops;
    r->sink = *sink;
    r->loop = loop;
    r->slot = slot;
    r->self = clock_wall_us() * 0x9e3779b97f4a7c15ull ^ (uint64_t)(uintptr_t)r ^ clock_mono_ns();
    r->again_s = AGAIN_S;
    memset(r->ages, 0xFF, sizeof r->ages);
    ev_init(&r->again, on_again);
    ev_timer_init(&r->watch, on_watch, WATCH_S, WATCH_S);
    r->again.data = r->watch.data = r;
    ev_timer_start(loop, &r->watch);
    connect_both(r);
    *out = &r->shared;
    return 0;
}

int shared_redis_check(const char *url, struct err_ctx *ctx)
{
    struct redis_url u;
    return redis_url_parse(&u, url, "presence", ctx);
}

void shared_redis_stats(const struct shared *s, struct shared_redis_stats *out)
{
    *out = ((const struct shared_redis *)s)->stats;
}

/* Whose turn it is to be written to.
 *
 * Writing to a socket costs 5 to 7 us whatever is written, so the rate of writes is what limits a fan-out.
 * Each connection that has something waits in one line; its turn takes all that is pending by then, in one
 * frame. A slice of turns lasts half a millisecond, then the loop looks for what came in: a message that
 * becomes durable meanwhile goes along with those that still stand in the line, and nobody waits for a whole
 * round and then for his place in the next one.
 *
 * A loop that keeps up never waits. When it is busy all the time and turns carry several messages already,
 * each connection's next turn is put off until `interval_ns` after its last, at most 16 ms: fewer writes
 * carry the same messages. The interval grows while the loop is over BUSY_MOST of its time busy and shrinks
 * below BUSY_LEAST; without several messages a turn it would only delay (a loop busy with reading). A
 * connection that was not written to lately is not put off. *
 * Acknowledgements of a large group come one by one, ten a second from each; to wake up for each costs more
 * than to read it. While many come the loop sleeps half a millisecond between two looks, unless there is
 * something to write. */
#include "transport/ws_server_impl.h"
#include "util/clock.h"

#define SLICE_NS        (NS_PER_MS / 2)
#define LOOK_AT_CLOCK   16 /* turns between two looks */
#define WINDOW_NS       (50 * NS_PER_MS)
#define INTERVAL_NS_MAX (16 * NS_PER_MS)
#define BUSY_MOST       93 /* percent of a window */
#define BUSY_LEAST      85
#define READS_MANY      100 /* in a window: then the loop looks at most every COLLECT_NS what came */
#define COLLECT_NS      (NS_PER_MS / 2)

void ws_turn_want(struct ws_conn *c)
{
    struct ws_server *s = c->s;
    if (c->blocked || !link_empty(&c->dirty))
        return;
    bool early = c->turn_ns + s->turns.interval_ns > s->turns.now_ns;
    link_append(s->turns.interval_ns && early ? &s->held : &s->dirty, &c->dirty);
}

static void adapt(struct ws_server *s)
{
    struct ws_turns *t = &s->turns;
    uint64_t lasted = t->now_ns - t->window_ns;
    if (lasted < WINDOW_NS)
        return;
    uint64_t busy = t->busy_ns * 100 / lasted;
    bool coalesced = t->objects * 10 > t->frames * 11;
    if (busy > BUSY_MOST && coalesced)
        t->interval_ns += t->interval_ns / 8 + NS_PER_MS;
    else if (busy < BUSY_LEAST || !coalesced)
        t->interval_ns -= t->interval_ns < NS_PER_MS ? t->interval_ns : NS_PER_MS / 2 + t->interval_ns / 8;
    if (t->interval_ns > INTERVAL_NS_MAX)
        t->interval_ns = INTERVAL_NS_MAX;
    bool collecting = t->reads > READS_MANY;
    if (collecting != t->collecting)
        ev_set_io_collect_interval(s->cfg.loop, collecting ? COLLECT_NS * 1e-9 : 0);
    *t = (struct ws_turns){
        .collecting = collecting, .now_ns = t->now_ns, .window_ns = t->now_ns, .interval_ns = t->interval_ns};
}

/* Those put off stand in the order of their last turns, but for what a change of the interval did. */
static uint64_t release_held(struct ws_server *s)
{
    while (!link_empty(&s->held)) {
        struct ws_conn *c = link_owner(s->held.next, struct ws_conn, dirty);
        uint64_t due = c->turn_ns + s->turns.interval_ns;
        if (due > s->turns.now_ns)
            return due;
        link_remove(&c->dirty);
        link_append(&s->dirty, &c->dirty);
    }
    return 0;
}

/* Each write leaves nothing of us in the caches, and a thousand connections are not small: those who come
 * next are fetched while the kernel works, the one after next first, since its address is all that is known
 * of it.
 */
static void fetch_ahead(const struct ws_server *s, const struct ws_conn *c)
{
    const struct link *next = c->dirty.next;
    if (next == &s->dirty)
        return;
    const struct ws_conn *n = link_owner(next, const struct ws_conn, dirty);
    __builtin_prefetch(n->head);
    __builtin_prefetch(n->arg);
    __builtin_prefetch(n->wsi);
    if (next->next == &s->dirty)
        return;
    const char *after = (const char *)link_owner(next->next, const struct ws_conn, dirty);
    __builtin_prefetch(after, 1);
    __builtin_prefetch(after + offsetof(struct ws_conn, dirty), 1);
    __builtin_prefetch(after + offsetof(struct ws_conn, written), 1);
}

/* Hot path: no allocation, no system call but the writes. */
static void slice(struct ws_server *s)
{
    uint64_t end = s->turns.now_ns + SLICE_NS;
    for (uint32_t n = 1; !link_empty(&s->dirty); n++) {
        struct ws_conn *c = link_owner(s->dirty.next, struct ws_conn, dirty);
        fetch_ahead(s, c);
        link_remove(&c->dirty);
        c->turn_ns = s->turns.now_ns;
        ws_flush(c);
        if (c->state == CONN_CLOSING && !c->head && !c->blocked)
            lws_callback_on_writable(c->wsi); /* there the close frame goes */
        if (n % LOOK_AT_CLOCK)
            continue;
        s->turns.now_ns = clock_mono_ns();
        if (s->turns.now_ns >= end)
            break;
    }
}

void ws_turn_take(struct ws_server *s)
{
    struct ws_turns *t = &s->turns;
    uint64_t woke = t->now_ns, due = 0;
    if (!link_empty(&s->dirty) || !link_empty(&s->held)) {
        t->now_ns = clock_mono_ns();
        release_held(s);
        slice(s);
        t->now_ns = clock_mono_ns();
        due = release_held(s);
        double wait = !link_empty(&s->dirty) || due <= t->now_ns ? 0 : (double)(due - t->now_ns) * 1e-9;
        ev_timer_stop(s->cfg.loop, &s->turn_timer);
        if (due || !link_empty(&s->dirty)) {
            ev_now_update(s->cfg.loop);
            ev_timer_set(&s->turn_timer, wait, 0);
            ev_timer_start(s->cfg.loop, &s->turn_timer);
        }
    } else {
        t->now_ns = clock_mono_ns();
    }
    t->busy_ns += t->now_ns - woke;
    adapt(s);
}

static void after_poll(struct ev_loop *loop, ev_check *w, int events)
{
    struct ws_server *s = w->data;
    (void)loop;
    (void)events;
    s->turns.now_ns = clock_mono_ns();
}

static void before_block(struct ev_loop *loop, ev_prepare *w, int events)
{
    (void)loop;
    (void)events;
    ws_turn_take(w->data);
}

static void wake(struct ev_loop *loop, ev_timer *w, int events) /* before_block does the work */
{
    (void)loop;
    (void)w;
    (void)events;
}

void ws_turn_start(struct ws_server *s)
{
    ev_check_init(&s->after_poll, after_poll);
    ev_set_priority(&s->after_poll, EV_MAXPRI);
    ev_prepare_init(&s->before_block, before_block);
    ev_timer_init(&s->turn_timer, wake, 0, 0);
    s->after_poll.data = s->before_block.data = s;
    s->turns.now_ns = s->turns.window_ns = clock_mono_ns();
    ev_check_start(s->cfg.loop, &s->after_poll);
    ev_prepare_start(s->cfg.loop, &s->before_block);
}

void ws_turn_stop(struct ws_server *s)
{
    ev_check_stop(s->cfg.loop, &s->after_poll);
    ev_prepare_stop(s->cfg.loop, &s->before_block);
    ev_timer_stop(s->cfg.loop, &s->turn_timer);
    ev_set_io_collect_interval(s->cfg.loop, 0);
}

/* Any server and any life: two bytes an event. Inside one epoch the client surfaces each seq of a chat at
 * most once, rising, until it loses its storage; it sends only what it said, and ends without leaks. */
#include <string.h>

#include "core/client.h"

#define CHATS 3

struct state {
    uint64_t top[CHATS];
    uint64_t timer_ns;
    struct id said[64];
    unsigned said_n;
};

static void emit(void *arg, struct client *c, const struct client_effect *e)
{
    struct state *s = arg;
    (void)c;
    switch (e->type) {
    case CLIENT_SURFACE:
        BUG_ON(e->m->chat >= CHATS || e->m->seq <= s->top[e->m->chat]);
        s->top[e->m->chat] = e->m->seq;
        break;
    case CLIENT_SUBMITTED:
        s->said[s->said_n++ % 64] = e->id;
        break;
    case CLIENT_SET_TIMER:
        s->timer_ns = e->at_ns;
        break;
    case CLIENT_DO_SEND:
        if (e->m->t == MSG_SEND) {
            unsigned i = 0;
            while (i < 64 && !id_equal(&s->said[i], &e->m->id))
                i++;
            BUG_ON(i == 64);
        }
        break;
    default:
        break;
    }
}

static void one(struct client *c, struct client_io *io, struct state *s, uint8_t what, uint8_t arg)
{
    static const char *const codes[] = {"rate_limited", "id_too_old", "id_conflict", "unknown_type"};
    struct claim heads[CHATS] = {{0, 5, arg}, {1, 5, arg / 2}, {2, 5, arg / 4}};
    struct msg m = {
        .chat = arg % CHATS, .epoch = 5, .seq = arg / CHATS + 1, .from = 8, .kind = SLICE("text")};
    struct client_event e = {.type = CLIENT_MESSAGE, .m = &m};
    m.id.b[0] = arg;
    switch (what % 16) {
    case 0:
        e.type = CLIENT_CONNECTED;
        break;
    case 1:
        e = (struct client_event){.type = CLIENT_DISCONNECTED, .reason = REASON_RESET};
        break;
    case 2:
        m = (struct msg){.t = MSG_WELCOME,
                         .epoch = 5,
                         .ts = io->now.wall_us,
                         .beat_s = 10,
                         .resume = heads,
                         .resume_n = CHATS};
        break;
    case 3:
    case 4:
    case 5:
        m.t = MSG_MSG;
        break;
    case 6:
        m.t = MSG_ACCEPTED;
        m.id = s->said[arg % 64];
        break;
    case 7:
        m.t = MSG_GAP;
        m.gap_from = m.seq;
        m.to = m.seq + arg % 5;
        break;
    case 8:
        m = (struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = arg % CHATS, .to = arg, .more = arg & 1};
        break;
    case 9:
        m = (struct msg){
            .t = MSG_ERROR, .re = SLICE("sync"), .code = slice_of(codes[arg % 4]), .id = s->said[arg % 64]};
        break;
    case 10:
        e = (struct client_event){
            .type = CLIENT_SUBMIT, .chat = arg % CHATS, .kind = SLICE("text"), .body = SLICE("x")};
        break;
    case 11:
        e = (struct client_event){.type = arg & 1 ? CLIENT_BACKGROUND : CLIENT_FOREGROUND};
        break;
    case 12:
        e = (struct client_event){.type = arg & 1 ? CLIENT_OFFLINE : CLIENT_ONLINE};
        break;
    case 13:
        e = (struct client_event){.type = arg & 1 ? CLIENT_UNACKED : CLIENT_PRESS, .id = s->said[arg % 64]};
        break;
    case 14:
        if (arg > 200) {
            e = (struct client_event){.type = CLIENT_STORAGE_LOST};
            memset(s->top, 0, sizeof s->top);
            break;
        } /* fall through */
    default:
        io->now.mono_ns += arg * 50 * NS_PER_MS;
        io->now.wall_us += arg * 50000ull;
        e = (struct client_event){.type = CLIENT_TIMER};
    }
    client_step(c, &e, io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct client_config config = {.features = CLIENT_RELIABLE,
                                                .retries = 3,
                                                .resync_window_ns = 1800 * NS_PER_S,
                                                .outbox_max = 16,
                                                .outbox_bytes_max = 1000};
    struct client_pool pool;
    struct claim claims[CHATS];
    struct state s = {0};
    struct rng rng;
    struct client c;
    struct client_io io = {.now = {NS_PER_S, 1764000000000000ull},
                           .rng = &rng,
                           .pool = &pool,
                           .claims = claims,
                           .claims_max = CHATS,
                           .emit = emit,
                           .arg = &s};
    rng_seed(&rng, 1);
    client_pool_init(&pool, CHATS);
    client_init(&c, &config, 7, 1);
    client_step(&c, &(struct client_event){.type = CLIENT_START}, &io);
    for (size_t i = 0; i + 1 < size; i += 2)
        one(&c, &io, &s, data[i], data[i + 1]);
    client_release(&c, &pool);
    BUG_ON(pool.used);
    client_pool_release(&pool);
    return 0;
}

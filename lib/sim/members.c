/* Somebody is removed from a chat, invited back and joins: an administrator's session straight into the node,
 * without a network. Each request is said three times, a second apart, as people do when a server is down. */
#include <stdlib.h>
#include <string.h>

#include "audit/live.h"
#include "sim/sim_impl.h"
#include "sim/watch.h"

#define DEVICE     99u
#define ROUNDS     3u
#define MEMBERS    256u
#define FIRST_CHAT 1000001u

struct sim_change {
    struct sim_change *next;
    uint64_t chat, admin, user;
    bool removes; /* else: is invited, and joins */
    uint32_t rounds;
};

static void say(struct sim *s, struct load_socket *c, const struct msg *m)
{
    struct buf b = BUF_INIT(1u << 16);
    proto_encode(&b, m);
    server_frame(s, c, b.data, b.len);
    buf_release(&b);
}

/* One session that greets, asks one thing and leaves. */
static void ask(struct sim *s, uint64_t user, const struct msg *m)
{
    struct buf token = BUF_INIT(4096);
    struct token t = {.user = user,
                      .device = DEVICE,
                      .issued_s = sim_now(s, 0).wall_us / 1000000,
                      .expires_s = sim_now(s, 0).wall_us / 1000000 + 86400 * 366ull};
    struct load_socket *c = conn_new(s, 0);
    BUG_ON(!c);
    c->console = true;
    c->user = user;
    if (server_console(c) && token_mint(&s->keys, &t, &token) == 0) {
        say(s, c,
            &(struct msg){.t = MSG_HELLO,
                          .device = DEVICE,
                          .net = SLICE("ethernet"),
                          .token = {token.data, token.len}});
        say(s, c, m);
    }
    buf_release(&token);
    c->refs++;
    sim_plan(s, s->now_ns + NS_PER_S, SIM_LATE, c, STREAM_SERVER);
}

void members_change(struct sim *s, struct sim_change *x)
{
    if (x->removes) {
        ask(s, x->admin, &(struct msg){.t = MSG_REMOVE, .chat = x->chat, .user = x->user});
    } else {
        ask(s, x->admin, &(struct msg){.t = MSG_INVITE, .chat = x->chat, .user = x->user});
        ask(s, x->user, &(struct msg){.t = MSG_JOIN, .chat = x->chat, .user = x->user});
    }
    if (++x->rounds < ROUNDS)
        sim_plan(s, s->now_ns + NS_PER_S, SIM_MEMBERS, x, 0);
}

static struct sim_change *change_new(struct sim *s, uint64_t chat, uint64_t admin, uint64_t user,
                                     bool removes)
{
    struct sim_change *x = calloc(1, sizeof *x);
    BUG_ON(!x);
    *x = (struct sim_change){
        .next = s->changes, .chat = chat, .admin = admin, .user = user, .removes = removes};
    s->changes = x;
    return x;
}

void members_remove(struct sim *s, uint32_t index)
{
    const struct scenario_fault *f = &s->s->faults[index];
    struct live_now who[MEMBERS];
    uint64_t first = LOAD_FIRST_USER, last;
    uint32_t n, p = 0;
    while (strcmp(s->s->load[p].name, f->target) != 0)
        first += s->s->load[p++].clients;
    last = first + s->s->load[p].clients;
    for (uint64_t chat = FIRST_CHAT;
         (n = live_members(s->live, chat, who, MEMBERS)) || live_knows(s->live, chat); chat++) {
        uint32_t admin = 0;
        while (admin < n && who[admin].role != 1)
            admin++;
        if (n < 2 || admin == n || who[0].user < first || who[0].user >= last ||
            !rng_hit(&s->rng, RNG_SHARE(f->share_ppm)))
            continue;
        uint32_t other = (uint32_t)rng_below(&s->rng, n - 1);
        other += other >= admin;
        struct sim_change *x = change_new(s, chat, who[admin].user, who[other].user, true);
        sim_plan(s, s->now_ns, SIM_MEMBERS, x, 0);
        if (!f->duration)
            continue;
        x = change_new(s, chat, who[admin].user, who[other].user, false);
        sim_plan(s, s->now_ns + f->duration + ROUNDS * NS_PER_S, SIM_MEMBERS, x, 0);
    }
}

void members_release(struct sim *s)
{
    while (s->changes) {
        struct sim_change *next = s->changes->next;
        free(s->changes);
        s->changes = next;
    }
}

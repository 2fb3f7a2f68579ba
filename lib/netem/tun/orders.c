/* Orders of the owner, on a socket, and of phones, in band. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/tun/shuttle_impl.h"
#include "util/clock.h"

void orders_in_band(struct shuttle *s, const struct packet *p, const uint8_t *at, uint64_t now_ns)
{
    struct netem_control order;
    struct radio *r = radio_of(s, p->src, now_ns);
    if (!r || p->payload < sizeof order)
        return;
    memcpy(&order, at + p->payload_at, sizeof order);
    if (memcmp(order.magic, "nctl", 4) != 0)
        return;
    if (order.op == NETEM_DETACH) {
        radio_log(s, r, TUN_FATE_DETACH, now_ns, 0);
        link_detach(&r->link, now_ns);
    } else if (order.op == NETEM_ATTACH) {
        radio_log(s, r, TUN_FATE_ATTACH, now_ns, 0);
        link_attach(&r->link, now_ns);
        r->era = link_address_era(&r->link, now_ns); /* it knows */
    }
    waiting_check(s, r, now_ns);
    radio_watch(s, r, now_ns);
}

static uint64_t until(const struct shuttle_order *o, uint64_t now_ns)
{
    return now_ns + (o->ns < UINT64_MAX / 4 ? o->ns : UINT64_MAX / 4);
}

static void obey(struct shuttle *s, struct radio *r, const struct shuttle_order *o, uint64_t now_ns)
{
    if (o->op == SHUTTLE_BLACKOUT) {
        radio_log(s, r, TUN_FATE_BLACKOUT, now_ns, until(o, now_ns));
        link_blackout(&r->link, now_ns, until(o, now_ns));
    } else if (o->op == SHUTTLE_DETACH) {
        radio_log(s, r, TUN_FATE_DETACH, now_ns, 0);
        link_detach(&r->link, now_ns);
    } else {
        radio_log(s, r, TUN_FATE_ATTACH, now_ns, 0);
        link_attach(&r->link, now_ns);
    }
    waiting_check(s, r, now_ns);
    radio_watch(s, r, now_ns);
}

static void obey_group(struct shuttle *s, uint32_t g, const struct shuttle_order *o, uint64_t now_ns)
{
    const struct tun_group *of = &s->c->groups[g];
    struct group_state *state = &s->groups[g];
    if (o->op != SHUTTLE_BLACKOUT)
        state->detached = o->op == SHUTTLE_DETACH;
    else if (state->blackout_until_ns < until(o, now_ns))
        state->blackout_until_ns = until(o, now_ns);
    for (uint32_t i = 0; i < of->count; i++) {
        struct radio *r = &s->radios[(of->first + i) & 0xFFFF];
        if (r->live && r->group == g)
            obey(s, r, o, now_ns);
    }
}

/* Blackout, detach or attach, for one phone or for groups. */
static int change(struct shuttle *s, const struct shuttle_order *o)
{
    uint64_t now_ns = clock_mono_ns();
    if (o->phone) {
        struct radio *r = radio_of(s, o->phone, now_ns);
        if (!r || (o->group != UINT32_MAX && r->group != o->group))
            return ERR_NOTFOUND;
        obey(s, r, o, now_ns);
        return 0;
    }
    for (uint32_t g = 0; g < s->c->groups_n; g++)
        if (o->group == UINT32_MAX || o->group == g)
            obey_group(s, g, o, now_ns);
    return 0;
}

static void move(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    radio_log(s, r, TUN_FATE_PROFILE, now_ns, 0);
    link_change(&r->link, s->groups[r->group].profile, now_ns);
    waiting_flush(s, r, now_ns, REASON_NONE);
    r->timer_ns = UINT64_MAX;
    radio_watch(s, r, now_ns);
}

/* The description's files are relative to where the owner is. */
static int parse(struct netem_profile *p, const struct shuttle_order *o, struct err_ctx *ctx)
{
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = here < 0 || (o->cwd[0] && chdir(o->cwd)) ? err_errno(ctx, "%s", o->cwd) : 0;
    rc = rc ? rc : netem_profile_parse(p, o->text, ctx);
    if (here >= 0 && fchdir(here) && !rc)
        rc = err_errno(ctx, "the working directory");
    if (here >= 0)
        close(here);
    return rc;
}

static int set_profile(struct shuttle *s, const struct shuttle_order *o, struct err_ctx *ctx)
{
    uint64_t now_ns;
    if (o->group >= s->c->groups_n)
        return err_set(ctx, ERR_INVALID, "one group at a time gets another network");
    struct netem_profile *p = malloc(sizeof *p);
    if (!p)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    int rc = parse(p, o, ctx);
    if (rc) {
        free(p);
        return rc;
    }
    struct group_state *g = &s->groups[o->group];
    const struct tun_group *of = &s->c->groups[o->group];
    g->profile = p;
    s->watches = s->watches || radio_tells(p);
    now_ns = clock_mono_ns();
    for (uint32_t i = 0; i < of->count && !s->calm; i++) {
        struct radio *r = &s->radios[(of->first + i) & 0xFFFF];
        if (r->live && r->group == o->group)
            move(s, r, now_ns);
    }
    free(g->owned); /* no link refers to it any more */
    g->owned = p;
    return 0;
}

/* The weather begins. Flows that were set up in the calm go on: the NAT knows them, by the link's era. */
static void begin(struct shuttle *s)
{
    uint64_t now_ns = clock_mono_ns();
    s->calm = false;
    for (uint32_t i = 0; i < RADIOS; i++) {
        struct radio *r = &s->radios[i];
        if (!r->live)
            continue;
        uint32_t era = r->link.nat_era;
        bool detached = r->link.detached;
        radio_log(s, r, TUN_FATE_PROFILE, now_ns, 0);
        radio_init_link(s, r, now_ns);
        r->link.nat_era = r->era = era;
        if (detached)
            link_detach(&r->link, now_ns);
        radio_watch(s, r, now_ns);
    }
}

/* Only where radios may be: to look at all addresses would hold up packets for milliseconds. */
static void look(struct shuttle *s)
{
    uint64_t now_ns = clock_mono_ns();
    for (uint32_t g = 0; g < s->c->groups_n; g++) {
        const struct tun_group *of = &s->c->groups[g];
        struct tun_stats *stats = &s->c->stats[g];
        stats->radios = 0;
        memset(stats->in_state, 0, sizeof stats->in_state);
        stats->dark = s->groups[g].blackout_until_ns > now_ns;
        stats->detached = s->groups[g].detached;
        for (uint32_t i = 0; i < of->count; i++) {
            struct radio *r = &s->radios[(of->first + i) & 0xFFFF];
            if (!r->live || r->group != g)
                continue;
            unsigned state = link_state(&r->link, now_ns);
            stats->radios++;
            stats->in_state[state < TUN_STATES ? state : TUN_STATES - 1]++;
        }
    }
}

void orders_answer(struct shuttle *s, int rc, const char *text)
{
    struct shuttle_answer a = {.rc = rc};
    snprintf(a.text, sizeof a.text, "%s", text);
    send(s->c->control_fd, &a, sizeof a, MSG_NOSIGNAL);
}

void orders_take(struct shuttle *s)
{
    static struct shuttle_order o;
    struct err_ctx ctx = {0};
    ssize_t n = recv(s->c->control_fd, &o, sizeof o, MSG_DONTWAIT);
    int rc = 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != sizeof o) {
        s->stop = s->orphaned = true;
        return;
    }
    switch ((enum shuttle_op)o.op) {
    case SHUTTLE_STOP:
        s->stop = true;
        return; /* answered when all is written */
    case SHUTTLE_BEGIN:
        begin(s);
        break;
    case SHUTTLE_PROFILE:
        rc = set_profile(s, &o, &ctx);
        break;
    case SHUTTLE_LOOK:
        look(s);
        break;
    case SHUTTLE_BLACKOUT:
    case SHUTTLE_DETACH:
    case SHUTTLE_ATTACH:
        rc = change(s, &o);
        if (rc)
            err_set(&ctx, rc, "that address is not in this group");
        break;
    }
    orders_answer(s, rc, ctx.text);
}

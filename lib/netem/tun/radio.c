/* Radios: which there are, what network each is in, and when their state changes. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "netem/tun/shuttle_impl.h"

/* What every link is until SHUTTLE_BEGIN: perfect, behind a NAT that learns the flows and forgets none. */
static const struct netem_profile calm_weather = {.name = "calm", .nat_idle_ns = UINT64_MAX / 4};

void radio_log(struct shuttle *s, const struct radio *r, enum tun_fate_kind kind, uint64_t now_ns,
               uint64_t until_ns)
{
    struct tun_fates *f = s->c->fates;
    if (!f)
        return;
    if (f->n == f->max) {
        f->missed++;
        return;
    }
    f->at[f->n] = (struct tun_fate){
        .at_ns = now_ns, .deliver_ns = until_ns, .phone = radio_phone(s, r), .kind = (uint8_t)kind};
    __atomic_store_n(&f->n, f->n + 1, __ATOMIC_RELEASE);
}

void radio_init_link(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    const struct group_state *g = &s->groups[r->group];
    r->timer_ns = UINT64_MAX;
    r->era = 0;
    link_init(&r->link, s->calm ? &calm_weather : g->profile, s->c->seed, radio_phone(s, r), now_ns);
    if (g->blackout_until_ns > now_ns) {
        link_blackout(&r->link, now_ns, g->blackout_until_ns);
        radio_log(s, r, TUN_FATE_BLACKOUT, now_ns, g->blackout_until_ns);
    }
    if (g->detached) {
        link_detach(&r->link, now_ns);
        radio_log(s, r, TUN_FATE_DETACH, now_ns, 0);
    }
}

struct radio *radio_of(struct shuttle *s, uint32_t phone, uint64_t now_ns)
{
    if ((phone & 0xFFFF0000u) != NETEM_NEAR_NET || s->group_of[phone & 0xFFFF] == NO_GROUP)
        return NULL;
    struct radio *r = &s->radios[phone & 0xFFFF];
    if (r->live)
        return r;
    r->live = true;
    r->group = s->group_of[phone & 0xFFFF];
    radio_init_link(s, r, now_ns);
    radio_watch(s, r, now_ns);
    return r;
}

static uint16_t checksum(const void *at, size_t n)
{
    const uint16_t *word = at;
    uint32_t sum = 0;
    for (; n > 1; n -= 2)
        sum += *word++;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The phone hears, from its modem and not over the air, that it has another address now. UDP without a
 * checksum, as RFC 768 allows. Nobody needs to listen: what the kernel answers to that goes to the control
 * address and ends here. */
static void tell_moved(struct shuttle *s, const struct radio *r)
{
    struct {
        struct iphdr ip;
        struct udphdr udp;
        struct netem_control control;
    } __attribute__((packed)) p = {
        .ip = {.version = 4,
               .ihl = 5,
               .tot_len = htons(sizeof p),
               .ttl = 64,
               .protocol = IPPROTO_UDP,
               .saddr = htonl(NETEM_CONTROL_ADDR),
               .daddr = htonl(radio_phone(s, r))},
        .udp = {.source = htons(NETEM_CONTROL_PORT),
                .dest = htons(NETEM_CONTROL_PORT),
                .len = htons(sizeof p.udp + sizeof p.control)},
        .control = {"nctl", NETEM_MOVED, {0}},
    };
    struct iphdr head = p.ip;
    p.ip.check = checksum(&head, sizeof head);
    if (write(s->c->tun_fd[0], &p, sizeof p) == sizeof p)
        count(&stats_of(s, r->group)->moved, 1);
}

bool radio_tells(const struct netem_profile *p)
{
    return p->handover_loses_ppm || p->blackout_loses_ppm;
}

static void note_state(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    static const uint8_t reasons[LINK_STATE_COUNT] = {
        [LINK_HANDOVER] = REASON_HANDOVER,       [LINK_HANDOVER_LOSES] = REASON_HANDOVER,
        [LINK_CELL] = REASON_HANDOVER,           [LINK_BLACKOUT] = REASON_BLACKOUT,
        [LINK_BLACKOUT_LOSES] = REASON_BLACKOUT, [LINK_DETACHED] = REASON_DETACHED};
    uint32_t era = link_address_era(&r->link, now_ns);
    if (era != r->era) {
        r->era = era;
        tell_moved(s, r);
    }
    enum link_state state = link_state(&r->link, now_ns);
    if (state == r->state)
        return;
    r->state = (uint8_t)state;
    struct trace_event e = {.ts_ns = now_ns,
                            .user = radio_phone(s, r),
                            .arg = state,
                            .node = TRACE_NODE_LINK,
                            .hop = HOP_LINK_STATE,
                            .reason = reasons[state]};
    trace_emit(s->writer, &e);
}

/* An entry of the heap that is not the radio's earliest is stale and ignored; past RADIOS * 2 entries, which
 * only many orders for blackouts could reach, ends of blackouts are noted late. */
void radio_watch(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    if (!s->watches)
        return;
    note_state(s, r, now_ns);
    uint64_t next = link_state_until(&r->link, now_ns);
    if (r->timer_ns > now_ns && r->timer_ns <= next)
        return;
    r->timer_ns = next;
    if (next != UINT64_MAX && !heap_push(&s->states, next, (uint32_t)(r - s->radios)))
        r->timer_ns = UINT64_MAX;
}

void radio_run_states(struct shuttle *s, uint64_t now_ns)
{
    while (heap_first_ns(&s->states) <= now_ns) {
        uint64_t at = heap_first_ns(&s->states);
        struct radio *r = &s->radios[heap_pop(&s->states)];
        if (r->timer_ns != at)
            continue;
        r->timer_ns = UINT64_MAX;
        radio_watch(s, r, now_ns);
    }
}

/* Radios: packets between phones and the server, as netem/tun/shuttle.c does it with real ones. */
#include <stdlib.h>
#include <string.h>

#include "netem/control.h"
#include "sim/sim_impl.h"

#define NAT_FLOWS 8                /* for each address */
#define WIRE_NS   (20 * NS_PER_US) /* where there is no link: a loopback device */

/* What every link is until the load begins: perfect, behind a NAT that forgets no flow. */
static const struct netem_profile calm_weather = {.name = "calm", .nat_idle_ns = UINT64_MAX / 4};

int net_init(struct sim *s, struct err_ctx *ctx)
{
    bool linked = false;
    s->calm = true;
    for (uint32_t i = 0; i < s->s->load_n; i++) {
        const struct scenario_link *l = scenario_find_link(s->s, s->s->load[i].link);
        if (!l)
            continue;
        int rc = netem_profile_parse(&s->profile[i][0], l->profile, ctx);
        if (rc) {
            err_prefix(ctx, "%s: links.%s.profile: ", s->s->path, l->name);
            return rc;
        }
        linked = true;
    }
    if (!linked)
        return 0;
    uint32_t first, count;
    scenario_addresses(s->s, 0, &s->first_address, &count);
    scenario_addresses(s->s, s->s->load_n - 1, &first, &count);
    s->radios_n = first + count - s->first_address;
    s->radios = calloc(s->radios_n, sizeof *s->radios);
    if (!s->radios || link_nat_init(&s->nat, s->radios_n * NAT_FLOWS))
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t g = 0; g < s->s->load_n; g++) {
        scenario_addresses(s->s, g, &first, &count);
        for (uint32_t i = 0; i < count; i++)
            s->radios[first + i - s->first_address].group = (uint16_t)g;
    }
    return 0;
}

void net_release(struct sim *s)
{
    while (s->spare) {
        struct sim_packet *next = s->spare->next;
        free(s->spare);
        s->spare = next;
    }
    if (s->nat.at)
        link_nat_release(&s->nat);
    free(s->radios);
}

/* ---- weather ---- */

static uint32_t address_of(const struct sim *s, const struct sim_radio *r)
{
    return s->first_address + (uint32_t)(r - s->radios);
}

static void trace_state(struct sim *s, struct sim_radio *r)
{
    static const uint8_t reasons[LINK_STATE_COUNT] = {
        [LINK_HANDOVER] = REASON_HANDOVER,       [LINK_HANDOVER_LOSES] = REASON_HANDOVER,
        [LINK_CELL] = REASON_HANDOVER,           [LINK_BLACKOUT] = REASON_BLACKOUT,
        [LINK_BLACKOUT_LOSES] = REASON_BLACKOUT, [LINK_DETACHED] = REASON_DETACHED};
    enum link_state state = link_state(&r->link, s->now_ns);
    if (state == r->state)
        return;
    r->state = (uint8_t)state;
    trace_emit(s->link_trace, &(struct trace_event){.ts_ns = s->now_ns,
                                                    .user = address_of(s, r),
                                                    .arg = state,
                                                    .hop = HOP_LINK_STATE,
                                                    .reason = reasons[state]});
}

static void watch_state(struct sim *s, struct sim_radio *r)
{
    if (!s->link_trace)
        return;
    trace_state(s, r);
    uint64_t next = link_state_until(&r->link, s->now_ns);
    if (next == UINT64_MAX || (r->look_ns > s->now_ns && r->look_ns <= next))
        return;
    r->look_ns = next;
    sim_plan(s, next, SIM_WEATHER, r, 0);
}

void net_weather(struct sim *s, struct sim_radio *r)
{
    if (r->look_ns != s->now_ns)
        return; /* a later plan has replaced this one */
    r->look_ns = 0;
    watch_state(s, r);
}

static const struct netem_profile *profile_of(const struct sim *s, const struct sim_radio *r)
{
    return &s->profile[r->group][s->profile_at[r->group]];
}

static void init_link(struct sim *s, struct sim_radio *r)
{
    const struct netem_profile *p = s->calm ? &calm_weather : profile_of(s, r);
    link_init(&r->link, p, s->s->seed, address_of(s, r), s->now_ns);
    if (r->blackout_until_ns > s->now_ns)
        link_blackout(&r->link, s->now_ns, r->blackout_until_ns);
}

struct sim_radio *net_radio_of(struct sim *s, uint32_t address)
{
    BUG_ON(!s->radios || address - s->first_address >= s->radios_n);
    struct sim_radio *r = &s->radios[address - s->first_address];
    if (!r->live) {
        r->live = true;
        init_link(s, r);
        watch_state(s, r);
    }
    return r;
}

/* Flows that were set up in the calm go on: the NAT knows them, by the link's era. */
void net_begin(struct sim *s)
{
    s->calm = false;
    for (uint32_t i = 0; i < s->radios_n; i++) {
        struct sim_radio *r = &s->radios[i];
        if (!r->live)
            continue;
        uint32_t era = r->link.nat_era;
        bool detached = r->link.detached;
        init_link(s, r);
        r->link.nat_era = era;
        if (detached)
            link_detach(&r->link, s->now_ns);
        watch_state(s, r);
    }
}

void net_blackout(struct sim *s, uint32_t address, uint64_t ns)
{
    struct sim_radio *r = net_radio_of(s, address);
    uint64_t until_ns = s->now_ns + (ns < UINT64_MAX / 4 ? ns : UINT64_MAX / 4);
    if (r->blackout_until_ns < until_ns)
        r->blackout_until_ns = until_ns;
    link_blackout(&r->link, s->now_ns, until_ns);
    watch_state(s, r);
}

void net_profile(struct sim *s, uint32_t population, const struct netem_profile *p)
{
    /* the links look at the old one once more */
    s->profile_at[population] ^= 1;
    s->profile[population][s->profile_at[population]] = *p;
    for (uint32_t i = 0; i < s->radios_n; i++) {
        struct sim_radio *r = &s->radios[i];
        if (!r->live || r->group != population)
            continue;
        link_change(&r->link, profile_of(s, r), s->now_ns);
        watch_state(s, r);
    }
}

void net_radio(struct sim *s, uint32_t address, int op)
{
    if (!address || !s->radios)
        return;
    struct sim_radio *r = net_radio_of(s, address);
    if (op == NETEM_DETACH)
        link_detach(&r->link, s->now_ns);
    else
        link_attach(&r->link, s->now_ns);
    watch_state(s, r);
}

/* ---- packets ---- */

static void trace_packet(struct sim *s, const struct load_socket *c, const struct stream_packet *p,
                         enum hop hop, enum reason reason)
{
    bool down = p->from == STREAM_SERVER;
    if (!s->link_trace || (hop == HOP_LINK_DELIVER && !p->len && !(p->flags & ~STREAM_ACK)))
        return;
    struct trace_flow f = {.src = down ? SIM_SERVER_ADDR : c->source,
                           .dst = down ? c->source : SIM_SERVER_ADDR,
                           .sport = down ? SIM_SERVER_PORT : c->port,
                           .dport = down ? c->port : SIM_SERVER_PORT,
                           .tcp_seq = c->isn[p->from] + (uint32_t)p->seq};
    struct trace_event e = {.ts_ns = s->now_ns,
                            .user = c->source,
                            .arg = p->len,
                            .hop = (uint8_t)hop,
                            .reason = (uint8_t)reason,
                            .flags = (uint8_t)((down ? TRACE_FLAG_DOWN : 0) |
                                               (p->flags & STREAM_SYN ? TRACE_FLAG_SYN : 0) |
                                               (p->flags & STREAM_FIN ? TRACE_FLAG_FIN : 0) |
                                               (p->flags & STREAM_RST ? TRACE_FLAG_RST : 0))};
    memcpy(&e.id, &f, sizeof f);
    trace_emit(s->link_trace, &e);
}

/* NAT and radio in the order in which a packet meets them. */
static struct link_verdict fate(struct sim *s, struct load_socket *c, const struct stream_packet *p)
{
    enum netem_dir dir = p->from == STREAM_PHONE ? NETEM_UP : NETEM_DOWN;
    struct link_flow f = {.phone = c->source,
                          .peer = SIM_SERVER_ADDR,
                          .phone_port = c->port,
                          .peer_port = SIM_SERVER_PORT,
                          .protocol = 6,
                          .syn = p->flags == STREAM_SYN};
    struct link_verdict v = {.depart_ns = s->now_ns, .deliver_ns = s->now_ns + WIRE_NS};
    if (!c->radio)
        return v;
    struct link *l = &c->radio->link;
    if (dir == NETEM_DOWN && (v.reason = link_nat_pass(l, &s->nat, dir, s->now_ns, &f)))
        return v;
    v = link_offer(l, dir, s->now_ns, stream_packet_bytes(p));
    if (dir == NETEM_UP && !v.reason)
        v.reason = link_nat_pass(l, &s->nat, dir, s->now_ns, &f);
    return v;
}

static void plan_packet(struct sim *s, struct load_socket *c, const struct stream_packet *p,
                        const struct link_verdict *v, uint64_t deliver_ns, bool corrupt)
{
    struct sim_packet *packet = s->spare;
    if (packet)
        s->spare = packet->next;
    else
        packet = malloc(sizeof *packet);
    BUG_ON(!packet);
    packet->conn = c;
    packet->depart_ns = v->depart_ns;
    packet->corrupt = corrupt;
    packet->p = *p;
    c->refs++;
    sim_plan(s, deliver_ns > s->now_ns ? deliver_ns : s->now_ns, SIM_PACKET, packet, p->len);
}

/* Hot path: every packet of either kernel. */
void net_packet(void *arg, struct stream *st, const struct stream_packet *p)
{
    struct load_socket *c = arg;
    struct sim *s = c->sim;
    (void)st;
    struct link_verdict v = fate(s, c, p);
    if (v.reason) {
        trace_packet(s, c, p, HOP_LINK_DROP, v.reason);
        return;
    }
    plan_packet(s, c, p, &v, v.deliver_ns, v.corrupt);
    if (v.copy_ns)
        plan_packet(s, c, p, &v, v.copy_ns, false);
}

void net_arrive(struct sim *s, struct sim_packet *packet)
{
    struct load_socket *c = packet->conn;
    struct stream_packet p = packet->p;
    enum netem_dir dir = p.from == STREAM_PHONE ? NETEM_UP : NETEM_DOWN;
    enum reason reason = c->radio ? link_recheck(&c->radio->link, dir, packet->depart_ns) : REASON_NONE;
    if (!reason && packet->corrupt)
        reason = REASON_CORRUPT; /* the kernel's check sum finds it */
    packet->next = s->spare;
    s->spare = packet;
    if (reason) {
        trace_packet(s, c, &p, HOP_LINK_DROP, reason);
    } else if (dir == NETEM_DOWN || !c->server->dark) { /* a machine without power answers nothing */
        trace_packet(s, c, &p, HOP_LINK_DELIVER, REASON_NONE);
        stream_arrive(&c->stream, &p, s->now_ns);
        conn_arm(c);
    }
    conn_unref(c);
}

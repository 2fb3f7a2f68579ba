/* Reading captures for what they prove. */
#include "wire/pcap/evidence.h"

#include <stdlib.h>
#include <string.h>

#include "wire/pcap/evidence_impl.h"

/* A host's TCP answers at once; what captures it may come to it later: up to 33 ms were seen on a busy
 * machine. */
#define ANSWER_NS 100000000u

void *ev_add(struct evidence *e, struct ev_list *l, size_t size)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 1024;
        void *p = cap < UINT32_MAX / 2 ? realloc(l->p, (size_t)cap * size) : NULL;
        if (!p) {
            e->no_memory = true;
            return NULL;
        }
        l->p = p;
        l->cap = cap;
    }
    void *out = (char *)l->p + (size_t)l->n++ * size;
    memset(out, 0, size);
    return out;
}

int evidence_new(struct evidence **out, struct dialect *dialect, size_t memory, struct err_ctx *ctx)
{
    struct evidence *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e || !(e->scratch.data = malloc(PROTO_SCRATCH))) {
        free(e);
        return err_set(ctx, ERR_NOMEM, "out of memory");
    }
    e->scratch.cap = PROTO_SCRATCH;
    e->decoder.dialect = dialect;
    e->memory = memory;
    *out = e;
    return 0;
}

void evidence_free(struct evidence *e)
{
    if (!e)
        return;
    free(e->packet.p);
    free(e->conn.p);
    free(e->message.p);
    for (int i = 0; i < TRACE_SIDES; i++)
        free(e->record[i].p);
    chat_decoder_release(&e->decoder);
    free(e->scratch.data);
    free(e);
}

static uint32_t address(const uint8_t a[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint32_t v = 0;
    if (memcmp(a, mapped, 12) != 0)
        return (uint32_t)hash_bytes(a, 16, 1) | 0xf0000000u; /* of no IPv4 host */
    for (int i = 12; i < 16; i++)
        v = v << 8 | a[i];
    return v;
}

/* ---- what the tap tells ---- */

static uint32_t index_of(const struct tcp_flow *f)
{
    return (uint32_t)(uintptr_t)tap_conn(f)->user;
}

static void on_open(void *arg, struct tcp_flow *f)
{
    struct evidence *e = arg;
    uint32_t i = e->conn.n;
    struct ev_conn *c = ev_add(e, &e->conn, sizeof *c);
    tap_conn(f)->user = (void *)(uintptr_t)(c ? i : EV_NONE);
    if (!c)
        return;
    c->point = e->points - 1;
    c->number = i + 1;
    c->flow = (struct trace_flow){address(f->addr[0]), address(f->addr[1]), f->port[0], f->port[1], 0};
}

static void on_message(void *arg, const struct tap_message *m)
{
    struct evidence *e = arg;
    uint32_t i = index_of(m->flow);
    if (i == EV_NONE)
        return;
    struct ev_conn *c = ev_conn(e, i);
    if (!c->websocket) {
        c->websocket = true;
        c->open_ns = m->first_ns;
        c->start[m->dir] = m->from;
        c->guess = m->guess;
    }
    e->point[c->point].messages++;
    e->point[c->point].missed += m->unreadable || m->cut;
    ev_take_message(e, m);
}

static void on_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why)
{
    struct evidence *e = arg;
    (void)dir;
    if (why != TCP_GAP_UNACKED && tap_conn(f)->kind != TAP_HTTP)
        e->point[e->points - 1].missed += to - from;
}

static void note_roles(struct evidence *e, const struct tcp_flow *f)
{
    struct evidence_point *p = &e->point[e->points - 1];
    if (!f->syn_ns || !f->synack_ns || !f->ack_ns || f->synack_ns < f->syn_ns || f->ack_ns < f->synack_ns)
        return;
    /* The longer half of the round trip lies on the other side. Sums, so that connections over a quick link,
     * where only chance differs, count little; kept here until evidence_finish. */
    int64_t server = (int64_t)(f->synack_ns - f->syn_ns), client = (int64_t)(f->ack_ns - f->synack_ns);
    int64_t d = server - client;
    p->clock_ns += d > 1000000000 ? 1000000000 : d < -1000000000 ? -1000000000 : d;
}

static void on_close(void *arg, struct tcp_flow *f)
{
    struct evidence *e = arg;
    uint32_t i = index_of(f);
    if (i == EV_NONE)
        return;
    struct ev_conn *c = ev_conn(e, i);
    struct evidence_point *p = &e->point[c->point];
    note_roles(e, f);
    c->end_ns = f->last_ns;
    c->syn_ns = f->syn_ns;
    for (int d = 0; d < 2; d++) {
        if (!d || !c->end_seen_ns[0])
            c->acked[d] = f->half[d].ack_seen ? f->half[d].acked : 0;
        c->captured_end[d] = f->half[d].seen;
    }
    c->open_end = f->end == TCP_END_OPEN && !f->fin_ns[0] && !f->fin_ns[1];
    bool reset = f->rst_ns != 0;
    c->reset_by_client = reset && f->rst_dir == 0 && !f->fin_ns[0];
    uint64_t rst_client = reset && f->rst_dir == 0 ? f->rst_ns : 0;
    c->left_ns = f->fin_ns[0] && (!rst_client || f->fin_ns[0] < rst_client) ? f->fin_ns[0] : rst_client;
    c->whole_end = reset || f->fin_ns[0] || f->fin_ns[1];
    c->close_ns = c->left_ns ? c->left_ns : reset ? f->rst_ns : f->fin_ns[1] ? f->fin_ns[1] : 0;
    c->close_reason = c->left_ns ? (c->reset_by_client ? REASON_RESET : REASON_CLOSED_BY_US)
                      : reset    ? REASON_RESET
                                 : REASON_CLOSED_BY_PEER;
    if (f->half[1].ack_seen && f->half[1].acked < f->half[1].seen)
        c->stalled_ns = f->half[1].acked_ns;
    p->connections += c->websocket;
    p->missed += (c->websocket && (c->guess || !f->half[0].origin_known || !f->half[1].origin_known)) ||
                 f->end == TCP_END_EVICTED;
}

/* ---- packets ---- */

/* fate=lost reason="queue full": what a capture of chat-netem says beside the packet. */
static void read_comment(struct ev_packet *p, const char *text, uint32_t n)
{
    static const char lost[] = "fate=lost", reason[] = "reason=\"";
    if (!text || !memmem(text, n, lost, sizeof lost - 1))
        return;
    p->lost = true;
    p->aired = memmem(text, n, " air=", 5) != NULL;
    const char *r = memmem(text, n, reason, sizeof reason - 1);
    if (!r)
        return;
    r += sizeof reason - 1;
    size_t left = n - (size_t)(r - text);
    for (int i = 1; i < REASON_COUNT; i++) {
        size_t k = strlen(reason_text(i));
        if (k && k < left && !memcmp(r, reason_text(i), k) && r[k] == '"')
            p->reason = (uint8_t)i;
    }
}

/* Since when what this sender says now may have waited: bytes and a FIN are written whenever its program
 * likes and leave when those before them are acknowledged. Seen from the far end the acknowledgement and what
 * it set free are a round trip apart. */
static uint64_t waited_since(const struct ev_conn *c, const struct tcp_flow *f, int dir, uint64_t ns)
{
    const struct ev_stuck *k = &c->stuck[dir];
    uint64_t from = dir ? f->syn_ns : f->synack_ns, to = dir ? f->synack_ns : f->ack_ns;
    uint64_t way = from && to > from ? 2 * (to - from) : 0;
    if (k->since_ns)
        return k->since_ns;
    return k->freed_ns && ns < k->freed_ns + ANSWER_NS + way ? k->was_ns : ns;
}

/* Its first FIN or RST. A reset that answers nothing is sent at once; one that answers is what a host says
 * for a program that left before, its FIN perhaps behind bytes. */
static void note_end(struct ev_conn *c, const struct tcp_flow *f, int dir, unsigned flags, uint64_t ns)
{
    bool answers = ns < c->stuck[!dir].packet_ns + ANSWER_NS;
    if (c->end_seen_ns[dir] || !(flags & (PACKET_FIN | PACKET_RST)))
        return;
    c->end_seen_ns[dir] = ns;
    c->may_end_ns[dir] = flags & PACKET_FIN || answers ? waited_since(c, f, dir, ns) : ns;
    if (dir == 0)
        c->acked[1] = f->half[1].ack_seen ? f->half[1].acked : 0;
}

/* A reset may acknowledge, and so does what the other end answers with one: by then all was over. */
static void note_stuck(struct ev_conn *c, const struct tcp_flow *f, int of, uint64_t ns)
{
    struct ev_stuck *k = &c->stuck[of];
    if (!f->half[of].ack_seen || f->half[of].acked < f->half[of].seen) {
        k->since_ns = waited_since(c, f, of, ns); /* what is set free may have waited as long itself */
    } else if (!f->rst_ns && k->since_ns) {
        k->was_ns = k->since_ns;
        k->freed_ns = ns;
        k->since_ns = 0;
    }
}

static void take_packet(struct evidence *e, const struct capture_packet *k)
{
    struct packet p;
    struct evidence_point *point = &e->point[e->points - 1];
    if (!point->first_ns || k->ts_ns < point->first_ns)
        point->first_ns = k->ts_ns;
    if (k->ts_ns > point->last_ns)
        point->last_ns = k->ts_ns;
    point->packets++;
    point->missed += k->dropped;
    enum packet_kind kind =
        packet_link_known(k->link) ? packet_read(&p, k->link, k->p, k->n, k->wire) : PACKET_SHORT;
    point->missed += kind == PACKET_SHORT || kind == PACKET_FRAGMENT || kind == PACKET_PDU; /* no packets */
    if (kind != PACKET_TCP)
        return;
    uint8_t payload[64];
    uint32_t sample = p.captured < sizeof payload ? p.captured : sizeof payload;
    memcpy(payload, p.payload, sample); /* the tap takes masks off */
    tap_packet(&e->tap, &p, k->iface, k->ts_ns, k->number);
    struct tcp_flow *f = e->tap.tcp.last;
    if (!f || !f->user || tap_conn(f)->kind == TAP_TLS || tap_conn(f)->kind == TAP_OTHER ||
        index_of(f) == EV_NONE)
        return;
    int dir = !(p.port[0] == f->port[0] && !memcmp(p.addr[0], f->addr[0], 16));
    struct ev_conn *c = ev_conn(e, index_of(f));
    if (dir == 0)
        c->heard_ns = k->ts_ns;
    note_end(c, f, dir, p.flags, k->ts_ns);
    if (dir == 0 && !c->end_seen_ns[0] && f->half[1].acked > c->took_to) {
        c->took_to = f->half[1].acked;
        if (c->stuck[1].since_ns)
            c->took_ns =
                c->stuck[1].since_ns; /* after close(2) a host answers bytes with a reset, RFC 1122 */
    }
    if (dir == 0 && f->half[0].seen > c->spoke_to) {
        uint64_t ns = waited_since(c, f, 0, k->ts_ns);
        c->spoke_to = f->half[0].seen;
        c->spoke_ns = ns > c->spoke_ns ? ns : c->spoke_ns;
    }
    for (int of = 0; of < 2; of++)
        note_stuck(c, f, of, k->ts_ns);
    c->stuck[dir].packet_ns = k->ts_ns;
    if (!p.payload_len && !(p.flags & (PACKET_SYN | PACKET_FIN | PACKET_RST)))
        return;
    struct ev_packet *out = ev_add(e, &e->packet, sizeof *out);
    if (!out)
        return;
    out->flow = (struct trace_flow){address(p.addr[0]), address(p.addr[1]), p.port[0], p.port[1], p.seq};
    struct {
        struct trace_flow flow;
        uint32_t ack, len;
        uint16_t ip_id, window;
        uint8_t flags, pad[3];
    } same = {out->flow, p.ack, p.payload_len, p.ip_id, p.window, p.flags, {0}};
    out->hash = hash_bytes(payload, sample, hash_bytes(&same, sizeof same, 7));
    out->ts_ns = k->ts_ns;
    out->conn = index_of(f);
    out->len = p.payload_len;
    out->dir = (uint8_t)dir;
    out->flags =
        (uint8_t)((dir ? TRACE_FLAG_DOWN : 0) | (p.flags & PACKET_SYN ? TRACE_FLAG_SYN : 0) |
                  (p.flags & PACKET_FIN ? TRACE_FLAG_FIN : 0) | (p.flags & PACKET_RST ? TRACE_FLAG_RST : 0));
    read_comment(out, k->comment, k->comment_n);
}

int evidence_read(struct evidence *e, const char *path, struct err_ctx *ctx)
{
    struct capture_file *f = NULL;
    struct capture_packet k;
    struct tcp_config c = {.memory = e->memory};
    struct tap_events on = {
        .arg = e, .open = on_open, .message = on_message, .gap = on_gap, .close = on_close};
    if (e->points == EVIDENCE_POINTS_MAX)
        return err_set(ctx, ERR_LIMIT, "more than %d captures", EVIDENCE_POINTS_MAX);
    struct evidence_point *p = &e->point[e->points++];
    size_t n = strlen(path), keep = n < sizeof p->path ? n : sizeof p->path - 1;
    memcpy(p->path, path + n - keep, keep + 1);
    int rc = tap_init(&e->tap, &c, &on, ctx);
    rc = rc ? rc : capture_open_file(&f, path, ctx);
    while (rc >= 0 && (rc = capture_next(f, &k, ctx)) > 0)
        take_packet(e, &k);
    p->missed += rc < 0;
    tap_finish(&e->tap);
    p->missed += e->tap.tcp.count.no_memory + (f ? capture_dropped(f) : 0);
    tap_release(&e->tap);
    capture_close_file(f);
    return e->no_memory ? err_set(ctx, ERR_NOMEM, "%s: out of memory", path) : rc < 0 ? rc : 0;
}

int evidence_finish(struct evidence *e, const bool want[TRACE_SIDES], struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < e->points; i++) {
        struct evidence_point *p = &e->point[i];
        p->role = p->clock_ns > 0 ? EVIDENCE_PHONES : EVIDENCE_SERVER;
        p->clock_ns = 0;
    }
    int rc = ev_match(e, ctx);
    rc = rc ? rc : ev_records(e, want, ctx);
    return e->no_memory ? err_set(ctx, ERR_NOMEM, "out of memory") : rc;
}

int evidence_parts(const struct evidence *e, const struct trace_memory **part)
{
    *part = e->part;
    return e->parts;
}

int evidence_points(const struct evidence *e, const struct evidence_point **point)
{
    *point = e->point;
    return (int)e->points;
}

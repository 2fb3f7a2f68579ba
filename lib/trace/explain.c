/* One message's life as text. */
#include "trace/story_impl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COMMON_MAX 30 /* records that concern all recipients */
#define TRIES_MAX  8  /* transmissions of the same bytes that are told one by one */
#define SHOWN_MAX  12 /* recipients told in full; one screen */

struct telling {
    const struct story *s;
    struct buf *out;
    uint64_t zero_ns;
};

static void tell_time(const struct telling *t, uint64_t ns)
{
    double ms = ns >= t->zero_ns ? (double)(ns - t->zero_ns) / 1e6 : -(double)(t->zero_ns - ns) / 1e6;
    buf_printf(t->out, "  %+12.3f ms  ", ms);
}

struct packets {
    const struct trace_run *r;
    uint32_t dropped, delivered, by_reason[REASON_COUNT];
    uint64_t first_drop, first_delivery;
    uint64_t at[TRIES_MAX]; /* of the first packets, in order */
    uint8_t why[TRIES_MAX]; /* each was dropped for; REASON_NONE: delivered */
};

static void count_packet(void *arg, uint32_t rec)
{
    struct packets *p = arg;
    const struct trace_event *e = &p->r->event[rec];
    if (p->dropped + p->delivered < TRIES_MAX) {
        p->at[p->dropped + p->delivered] = e->ts_ns;
        p->why[p->dropped + p->delivered] = e->hop == HOP_LINK_DROP ? e->reason : REASON_NONE;
    }
    if (e->hop == HOP_LINK_DROP) {
        if (!p->dropped++)
            p->first_drop = e->ts_ns;
        p->by_reason[e->reason]++;
    } else {
        if (!p->delivered++)
            p->first_delivery = e->ts_ns;
    }
}

/* The end of what was written before this record in its lane: where its own bytes begin. */
static uint64_t bytes_begin(const struct trace_run *r, const struct lane *l, uint32_t rec)
{
    const struct groups *g = &r->index->lanes;
    uint32_t number = (uint32_t)(l - r->index->lane);
    uint64_t from = 0;
    for (uint32_t k = g->first[number]; k < g->first[number + 1] && g->rec[k] < rec; k++) {
        const struct trace_event *e = &r->event[g->rec[k]];
        bool offset = e->hop == HOP_SOCKET_OPEN || e->hop == HOP_SOCKET_WRITE || e->hop == HOP_CLIENT_SEND ||
                      e->hop == HOP_SERVER_PUSH;
        if (offset && e->arg > from && e->arg < r->event[rec].arg)
            from = e->arg;
    }
    return from;
}

/* The packets that carried what this record wrote; *reset: what ended the connection, if none came through.
 */
static struct packets packets_under(const struct trace_run *r, uint32_t rec, bool down, uint32_t *reset)
{
    const struct trace_event *e = &r->event[rec];
    struct lane *l = lane_of(r, e), *other = l && l->peer != TRACE_NONE ? &r->index->lane[l->peer] : NULL;
    struct packets p = {.r = r};
    *reset = TRACE_NONE;
    if (!l)
        return p;
    link_packets(r, down ? other : l, down ? l : other, down,
                 (struct byte_range){bytes_begin(r, l, rec), e->arg, skewed_before(e->ts_ns)}, count_packet,
                 &p);
    if (p.dropped && !p.delivered)
        *reset = link_reset(r, down ? other : l, down ? l : other, skewed_before(e->ts_ns));
    return p;
}

static void tell_packets(const struct telling *t, uint32_t rec, bool down)
{
    const struct trace_run *r = t->s->r;
    uint32_t reset;
    struct packets p = packets_under(r, rec, down, &reset);
    if (!p.dropped && !p.delivered)
        return;
    buf_str(t->out, "                     packets under it: ");
    if (p.dropped) {
        buf_printf(t->out, "%u dropped (", p.dropped);
        bool any = false;
        for (int q = 0; q < REASON_COUNT; q++)
            if (p.by_reason[q]) {
                buf_printf(t->out, "%s%s %u", any ? ", " : "", reason_text(q), p.by_reason[q]);
                any = true;
            }
        buf_printf(t->out, "; first at %+.3f ms)%s", ((double)p.first_drop - (double)t->zero_ns) / 1e6,
                   p.delivered ? ", " : "");
    }
    if (p.delivered)
        buf_printf(t->out, "%u delivered (first at %+.3f ms)", p.delivered,
                   ((double)p.first_delivery - (double)t->zero_ns) / 1e6);
    buf_char(t->out, '\n');
    uint32_t n = p.dropped + p.delivered;
    if (p.dropped && n > 1) {
        buf_str(t->out, "                     TCP tried again after");
        for (uint32_t i = 1; i < n && i < TRIES_MAX; i++)
            buf_printf(t->out, " +%.3f", ((double)p.at[i] - (double)p.at[0]) / 1e9);
        buf_printf(t->out, " s%s\n", n > TRIES_MAX ? " and later" : "");
    }
    if (reset != TRACE_NONE)
        buf_printf(t->out, "                     the connection was reset at %+.3f ms (%s)  [#%u]\n",
                   ((double)r->event[reset].ts_ns - (double)t->zero_ns) / 1e6,
                   r->event[reset].flags & TRACE_FLAG_DOWN ? "by the server's side" : "by the phone's side",
                   reset);
}

static void tell_record(const struct telling *t, uint32_t rec)
{
    const struct trace_run *r = t->s->r;
    const struct trace_event *e = &r->event[rec];
    const struct lane *l = lane_of(r, e);
    tell_time(t, e->ts_ns);
    struct trace_flow f;
    memcpy(&f, &e->id, sizeof f);
    buf_printf(t->out, "%-17s", hop_text(e->hop));
    if (e->hop == HOP_CLIENT_SEND || e->hop == HOP_SERVER_PUSH || e->hop == HOP_SERVER_RECEIVE ||
        e->hop == HOP_SOCKET_READ)
        buf_printf(t->out, "  up to byte %llu", (unsigned long long)e->arg);
    else if (e->hop == HOP_SERVER_FANOUT)
        buf_printf(t->out, "  to %llu%s", (unsigned long long)e->arg,
                   e->flags & TRACE_FLAG_ONE_PUSH ? ", one push each" : "");
    else if (e->hop == HOP_CLIENT_SUBMIT || e->hop == HOP_CLIENT_RESEND)
        buf_printf(t->out, "  intent %llu", (unsigned long long)e->arg);
    else if (e->hop == HOP_CLIENT_GIVE_UP)
        buf_printf(t->out, "  after %llu attempts", (unsigned long long)e->arg);
    else if (e->hop == HOP_LINK_DROP || e->hop == HOP_LINK_DELIVER)
        buf_printf(t->out, "  %llu bytes %s, tcp seq %u", (unsigned long long)e->arg,
                   e->flags & TRACE_FLAG_DOWN ? "down" : "up", f.tcp_seq);
    else if (e->arg && (hop_names_message(e->hop) || e->hop == HOP_BUS_HOLE))
        buf_printf(t->out, "  seq %llu", (unsigned long long)e->arg);
    if (e->attempt)
        buf_printf(t->out, "  %s %u", e->hop == HOP_SERVER_PUSH ? "catching up" : "attempt", e->attempt);
    if (e->conn)
        buf_printf(t->out, "  connection %u.%u", e->node, e->conn);
    if (l && trace_side(l->node) == TRACE_SIDE_LOAD && l->open != TRACE_NONE)
        buf_printf(t->out, " (%s)", net_name(l->net));
    if (e->reason && e->hop != HOP_SOCKET_OPEN)
        buf_printf(t->out, "  %s", reason_text(e->reason));
    buf_printf(t->out, "  [#%u]\n", rec);
    if (e->hop == HOP_CLIENT_SEND)
        tell_packets(t, rec, false);
    if (e->hop == HOP_SERVER_PUSH)
        tell_packets(t, rec, true);
}

static void tell_head(struct telling *t, uint32_t first)
{
    const struct story *s = t->s;
    char id[ID_TEXT + 1], when[32];
    const struct trace_event *e = &s->r->event[first];
    int64_t utc_ns = (int64_t)e->ts_ns + s->r->utc_offset_ns;
    time_t sec = (time_t)(utc_ns / 1000000000);
    struct tm tm;
    gmtime_r(&sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    buf_printf(t->out, "message %s  chat %llu  from user %llu\n", id_str(&s->id, id),
               (unsigned long long)s->chat, (unsigned long long)s->sender);
    buf_printf(t->out, "+0 is %s.%06llu UTC\n", when, (unsigned long long)(utc_ns % 1000000000 / 1000));
}

static double seconds_in(const struct telling *t, uint64_t ns)
{
    return ((double)ns - (double)t->zero_ns) / 1e9;
}

/* The record whose bytes were lost: the last push to this recipient, else the last send. */
static uint32_t last_written(const struct story *s, uint32_t from, uint32_t to, bool *down)
{
    *down = true;
    for (uint32_t k = to; k-- > from;)
        if (s->r->event[s->direct[k].rec].hop == HOP_SERVER_PUSH)
            return s->direct[k].rec;
    *down = false;
    return s->any_server == TRACE_NONE && s->sends ? s->send[s->sends - 1] : TRACE_NONE;
}

/* A loss that packets explain, in one sentence. */
static void tell_loss(const struct telling *t, const struct trace_pair *p, uint32_t from, uint32_t to)
{
    const struct story *s = t->s;
    bool down;
    uint32_t reset, rec = last_written(s, from, to, &down);
    struct packets k = {0};
    if (rec != TRACE_NONE && verdict_is_loss(p->verdict))
        k = packets_under(s->r, rec, down, &reset);
    if (!k.dropped || k.delivered)
        return;
    buf_printf(t->out, "                     in short: %s at %+.2f s dropped its %s", reason_text(k.why[0]),
               seconds_in(t, k.at[0]), k.dropped > 1 ? "packet; TCP retried at" : "packet");
    for (uint32_t i = 1; i < k.dropped && i < TRIES_MAX; i++)
        if (k.why[i] == k.why[i - 1])
            buf_printf(t->out, "%s %+.2f", i > 1 ? "," : "", seconds_in(t, k.at[i]));
        else
            buf_printf(t->out, "%s %+.2f (%s)", i > 1 ? "," : "", seconds_in(t, k.at[i]),
                       reason_text(k.why[i]));
    buf_printf(t->out, "%s%s", k.dropped > 1 ? " s" : "", k.dropped > TRIES_MAX ? " and later" : "");
    if (reset != TRACE_NONE)
        buf_printf(t->out, "; RST at %+.2f s", seconds_in(t, s->r->event[reset].ts_ns));
    bool once = down ? s->one_push && !s->many_push : !s->outbox && s->attempts_max <= 1;
    buf_printf(t->out, "%s: %s\n",
               !once  ? ""
               : down ? "; never pushed again"
                      : "; never resent",
               verdict_name(p->verdict));
}

static void tell_pair(const struct telling *t, const struct trace_pair *p)
{
    uint32_t from, to;
    buf_printf(t->out, "user %llu (%s): %s", (unsigned long long)p->recipient, net_name(p->net),
               verdict_text(p->verdict));
    if (p->verdict == VERDICT_DELIVERED && p->submit_ns)
        buf_printf(t->out, " after %.3f ms", ((double)p->surface_ns - (double)p->submit_ns) / 1e6);
    else if (p->verdict != VERDICT_DELIVERED)
        buf_printf(t->out, ": %s%s%s%s", p->why, p->reason ? " (" : "", reason_text(p->reason),
                   p->reason ? ")" : "");
    buf_char(t->out, '\n');
    story_slice(t->s, p->recipient, &from, &to);
    tell_loss(t, p, from, to);
    for (uint32_t k = from; k < to; k++)
        tell_record(t, t->s->direct[k].rec);
    if (p->verdict == VERDICT_DELIVERED)
        return;
    for (uint8_t i = 0; i < p->evidence_n; i++) {
        const struct trace_event *e = &t->s->r->event[p->evidence[i]];
        if (!hop_names_message(e->hop))
            tell_record(t, p->evidence[i]);
    }
    buf_str(t->out, "                     rests on");
    for (uint8_t i = 0; i < p->evidence_n; i++)
        buf_printf(t->out, " #%u", p->evidence[i]);
    buf_str(t->out, p->evidence_n ? "\n" : " nothing\n");
}

/* What went wrong first, then the rest in their order. */
static void tell_recipients(const struct telling *t)
{
    const struct story *s = t->s;
    uint32_t shown = 0;
    uint64_t left[VERDICT_COUNT] = {0};
    struct trace_pair p;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < s->recipients; i++) {
            story_judge(s, s->recipient[i], &p);
            if ((p.verdict == VERDICT_DELIVERED) != (pass == 1))
                continue;
            if (shown++ < SHOWN_MAX)
                tell_pair(t, &p);
            else
                left[p.verdict]++;
        }
    if (s->outside)
        buf_str(t->out, "its sender is not in the sample: what members in the sample saw is not judged\n");
    else if (!s->recipients)
        buf_str(t->out, "no recipient is on record\n");
    for (int v = 0; v < VERDICT_COUNT; v++)
        if (left[v])
            buf_printf(t->out, "and %llu more: %s\n", (unsigned long long)left[v], verdict_text(v));
}

int trace_explain(const struct trace_run *r, const struct id *id, struct buf *out, struct err_ctx *ctx)
{
    char text[ID_TEXT + 1];
    const struct groups *g = &r->index->messages;
    uint32_t m = groups_find(g, id);
    if (m == TRACE_NONE)
        return err_set(ctx, ERR_NOTFOUND, "no record mentions message %s", id_str(id, text));
    struct story s = {0};
    int rc = story_read(&s, r, m);
    if (rc == 0) {
        struct telling t = {.s = &s, .out = out};
        uint32_t first = s.submit != TRACE_NONE ? s.submit : g->rec[g->first[m]];
        t.zero_ns = r->event[first].ts_ns;
        tell_head(&t, first);
        uint32_t told = 0;
        for (uint32_t k = g->first[m]; k < g->first[m + 1] && told < COMMON_MAX; k++)
            if (!hop_names_recipient(r->event[g->rec[k]].hop)) {
                tell_record(&t, g->rec[k]);
                told++;
            }
        tell_recipients(&t);
    }
    story_release(&s);
    if (rc == 0 && out->failed)
        rc = ERR_NOMEM;
    return rc < 0 ? err_set(ctx, rc, "%s", err_text(rc)) : 0;
}

/* What came of it, for programs and for people. */
#include <inttypes.h>
#include <string.h>

#include "load/load_impl.h"

void load_status(const struct load *l, struct load_status *s)
{
    static const char *const names[] = {"idle", "setup", "load", "drain", "end"};
    *s = (struct load_status){.phase = names[l->phase],
                              .phones = l->phones_n,
                              .chats = l->chats_n,
                              .chats_ready = l->chats_done,
                              .outboxes = l->outboxes};
    s->began = l->t0_ns != 0;
    if (l->t0_ns)
        s->elapsed_ns = l->io.now.mono_ns - l->t0_ns;
    for (uint32_t i = 0; i < l->phones_n; i++)
        s->connected += l->phones[i].client.state == CLIENT_READY;
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        s->sent += l->ledger.counts[i].sent;
        s->delivered += l->ledger.counts[i].delivered;
        s->expected += l->ledger.counts[i].expected;
    }
}

static uint64_t lag_p99(const struct load *l)
{
    uint64_t worst = 0;
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        uint64_t us = hist_quantile(&l->ledger.counts[i].lag_us, 9900);
        worst = us > worst ? us : worst;
    }
    return worst;
}

const char *load_doubt(const struct load *l)
{
    if (lag_p99(l) > l->cfg.lag_max_ns / NS_PER_US)
        return "the generator sent too late (p99 of its lag is above the limit): this machine is too slow "
               "for the load";
    if (l->stalls)
        return "the generator's loop stood still for more than 1 s: this machine is too slow for the load";
    return NULL;
}

static void ms(struct buf *b, uint64_t us)
{
    buf_printf(b, "%" PRIu64 ".%03" PRIu64, us / 1000, us % 1000);
}

static void times(struct buf *b, const char *name, const struct hist *h)
{
    static const struct {
        const char *name;
        unsigned permyriad;
    } q[] = {{"p50", 5000}, {"p95", 9500}, {"p99", 9900}, {"max", 10000}};
    buf_printf(b, ",\"%s\":", name);
    if (!h->count) {
        buf_str(b, "null");
        return;
    }
    for (size_t i = 0; i < sizeof q / sizeof *q; i++) {
        buf_printf(b, "%s\"%s\":", i ? "," : "{", q[i].name);
        ms(b, hist_quantile(h, q[i].permyriad));
    }
    buf_char(b, '}');
}

static void one_population(const struct load *l, uint32_t i, struct buf *out)
{
    const struct ledger_counts *c = &l->ledger.counts[i];
    const struct {
        const char *name;
        uint64_t v;
    } counts[] = {{"phones", l->populations[i].n}, {"sent", c->sent},
                  {"accepted", c->accepted},       {"expected", c->expected},
                  {"delivered", c->delivered},     {"lost", c->expected - c->delivered},
                  {"duplicates", c->duplicates},   {"duplicates_seen", c->duplicates_seen},
                  {"reordered", c->reordered},     {"gave_up", c->gave_up},
                  {"resends", c->resends},         {"nobody_awake", l->populations[i].nobody_awake}};
    buf_json_str(out, l->populations_cfg[i].name, strlen(l->populations_cfg[i].name));
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        buf_printf(out, "%s\"%s\":%" PRIu64, k ? "," : ":{", counts[k].name, counts[k].v);
    if (c->expected)
        buf_printf(out, ",\"ratio\":%.8f", (double)c->delivered / (double)c->expected);
    else
        buf_str(out, ",\"ratio\":null");
    times(out, "latency_ms", &c->latency_us);
    times(out, "accept_ms", &c->accept_us);
    const struct population *p = &l->populations[i];
    if (l->populations_cfg[i].habits.typing_every) {
        times(out, "typing_stale_ms", &p->typing_stale_us);
        buf_printf(out,
                   ",\"typing_shown\":%" PRIu64 ",\"typing_back\":%" PRIu64 ",\"typing_missed\":%" PRIu64,
                   p->typing_shown, p->typing_back, p->typing_missed);
    }
    if (l->populations_cfg[i].habits.watch) {
        times(out, "presence_stale_ms", &p->presence_stale_us);
        buf_printf(out, ",\"presence_shown\":%" PRIu64, p->presence_shown);
    }
    if (l->populations_cfg[i].habits.read_after) {
        times(out, "receipt_ms", &p->receipt_us);
        buf_printf(out,
                   ",\"receipts_shown\":%" PRIu64 ",\"receipts_counted\":%" PRIu64
                   ",\"receipts_false\":%" PRIu64 ",\"receipts_missing\":%" PRIu64,
                   p->receipts_shown, p->receipts_counted, p->receipts_false,
                   reading_missing((struct load *)(uintptr_t)l, i));
    }
    buf_str(out, ",\"send_lag_ms_p99\":");
    ms(out, hist_quantile(&c->lag_us, 9900));
    buf_char(out, '}');
}

static void recovery_json(const struct load *l, struct buf *out)
{
    struct load_recovery r;
    load_recovery(l, &r);
    buf_printf(out,
               ",\"recovery\":{\"notices\":%" PRIu64 ",\"unconfirmed\":%" PRIu64 ",\"offered\":%" PRIu64
               ",\"ok\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"forged\":%" PRIu64
               ",\"forged_refused\":%" PRIu64 ",\"forged_unanswered\":%" PRIu64 ",\"came_back\":%" PRIu64
               ",\"discarded\":%" PRIu64 ",\"asked\":%" PRIu64 ",\"said_yes\":%" PRIu64 ",\"marked\":%" PRIu64
               "}",
               r.notices, r.unconfirmed, r.offered, r.ok, r.refused, r.forged, r.forged_refused,
               r.forged_unanswered, r.came_back, r.discarded, r.asked, r.said_yes, r.marked);
}

void load_report_json(const struct load *l, struct buf *out)
{
    const char *doubt = load_doubt(l);
    buf_str(out, "{\"load\":{");
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        if (i)
            buf_char(out, ',');
        one_population(l, i, out);
    }
    buf_str(out, "},\"health\":{\"lag_ms_p99\":");
    ms(out, lag_p99(l));
    buf_str(out, ",\"stall_ms_max\":");
    ms(out, l->stall_us.max);
    buf_printf(out, ",\"inconclusive\":%s,\"why\":", doubt ? "true" : "false");
    buf_json_str(out, doubt ? doubt : "", doubt ? strlen(doubt) : 0);
    buf_printf(out,
               "},\"phones\":{\"connects\":%" PRIu64 ",\"kills\":%" PRIu64 ",\"network_changes\":%" PRIu64
               ",\"storage_losses\":%" PRIu64 ",\"shown_unsent\":%" PRIu64 ",\"undecodable\":%" PRIu64
               ",\"chats_remade\":%" PRIu64 ",\"ticks_unwatched\":%" PRIu64 "}",
               l->connects, l->kills, l->network_changes, l->storage_losses, l->shown_unsent, l->undecodable,
               l->chats_remade, l->ticks_unwatched);
    if (l->cfg.keep_copies)
        recovery_json(l, out);
    buf_printf(out, ",\"seed\":%" PRIu64 ",\"drained\":%s,\"interrupted\":%s,\"inconclusive\":", l->cfg.seed,
               l->drained ? "true" : "false", l->interrupted ? "true" : "false");
    if (doubt)
        buf_json_str(out, doubt, strlen(doubt));
    else
        buf_str(out, "false");
    buf_str(out, "}\n");
}

static void cell(struct buf *b, uint64_t us)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64 ".%" PRIu64, us / 1000, us / 100 % 10);
    buf_printf(b, " %8s", text);
}

void load_report_text(const struct load *l, struct buf *out)
{
    const char *doubt = load_doubt(l);
    buf_printf(out, "%-16s %9s %9s %10s %10s %8s %6s %6s %8s %8s %8s %8s\n", "population", "sent", "accepted",
               "expected", "delivered", "lost", "dup", "order", "p50 ms", "p95 ms", "p99 ms", "max ms");
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        const struct ledger_counts *c = &l->ledger.counts[i];
        buf_printf(out,
                   "%-16.47s %9" PRIu64 " %9" PRIu64 " %10" PRIu64 " %10" PRIu64 " %8" PRIu64 " %6" PRIu64
                   " %6" PRIu64,
                   l->populations_cfg[i].name, c->sent, c->accepted, c->expected, c->delivered,
                   c->expected - c->delivered, c->duplicates, c->reordered);
        cell(out, hist_quantile(&c->latency_us, 5000));
        cell(out, hist_quantile(&c->latency_us, 9500));
        cell(out, hist_quantile(&c->latency_us, 9900));
        cell(out, c->latency_us.max);
        buf_char(out, '\n');
        if (c->gave_up || c->resends || c->duplicates_seen)
            buf_printf(out,
                       "%-16s %" PRIu64 " given up, %" PRIu64 " sent again by hand, %" PRIu64
                       " seen twice by a person\n",
                       "", c->gave_up, c->resends, c->duplicates_seen);
    }
    buf_printf(out,
               "%u phones connected %" PRIu64 " times (%" PRIu64 " sockets killed, %" PRIu64
               " network changes, %" PRIu64 " storages lost); generator's lag p99 ",
               l->phones_n, l->connects, l->kills, l->network_changes, l->storage_losses);
    ms(out, lag_p99(l));
    buf_printf(out, " ms; %s\n",
               l->interrupted ? "interrupted"
               : l->drained   ? "drained"
                              : "not drained within the limit");
    if (doubt)
        buf_printf(out, "inconclusive: %s\n", doubt);
}

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/flood_impl.h"

void flood_status(const struct flood *f, struct flood_status *s)
{
    static const char *const names[] = {"idle", "ramp", "plateau", "mass reconnect", "drain", "end"};
    *s = (struct flood_status){.phase = names[f->phase],
                               .phones = f->cfg.phones,
                               .ready = f->ready,
                               .chats = f->chats_n,
                               .chats_ready = f->chats_ready,
                               .sent = f->sent,
                               .accepted = f->accepted,
                               .delivered = f->delivered,
                               .expected = f->expected,
                               .outboxes = f->outboxes,
                               .lag_ms = flood_ms(f) - f->done_ms,
                               .all_came = f->ramp_done_ns != 0,
                               .elapsed_s = (double)(f->io.now.mono_ns - f->began_ns) / 1e9};
}

void flood_set_outside(struct flood *f, const struct flood_outside *o)
{
    f->outside = *o;
}

const char *flood_doubt(const struct flood *f)
{
    if (hist_quantile(&f->lag_us, 9900) > f->cfg.lag_max_ns / NS_PER_US)
        return "the generator was too late (p99 of its lag is above the limit): this machine is too slow for "
               "the "
               "load";
    if (f->no_phone > f->sent / 100)
        return "hardly any phone was connected when messages were to be said";
    return NULL;
}

static uint64_t per_phone(uint64_t before, uint64_t after, uint32_t n)
{
    return before && after > before ? (after - before) / n : 0;
}

/* Every figure by name; the report, --expect and the text print from this. */
struct figure {
    const char *name;
    double value;
    bool whole;
};
#define FIGURES_MAX 64

static double ms_of(const struct hist *h, unsigned permyriad)
{
    return (double)hist_quantile(h, permyriad) / 1000.0;
}

static size_t figures(const struct flood *f, struct figure *out)
{
    size_t n = 0;
    double plateau_s =
        f->plateau_ns
            ? (double)((f->phase == FLOOD_END ? f->ended_ns : f->io.now.mono_ns) - f->plateau_ns) / 1e9
            : 0;
    double for_s = (double)f->cfg.for_ns / 1e9;
    if (for_s < plateau_s)
        plateau_s = for_s + (double)(f->cfg.mass_ppm ? f->mass_done_ns + f->cfg.dark_ns : 0) / 1e9;
    const struct flood_outside *o = &f->outside;
    uint64_t rss = o->rss_loaded > o->rss_connected ? o->rss_loaded : o->rss_connected;
    uint64_t server_rss =
        o->server_rss_loaded > o->server_rss_connected ? o->server_rss_loaded : o->server_rss_connected;
    uint64_t lost = 0, twice = 0;
    for (uint32_t i = 0; i < f->cfg.phones; i++) {
        const struct flood_phone *p = &f->phones[i];
        uint32_t said = f->chats[p->chat].accepted;
        if (!p->silent && p->count < said) /* dead phones are owed nothing */
            lost += said - p->count;
        twice += p->count > said ? p->count - said : 0;
    }
    const struct figure all[] = {
        {"phones", f->cfg.phones, true},
        {"chats", f->chats_n, true},
        {"connected_s", f->ramp_done_ns ? (double)(f->ramp_done_ns - f->began_ns) / 1e9 : -1, false},
        {"setup_s", f->plateau_ns ? (double)(f->plateau_ns - f->began_ns) / 1e9 : -1, false},
        {"sent", (double)f->sent, true},
        {"accepted", (double)f->accepted, true},
        {"expected", (double)(f->delivered + lost - twice), true},
        {"delivered", (double)f->delivered, true},
        {"lost", (double)lost, true},
        {"duplicates", (double)twice, true},
        {"duplicates_seen", (double)f->duplicates, true},
        {"gaps", (double)f->gaps, true},
        {"gave_up", (double)f->gave_up, true},
        {"resends", (double)f->resends, true},
        {"accepted_per_s", plateau_s > 0 ? (double)f->accepted / plateau_s : 0, false},
        {"delivered_per_s", plateau_s > 0 ? (double)f->delivered / plateau_s : 0, false},
        {"fan_out", f->accepted ? (double)f->delivered / (double)f->accepted : 0, false},
        {"p(50)", ms_of(&f->latency_us, 5000), false},
        {"p(95)", ms_of(&f->latency_us, 9500), false},
        {"p(99)", ms_of(&f->latency_us, 9900), false},
        {"max", ms_of(&f->latency_us, 10000), false},
        {"server_p(50)", ms_of(&f->server_us, 5000), false},
        {"server_p(95)", ms_of(&f->server_us, 9500), false},
        {"server_p(99)", ms_of(&f->server_us, 9900), false},
        {"served_p(50)", ms_of(&f->served_us, 5000), false},
        {"served_p(99)", ms_of(&f->served_us, 9900), false},
        {"mass_served_p(99)", ms_of(&f->mass_served_us, 9900), false},
        {"links_p(50)", ms_of(&f->links_us, 5000), false},
        {"links_p(99)", ms_of(&f->links_us, 9900), false},
        {"accept_p(50)", ms_of(&f->accept_us, 5000), false},
        {"accept_p(99)", ms_of(&f->accept_us, 9900), false},
        {"connects", (double)f->connects, true},
        {"cuts", (double)f->cuts, true},
        {"mass_s", f->cfg.mass_ppm ? (f->mass_done_ns ? (double)f->mass_done_ns / 1e9 : -1) : 0, false},
        {"mass_s_99", (double)f->mass_most_ms / 1000, false},
        {"beats", (double)f->beats, true},
        {"silent", f->cfg.silent, true},
        {"silent_gone", (double)f->silent_gone, true},
        {"silent_s_max", (double)f->silent_max_ms / 1000, false},
        {"wrong_closes", (double)f->wrong_closes, true},
        {"idle_closes", (double)f->idle_closes, true},
        {"wrong_idle_closes", (double)f->wrong_idle_closes, true},
        {"undecodable", (double)f->undecodable, true},
        {"packets_lost", (double)f->lost_packets, true},
        {"verified", (double)f->verified, true},
        {"verify_bad", f->checked ? (double)f->verify_bad : -1, true},
        {"drained", f->drained, true},
        {"lag_p(99)", ms_of(&f->lag_us, 9900), false},
        {"lag_max", ms_of(&f->lag_us, 10000), false},
        {"rss_per_phone", (double)per_phone(f->outside.rss_before, rss, f->cfg.phones), true},
        {"rss_per_phone_connected",
         (double)per_phone(f->outside.rss_before, f->outside.rss_connected, f->cfg.phones), true},
        {"server_rss_per_session_loaded",
         (double)per_phone(f->outside.server_rss_before, server_rss, f->cfg.phones), true},
        {"server_rss_per_session",
         (double)per_phone(f->outside.server_rss_before, f->outside.server_rss_connected, f->cfg.phones),
         true},
        {"server_rss_per_bare_session",
         (double)per_phone(f->outside.server_rss_before, f->outside.server_rss_sessions, f->cfg.phones),
         true},
        {"rss_mib", (double)rss / 1048576.0, false},
        {"resident_mib", (double)(rss + server_rss) / 1048576.0, false},
        {"server_rss_mib", (double)server_rss / 1048576.0, false},
    };
    _Static_assert(sizeof all / sizeof *all <= FIGURES_MAX, "room for all figures");
    for (; n < sizeof all / sizeof *all; n++)
        out[n] = all[n];
    return n;
}

static void put_value(struct buf *out, const struct figure *f)
{
    if (f->whole)
        buf_printf(out, "%.0f", f->value);
    else
        buf_printf(out, "%.3f", f->value);
}

static void times(struct buf *b, const char *name, const struct hist *h)
{
    buf_printf(b, ",\"%s\":", name);
    if (!h->count)
        buf_str(b, "null");
    else
        buf_printf(b, "{\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"max\":%.3f}", ms_of(h, 5000), ms_of(h, 9500),
                   ms_of(h, 9900), ms_of(h, 10000));
}

static void put_samples(const struct flood *f, struct buf *out)
{
    buf_str(out, ",\"samples\":[");
    for (uint32_t i = 0; i < f->samples_n; i++) {
        const struct flood_sample *s = &f->samples[i];
        buf_printf(out,
                   "%s{\"s\":%.3f,\"ready\":%u,\"accepted\":%" PRIu64 ",\"delivered\":%" PRIu64
                   ",\"served_ms_p50\":%.3f,\"served_ms_p99\":%.3f,\"lag_ms_p99\":%.3f}",
                   i ? "," : "", s->at_ms / 1000.0, s->ready, s->accepted, s->delivered,
                   (double)s->served_p50_ms, (double)s->served_p99_ms, (double)s->lag_p99_ms);
    }
    buf_char(out, ']');
}

void flood_report_json(const struct flood *f, struct buf *out)
{
    struct figure all[FIGURES_MAX];
    size_t n = figures(f, all);
    const char *doubt = flood_doubt(f), *name = f->cfg.name ? f->cfg.name : "flood";
    buf_str(out, "{\"load\":{");
    buf_json_str(out, name, strlen(name));
    buf_str(out, ":{");
    for (size_t i = 0; i < n; i++) {
        if (strchr(all[i].name, '('))
            continue; /* stands below as a set */
        buf_printf(out, "%s\"%s\":", i ? "," : "", all[i].name);
        put_value(out, &all[i]);
    }
    times(out, "latency_ms", &f->latency_us);
    times(out, "server_ms", &f->server_us);
    times(out, "served_ms", &f->served_us);
    times(out, "mass_served_ms", &f->mass_served_us);
    times(out, "links_ms", &f->links_us);
    times(out, "accept_ms", &f->accept_us);
    times(out, "lag_ms", &f->lag_us);
    put_samples(f, out);
    buf_printf(out, ",\"send_lag_ms_p99\":%.3f,\"ratio\":", ms_of(&f->lag_us, 9900));
    double expected = all[6].value;
    if (expected > 0)
        buf_printf(out, "%.8f", (double)f->delivered / expected);
    else
        buf_str(out, "null");
    buf_printf(out, "}},\"drained\":%s,\"inconclusive\":", f->drained ? "true" : "false");
    if (doubt)
        buf_json_str(out, doubt, strlen(doubt));
    else
        buf_str(out, "false");
    buf_char(out, '}');
}

void flood_report_text(const struct flood *f, struct buf *out)
{
    struct figure all[FIGURES_MAX];
    size_t n = figures(f, all);
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%-24s ", all[i].name);
        put_value(out, &all[i]);
        buf_char(out, '\n');
    }
}

int flood_expect(const struct flood *f, const char *text, struct buf *value, struct err_ctx *ctx)
{
    static const char *const ops[] = {"<=", ">=", "==", "!=", "<", ">"};
    struct figure all[FIGURES_MAX];
    size_t n = figures(f, all), len = strcspn(text, "<>=! "), i = 0;
    while (i < n && (strlen(all[i].name) != len || strncmp(all[i].name, text, len) != 0))
        i++;
    if (i == n)
        return err_set(ctx, ERR_USAGE, "--expect '%s': '%.*s' is no figure of a flood", text, (int)len, text);
    const char *p = text + len + strspn(text + len, " ");
    size_t op = 0;
    while (op < sizeof ops / sizeof *ops && strncmp(p, ops[op], strlen(ops[op])) != 0)
        op++;
    char *end = NULL;
    double want = op < sizeof ops / sizeof *ops ? strtod(p + strlen(ops[op]), &end) : 0;
    if (!end || end == p + strlen(ops[op]) || *end)
        return err_set(ctx, ERR_USAGE, "--expect '%s': wanted is FIGURE OP NUMBER, as in 'p(99)<1000'", text);
    double v = all[i].value;
    put_value(value, &all[i]);
    const bool holds[] = {v <= want, v >= want, v == want, v != want, v<want, v> want};
    return holds[op];
}

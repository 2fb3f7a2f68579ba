/* funnel: figures of a whole run. */
#include <stdio.h>

#include "cmd/chat-trace/tool.h"

static uint64_t pairs_of(const struct trace_summary *s, int net)
{
    uint64_t n = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        n += s->verdict[net][v];
    return n;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_hops(const struct trace_summary *s)
{
    printf("%-22s %12s\n", "hop", "records");
    for (int h = 1; h < HOP_COUNT; h++)
        if (s->hop[h])
            printf("%-22s %12llu\n", hop_text(h), (unsigned long long)s->hop[h]);
}

static void print_verdicts(const struct trace_summary *s)
{
    printf("\n%-26s", "verdict");
    for (int net = 0; net < NET_COUNT; net++)
        if (pairs_of(s, net))
            printf(" %12s %9s", net_name(net), "");
    putchar('\n');
    for (int v = 0; v < VERDICT_COUNT; v++) {
        if (!s->total[v])
            continue;
        printf("%-26s", verdict_text(v));
        for (int net = 0; net < NET_COUNT; net++)
            if (pairs_of(s, net))
                printf(" %12llu %8.3f%%", (unsigned long long)s->verdict[net][v],
                       percent(s->verdict[net][v], pairs_of(s, net)));
        putchar('\n');
    }
    printf("%-26s", "all pairs");
    for (int net = 0; net < NET_COUNT; net++)
        if (pairs_of(s, net))
            printf(" %12llu %9s", (unsigned long long)pairs_of(s, net), "");
    putchar('\n');
}

static void print_causes(const struct trace_summary *s)
{
    struct trace_cause causes[12];
    int n = trace_top_causes(s, causes, 12);
    if (n)
        printf("\n%-26s %-28s %12s\n", "not delivered", "cause", "pairs");
    for (int i = 0; i < n; i++)
        printf("%-26s %-28s %12llu\n", verdict_text(causes[i].verdict),
               causes[i].reason ? reason_text(causes[i].reason) : "-", (unsigned long long)causes[i].count);
}

static void print_connections(const struct trace_summary *s, uint32_t sample)
{
    double wifi = trace_disconnects_per_hour(s, NET_WIFI);
    printf("\n%-12s %14s %18s %10s %12s %12s\n", "network", "disconnects", "per connected hour", "to wifi",
           "p50 ms", "p99 ms");
    for (int net = 0; net < NET_COUNT; net++) {
        const struct hist *h = s->latency[net];
        double rate = trace_disconnects_per_hour(s, net);
        char ratio[32] = "-";
        if (!s->connected_ns[net] && !h)
            continue;
        if (wifi > 0)
            snprintf(ratio, sizeof ratio, "%.1f x", rate / wifi);
        printf("%-12s %14llu %18.1f %10s %12.1f %12.1f\n", net_name(net),
               (unsigned long long)s->disconnects[net], rate, ratio,
               h ? (double)hist_quantile(h, 5000) / 1e6 : 0, h ? (double)hist_quantile(h, 9900) / 1e6 : 0);
    }
    if (sample > 1)
        printf("\na sample: one user in %u was traced, in blocks of %u neighbours; %llu messages of others "
               "left records too and are not judged\n",
               sample, TRACE_BLOCK, (unsigned long long)s->outside);
    printf("\nsent again by hand %llu; duplicates that a person saw %llu; records %llu, dropped %llu, "
           "missing %llu\n",
           (unsigned long long)s->resends, (unsigned long long)s->duplicates_seen,
           (unsigned long long)s->records, (unsigned long long)s->dropped, (unsigned long long)s->missing);
}

static void json_connections(struct buf *b, const struct trace_summary *s)
{
    double wifi = trace_disconnects_per_hour(s, NET_WIFI);
    const char *comma = "";
    buf_str(b, ",\"disconnects_per_hour\":{");
    for (int net = 0; net < NET_COUNT; net++) {
        if (!s->connected_ns[net])
            continue;
        buf_printf(b, "%s\"%s\":%.3f", comma, net_name(net), trace_disconnects_per_hour(s, net));
        comma = ",";
    }
    buf_str(b, "},\"disconnects_to_wifi\":{");
    comma = "";
    for (int net = 0; wifi > 0 && net < NET_COUNT; net++) {
        if (!s->connected_ns[net])
            continue;
        buf_printf(b, "%s\"%s\":%.3f", comma, net_name(net), trace_disconnects_per_hour(s, net) / wifi);
        comma = ",";
    }
    buf_str(b, "},\"latency_ms\":{");
    comma = "";
    for (int net = 0; net < NET_COUNT; net++) {
        const struct hist *h = s->latency[net];
        if (!h)
            continue;
        buf_printf(b, "%s\"%s\":{\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"max\":%.3f}", comma, net_name(net),
                   (double)hist_quantile(h, 5000) / 1e6, (double)hist_quantile(h, 9500) / 1e6,
                   (double)hist_quantile(h, 9900) / 1e6, (double)h->max / 1e6);
        comma = ",";
    }
    buf_char(b, '}');
}

static void json_causes(struct buf *b, const struct trace_summary *s)
{
    struct trace_cause causes[64];
    int n = trace_top_causes(s, causes, 64);
    buf_str(b, ",\"causes\":[");
    for (int i = 0; i < n; i++)
        buf_printf(b, "%s{\"verdict\":\"%s\",\"reason\":\"%s\",\"pairs\":%llu}", i ? "," : "",
                   verdict_name(causes[i].verdict), reason_text(causes[i].reason),
                   (unsigned long long)causes[i].count);
    buf_char(b, ']');
}

static void print_json(const struct trace_summary *s)
{
    struct buf b = BUF_INIT(1u << 20);
    const char *comma = "";
    buf_str(&b, "{\"verdicts\":");
    trace_summary_verdicts_json(s, &b);
    buf_str(&b, ",\"hops\":{");
    for (int h = 1; h < HOP_COUNT; h++) {
        if (!s->hop[h])
            continue;
        buf_printf(&b, "%s\"%s\":%llu", comma, hop_name(h), (unsigned long long)s->hop[h]);
        comma = ",";
    }
    buf_char(&b, '}');
    json_connections(&b, s);
    json_causes(&b, s);
    buf_printf(&b,
               ",\"messages\":%llu,\"outside_sample\":%llu,\"pairs\":%llu,\"losses\":%llu,\"resends\":%llu,"
               "\"duplicates_seen\":%llu,"
               "\"records\":%llu,\"dropped\":%llu,\"missing\":%llu}",
               (unsigned long long)s->messages, (unsigned long long)s->outside, (unsigned long long)s->pairs,
               (unsigned long long)s->losses, (unsigned long long)s->resends,
               (unsigned long long)s->duplicates_seen, (unsigned long long)s->records,
               (unsigned long long)s->dropped, (unsigned long long)s->missing);
    puts(buf_cstr(&b));
    buf_release(&b);
}

/* A run without a single pair proves nothing either. */
int tool_status(const struct trace_summary *s)
{
    return s->losses ? 1 : s->total[VERDICT_NOT_OBSERVED] || !s->pairs ? 2 : 0;
}

int tool_funnel(const struct trace_run *r, const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct trace_summary s;
    int rc = trace_summarize(&s, r, err);
    if (!rc) {
        if (opt_json(o)) {
            print_json(&s);
        } else {
            print_hops(&s);
            print_verdicts(&s);
            print_causes(&s);
            print_connections(&s, r->sample);
        }
        *status = tool_status(&s);
    }
    trace_summary_release(&s);
    return rc;
}

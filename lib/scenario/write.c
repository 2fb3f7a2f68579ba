/* A scenario as the file that scenario_load reads back to the same. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "scenario/scenario_impl.h"
#include "util/buf.h"
#include "util/clock.h"

static void text(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\": \"", key);
    for (const char *p = value; *p; p++) {
        if (*p == '"' || *p == '\\')
            buf_char(out, '\\');
        buf_char(out, (unsigned char)*p < ' ' ? ' ' : *p);
    }
    buf_char(out, '"');
}

/* Durations are written to the microsecond, the finest that the format is sure to keep. */
static void duration(struct buf *out, const char *key, uint64_t ns)
{
    bool ms = ns % NS_PER_MS == 0;
    buf_printf(out, "\"%s\": \"%" PRIu64 "%s\"", key, (uint64_t)(ms ? ns / NS_PER_MS : ns / NS_PER_US),
               ms ? "ms" : "us");
}

static void also(struct buf *out, const char *key, uint64_t ns)
{
    if (!ns)
        return;
    buf_str(out, ", ");
    duration(out, key, ns);
}

static void share(struct buf *out, const char *key, uint32_t ppm)
{
    buf_printf(out, ", \"%s\": %" PRIu32 ".%06" PRIu32, key, ppm / 1000000, ppm % 1000000);
}

static void write_habits(struct buf *out, const struct scenario_habits *h)
{
    buf_str(out, ",\n      \"habits\": { ");
    duration(out, "kill_after", h->kill_after);
    also(out, "background_every", h->background_every);
    also(out, "background_for", h->background_for);
    also(out, "network_change_every", h->network_change_every);
    also(out, "network_change_gap", h->network_change_gap);
    also(out, "resend_after", h->resend_after);
    also(out, "typing_every", h->typing_every);
    also(out, "typing_for", h->typing_for);
    buf_printf(out, ", \"watch\": %" PRIu32, h->watch);
    also(out, "read_after", h->read_after);
    share(out, "resend_share", h->resend_share_ppm);
    share(out, "storage_loss", h->storage_loss_ppm);
    buf_str(out, " }");
}

static void write_flood(struct buf *out, const struct scenario_flood *f)
{
    if (!f->on)
        return;
    buf_printf(out,
               ",\n      \"flood\": { \"churn\": %" PRIu64 ".%03" PRIu64 ", \"silent\": %" PRIu32
               ", \"mass\": %" PRIu32 ".%06" PRIu32 ", ",
               f->churn_per_1000s / 1000, f->churn_per_1000s % 1000, f->silent, f->mass_ppm / 1000000,
               f->mass_ppm % 1000000);
    duration(out, "dark", f->dark);
    buf_str(out, ", ");
    duration(out, "ramp", f->ramp);
    buf_str(out, ", ");
    duration(out, "setup", f->setup);
    if (f->settle) {
        buf_str(out, ", ");
        duration(out, "settle", f->settle);
    }
    if (f->trace_sample)
        buf_printf(out, ", \"trace_sample\": %" PRIu32, f->trace_sample);
    buf_str(out, " }");
}

static void write_population(struct buf *out, const struct scenario_population *p)
{
    buf_str(out, "    { ");
    text(out, "name", p->name);
    if (p->link[0]) {
        buf_str(out, ", ");
        text(out, "link", p->link);
    }
    if (p->joins[0]) {
        buf_str(out, ", ");
        text(out, "joins", p->joins);
    }
    buf_printf(out, ", \"clients\": %" PRIu32 ", ", p->clients);
    text(out, "client", p->client);
    buf_printf(out,
               ", \"rate\": %" PRIu64 ".%03" PRIu64 ", \"chat_size\": %" PRIu32
               ", \"chats_per_client\": %" PRIu32 ",\n      \"body\": [%" PRIu32 ", %" PRIu32
               "], \"retries\": %" PRIu32 ", ",
               p->rate_per_1000s / 1000, p->rate_per_1000s % 1000, p->chat_size, p->chats_per_client,
               p->body_min, p->body_max, p->retries);
    duration(out, "resync", p->resync_window);
    if (p->texts[0]) {
        buf_str(out, ", ");
        text(out, "texts", p->texts);
    }
    if (strcmp(p->on_gap, "offer") != 0) {
        buf_str(out, ", ");
        text(out, "on_gap", p->on_gap);
    }
    if (p->forge_ppm)
        share(out, "forge", p->forge_ppm);
    write_habits(out, &p->habits);
    write_flood(out, &p->flood);
    buf_str(out, " }");
}

static const char *signal_name(int number)
{
    return number == SIGTERM ? "TERM" : number == SIGSTOP ? "STOP" : number == SIGINT ? "INT" : "KILL";
}

static void write_fault(struct buf *out, const struct scenario_fault *f)
{
    enum fault_do w = f->what;
    buf_str(out, "    { ");
    text(out, "name", f->name);
    buf_str(out, ", ");
    duration(out, "at", f->at);
    buf_str(out, ", ");
    text(out, "do", fault_name(w));
    buf_str(out, ", ");
    text(out, "target", f->target);
    if (w == FAULT_KILL_SERVER)
        buf_printf(out, ", \"signal\": \"%s\"", signal_name(f->signal));
    if (f->share_ppm != 1000000)
        share(out, "share", f->share_ppm);
    if (f->mid_frame)
        buf_str(out, ", \"when\": \"mid-frame\"");
    also(out, "restart", f->restart);
    also(out, "for", f->duration);
    if (f->by)
        buf_printf(out, ", \"by\": \"%s%" PRIu64 "us\"", f->by < 0 ? "-" : "",
                   (uint64_t)((uint64_t)(f->by < 0 ? -f->by : f->by) / NS_PER_US));
    if (f->set[0]) {
        buf_str(out, ", ");
        text(out, "set", f->set);
    }
    buf_str(out, " }");
}

static void write_server(struct buf *out, const struct scenario *s)
{
    buf_str(out, ",\n  \"server\": { ");
    text(out, "delivery", s->server_delivery);
    if (s->server_args[0]) {
        buf_str(out, ", ");
        text(out, "args", s->server_args);
    }
    if (s->server_redis)
        buf_str(out, ", \"redis\": true");
    if (s->server_nodes > 1)
        buf_printf(out, ", \"nodes\": %" PRIu32, s->server_nodes);
    buf_str(out, " },\n  \"links\": {");
    for (uint32_t i = 0; i < s->links_n; i++) {
        buf_printf(out, "%s\n    \"%s\": { ", i ? "," : "", s->links[i].name);
        text(out, "profile", s->links[i].profile);
        if (s->links[i].net[0]) {
            buf_str(out, ", ");
            text(out, "net", s->links[i].net);
        }
        buf_str(out, " }");
    }
    buf_str(out, s->links_n ? "\n  },\n" : "},\n");
}

void scenario_write(struct buf *out, const struct scenario *s)
{
    buf_str(out, "{ ");
    text(out, "name", s->name);
    buf_str(out, ",\n  ");
    text(out, "why", s->why);
    buf_printf(out, ",\n  \"seed\": %" PRIu64 ", ", s->seed);
    duration(out, "duration", s->duration);
    buf_str(out, ", ");
    duration(out, "drain", s->drain);
    write_server(out, s);
    buf_str(out, "  \"load\": [\n");
    for (uint32_t i = 0; i < s->load_n; i++) {
        buf_str(out, i ? ",\n" : "");
        write_population(out, &s->load[i]);
    }
    buf_str(out, "\n  ],\n  \"faults\": [");
    for (uint32_t i = 0; i < s->faults_n; i++) {
        buf_str(out, i ? ",\n" : "\n");
        write_fault(out, &s->faults[i]);
    }
    buf_str(out, s->faults_n ? "\n  ],\n" : "],\n");
    buf_str(out, "  \"expect\": [");
    for (uint32_t i = 0; i < s->expect_n; i++)
        buf_printf(out, "%s\"%s\"", i ? ", " : "", s->expect[i]);
    buf_str(out, "] }\n");
}

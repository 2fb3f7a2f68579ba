/* What the proxy says about itself: log lines, trace records, status. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "netem/proxy/driver_impl.h"
#include "util/clock.h"
#include "util/units.h"

static void log_line(struct proxy *p, const struct proxy_event *e)
{
    struct buf b = BUF_INIT(2048);
    char id[ID_TEXT + 1];
    uint64_t us = clock_wall_us();
    buf_printf(
        &b, "{\"ts_us\":%" PRIu64 ",\"conn\":%" PRIu64 ",\"dir\":\"%s\",\"what\":\"%s\",\"offset\":%" PRIu64,
        us, e->conn, e->dir == NETEM_UP ? "up" : "down", e->what, e->offset);
    if (e->toxic) {
        buf_printf(&b, ",\"toxic\":%u,\"spec\":", e->toxic->number);
        buf_json_str(&b, e->toxic->spec, strlen(e->toxic->spec));
    }
    if (e->frame)
        buf_printf(&b, ",\"frame\":%" PRIu64, e->frame);
    if (e->has_id)
        buf_printf(&b, ",\"id\":\"%s\"", id_str(&e->id, id));
    buf_str(&b, "}\n");
    fwrite(buf_cstr(&b), 1, b.len, p->config.log);
    fflush(p->config.log);
    buf_release(&b);
}

void told(void *arg, const struct proxy_event *e)
{
    struct proxy *p = arg;
    bool ends = e->toxic && (e->toxic->kind == PROXY_RESET || e->toxic->kind == PROXY_CUT ||
                             e->toxic->kind == PROXY_LIMIT || e->toxic->kind == PROXY_HALF_OPEN);
    p->counts.faults += e->toxic && strcmp(e->what, "not-followed") != 0;
    if (p->config.log)
        log_line(p, e);
    if (!ends || !p->tracer)
        return;
    struct trace_event t = {.hop = HOP_SOCKET_KILL,
                            .reason = REASON_KILLED,
                            .conn = (uint32_t)e->conn,
                            .arg = e->offset,
                            .flags = e->dir == NETEM_DOWN ? TRACE_FLAG_DOWN : 0};
    if (e->has_id)
        t.id = e->id;
    trace_emit(p->tracer, &t);
}

static uint32_t followed(const struct proxy *p)
{
    uint32_t n = 0;
    for (const struct conn *c = p->conns; c; c = c->next)
        n += proxy_conn_followed(c->core);
    return n;
}

/* Open connections that a toxic has in its share. */
static unsigned concerned(const struct proxy *p, unsigned slot)
{
    unsigned n = 0;
    for (const struct conn *c = p->conns; c; c = c->next)
        n += proxy_conn_acted_on(c->core, slot);
    return n;
}

void proxy_status_json(const struct proxy *p, struct buf *b)
{
    const struct counts *n = &p->counts;
    const char *comma = "";
    buf_str(b, "{\"name\":");
    buf_json_str(b, p->config.name, strlen(p->config.name));
    buf_str(b, ",\"listen\":");
    buf_json_str(b, p->listen_text, strlen(p->listen_text));
    buf_str(b, ",\"to\":");
    buf_json_str(b, p->config.to, strlen(p->config.to));
    buf_printf(b, ",\"pid\":%d,\"seed\":%" PRIu64 ",\"seconds\":%.3f", (int)getpid(), p->config.seed,
               (double)(clock_mono_ns() - p->began_ns) / 1e9);
    buf_printf(b,
               ",\"connections\":{\"accepted\":%" PRIu64
               ",\"open\":%u,\"max\":%u,\"silent\":%u,\"followed\":%u,\"refused_upstream\":%" PRIu64
               ",\"refused_full\":%" PRIu64 ",\"reset\":%" PRIu64 "}",
               n->accepted, n->open, p->connections_max, n->silent, followed(p), n->refused_upstream,
               n->refused_full, n->resets);
    buf_printf(b, ",\"bytes\":{\"up\":%" PRIu64 ",\"down\":%" PRIu64 "},\"faults\":%" PRIu64 ",\"toxics\":[",
               n->bytes[0], n->bytes[1], n->faults);
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (!(p->rules.used >> i & 1))
            continue;
        const struct proxy_toxic *t = p->rules.toxic[i];
        buf_printf(b, "%s{\"number\":%u,\"spec\":", comma, t->number);
        buf_json_str(b, t->spec, strlen(t->spec));
        buf_printf(b, ",\"hits\":%" PRIu64 ",\"open\":%u}", t->hits, concerned(p, i));
        comma = ",";
    }
    buf_str(b, "]}");
}

void proxy_status_text(const struct proxy *p, struct buf *b)
{
    const struct counts *n = &p->counts;
    char up[32], down[32];
    units_show_size(up, n->bytes[0]);
    units_show_size(down, n->bytes[1]);
    buf_printf(
        b, "%s  %s -> %s  %u open of %" PRIu64 ", %" PRIu64 " refused, %s up, %s down, %" PRIu64 " faults\n",
        p->config.name, p->listen_text, p->config.to, n->open, n->accepted,
        n->refused_upstream + n->refused_full, up, down, n->faults);
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (p->rules.used >> i & 1)
            buf_printf(b, "  %3u  %-48s %" PRIu64 " hits\n", p->rules.toxic[i]->number,
                       p->rules.toxic[i]->spec, p->rules.toxic[i]->hits);
    }
}

/* OTLP as JSON lines (OpenTelemetry "OTLP file exporter": one TracesData object a line; field names by the
 * JSON mapping of opentelemetry-proto 1.x: lowerCamelCase, ids in hex, 64-bit numbers as strings, enums as
 * numbers). One line, one trace, is one message; its id is the trace id.
 *
 *   message (PRODUCER, the sender's phone)   submit .. its last record
 *     server (SERVER)                        received .. accepted or fanned out
 *     deliver (CONSUMER), per recipient      pushed .. shown; an error with the verdict when it was lost */
#include <inttypes.h>
#include <string.h>

#include "report/export_impl.h"
#include "trace/rows.h"
#include "util/map.h"

enum { KIND_SERVER = 2, KIND_PRODUCER = 4, KIND_CONSUMER = 5 };
enum { STATUS_UNSET, STATUS_OK, STATUS_ERROR };

#define EVENTS_MAX 128 /* of a span; more are counted as dropped */

struct line {
    struct exporting *x;
    const struct trace_message *m;
    struct buf *b;
    uint32_t root; /* a record of the sender's phone, or the first there is */
    bool comma;
};

static uint64_t span_id(const struct id *id, uint64_t what)
{
    uint64_t h = hash_bytes(id, sizeof *id, what + 1);
    return h ? h : 1;
}

static void attribute(struct line *l, const char *key, const char *value)
{
    buf_printf(l->b, "%s{\"key\":\"%s\",\"value\":{\"stringValue\":", l->comma ? "," : "", key);
    export_json_text(l->b, value);
    buf_str(l->b, "}}");
    l->comma = true;
}

static void number(struct line *l, const char *key, uint64_t value)
{
    buf_printf(l->b, "%s{\"key\":\"%s\",\"value\":{\"intValue\":\"%" PRIu64 "\"}}", l->comma ? "," : "", key,
               value & INT64_MAX);
    l->comma = true;
}

/* users and chats are 64 bits without a sign */
static void name_of(struct line *l, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    attribute(l, key, text);
}

static void begin_resource(struct line *l, uint32_t record, bool first)
{
    const struct trace_source *s = &l->x->r->source[l->x->r->from[record]];
    buf_str(l->b, first ? "{\"resource\":{\"attributes\":[" : ",{\"resource\":{\"attributes\":[");
    l->comma = false;
    attribute(l, "service.name", *s->name ? s->name : "trace");
    attribute(l, "host.name", s->host);
    number(l, "process.pid", s->pid);
    number(l, "chat.node", l->x->r->event[record].node);
    buf_str(l->b, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"chat-trace\"},\"spans\":[");
}

static void begin_span(struct line *l, uint64_t what, bool root, const char *name, int kind)
{
    char hex[2 * ID_BYTES + 1];
    for (int i = 0; i < ID_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", l->m->id.b[i]);
    buf_printf(l->b, "{\"traceId\":\"%s\",\"spanId\":\"%016" PRIx64 "\"", hex, span_id(&l->m->id, what));
    if (!root)
        buf_printf(l->b, ",\"parentSpanId\":\"%016" PRIx64 "\"", span_id(&l->m->id, 0));
    buf_printf(l->b, ",\"name\":\"%s\",\"kind\":%d", name, kind);
}

static void put_times(struct line *l, uint64_t from, uint64_t to)
{
    buf_printf(l->b, ",\"startTimeUnixNano\":\"%" PRIu64 "\",\"endTimeUnixNano\":\"%" PRIu64 "\"", from,
               to > from ? to : from);
}

static void put_event(struct line *l, uint32_t record, bool first)
{
    const struct trace_event *e = &l->x->r->event[record];
    char flow[64];
    buf_printf(l->b, "%s{\"timeUnixNano\":\"%" PRIu64 "\",\"name\":\"%s\",\"attributes\":[", first ? "" : ",",
               export_wall_ns(l->x, record), hop_text(e->hop));
    l->comma = false;
    number(l, "chat.record", record);
    number(l, "chat.arg", e->arg);
    name_of(l, "chat.user", e->user);
    if (e->attempt)
        number(l, "chat.attempt", e->attempt);
    if (e->reason && e->hop != HOP_SOCKET_OPEN)
        attribute(l, "chat.reason", reason_text(e->reason));
    if (trace_hop_has_flow(e->hop)) {
        trace_flow_text(flow, &e->id);
        attribute(l, "chat.flow", flow);
    }
    buf_str(l->b, "]}");
}

static void end_span(struct line *l, uint32_t dropped, int status, const char *why)
{
    buf_str(l->b, "]");
    if (dropped)
        buf_printf(l->b, ",\"droppedEventsCount\":%u", dropped);
    buf_printf(l->b, ",\"status\":{\"code\":%d", status);
    if (why) {
        buf_str(l->b, ",\"message\":");
        export_json_text(l->b, why);
    }
    buf_str(l->b, "}}");
}

static bool of_recipient(uint8_t hop)
{
    return hop == HOP_CLIENT_RECEIVE || hop == HOP_CLIENT_SURFACE || hop == HOP_CLIENT_DUPLICATE ||
           hop == HOP_SERVER_PUSH || hop == HOP_SERVER_REDELIVER || hop == HOP_SERVER_PUSH_DROP ||
           hop == HOP_SERVER_DELIVERED || hop == HOP_SERVER_SLOW_SKIP;
}

/* Is the record told in the server's span (or in the sender's)? */
static bool belongs(const struct trace_event *e, bool server)
{
    return !of_recipient(e->hop) && (trace_side(e->node) == TRACE_SIDE_SERVER) == server;
}

static void own_span(struct line *l, bool server, uint64_t end, int status, const char *why)
{
    const struct trace_run *r = l->x->r;
    uint64_t from = 0, to = 0;
    uint32_t told = 0, dropped = 0;
    for (uint32_t i = 0; i < l->m->records; i++) {
        uint64_t at = export_wall_ns(l->x, l->m->record[i]);
        if (!belongs(&r->event[l->m->record[i]], server))
            continue;
        from = !from || at < from ? at : from;
        to = at > to ? at : to;
    }
    if (!from)
        from = export_wall_ns(l->x, l->root);
    begin_span(l, server, !server, server ? "server" : "message", server ? KIND_SERVER : KIND_PRODUCER);
    put_times(l, from, end > to ? end : to);
    buf_str(l->b, ",\"attributes\":[");
    l->comma = false;
    name_of(l, "chat.chat", l->m->chat);
    name_of(l, "chat.sender", l->m->sender);
    number(l, "chat.recipients", l->m->pairs);
    buf_str(l->b, "],\"events\":[");
    for (uint32_t i = 0; i < l->m->records; i++) {
        if (!belongs(&r->event[l->m->record[i]], server))
            continue;
        if (told < EVENTS_MAX)
            put_event(l, l->m->record[i], told == 0);
        told < EVENTS_MAX ? told++ : dropped++;
    }
    end_span(l, dropped, status, why);
}

static void pair_span(struct line *l, const struct trace_pair *p, bool first)
{
    const struct trace_run *r = l->x->r;
    uint64_t from = 0, to = 0;
    uint32_t told = 0;
    for (uint32_t i = 0; i < l->m->records; i++) {
        const struct trace_event *e = &r->event[l->m->record[i]];
        if (e->user != p->recipient || !of_recipient(e->hop))
            continue;
        uint64_t at = export_wall_ns(l->x, l->m->record[i]);
        from = !from || at < from ? at : from;
        to = at > to ? at : to;
    }
    for (uint8_t i = 0; i < p->evidence_n && !from; i++)
        from = to = export_wall_ns(l->x, p->evidence[i]);
    if (!from)
        from = to = export_wall_ns(l->x, l->root);
    buf_str(l->b, first ? "" : ",");
    begin_span(l, hash_bytes(&p->recipient, sizeof p->recipient, 2), false, "deliver", KIND_CONSUMER);
    put_times(l, from, to);
    buf_str(l->b, ",\"attributes\":[");
    l->comma = false;
    name_of(l, "chat.recipient", p->recipient);
    attribute(l, "network.connection.subtype", net_name(p->net));
    attribute(l, "chat.verdict", verdict_name(p->verdict));
    if (p->reason)
        attribute(l, "chat.reason", reason_text(p->reason));
    buf_str(l->b, "],\"events\":[");
    for (uint8_t i = 0; i < p->evidence_n; i++)
        put_event(l, p->evidence[i], told++ == 0);
    int status = p->verdict == VERDICT_DELIVERED ? STATUS_OK : verdict_is_loss(p->verdict) ? STATUS_ERROR : 0;
    end_span(l, 0, status, status == STATUS_OK ? NULL : p->why);
}

static bool one_message(void *arg, const struct trace_message *m)
{
    struct exporting *x = arg;
    struct line l = {.x = x, .m = m, .b = &x->out, .root = m->record[0]};
    const struct trace_run *r = x->r;
    uint32_t server = TRACE_NONE, lost = 0;
    for (uint32_t i = m->records; i-- > 0;) {
        const struct trace_event *e = &r->event[m->record[i]];
        if (trace_side(e->node) == TRACE_SIDE_SERVER)
            server = m->record[i];
        else if (belongs(e, false))
            l.root = m->record[i];
    }
    for (uint32_t i = 0; i < m->pairs; i++)
        lost += verdict_is_loss(m->pair[i].verdict);
    char why[80];
    snprintf(why, sizeof why, "lost for %u of %u recipients", lost, m->pairs);
    buf_str(l.b, "{\"resourceSpans\":[");
    begin_resource(&l, l.root, true);
    own_span(&l, false, export_wall_ns(x, m->record[m->records - 1]), lost ? STATUS_ERROR : STATUS_UNSET,
             lost ? why : NULL);
    for (uint32_t i = 0; i < m->pairs; i++)
        pair_span(&l, &m->pair[i], false);
    buf_str(l.b, "]}]}");
    if (server != TRACE_NONE) {
        begin_resource(&l, server, false);
        own_span(&l, true, 0, STATUS_UNSET, NULL);
        buf_str(l.b, "]}]}");
    }
    buf_str(l.b, "]}\n");
    x->counts->rows++;
    return export_spill(x);
}

void export_otlp(struct exporting *x)
{
    uint64_t told = 0;
    if (trace_messages(x->r, one_message, x))
        export_fail(x, ERR_NOMEM, "export");
    for (uint32_t i = 0; i < x->r->events; i++)
        told += !trace_hop_has_flow(x->r->event[i].hop) &&
                memcmp(&x->r->event[i].id, &(struct id){{0}}, ID_BYTES);
    x->counts->skipped = x->r->events - told;
    if (x->counts->skipped)
        x->counts->why = "records that name no message are told only where a verdict rests on them";
}

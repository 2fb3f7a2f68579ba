#include "trace/rows.h"

#include <inttypes.h>

#include "util/text.h"

#define EXACT_MAX (1ull << 53) /* above, a reader of JSON may round */

static const char *const columns[] = {"source",  "ts_ns", "node",   "hop",  "id",       "flow",
                                      "chat",    "user",  "arg",    "conn", "lane_seq", "device",
                                      "attempt", "flags", "reason", "about"};

bool trace_hop_has_flow(int hop)
{
    return hop == HOP_LINK_DROP || hop == HOP_LINK_DELIVER || hop == HOP_LINK_STATE || hop == HOP_SOCKET_OPEN;
}

static void put_address(struct buf *b, uint32_t ip, uint16_t port)
{
    buf_printf(b, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255, port);
}

static void put_flow(struct buf *b, const struct id *id)
{
    struct trace_flow f;
    memcpy(&f, id, sizeof f);
    put_address(b, f.src, f.sport);
    buf_char(b, '>');
    put_address(b, f.dst, f.dport);
    buf_printf(b, " seq %u", f.tcp_seq);
}

void trace_flow_text(char out[64], const struct id *flow)
{
    struct buf b = BUF_INIT(64);
    put_flow(&b, flow);
    snprintf(out, 64, "%s", buf_cstr(&b));
    buf_release(&b);
}

static void put_id(struct buf *b, const struct id *id)
{
    char *p = buf_reserve(b, ID_TEXT);
    if (p) {
        id_format(id, p);
        b->len += ID_TEXT;
    }
}

/* In SOCKET_OPEN the reason is a network; one that nobody knows stays a number. */
static const char *reason_of(const struct trace_event *e, char number[8])
{
    snprintf(number, 8, "%u", e->reason);
    if (e->hop == HOP_SOCKET_OPEN)
        return e->reason < NET_COUNT ? net_name(e->reason) : number;
    return e->reason < REASON_COUNT ? reason_text(e->reason) : number;
}

static void put_name(struct buf *b, const char *key, const char *value)
{
    char clean[512];
    buf_printf(b, ",\"%s\":", key);
    text_clean(clean, sizeof clean, value);
    buf_json_str(b, clean, strlen(clean));
}

void trace_row_source(struct buf *b, const struct trace_source *s, int source)
{
    buf_str(b, "{\"hop\":\"none\"");
    if (source >= 0)
        buf_printf(b, ",\"source\":%d", source);
    put_name(b, "name", s->name);
    put_name(b, "host", s->host);
    put_name(b, "path", s->path);
    buf_printf(b,
               ",\"node\":%u,\"pid\":%u,\"process\":\"%" PRIu64 "\",\"writer\":\"%" PRIu64
               "\",\"writers\":%u,\"seed\":\"%" PRIu64 "\",\"utc_offset_ns\":\"%" PRId64
               "\",\"emitted\":%" PRIu64 ",\"present\":%" PRIu64 ",\"dropped\":%" PRIu64
               ",\"complete\":%s,\"virtual_time\":%s}",
               s->node, s->pid, s->process, s->writer, s->writers, s->seed, s->utc_offset_ns, s->emitted,
               s->present, s->dropped, s->complete ? "true" : "false", s->virtual_time ? "true" : "false");
}

/* Millions of rows: no format strings here. */
static void put_number(struct buf *b, const char *key, uint64_t v)
{
    buf_str(b, key);
    buf_u64(b, v);
}

void trace_row_record(struct buf *b, const struct trace_event *e, int source)
{
    char number[8];
    if (source >= 0)
        put_number(b, "{\"source\":", (uint64_t)source);
    put_number(b, source >= 0 ? ",\"ts_ns\":" : "{\"ts_ns\":", e->ts_ns);
    put_number(b, ",\"node\":", e->node);
    buf_str(b, ",\"hop\":\"");
    buf_str(b, hop_name(e->hop));
    if (trace_hop_has_flow(e->hop)) {
        buf_str(b, "\",\"flow\":\"");
        put_flow(b, &e->id);
    } else {
        buf_str(b, "\",\"id\":\"");
        put_id(b, &e->id);
    }
    put_number(b, "\",\"chat\":\"", e->chat);
    put_number(b, "\",\"user\":\"", e->user);
    bool exact = e->arg < EXACT_MAX;
    put_number(b, exact ? "\",\"arg\":" : "\",\"arg\":\"", e->arg);
    put_number(b, exact ? ",\"conn\":" : "\",\"conn\":", e->conn);
    put_number(b, ",\"lane_seq\":", e->lane_seq);
    put_number(b, ",\"device\":", e->device);
    put_number(b, ",\"attempt\":", e->attempt);
    put_number(b, ",\"flags\":", e->flags);
    buf_str(b, ",\"reason\":\"");
    buf_str(b, reason_of(e, number));
    buf_str(b, "\"}");
}

void trace_csv_header(struct buf *b)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        if (i)
            buf_char(b, ',');
        buf_str(b, columns[i]);
    }
}

void trace_csv_source(struct buf *b, const struct trace_source *s, int source)
{
    struct buf json = BUF_INIT(16384);
    trace_row_source(&json, s, source);
    if (source >= 0)
        buf_u64(b, (uint64_t)source);
    buf_printf(b, ",,%u,none,,,,,,,,,,,,\"", s->node);
    for (size_t i = 0; i < json.len; i++) {
        if (json.data[i] == '"')
            buf_char(b, '"');
        buf_char(b, json.data[i]);
    }
    buf_char(b, '"');
    b->failed |= json.failed;
    buf_release(&json);
}

void trace_csv_record(struct buf *b, const struct trace_event *e, int source)
{
    char number[8];
    bool flow = trace_hop_has_flow(e->hop);
    if (source >= 0)
        buf_u64(b, (uint64_t)source);
    put_number(b, ",", e->ts_ns);
    put_number(b, ",", e->node);
    buf_char(b, ',');
    buf_str(b, hop_name(e->hop));
    buf_char(b, ',');
    if (!flow)
        put_id(b, &e->id);
    buf_char(b, ',');
    if (flow)
        put_flow(b, &e->id);
    put_number(b, ",", e->chat);
    put_number(b, ",", e->user);
    put_number(b, ",", e->arg);
    put_number(b, ",", e->conn);
    put_number(b, ",", e->lane_seq);
    put_number(b, ",", e->device);
    put_number(b, ",", e->attempt);
    put_number(b, ",", e->flags);
    buf_char(b, ',');
    buf_str(b, reason_of(e, number)); /* texts of our own tables: nothing to quote */
    buf_char(b, ',');
}

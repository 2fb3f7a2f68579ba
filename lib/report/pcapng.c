/* A trace for Wireshark: an interface per hop. A record of the link is the header of its TCP packet (what it
 * carried is cut off, as in a snapped capture); any other record is a JSON row, given to Wireshark's JSON
 * dissector, under the addresses of its connection. Comments say what happened and to which messages. */
#include <stdlib.h>
#include <string.h>

#include "report/export_impl.h"
#include "trace/rows.h"
#include "wire/pcapng.h"

#define IDS_MAX 16 /* message ids in one comment; of more, the number */

/* wiki.wireshark.org/Development/ExportedPDU, epan/exported_pdu.h */
enum { TAG_END = 0, TAG_DISSECTOR = 12, TAG_IPV4_SRC = 20, TAG_IPV4_DST = 21 };
enum { TAG_PORT_TYPE = 24, TAG_SRC_PORT = 25, TAG_DST_PORT = 26, PORT_TYPE_TCP = 2 };

/* A packet of the link and a record whose bytes it carried. */
struct carried {
    uint32_t packet, record;
};

struct pcapng {
    struct exporting *x;
    struct carried *carried;
    size_t n, cap, at;
    uint8_t interface[HOP_COUNT];
    struct buf comment, data;
};

static bool collect(void *arg, uint32_t packet, uint32_t record)
{
    struct pcapng *p = arg;
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 1024;
        struct carried *more = realloc(p->carried, cap * sizeof *more);
        if (!more) {
            export_fail(p->x, ERR_NOMEM, "export");
            return false;
        }
        p->carried = more;
        p->cap = cap;
    }
    p->carried[p->n++] = (struct carried){packet, record};
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct carried *x = a, *y = b;
    if (x->packet != y->packet)
        return x->packet < y->packet ? -1 : 1;
    return x->record < y->record ? -1 : x->record > y->record;
}

static void put_be(struct buf *b, uint64_t v, int bytes)
{
    while (bytes-- > 0)
        buf_char(b, (char)(v >> 8 * bytes));
}

/* ---- packets of the link ---- */

static void put_headers(struct buf *b, const struct trace_event *e, const struct trace_flow *f)
{
    uint32_t sum = 0, payload = (uint32_t)e->arg, total = payload < 65535 - 40 ? 40 + payload : 65535;
    uint8_t flags = (e->flags & TRACE_FLAG_SYN ? 2 : 0) | (e->flags & TRACE_FLAG_FIN ? 1 : 0) |
                    (e->flags & TRACE_FLAG_RST ? 4 : 0) | (payload ? 8 : 0);
    uint16_t ip[10] = {0x4500,
                       (uint16_t)total,
                       0,
                       0,
                       64 << 8 | 6,
                       0,
                       (uint16_t)(f->src >> 16),
                       (uint16_t)f->src,
                       (uint16_t)(f->dst >> 16),
                       (uint16_t)f->dst};
    for (int i = 0; i < 10; i++)
        sum += ip[i];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    ip[5] = (uint16_t)~sum;
    for (int i = 0; i < 10; i++)
        put_be(b, ip[i], 2);
    put_be(b, f->sport, 2);
    put_be(b, f->dport, 2);
    put_be(b, f->tcp_seq, 4);
    put_be(b, 0, 4); /* the record keeps no acknowledgement, window, checksum */
    put_be(b, 5u << 12 | flags, 2);
    put_be(b, 0, 6);
}

/* Other protocols' packets are recorded without sequence number and length. */
static bool is_packet(const struct trace_event *e, struct trace_flow *f)
{
    memcpy(f, &e->id, sizeof *f);
    return (e->hop == HOP_LINK_DROP || e->hop == HOP_LINK_DELIVER) && f->sport && f->dport &&
           (f->tcp_seq || e->arg);
}

/* ---- records as rows ---- */

static void put_tag(struct buf *b, int tag, uint64_t v)
{
    put_be(b, (uint64_t)tag, 2);
    put_be(b, 4, 2);
    put_be(b, v, 4);
}

static void put_row(struct pcapng *p, uint32_t record)
{
    const struct trace_event *e = &p->x->r->event[record];
    struct trace_flow f;
    struct buf *b = &p->data;
    bool known = trace_connection(p->x->r, record, &f);
    bool server = trace_side(e->node) == TRACE_SIDE_SERVER;
    bool inwards = e->hop == HOP_SERVER_RECEIVE || e->hop == HOP_CLIENT_RECEIVE ||
                   e->hop == HOP_SOCKET_READ || e->hop == HOP_CLIENT_SURFACE ||
                   e->hop == HOP_CLIENT_DUPLICATE || e->hop == HOP_CLIENT_ACCEPTED ||
                   e->hop == HOP_SERVER_DELIVERED;
    if (known && server != inwards) /* from the server to the phone */
        f = (struct trace_flow){.src = f.dst, .dst = f.src, .sport = f.dport, .dport = f.sport};
    put_be(b, TAG_DISSECTOR, 2);
    put_be(b, 4, 2);
    buf_str(b, "json");
    if (known) {
        put_tag(b, TAG_IPV4_SRC, f.src);
        put_tag(b, TAG_IPV4_DST, f.dst);
        put_tag(b, TAG_PORT_TYPE, PORT_TYPE_TCP);
        put_tag(b, TAG_SRC_PORT, f.sport);
        put_tag(b, TAG_DST_PORT, f.dport);
    }
    put_be(b, TAG_END, 4);
    trace_row_record(b, e, p->x->r->from[record]);
}

/* ---- comments ---- */

static void put_message(struct buf *b, const struct id *id)
{
    char text[ID_TEXT + 1];
    static const struct id zero;
    if (!id_equal(id, &zero))
        buf_printf(b, "; message %s", id_str(id, text));
}

static void put_comment(struct pcapng *p, uint32_t record, bool packet)
{
    const struct trace_event *e = &p->x->r->event[record];
    struct buf *b = &p->comment;
    uint32_t ids = 0;
    const char *reason = e->hop == HOP_SOCKET_OPEN ? net_name(e->reason) : reason_text(e->reason);
    buf_printf(b, "%s%s%s", hop_text(e->hop), *reason ? ": " : "", reason);
    if (!trace_hop_has_flow(e->hop))
        put_message(b, &e->id);
    if (e->attempt > 1)
        buf_printf(b, "; attempt %u", e->attempt);
    if (!packet)
        return;
    while (p->at < p->n && p->carried[p->at].packet < record)
        p->at++;
    for (; p->at < p->n && p->carried[p->at].packet == record; p->at++)
        if (ids++ < IDS_MAX)
            put_message(b, &p->x->r->event[p->carried[p->at].record].id);
    if (ids > IDS_MAX)
        buf_printf(b, "; and %u more", ids - IDS_MAX);
}

/* ---- the file ---- */

static void head(struct pcapng *p)
{
    const struct trace_run *r = p->x->r;
    uint8_t next = 0;
    bool present[HOP_COUNT] = {false};
    struct buf about = BUF_INIT(65536);
    char name[64];
    buf_printf(&about, "chat-trace export of %u records; one interface per hop, message ids in the comments",
               r->events);
    pcapng_section(&p->x->out, buf_cstr(&about), "chat-trace");
    buf_release(&about);
    for (uint32_t i = 0; i < r->events; i++)
        present[r->event[i].hop] = true;
    for (int h = 0; h < HOP_COUNT; h++) {
        if (!present[h])
            continue;
        p->interface[h] = next++;
        bool link = h == HOP_LINK_DROP || h == HOP_LINK_DELIVER;
        snprintf(name, sizeof name, "%s", hop_name(h));
        pcapng_interface(&p->x->out, link ? PCAPNG_RAW_IP : PCAPNG_UPPER_PDU, name, hop_text(h));
    }
}

void export_pcapng(struct exporting *x)
{
    const struct trace_run *r = x->r;
    struct pcapng p = {.x = x, .comment = BUF_INIT(4096), .data = BUF_INIT(4096)};
    trace_carried(r, collect, &p);
    if (p.n)
        qsort(p.carried, p.n, sizeof *p.carried, compare);
    head(&p);
    for (uint32_t i = 0; i < r->events && export_spill(x); i++) {
        struct trace_flow f;
        const struct trace_event *e = &r->event[i];
        bool link = e->hop == HOP_LINK_DROP || e->hop == HOP_LINK_DELIVER, packet = is_packet(e, &f);
        if (link && !packet) {
            export_skip(x, "packets of the link that are not TCP have no headers on record");
            continue;
        }
        buf_reset(&p.comment);
        buf_reset(&p.data);
        if (packet)
            put_headers(&p.data, e, &f);
        else
            put_row(&p, i);
        put_comment(&p, i, packet);
        uint64_t original = packet ? 40 + (uint32_t)e->arg : p.data.len;
        pcapng_packet(&x->out,
                      &(struct pcapng_packet){.interface = p.interface[e->hop],
                                              .ts_ns = export_wall_ns(x, i),
                                              .data = p.data.data,
                                              .len = (uint32_t)p.data.len,
                                              .original = original < 65535 ? (uint32_t)original : 65535,
                                              .comment = p.comment.data,
                                              .comment_len = p.comment.len});
        x->counts->rows++;
    }
    buf_release(&p.comment);
    buf_release(&p.data);
    free(p.carried);
}

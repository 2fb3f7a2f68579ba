#include "cmd/chat-trace/rows.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* All of these write at `o` and return what is behind it; room was made before. */

static char *put(char *o, const char *s, size_t n)
{
    memcpy(o, s, n);
    return o + n;
}
#define PUT(o, literal) put(o, literal, sizeof(literal) - 1)

static char *put_u64(char *o, uint64_t v)
{
    char d[20];
    int n = 0;
    do
        d[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        *o++ = d[--n];
    return o;
}

static char *put_base64(char *o, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char pair[4096][2];
    if (!pair[1][1])
        for (unsigned i = 4096; i-- > 0;) {
            pair[i][0] = digits[i >> 6];
            pair[i][1] = digits[i & 63];
        }
    for (; n >= 3; n -= 3, p += 3, o += 4) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        memcpy(o, pair[v >> 12], 2);
        memcpy(o + 2, pair[v & 4095], 2);
    }
    if (n) {
        uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0);
        memcpy(o, pair[v >> 12], 2);
        o[2] = n > 1 ? digits[v >> 6 & 63] : '=';
        o[3] = '=';
        o += 4;
    }
    return o;
}

static bool is_escape(const char *p, const char *end)
{
    if (end - p < 2)
        return false;
    if (p[1] != 'u')
        return p[1] && strchr("\"\\/bfnrt", p[1]);
    for (int k = 2; k < 6; k++)
        if (end - p < 6 || !isxdigit((unsigned char)p[k]))
            return false;
    return true;
}

/* Text of a payload inside quotes. It came from a JSON string, so escapes stay as they are; what JSON does
 * not allow there (control characters, bytes that are no UTF-8, escapes that are none) becomes \u00XX. At
 * most 6 bytes for one. */
static char *put_raw(char *o, struct chat_text s)
{
    struct utf8 u = {0};
    bool clean = utf8_feed(&u, s.p, s.n) && utf8_whole(&u);
    for (uint32_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c == '\\' && is_escape(s.p + i, s.p + s.n)) {
            *o++ = (char)c;
            *o++ = s.p[++i];
            continue;
        }
        if (c >= ' ' && c != '"' && c != '\\' && (c < 0x80 || clean)) {
            *o++ = (char)c;
            continue;
        }
        static const char hex[] = "0123456789abcdef";
        o = PUT(o, "\\u00");
        *o++ = hex[c >> 4];
        *o++ = hex[c & 15];
    }
    return o;
}

/* Is one of eight bytes below ' ', a backslash or DEL? (Hacker's Delight, 6-1; never misses one, and may be
 * wrong about bytes >= 0x80 only, which are then looked at one by one.) */
static inline uint64_t odd_bytes(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101ull, tops = ones << 7;
    uint64_t backslash = w ^ ones * '\\', del = w ^ ones * 0x7f;
    return ((w - ones * ' ') | (backslash - ones) | (del - ones)) & tops;
}

/* A payload in a line of columns: tab, line ends and backslash escaped. At most 4 bytes for one. */
static char *put_column(char *o, const uint8_t *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        uint64_t w;
        while (n - i >= 8 && (memcpy(&w, p + i, 8), !odd_bytes(w))) {
            memcpy(o, &w, 8);
            o += 8;
            i += 8;
        }
        if (i == n)
            break;
        uint8_t c = p[i];
        if (__builtin_expect(c >= ' ' && c != '\\' && c != 0x7f, 1)) {
            *o++ = (char)c;
            continue;
        }
        *o++ = '\\';
        if (c == '\\' || c == '\t' || c == '\n' || c == '\r') {
            *o++ = c == '\t' ? 't' : c == '\n' ? 'n' : c == '\r' ? 'r' : '\\';
        } else {
            *o++ = 'x';
            *o++ = hex[c >> 4];
            *o++ = hex[c & 15];
        }
    }
    return o;
}

static char *put_addr(char *o, const struct tap_message *m, int end)
{
    struct rows_conn *c = tap_conn(m->flow)->user;
    int d = m->dir ^ end;
    return c ? put(o, c->addr[d], c->n[d]) : o + packet_addr_text(o, m->flow->addr[d], m->flow->port[d]);
}

static char *put_string_or_null(char *o, struct chat_text s)
{
    if (!s.p)
        return PUT(o, "null");
    *o++ = '"';
    o = put_raw(o, s);
    *o++ = '"';
    return o;
}

static char *put_item(char *o, const struct chat_item *i)
{
    o = PUT(o, "\"t\":");
    o = put_string_or_null(o, i->t);
    o = PUT(o, ",\"id\":");
    o = put_string_or_null(o, i->id);
    o = PUT(o, ",\"chat\":");
    o = put_string_or_null(o, i->chat);
    o = PUT(o, ",\"seq\":");
    o = i->has_seq ? put_u64(o, i->seq) : PUT(o, "null");
    if (i->ack.p) {
        o = PUT(o, ",\"ack\":");
        o = put_string_or_null(o, i->ack);
    }
    if (i->session) {
        o = PUT(o, ",\"session\":");
        o = put_u64(o, i->session);
    }
    return o;
}

static char *put_json(char *o, const struct rows *r, const struct tap_message *m,
                      const struct chat_item *item, int items)
{
    static const struct chat_item none;
    o = PUT(o, "{\"ts_us\":");
    o = put_u64(o, m->ts_ns / 1000);
    o = PUT(o, ",\"src\":\"");
    o = put_addr(o, m, 0);
    o = PUT(o, "\",\"dst\":\"");
    o = put_addr(o, m, 1);
    o = PUT(o, "\",\"opcode\":");
    o = put_u64(o, m->opcode);
    o = PUT(o, ",\"bytes\":");
    o = put_u64(o, m->bytes);
    o = m->complete ? PUT(o, ",\"complete\":true,") : PUT(o, ",\"complete\":false,");
    o = put_item(o, items ? item : &none);
    if (items > 1) {
        o = PUT(o, ",\"messages\":[");
        for (int i = 0; i < items; i++) {
            if (i)
                *o++ = ',';
            *o++ = '{';
            o = put_item(o, &item[i]);
            *o++ = '}';
        }
        *o++ = ']';
    }
    if (m->guess)
        o = PUT(o, ",\"guess\":true");
    if (m->unreadable)
        o = PUT(o, ",\"unreadable\":true");
    if (m->cut)
        o = PUT(o, ",\"cut\":true");
    if (r->payload) {
        o = PUT(o, ",\"payload\":\"");
        o = put_base64(o, m->p, m->n);
        *o++ = '"';
    }
    return PUT(o, "}\n");
}

static char *put_field(char *o, struct chat_text s)
{
    if (s.p)
        o = put_column(o, (const uint8_t *)s.p, s.n);
    *o++ = '\t';
    return o;
}

/* One line per chat message, so that each has its id and seq. */
static char *put_tsv(char *o, const struct rows *r, const struct tap_message *m, const struct chat_item *i,
                     bool part)
{
    o = put_u64(o, m->ts_ns / 1000);
    *o++ = '\t';
    o = put_addr(o, m, 0);
    *o++ = '\t';
    o = put_addr(o, m, 1);
    *o++ = '\t';
    o = put_u64(o, m->opcode);
    *o++ = '\t';
    o = put_u64(o, m->bytes);
    *o++ = '\t';
    *o++ = m->complete ? '1' : '0';
    *o++ = '\t';
    o = put_field(o, i->t);
    o = put_field(o, i->id);
    o = put_field(o, i->chat);
    if (i->has_seq)
        o = put_u64(o, i->seq);
    if (r->payload) {
        *o++ = '\t';
        o = part ? put_column(o, (const uint8_t *)i->at.p, i->at.n) : put_column(o, m->p, m->n);
    }
    *o++ = '\n';
    return o;
}

static const char *opcode_text(int opcode)
{
    static const char *const names[16] = {
        [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong"};
    return names[opcode & 15] ? names[opcode & 15] : "?";
}

static char *put_text(char *o, const struct rows *r, const struct tap_message *m, const struct chat_item *i,
                      bool part)
{
    time_t sec = (time_t)(m->ts_ns / 1000000000);
    struct tm tm;
    char us[8];
    const char *name = opcode_text(m->opcode);
    gmtime_r(&sec, &tm);
    o += strftime(o, 32, "%Y-%m-%d %H:%M:%S.", &tm);
    uint64_t frac = m->ts_ns % 1000000000 / 1000;
    for (int k = 6; k-- > 0; frac /= 10)
        us[k] = (char)('0' + frac % 10);
    o = put(o, us, 6);
    *o++ = ' ';
    o = put_addr(o, m, 0);
    o = PUT(o, " > ");
    o = put_addr(o, m, 1);
    *o++ = ' ';
    o = put(o, name, strlen(name));
    *o++ = ' ';
    o = put_u64(o, m->bytes);
    if (!m->complete)
        o = m->unreadable ? PUT(o, " UNREADABLE") : m->cut ? PUT(o, " CUT") : PUT(o, " INCOMPLETE");
    struct {
        const char *name;
        struct chat_text s;
    } f[] = {{" ", i->t}, {" id ", i->id}, {" chat ", i->chat}, {" acknowledges ", i->ack}};
    for (size_t k = 0; k < sizeof f / sizeof *f; k++)
        if (f[k].s.p) {
            o = put(o, f[k].name, strlen(f[k].name));
            o = put_column(o, (const uint8_t *)f[k].s.p, f[k].s.n);
        }
    if (i->has_seq) {
        o = PUT(o, " seq ");
        o = put_u64(o, i->seq);
    }
    if (m->opcode == WS_CLOSE && m->n >= 2) {
        o = PUT(o, " code ");
        o = put_u64(o, (unsigned)m->p[0] << 8 | m->p[1]);
    }
    if (r->payload) {
        o = PUT(o, "  ");
        o = part ? put_column(o, (const uint8_t *)i->at.p, i->at.n) : put_column(o, m->p, m->n);
    }
    *o++ = '\n';
    return o;
}

void rows_open(struct tcp_flow *f)
{
    struct rows_conn *c = malloc(sizeof *c);
    for (int d = 0; c && d < 2; d++)
        c->n[d] = (uint8_t)packet_addr_text(c->addr[d], f->addr[d], f->port[d]);
    tap_conn(f)->user = c;
}

void rows_close(struct tcp_flow *f)
{
    free(tap_conn(f)->user);
    tap_conn(f)->user = NULL;
}

void rows_put(struct rows *r, const struct tap_message *m, const struct chat_item *item, int items)
{
    static const struct chat_item none;
    int lines = r->form == ROWS_JSONL || items < 2 ? 1 : items;
    for (int k = 0; k < lines; k++) {
        const struct chat_item *i = items ? &item[k] : &none;
        bool part = lines > 1;
        size_t room =
            512 + (r->payload ? (r->form == ROWS_JSONL ? m->n * 4 / 3 + 4 : (part ? i->at.n : m->n) * 4) : 0);
        for (int q = k; q < (r->form == ROWS_JSONL ? items : k + (items > 0)); q++)
            room += 160 + 12 * (size_t)(item[q].t.n + item[q].id.n + item[q].chat.n + item[q].ack.n);
        char *o = out_room(r->out, room);
        if (!o) {
            r->lost++;
            continue;
        }
        char *end = r->form == ROWS_JSONL ? put_json(o, r, m, item, items)
                    : r->form == ROWS_TSV ? put_tsv(o, r, m, i, part)
                                          : put_text(o, r, m, i, part);
        out_took(r->out, (size_t)(end - o));
        r->written++;
    }
}

#include "wire/decode.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/bin.h"
#include "wire/dialect.h"

#define MUX_DATA_OP 2

static struct chat_text text_of(const char *s)
{
    return (struct chat_text){s, (uint32_t)strlen(s)};
}

static struct chat_text number(char out[21], uint64_t v)
{
    return (struct chat_text){out, (uint32_t)snprintf(out, 21, "%" PRIu64, v)};
}

static uint8_t role_of(enum msg_type t)
{
    return t == MSG_SEND       ? CHAT_SEND
           : t == MSG_MSG      ? CHAT_PUSH
           : t == MSG_ACCEPTED ? CHAT_ACCEPT
           : t == MSG_ACK      ? CHAT_ACK
                               : CHAT_OTHER;
}

static void take(struct chat_decoder *d, int i, const struct msg *m, struct chat_item *out)
{
    *out = (struct chat_item){.role = role_of(m->t)};
    out->t = m->t ? text_of(msg_type_name(m->t)) : (struct chat_text){m->code.p, (uint32_t)m->code.n};
    if (m->has & MSG_HAS(id)) {
        id_format(&m->id, d->text[i].id);
        out->id = (struct chat_text){d->text[i].id, ID_TEXT};
    }
    if (m->has & MSG_HAS(chat))
        out->chat = number(d->text[i].chat, m->chat);
    if (m->has & MSG_HAS(from))
        out->from = number(d->text[i].from, m->from);
    out->has_seq = m->has & MSG_HAS(seq);
    out->seq = m->seq;
}

/* Appends to the `k` items that are there; returns how many more. What they say lives in d->text. */
static int decode_bin(struct chat_decoder *d, const char *p, size_t n, bool sure, int k,
                      struct chat_item *out, int max)
{
    struct proto_frame f;
    struct msg m;
    int first = k, rc;
    if (!d->scratch.data) {
        d->scratch.cap = PROTO_SCRATCH;
        d->scratch.data = malloc(d->scratch.cap);
        if (!d->scratch.data) {
            d->scratch.cap = 0;
            return 0;
        }
    }
    rc = proto_bin_begin(&f, p, n, &d->scratch, NULL);
    while (rc >= 0 && k < max && (rc = proto_bin_next(&f, &m, NULL)) > 0) {
        take(d, k, &m, &out[k]);
        k++;
    }
    d->bad += rc < 0 && sure;
    return rc < 0 && !sure ? 0 : k - first;
}

/* Records {u32 session, u8 op, u24 length, payload}, big-endian (lib/transport/mux.h); DATA holds a frame of
 * chat.v1.bin. */
static int decode_mux(struct chat_decoder *d, const char *p, size_t n, struct chat_item *out, int max)
{
    const uint8_t *h = (const uint8_t *)p, *end = h + n;
    int k = 0;
    while (k < max && end - h >= 8) {
        uint32_t session = (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
        uint32_t len = (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
        if (len > (size_t)(end - h) - 8)
            break;
        if (h[4] == MUX_DATA_OP) {
            int more = decode_bin(d, (const char *)h + 8, len, true, k, out, max);
            for (; more > 0; more--)
                out[k++].session = session;
        }
        h += 8 + len;
    }
    d->bad += h != end && k < max;
    return k;
}

int chat_decode(struct chat_decoder *d, const struct tap_message *m, struct chat_item *out, int max)
{
    const struct tap_conn *c = tap_conn(m->flow);
    const char *p = (const char *)m->p;
    if (!m->n || (m->opcode != WS_TEXT && m->opcode != WS_BINARY))
        return 0;
    if (d->dialect)
        return dialect_scan(d->dialect, m->dir == 0, p, m->n, out, max);
    if (m->opcode == WS_TEXT)
        return chat_scan_json(p, m->n, out, max);
    if (strcmp(c->subprotocol, "chat.mux.v1") == 0)
        return decode_mux(d, p, m->n, out, max);
    bool bin = strcmp(c->subprotocol, PROTO_SUBPROTOCOL ".bin") == 0;
    if (m->complete && (bin || m->guess || !c->subprotocol[0]))
        return decode_bin(d, p, m->n, bin, 0, out, max);
    return 0;
}

void chat_decoder_release(struct chat_decoder *d)
{
    free(d->scratch.data);
    d->scratch = (struct proto_scratch){0};
}

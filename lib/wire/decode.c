#include "wire/decode.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/bin.h"

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

static int decode_bin(struct chat_decoder *d, const char *p, size_t n, bool sure, struct chat_item *out,
                      int max)
{
    struct proto_frame f;
    struct msg m;
    int k = 0, rc;
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
    return rc < 0 && !sure ? 0 : k;
}

int chat_decode(struct chat_decoder *d, const struct tap_message *m, struct chat_item *out, int max)
{
    const struct tap_conn *c = tap_conn(m->flow);
    const char *p = (const char *)m->p;
    if (!m->n || (m->opcode != WS_TEXT && m->opcode != WS_BINARY))
        return 0;
    if (m->opcode == WS_TEXT)
        return chat_scan_json(p, m->n, out, max);
    bool bin = strcmp(c->subprotocol, PROTO_SUBPROTOCOL ".bin") == 0;
    if (m->complete && (bin || m->guess || !c->subprotocol[0]))
        return decode_bin(d, p, m->n, bin, out, max);
    return 0;
}

void chat_decoder_release(struct chat_decoder *d)
{
    free(d->scratch.data);
    d->scratch = (struct proto_scratch){0};
}

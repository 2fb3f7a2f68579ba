#include "transport/mux.h"

/* Payload lengths that each op may have. */
static const struct {
    uint32_t min, max;
} lengths[] = {
    [MUX_OPEN] = {4, 4096}, [MUX_DATA] = {1, MUX_PAYLOAD_MAX}, [MUX_CREDIT] = {4, 4},
    [MUX_CUT] = {8, 8},     [MUX_CLOSE] = {2, 2 + 120},        [MUX_BEATS] = {1, MUX_SESSIONS_MAX / 8},
};

int mux_next(const char **p, const char *end, struct mux_record *r)
{
    size_t left = (size_t)(end - *p);
    if (!left)
        return 0;
    if (left < MUX_HEADER)
        return ERR_TRUNCATED;
    unsigned op = (uint8_t)(*p)[4];
    *r = (struct mux_record){.session = (uint32_t)mux_get(*p, 4),
                             .op = (enum mux_op)op,
                             .len = (uint32_t)mux_get(*p + 5, 3),
                             .payload = *p + MUX_HEADER};
    if (op < MUX_OPEN || op > MUX_BEATS || r->session >= MUX_SESSIONS_MAX || r->len < lengths[op].min)
        return ERR_INVALID;
    if (r->len > MUX_PAYLOAD_MAX)
        return ERR_LIMIT;
    if (r->len > lengths[op].max)
        return ERR_INVALID;
    if (left - MUX_HEADER < r->len)
        return ERR_TRUNCATED;
    *p += MUX_HEADER + r->len;
    return 1;
}

void mux_put(struct buf *out, uint32_t session, enum mux_op op, const void *payload, size_t len)
{
    char *to = len <= MUX_PAYLOAD_MAX ? buf_reserve(out, MUX_HEADER + len) : NULL;
    if (!to) {
        out->failed = true;
        return;
    }
    mux_header(to, session, op, len);
    if (len)
        memcpy(to + MUX_HEADER, payload, len);
    out->len += MUX_HEADER + len;
}

#include "wire/deflate.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

/* --- what was agreed ---------------------------------------------------------------------------------- */

struct piece {
    const char *p;
    size_t n;
};

static struct piece trimmed(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct piece){p, (size_t)(end - p)};
}

static bool piece_is(struct piece s, const char *text)
{
    return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

/* 8..15 without a leading zero, as a token or quoted (RFC 6455 section 9.1); 0 when it is something else. */
static unsigned window_bits(struct piece v)
{
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
        v = (struct piece){v.p + 1, v.n - 2};
    if (v.n == 1 && (v.p[0] == '8' || v.p[0] == '9'))
        return (unsigned)(v.p[0] - '0');
    if (v.n == 2 && v.p[0] == '1' && v.p[1] >= '0' && v.p[1] <= '5')
        return 10u + (unsigned)(v.p[1] - '0');
    return 0;
}

enum { SEEN_SERVER_BITS = 1, SEEN_CLIENT_BITS = 2, SEEN_SERVER_FRESH = 4, SEEN_CLIENT_FRESH = 8 };

/* One "name" or "name=value" of the answer. False: the answer is not valid. */
static bool take_parameter(struct ws_deflate *d, unsigned *seen, struct piece name, struct piece value,
                           bool valued)
{
    unsigned bit = piece_is(name, "server_max_window_bits")       ? SEEN_SERVER_BITS
                   : piece_is(name, "client_max_window_bits")     ? SEEN_CLIENT_BITS
                   : piece_is(name, "server_no_context_takeover") ? SEEN_SERVER_FRESH
                   : piece_is(name, "client_no_context_takeover") ? SEEN_CLIENT_FRESH
                                                                  : 0;
    if (!bit || *seen & bit)
        return false;
    *seen |= bit;
    if (bit == SEEN_SERVER_FRESH || bit == SEEN_CLIENT_FRESH) {
        *(bit == SEEN_SERVER_FRESH ? &d->server_takeover : &d->client_takeover) = false;
        return !valued;
    }
    unsigned bits = valued ? window_bits(value) : 0; /* in an answer the value is not optional */
    *(bit == SEEN_SERVER_BITS ? &d->server_bits : &d->client_bits) = (uint8_t)bits;
    return bits != 0;
}

int ws_deflate_agree(struct ws_deflate *d, const char *value, size_t n, struct err_ctx *ctx)
{
    const char *p = value, *end = value + n;
    struct ws_deflate got = {.agreed = true,
                             .client_takeover = true,
                             .server_takeover = true,
                             .client_bits = 15,
                             .server_bits = 15};
    unsigned seen = 0;
    memset(d, 0, sizeof *d);
    if (!trimmed(p, end).n)
        return 0;
    if (memchr(p, ',', n))
        return err_set(ctx, ERR_UNSUPPORTED, "more than one WebSocket extension was agreed on");
    for (bool first = true; p < end; first = false) {
        const char *stop = memchr(p, ';', (size_t)(end - p));
        stop = stop ? stop : end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        struct piece name = trimmed(p, equals ? equals : stop);
        struct piece v = equals ? trimmed(equals + 1, stop) : (struct piece){NULL, 0};
        p = stop < end ? stop + 1 : end;
        if (first && !piece_is(name, "permessage-deflate"))
            return err_set(ctx, ERR_UNSUPPORTED, "the WebSocket extension '%.*s' is not known",
                           (int)(name.n > 60 ? 60 : name.n), name.p);
        if (first ? equals != NULL : !take_parameter(&got, &seen, name, v, equals != NULL))
            return err_set(ctx, ERR_INVALID,
                           "permessage-deflate: the parameter '%.*s' is unknown, doubled or wrong",
                           (int)(name.n > 60 ? 60 : name.n), name.p);
    }
    *d = got;
    return 1;
}

/* --- inflating ---------------------------------------------------------------------------------------- */

struct ws_inflate {
    z_stream z;
    bool takeover, spent;
    uint64_t message_max, text; /* of the message so far */
};

int ws_inflate_new(struct ws_inflate **out, bool takeover, uint64_t message_max)
{
    struct ws_inflate *z = calloc(1, sizeof *z);
    *out = NULL;
    /* Negative: raw deflate. Always the largest window: under a smaller one zlib takes or refuses what
     * reaches too far back by how the bytes came in pieces. Its memory is only taken when there is text for
     * it. */
    if (!z || inflateInit2(&z->z, -15) != Z_OK) {
        free(z);
        return ERR_NOMEM;
    }
    z->takeover = takeover;
    z->message_max = message_max;
    *out = z;
    return 0;
}

void ws_inflate_free(struct ws_inflate *z)
{
    if (z)
        inflateEnd(&z->z);
    free(z);
}

/* A block with BFINAL ends the deflate stream but not the message (section 7.2.3.4): go on with the same
 * window. */
static int next_stream(struct ws_inflate *z)
{
    uint8_t window[32768];
    uInt n = sizeof window;
    if (inflateGetDictionary(&z->z, window, &n) != Z_OK || inflateReset(&z->z) != Z_OK)
        return ERR_CORRUPT;
    return n && inflateSetDictionary(&z->z, window, n) != Z_OK ? ERR_CORRUPT : 0;
}

static int run(struct ws_inflate *z, const void *p, size_t n, ws_inflate_sink *sink, void *arg)
{
    uint8_t text[WS_INFLATE_PIECE];
    z->z.next_in = (Bytef *)p;
    while (n || z->z.avail_in) {
        if (!z->z.avail_in) { /* zlib counts in 32 bits */
            z->z.avail_in = n > 1u << 30 ? 1u << 30 : (uInt)n;
            n -= z->z.avail_in;
        }
        for (bool more = true; more;) {
            z->z.next_out = text;
            z->z.avail_out = sizeof text;
            int rc = inflate(&z->z, Z_SYNC_FLUSH);
            size_t got = sizeof text - z->z.avail_out;
            z->text += got;
            if (z->text > z->message_max)
                return ERR_LIMIT;
            if (got)
                sink(arg, text, got);
            if (rc == Z_MEM_ERROR)
                return ERR_NOMEM;
            if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
                return ERR_CORRUPT;
            if (rc == Z_STREAM_END && next_stream(z))
                return ERR_CORRUPT;
            more = z->z.avail_in ? rc != Z_BUF_ERROR || got : !z->z.avail_out;
            if (z->z.avail_in && !more)
                return ERR_CORRUPT; /* no progress */
        }
    }
    return 0;
}

int ws_inflate_feed(struct ws_inflate *z, const void *p, size_t n, bool end, ws_inflate_sink *sink, void *arg,
                    struct err_ctx *ctx)
{
    static const uint8_t tail[4] = {0, 0, 0xff, 0xff}; /* what the sender took away (section 7.2.2) */
    if (z->spent)
        return err_set(ctx, ERR_CORRUPT, "permessage-deflate: given up before");
    int rc = run(z, p, n, sink, arg);
    if (!rc && end)
        rc = run(z, tail, sizeof tail, sink, arg);
    if (!rc && end && !(z->z.data_type & 128)) /* not between two blocks: something was cut off */
        rc = ERR_CORRUPT;
    if (!rc && end) {
        z->text = 0;
        if (!z->takeover)
            rc = inflateReset(&z->z) == Z_OK ? 0 : ERR_CORRUPT;
    }
    z->spent = rc != 0;
    if (!rc)
        return 0;
    return err_set(ctx, rc,
                   rc == ERR_LIMIT ? "permessage-deflate: a message grows past %llu bytes"
                   : rc == ERR_NOMEM
                       ? "permessage-deflate: out of memory"
                       : "permessage-deflate: the data is not deflate (after %llu bytes of text)",
                   (unsigned long long)(rc == ERR_LIMIT ? z->message_max : z->text));
}

static void add_to(void *arg, const uint8_t *p, size_t n)
{
    buf_add(arg, p, n);
}

int ws_inflate_message(struct ws_inflate *z, const void *p, size_t n, struct buf *out, struct err_ctx *ctx)
{
    int rc = ws_inflate_feed(z, p, n, true, add_to, out, ctx);
    return rc ? rc : out->failed ? err_set(ctx, ERR_LIMIT, "permessage-deflate: no room for the text") : 0;
}

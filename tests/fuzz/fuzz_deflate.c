/* Any bytes as compressed messages, and as the answer that agrees on compression. First byte: window,
 * takeover, piece size. The text must not hang on the pieces, and never passes its limit. */
#include <stdlib.h>
#include <string.h>

#include "util/map.h"
#include "wire/deflate.h"

#define TEXT_MAX 100000

struct text {
    uint64_t sum, n;
};

static void take(void *arg, const uint8_t *p, size_t n)
{
    struct text *t = arg;
    if (!n || n > WS_INFLATE_PIECE)
        abort();
    for (size_t i = 0; i < n; i++)
        t->sum = t->sum * 31 + p[i];
    t->n += n;
}

/* Messages end where a byte 0xff stands. */
static int inflate_all(const uint8_t *data, size_t size, unsigned how, size_t step, struct text *t)
{
    struct ws_inflate *z;
    int rc = 0;
    if (ws_inflate_new(&z, how & 8, TEXT_MAX))
        abort();
    for (size_t at = 0; at < size && !rc;) {
        const uint8_t *end = memchr(data + at, 0xff, size - at);
        size_t n = (end ? (size_t)(end - data) : size) - at;
        uint64_t before = t->n;
        for (size_t k = 0; !rc && (k < n || !n); k += step) {
            size_t m = n - k < step ? n - k : step;
            uint8_t *exact = malloc(m ? m : 1);
            memcpy(exact, data + at + k, m);
            rc = ws_inflate_feed(z, exact, m, k + m == n, take, t, NULL);
            free(exact);
            if (!n)
                break;
        }
        if (t->n - before > TEXT_MAX)
            abort();
        at += n + 1;
    }
    ws_inflate_free(z);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text one = {0}, many = {0};
    struct ws_deflate d;
    if (size < 2)
        return 0;
    int a = inflate_all(data + 1, size - 1, data[0], size, &one);
    int b = inflate_all(data + 1, size - 1, data[0], 1 + data[0] / 16, &many);
    if (a != b || (!a && (one.sum != many.sum || one.n != many.n)))
        abort();
    int rc = ws_deflate_agree(&d, (const char *)data, size, NULL);
    if (rc != 1 && d.agreed)
        abort();
    return 0;
}

/* A file of outbox rows, whatever is in it: rows are whole or refused, and what is read encodes to the same
 * bytes. */
#include <string.h>

#include "core/outbox.h"
#include "util/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outbox_row row;
    for (size_t at = 0; at < size;) {
        long n = outbox_row_decode((const char *)data + at, size - at, &row);
        if (n <= 0) {
            BUG_ON(n != ERR_TRUNCATED && n != ERR_CORRUPT);
            break;
        }
        struct buf again = BUF_INIT(1u << 20);
        BUG_ON((size_t)n > size - at);
        outbox_row_encode(&again, &row);
        BUG_ON(again.failed || again.len != (size_t)n);
        BUG_ON(row.kind.p + row.kind.n > (const char *)data + at + n ||
               row.body.p + row.body.n > (const char *)data + at + n);
        buf_release(&again);
        at += (size_t)n;
    }
    return 0;
}

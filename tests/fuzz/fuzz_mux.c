/* Any bytes as a WebSocket message of chat.mux.v1. Records lie inside of it, one behind the other, and what
 * was read is written again to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "transport/mux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    const char *p = (const char *)data, *end = p + size;
    struct mux_record r;
    int rc;
    again.max = 4u << 20;
    buf_reset(&again);
    while ((rc = mux_next(&p, end, &r)) == 1) {
        if (r.payload < (const char *)data + MUX_HEADER || r.payload + r.len != p || p > end ||
            r.session >= MUX_SESSIONS_MAX)
            abort();
        mux_put(&again, r.session, r.op, r.payload, r.len);
    }
    if (rc > 0 || again.failed || (size_t)(p - (const char *)data) != again.len ||
        memcmp(again.data ? again.data : "", data, again.len) != 0 || (rc == 0) != (p == end))
        abort();
    return 0;
}

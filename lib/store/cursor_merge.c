#include "store/kv.h"

void kv_cursor_merge(uint8_t into[KV_CURSOR_BYTES], const uint8_t later[KV_CURSOR_BYTES])
{
    if (memcmp(into, later, 8) != 0) {
        memcpy(into, later, KV_CURSOR_BYTES);
        return;
    }
    /* big-endian numbers compare as bytes */
    for (int at = 8; at < KV_CURSOR_BYTES; at += 8)
        if (memcmp(into + at, later + at, 8) < 0)
            memcpy(into + at, later + at, 8);
}

#include "store/kv.h"

void kv_cursor_merge(uint8_t into[KV_CURSOR_BYTES], const uint8_t later[KV_CURSOR_BYTES])
{
    /* big-endian numbers compare as bytes */
    bool other_epoch = memcmp(into, later, 8) != 0;
    if (other_epoch || memcmp(into + 8, later + 8, 8) < 0)
        memcpy(into, later, 16);
    if (memcmp(into + 16, later + 16, 8) < 0)
        memcpy(into + 16, later + 16, 8);
}

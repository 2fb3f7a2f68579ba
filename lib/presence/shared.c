#include "presence/shared.h"

#include <string.h>

#include "util/map.h"

#define SEEN_MASK 0x3FFFFFu

struct shared_place shared_place(uint64_t user)
{
    uint8_t id[8];
    struct shared_place p;
    for (int i = 0; i < 8; i++)
        id[i] = (uint8_t)(user >> (8 * i));
    uint64_t h = hash_bytes(id, sizeof id, 0x70726573656e6365ull);
    p.page = (uint16_t)(h >> 54);
    for (unsigned i = 0; i < SHARED_PRINT; i++)
        p.print[i] = (uint8_t)(h >> (8 * i));
    return p;
}

void shared_cell_put(uint8_t out[3], const struct shared_state *s, uint16_t slot)
{
    uint32_t v = (uint32_t)s->state << 22, seen = 0;
    if (s->state != PRESENCE_OFFLINE)
        v |= (uint32_t)(slot % SHARED_SLOTS) << 16;
    else if (s->at_s > PRESENCE_BEGIN_S)
        seen = (uint32_t)((s->at_s - PRESENCE_BEGIN_S) / SHARED_UNIT_S) & SEEN_MASK;
    v |= seen;
    out[0] = (uint8_t)(v >> 16);
    out[1] = (uint8_t)(v >> 8);
    out[2] = (uint8_t)v;
}

/* The latest time, not after now, that has these low bits. */
static uint64_t dated(uint32_t low, uint64_t now_s)
{
    uint64_t now = now_s > PRESENCE_BEGIN_S ? (now_s - PRESENCE_BEGIN_S) / SHARED_UNIT_S + 1 : 0;
    uint64_t at = (now & ~(uint64_t)SEEN_MASK) | low;
    if (at > now)
        at = at > SEEN_MASK ? at - SEEN_MASK - 1 : low;
    return PRESENCE_BEGIN_S + at * SHARED_UNIT_S;
}

void shared_cell_get(const uint8_t in[3], uint64_t now_s, struct shared_state *s, uint16_t *slot)
{
    uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
    s->state = (enum presence_state)(v >> 22);
    s->at_s = 0;
    s->doubted = false;
    *slot = SHARED_NOBODY;
    if (s->state == PRESENCE_OFFLINE)
        s->at_s = v & SEEN_MASK ? dated(v & SEEN_MASK, now_s) : 0;
    else if (s->state != PRESENCE_UNKNOWN)
        *slot = v >> 16 & (SHARED_SLOTS - 1);
}

void shared_doubt(struct shared_state *s, uint64_t silent_ms, uint64_t now_s)
{
    if ((s->state != PRESENCE_ONLINE && s->state != PRESENCE_AWAY) || silent_ms < SHARED_DOUBT_MS)
        return;
    s->doubted = true;
    s->state = silent_ms < SHARED_DEAD_MS ? PRESENCE_UNKNOWN : PRESENCE_OFFLINE;
    s->at_s = s->state == PRESENCE_OFFLINE && silent_ms < UINT32_MAX ? now_s - silent_ms / 1000 : 0;
}

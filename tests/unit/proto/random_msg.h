/* Random messages of every type, for round trips. The lists and texts live in static memory until the next
 * call. */
#ifndef TEST_RANDOM_MSG_H
#define TEST_RANDOM_MSG_H

#include <string.h>

#include "proto/proto.h"
#include "util/rng.h"

/* Valid UTF-8 with quotes, controls, NULs and planes beyond the first. */
static inline struct slice random_text(struct rng *r, size_t max)
{
    static char pool[1 << 20];
    static size_t used;
    if (used + max * 4 + 4 > sizeof pool)
        used = 0;
    char *o = pool + used, *p = o;
    for (size_t n = rng_below(r, max + 1); n; n--) {
        uint32_t c =
            (uint32_t)rng_below(r, 20) ? 0x20 + (uint32_t)rng_below(r, 95) : (uint32_t)rng_below(r, 0x110000);
        if (c >= 0xd800 && c <= 0xdfff)
            c = '"';
        if (c < 0x80) {
            *p++ = (char)c;
        } else if (c < 0x800) {
            *p++ = (char)(0xc0 | c >> 6);
            *p++ = (char)(0x80 | (c & 63));
        } else if (c < 0x10000) {
            *p++ = (char)(0xe0 | c >> 12);
            *p++ = (char)(0x80 | (c >> 6 & 63));
            *p++ = (char)(0x80 | (c & 63));
        } else {
            *p++ = (char)(0xf0 | c >> 18);
            *p++ = (char)(0x80 | (c >> 12 & 63));
            *p++ = (char)(0x80 | (c >> 6 & 63));
            *p++ = (char)(0x80 | (c & 63));
        }
    }
    used += (size_t)(p - o);
    return (struct slice){o, (size_t)(p - o)};
}

static inline uint64_t random_number(struct rng *r, uint64_t max)
{
    switch (rng_below(r, 4)) {
    case 0:
        return 0;
    case 1:
        return max;
    case 2:
        return rng_below(r, 1000);
    default:
        return rng_u64(r) % max;
    }
}

/* Every member gets a value; the encoder writes those of the type. */
static inline struct msg random_msg(struct rng *r, enum msg_type t)
{
    static struct claim claims[64];
    static uint64_t users[64];
    static struct slice notices[PROTO_NOTICES_MAX];
    static struct msg_range ranges[8];
    static struct msg_report reports[8];
    static struct msg_refused refused[8];
    static struct msg_entry entries[8];
    static struct msg_count counts[8];
    struct msg m = {.t = t};
    uint64_t *u64s[] = {&m.chat, &m.user, &m.epoch, &m.from};
    uint64_t *ints[] = {&m.seq, &m.after, &m.since, &m.ts, &m.to, &m.gap_from, &m.delivered, &m.read};
    uint32_t *u32s[] = {&m.device,
                        &m.limit,
                        &m.beat_s,
                        &m.retry_ms,
                        &m.limits.body,
                        &m.limits.batch,
                        &m.limits.rate_per_s,
                        &m.limits.chats};
    struct slice *texts[] = {&m.token, &m.net, &m.session, &m.reason, &m.code, &m.text, &m.re};
    for (size_t i = 0; i < sizeof u64s / sizeof *u64s; i++)
        *u64s[i] = random_number(r, UINT64_MAX);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        *ints[i] = random_number(r, PROTO_SEQ_MAX);
    for (size_t i = 0; i < sizeof u32s / sizeof *u32s; i++)
        *u32s[i] = (uint32_t)random_number(r, UINT32_MAX);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i] = random_text(r, 40);
    m.kind = random_text(r, PROTO_KIND_MAX / 4);
    m.body = random_text(r, rng_below(r, 50) ? 300 : 4000);
    m.id = id_new(rng_u64(r) >> 16, r);
    m.dup = rng_below(r, 2);
    m.away = rng_below(r, 2);
    m.reconnect = rng_below(r, 2);
    m.more = rng_below(r, 2);
    m.tag_len = (uint8_t)rng_below(r, PROTO_TAG_BYTES + 1);
    for (int i = 0; i < m.tag_len; i++)
        m.tag[i] = (uint8_t)rng_u64(r);
    m.resume_n = (uint32_t)rng_below(r, 64);
    m.users_n = (uint32_t)rng_below(r, 64);
    m.notices_n = (uint32_t)rng_below(r, 5);
    for (uint32_t i = 0; i < m.resume_n; i++)
        claims[i] = (struct claim){random_number(r, UINT64_MAX), rng_u64(r), random_number(r, PROTO_SEQ_MAX)};
    for (uint32_t i = 0; i < m.users_n; i++)
        users[i] = random_number(r, UINT64_MAX);
    for (uint32_t i = 0; i < m.notices_n; i++)
        notices[i] = random_text(r, 30);
    m.ranges_n = (uint32_t)rng_below(r, 8);
    m.reports_n = (uint32_t)rng_below(r, 8);
    m.refused_n = (uint32_t)rng_below(r, 8);
    m.entries_n = (uint32_t)rng_below(r, 8);
    m.counts_n = (uint32_t)rng_below(r, 8);
    for (uint32_t i = 0; i < 8; i++) {
        ranges[i] = (struct msg_range){random_number(r, PROTO_SEQ_MAX), random_number(r, PROTO_SEQ_MAX)};
        reports[i] =
            (struct msg_report){.chat = rng_u64(r), .epoch = rng_u64(r), .hash_len = (uint8_t)(i * 2)};
        reports[i].head = random_number(r, PROTO_SEQ_MAX);
        memset(reports[i].hash, (int)i, reports[i].hash_len);
        refused[i].id = id_new(rng_u64(r) >> 16, r);
        refused[i].code = random_text(r, 12);
        entries[i] = (struct msg_entry){.epoch = rng_u64(r), .from = rng_u64(r), .tag_len = 16};
        entries[i].seq = random_number(r, PROTO_SEQ_MAX);
        entries[i].ts = random_number(r, PROTO_SEQ_MAX);
        entries[i].id = id_new(rng_u64(r) >> 16, r);
        entries[i].kind = random_text(r, PROTO_KIND_MAX / 4);
        entries[i].body = random_text(r, 100);
        memset(entries[i].tag, (int)i + 1, 16);
        counts[i] = (struct msg_count){.from = random_number(r, PROTO_SEQ_MAX)};
        counts[i].to = random_number(r, PROTO_SEQ_MAX);
        counts[i].delivered = (uint32_t)random_number(r, UINT32_MAX);
        counts[i].read = (uint32_t)random_number(r, UINT32_MAX);
        counts[i].of = (uint32_t)random_number(r, UINT32_MAX);
    }
    m.ranges = ranges;
    m.reports = reports;
    m.refused = refused;
    m.entries = entries;
    m.counts = counts;
    m.ok = (uint32_t)random_number(r, UINT32_MAX);
    m.resume = claims;
    m.users = users;
    m.notices = notices;
    return m;
}

#endif

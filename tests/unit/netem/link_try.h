/* What the tests of links share: a profile from its text, and a run of equal packets. */
#ifndef TESTS_NETEM_LINK_TRY_H
#define TESTS_NETEM_LINK_TRY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "netem/link.h"
#include "util/map.h"

#define MS 1000000ull
#define S  1000000000ull

static inline struct netem_profile profile(const char *text)
{
    struct netem_profile p;
    struct err_ctx err = {0};
    if (netem_profile_parse(&p, text, &err))
        fail_msg("%s", err.text);
    return p;
}

/* All that a verdict says, in the order of packets. */
static inline uint64_t hash_verdict(uint64_t h, const struct link_verdict *v)
{
    uint64_t fate[6] = {v->reason,    v->reason ? 0 : v->deliver_ns,
                        v->copy_ns,   v->corrupt ? v->corrupt_bit + 1 : 0,
                        v->reordered, v->depart_ns};
    return hash_bytes(fate, sizeof fate, h);
}

#endif

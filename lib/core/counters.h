/* What a node counts (counters.def). */
#ifndef CORE_COUNTERS_H
#define CORE_COUNTERS_H

#include <stdint.h>

struct counters {
#define COUNTER(name, help) uint64_t name;
#include "core/counters.def"
#undef COUNTER
};

#endif

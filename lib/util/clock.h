/* Time as an interface: pure code is handed `now`, the two worlds own the clocks.
 *
 * ns are nanoseconds of a monotonic clock (CLOCK_MONOTONIC: one origin for all processes of a machine), us
 * are microseconds since 1970 UTC. */
#ifndef UTIL_CLOCK_H
#define UTIL_CLOCK_H

#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

/* Both readings at one instant, as steps receive them. */
struct now {
    uint64_t mono_ns;
    uint64_t wall_us;
};

/* The real world's clocks. */
struct now clock_now(void);
uint64_t clock_mono_ns(void);
uint64_t clock_wall_us(void);

/* Shift the wall clock of this process by `us` (tests of windows that last for days). */
void clock_shift_wall(int64_t us);

#endif

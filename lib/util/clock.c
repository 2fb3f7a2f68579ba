#include "util/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t wall_shift_us;

uint64_t clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t clock_wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)((int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + atomic_load(&wall_shift_us));
}

struct now clock_now(void)
{
    return (struct now){clock_mono_ns(), clock_wall_us()};
}

void clock_shift_wall(int64_t us)
{
    atomic_store(&wall_shift_us, us);
}

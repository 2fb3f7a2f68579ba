/* Seeded randomness: xoshiro256** (Blackman & Vigna, 2018) seeded by splitmix64. Integer arithmetic only, so
 * that a seed gives the same numbers on every machine and compiler. Not for secrets. */
#ifndef UTIL_RNG_H
#define UTIL_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
/* An independent stream named by (seed, stream): phones, links and faults each take their own. */
void rng_seed_stream(struct rng *r, uint64_t seed, uint64_t stream);
uint64_t rng_u64(struct rng *r);
/* Uniform in [0, n); n = 0 gives 0. Without modulo bias (Lemire 2019). */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [lo, hi], both included. */
uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi);
/* True with probability p / 2^32; RNG_SHARE turns parts per million into that scale. */
#define RNG_SHARE(ppm) ((uint64_t)(ppm)*4294967296ull / 1000000ull)
bool rng_hit(struct rng *r, uint64_t p32);
/* Exponentially distributed with the given mean (Poisson arrivals), by an integer logarithm; error < 1e-4. */
uint64_t rng_exp(struct rng *r, uint64_t mean);
/* log2(x) in 32.32 fixed point, x > 0. */
uint64_t fixed_log2(uint64_t x);

#endif

#include "util/rng.h"

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        r->s[i] = splitmix(&seed);
}

void rng_seed_stream(struct rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t mixed = splitmix(&seed) ^ (stream * 0xd6e8feb86659fd93ull);
    rng_seed(r, splitmix(&mixed));
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    if (n < 2)
        return 0;
    unsigned __int128 m = (unsigned __int128)rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t floor = (0 - n) % n;
        while ((uint64_t)m < floor)
            m = (unsigned __int128)rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi)
{
    return hi <= lo ? lo : lo + rng_below(r, hi - lo + 1);
}

bool rng_hit(struct rng *r, uint64_t p32)
{
    return (rng_u64(r) >> 32) < p32;
}

uint64_t fixed_log2(uint64_t x)
{
    if (!x)
        return 0;
    int msb = 63 - __builtin_clzll(x);
    uint64_t result = (uint64_t)msb << 32;
    uint64_t m = x << (63 - msb); /* 1.63 fixed point in [1, 2) */
    for (int bit = 31; bit >= 0; bit--) {
        unsigned __int128 sq = (unsigned __int128)m * m; /* 2.126 */
        if (sq >> 127) {
            result |= 1ull << bit;
            m = (uint64_t)(sq >> 64);
        } else {
            m = (uint64_t)(sq >> 63);
        }
    }
    return result;
}

uint64_t rng_exp(struct rng *r, uint64_t mean)
{
    uint64_t u = rng_u64(r) | 1;
    uint64_t minus_log2 = (64ull << 32) - fixed_log2(u); /* 32.32 */
    const uint64_t ln2 = 2977044472ull;                  /* ln 2 in 0.32 */
    uint64_t minus_ln = (uint64_t)(((unsigned __int128)minus_log2 * ln2) >> 32);
    return (uint64_t)(((unsigned __int128)minus_ln * mean) >> 32);
}

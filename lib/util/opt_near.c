#include "util/opt_impl.h"

#include <string.h>

/* Edit distance with transpositions (optimal string alignment), names of at most 63 characters. */
static int distance(const char *a, size_t an, const char *b, size_t bn)
{
    int d[64][64];
    if (an > 63 || bn > 63)
        return 99;
    for (size_t i = 0; i <= an; i++) {
        for (size_t j = 0; j <= bn; j++) {
            if (!i || !j) {
                d[i][j] = (int)(i + j);
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[an][bn];
}

void nearest_offer(struct nearest *n, const char *name)
{
    size_t len = strlen(name);
    int d = distance(n->wanted, n->wanted_n, name, len);
    if (n->wanted_n >= 3 && len > n->wanted_n && memcmp(name, n->wanted, n->wanted_n) == 0)
        d = 1; /* the beginning of a name */
    if (!n->best || d < n->distance) {
        n->best = name;
        n->distance = d;
    }
}

const char *nearest_hint(const struct nearest *n, const char *prefix, char out[96])
{
    int limit = n->wanted_n < 4 ? 1 : n->wanted_n < 8 ? 2 : 3;
    out[0] = 0;
    if (n->best && n->distance <= limit)
        snprintf(out, 96, "; did you mean '%s%s'?", prefix, n->best);
    return out;
}

/* Prints the event hash of each seed in A..B: the same whatever compiled it (tests/slow/test_sim_replay). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/explore.h"

int main(int argc, char **argv)
{
    struct scenario *s = malloc(sizeof *s);
    uint64_t first = argc > 2 ? strtoull(argv[1], NULL, 10) : 1,
             last = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (uint64_t seed = first; s && seed <= last; seed++) {
        struct sim_result r;
        struct err_ctx ctx = {0};
        sim_draw(s, seed);
        int rc = sim_trial(s, NULL, &r, NULL, &ctx);
        if (rc) {
            fprintf(stderr, "seed %" PRIu64 ": %s\n", seed, ctx.text);
            return 1;
        }
        printf("%" PRIu64 " %016" PRIx64 " %" PRIu64 "%s%s\n", seed, r.hash, r.events, r.failed ? " " : "",
               r.what);
        scenario_release(s);
    }
    free(s);
    return 0;
}

/* Exploring: a scenario drawn from a seed, tried in the simulated world, and made small when it fails.
 *
 * Drawing is swarm testing (Groce, Zhang, Eide, Chen & Regehr, ISSTA 2012): each seed switches each feature
 * and each kind of fault on or off, and then draws from what is on, so that rare combinations come up and
 * kinds that would hide each other are also tried alone. */
#ifndef SIM_EXPLORE_H
#define SIM_EXPLORE_H

#include "sim/sim.h"

/* Fill *s; nothing to release but by scenario_release. */
void sim_draw(struct scenario *s, uint64_t seed);

/* One run, convergence demanded. `story` may be NULL. 0 whatever it found (out->failed). A server that does
 * not start, or phones that cannot begin, are failures of their own kind. ERR_INTERRUPTED, ERR_NOMEM. */
int sim_trial(const struct scenario *s, const volatile sig_atomic_t *interrupted, struct sim_result *out,
              struct buf *story, struct err_ctx *ctx);

/* Delta debugging (Zeller & Hildebrandt, IEEE TSE 2002, greedily): drop faults, populations and habits,
 * shorten, thin out, as long as a violation of the same kind remains; at most `runs` trials. *s becomes the
 * smallest found, *last its result. Returns the number of trials made, or an error. */
int sim_shrink(struct scenario *s, uint32_t runs, const volatile sig_atomic_t *interrupted,
               struct sim_result *last, struct err_ctx *ctx);

#endif

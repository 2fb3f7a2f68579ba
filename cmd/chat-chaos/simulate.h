/* chat-chaos run --world sim. */
#ifndef CHAT_CHAOS_SIMULATE_H
#define CHAT_CHAOS_SIMULATE_H

#include "run/chaos.h"

/* As chaos_run (run/chaos.h), in the simulated world; `programs` is not needed. */
int simulate(struct report_run *out, const struct chaos_config *config, struct err_ctx *ctx);

#endif

/* chat-loadgen's parts. */
#ifndef CHAT_LOADGEN_TOOL_H
#define CHAT_LOADGEN_TOOL_H

#include "run/loadgen.h"
#include "scenario/scenario.h"
#include "util/opt.h"

/* A scenario's populations and client faults as a load; `s` must outlive it. */
struct plan {
    struct scenario scenario;
    struct load_population populations[SCENARIO_POPULATIONS_MAX];
    struct load_fault faults[SCENARIO_FAULTS_MAX];
};
int plan_scenario(struct plan *p, struct load_config *c, const struct opt_set *o, struct err_ctx *err);
/* Phones as sessions of chat.mux.v1 (flood.c): `flood --transport mux`, or `run` of a scenario whose
 * population is a flood. *status as of a judged run. */
bool flood_wanted(const struct opt_set *o);
int flood_command(const struct opt_set *o, int *status, struct err_ctx *err);
int plan_flood(struct plan *p, struct load_config *c, const struct opt_set *o, struct err_ctx *err);

#endif

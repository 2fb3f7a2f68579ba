/* What a run left behind - load.json, traces, journals - read into the facts that are judged and the report
 * that is shown, and the report's files. Both worlds leave the same, so both use this.
 *
 * Must not know: worlds, processes, stores. */
#ifndef SCENARIO_EVIDENCE_H
#define SCENARIO_EVIDENCE_H

#include "audit/audit.h"
#include "report/report.h"
#include "scenario/judge.h"

#define EVIDENCE_TEXT 256

struct evidence {
    const struct scenario *s;
    const char *dir; /* with load.json, trace/, journal/ */
    struct report_run *out;
    char *doubt, *note; /* EVIDENCE_TEXT bytes each, the caller's: why the run proves nothing; for people. Set
                           only when empty */
    bool drained;       /* by evidence_load: everything had the time to arrive */
};

/* The generator's summary. */
int evidence_load(struct evidence *e, struct judge_facts *facts, struct err_ctx *ctx);
int evidence_trace(struct evidence *e, struct judge_facts *facts, struct err_ctx *ctx);
/* The phones' journals and, when `feed` is not NULL, the store's rows, which it hands to audit_add_entry. */
int evidence_journal(struct evidence *e, struct judge_facts *facts,
                     int (*feed)(void *arg, struct audit *a, struct err_ctx *ctx), void *arg,
                     struct err_ctx *ctx);
/* Only a server that commits before it accepts has promised anything about its store. */
bool evidence_promises_durability(const struct scenario *s);

/* Name, seed, faults of the scenario. */
void result_head(struct report_run *out, const struct scenario *s, const char *world);
/* Each expectation, and the verdict. */
int result_judge(struct report_run *out, const struct scenario *s, const struct judge_facts *facts,
                 struct err_ctx *ctx);
/* summary.json, report.html and junit.xml. */
int result_write(const struct report_run *out, const char *dir, struct err_ctx *ctx);
/* A new or empty folder, or one of our own, whose old results are removed. ERR_EXISTS: anybody else's. */
int result_folder(const char *dir, struct err_ctx *ctx);

#endif

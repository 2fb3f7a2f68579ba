/* The invariants of design.md section 7 that can be checked from outside: from the clients' journals, and
 * from the store's rows when they are given. Feed every journal and every row in any order, then finish.
 *
 * Memory: about 140 B a message and 40 B a (message, recipient) pair; limits AUDIT_MESSAGES_MAX and
 * AUDIT_PAIRS_MAX, past them ERR_LIMIT (nothing is skipped in silence). Memberships are taken to last for the
 * whole run. */
#ifndef AUDIT_AUDIT_H
#define AUDIT_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"
#include "util/err.h"

#define AUDIT_MESSAGES_MAX (16u << 20)
#define AUDIT_PAIRS_MAX    (128u << 20)
#define AUDIT_FINDINGS_MAX 20 /* kept of each kind; the rest is counted */

enum audit_kind {
#define AUDIT(ID, name, text) AUDIT_##ID,
#include "audit/kinds.def"
#undef AUDIT
    AUDIT_KIND_COUNT
};
const char *audit_kind_name(enum audit_kind k); /* "duplicate" */
const char *audit_kind_text(enum audit_kind k);

struct audit_finding {
    enum audit_kind kind;
    char text[240]; /* "user 8 device 1 showed 0193... of chat 17 twice (journal.jsonl:812)" */
};

struct audit_result {
    uint64_t rows, messages, sent, accepted, surfaced, gave_up, stored;
    uint64_t pairs_expected; /* of accepted messages */
    uint64_t pairs_surfaced; /* of them */
    uint64_t pairs_pending;  /* missing while the run was not drained: no violation yet */
    uint64_t count[AUDIT_KIND_COUNT], violations;
    const struct audit_finding *findings;
    uint32_t findings_n;
};

struct audit;

int audit_new(struct audit **a, struct err_ctx *ctx);
void audit_free(struct audit *a);
/* One journal file, or every *.jsonl file of a folder. An error leaves the audit unfit to be finished. */
int audit_add_journal(struct audit *a, const char *path, struct err_ctx *ctx);
/* One row of the store. Once called (audit_expect_store for a store that may be empty), each accepted message
 * must be there. */
void audit_expect_store(struct audit *a);
int audit_add_entry(struct audit *a, const struct entry *e, struct err_ctx *ctx);
/* The same as the callback of a scan of the store: false stops it, and `rc` says why. */
struct audit_feed {
    struct audit *audit;
    struct err_ctx *ctx;
    int rc;
};
bool audit_feed_entry(void *feed, const struct entry *e);
/* `drained`: everything had the time to arrive, so what is missing is a violation, not pending. The result
 * belongs to the audit. */
int audit_finish(struct audit *a, bool drained, struct audit_result *out, struct err_ctx *ctx);

#endif

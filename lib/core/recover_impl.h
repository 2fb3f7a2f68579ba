/* Inside of recover: recover_rows.c makes the batch of an offer. */
#ifndef CORE_RECOVER_IMPL_H
#define CORE_RECOVER_IMPL_H

#include "core/recover.h"

/* A membership entry whose body says whom it is about, or no membership entry. */
bool recover_parses(const struct entry *e);
/* Fill r->job with the offer's entries, the rows of memberships that they change, and o->recovered.
 * ERR_NOMEM: nothing of it. */
int recover_build(struct recover *r, struct offer *o);
/* The memberships that the batch has changed, as they are now; *out is the caller's to free. */
size_t recover_changes(const struct recover *r, const struct offer *o, struct recover_member **out);

#endif

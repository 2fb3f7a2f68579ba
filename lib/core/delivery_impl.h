/* Inside of delivery: what its files do for each other. */
#ifndef CORE_DELIVERY_IMPL_H
#define CORE_DELIVERY_IMPL_H

#include "core/delivery.h"

struct shared_frame *delivery_encode(struct delivery *d, enum proto_codec codec, const struct msg *m);
struct shared_frame *delivery_encode_entry(struct delivery *d, enum proto_codec codec, const struct entry *e);
/* Hand one entry to one position. */
void delivery_push(struct delivery *d, struct sub *sub, uint64_t seq, struct shared_frame *f);
/* May it be pushed to? If not it is marked behind (in legacy: the entry is lost to it), which is counted. */
bool delivery_keeps_up(struct delivery *d, struct sub *sub, const struct chat *c, uint64_t seq,
                       const struct id *id);
static inline struct session *delivery_session(const struct delivery *d, const struct sub *sub)
{
    return registry_session(d->registry, sub->session);
}

/* delivery_sequential.c */
void sequential_add(struct delivery *d, const struct chat *c, const struct entry *e);
void sequential_go_on(struct delivery *d);
void sequential_release(struct delivery *d);
/* delivery_passive.c */
void passive_note(struct delivery *d, const struct chat *c);
void passive_tell(struct delivery *d);

#endif

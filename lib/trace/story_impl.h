/* One message's records, read once; judged per recipient in judge.c. */
#ifndef TRACE_STORY_IMPL_H
#define TRACE_STORY_IMPL_H

#include "trace/index_impl.h"

struct by_user {
    uint64_t user;
    uint32_t rec;
};

struct story {
    const struct trace_run *r;
    struct id id;
    uint64_t chat, sender;
    /* the latest of each kind, or TRACE_NONE */
    uint32_t submit, give_up, accepted_seen, received, reject, duplicate, commit, fanout, publish,
        store_failure;
    uint32_t first_received, any_server; /* the first record that says that the server had it */
    uint32_t received_n, fanouts_n, attempts_max, stale_publish;
    bool one_send, outbox, durable, one_push, many_push;
    bool sends_known;     /* the CLIENT_SENDs here are provably all there ever were */
    bool fanouts_known;   /* so are the fan-outs */
    bool outside;         /* of a sample, and its sender is provably not in it: no pair is judged */
    bool members_certain; /* the recipients are provably these */
    uint32_t *send;       /* CLIENT_SEND records, in order */
    uint32_t sends;
    struct by_user *direct; /* records that name a recipient, by (user, record) */
    uint32_t directs;
    uint64_t *recipient; /* rising, without the sender */
    uint32_t recipients;
    /* capacities of the three arrays, kept from message to message */
    uint32_t send_cap, direct_cap, recipient_cap;
};

/* Is the record's user a recipient of the message (not its sender)? */
bool hop_names_recipient(int hop);
void story_release(struct story *s);
/* Read message number `message` of the index. 0 or ERR_NOMEM. */
int story_read(struct story *s, const struct trace_run *r, uint32_t message);
/* The records that name this recipient: [*from, *to) of s->direct. */
void story_slice(const struct story *s, uint64_t user, uint32_t *from, uint32_t *to);
void story_judge(const struct story *s, uint64_t recipient, struct trace_pair *p);

#endif

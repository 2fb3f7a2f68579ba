/* Who was owed what: every message that people meant to send, and for each recipient whether it surfaced, and
 * how late after the person's intent. The ledger is the phones' own; nothing in it comes from the server's
 * word.
 *
 * A pair is (message id, recipient). Sent, accepted and missing count with the sender's population, expected
 * and delivered with the recipient's. A message that was given up still counts as expected: to the person it
 * is lost. Memory: 72 bytes a message, a bit a member, an index of 32 bytes; at most `messages_max`. Must not
 * know: sockets. */
#ifndef LOAD_LEDGER_H
#define LOAD_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/hist.h"
#include "util/id.h"
#include "util/map.h"

struct ledger_counts {
    uint64_t sent, accepted, expected, delivered;
    uint64_t duplicates;      /* an id surfaced again on a phone that still had it */
    uint64_t duplicates_seen; /* the same, or the same intent again under another id */
    uint64_t reordered, gave_up, resends;
    uint64_t missing; /* pairs of accepted messages that have not surfaced yet */
    struct hist latency_us, accept_us, lag_us;
};

struct ledger_message;

struct ledger {
    struct map by_id;
    struct ledger_message *messages;
    uint64_t *bits;
    uint32_t n, cap, max;
    uint64_t bits_n, bits_cap;
    struct ledger_counts *counts;
    uint32_t populations;
};

int ledger_init(struct ledger *l, uint32_t populations, uint32_t messages_max);
void ledger_release(struct ledger *l);

struct ledger_sent {
    struct id id;
    const struct id *again; /* the same intent was sent under this id before, or NULL */
    uint64_t intent, intended_ns;
    uint32_t population, members, sender; /* sender: place among the members */
    const uint32_t *owed;                 /* recipients in each population; NULL: all in `population` */
};
/* ERR_LIMIT: messages_max is reached; ERR_NOMEM; ERR_EXISTS. */
int ledger_sent(struct ledger *l, const struct ledger_sent *s);
/* The first time counts; ids that are not ours are none of our business. */
void ledger_accepted(struct ledger *l, const struct id *id, uint64_t now_ns);
void ledger_gave_up(struct ledger *l, const struct id *id);

enum ledger_seen {
    LEDGER_UNKNOWN, /* not sent in this run */
    LEDGER_FIRST,
    LEDGER_DUPLICATE,
    LEDGER_RESHOWN, /* again, on a phone that had lost it (`forgotten`) */
};
/* `member` is the place of the phone that shows it, `population` its own: there it counts. */
enum ledger_seen ledger_surfaced(struct ledger *l, const struct id *id, uint32_t member, uint32_t population,
                                 bool forgotten, uint64_t now_ns);

#endif

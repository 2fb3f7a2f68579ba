/* Inside of the running checker. */
#ifndef AUDIT_LIVE_IMPL_H
#define AUDIT_LIVE_IMPL_H

#include "audit/live.h"
#include "util/map.h"

#define LIVE_GAPS 8 /* announced ranges kept a seat, merged where they touch */

enum message_flag {
    MESSAGE_SUBMITTED = 1,
    MESSAGE_KEPT = 2,      /* in an outbox */
    MESSAGE_STORED = 4,    /* the store holds it */
    MESSAGE_LOST = 8,      /* a restore took it */
    MESSAGE_ACCEPTED = 16, /* its sender was told */
    MESSAGE_GAVE_UP = 32,
    MESSAGE_WAS_LOST = 64, /* a restore took it once: it may be shown from where it stood before */
};
struct live_message {
    struct id id;
    uint64_t sender, chat, epoch, seq;
    uint8_t flags;
    bool stored_once; /* content is set */
    uint8_t content[16];
};

struct live_entry {
    uint64_t epoch, seq, sender;
    uint32_t message; /* index */
    uint8_t op;
    bool found; /* by the reading of a reopened store */
};
struct live_range {
    uint64_t from, to; /* both included */
};
/* A device in a chat. */
struct live_seat {
    uint64_t user, epoch, seq;
    uint64_t top; /* the highest seq it ever showed, since it forgot */
    uint32_t device;
    bool known, forgot, skipped; /* skipped: it was told of entries that it is not sent */
    uint32_t forgets;
    uint8_t gaps;
    struct live_range gap[LIVE_GAPS];
};
#define LIVE_SERVED                                                                                          \
    3 /* role of a row: was served so far, before a removal came back that lies further back */
struct live_member {
    uint64_t user, from, to;
    uint8_t role;
};
struct live_top {
    uint64_t epoch, seq; /* the highest ever given out in it */
};
struct live_chat {
    uint64_t id;
    struct live_entry *log;
    struct live_entry *old;      /* while a reopened store is read: what was known before */
    struct live_seat *seats;     /* sorted by (user, device) */
    struct live_member *members; /* sorted by (user, from) */
    struct live_top *tops;
    uint64_t *late; /* seqs of entries that came back */
    uint32_t late_n, late_cap;
    uint32_t log_n, log_cap, old_n, seats_n, seats_cap, members_n, members_cap, tops_n, tops_cap;
};
struct live_device {
    uint64_t user, device;
};

struct live {
    struct live_promises promises;
    bool may_lose, failed, blinded;
    uint64_t epoch; /* of the store as it was last opened */
    struct live_violation violation;
    struct map chats;    /* id -> struct live_chat * */
    struct map by_id;    /* id -> index + 1 */
    struct map cursors;  /* (chat, user, device) -> epoch, delivered, read */
    struct map devices;  /* (user, device) -> 1 + strict */
    struct map shown;    /* (user, device and how often it forgot, id), if promises.recovers */
    struct map typed;    /* (chat, user) -> when it was said last */
    struct map typing;   /* (chat, typist, user, device): shown now */
    struct map here;     /* user -> since when, and are they? */
    struct map seen;     /* (user, about) -> since when, enum live_shown */
    struct map said;     /* (chat, user): what its devices said was got and read */
    struct map receipts; /* (chat, of whom, user, device): shown */
    struct map watches;  /* (chat, user, device) */
    struct map places;   /* (id, epoch, seq): where it ever stood, if promises.recovers: any may come back */
    struct live_message *messages;
    uint32_t messages_n, messages_cap;
    uint64_t waiting; /* kept, neither accepted nor given up */
    struct live_counts counts;
};

void live_fail(struct live *l, enum live_kind kind, uint64_t chat, const struct id *id, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
struct live_chat *live_chat(const struct live *l, uint64_t id); /* NULL: none */
struct live_chat *live_chat_make(struct live *l, uint64_t id);
struct live_message *live_message(const struct live *l, const struct id *id); /* NULL: none */
struct live_message *live_message_make(struct live *l, const struct id *id);
/* The entry with the smallest seq >= `seq`: an index, log_n when there is none. */
uint32_t live_find(const struct live_chat *c, uint64_t seq);
struct live_entry *live_entry_at(const struct live_chat *c, uint64_t seq); /* NULL: none */
/* Was the user a member when this seq was given? */
bool live_was_member(const struct live_chat *c, uint64_t user, uint64_t seq);
/* The same, and has been one since then? */
bool live_is_member_since(const struct live_chat *c, uint64_t user, uint64_t seq);
/* The first, or it was served what came then since nobody knew of its removal. */
bool live_was_served(const struct live_chat *c, uint64_t user, uint64_t seq);
bool live_ever_member(const struct live_chat *c, uint64_t user);
struct live_seat *live_seat(struct live_chat *c, uint64_t user, uint32_t device); /* made if missing */
/* `b`: the batch that the row is of; NULL: it is read from the store. */
void live_member_row(struct live *l, const struct member_row *m, const struct store_batch *b);
/* live_presence.c: live_time's part */
void live_presence_time(struct live *l, uint64_t now_ns);
bool live_is_strict(const struct live *l, uint64_t user, uint32_t device);
/* live_receipts.c: does everybody see who has read what? `fail`: else it is a violation. */
bool live_receipts_converged(struct live *l, bool fail);
/* The log is about to lose entries, or to get some back below others: what was told of it was true. */
void live_keep_receipts(struct live *l);
void live_forgot_receipts(struct live *l, uint64_t user);
/* Append an entry that the store holds, with all that can be said against it. */
void live_append(struct live *l, const struct entry *e);
void live_append_quietly(struct live *l, struct live_chat *c, const struct live_entry *e);
/* Was this place filled before, in a store that may have been put back since? */
bool live_given_out(struct live_chat *c, uint64_t epoch, uint64_t seq);
/* Room for one more in an array that grows. */
void live_grow(void **at, uint32_t n, uint32_t *cap, size_t size);

#endif

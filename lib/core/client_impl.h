/* Inside the client: its files share this. client.c: connection and timers. client_chat.c: what arrives, in
 * order. client_send.c: what is said. */
#ifndef CORE_CLIENT_IMPL_H
#define CORE_CLIENT_IMPL_H

#include "core/client.h"

/* The place of one chat on this device. */
struct client_chat {
    struct client_chat *next;
    uint64_t chat, epoch, seq;     /* everything up to seq is surfaced */
    uint64_t prev_epoch, prev_seq; /* where we stood when the epoch changed */
    uint64_t ahead;                /* bit i: seq + 1 + i is an own message */
    uint64_t seen;                 /* highest seq heard of */
    uint64_t sync_from; /* seq when the sync in flight was asked for; while rebuilding: lowest seq heard */
    uint64_t sync_ns;   /* when to ask, 0: no need */
    /* What the person has read up to: the lower half of that seq, and by how much its upper half lies below
     * that of `seq`. After a restore `seq` may lie below it for a while. */
    uint32_t read_low;
    int8_t read_back;
    bool read_known : 1, read_due : 1;
    bool read_said : 1, repeating : 1; /* at the next beat once more: a full socket may have dropped it */
    bool said : 1;                     /* ack or read, on this connection: they may have been lost with it */
    bool base_unknown : 1; /* a device without memory: the server's word decides where it begins */
    bool sync_flying : 1, ack_due : 1;
};
_Static_assert(sizeof(struct client_chat) <= 88, "ten million of them");

static inline bool client_has(const struct client *c, unsigned feature)
{
    return (c->config->features & feature) != 0;
}
static inline bool client_orderly(const struct client *c)
{
    return client_has(c, CLIENT_ACK | CLIENT_RESYNC);
}
static inline bool client_may_sync(const struct client *c)
{
    return client_has(c, CLIENT_RESYNC) && !c->no_sync;
}
static inline void client_emit(struct client *c, const struct client_io *io, const struct client_effect *e)
{
    io->emit(io->arg, c, e);
}
static inline void earlier(uint64_t *at, uint64_t ns)
{
    if (!*at || ns < *at)
        *at = ns;
}

/* client.c */
void client_send(struct client *c, const struct client_io *io, const struct msg *m, uint8_t attempt);
void client_expect_answer(struct client *c, const struct client_io *io);

/* client_chat.c */
void chat_forget_all(struct client *c, struct client_pool *pool);
void chat_on_disconnect(struct client *c);
uint32_t chat_claims(const struct client *c, struct claim *out, uint32_t max);
void chat_on_welcome(struct client *c, const struct msg *m, const struct client_io *io);
void chat_on_msg(struct client *c, const struct msg *m, const struct client_io *io);
void chat_on_own(struct client *c, uint64_t chat, uint64_t epoch, uint64_t seq, const struct client_io *io);
void chat_on_gap(struct client *c, const struct msg *m, const struct client_io *io);
/* The server answered a sync with `unknown_type`. */
void chat_on_no_sync(struct client *c);
void chat_on_sync_done(struct client *c, const struct msg *m, const struct client_io *io);
void chat_sync_since(struct client *c, const struct client_io *io);
void chat_send_acks(struct client *c, const struct client_io *io);
void chat_send_syncs(struct client *c, const struct client_io *io);

/* A sync of ranges: the chat's other syncs wait meanwhile. */
bool chat_sync_range(struct client *c, uint64_t chat, uint64_t after, uint64_t to,
                     const struct client_io *io);
void chat_range_done(struct client *c, uint64_t chat, const struct client_io *io);
void chat_wake(struct client *c, uint64_t at_ns);

/* client_recover.c */
void recover_on_report(struct client *c, const struct client_io *io);
void recover_on_ask(struct client *c, const struct msg *m, const struct client_io *io);
void recover_on_offered(struct client *c, const struct msg *m, const struct client_io *io);
void recover_on_notice(struct client *c, const struct msg *m, const struct client_io *io);
/* An entry `recovered` was surfaced. */
void recover_on_entry(struct client *c, const struct msg *m, const struct client_io *io);
/* True: the answer was to a sync of a range. */
bool recover_on_sync_done(struct client *c, const struct msg *m, const struct client_io *io);
bool recover_on_sync_refused(struct client *c, const struct msg *m, const struct client_io *io);
void recover_go_on(struct client *c, const struct client_io *io); /* connected, or a timer */
void recover_on_disconnect(struct client *c);
void recover_forget(struct client *c);
bool recover_waits(const struct client *c); /* an answer is owed */

/* client_presence.c */
void presence_on_typing(struct client *c, const struct msg *m, const struct client_io *io);
void presence_on_msg(struct client *c, const struct msg *m, const struct client_io *io);
void presence_on_welcome(struct client *c, const struct client_io *io);
void presence_on_disconnect(struct client *c, const struct client_io *io);
void presence_clear(struct client *c, const struct client_io *io); /* nothing is shown any more */
void presence_forget(struct client *c);
uint64_t presence_next(const struct client *c); /* when presence_due has something to do; 0: never */
void presence_due(struct client *c, const struct client_io *io);
void presence_input(struct client *c, const struct client_io *io); /* the person did something */
void presence_type(struct client *c, uint64_t chat, const struct client_io *io);
void presence_said(struct client *c, const struct client_io *io);
void presence_watch_users(struct client *c, const uint64_t *users, uint32_t n, const struct client_io *io);
bool presence_watches(const struct client *c);
/* Where the receipts hang; NULL: nowhere yet, or no memory. */
struct client_receipts **presence_receipts(struct client *c, bool make);
bool presence_away(struct client *c, const struct client_io *io);

void chat_repeat_reads(struct client *c, const struct client_io *io);
void chat_read(struct client *c, uint64_t chat, uint64_t seq, const struct client_io *io);

/* client_receipts.c */
void client_receipts_watch(struct client *c, uint64_t chat, bool on, const struct client_io *io);
void client_receipts_on(struct client *c, const struct msg *m, const struct client_io *io);
void client_receipts_on_welcome(struct client *c, const struct client_io *io);
/* A watch was refused: it is asked for again with the chat's next message, or the next beat (chat 0: all). */
void client_receipts_refused(struct client *c, uint64_t chat);
void client_receipts_answered(struct client *c, uint64_t chat);
void client_receipts_again(struct client *c, uint64_t chat, const struct client_io *io);
void client_receipts_forget(struct client *c, bool all); /* what was shown; with `all`, what is watched too */

/* client_send.c */
/* Give up what was said before then (server's time). */
void send_discard_before(struct client *c, uint64_t ts_us, const struct client_io *io);
void send_submit(struct client *c, const struct client_event *e, const struct client_io *io);
void send_press(struct client *c, const struct client_event *e, const struct client_io *io);
void send_restore(struct client *c, const struct client_event *e, const struct client_io *io);
void send_give_up(struct client *c, struct outbox_entry *e, enum reason reason, const struct client_io *io);
void send_flush(struct client *c, const struct client_io *io);
void send_due(struct client *c, const struct client_io *io);
void send_on_disconnect(struct client *c);
/* True: the id was in the outbox (and no longer is). */
bool send_on_accepted(struct client *c, const struct msg *m, const struct client_io *io);
void send_on_error(struct client *c, const struct msg *m, const struct client_io *io);
/* The log of `chat` (0: of all) was read and held none of the ids that were too old. */
void send_not_found(struct client *c, uint64_t chat, const struct client_io *io);

#endif

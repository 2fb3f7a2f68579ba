/* Bringing log entries to the sessions of a chat's members.
 *
 * The log is the queue. Each session has a position per chat (struct sub). A position that is live gets each
 * new entry straight away, as one shared frame; one that is behind (resuming, or too slow) reads pages of the
 * log until it has caught up. A hole between position and entry is announced by `gap`. Nothing is pushed
 * twice on one connection: a missing acknowledgement closes it, and the device resumes.
 *
 * Nobody waits for anybody: those who keep up are pushed to; a session whose queue is over its limit, or that
 * has acknowledged nothing for slow_ms, stops being pushed to and reads from the log once it has drained;
 * one that does not show the chat gets a counter if it asks for that; members without a session cost nothing.
 * Must not know: sockets, the accept path. */
#ifndef CORE_DELIVERY_H
#define CORE_DELIVERY_H

#include "core/counters.h"
#include "core/io.h"
#include "core/session.h"
#include "proto/proto.h"

enum delivery_features {
    DELIVERY_RETRY = 1,   /* answers `accepted`, knows duplicates */
    DELIVERY_DURABLE = 2, /* commits before it answers or pushes */
    DELIVERY_ACK = 4,     /* tracks acknowledgements, resumes, redelivers */
    DELIVERY_RESYNC = 8,  /* answers `sync` */
    DELIVERY_RELIABLE = 15,
};
/* "reliable", "legacy", "legacy+retry+durable+ack+resync" (any subset); ERR_INVALID names the word. */
int delivery_parse(unsigned *features, const char *text, struct err_ctx *ctx);
/* Does it need the messages kept in a log at all? */
static inline bool delivery_needs_log(unsigned features)
{
    return (features & (DELIVERY_DURABLE | DELIVERY_ACK | DELIVERY_RESYNC)) != 0;
}

/* "shared"; "sequential" or "sequential:45ms": the fault of incident 2, in which the server waits for each
 * member's write, and at least so long, before it turns to the next. *wait_ns 0: shared. */
int delivery_fanout_parse(uint64_t *wait_ns, const char *text, struct err_ctx *ctx);

struct delivery_config {
    unsigned features;
    uint64_t sequential_ns;   /* delivery_fanout_parse */
    uint32_t slow_ms;         /* without progress for so long a session is behind; 0: never */
    uint32_t queue_bytes_max; /* per connection; beyond it a session is behind */
    uint32_t page;            /* entries in one read */
    uint64_t backlog_max;     /* entries a device may be resumed over; the rest is a gap */
};

struct delivery {
    struct io *io;
    struct registry *registry;
    struct counters *counters;
    struct delivery_config config;
    struct session_clocks *clocks; /* unacked_ms: last progress of those with unacknowledged pushes */
    /* positions whose cursors changed since they were saved, and the cursors of those that were dropped */
    uint32_t *unsaved;
    size_t unsaved_first, unsaved_n, unsaved_cap;
    struct cursor *cursors;
    size_t cursors_n, cursors_cap;
    struct buf scratch;
    struct round *rounds, *rounds_last; /* sequential: entries on their way, the oldest first */
    size_t rounds_n;
    uint32_t *uncounted; /* chats with passive sessions that know less than the head */
    size_t uncounted_n, uncounted_cap;
    uint64_t counted_ns;
};

void delivery_init(struct delivery *d, struct io *io, struct registry *r, struct session_clocks *clocks,
                   struct counters *c, const struct delivery_config *config);
void delivery_release(struct delivery *d);

/* Encode and queue one message on a session (any type). */
void delivery_send(struct delivery *d, struct session *s, const struct msg *m);
/* Queue a frame: of one's own making, in the session's codec. */
void delivery_queue(struct delivery *d, struct session *s, struct shared_frame *f);
void delivery_entry_msg(struct msg *m, const struct entry *e);

/* Begin at `after` (everything up to it is known to the device). */
int delivery_subscribe(struct delivery *d, struct session *s, struct chat *c, uint64_t after,
                       bool announce_start);
/* A new entry of the chat is durable (in legacy: just arrived): push it to the live positions. `origin` is
 * the session that sent it (its `accepted` counts as the push); 0: none. Legacy counts the members it had
 * nobody to push to. */
void delivery_fan_out(struct delivery *d, struct chat *c, const struct entry *e, uint64_t origin);
/* Something that is not of the log, and of use only now: to who is there and has room, but for one user. */
void delivery_tell(struct delivery *d, const struct chat *c, const struct msg *m, uint64_t but_user);
/* The same for an entry that another node has accepted, and spoken of in its trace. */
void delivery_fan_out_quietly(struct delivery *d, struct chat *c, const struct entry *e, uint64_t origin);
/* Positions whose reads failed with ERR_TIMEOUT, since another node did not answer, try again. */
void delivery_revive(struct delivery *d, struct chat *c);
/* A cursor that another node has kept for us, or that was taken and could not be kept. */
void delivery_add_cursor(struct delivery *d, const struct cursor *c);
/* Read on for sessions that are behind, if there is room in the queue. */
void delivery_pump(struct delivery *d, struct session *s);
void delivery_read_done(struct delivery *d, struct session *s, struct read_job *job);
/* The session's device doesn't show this chat: from now on it is told the chat's head (`unread`, at most once
 * a second), not its entries; or it shows it again, and is served what it lacks. ERR_NOTFOUND: no member. */
int delivery_passive(struct delivery *d, struct session *s, struct chat *c, bool passive);
/* Now and then: what waits for its time. */
void delivery_tick(struct delivery *d);
/* The socket took `bytes` of what was queued. */
void delivery_written(struct delivery *d, struct session *s, uint32_t bytes);
/* The cursors of this chat's positions are to be saved (again). */
void delivery_note_chat(struct delivery *d, const struct chat *c);
/* False: the session has no position there. */
bool delivery_ack(struct delivery *d, struct session *s, struct chat *c, uint64_t seq, bool read);
/* The session asked for entries; at most SYNC_JOBS_MAX wait. ERR_LIMIT beyond. */
#define SYNC_JOBS_MAX 4096u
int delivery_sync(struct delivery *d, struct session *s, const struct sync_job *job);
/* Drop positions, jobs and timers of a session that ends. */
void delivery_forget(struct delivery *d, struct session *s);
/* End one position. */
void delivery_unsubscribe(struct delivery *d, struct session *s, struct sub *sub);
/* Take unsaved cursors, the oldest first, at most `most` and those of dropped positions (caller
 * frees); *n may be 0. The rest waits for the next time: under load a cursor is saved less often, and one
 * that is lost costs a redelivery that the client knows. */
#define DELIVERY_CURSORS 10000u
struct cursor *delivery_take_cursors(struct delivery *d, size_t most, size_t *n);

#endif

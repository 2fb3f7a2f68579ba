/* What a client has said and the server has not yet accepted: a list in the order it was said, and the rows
 * that make it survive a restart of the app.
 *
 * An entry is one block with its body, owned by the outbox. Limits are the client's (client.h). The row is a
 * small binary record, appended to a file by whoever has one; a torn tail is recognised by its check and ends
 * the replay. Must not know: files, sockets. */
#ifndef CORE_OUTBOX_H
#define CORE_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"
#include "util/buf.h"
#include "util/id.h"

struct outbox_entry {
    struct outbox_entry *next;
    struct id id;
    uint64_t chat, intent;
    uint64_t due_ns;  /* when it goes out (again), if nothing is heard; 0: waits for a connection */
    uint8_t attempts; /* transmissions so far, saturating */
    uint8_t kind_len;
    bool in_flight; /* sent on this connection, unanswered */
    bool checking;  /* too old for the dedup window: the chat's log is asked whether it arrived once */
    bool shown;     /* the person was told "not sent yet" */
    uint32_t body_len;
    char text[]; /* kind, body */
};

struct outbox {
    struct outbox_entry *first;
    uint32_t count, bytes;
};

static inline struct slice outbox_kind(const struct outbox_entry *e)
{
    return (struct slice){e->text, e->kind_len};
}
static inline struct slice outbox_body(const struct outbox_entry *e)
{
    return (struct slice){e->text + e->kind_len, e->body_len};
}

/* Append; NULL: no memory, or kind or body beyond proto's limits. */
struct outbox_entry *outbox_add(struct outbox *o, const struct id *id, uint64_t chat, uint64_t intent,
                                struct slice kind, struct slice body);
struct outbox_entry *outbox_find(const struct outbox *o, const struct id *id);
/* Unlink and free. */
void outbox_remove(struct outbox *o, struct outbox_entry *e);
void outbox_clear(struct outbox *o);

enum outbox_op { OUTBOX_PUT = 1, OUTBOX_FORGET = 2 };

/* One row of the durable outbox. FORGET uses user, device and id only. */
struct outbox_row {
    enum outbox_op op;
    uint32_t device;
    uint64_t user, chat, intent;
    struct id id;
    struct slice kind, body;
};

void outbox_row_encode(struct buf *out, const struct outbox_row *row);
/* Bytes consumed; ERR_TRUNCATED: the rest is no whole row (a torn tail); ERR_CORRUPT: it is none of ours. The
 * slices point into p. */
long outbox_row_decode(const char *p, size_t n, struct outbox_row *row);

#endif

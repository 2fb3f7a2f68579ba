/* What the phones write down while it happens: DIR/journal.jsonl (rows as in audit/journal.h, for the audit
 * and for reconciling) and DIR/outbox.rows (their durable outboxes, core/outbox.h).
 *
 * Rows gather in buffers of DIARY_BUFFER bytes that are written when full and by diary_flush. A write that
 * fails makes the diary fail for good: diary_flush says so, later rows are dropped. Outbox rows are written
 * at once; `sync` makes each of them survive a power cut. A NULL diary is fine everywhere: nothing is
 * written. */
#ifndef LOAD_DIARY_H
#define LOAD_DIARY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/outbox.h"
#include "proto/proto.h"
#include "util/err.h"

#define DIARY_BUFFER (256u << 10)

struct diary;

/* Makes the folder. Rows are added to an existing journal; an existing outbox is replayed: `restore` gets
 * each message that was not forgotten, in order, and the file is rewritten with those alone. A torn tail is
 * cut off. */
typedef void diary_restore(void *arg, const struct outbox_row *row);
int diary_open(struct diary **out, const char *dir, bool sync, diary_restore *restore, void *arg,
               struct err_ctx *ctx);
/* Flushes; returns what diary_flush would. */
int diary_close(struct diary *d, struct err_ctx *ctx);
int diary_flush(struct diary *d, struct err_ctx *ctx);

void diary_member(struct diary *d, uint64_t chat, uint64_t user, const char *net, const char *population);
struct diary_sent {
    uint64_t ts_us, user, chat, intent;
    uint32_t device;
    struct id id;
    struct slice kind, body;
};
void diary_sent(struct diary *d, const struct diary_sent *s);
void diary_accepted(struct diary *d, uint64_t ts_us, uint64_t user, const struct id *id, uint64_t chat,
                    uint64_t epoch, uint64_t seq);
void diary_surfaced(struct diary *d, uint64_t ts_us, uint64_t user, uint32_t device, const struct msg *m);
void diary_gave_up(struct diary *d, uint64_t user, const struct id *id, const char *why);
void diary_forgot(struct diary *d, uint64_t user, uint32_t device);
void diary_outbox(struct diary *d, const struct outbox_row *row);

#endif

/* Reader of clients' journals: what each phone of a load generator sent, was promised and showed, one JSON
 * object a line (JSONL), written by lib/load while it happens. The ledger is the phones' own: nothing in it
 * comes from the server's side.
 *
 *   {"op":"member","chat":"17","user":"7","net":"lte","pop":"mobile"}
 *   {"op":"sent","ts_us":1764000000000000,"user":"7","device":1,"chat":"17","id":"<uuid>","intent":5,"kind":"text","hash":"<base64url>"}
 *   {"op":"accepted","user":"7","id":"<uuid>","chat":"17","epoch":"48121","seq":12}
 *   {"op":"surfaced","user":"8","device":1,"chat":"17","epoch":"48121","seq":12,"id":"<uuid>","from":"7"}
 *   {"op":"gave_up","user":"7","id":"<uuid>"}
 *   {"op":"forgot","user":"8","device":1}      the phone lost its storage: it will show things again
 *
 * 64-bit numbers may be decimal strings or integers. Keys beyond these are ignored, a missing one is an
 * error. Rows are at most JOURNAL_LINE_MAX bytes; the reader holds one buffer, whatever the file's size.
 * Errors name file and line: ERR_CORRUPT for a row that is none of these, ERR_TRUNCATED when the last line
 * has no end. */
#ifndef AUDIT_JOURNAL_H
#define AUDIT_JOURNAL_H

#include <stdint.h>

#include "util/err.h"
#include "util/id.h"

#define JOURNAL_LINE_MAX 4096u

enum journal_op {
    JOURNAL_MEMBER,
    JOURNAL_SENT,
    JOURNAL_ACCEPTED,
    JOURNAL_SURFACED,
    JOURNAL_GAVE_UP,
    JOURNAL_FORGOT,
    JOURNAL_OP_COUNT
};

struct journal_text {
    const char *p;
    size_t n;
};

/* Texts point into the reader's buffer and are good until the next call. Fields that an op lacks are zero. */
struct journal_row {
    enum journal_op op;
    uint64_t line; /* 1 for the first */
    uint64_t ts_us, user, chat, epoch, seq, from, intent;
    uint32_t device;
    struct id id;
    struct journal_text net, pop, kind, hash;
};

struct journal;

int journal_open(struct journal **j, const char *path, struct err_ctx *ctx);
/* 1: *row is the next row; 0: the end; else an error, after which the reader stays spent. */
int journal_next(struct journal *j, struct journal_row *row, struct err_ctx *ctx);
const char *journal_path(const struct journal *j);
void journal_close(struct journal *j);

#endif

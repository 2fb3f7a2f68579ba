/* Compares logs of messages: which copy lacks what, has it twice, elsewhere, or otherwise. The first source
 * is the truth; any number of others are compared with it in the same pass.
 *
 * How: every source comes in the order (place, chat, seq, id), sorted outside of memory if need be. Rows of
 * one segment (a chat's RECONCILE_SEGMENT seqs) are summed up to one 64-bit digest a source, whatever their
 * order; only where digests differ are rows merged one by one. What does not match goes, as its id, into a
 * Bloom filter (Bloom 1970); a second pass collects the rows of these ids alone and judges each id over all
 * sources. So the cost is two scans and one sort of the differing rows, however many they are.
 *
 * A source is a *log* (a store, a backup, an export: it should hold everything) or a *witness* (clients'
 * journals, traces: what it saw is evidence, what it did not see is no loss).
 *
 * Memory: config.mem is kept for filters and sorting; one segment is held besides. Temporary files lie in
 * config.tmp, unlinked at once. Must not know: stores, HTTP, where rows come from. */
#ifndef AUDIT_RECONCILE_H
#define AUDIT_RECONCILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "util/buf.h"
#include "util/err.h"
#include "util/id.h"

#define RECONCILE_SOURCES_MAX 16
#define RECONCILE_SEGMENT     1024u
#define RECONCILE_MEM_MIN     (8u << 20)
#define RECONCILE_GROUP_MAX   4096u /* rows of one id; more are ERR_LIMIT */

/* What a row knows. */
#define RECONCILE_HAS_SEQ   1u
#define RECONCILE_HAS_EPOCH 2u
#define RECONCILE_HAS_FROM  4u
#define RECONCILE_HAS_HASH  8u
#define RECONCILE_HAS_TS    16u
/* What is said of it. */
#define RECONCILE_DELETED  1u  /* a tombstone: its content is gone, rightly */
#define RECONCILE_SYSTEM   2u  /* create, join...: no message of a person */
#define RECONCILE_SENT     4u  /* witness: its sender sent it */
#define RECONCILE_ACCEPTED 8u  /* witness: the server promised it */
#define RECONCILE_SURFACED 16u /* witness: somebody was shown it */
#define RECONCILE_GAVE_UP  32u /* witness: its sender gave it up */

struct reconcile_row {
    uint64_t chat, seq, epoch, from, ts_us;
    struct id id;
    uint8_t hash[16]; /* entry_content_hash of kind and body */
    uint16_t place;   /* first part of the order; set by the reader with config.place */
    uint8_t has, flags;
    uint32_t source; /* used inside */
};
_Static_assert(sizeof(struct reconcile_row) == 80, "rows are written to files as they are");

struct reconcile_source {
    const char *name; /* for people: its URL */
    bool sorted;      /* rows come in order; checked */
    bool witness;
    uint8_t has;      /* fields that every row has (log) */
    uint64_t rows;    /* how many there are, about; 0: not known */
    uint64_t skipped; /* rows that could not be read: the result is inconclusive */
    /* At most `max` rows; 0 at the end. */
    long (*read)(struct reconcile_source *s, struct reconcile_row *rows, size_t max, struct err_ctx *ctx);
    int (*rewind)(struct reconcile_source *s, struct err_ctx *ctx);
    void (*close)(struct reconcile_source *s);
};

enum reconcile_kind {
#define RECONCILE(ID, name, differs, text) RECONCILE_##ID,
#include "audit/reconcile.def"
#undef RECONCILE
    RECONCILE_KIND_COUNT
};
const char *reconcile_kind_name(enum reconcile_kind k);
const char *reconcile_kind_text(enum reconcile_kind k);
bool reconcile_kind_differs(enum reconcile_kind k); /* false: told, but no difference */

struct reconcile_finding {
    enum reconcile_kind kind;
    int source;                              /* of which log it is said */
    int witness;                             /* whose word it is; -1: the truth's */
    bool accepted;                           /* a witness holds the server's promise for it */
    const struct reconcile_row *want, *have; /* as it should be, as it is; NULL: not at all */
};
typedef int reconcile_found(void *arg, const struct reconcile_finding *f, struct err_ctx *ctx);

enum reconcile_phase { RECONCILE_SORTING, RECONCILE_COMPARING, RECONCILE_COLLECTING, RECONCILE_JUDGING };

struct reconcile_config {
    uint64_t mem;           /* bytes; 0: 256 MiB */
    const char *tmp;        /* folder; NULL: $TMPDIR or /tmp */
    uint64_t seed;          /* of the digests */
    reconcile_found *found; /* NULL: counts only; non-zero ends the run with it */
    void (*progress)(void *arg, enum reconcile_phase phase, uint64_t rows);
    const volatile int *interrupted; /* NULL: never */
    void *arg;
};

struct reconcile_counts {
    uint64_t rows, skipped, count[RECONCILE_KIND_COUNT];
    uint64_t accepted_lost; /* of count[RECONCILE_LOST] */
};
struct reconcile_result {
    uint64_t rows; /* read from all sources, first pass */
    uint64_t segments, segments_differing, collected;
    uint64_t total[RECONCILE_KIND_COUNT], accepted_lost, skipped, differences;
    struct reconcile_counts source[RECONCILE_SOURCES_MAX];
};

/* ERR_USAGE when all sources are witnesses or there are fewer than two. */
int reconcile_check(struct reconcile_source *const *sources, int n, const struct reconcile_config *c,
                    struct reconcile_result *out, struct err_ctx *ctx);

/* (place, chat, seq, id, epoch, from) */
int reconcile_order(const struct reconcile_row *a, const struct reconcile_row *b);
/* Do they say the same, as far as both say something, in the fields `has` (0xff: all)? The time is not
 * compared. */
bool reconcile_same(const struct reconcile_row *a, const struct reconcile_row *b, uint8_t has);

/* ---- sources in files: reconcile_jsonl.c, reconcile_bin.c, reconcile_journal.c ---- */

typedef uint16_t reconcile_place(uint64_t chat);

/* JSONL rows {"chat":"17","epoch":"48121","seq":1,"id":"...","from":"7","ts":0,"hash":"<base64url>"}; in
 * place of hash: "body" and "kind" (default "text"); "deleted":true, "system":true. Lines up to
 * RECONCILE_LINE_MAX. chat, seq and id are needed; every row must have what the first has. `sorted`: it is in
 * order already. */
#define RECONCILE_LINE_MAX (256u << 10)
int reconcile_jsonl_open(struct reconcile_source **out, const char *path, reconcile_place *place, bool sorted,
                         struct err_ctx *ctx);
/* One line of it, without its end: 0, or what is wrong in *why. Exposed for plans and fuzzing. */
int reconcile_jsonl_row(struct reconcile_row *row, const char *line, size_t n, const char **why);
void reconcile_jsonl_write(struct buf *out, const struct reconcile_row *row); /* no newline */

/* Binary form: "CHATROW1", has u8, 7 zero bytes, then rows of 80 bytes as struct reconcile_row is
 * (little-endian, source = 0) in rising order, then a row whose place is 0xffff and chat UINT64_MAX, with seq
 * = number of rows and epoch = hash_bytes chain over them: a file cut anywhere is ERR_TRUNCATED. */
int reconcile_bin_open(struct reconcile_source **out, const char *path, struct err_ctx *ctx);
struct reconcile_bin;
int reconcile_bin_new(struct reconcile_bin **out, const char *path, uint8_t has, struct err_ctx *ctx);
/* ERR_INVALID when out of order. */
int reconcile_bin_add(struct reconcile_bin *b, const struct reconcile_row *row, struct err_ctx *ctx);
int reconcile_bin_close(struct reconcile_bin *b, struct err_ctx *ctx); /* frees in any case */

/* A journal (audit/journal.h) or a folder of them, also in folders below (thousands of files). A witness. */
int reconcile_journal_open(struct reconcile_source **out, const char *path, reconcile_place *place,
                           struct err_ctx *ctx);

/* ---- external sort: reconcile_sort.c ---- */

struct reconcile_sort;
typedef int reconcile_compare(const struct reconcile_row *a, const struct reconcile_row *b);
int reconcile_sort_new(struct reconcile_sort **out, size_t mem, const char *tmp, reconcile_compare *order,
                       struct err_ctx *ctx);
int reconcile_sort_add(struct reconcile_sort *s, const struct reconcile_row *row, struct err_ctx *ctx);
/* Ends adding, or begins again at the first row. */
int reconcile_sort_rewind(struct reconcile_sort *s, struct err_ctx *ctx);
long reconcile_sort_read(struct reconcile_sort *s, struct reconcile_row *rows, size_t max,
                         struct err_ctx *ctx);
void reconcile_sort_free(struct reconcile_sort *s);

#endif

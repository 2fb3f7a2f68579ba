/* A plan: JSONL for review. First {"plan":1,"truth":URL,"target":URL}, then an item a line, then {"end":N}.
 *
 *   {"n":1,"class":"lost","from":null,"to":{row},"accepted":true}
 *
 * `from` is what the target holds (the precondition), `to` what it should hold; null is nothing. Applying
 * makes from into to, undoing makes to into from. `beside`: the row that stays, of which `from` is a copy.
 * `cannot` says why an item is for people only. Rows have the form of jsonl:; for a store `to` also has op,
 * kind, body (base64url), tag, key. */
#ifndef CHAT_RECONCILE_PLAN_H
#define CHAT_RECONCILE_PLAN_H

#include <jansson.h>

#include "cmd/chat-reconcile/tool.h"

#define PLAN_ITEMS_MAX (16u << 20)

enum item_state { ITEM_UNKNOWN, ITEM_TO_DO, ITEM_DONE, ITEM_CONFLICT, ITEM_CANNOT };

struct plan_item {
    uint64_t n;
    bool has_from, has_to, copy, twin; /* copy: there is a `beside`; twin: and `from` equals it */
    struct reconcile_row from, to;
    char *from_text, *to_text; /* NULL: nothing */
    enum item_state state;
    char why[160];
    uint32_t seen_from, seen_to, seen_other; /* rows of the target, for files */
};
struct plan {
    char *truth, *target;
    struct plan_item *item;
    size_t n, cap;
};

int plan_read(struct plan *p, const char *path, struct err_ctx *err);
void plan_release(struct plan *p);
/* Backwards: from and to change places, the last item is the first. */
void plan_reverse(struct plan *p);

/* Each sets every item's state as it is now, then, if `change`, makes TO_DO into DONE. */
int plan_run_jsonl(struct plan *p, const char *file, bool change, struct err_ctx *err);
int plan_run_store(struct plan *p, const char *dir, bool change, const struct opt_set *o,
                   struct err_ctx *err);
int plan_unrun_store(struct plan *p, const char *dir, bool change, struct err_ctx *err);

/* The whole entry at a row's place as a row with op, kind, body, tag, key. ERR_NOTFOUND. */
struct kv;
struct entry;
struct server_conn;
int server_entry_json(struct buf *out, struct server_conn *c, const struct reconcile_row *row,
                      struct err_ctx *err);
void plan_entry_json(struct buf *out, const struct reconcile_row *row, const struct entry *e);
int store_entry_json(struct buf *out, struct kv *kv, const struct reconcile_row *row, struct err_ctx *err);

#endif

/* Rows of a running server's logs, page by page. The list of chats is read when the first row is wanted, each
 * with the head it has then: later passes stop there, so that what is said meanwhile is in none of them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/plan.h"
#include "cmd/chat-reconcile/server.h"
#include "shard/shard.h"
#include "store/store.h"

#define PAGE      1000
#define CHATS_MAX (64u << 20)

struct chat_at {
    uint64_t chat, head;
    uint16_t place;
};
struct server_rows {
    struct reconcile_source source;
    struct server_conn *server;
    char *url;
    struct chat_at *chat;
    size_t n, cap, at;
    bool listed, begun; /* begun: some of chat[at] was read, up to `last` */
    uint64_t last;
    json_t *page;
    size_t page_at;
};

/* ---- the chats ---- */

static int by_place(const void *a, const void *b)
{
    const struct chat_at *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->chat < y->chat ? -1 : x->chat > y->chat;
}

static int odd(const struct server_rows *s, const char *path, const char *what, struct err_ctx *err)
{
    return err_set(err, ERR_CORRUPT, "%s: %s: %s: is it a chatd-server?", s->url, path, what);
}

static int add_chats(struct server_rows *s, const json_t *page, const char *path, struct err_ctx *err)
{
    const json_t *chats = json_object_get(page, "chats");
    for (size_t i = 0; i < json_array_size(chats); i++) {
        struct chat_at c;
        const json_t *j = json_array_get(chats, i);
        if (!server_u64(j, "chat", &c.chat) || !server_u64(j, "head", &c.head))
            return odd(s, path, "a chat without number or head", err);
        if (s->n == s->cap) {
            size_t cap = s->cap ? 2 * s->cap : 1024;
            struct chat_at *chat = cap > CHATS_MAX ? NULL : realloc(s->chat, cap * sizeof *chat);
            if (!chat)
                return err_set(err, ERR_LIMIT, "%s: more than %zu chats, or no memory for them", s->url,
                               s->n);
            s->chat = chat;
            s->cap = cap;
        }
        c.place = shard_of_chat(c.chat);
        s->chat[s->n++] = c;
    }
    return json_is_array(chats) ? 0 : odd(s, path, "no list of chats", err);
}

static int list(struct server_rows *s, struct err_ctx *err)
{
    uint64_t after = 0, next = 0;
    char path[64];
    int rc;
    do {
        json_t *page;
        snprintf(path, sizeof path, "/reconcile/chats?after=%" PRIu64 "&limit=%d", after, PAGE);
        rc = server_get(s->server, path, &page, err);
        if (rc)
            return rc;
        rc = add_chats(s, page, path, err);
        if (!rc && (!server_u64(page, "next", &next) || (next && next <= after)))
            rc = odd(s, path, "`next` does not lead on", err);
        json_decref(page);
        after = next;
    } while (!rc && next);
    if (s->n)
        qsort(s->chat, s->n, sizeof *s->chat, by_place);
    s->listed = true;
    return rc;
}

/* ---- their entries ---- */

static int row_of(struct reconcile_row *r, const json_t *j, uint64_t chat)
{
    const char *id = json_string_value(json_object_get(j, "id"));
    const json_t *kind = json_object_get(j, "kind"), *body = json_object_get(j, "body");
    uint64_t of;
    *r = (struct reconcile_row){.chat = chat,
                                .place = shard_of_chat(chat),
                                .has = RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH | RECONCILE_HAS_FROM |
                                       RECONCILE_HAS_HASH | RECONCILE_HAS_TS};
    if (!json_is_string(kind) || !json_is_string(body) || !id || id_parse(&r->id, id, strlen(id)) ||
        !server_u64(j, "chat", &of) || of != chat || !server_u64(j, "epoch", &r->epoch) ||
        !server_u64(j, "seq", &r->seq) || !server_u64(j, "from", &r->from) || !server_u64(j, "ts", &r->ts_us))
        return ERR_CORRUPT;
    r->flags = entry_op_of(json_string_value(kind), json_string_length(kind)) == ENTRY_MESSAGE
                   ? 0
                   : RECONCILE_SYSTEM;
    entry_content_hash(r->hash, json_string_value(kind), json_string_length(kind), json_string_value(body),
                       (uint32_t)json_string_length(body));
    return 0;
}

static void history_path(char out[96], uint64_t chat, bool zero, uint64_t after, int limit)
{
    if (zero)
        snprintf(out, 96, "/history/%" PRIu64 "?zero=1&limit=%d", chat, limit);
    else
        snprintf(out, 96, "/history/%" PRIu64 "?after=%" PRIu64 "&limit=%d", chat, after, limit);
}

/* The next page of the chat that is read, or the next chat. */
static int turn(struct server_rows *s, struct err_ctx *err)
{
    char path[96];
    bool done = s->begun &&
                (!json_array_size(json_object_get(s->page, "messages")) || s->last >= s->chat[s->at].head);
    json_decref(s->page);
    s->page = NULL;
    s->page_at = 0;
    if (done) {
        s->at++;
        s->begun = false;
        s->last = 0;
    }
    if (s->at == s->n)
        return 0;
    history_path(path, s->chat[s->at].chat, !s->begun, s->last, PAGE);
    int rc = server_get(s->server, path, &s->page, err);
    if (!rc && !json_is_array(json_object_get(s->page, "messages")))
        rc = odd(s, path, "no list of messages", err);
    return rc;
}

static long server_read_rows(struct reconcile_source *source, struct reconcile_row *rows, size_t max,
                             struct err_ctx *err)
{
    struct server_rows *s = (struct server_rows *)source;
    size_t got = 0;
    int rc = s->listed ? 0 : list(s, err);
    while (!rc && got < max && s->at < s->n) {
        const json_t *messages = json_object_get(s->page, "messages");
        if (s->page_at == json_array_size(messages)) {
            rc = turn(s, err);
            if (!rc && s->page && !json_array_size(json_object_get(s->page, "messages")))
                s->begun = true; /* nothing there: on to the next chat */
            continue;
        }
        const struct chat_at *c = &s->chat[s->at];
        struct reconcile_row *r = &rows[got];
        char path[96];
        history_path(path, c->chat, !s->begun, s->last, PAGE);
        if (row_of(r, json_array_get(messages, s->page_at++), c->chat))
            rc = odd(s, path, "a message without one of its fields", err);
        else if (s->begun && r->seq <= s->last)
            rc = odd(s, path, "messages out of order", err);
        else {
            s->last = r->seq;
            s->begun = true;
            got += r->seq <= c->head;
        }
    }
    return rc ? rc : (long)got;
}

static int server_rewind(struct reconcile_source *source, struct err_ctx *err)
{
    struct server_rows *s = (struct server_rows *)source;
    (void)err;
    json_decref(s->page);
    s->page = NULL;
    s->page_at = s->at = 0;
    s->begun = false;
    s->last = 0;
    return 0;
}

static void server_close_rows(struct reconcile_source *source)
{
    struct server_rows *s = (struct server_rows *)source;
    json_decref(s->page);
    server_conn_close(s->server);
    free(s->chat);
    free(s->url);
    free(s);
}

int source_server_open(struct reconcile_source **out, const char *url, const char *base,
                       const struct opt_set *o, struct err_ctx *err)
{
    struct server_rows *s = calloc(1, sizeof *s);
    if (!s || !(s->url = strdup(url))) {
        free(s);
        return err_set(err, ERR_NOMEM, "%s: out of memory", url);
    }
    s->source = (struct reconcile_source){.name = s->url,
                                          .sorted = true,
                                          .has = RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH |
                                                 RECONCILE_HAS_FROM | RECONCILE_HAS_HASH | RECONCILE_HAS_TS,
                                          .read = server_read_rows,
                                          .rewind = server_rewind,
                                          .close = server_close_rows};
    json_t *summary = NULL;
    int rc = server_conn_open(&s->server, base, o, err);
    rc = rc ? rc
            : server_get(s->server, "/reconcile", &summary, err); /* is it there, and does it let us in? */
    json_decref(summary);
    if (rc) {
        server_close_rows(&s->source);
        return rc;
    }
    *out = &s->source;
    return 0;
}

/* ---- one entry, for plans ---- */

int server_entry_json(struct buf *out, struct server_conn *c, const struct reconcile_row *row,
                      struct err_ctx *err)
{
    char path[96];
    uint8_t tag[16];
    json_t *page;
    struct reconcile_row at;
    history_path(path, row->chat, !row->seq, row->seq - 1, 1);
    int rc = server_get(c, path, &page, err);
    if (rc)
        return rc;
    const json_t *j = json_array_get(json_object_get(page, "messages"), 0);
    const char *text = json_string_value(json_object_get(j, "tag"));
    if (!j || row_of(&at, j, row->chat) || at.seq != row->seq || !id_equal(&at.id, &row->id))
        rc = err_set(err, ERR_NOTFOUND, "%s: chat %" PRIu64 " seq %" PRIu64 ": gone meanwhile", path,
                     row->chat, row->seq);
    else if (!text || base64url_decode(tag, sizeof tag, text, strlen(text)) != (long)sizeof tag)
        rc = err_set(err, ERR_CORRUPT, "%s: a message without its tag", path);
    else {
        const json_t *kind = json_object_get(j, "kind"), *body = json_object_get(j, "body");
        struct entry e = {.chat = row->chat,
                          .op = at.flags & RECONCILE_SYSTEM ? ENTRY_RECOVERED : ENTRY_MESSAGE,
                          .kind = json_string_value(kind),
                          .kind_len = (uint8_t)json_string_length(kind),
                          .body = json_string_value(body),
                          .body_len = (uint32_t)json_string_length(body)};
        memcpy(e.tag, tag, sizeof tag);
        plan_entry_json(out, row, &e);
    }
    json_decref(page);
    return rc;
}

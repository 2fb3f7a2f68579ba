/* Batches that a checker can predict: batch i (from 1) has batch_size(i) entries over 5 chats, each body
 * naming batch and place. A writer commits them one after the other and reports each acknowledged one; after
 * a crash the store must hold whole batches only, at least up to the last acknowledged. */
#ifndef TESTS_ENGINES_STORE_BATCHES_H
#define TESTS_ENGINES_STORE_BATCHES_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"
#include "util/clock.h"

#define BATCH_CHATS 5u
#define BATCH_MAX   64u
#define BATCH_BODY  120u

static inline uint32_t batch_size(uint64_t i)
{
    return 1 + (uint32_t)(i * 7 % BATCH_MAX);
}

static inline void batch_entry(struct entry *e, char body[BATCH_BODY + 1], uint64_t i, uint32_t j)
{
    memset(body, '.', BATCH_BODY);
    int n = snprintf(body, BATCH_BODY, "batch %" PRIu64 " entry %u ", i, j);
    body[n] = '.';
    *e = (struct entry){.chat = 1 + (i + j) % BATCH_CHATS,
                        .sender = 7,
                        .ts_us = 1800000000000000ull + i,
                        .kind = "text",
                        .kind_len = 4,
                        .body = body,
                        .body_len = BATCH_BODY};
    memcpy(e->id.b, &i, sizeof i);
    memcpy(e->id.b + 8, &j, sizeof j);
    entry_content_hash(e->content, e->kind, e->kind_len, e->body, e->body_len);
}

struct batches_check {
    uint64_t batch; /* the one being read */
    uint32_t place;
    uint64_t seq[BATCH_CHATS + 1];
    const char *wrong;
};

static inline bool batches_see(void *arg, const struct entry *e)
{
    struct batches_check *c = arg;
    char body[BATCH_BODY + 1];
    struct entry want;
    batch_entry(&want, body, c->batch, c->place);
    if (e->chat != want.chat || !id_equal(&e->id, &want.id) || e->body_len != want.body_len ||
        memcmp(e->body, body, want.body_len) != 0)
        c->wrong = "an entry is not the one that was committed at its place";
    else if (e->seq != ++c->seq[e->chat] && !(e->seq > c->seq[e->chat] && (e->seq & UINT32_MAX) == 0))
        c->wrong = "a seq is missing";
    c->seq[e->chat] = e->seq;
    if (++c->place == batch_size(c->batch)) {
        c->batch++;
        c->place = 0;
    }
    return !c->wrong;
}

/* The number of whole batches in the store, or -1 with *wrong. */
static inline int64_t batches_in(struct store *s, uint64_t seq[BATCH_CHATS + 1], const char **wrong)
{
    static struct err_ctx ctx;
    struct batches_check c = {.batch = 1};
    if (store_scan(s, batches_see, &c, &ctx) != 0)
        c.wrong = ctx.text;
    else if (!c.wrong && c.place != 0)
        c.wrong = "a batch is there in part";
    *wrong = c.wrong;
    memcpy(seq, c.seq, sizeof c.seq);
    return c.wrong ? -1 : (int64_t)c.batch - 1;
}

/* Commits batches until `last` (0: for ever); "open EPOCH BATCHES" and an "ack I" line each to fd. */
static inline int batches_write(const char *url, const char *keys, uint64_t last, int fd)
{
    struct err_ctx ctx = {0};
    struct store *s;
    struct now t = clock_now();
    struct store_config c = {
        .url = url, .keys_dir = keys, .now_us = t.wall_us, .random = t.mono_ns * 0x9e3779b97f4a7c15ull};
    static struct entry e[BATCH_MAX];
    static char body[BATCH_MAX][BATCH_BODY + 1];
    uint64_t seq[BATCH_CHATS + 1];
    const char *wrong = "";
    int rc = store_open(&s, &c, &ctx);
    if (rc) {
        dprintf(fd, "error %s\n", ctx.text);
        return rc;
    }
    int64_t have = batches_in(s, seq, &wrong);
    if (have < 0)
        dprintf(fd, "error %s\n", wrong ? wrong : "it cannot be read");
    else
        dprintf(fd, "open %" PRIu64 " %" PRId64 "\n", store_epoch(s), have);
    for (uint64_t i = (uint64_t)have + 1; have >= 0 && (!last || i <= last); i++) {
        struct store_batch b = {.entries = e, .entries_n = batch_size(i)};
        for (uint32_t j = 0; j < b.entries_n; j++) {
            batch_entry(&e[j], body[j], i, j);
            e[j].epoch = store_epoch(s);
            e[j].seq = ++seq[e[j].chat];
        }
        if ((rc = store_commit(s, &b, &ctx)) != 0 || (i % 16 == 0 && (rc = store_mark(s, &ctx)) != 0)) {
            dprintf(fd, "error %s\n", ctx.text);
            break;
        }
        dprintf(fd, "ack %" PRIu64 "\n", i);
    }
    int closed = store_close(s, &ctx);
    return rc ? rc : have < 0 ? ERR_CORRUPT : closed;
}

#endif

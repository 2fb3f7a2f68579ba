/* Entries that can be told apart, and stores in folders of their own. */
#ifndef TESTS_STORE_HELPER_H
#define TESTS_STORE_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store_impl.h"

#define T0 1800000000000000ull /* us */

/* The n-th message of a chat; the body is a function of chat and n, so that a reader can judge it. */
static inline struct entry entry_of(uint64_t epoch, uint64_t chat, uint64_t seq, char body[64])
{
    struct entry e = {.chat = chat,
                      .epoch = epoch,
                      .seq = seq,
                      .sender = 1000 + chat,
                      .ts_us = T0 + seq * 1000000,
                      .key_id = 3,
                      .kind = "text",
                      .kind_len = 4,
                      .body = body};
    e.body_len = (uint32_t)snprintf(body, 64, "message %llu of chat %llu", (unsigned long long)seq,
                                    (unsigned long long)chat);
    for (int i = 0; i < 6; i++)
        e.id.b[i] = (uint8_t)((e.ts_us / 1000) >> (40 - 8 * i));
    e.id.b[6] = 0x70;
    e.id.b[8] = 0x80;
    put_u32(e.id.b + 9, (uint32_t)seq);
    memset(e.tag, (int)seq, sizeof e.tag);
    entry_content_hash(e.content, e.kind, e.kind_len, e.body, e.body_len);
    return e;
}

static inline int commit_one(struct store *s, uint64_t chat, uint64_t seq)
{
    char body[64];
    struct entry e = entry_of(store_epoch(s), chat, seq, body);
    struct store_batch b = {.entries = &e, .entries_n = 1};
    return store_commit(s, &b, NULL);
}

static inline void assert_entry(const struct entry *e, uint64_t chat, uint64_t seq)
{
    char body[64];
    struct entry want = entry_of(e->epoch, chat, seq, body);
    assert_true(e->chat == chat && e->seq == seq && e->sender == want.sender && e->ts_us == want.ts_us);
    assert_true(e->key_id == 3 && e->op == ENTRY_MESSAGE && id_equal(&e->id, &want.id));
    assert_int_equal(e->kind_len, 4);
    assert_memory_equal(e->kind, "text", 4);
    assert_int_equal(e->body_len, want.body_len);
    assert_memory_equal(e->body, want.body, want.body_len);
    assert_memory_equal(e->tag, want.tag, 16);
    assert_memory_equal(e->content, want.content, 16);
}

struct place {
    char root[64], url[96], keys[80], data[80];
};

static inline void place_make(struct place *p)
{
    strcpy(p->root, "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->data, sizeof p->data, "%s/data", p->root);
    snprintf(p->url, sizeof p->url, "rocksdb:%s", p->data);
    snprintf(p->keys, sizeof p->keys, "%s/keys", p->root);
    assert_int_equal(make_dir(p->keys, NULL), 0);
}

static inline void shell(const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    if (system(cmd) != 0)
        fail_msg("failed: %s", cmd);
}

static inline void place_remove(struct place *p)
{
    shell("rm -rf '%s'", p->root);
}

static inline struct store *open_place(struct place *p, uint64_t random)
{
    struct store *s = NULL;
    struct err_ctx ctx = {0};
    struct store_config c = {.url = p->url, .keys_dir = p->keys, .now_us = T0, .random = random};
    if (store_open(&s, &c, &ctx) != 0)
        fail_msg("%s", ctx.text);
    return s;
}

#endif

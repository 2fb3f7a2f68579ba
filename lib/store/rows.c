#include <stdio.h>
#include <string.h>

#include "crypto/keys.h"
#include "shard/shard.h"
#include "store/store_impl.h"
#include "util/map.h"

#define ROW_VERSION      1
#define ROW_MEMBER_BYTES 9 /* to, role */

void put_u16(uint8_t *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}

void put_u32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

void put_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}

uint16_t get_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}

uint32_t get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

static void key_begin(struct row_key *k, uint16_t shard, uint64_t owner)
{
    put_u16(k->b, shard);
    put_u64(k->b + 2, owner);
    k->n = KEY_CHAT_BYTES;
}

static void key_u64(struct row_key *k, uint64_t v)
{
    put_u64(k->b + k->n, v);
    k->n += 8;
}

void key_msg(struct row_key *k, uint64_t chat, uint64_t seq)
{
    key_begin(k, shard_of_chat(chat), chat);
    key_u64(k, seq);
}

void key_dedup(struct row_key *k, uint64_t sender, const struct id *id)
{
    key_begin(k, shard_of_user(sender), sender);
    memcpy(k->b + k->n, id->b, ID_BYTES);
    k->n += ID_BYTES;
}

void key_cursor(struct row_key *k, uint64_t chat, uint64_t user, uint32_t device)
{
    key_begin(k, shard_of_chat(chat), chat);
    key_u64(k, user);
    put_u32(k->b + k->n, device);
    k->n += 4;
}

/* One row per range, so that an upsert reads nothing. */
void key_member(struct row_key *k, uint64_t chat, uint64_t user, uint64_t from)
{
    key_begin(k, shard_of_chat(chat), chat);
    key_u64(k, user);
    key_u64(k, from);
}

void key_userchat(struct row_key *k, uint64_t user, uint64_t chat)
{
    key_begin(k, shard_of_user(user), user);
    key_u64(k, chat);
}

void key_log(struct row_key *k, uint64_t commit_index)
{
    k->n = 0;
    key_u64(k, commit_index);
}

void key_after(struct row_key *k)
{
    while (k->n && k->b[k->n - 1] == 0xff)
        k->n--;
    if (k->n)
        k->b[k->n - 1]++;
}

uint32_t row_check(struct kv_bytes key, const void *val, size_t n)
{
    return (uint32_t)hash_bytes(val, n, hash_bytes(key.p, key.n, 0));
}

void row_msg(struct buf *out, const struct row_key *key, const struct entry *e)
{
    size_t n = ROW_MSG_FIXED + (size_t)e->kind_len + e->body_len;
    uint8_t *p = (uint8_t *)buf_reserve(out, n + ROW_CHECK);
    if (!p)
        return;
    p[0] = ROW_VERSION;
    p[1] = e->op;
    p[2] = e->kind_len;
    p[3] = 0;
    put_u32(p + 4, e->body_len);
    put_u64(p + 8, e->epoch);
    put_u64(p + 16, e->sender);
    put_u64(p + 24, e->ts_us);
    put_u64(p + 32, e->key_id);
    memcpy(p + 40, e->id.b, ID_BYTES);
    memcpy(p + 56, e->tag, 16);
    memcpy(p + 72, e->content, 16);
    if (e->kind_len)
        memcpy(p + ROW_MSG_FIXED, e->kind, e->kind_len);
    if (e->body_len)
        memcpy(p + ROW_MSG_FIXED + e->kind_len, e->body, e->body_len);
    put_u32(p + n, row_check(key_bytes(key), p, n));
    out->len += n + ROW_CHECK;
}

int row_corrupt(struct err_ctx *ctx, const char *family, struct kv_bytes key, const char *what)
{
    char hex[2 * 64 + 1] = "";
    const uint8_t *p = key.p;
    for (size_t i = 0; i < key.n && i < 64; i++)
        snprintf(hex + 2 * i, 3, "%02x", p[i]);
    return err_set(ctx, ERR_CORRUPT, "%s row %s: %s", family, hex, what);
}

static int msg_corrupt(struct err_ctx *ctx, struct kv_bytes key, const char *what)
{
    if (key.n != KEY_CHAT_BYTES + 8)
        return row_corrupt(ctx, "msg", key, what);
    const uint8_t *k = key.p;
    return err_set(ctx, ERR_CORRUPT, "msg row of chat %llu seq %llu: %s", (unsigned long long)get_u64(k + 2),
                   (unsigned long long)get_u64(k + 10), what);
}

int row_msg_read(struct entry *e, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx)
{
    const uint8_t *p = val.p, *k = key.p;
    if (key.n != KEY_CHAT_BYTES + 8 || get_u16(k) != shard_of_chat(get_u64(k + 2)))
        return msg_corrupt(ctx, key, "the key is not one of a message");
    if (val.n < ROW_MSG_FIXED + ROW_CHECK || p[0] != ROW_VERSION ||
        val.n != ROW_MSG_FIXED + ROW_CHECK + (size_t)p[2] + get_u32(p + 4))
        return msg_corrupt(ctx, key, "wrong length or version");
    if (get_u32(p + val.n - ROW_CHECK) != row_check(key, p, val.n - ROW_CHECK))
        return msg_corrupt(ctx, key, "the check sum differs");
    e->chat = get_u64(k + 2);
    e->seq = get_u64(k + 10);
    e->op = p[1];
    e->kind_len = p[2];
    e->body_len = get_u32(p + 4);
    e->epoch = get_u64(p + 8);
    e->sender = get_u64(p + 16);
    e->ts_us = get_u64(p + 24);
    e->key_id = get_u64(p + 32);
    memcpy(e->id.b, p + 40, ID_BYTES);
    memcpy(e->tag, p + 56, 16);
    memcpy(e->content, p + 72, 16);
    e->kind = (const char *)p + ROW_MSG_FIXED;
    e->body = e->kind + e->kind_len;
    return 0;
}

void row_dedup(uint8_t out[ROW_DEDUP_BYTES], const struct row_key *key, const struct entry *e)
{
    put_u64(out, e->chat);
    put_u64(out + 8, e->epoch);
    put_u64(out + 16, e->seq);
    put_u64(out + 24, e->ts_us);
    memcpy(out + 32, e->content, 16);
    memcpy(out + 48, e->tag, 16);
    put_u32(out + 64, row_check(key_bytes(key), out, 64));
}

int row_dedup_read(struct dedup *d, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx)
{
    const uint8_t *p = val.p;
    if (val.n != ROW_DEDUP_BYTES)
        return row_corrupt(ctx, "dedup", key, "wrong length");
    if (get_u32(p + 64) != row_check(key, p, 64))
        return row_corrupt(ctx, "dedup", key, "the check sum differs");
    d->chat = get_u64(p);
    d->epoch = get_u64(p + 8);
    d->seq = get_u64(p + 16);
    d->ts_us = get_u64(p + 24);
    memcpy(d->content, p + 32, 16);
    memcpy(d->tag, p + 48, 16);
    return 0;
}

int row_member_read(struct member_row *m, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx)
{
    const uint8_t *k = key.p, *p = val.p;
    if (key.n != KEY_CHAT_BYTES + 16 || get_u16(k) != shard_of_chat(get_u64(k + 2)))
        return row_corrupt(ctx, "member", key, "the key is not one of a member");
    if (val.n != ROW_MEMBER_BYTES)
        return row_corrupt(ctx, "member", key, "wrong length");
    *m = (struct member_row){.chat = get_u64(k + 2),
                             .user = get_u64(k + 10),
                             .from = get_u64(k + 18),
                             .to = get_u64(p),
                             .role = p[8]};
    return 0;
}

enum entry_op entry_op_of(const char *kind, size_t n)
{
    static const char *const kinds[] = {
        [ENTRY_CREATE] = "create",      [ENTRY_JOIN] = "join",     [ENTRY_LEAVE] = "leave",
        [ENTRY_INVITE] = "invite",      [ENTRY_REMOVE] = "remove", [ENTRY_DELETE] = "delete",
        [ENTRY_RECOVERED] = "recovered"};
    for (size_t i = 1; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i]) == n && !memcmp(kinds[i], kind, n))
            return (enum entry_op)i;
    return ENTRY_MESSAGE;
}

/* Kind and body apart, whatever bytes they hold. */
struct tag_input entry_tag_input(const struct entry *e)
{
    return (struct tag_input){.chat = e->chat,
                              .epoch = e->epoch,
                              .seq = e->seq,
                              .sender = e->sender,
                              .ts_us = e->ts_us,
                              .key_id = e->key_id,
                              .id = e->id,
                              .kind = e->kind,
                              .kind_len = e->kind_len,
                              .body = e->body,
                              .body_len = e->body_len};
}

void entry_content_hash(uint8_t out[16], const char *kind, size_t kind_len, const char *body, size_t body_len)
{
    uint8_t m[8 + 32];
    put_u64(m, kind_len);
    crypto_hash16(m + 8, kind, kind_len);
    crypto_hash16(m + 24, body, body_len);
    crypto_hash16(out, m, sizeof m);
}

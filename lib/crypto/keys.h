/* The server's keys and what is made with them: tokens (JWT, EdDSA over Ed25519: RFC 7519, RFC 8037) and
 * message tags (keyed BLAKE2b, 16 bytes). Thin over libsodium.
 *
 * Files in the keys folder (mode 0700, files 0600): token.key (Ed25519 seed), tag.key (32 bytes). keys_open
 * makes them on first start, and refuses a folder or file that others may read (ERR_PERM, naming it). */
#ifndef CRYPTO_KEYS_H
#define CRYPTO_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"
#include "util/id.h"

struct keys {
    uint8_t token_seed[32], token_secret[64], token_public[32];
    uint8_t tag_key[32];
};

enum token_role { ROLE_USER, ROLE_MODERATOR, ROLE_OPERATOR };

struct token {
    uint64_t user, issued_s, expires_s;
    uint32_t device; /* 0: any device of the user */
    enum token_role role;
};

/* create: make the folder and missing keys. */
int keys_open(struct keys *k, const char *dir, bool create, struct err_ctx *ctx);
/* Keys that anybody can make again from the seed: for simulations only. */
void keys_from_seed(struct keys *k, uint64_t seed);
void keys_wipe(struct keys *k);

/* Append a JWT. */
int token_mint(const struct keys *k, const struct token *t, struct buf *out);
/* Checks alg, signature, exp and nbf (60 s leeway), iss "chatd". ERR_INVALID, or ERR_TIMEOUT when it has
 * expired. About 60 us of Ed25519: callers cache by token text where it matters. */
int token_verify(const struct keys *k, const char *jwt, size_t n, uint64_t now_s, struct token *out,
                 struct err_ctx *ctx);

/* The tag over (chat, epoch, seq, id, sender, ts, kind, key id, hash of body), design.md section 4. */
struct tag_input {
    uint64_t chat, epoch, seq, sender, ts_us, key_id;
    struct id id;
    const char *kind;
    size_t kind_len;
    const char *body;
    size_t body_len;
};
void tag_make(const struct keys *k, const struct tag_input *in, uint8_t tag[16]);
bool tag_check(const struct keys *k, const struct tag_input *in, const uint8_t tag[16]);

/* 16-byte BLAKE2b, for content hashes. */
void crypto_hash16(uint8_t out[16], const void *p, size_t n);
/* Bytes from the kernel's generator. */
void crypto_random(void *p, size_t n);

#endif

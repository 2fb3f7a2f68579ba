/* The two halves of a token, for keys.c, its tests and its fuzz target. */
#ifndef CRYPTO_KEYS_IMPL_H
#define CRYPTO_KEYS_IMPL_H

#include "crypto/keys.h"

#define JWT_TEXT_MAX 4096u

/* Append header.payload.signature (RFC 7515 compact form; RFC 8037 section 3.1 for Ed25519). */
int jws_sign(const struct keys *k, const char *header, const char *payload, size_t payload_len,
             struct buf *out);
/* The claims of a payload whose signature was already found good. */
int token_claims(const char *json, size_t n, uint64_t now_s, struct token *out, struct err_ctx *ctx);

#endif

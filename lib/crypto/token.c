#include <jansson.h>
#include <sodium.h>
#include <string.h>

#include "crypto/keys_impl.h"
#include "util/units.h"

#define LEEWAY_S 60u
#define ISSUER   "chatd"

static const char *const role_names[] = {
    [ROLE_USER] = "user", [ROLE_MODERATOR] = "moderator", [ROLE_OPERATOR] = "operator"};
#define ROLES (sizeof role_names / sizeof *role_names)

static void add_base64(struct buf *out, const void *p, size_t n)
{
    char *to = buf_reserve(out, BASE64_LEN(n));
    if (to)
        out->len += base64url_encode(to, p, n);
}

int jws_sign(const struct keys *k, const char *header, const char *payload, size_t payload_len,
             struct buf *out)
{
    uint8_t sig[crypto_sign_ed25519_BYTES];
    size_t start = out->len;
    add_base64(out, header, strlen(header));
    buf_char(out, '.');
    add_base64(out, payload, payload_len);
    if (out->failed)
        return ERR_LIMIT;
    crypto_sign_ed25519_detached(sig, NULL, (const uint8_t *)out->data + start, out->len - start,
                                 k->token_secret);
    buf_char(out, '.');
    add_base64(out, sig, sizeof sig);
    return out->failed ? ERR_LIMIT : 0;
}

int token_mint(const struct keys *k, const struct token *t, struct buf *out)
{
    if ((unsigned)t->role >= ROLES)
        return ERR_INVALID;
    struct buf b = BUF_INIT(512);
    buf_printf(&b, "{\"iss\":\"" ISSUER "\",\"sub\":\"%llu\",\"device\":%u,\"role\":\"%s\"",
               (unsigned long long)t->user, (unsigned)t->device, role_names[t->role]);
    buf_printf(&b, ",\"iat\":%llu,\"nbf\":%llu,\"exp\":%llu}", (unsigned long long)t->issued_s,
               (unsigned long long)t->issued_s, (unsigned long long)t->expires_s);
    int rc = b.failed ? ERR_LIMIT : jws_sign(k, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}", b.data, b.len, out);
    buf_release(&b);
    return rc;
}

static bool text_is(const json_t *v, const char *want)
{
    return json_is_string(v) && json_string_length(v) == strlen(want) &&
           strcmp(json_string_value(v), want) == 0;
}

/* A JSON integer in [0, INT64_MAX]; false for anything else, absence included. */
static bool number(const json_t *obj, const char *key, uint64_t *v)
{
    const json_t *j = json_object_get(obj, key);
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return false;
    *v = (uint64_t)json_integer_value(j);
    return true;
}

static json_t *load_object(const char *json, size_t n)
{
    json_t *o = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
    if (o && !json_is_object(o)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Only EdDSA, and no extension that we would have to understand (RFC 7515 section 4.1.11). */
static int check_header(const char *json, size_t n, struct err_ctx *ctx)
{
    json_t *h = load_object(json, n);
    if (!h)
        return err_set(ctx, ERR_INVALID, "token: the header is no JSON object");
    int rc = 0;
    const json_t *typ = json_object_get(h, "typ");
    if (!text_is(json_object_get(h, "alg"), "EdDSA"))
        rc = err_set(ctx, ERR_INVALID, "token: alg is not EdDSA");
    else if (json_object_get(h, "crit"))
        rc = err_set(ctx, ERR_INVALID, "token: crit is not supported");
    else if (typ && !text_is(typ, "JWT"))
        rc = err_set(ctx, ERR_INVALID, "token: typ is not JWT");
    json_decref(h);
    return rc;
}

static int check_role(const json_t *v, enum token_role *out)
{
    for (unsigned i = 0; i < ROLES; i++)
        if (text_is(v, role_names[i])) {
            *out = (enum token_role)i;
            return 0;
        }
    return ERR_INVALID;
}

static int read_claims(const json_t *c, struct token *t, uint64_t *nbf, struct err_ctx *ctx)
{
    const json_t *sub = json_object_get(c, "sub");
    uint64_t device = 0;
    if (!text_is(json_object_get(c, "iss"), ISSUER))
        return err_set(ctx, ERR_INVALID, "token: iss is not " ISSUER);
    if (!json_is_string(sub) || json_string_length(sub) != strlen(json_string_value(sub)) ||
        units_u64(&t->user, json_string_value(sub), NULL) != 0)
        return err_set(ctx, ERR_INVALID, "token: sub is no user number");
    if (!number(c, "exp", &t->expires_s))
        return err_set(ctx, ERR_INVALID, "token: exp is missing or no integer");
    t->issued_s = 0;
    if (json_object_get(c, "iat") && !number(c, "iat", &t->issued_s))
        return err_set(ctx, ERR_INVALID, "token: iat is no integer");
    *nbf = 0;
    if (json_object_get(c, "nbf") && !number(c, "nbf", nbf))
        return err_set(ctx, ERR_INVALID, "token: nbf is no integer");
    if (json_object_get(c, "device") && (!number(c, "device", &device) || device > UINT32_MAX))
        return err_set(ctx, ERR_INVALID, "token: device is no 32-bit number");
    t->device = (uint32_t)device;
    t->role = ROLE_USER;
    if (json_object_get(c, "role") && check_role(json_object_get(c, "role"), &t->role) != 0)
        return err_set(ctx, ERR_INVALID, "token: role is unknown");
    return 0;
}

int token_claims(const char *json, size_t n, uint64_t now_s, struct token *out, struct err_ctx *ctx)
{
    json_t *c = load_object(json, n);
    if (!c)
        return err_set(ctx, ERR_INVALID, "token: the claims are no JSON object");
    struct token t = {0};
    uint64_t nbf = 0;
    int rc = read_claims(c, &t, &nbf, ctx);
    json_decref(c);
    if (rc)
        return rc;
    /* exp and nbf are at most INT64_MAX: the sums cannot wrap */
    if (now_s >= t.expires_s + LEEWAY_S)
        return err_set(ctx, ERR_TIMEOUT, "token: expired %llu s ago",
                       (unsigned long long)(now_s - t.expires_s));
    if (nbf > now_s && nbf - now_s > LEEWAY_S)
        return err_set(ctx, ERR_INVALID, "token: not valid before %llu s from now",
                       (unsigned long long)(nbf - now_s));
    *out = t;
    return 0;
}

int token_verify(const struct keys *k, const char *jwt, size_t n, uint64_t now_s, struct token *out,
                 struct err_ctx *ctx)
{
    char json[JWT_TEXT_MAX];
    uint8_t sig[crypto_sign_ed25519_BYTES];
    if (n > JWT_TEXT_MAX)
        return err_set(ctx, ERR_INVALID, "token: longer than %u bytes", JWT_TEXT_MAX);
    const char *dot1 = n ? memchr(jwt, '.', n) : NULL;
    const char *dot2 = dot1 ? memchr(dot1 + 1, '.', n - (size_t)(dot1 + 1 - jwt)) : NULL;
    if (!dot2)
        return err_set(ctx, ERR_INVALID, "token: is not three parts");
    const char *end = jwt + n;
    /* a third dot would be an invalid character of the signature */
    if (base64url_decode(sig, sizeof sig, dot2 + 1, (size_t)(end - dot2 - 1)) != (long)sizeof sig)
        return err_set(ctx, ERR_INVALID, "token: the signature is not 64 bytes of base64url");
    long len = base64url_decode(json, sizeof json, jwt, (size_t)(dot1 - jwt));
    if (len < 0)
        return err_set(ctx, ERR_INVALID, "token: the header is no base64url");
    int rc = check_header(json, (size_t)len, ctx);
    if (rc)
        return rc;
    if (crypto_sign_ed25519_verify_detached(sig, (const uint8_t *)jwt, (size_t)(dot2 - jwt),
                                            k->token_public) != 0)
        return err_set(ctx, ERR_INVALID, "token: the signature is wrong");
    len = base64url_decode(json, sizeof json, dot1 + 1, (size_t)(dot2 - dot1 - 1));
    if (len < 0)
        return err_set(ctx, ERR_INVALID, "token: the claims are no base64url");
    return token_claims(json, (size_t)len, now_s, out, ctx);
}

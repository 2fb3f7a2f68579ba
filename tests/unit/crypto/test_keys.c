#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/keys_impl.h"

#define NOW 1800000000ull

static struct keys k;

static int setup(void **state)
{
    (void)state;
    assert_true(sodium_init() >= 0);
    for (unsigned i = 0; i < 32; i++) {
        k.token_seed[i] = (uint8_t)i;
        k.tag_key[i] = (uint8_t)(i + 100);
    }
    crypto_sign_ed25519_seed_keypair(k.token_public, k.token_secret, k.token_seed);
    return 0;
}

static struct buf signed_with(const char *header, const char *claims)
{
    struct buf b = BUF_INIT(8192);
    assert_int_equal(jws_sign(&k, header, claims, strlen(claims), &b), 0);
    return b;
}

static int verify_at(const struct buf *b, uint64_t now, struct token *t)
{
    struct err_ctx ctx = {0};
    struct token spare;
    int rc = token_verify(&k, b->data, b->len, now, t ? t : &spare, &ctx);
    assert_int_equal(rc, ctx.code);
    return rc;
}

static int verdict(const char *header, const char *claims)
{
    struct buf b = signed_with(header, claims);
    int rc = verify_at(&b, NOW, NULL);
    buf_release(&b);
    return rc;
}

static void test_minted_token_comes_back_whole(void **state)
{
    (void)state;
    struct token in = {.user = UINT64_MAX,
                       .device = UINT32_MAX,
                       .role = ROLE_OPERATOR,
                       .issued_s = NOW,
                       .expires_s = NOW + 60},
                 out;
    struct buf b = BUF_INIT(4096);
    assert_int_equal(token_mint(&k, &in, &b), 0);
    assert_int_equal(verify_at(&b, NOW, &out), 0);
    assert_true(out.user == in.user && out.device == in.device && out.role == in.role);
    assert_true(out.issued_s == in.issued_s && out.expires_s == in.expires_s);
    buf_release(&b);
}

static void test_times_have_a_leeway_of_a_minute(void **state)
{
    (void)state;
    struct token in = {.user = 7, .issued_s = NOW, .expires_s = NOW + 100};
    struct buf b = BUF_INIT(4096);
    assert_int_equal(token_mint(&k, &in, &b), 0);
    assert_int_equal(verify_at(&b, NOW - 61, NULL), ERR_INVALID);
    assert_int_equal(verify_at(&b, NOW - 60, NULL), 0);
    assert_int_equal(verify_at(&b, NOW + 159, NULL), 0);
    assert_int_equal(verify_at(&b, NOW + 160, NULL), ERR_TIMEOUT);
    buf_release(&b);
}

static void test_every_changed_character_is_refused(void **state)
{
    (void)state;
    struct token in = {.user = 7, .issued_s = NOW, .expires_s = NOW + 100};
    struct buf b = BUF_INIT(4096);
    assert_int_equal(token_mint(&k, &in, &b), 0);
    for (size_t i = 0; i < b.len; i++) {
        char was = b.data[i];
        b.data[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(verify_at(&b, NOW, NULL), ERR_INVALID);
        b.data[i] = was;
    }
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(token_verify(&k, b.data, n, NOW, &in, NULL), ERR_INVALID);
    buf_release(&b);
}

static void test_only_eddsa_and_no_extension(void **state)
{
    (void)state;
    const char *claims = "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100}";
    assert_int_equal(verdict("{\"alg\":\"EdDSA\"}", claims), 0);
    assert_int_equal(verdict("{\"alg\":\"none\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"HS256\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"eddsa\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"EdDSA\\u0000\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"EdDSA\",\"alg\":\"EdDSA\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"EdDSA\",\"crit\":[\"b64\"]}", claims), ERR_INVALID);
    assert_int_equal(verdict("{\"alg\":\"EdDSA\",\"typ\":\"JWE\"}", claims), ERR_INVALID);
    assert_int_equal(verdict("{}", claims), ERR_INVALID);
    assert_int_equal(verdict("[]", claims), ERR_INVALID);
}

static void test_claims_are_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "7",
        "{}",
        "{\"iss\":\"other\",\"sub\":\"7\",\"exp\":1800000100}",
        "{\"sub\":\"7\",\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"sub\":7,\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"sub\":\"\",\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"sub\":\"-7\",\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"sub\":\"18446744073709551616\",\"exp\":1800000100}",
        "{\"iss\":\"chatd\",\"sub\":\"7\"}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":\"1800000100\"}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100.5}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":-1}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100,\"exp\":1900000000}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100,\"nbf\":\"0\"}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100,\"nbf\":9223372036854775807}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100,\"device\":4294967296}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100,\"role\":\"root\"}",
        "{\"iss\":\"chatd\",\"sub\":\"7\",\"exp\":1800000100} x",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (verdict("{\"alg\":\"EdDSA\"}", bad[i]) != ERR_INVALID)
            fail_msg("accepted: %s", bad[i]);
}

static void test_other_key_is_refused(void **state)
{
    (void)state;
    struct keys other = k;
    other.token_seed[0] ^= 1;
    crypto_sign_ed25519_seed_keypair(other.token_public, other.token_secret, other.token_seed);
    struct token t = {.user = 7, .issued_s = NOW, .expires_s = NOW + 100};
    struct buf b = BUF_INIT(4096);
    assert_int_equal(token_mint(&other, &t, &b), 0);
    assert_int_equal(verify_at(&b, NOW, NULL), ERR_INVALID);
    buf_release(&b);
}

static void test_garbage_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", ".", "..", "...", "a.b.c", "e30.e30.", "....................", "\xff\xfe"};
    struct token t;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(token_verify(&k, bad[i], strlen(bad[i]), NOW, &t, NULL), ERR_INVALID);
    static char big[JWT_TEXT_MAX + 1];
    memset(big, 'A', sizeof big);
    big[10] = big[20] = '.';
    assert_int_equal(token_verify(&k, big, sizeof big, NOW, &t, NULL), ERR_INVALID);
}

/* RFC 8037 appendix A.4 */
static void test_rfc8037_signature(void **state)
{
    (void)state;
    static const char seed[] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                      public[] = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                      want[] =
                          "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
                          "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_"
                          "MuM0KAg",
                      text[] = "Example of Ed25519 signing";
    struct keys r;
    uint8_t pub[32];
    assert_int_equal(base64url_decode(r.token_seed, 32, seed, strlen(seed)), 32);
    assert_int_equal(base64url_decode(pub, 32, public, strlen(public)), 32);
    crypto_sign_ed25519_seed_keypair(r.token_public, r.token_secret, r.token_seed);
    assert_memory_equal(r.token_public, pub, 32);
    struct buf b = BUF_INIT(4096);
    assert_int_equal(jws_sign(&r, "{\"alg\":\"EdDSA\"}", text, strlen(text), &b), 0);
    assert_string_equal(buf_cstr(&b), want);
    buf_release(&b);
}

static struct tag_input tag_base(void)
{
    return (struct tag_input){.chat = 1,
                              .epoch = 2,
                              .seq = 3,
                              .sender = 4,
                              .ts_us = 5,
                              .key_id = 6,
                              .id = {{7}},
                              .kind = "text",
                              .kind_len = 4,
                              .body = "hi",
                              .body_len = 2};
}

static void test_tag_differs_on_each_field(void **state)
{
    (void)state;
    struct tag_input v[12];
    uint8_t tag[13][16];
    for (int i = 0; i < 12; i++)
        v[i] = tag_base();
    v[0].chat++, v[1].epoch++, v[2].seq++, v[3].sender++, v[4].ts_us++, v[5].key_id++;
    v[6].id.b[15] ^= 1;
    v[7].kind = "texu";
    v[8].kind_len--;
    v[9].body = "hj";
    v[10].body_len--;
    v[11].kind = "texth", v[11].kind_len = 5, v[11].body = "i", v[11].body_len = 1; /* bytes moved across */
    struct tag_input base = tag_base();
    tag_make(&k, &base, tag[12]);
    assert_true(tag_check(&k, &base, tag[12]));
    for (int i = 0; i < 12; i++) {
        tag_make(&k, &v[i], tag[i]);
        assert_false(tag_check(&k, &v[i], tag[12]));
    }
    for (int i = 0; i < 13; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(tag[i], tag[j], 16);
    struct keys other = k;
    other.tag_key[31] ^= 1;
    assert_false(tag_check(&other, &base, tag[12]));
}

static void test_keys_are_made_once_and_kept_private(void **state)
{
    (void)state;
    char dir[] = "/tmp/test-keys-XXXXXX", sub[64], path[80];
    struct keys a, b;
    struct err_ctx ctx = {0};
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(sub, sizeof sub, "%s/keys", dir);
    snprintf(path, sizeof path, "%s/tag.key", sub);
    assert_int_equal(keys_open(&a, sub, false, &ctx), ERR_NOTFOUND);
    assert_int_equal(keys_open(&a, sub, true, &ctx), 0);
    assert_int_equal(keys_open(&b, sub, false, &ctx), 0);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 32);
    chmod(path, 0640);
    assert_int_equal(keys_open(&b, sub, true, &ctx), ERR_PERM);
    assert_non_null(strstr(ctx.text, path));
    chmod(path, 0600);
    chmod(sub, 0755);
    assert_int_equal(keys_open(&b, sub, true, &ctx), ERR_PERM);
    chmod(sub, 0700);
    assert_int_equal(truncate(path, 31), 0);
    assert_int_equal(keys_open(&b, sub, true, &ctx), ERR_CORRUPT);
    unlink(path);
    snprintf(path, sizeof path, "%s/token.key", sub);
    unlink(path);
    assert_int_equal(rmdir(sub), 0); /* nothing temporary is left */
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_minted_token_comes_back_whole),
        cmocka_unit_test(test_times_have_a_leeway_of_a_minute),
        cmocka_unit_test(test_every_changed_character_is_refused),
        cmocka_unit_test(test_only_eddsa_and_no_extension),
        cmocka_unit_test(test_claims_are_strict),
        cmocka_unit_test(test_other_key_is_refused),
        cmocka_unit_test(test_garbage_is_refused),
        cmocka_unit_test(test_rfc8037_signature),
        cmocka_unit_test(test_tag_differs_on_each_field),
        cmocka_unit_test(test_keys_are_made_once_and_kept_private),
    };
    return cmocka_run_group_tests_name("keys", tests, setup, NULL);
}

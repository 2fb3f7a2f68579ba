/* Tokens come from anybody. The first byte chooses: a whole JWT, or claims as if their signature had been
 * good (which a mutation would never reach otherwise). */
#include <sodium.h>

#include "crypto/keys_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct keys k;
    static int ready;
    if (!ready) {
        BUG_ON(sodium_init() < 0);
        crypto_sign_ed25519_seed_keypair(k.token_public, k.token_secret, k.token_seed);
        ready = 1;
    }
    if (n == 0)
        return 0;
    struct token t;
    struct err_ctx ctx = {0};
    const char *text = (const char *)data + 1;
    int rc = data[0] == 'c' ? token_claims(text, n - 1, 1800000000, &t, &ctx)
                            : token_verify(&k, text, n - 1, 1800000000, &t, &ctx);
    BUG_ON(rc != ctx.code);
    BUG_ON(rc != 0 && rc != ERR_INVALID && rc != ERR_TIMEOUT);
    return 0;
}

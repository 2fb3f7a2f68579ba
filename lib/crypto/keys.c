#include "crypto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED_BYTES 32

static int check_mode(const char *path, const struct stat *st, struct err_ctx *ctx)
{
    if (st->st_mode & 077)
        return err_set(ctx, ERR_PERM, "%s: others may read it (mode %04o); chmod go= it", path,
                       (unsigned)st->st_mode & 07777);
    return 0;
}

static int open_dir(const char *dir, bool create, struct err_ctx *ctx)
{
    struct stat st;
    if (create && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_errno(ctx, "%s: mkdir", dir);
    if (stat(dir, &st) < 0)
        return err_errno(ctx, "%s", dir);
    if (!S_ISDIR(st.st_mode))
        return err_set(ctx, ERR_INVALID, "%s: is no folder", dir);
    return check_mode(dir, &st, ctx);
}

static int read_key(const char *path, uint8_t key[SEED_BYTES], struct err_ctx *ctx)
{
    struct stat st;
    uint8_t more;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    if (fstat(fd, &st) < 0)
        rc = err_errno(ctx, "%s", path);
    else
        rc = check_mode(path, &st, ctx);
    if (rc == 0 && (read(fd, key, SEED_BYTES) != SEED_BYTES || read(fd, &more, 1) != 0))
        rc = err_set(ctx, ERR_CORRUPT, "%s: is not a key of %d bytes", path, SEED_BYTES);
    close(fd);
    return rc;
}

static int sync_dir(const char *dir, struct err_ctx *ctx)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_errno(ctx, "%s: fsync", dir) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Through a temporary name and link(), so that a crash leaves no half a key and a race of two starters leaves
 * one key that both use. */
static int make_key(const char *dir, const char *path, struct err_ctx *ctx)
{
    uint8_t key[SEED_BYTES];
    char tmp[4200];
    int rc = 0;
    snprintf(tmp, sizeof tmp, "%s.%ld.tmp", path, (long)getpid());
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(ctx, "%s", tmp);
    randombytes_buf(key, sizeof key);
    if (write(fd, key, sizeof key) != (ssize_t)sizeof key || fsync(fd) < 0)
        rc = err_errno(ctx, "%s: write", tmp);
    else if (link(tmp, path) < 0 && errno != EEXIST)
        rc = err_errno(ctx, "%s: link", path);
    close(fd);
    unlink(tmp);
    sodium_memzero(key, sizeof key);
    return rc ? rc : sync_dir(dir, ctx);
}

static int load_key(const char *dir, const char *name, bool create, uint8_t key[SEED_BYTES],
                    struct err_ctx *ctx)
{
    char path[4160];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return err_set(ctx, ERR_LIMIT, "%s: path too long", dir);
    int rc = read_key(path, key, ctx);
    if (rc != ERR_NOTFOUND || !create)
        return rc;
    rc = make_key(dir, path, ctx);
    return rc ? rc : read_key(path, key, ctx);
}

int keys_open(struct keys *k, const char *dir, bool create, struct err_ctx *ctx)
{
    if (sodium_init() < 0)
        return err_set(ctx, ERR_UNAVAILABLE, "libsodium does not start");
    memset(k, 0, sizeof *k);
    int rc = open_dir(dir, create, ctx);
    if (rc == 0)
        rc = load_key(dir, "token.key", create, k->token_seed, ctx);
    if (rc == 0)
        rc = load_key(dir, "tag.key", create, k->tag_key, ctx);
    if (rc == 0)
        crypto_sign_ed25519_seed_keypair(k->token_public, k->token_secret, k->token_seed);
    else
        keys_wipe(k);
    return rc;
}

void keys_from_seed(struct keys *k, uint64_t seed)
{
    crypto_generichash(k->token_seed, sizeof k->token_seed, (const uint8_t *)&seed, sizeof seed, NULL, 0);
    crypto_generichash(k->tag_key, sizeof k->tag_key, k->token_seed, sizeof k->token_seed, NULL, 0);
    crypto_sign_ed25519_seed_keypair(k->token_public, k->token_secret, k->token_seed);
}

void keys_wipe(struct keys *k)
{
    sodium_memzero(k, sizeof *k);
}

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
    return p + 8;
}

/* Fields of fixed width first, the two of varying length as hashes: no two inputs give the same bytes. */
void tag_make(const struct keys *k, const struct tag_input *in, uint8_t tag[16])
{
    uint8_t m[6 * 8 + ID_BYTES + 16 + 32], *p = m;
    p = put_u64(p, in->chat);
    p = put_u64(p, in->epoch);
    p = put_u64(p, in->seq);
    p = put_u64(p, in->sender);
    p = put_u64(p, in->ts_us);
    p = put_u64(p, in->key_id);
    memcpy(p, in->id.b, ID_BYTES);
    p += ID_BYTES;
    crypto_generichash(p, 16, (const uint8_t *)in->kind, in->kind_len, NULL, 0);
    p += 16;
    crypto_generichash(p, 32, (const uint8_t *)in->body, in->body_len, NULL, 0);
    crypto_generichash(tag, 16, m, sizeof m, k->tag_key, sizeof k->tag_key);
}

bool tag_check(const struct keys *k, const struct tag_input *in, const uint8_t tag[16])
{
    uint8_t want[16];
    tag_make(k, in, want);
    return sodium_memcmp(want, tag, 16) == 0;
}

void crypto_hash16(uint8_t out[16], const void *p, size_t n)
{
    crypto_generichash(out, 16, p, n, NULL, 0);
}

void crypto_random(void *p, size_t n)
{
    randombytes_buf(p, n);
}

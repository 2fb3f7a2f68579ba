#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store_impl.h"
#include "util/map.h"

#define PATH_BYTES 4160
#define TEXT_BYTES 256

static int render(char text[TEXT_BYTES], const struct mark *m)
{
    int n = snprintf(text, TEXT_BYTES,
                     "chatd mark 1\nepoch %" PRIu64 "\ngeneration %" PRIu64 "\nopens %" PRIu64
                     "\ncommit %" PRIu64 "\n",
                     m->epoch, m->generation, m->opens, m->commit);
    return n + snprintf(text + n, TEXT_BYTES - (size_t)n, "check %016" PRIx64 "\n",
                        hash_bytes(text, (size_t)n, 0));
}

static int mark_path(char path[PATH_BYTES], const char *dir, const char *name, struct err_ctx *ctx)
{
    if ((size_t)snprintf(path, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        return err_set(ctx, ERR_LIMIT, "%s: path too long", dir);
    return 0;
}

/* What was read must be exactly what we would write. */
int mark_read(struct mark *m, const char *keys_dir, struct err_ctx *ctx)
{
    char path[PATH_BYTES], text[TEXT_BYTES + 1], again[TEXT_BYTES];
    int rc = mark_path(path, keys_dir, "mark", ctx);
    if (rc)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    ssize_t n = read(fd, text, TEXT_BYTES);
    close(fd);
    if (n < 0)
        return err_errno(ctx, "%s", path);
    text[n] = 0;
    if (sscanf(text,
               "chatd mark 1 epoch %" SCNu64 " generation %" SCNu64 " opens %" SCNu64 " commit %" SCNu64,
               &m->epoch, &m->generation, &m->opens, &m->commit) != 4 ||
        render(again, m) != n || memcmp(text, again, (size_t)n) != 0)
        return err_set(ctx, ERR_CORRUPT, "%s: is no mark, or damaged", path);
    return 0;
}

int mark_write(const struct mark *m, const char *keys_dir, struct err_ctx *ctx)
{
    char path[PATH_BYTES], tmp[PATH_BYTES], text[TEXT_BYTES];
    int rc = mark_path(path, keys_dir, "mark", ctx), n = render(text, m);
    if (rc == 0)
        rc = mark_path(tmp, keys_dir, "mark.tmp", ctx);
    if (rc)
        return rc;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(ctx, "%s", tmp);
    if (write(fd, text, (size_t)n) != n || fsync(fd) < 0)
        rc = err_errno(ctx, "%s: write", tmp);
    close(fd);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = err_errno(ctx, "%s: rename", path);
    return rc ? rc : sync_folder(keys_dir, ctx);
}

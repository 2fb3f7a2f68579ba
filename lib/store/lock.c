#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_impl.h"

int sync_folder(const char *dir, struct err_ctx *ctx)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_errno(ctx, "%s: fsync", dir) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

int make_dir(const char *dir, struct err_ctx *ctx)
{
    struct stat st;
    if (stat(dir, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0 : err_set(ctx, ERR_INVALID, "%s: is no folder", dir);
    if (mkdir(dir, 0700) < 0)
        return err_errno(ctx, "%s: mkdir", dir);
    /* a power cut must not take the folder from around synced files */
    char *copy = strdup(dir);
    if (!copy)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", dir);
    int rc = sync_folder(dirname(copy), ctx);
    free(copy);
    return rc;
}

static int busy(const char *path, int fd, struct err_ctx *ctx)
{
    char pid[32] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
    return err_set(ctx, ERR_BUSY, "%s: the store is in use by process %s; stop it first", path,
                   *pid ? pid : "(unknown)");
}

int lock_take(const char *dir, struct err_ctx *ctx)
{
    char path[4160], pid[32];
    if ((size_t)snprintf(path, sizeof path, "%s/pid", dir) >= sizeof path)
        return err_set(ctx, ERR_LIMIT, "%s: path too long", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    int rc = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        rc = errno == EWOULDBLOCK ? busy(path, fd, ctx) : err_errno(ctx, "%s: flock", path);
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    /* a full disk must not keep the store from opening: the number is only for people */
    if (rc == 0 && (ftruncate(fd, 0) < 0 || (pwrite(fd, pid, (size_t)n, 0) != n && errno != ENOSPC)))
        rc = err_errno(ctx, "%s", path);
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

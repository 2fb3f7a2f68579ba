/* The server's store in the real world: backed up, damaged, put back. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define TOOL_NS (60 * NS_PER_S)
#define STOP_NS (12 * NS_PER_S)

/* Runs a program to its end; its words go into store.log. */
static int run(struct chaos *c, char *const argv[], int *status, struct err_ctx *ctx)
{
    char log[600];
    pid_t pid;
    chaos_path(c, log, sizeof log, "store.log");
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int rc = fd < 0 ? err_errno(ctx, "%s", log) : child_spawn(argv, fd, fd, &pid, ctx);
    if (fd >= 0)
        close(fd);
    if (!rc && (rc = child_wait(pid, TOOL_NS, status, ctx)))
        child_stop(pid, NS_PER_S, status, NULL);
    return rc;
}

/* The same; anything but status 0 is an error. */
static int must(struct chaos *c, char *const argv[], struct err_ctx *ctx)
{
    int status = 0, rc = run(c, argv, &status, ctx);
    char text[64];
    if (rc || !status)
        return rc;
    child_status_text(text, sizeof text, status);
    return err_set(ctx, ERR_UNAVAILABLE, "%s %s %s (%s/store.log)", argv[0], argv[1] ? argv[1] : "", text,
                   c->dir);
}

static int copy(struct chaos *c, const char *from, const char *to, struct err_ctx *ctx)
{
    char cp[] = "/bin/cp", a[] = "-a", f[700], t[700];
    snprintf(f, sizeof f, "%s", from);
    snprintf(t, sizeof t, "%s", to);
    return must(c, (char *[]){cp, a, f, t, NULL}, ctx);
}

int chaos_backup(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], data[600], to[640], keys[600], mark[700], kept[700], backup[] = "backup",
                                                                            d[] = "--data", t[] = "--to";
    int rc = child_program(program, sizeof program, c->config->programs, "chatd-server", ctx);
    chaos_path(c, data, sizeof data, "data");
    chaos_path(c, keys, sizeof keys, "keys");
    snprintf(to, sizeof to, "%s/backup-%u", c->dir, ++c->backups);
    snprintf(mark, sizeof mark, "%s/mark", keys);
    snprintf(kept, sizeof kept, "%s/backup-%u.mark", c->dir, c->backups);
    rc = rc ? rc : must(c, (char *[]){program, backup, d, data, t, to, NULL}, ctx);
    return rc ? rc : copy(c, mark, kept, ctx);
}

/* ---- damage ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* The largest file of the store whose name ends so. */
static int largest(const char *dir, const char *end, char *out, size_t size, off_t *bytes,
                   struct err_ctx *ctx)
{
    DIR *d = opendir(dir);
    struct stat st;
    char path[1000];
    *bytes = -1;
    if (!d)
        return err_errno(ctx, "%s", dir);
    for (const struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (!ends_with(e->d_name, end) || stat(path, &st) || st.st_size <= *bytes)
            continue;
        *bytes = st.st_size;
        snprintf(out, size, "%s", path);
    }
    closedir(d);
    return *bytes < 0 ? err_set(ctx, ERR_NOTFOUND, "%s: no *%s to damage", dir, end) : 0;
}

static int flip(const char *path, off_t bytes, struct err_ctx *ctx)
{
    uint8_t b = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    for (int i = 1; i <= 8 && !rc; i++) {
        off_t at = bytes * i / 9;
        if (pread(fd, &b, 1, at) != 1 || (b ^= 0x10, pwrite(fd, &b, 1, at)) != 1)
            rc = err_errno(ctx, "%s", path);
    }
    close(fd);
    return rc;
}

static int damage(const char *dir, const char *how, struct err_ctx *ctx)
{
    char path[1000] = "";
    off_t bytes;
    bool wal = strcmp(how, "torn-wal") == 0;
    int rc = largest(dir, wal ? ".log" : ".sst", path, sizeof path, &bytes, ctx);
    if (rc == ERR_NOTFOUND && !wal) /* nothing was flushed to tables yet: then it hits the log */
        rc = largest(dir, ".log", path, sizeof path, &bytes, ctx);
    if (rc)
        return rc;
    if (strcmp(how, "flip") == 0)
        return flip(path, bytes, ctx);
    if (strcmp(how, "missing-sst") == 0)
        return unlink(path) ? err_errno(ctx, "%s", path) : 0;
    return truncate(path, bytes * 2 / 3) ? err_errno(ctx, "%s", path) : 0;
}

static void kill_now(struct chaos *c)
{
    int status;
    if (!c->server[0].pid)
        return;
    kill(c->server[0].pid, SIGKILL);
    child_wait(c->server[0].pid, NS_PER_S * 5, &status, NULL);
    chaos_server_gone(c, &c->server[0]);
}

/* What its operator sees: the server says whether it starts. It stays down until the store is put back. */
int chaos_corrupt(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx)
{
    char dir[600], program[600], verify[] = "verify";
    int status = 0;
    kill_now(c);
    c->server[0].restart_at = 0;
    chaos_path(c, dir, sizeof dir, "data/store");
    int rc = damage(dir, f->set, ctx);
    rc = rc ? rc : child_program(program, sizeof program, c->config->programs, "chatd-server", ctx);
    rc = rc ? rc : run(c, (char *[]){program, verify, dir, NULL}, &status, ctx);
    c->damage_named = !rc && status != 0;
    return rc;
}

/* ---- put back ---- */

static int put_back_by_hand(struct chaos *c, bool mark_too, struct err_ctx *ctx)
{
    char from[640], to[600], list[640], mark[700], kept[700];
    snprintf(from, sizeof from, "%s/backup-%u", c->dir, c->backups);
    chaos_path(c, to, sizeof to, "data/store");
    snprintf(list, sizeof list, "%s/data/store/BACKUP", c->dir);
    int rc = copy(c, from, to, ctx);
    unlink(list);
    if (rc || !mark_too)
        return rc;
    snprintf(kept, sizeof kept, "%s/backup-%u.mark", c->dir, c->backups);
    snprintf(mark, sizeof mark, "%s/keys/mark", c->dir);
    return copy(c, kept, mark, ctx);
}

int chaos_restore(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx)
{
    char program[600], data[600], store[600], lost[640], from[640], keys[600],
        restore[] = "restore", o_from[] = "--from", o_data[] = "--data", o_keys[] = "--keys";
    if (strcmp(f->set, "sudden") == 0)
        kill_now(c);
    else
        chaos_server_stop(c);
    chaos_path(c, data, sizeof data, "data");
    chaos_path(c, keys, sizeof keys, "keys");
    chaos_path(c, store, sizeof store, "data/store");
    snprintf(lost, sizeof lost, "%s/lost-%u", c->dir, c->server[0].starts);
    snprintf(from, sizeof from, "%s/backup-%u", c->dir, c->backups);
    int rc = rename(store, lost) ? err_errno(ctx, "%s", store) : 0;
    if (!rc && (!f->set[0] || strcmp(f->set, "restore") == 0)) {
        rc = child_program(program, sizeof program, c->config->programs, "chatd-server", ctx);
        rc = rc ? rc
                : must(c, (char *[]){program, restore, o_from, from, o_data, data, o_keys, keys, NULL}, ctx);
    } else if (!rc) {
        rc = put_back_by_hand(c, strcmp(f->set, "blind") == 0, ctx);
    }
    c->server[0].restart_at = clock_mono_ns() + (f->restart ? f->restart : NS_PER_S);
    return rc;
}

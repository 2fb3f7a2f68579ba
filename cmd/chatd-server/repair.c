/* repair: what can be read of a damaged store, as a folder that `restore` takes; and what is lost. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chatd-server/commands.h"
#include "store/repair.h"
#include "store/store_impl.h"

int damage_remedy(int rc, const char *data, struct err_ctx *err)
{
    char note[4200], last[1024] = "", what[sizeof err->text];
    snprintf(note, sizeof note, "%s/" BACKUP_LAST, data);
    FILE *f = rc == ERR_CORRUPT ? fopen(note, "re") : NULL;
    if (rc != ERR_CORRUPT)
        return rc;
    if (f && fgets(last, sizeof last, f))
        last[strcspn(last, "\n")] = 0;
    if (f)
        fclose(f);
    if (!last[0] || access(last, F_OK) < 0)
        strcpy(last, "BACKUP");
    snprintf(what, sizeof what, "%s", err ? err->text : "");
    return err_set(err, ERR_CORRUPT,
                   "%s; move %s/store away and `chatd-server restore --from %s --data %s`, or "
                   "`chatd-server repair --data %s` for what can be read of it",
                   what, data, last, data, data);
}

static int copy_one(int from, int to, const char *name, struct err_ctx *err)
{
    struct stat st;
    int in = openat(from, name, O_RDONLY | O_CLOEXEC), rc = 0;
    int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (in < 0 || out < 0 || fstat(in, &st) < 0)
        rc = err_errno(err, "%s", name);
    for (off_t left = rc ? 0 : st.st_size; left > 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = err_errno(err, "%s: copy", name);
            break;
        }
        left -= n;
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return rc;
}

/* A copy is repaired, never the store itself: repairing throws away what it does not understand. */
static int copy_store(const char *from, const char *to, struct err_ctx *err)
{
    struct dirent *e;
    DIR *d = opendir(from);
    if (!d)
        return err_errno(err, "%s", from);
    int rc = mkdir(to, 0700) < 0 ? err_errno(err, "%s", to) : 0;
    int dir = rc ? -1 : open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (!rc && (e = readdir(d)))
        if (backup_is_store_file(e->d_name))
            rc = copy_one(dirfd(d), dir, e->d_name, err);
    closedir(d);
    if (dir >= 0)
        close(dir);
    return rc;
}

static void say_json(const struct repair_result *r, const char *to)
{
    printf("{\"repaired\":\"%s\",\"entries\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"log_made_anew\":%s,"
           "\"ranges\":[",
           to, r->entries, r->lost, r->log_rebuilt ? "true" : "false");
    for (size_t i = 0; i < r->ranges_n; i++)
        printf("%s[\"%" PRIu64 "\",%" PRIu64 ",%" PRIu64 "]", i ? "," : "", r->ranges[i].chat,
               r->ranges[i].from, r->ranges[i].to);
    puts("]}");
}

static void say(const struct repair_result *r, const char *to, const char *data, const struct mark *mark)
{
    printf("%s: %" PRIu64 " entries could be read, %" PRIu64 " are known to be lost\n", to, r->entries,
           r->lost);
    for (size_t i = 0; i < r->ranges_n; i++)
        printf("lost: chat %" PRIu64 " seq %" PRIu64 " to %" PRIu64 "\n", r->ranges[i].chat,
               r->ranges[i].from, r->ranges[i].to);
    if (r->ranges_more)
        printf("... and %" PRIu64 " more ranges\n", r->ranges_more);
    if (mark->commit > r->entries + r->lost)
        printf("lost at the ends of chats, seqs unknown: %" PRIu64 " entries at most\n",
               mark->commit - r->entries - r->lost);
    if (!r->members)
        puts("lost: who is a member of which chat");
    printf("next: move %s/store away, then `chatd-server restore --from %s --data %s`; clients and "
           "chat-reconcile may bring entries back\n",
           data, to, data);
}

int command_repair(const struct opt_set *o, struct err_ctx *err)
{
    char dir[4096], to[4200];
    const char *data = opt_string(o, "data");
    struct repair_result r = {0};
    struct mark mark = {0};
    snprintf(dir, sizeof dir, "%s/store", data);
    snprintf(to, sizeof to, "%s", opt_string(o, "to") ? opt_string(o, "to") : "");
    if (!to[0])
        snprintf(to, sizeof to, "%s.repaired", dir);
    if (access(to, F_OK) == 0)
        return err_set(err, ERR_EXISTS, "%s: exists already", to);
    if (access(dir, F_OK) < 0)
        return err_errno(err, "%s", dir);
    int lock = lock_take(dir, err);
    if (lock < 0)
        return lock;
    int rc = copy_store(dir, to, err);
    rc = rc ? rc : kv_rocksdb_repair(to, err);
    rc = rc ? rc : store_repair(&r, to, err);
    close(lock);
    if (rc) {
        backup_remove(to, NULL);
    } else if (opt_json(o)) {
        say_json(&r, to);
    } else {
        mark_read(&mark, opt_string(o, "keys"), NULL);
        say(&r, to, data, &mark);
    }
    free(r.ranges);
    return rc;
}

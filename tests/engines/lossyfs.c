/* lossyfs BACKING MOUNTPOINT [--torn SEED]: a filesystem that forgets, at a power cut, what was not synced.
 *
 * MOUNTPOINT shows the live state, kept in a scratch folder beside BACKING; BACKING holds at every moment
 * exactly what a power cut now would leave. The cut comes with SIGUSR1, or when anything is written to
 * MOUNTPOINT/.lossyfs-cut (durable state is final when that write returns): every later operation answers EIO
 * until unmount. Runs in the foreground, one thread; BACKING may be mounted again after unmount.
 *
 * The model, stricter than ext4 and no stricter than POSIX with ext4's promise for new files:
 *  - data and size of a file become durable by fsync or fdatasync of that file, by nothing else (no timer, no
 *    sync_file_range, no O_SYNC, no flush on rename over another file);
 *  - fsync of a folder makes its entries durable as they are now: files created, removed, renamed in it. A
 * file that was never synced is then an empty one. A name that moved between folders is in both, or in none,
 * until both are synced; a folder that moved goes with the first of the two;
 *  - fsync of a file with no durable name makes the name it was opened by durable, with the folders above it.
 * It does not make a rename durable, nor any other file's name (ext4 commits those along: who relies on it
 * fails here);
 *  - what is not synced never becomes durable by itself. With --torn, each file that has a durable name keeps
 * a random prefix of its unsynced bytes at the cut (the tail that was being written; never holes or blocks
 * out of order);
 *  - permissions go with the data, times are not kept. No symlinks, no special files, no extended attributes.
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <fuse.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "util/err.h"
#include "util/map.h"
#include "util/rng.h"

#define PATH_BYTES 4096
#define HIDDEN     ".lossyfs" /* in BACKING: the durable inodes, whatever names they have */
#define CUT_FILE   "/.lossyfs-cut"

/* A file or folder of the live tree. The descriptor pins the inode, so that its number names it. */
struct node {
    uint64_t ino, id; /* id: of the durable inode, 0: none yet */
    int fd;
    unsigned opens;
    bool is_dir, dirty;
    off_t lo, hi;             /* unsynced bytes [lo, hi) */
    char durable[PATH_BYTES]; /* folders: where it is in BACKING ("" is the root); "?" nowhere */
};

static char live[PATH_BYTES / 4], backing[PATH_BYTES / 4];
static struct map nodes; /* ino -> struct node * */
static uint64_t next_id = 1, torn_seed;
static bool torn, cut_done;
static volatile sig_atomic_t cut;

static void join(char out[PATH_BYTES], const char *root, const char *path)
{
    BUG_ON(snprintf(out, PATH_BYTES, "%s%s%s", root, *path && *path != '/' ? "/" : "", path) >= PATH_BYTES);
}

static void hidden_path(char out[PATH_BYTES], uint64_t id)
{
    BUG_ON(snprintf(out, PATH_BYTES, "%s/" HIDDEN "/%llu", backing, (unsigned long long)id) >= PATH_BYTES);
}

/* --- nodes --- */

/* The node of a live path; NULL with errno. */
static struct node *node_at(const char *live_path)
{
    struct stat st;
    if (lstat(live_path, &st) < 0)
        return NULL;
    struct node *n = map_get_ptr(&nodes, st.st_ino);
    if (n)
        return n;
    bool dir = S_ISDIR(st.st_mode);
    int fd = open(live_path, (dir ? O_RDONLY | O_DIRECTORY : O_RDWR) | O_CLOEXEC);
    n = fd < 0 ? NULL : calloc(1, sizeof *n);
    void *slot = n ? map_put_u64(&nodes, st.st_ino, NULL) : NULL;
    BUG_ON(fd >= 0 && !slot);
    if (!n)
        return NULL;
    memcpy(slot, &n, sizeof n);
    n->ino = st.st_ino;
    n->fd = fd;
    n->is_dir = dir;
    n->dirty = true; /* a new file's permissions and emptiness are not durable yet */
    strcpy(n->durable, "?");
    return n;
}

static nlink_t links_of_durable(const struct node *n)
{
    char path[PATH_BYTES];
    struct stat st;
    hidden_path(path, n->id);
    return n->id && lstat(path, &st) == 0 ? st.st_nlink : 0;
}

/* Forget it when neither world can reach it any more. */
static bool drop_if_dead(struct node *n)
{
    struct stat st;
    char path[PATH_BYTES];
    if (n->opens || fstat(n->fd, &st) < 0 || st.st_nlink > 0)
        return false;
    if (n->is_dir ? strcmp(n->durable, "?") != 0 : links_of_durable(n) > 1)
        return false;
    if (n->id) {
        hidden_path(path, n->id);
        unlink(path);
    }
    close(n->fd);
    map_del_u64(&nodes, n->ino);
    free(n);
    return true;
}

static void drop_dead(void)
{
    bool again = true;
    while (again) {
        size_t at = 0;
        const void *key;
        void *val;
        again = false;
        while (!again && map_next(&nodes, &at, &key, &val))
            again = drop_if_dead(*(struct node **)val);
    }
}

/* --- making things durable --- */

static int copy_range(int to, int from, off_t lo, off_t hi)
{
    static char block[256 << 10];
    while (lo < hi) {
        size_t want = hi - lo < (off_t)sizeof block ? (size_t)(hi - lo) : sizeof block;
        ssize_t n = pread(from, block, want, lo);
        if (n <= 0)
            return n < 0 ? -errno : 0;
        if (pwrite(to, block, (size_t)n, lo) != n)
            return -EIO;
        lo += n;
    }
    return 0;
}

/* The durable inode of a file, empty when it is new. */
static int open_durable(struct node *n)
{
    char path[PATH_BYTES];
    if (!n->id)
        n->id = next_id++;
    hidden_path(path, n->id);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static int sync_data(struct node *n)
{
    struct stat st;
    if (!n->dirty && n->id)
        return 0;
    int fd = open_durable(n), rc = 0;
    if (fd < 0)
        return -errno;
    if (fstat(n->fd, &st) < 0 || ftruncate(fd, st.st_size) < 0 || fchmod(fd, st.st_mode & 07777) < 0)
        rc = -errno;
    if (rc == 0)
        rc = copy_range(fd, n->fd, n->lo, n->hi < st.st_size ? n->hi : st.st_size);
    close(fd);
    if (rc == 0) {
        n->dirty = false;
        n->lo = n->hi = 0;
    }
    return rc;
}

static void dirtied(struct node *n, off_t lo, off_t hi)
{
    if (n->lo == n->hi) {
        n->lo = lo;
        n->hi = hi;
    } else {
        n->lo = lo < n->lo ? lo : n->lo;
        n->hi = hi > n->hi ? hi : n->hi;
    }
    n->dirty = true;
}

static bool same_durable(const struct node *n, const char *path)
{
    char hidden[PATH_BYTES];
    struct stat a, b;
    hidden_path(hidden, n->id);
    return n->id && lstat(hidden, &a) == 0 && lstat(path, &b) == 0 && a.st_ino == b.st_ino;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void rm_tree(const char *path)
{
    nftw(path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void each_node(void (*fn)(struct node *n, void *arg), void *arg)
{
    size_t at = 0;
    const void *key;
    void *val;
    while (map_next(&nodes, &at, &key, &val))
        fn(*(struct node **)val, arg);
}

struct move {
    const char *from, *to; /* to NULL: gone */
};

static void move_durable(struct node *n, void *arg)
{
    const struct move *m = arg;
    size_t len = strlen(m->from);
    char tail[PATH_BYTES];
    if (!n->is_dir || strncmp(n->durable, m->from, len) != 0 || (n->durable[len] && n->durable[len] != '/'))
        return;
    strcpy(tail, n->durable + len);
    if (m->to)
        BUG_ON(snprintf(n->durable, PATH_BYTES, "%s%s", m->to, tail) >= PATH_BYTES);
    else
        strcpy(n->durable, "?");
}

/* A folder stands in BACKING at `rel` ("/a/b"), moved there from where it was. */
static int place_dir(struct node *n, const char *rel)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    if (strcmp(n->durable, rel) == 0)
        return 0;
    join(to, backing, rel);
    if (strcmp(n->durable, "?") == 0) {
        if (mkdir(to, 0700) < 0 && errno != EEXIST)
            return -errno;
        BUG_ON(snprintf(n->durable, PATH_BYTES, "%s", rel) >= PATH_BYTES);
        return 0;
    }
    join(from, backing, n->durable);
    if (rename(from, to) < 0)
        return -errno;
    char old[PATH_BYTES];
    strcpy(old, n->durable);
    struct move m = {old, rel};
    each_node(move_durable, &m);
    return 0;
}

static int place_file(struct node *n, const char *rel)
{
    char to[PATH_BYTES], hidden[PATH_BYTES];
    join(to, backing, rel);
    if (same_durable(n, to))
        return 0;
    if (!n->id) { /* named, but its data was never synced */
        int fd = open_durable(n);
        if (fd < 0)
            return -errno;
        close(fd);
    }
    hidden_path(hidden, n->id);
    unlink(to);
    return link(hidden, to) < 0 ? -errno : 0;
}

/* The folders above a path and, if `self`, itself. path: "/a/b" in the live tree. */
static int place_parents(const char *path, bool self)
{
    char part[PATH_BYTES], full[PATH_BYTES];
    for (const char *p = path + 1; *p; p++) {
        const char *end = strchr(p, '/');
        if (!end && !self)
            return 0;
        if (!end)
            end = p + strlen(p);
        snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
        join(full, live, part);
        struct node *n = node_at(full);
        int rc = n ? place_dir(n, part) : -errno;
        if (rc)
            return rc;
        if (!*end)
            return 0;
        p = end;
    }
    return 0;
}

/* Take out of BACKING what the live folder does not have under this name. */
static void take_out(const char *rel, const char *name)
{
    char l[PATH_BYTES], b[PATH_BYTES], at[PATH_BYTES];
    struct stat st;
    BUG_ON(snprintf(at, sizeof at, "%s/%s", strcmp(rel, "/") == 0 ? "" : rel, name) >= PATH_BYTES);
    join(l, live, at);
    join(b, backing, at);
    struct node *n = node_at(l);
    if (lstat(b, &st) < 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        if (!n || n->is_dir || !same_durable(n, b))
            unlink(b);
        return;
    }
    if (n && n->is_dir && strcmp(n->durable, at) == 0)
        return;
    struct move gone = {at, NULL};
    each_node(move_durable, &gone);
    rm_tree(b);
}

static int each_entry(const char *dir, int (*fn)(const char *rel, const char *name), const char *rel)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int rc = 0;
    if (!d)
        return -errno;
    while (rc == 0 && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, HIDDEN) != 0)
            rc = fn(rel, e->d_name);
    closedir(d);
    return rc;
}

static int out_entry(const char *rel, const char *name)
{
    take_out(rel, name);
    return 0;
}

static int in_entry(const char *rel, const char *name)
{
    char l[PATH_BYTES], at[PATH_BYTES];
    BUG_ON(snprintf(at, sizeof at, "%s/%s", strcmp(rel, "/") == 0 ? "" : rel, name) >= PATH_BYTES);
    join(l, live, at);
    struct node *n = node_at(l);
    return !n ? -errno : n->is_dir ? place_dir(n, at) : place_file(n, at);
}

/* Folders that moved come in first, or taking out would remove them from where they were. */
static int in_dir_entry(const char *rel, const char *name)
{
    char l[PATH_BYTES];
    struct stat st;
    BUG_ON(snprintf(l, sizeof l, "%s%s/%s", live, strcmp(rel, "/") == 0 ? "" : rel, name) >= PATH_BYTES);
    return lstat(l, &st) == 0 && S_ISDIR(st.st_mode) ? in_entry(rel, name) : 0;
}

static int sync_dir(const char *path)
{
    char l[PATH_BYTES], b[PATH_BYTES];
    int rc = place_parents(path, true);
    join(l, live, path);
    join(b, backing, path);
    if (rc == 0)
        rc = each_entry(l, in_dir_entry, path);
    if (rc == 0)
        rc = each_entry(b, out_entry, path);
    if (rc == 0)
        rc = each_entry(l, in_entry, path);
    drop_dead();
    return rc;
}

/* --- the cut --- */

static void tear(struct node *n, void *arg)
{
    struct rng r;
    struct stat st, d;
    (void)arg;
    if (n->is_dir || !n->dirty || links_of_durable(n) < 2 || fstat(n->fd, &st) < 0)
        return;
    off_t hi = n->hi < st.st_size ? n->hi : st.st_size;
    rng_seed_stream(&r, torn_seed, n->id);
    int fd = open_durable(n);
    if (fd >= 0 && fstat(fd, &d) == 0 && n->lo <= d.st_size && n->lo < hi)
        copy_range(fd, n->fd, n->lo, n->lo + (off_t)rng_between(&r, 0, (uint64_t)(hi - n->lo)));
    if (fd >= 0)
        close(fd);
}

static void do_cut(void)
{
    if (!cut_done && torn)
        each_node(tear, NULL);
    cut_done = true;
}

static bool powerless(void)
{
    if (cut)
        do_cut();
    return cut;
}

static void on_cut(int sig)
{
    (void)sig;
    cut = 1;
}

/* --- operations: on the live tree --- */

#define BEGIN(path)                                                                                          \
    char l[PATH_BYTES];                                                                                      \
    if (powerless())                                                                                         \
        return -EIO;                                                                                         \
    if (!(path))                                                                                             \
        return -ENOENT;                                                                                      \
    join(l, live, path)

static int done(int rc)
{
    return rc < 0 ? -errno : 0;
}

static struct node *node_of(struct fuse_file_info *fi)
{
    return (struct node *)(uintptr_t)fi->fh;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    if (powerless())
        return -EIO;
    if (fi && fi->fh)
        return done(fstat(node_of(fi)->fd, st));
    if (strcmp(path, CUT_FILE) == 0) {
        *st = (struct stat){.st_mode = S_IFREG | 0200, .st_nlink = 1};
        return 0;
    }
    BEGIN(path);
    return done(lstat(l, st));
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    BEGIN(path);
    (void)off;
    (void)fi;
    (void)flags;
    DIR *d = opendir(l);
    struct dirent *e;
    if (!d)
        return -errno;
    while ((e = readdir(d)))
        fill(buf, e->d_name, NULL, 0, 0);
    closedir(d);
    return 0;
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
    BEGIN(path);
    fi->direct_io = 1; /* nothing may be answered from the kernel's cache after the cut */
    if (strcmp(path, CUT_FILE) == 0)
        return 0;
    struct node *n = node_at(l);
    if (!n)
        return -errno;
    n->opens++;
    fi->fh = (uintptr_t)n;
    return 0;
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    BEGIN(path);
    int fd = open(l, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    close(fd);
    return op_open(path, fi);
}

static int op_release(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    struct node *n = node_of(fi);
    if (n) {
        n->opens--;
        drop_if_dead(n);
    }
    return 0;
}

static int op_read(const char *path, char *buf, size_t n, off_t off, struct fuse_file_info *fi)
{
    (void)path;
    if (powerless() || !fi->fh)
        return -EIO;
    ssize_t got = pread(node_of(fi)->fd, buf, n, off);
    return got < 0 ? -errno : (int)got;
}

static int op_write(const char *path, const char *buf, size_t n, off_t off, struct fuse_file_info *fi)
{
    (void)path;
    if (powerless())
        return -EIO;
    if (!fi->fh) {
        cut = 1;
        do_cut();
        return (int)n;
    }
    ssize_t put = pwrite(node_of(fi)->fd, buf, n, off);
    if (put < 0)
        return -errno;
    dirtied(node_of(fi), off, off + put);
    return (int)put;
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    struct stat st;
    if (powerless())
        return -EIO;
    if (path && strcmp(path, CUT_FILE) == 0)
        return 0;
    struct node *n = fi ? node_of(fi) : NULL;
    if (!n) {
        BEGIN(path);
        n = node_at(l);
    }
    if (!n || fstat(n->fd, &st) < 0 || ftruncate(n->fd, size) < 0)
        return -errno;
    /* bytes behind the new end are zero when the file grows again, whatever was durable there */
    if (size < st.st_size)
        dirtied(n, size, st.st_size);
    else
        dirtied(n, st.st_size, size);
    return 0;
}

static int op_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    (void)path;
    if (powerless())
        return -EIO;
    if (mode & ~FALLOC_FL_KEEP_SIZE)
        return -EOPNOTSUPP;
    if (fallocate(node_of(fi)->fd, mode, off, len) < 0)
        return -errno;
    if (!(mode & FALLOC_FL_KEEP_SIZE))
        node_of(fi)->dirty = true;
    return 0;
}

static int op_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    if (powerless())
        return -EIO;
    struct node *n = node_of(fi);
    int rc = n ? sync_data(n) : 0;
    if (rc || !n || !path || links_of_durable(n) > 1)
        return rc;
    BEGIN(path);
    struct stat st;
    if (lstat(l, &st) < 0 || st.st_ino != n->ino)
        return 0; /* unlinked meanwhile */
    rc = place_parents(path, false);
    return rc ? rc : place_file(n, path);
}

static int op_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    (void)fi;
    return powerless() ? -EIO : sync_dir(path);
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
    BEGIN(from);
    char t[PATH_BYTES];
    join(t, live, to);
    struct node *over = node_at(t); /* pinned, or its number might come back */
    int rc = done(renameat2(AT_FDCWD, l, AT_FDCWD, t, flags));
    if (over)
        drop_if_dead(over);
    return rc;
}

static int op_link(const char *from, const char *to)
{
    BEGIN(from);
    char t[PATH_BYTES];
    join(t, live, to);
    return done(link(l, t));
}

static int op_unlink(const char *path)
{
    BEGIN(path);
    struct node *n = node_at(l);
    int rc = done(unlink(l));
    if (n)
        drop_if_dead(n);
    return rc;
}

static int op_mkdir(const char *path, mode_t mode)
{
    BEGIN(path);
    return done(mkdir(l, mode));
}

static int op_rmdir(const char *path)
{
    BEGIN(path);
    struct node *n = node_at(l);
    int rc = done(rmdir(l));
    if (n)
        drop_if_dead(n);
    return rc;
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    (void)fi;
    BEGIN(path);
    struct node *n = node_at(l);
    if (n)
        n->dirty = true;
    return done(chmod(l, mode));
}

static int op_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    (void)fi;
    BEGIN(path);
    return done(lchown(l, uid, gid));
}

static int op_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
    (void)fi;
    BEGIN(path);
    return done(utimensat(AT_FDCWD, l, tv, AT_SYMLINK_NOFOLLOW));
}

static int op_statfs(const char *path, struct statvfs *v)
{
    BEGIN(path);
    return done(statvfs(l, v));
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    (void)conn;
    cfg->hard_remove = 1;
    cfg->nullpath_ok = 0; /* fsync wants the name; NULL is only what has none any more */
    cfg->attr_timeout = cfg->entry_timeout = 0;
    return NULL;
}

static const struct fuse_operations ops = {
    .init = op_init,
    .getattr = op_getattr,
    .readdir = op_readdir,
    .open = op_open,
    .create = op_create,
    .release = op_release,
    .read = op_read,
    .write = op_write,
    .truncate = op_truncate,
    .fallocate = op_fallocate,
    .fsync = op_fsync,
    .fsyncdir = op_fsyncdir,
    .rename = op_rename,
    .link = op_link,
    .unlink = op_unlink,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .chmod = op_chmod,
    .chown = op_chown,
    .utimens = op_utimens,
    .statfs = op_statfs,
};

/* --- start and end --- */

/* Each entry of BACKING appears in the live tree, and is durable. */
static int take_in(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    char l[PATH_BYTES], hidden[PATH_BYTES];
    const char *rel = path + strlen(backing);
    (void)ftw;
    if (strncmp(rel, "/" HIDDEN, sizeof HIDDEN) == 0)
        return 0;
    join(l, live, rel);
    if (flag == FTW_D) {
        if (*rel && mkdir(l, st->st_mode & 07777) < 0)
            return -1;
        struct node *n = node_at(l);
        if (n)
            strcpy(n->durable, rel);
        return n ? 0 : -1;
    }
    if (!S_ISREG(st->st_mode))
        return 0;
    int to = open(l, O_CREAT | O_EXCL | O_RDWR, st->st_mode & 07777), from = open(path, O_RDONLY);
    int rc = to < 0 || from < 0 ? -1 : copy_range(to, from, 0, st->st_size);
    if (to >= 0)
        close(to);
    if (from >= 0)
        close(from);
    struct node *n = rc ? NULL : node_at(l);
    if (!n)
        return -1;
    n->dirty = false;
    n->id = next_id++;
    hidden_path(hidden, n->id);
    return link(path, hidden);
}

static int start(void)
{
    char hidden[PATH_BYTES];
    struct rlimit r;
    struct sigaction sa = {.sa_handler = on_cut, .sa_flags = SA_RESTART};
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    map_init(&nodes, 8, 8, 1 << 20, 1);
    join(hidden, backing, HIDDEN);
    rm_tree(hidden);
    umask(0);
    if (mkdir(hidden, 0700) < 0 || !mkdtemp(live) || sigaction(SIGUSR1, &sa, NULL) < 0)
        return -1;
    return nftw(backing, take_in, 16, FTW_PHYS);
}

int main(int argc, char **argv)
{
    char hidden[PATH_BYTES];
    if (argc != 3 && !(argc == 5 && strcmp(argv[3], "--torn") == 0)) {
        fprintf(stderr, "usage: lossyfs BACKING MOUNTPOINT [--torn SEED]\n");
        return 64;
    }
    char *real = realpath(argv[1], NULL);
    if (!real || strlen(real) + 32 > sizeof backing) {
        fprintf(stderr, "lossyfs: %s: %s\n", argv[1], real ? "path too long" : strerror(errno));
        return 66;
    }
    strcpy(backing, real);
    free(real);
    snprintf(live, sizeof live, "%.900s.live-XXXXXX", backing);
    torn = argc == 5;
    torn_seed = torn ? strtoull(argv[4], NULL, 10) : 0;
    if (start() != 0) {
        fprintf(stderr, "lossyfs: %s: %s\n", backing, strerror(errno));
        return 74;
    }
    char *args[] = {"lossyfs", argv[2], "-f", "-s", "-o", "fsname=lossyfs", NULL};
    int rc = fuse_main(6, args, &ops, NULL);
    /* an unmount is no sync: what was not synced is gone here too, only --torn needs a cut */
    if (cut)
        do_cut();
    join(hidden, backing, HIDDEN);
    rm_tree(hidden);
    rm_tree(live);
    return rc;
}

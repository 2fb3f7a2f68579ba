/* Finding keepers, asking them, and clearing what dead ones left. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"

#define PATIENCE_S 30 /* taking down many links takes its time */

int control_folder(char out[1024], struct err_ctx *err)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    if (snprintf(out, 1024, "%s/chat-netem", base && *base ? base : "/run") >= 1024)
        return err_set(err, ERR_RANGE, "XDG_RUNTIME_DIR is too long");
    if (mkdir(out, 0700) && errno != EEXIST)
        return err_errno(err, "%s", out);
    if (lstat(out, &st))
        return err_errno(err, "%s", out);
    if (S_ISDIR(st.st_mode) && st.st_uid == 0 && geteuid() != 0)
        return err_set(err, ERR_PERM, "links are root's, and so is %s", out);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
        return err_set(err, ERR_PERM, "%s: must be a folder of this user alone (mode 0700)", out);
    return 0;
}

/* -1 with errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {PATIENCE_S, 0};
    if (strlen(path) >= sizeof a.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a)) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static int send_request(int fd, const json_t *request, struct err_ctx *err)
{
    char *text = json_dumps(request, JSON_COMPACT);
    if (!text)
        return err_set(err, ERR_NOMEM, "out of memory");
    size_t n = strlen(text);
    text[n] = '\n'; /* where the end was; the length is known */
    ssize_t sent = send(fd, text, n + 1, MSG_NOSIGNAL);
    free(text);
    return sent == (ssize_t)n + 1 ? 0 : err_set(err, ERR_IO, "the keeper does not listen");
}

/* An answer: until the end of file, or, with `passed`, one line that a descriptor may come with. */
static int read_answer(int fd, json_t **answer, int *passed, struct err_ctx *err)
{
    struct buf in = BUF_INIT(LINKS_ANSWER_MAX);
    json_error_t where;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    for (;;) {
        char *at = buf_reserve(&in, 4096);
        struct iovec v = {at, 4096};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room};
        m.msg_controllen = sizeof control;
        ssize_t n = at ? recvmsg(fd, &m, MSG_CMSG_CLOEXEC) : -1;
        struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
        if (passed && c && c->cmsg_type == SCM_RIGHTS)
            memcpy(passed, CMSG_DATA(c), sizeof *passed);
        if (n <= 0)
            break;
        in.len += (size_t)n;
        if (passed && *passed >= 0 && memchr(in.data, '\n', in.len))
            break;
    }
    *answer = json_loadb(in.data ? in.data : "", in.len, 0, &where);
    buf_release(&in);
    if (!*answer)
        return err_set(err, ERR_IO, "the keeper died before it answered");
    int code = (int)json_integer_value(json_object_get(*answer, "error"));
    if (!code)
        return 0;
    const char *text = json_string_value(json_object_get(*answer, "text"));
    err_set(err, code < 0 ? code : ERR_IO, "%s", text ? text : "refused");
    json_decref(*answer);
    *answer = NULL;
    return code < 0 ? code : ERR_IO;
}

/* What a keeper that is no more left behind. */
static void bury(const char *folder, const char *pid)
{
    char path[1300];
    json_error_t where;
    snprintf(path, sizeof path, "%s/%s.json", folder, pid);
    json_t *o = json_load_file(path, 0, &where);
    const char *file = json_string_value(json_object_get(o, "file"));
    size_t i;
    json_t *name;
    fprintf(stderr, "chat-netem: the links of %s died with their keeper %s:", file ? file : "?", pid);
    json_array_foreach(json_object_get(o, "links"), i, name) fprintf(stderr, " %s", json_string_value(name));
    fputc('\n', stderr);
    json_decref(o);
    unlink(path);
    snprintf(path, sizeof path, "%s/%s.sock", folder, pid);
    unlink(path);
}

/* The keepers' process ids as text, by what lies in the folder. -1: no memory or no folder. */
static int list_keepers(const char *folder, char ids[][16], int max)
{
    DIR *d = opendir(folder);
    int n = 0;
    if (!d)
        return -1;
    for (struct dirent *e; n < max && (e = readdir(d));) {
        char id[16];
        int end = 0;
        if (sscanf(e->d_name, "%15[0-9].%n", id, &end) != 1 || !end)
            continue;
        bool known = strcmp(e->d_name + end, "sock") && strcmp(e->d_name + end, "json");
        for (int i = 0; i < n; i++)
            known = known || strcmp(ids[i], id) == 0;
        if (!known)
            strcpy(ids[n++], id);
    }
    closedir(d);
    return n;
}

int control_ask(json_t *request, control_each *each, void *arg, unsigned *dead, struct err_ctx *err)
{
    char folder[1024], path[1300], ids[256][16];
    int rc = control_folder(folder, err), n = rc ? 0 : list_keepers(folder, ids, 256);
    if (n < 0)
        return err_errno(err, "%s", folder);
    for (int i = 0; !rc && i < n; i++) {
        json_t *answer = NULL;
        snprintf(path, sizeof path, "%s/%s.sock", folder, ids[i]);
        int fd = connect_to(path);
        if (fd < 0 && (errno == ECONNREFUSED || errno == ENOENT)) {
            bury(folder, ids[i]);
            if (dead)
                ++*dead;
            continue;
        }
        rc = fd < 0 ? err_errno(err, "%s", path) : send_request(fd, request, err);
        rc = rc ? rc : read_answer(fd, &answer, NULL, err);
        rc = rc == ERR_NOTFOUND ? 0 : rc; /* not this one's link */
        if (!rc && answer)
            rc = each(arg, fd, answer, err);
        json_decref(answer);
        if (fd >= 0)
            close(fd);
    }
    return rc;
}

struct search {
    const char *link;
    int keeper;
};

static int look_for(void *arg, int fd, const json_t *answer, struct err_ctx *err)
{
    struct search *s = arg;
    size_t i;
    json_t *o;
    (void)fd;
    (void)err;
    json_array_foreach(json_object_get(answer, "links"), i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));
        if (name && strcmp(name, s->link) == 0)
            s->keeper = (int)json_integer_value(json_object_get(o, "keeper"));
    }
    return 0;
}

int control_ask_link(const char *link, json_t *request, json_t **answer, int *fd, int *passed,
                     struct err_ctx *err)
{
    struct search s = {.link = link};
    char folder[1024], path[1300];
    json_t *status = json_pack("{s:s}", "do", "status");
    int rc = control_ask(status, look_for, &s, NULL, err), s_fd;
    json_decref(status);
    rc = rc ? rc : control_folder(folder, err);
    if (rc)
        return rc;
    if (!s.keeper)
        return err_set(err, ERR_NOTFOUND, "no link '%s' is up", link);
    snprintf(path, sizeof path, "%s/%d.sock", folder, s.keeper);
    s_fd = connect_to(path);
    if (s_fd < 0)
        return err_errno(err, "%s", path);
    rc = send_request(s_fd, request, err);
    rc = rc ? rc : read_answer(s_fd, answer, passed, err);
    if (!rc && fd)
        *fd = s_fd;
    else
        close(s_fd);
    return rc;
}

/* The control socket. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "netem/proxy/driver_impl.h"
#include "util/clock.h"
#include "util/units.h"

/* --- life --------------------------------------------------------------------------------------------- */

int proxy_control_path(char out[PROXY_PATH_MAX], const char *name, struct err_ctx *ctx)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const char *base = getenv("XDG_RUNTIME_DIR"), *slash = name ? strchr(name, '/') : NULL;
    struct stat st;
    int n;
    if (!slash && name && (!*name || *name == '.' || name[strspn(name, fine)]))
        return err_set(ctx, ERR_USAGE, "'%.60s' is no name: letters, digits, '-', '_', '.' are", name);
    if (slash)
        n = snprintf(out, PROXY_PATH_MAX, "%s", name);
    else
        n = snprintf(out, PROXY_PATH_MAX, "%s/chat-netem", base && *base ? base : "/run");
    if (n >= PROXY_PATH_MAX)
        return err_set(ctx, ERR_RANGE, "'%.60s...' is too long for a socket", slash ? name : base);
    if (slash)
        return 0;
    if (mkdir(out, 0700) && errno != EEXIST)
        return err_errno(ctx, "%s", out);
    if (lstat(out, &st))
        return err_errno(ctx, "%s", out);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
        return err_set(ctx, ERR_PERM, "%s: must be a folder of this user alone (mode 0700)", out);
    if (name && snprintf(out + n, (size_t)(PROXY_PATH_MAX - n), "/%s.proxy", name) >= PROXY_PATH_MAX - n)
        return err_set(ctx, ERR_RANGE, "'%.60s...' is too long for a name", name);
    return 0;
}

/* Locks the folder, so that of two that start at once one sees the other's socket. -1 with errno. */
static int lock_folder(const char *path)
{
    char folder[sizeof((struct proxy *)0)->control_path];
    strcpy(folder, path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        flock(fd, LOCK_EX);
    return fd;
}

/* Is it ours to bind? A socket that nobody answers was left by a proxy that was killed. */
static int clear_stale(const struct sockaddr_un *a, struct err_ctx *ctx)
{
    struct stat st;
    if (lstat(a->sun_path, &st))
        return errno == ENOENT ? 0 : err_errno(ctx, "%s", a->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(ctx, ERR_EXISTS, "%s is there already, and no socket", a->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = connect(fd, (const struct sockaddr *)a, sizeof *a), e = errno;
    close(fd);
    if (rc == 0 || e != ECONNREFUSED)
        return err_set(ctx, ERR_EXISTS, "%s: another proxy has this name", a->sun_path);
    return unlink(a->sun_path) ? err_errno(ctx, "%s", a->sun_path) : 0;
}

int control_open(struct proxy *p, struct err_ctx *ctx)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(p->config.control) >= sizeof a.sun_path)
        return err_set(ctx, ERR_RANGE, "--control %s: more than %zu characters", p->config.control,
                       sizeof a.sun_path - 1);
    strcpy(a.sun_path, p->config.control);
    int folder = lock_folder(a.sun_path);
    if (folder < 0)
        return err_errno(ctx, "the folder of %s", a.sun_path);
    int rc = clear_stale(&a, ctx);
    mode_t old = umask(0177);
    p->control = (struct endpoint){.kind = ON_CONTROL, .fd = -1};
    if (!rc)
        p->control.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!rc && (p->control.fd < 0 || bind(p->control.fd, (struct sockaddr *)&a, sizeof a)))
        rc = err_errno(ctx, "%s", a.sun_path);
    else if (!rc)
        strcpy(p->control_path, a.sun_path);
    umask(old);
    if (!rc && (listen(p->control.fd, CONTROLS_MAX) || !watch(p, &p->control, EPOLLIN)))
        rc = err_errno(ctx, "%s", a.sun_path);
    close(folder);
    return rc;
}

static void drop(struct control_client *c)
{
    if (c->end.fd >= 0)
        close(c->end.fd);
    c->end.fd = -1;
    buf_release(&c->out);
}

void control_close(struct proxy *p)
{
    for (int i = 0; i < CONTROLS_MAX; i++)
        drop(&p->client[i]);
    if (p->control.fd >= 0)
        close(p->control.fd);
    if (p->control_path[0])
        unlink(p->control_path);
}

/* --- requests ----------------------------------------------------------------------------------------- */

/* Every connection sees the change now, not when its next byte comes. */
static void tell_all(struct proxy *p)
{
    uint64_t now = clock_mono_ns();
    struct conn *next;
    for (struct conn *c = p->conns; c; c = c->next)
        proxy_conn_tick(c->core, now); /* before anything else: what was removed is no more */
    for (struct conn *c = p->conns; c; c = next) {
        next = c->next;
        relay_run(p, c, now);
    }
}

static int set(struct proxy *p, const char *what, struct buf *out, struct err_ctx *ctx)
{
    uint64_t number;
    int rc;
    if (!strncmp(what, "add ", 4)) {
        rc = proxy_rules_add(&p->rules, what + 4, clock_mono_ns(), ctx);
        if (!rc)
            buf_printf(out, "{\"number\":%u}", p->rules.last_number);
    } else if (!strncmp(what, "remove ", 7)) {
        rc = units_u64(&number, what + 7, ctx);
        rc = rc ? rc : proxy_rules_remove(&p->rules, number > UINT32_MAX ? 0 : (uint32_t)number, ctx);
    } else if (!strcmp(what, "clear")) {
        rc = 0;
        for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
            if (p->rules.used >> i & 1)
                proxy_rules_remove(&p->rules, p->rules.toxic[i]->number, NULL);
        }
    } else {
        rc = err_set(ctx, ERR_USAGE, "'%.60s': 'add SPEC', 'remove NUMBER' or 'clear' is wanted", what);
    }
    if (!rc)
        tell_all(p);
    return rc;
}

static void answer(struct proxy *p, struct control_client *c)
{
    json_error_t where;
    struct err_ctx ctx = {0};
    json_t *o = json_loadb(c->in, c->n, 0, &where);
    const char *what = json_string_value(json_object_get(o, "do"));
    const char *arg = json_string_value(json_object_get(o, "what"));
    int rc = 0;
    if (what && !strcmp(what, "status"))
        proxy_status_json(p, &c->out);
    else if (what && !strcmp(what, "set") && arg)
        rc = set(p, arg, &c->out, &ctx);
    else if (what && !strcmp(what, "stop"))
        p->over = true;
    else
        rc = err_set(&ctx, ERR_INVALID, "no request: {\"do\":\"status\"|\"set\"|\"stop\"}");
    if (rc) {
        buf_printf(&c->out, "{\"error\":%d,\"text\":", rc);
        buf_json_str(&c->out, ctx.text, strlen(ctx.text));
        buf_char(&c->out, '}');
    } else if (!c->out.len) {
        buf_str(&c->out, "{}");
    }
    buf_char(&c->out, '\n');
    json_decref(o);
    c->answered = true;
}

static void send_answer(struct control_client *c)
{
    while (c->sent < c->out.len) {
        ssize_t n = send(c->end.fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return; /* an edge will come */
        if (n <= 0)
            break;
        c->sent += (size_t)n;
    }
    drop(c);
}

void control_accept(struct proxy *p)
{
    int fd = accept4(p->control.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct control_client *c = NULL;
    for (int i = 0; i < CONTROLS_MAX && !c; i++) {
        if (p->client[i].end.fd < 0)
            c = &p->client[i];
    }
    if (fd < 0)
        return;
    if (!c) { /* 16 talk already */
        close(fd);
        return;
    }
    c->n = c->sent = 0;
    c->answered = false;
    buf_init(&c->out, CONTROL_ANSWER);
    c->end = (struct endpoint){.kind = ON_CONTROL_CLIENT, .fd = fd};
    if (!watch(p, &c->end, EPOLLIN | EPOLLOUT | EPOLLET))
        drop(c);
}

void control_event(struct proxy *p, struct endpoint *e)
{
    struct control_client *c = (struct control_client *)e; /* `end` stands first in it */
    while (e->fd >= 0 && !c->answered) {
        ssize_t n = recv(e->fd, c->in + c->n, sizeof c->in - c->n, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->n += (size_t)n;
        if (memchr(c->in, '\n', c->n) || c->n == sizeof c->in)
            answer(p, c);
    }
    if (e->fd >= 0)
        send_answer(c);
}

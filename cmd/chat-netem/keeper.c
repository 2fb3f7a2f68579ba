/* The keeper: holds links until it is told to let go, or dies; they end with it either way. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/tool.h"
#include "util/clock.h"

struct kept_link *keeper_find(struct keeper *k, const char *name)
{
    for (uint32_t i = 0; i < k->n; i++)
        if (strcmp(k->link[i].spec.name, name) == 0)
            return &k->link[i];
    return NULL;
}

static int make_folders(const char *folder, const char *name, char out[1200], struct err_ctx *err)
{
    snprintf(out, 1200, "%s/%s", folder, name);
    return mkdir(folder, 0755) && errno != EEXIST ? err_errno(err, "%s", folder) : 0;
}

static int start_link(struct keeper *k, const struct link_spec *spec, struct err_ctx *err)
{
    struct links_file *f = k->file;
    struct kept_link *l = &k->link[k->n];
    struct tun_group g = {.first = spec->first, .count = spec->count};
    char capture[1200];
    struct tun_config c = {.groups = &g,
                           .groups_n = 1,
                           .seed = f->seed,
                           .trace_dir = *f->trace ? f->trace : NULL,
                           .beside = k->n ? k->link[0].world : NULL,
                           .block = spec->block,
                           .block_prefix = spec->prefix};
    snprintf(g.name, sizeof g.name, "%s", spec->name);
    int rc = netem_profile_parse(&g.profile, spec->profile, err);
    if (!rc && *f->capture) {
        rc = make_folders(f->capture, spec->name, capture, err);
        c.capture_dir = capture;
    }
    *l = (struct kept_link){.spec = *spec, .since_ns = clock_mono_ns()};
    rc = rc ? rc : tun_world_start(&l->world, &c, err);
    k->n += !rc;
    return rc ? err_prefix(err, "%s: ", spec->name) : 0;
}

static int start_links(struct keeper *k, struct err_ctx *err)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < k->file->n; i++)
        rc = start_link(k, &k->file->link[i], err);
    for (uint32_t i = 0; !rc && i < k->file->expose_n; i++)
        rc = tool_expose(k->link[0].world, k->file->expose[i], err);
    return rc;
}

/* Who keeps what, for those who find the socket dead. */
static int write_about(const struct keeper *k, struct err_ctx *err)
{
    json_t *names = json_array();
    for (uint32_t i = 0; i < k->file->n; i++)
        json_array_append_new(names, json_pack("s", k->file->link[i].name));
    json_t *o =
        json_pack("{s:I, s:s, s:o}", "pid", (json_int_t)getpid(), "file", k->file->path, "links", names);
    int rc = o && json_dump_file(o, k->about, JSON_COMPACT) == 0 ? 0 : err_errno(err, "%s", k->about);
    json_decref(o);
    return rc;
}

static int listen_here(struct keeper *k, const char *runtime, struct err_ctx *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(k->socket, sizeof k->socket, "%s/%d.sock", runtime, (int)getpid());
    snprintf(k->about, sizeof k->about, "%s/%d.json", runtime, (int)getpid());
    if (strlen(k->socket) >= sizeof a.sun_path)
        return err_set(err, ERR_RANGE, "%s: too long for a socket's path", k->socket);
    strcpy(a.sun_path, k->socket);
    unlink(k->socket);
    k->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->listener < 0 || bind(k->listener, (struct sockaddr *)&a, sizeof a) || chmod(k->socket, 0600) ||
        listen(k->listener, 64))
        return err_errno(err, "%s", k->socket);
    return write_about(k, err);
}

/* The link's process died: what it left is cleared, and the last counts stay to be seen. */
static void bury(struct kept_link *l)
{
    tun_world_stats(l->world, "*", &l->last);
    tun_world_stop(l->world);
    l->world = NULL;
}

static bool any_alive(const struct keeper *k)
{
    for (uint32_t i = 0; i < k->n; i++)
        if (k->link[i].world)
            return true;
    return false;
}

static void serve(struct keeper *k, int signal_fd)
{
    struct pollfd fds[LINKS_MAX + 2];
    while (!k->over) {
        fds[0] = (struct pollfd){k->listener, POLLIN, 0};
        fds[1] = (struct pollfd){signal_fd, POLLIN, 0};
        for (uint32_t i = 0; i < k->n; i++)
            fds[i + 2] = (struct pollfd){k->link[i].world ? tun_world_fd(k->link[i].world) : -1, POLLIN, 0};
        if (poll(fds, k->n + 2, -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents)
            return;
        for (uint32_t i = 0; i < k->n; i++)
            if (fds[i + 2].revents)
                bury(&k->link[i]);
        int fd = fds[0].revents ? accept4(k->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0) {
            keeper_answer(k, fd);
            close(fd);
        }
        k->over = k->over || !any_alive(k);
    }
}

static void stop(struct keeper *k, bool ordered)
{
    for (uint32_t i = 0; i < k->n; i++)
        tun_world_stop(k->link[i].world);
    if (k->listener >= 0)
        close(k->listener);
    if (*k->socket)
        unlink(k->socket);
    if (*k->about && ordered) /* else it tells the next one who looks that these links died */
        unlink(k->about);
}

static int watch_signals(void)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void detach_output(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

int keeper_run(struct links_file *f, const char *runtime, int ready_fd)
{
    static struct keeper k; /* one per process */
    struct keeper_ready ready = {0};
    struct err_ctx err = {0};
    k.file = f;
    k.listener = -1;
    prctl(PR_SET_NAME, "netem-keeper");
    int signal_fd = watch_signals();
    detach_output(); /* before anybody inherits it: whoever waits for its end would wait for the links' */
    ready.rc = start_links(&k, &err);
    ready.rc = ready.rc ? ready.rc : listen_here(&k, runtime, &err);
    snprintf(ready.text, sizeof ready.text, "%s", err.text);
    if (ready.rc) /* nothing is left when they hear of it */
        stop(&k, true);
    bool told = write(ready_fd, &ready, sizeof ready) == sizeof ready;
    if (ready.rc)
        return err_exit_status(ready.rc);
    close(ready_fd);
    if (told) /* whoever asked is gone otherwise, and nobody would know of these links */
        serve(&k, signal_fd);
    bool alive = any_alive(&k) || k.n == 0;
    stop(&k, alive);
    return alive ? 0 : 1;
}

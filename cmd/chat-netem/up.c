/* chat-netem up: starts a keeper for the links of a file and waits until they are there. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/tool.h"

/* No two links of this machine's user have one name. */
static int refuse_names(void *arg, int fd, const json_t *answer, struct err_ctx *err)
{
    const struct links_file *f = arg;
    size_t i;
    json_t *o;
    (void)fd;
    json_array_foreach(json_object_get(answer, "links"), i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));
        for (uint32_t k = 0; name && k < f->n; k++)
            if (strcmp(name, f->link[k].name) == 0)
                return err_set(err, ERR_EXISTS, "link '%s' is up already (by keeper %d, from %s)", name,
                               (int)json_integer_value(json_object_get(o, "keeper")),
                               json_string_value(json_object_get(o, "file")));
    }
    return 0;
}

/* Waits until the keeper says how it went. */
static int await_ready(int fd, struct err_ctx *err)
{
    struct keeper_ready ready;
    if (read(fd, &ready, sizeof ready) != sizeof ready)
        return err_set(err, ERR_IO, "the keeper died while it set up the links");
    return ready.rc ? err_set(err, ready.rc, "%s", ready.text) : 0;
}

/* The keeper is nobody's child: a second fork lets init have it. */
static int start_keeper(struct links_file *f, const char *runtime, int lock, struct err_ctx *err)
{
    int told[2];
    if (pipe2(told, O_CLOEXEC))
        return err_errno(err, "pipe");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        close(lock);
        close(told[0]); /* else the keeper would not see that nobody reads */
        if (fork() == 0)
            _exit(keeper_run(f, runtime, told[1]));
        _exit(0);
    }
    int rc = pid < 0 ? err_errno(err, "fork") : 0;
    close(told[1]);
    if (!rc)
        waitpid(pid, NULL, 0);
    rc = rc ? rc : await_ready(told[0], err);
    close(told[0]);
    return rc;
}

/* Folders of the command line are relative to where it was given. */
static int absolute(char out[1024], const char *folder, const char *cwd, struct err_ctx *err)
{
    const char *base = *folder == '/' ? "" : cwd, *slash = *base ? "/" : "";
    if (snprintf(out, 1024, "%s%s%s", base, slash, folder) >= 1024)
        return err_set(err, ERR_RANGE, "%.60s...: the path is too long", folder);
    return 0;
}

static int settle_options(struct links_file *f, const struct opt_set *o, const char *cwd, struct err_ctx *err)
{
    const char *trace = opt_string(o, "trace"), *capture = opt_string(o, "capture");
    char text[1024];
    if (opt_given(o, "seed") || !f->seeded)
        f->seed = opt_seed(o);
    strcpy(text, f->trace);
    int rc = trace || *text ? absolute(f->trace, trace ? trace : text, trace ? cwd : f->folder, err) : 0;
    strcpy(text, f->capture);
    if (!rc && (capture || *text))
        rc = absolute(f->capture, capture ? capture : text, capture ? cwd : f->folder, err);
    return rc;
}

static void say(const struct links_file *f, const struct opt_set *o)
{
    if (opt_json(o)) {
        json_t *names = json_array();
        for (uint32_t i = 0; i < f->n; i++)
            json_array_append_new(names, json_pack("s", f->link[i].name));
        json_t *out = json_pack("{s:o, s:I}", "up", names, "seed", (json_int_t)f->seed);
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(out);
        return;
    }
    if (opt_verbosity(o) < 0)
        return;
    for (uint32_t i = 0; i < f->n; i++)
        fprintf(stderr, "%s%s", i ? ", " : "chat-netem: up: ", f->link[i].name);
    fprintf(stderr, "; seed %" PRIu64 "\n", f->seed);
}

int tool_up(const struct opt_set *o, struct err_ctx *err)
{
    static struct links_file f;
    char runtime[1024], cwd[1024];
    json_t *ask = NULL;
    int lock = -1, rc;
    if (!getcwd(cwd, sizeof cwd))
        return err_errno(err, "the working directory");
    rc = links_load(&f, opt_operand(o, 0), err);
    rc = rc ? rc : settle_options(&f, o, cwd, err);
    if (!rc && geteuid() != 0)
        rc = err_set(err, ERR_PERM, "links need root");
    rc = rc ? rc : control_folder(runtime, err);
    if (rc)
        return rc;
    lock = open(runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX)) /* two of us would not see each other's names */
        return err_errno(err, "%s", runtime);
    ask = json_pack("{s:s}", "do", "status");
    rc = control_ask(ask, refuse_names, &f, NULL, err);
    json_decref(ask);
    rc = rc ? rc : start_keeper(&f, runtime, lock, err);
    close(lock);
    if (!rc)
        say(&f, o);
    return rc;
}

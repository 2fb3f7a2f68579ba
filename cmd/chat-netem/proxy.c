/* chat-netem proxy: a TCP relay that injects faults, also by WebSocket frame. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cmd/chat-netem/proxy.h"
#include "netem/proxy/proxy.h"

static int stop_fd(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void print_toxics(void)
{
    struct buf b = BUF_INIT(1u << 16);
    proxy_toxic_help(&b);
    fputs(buf_cstr(&b), stdout);
    buf_release(&b);
}

static void say_hello(const struct proxy *p, const struct proxy_config *c)
{
    struct buf lacks = BUF_INIT(1u << 16);
    fprintf(stderr, "chat-netem: proxy listening on %s (port %u), to %s, seed %" PRIu64 "\n", c->listen,
            (unsigned)proxy_port(p), c->to, c->seed);
    proxy_lacks(p, &lacks);
    fputs(buf_cstr(&lacks), stderr);
    buf_release(&lacks);
}

static int serve(const struct proxy_config *c, const struct opt_set *o, struct err_ctx *err)
{
    struct proxy *p;
    struct buf summary = BUF_INIT(1u << 20);
    int rc = proxy_open(&p, c, err);
    if (rc)
        return rc;
    if (opt_verbosity(o) >= 0)
        say_hello(p, c);
    prctl(PR_SET_TIMERSLACK, 1000ul); /* delays are exact to some microseconds */
    rc = proxy_run(p, err);
    if (opt_json(o))
        proxy_status_json(p, &summary);
    else
        proxy_status_text(p, &summary);
    if (opt_json(o))
        puts(buf_cstr(&summary));
    else if (opt_verbosity(o) >= 0)
        fputs(buf_cstr(&summary), stderr);
    buf_release(&summary);
    proxy_close(p);
    return rc;
}

int tool_proxy(const struct opt_set *o, struct err_ctx *err)
{
    const char *name = opt_string(o, "name"), *log = opt_string(o, "log");
    const char *control = opt_string(o, "control") ? opt_string(o, "control") : name;
    char path[PROXY_PATH_MAX];
    if (opt_flag(o, "toxics")) {
        print_toxics();
        return 0;
    }
    struct proxy_config c = {.name = name ? name : "proxy",
                             .listen = opt_string(o, "listen"),
                             .to = opt_string(o, "to"),
                             .seed = opt_seed(o),
                             .buffer_max = opt_u64(o, "buffer"),
                             .connections_max = opt_u64(o, "connections") > 1000000
                                                    ? 1000000
                                                    : (uint32_t)opt_u64(o, "connections"),
                             .follow = opt_flag(o, "follow"),
                             .trace_dir = opt_string(o, "trace")};
    if (!c.listen || !c.to)
        return err_set(err, ERR_USAGE, "proxy: --listen ADDR and --to ADDR are wanted");
    c.toxics_n = opt_list(o, "toxic", &c.toxics);
    int rc = control ? proxy_control_path(path, control, err) : 0;
    if (rc)
        return err_prefix(err, "proxy: ");
    c.control = control ? path : NULL;
    c.stop_fd = stop_fd();
    if (c.stop_fd < 0)
        return err_errno(err, "signalfd");
    if (log && !(c.log = strcmp(log, "-") ? fopen(log, "ae") : stdout))
        rc = err_errno(err, "--log %s", log);
    rc = rc ? rc : serve(&c, o, err);
    if (c.log && c.log != stdout && fclose(c.log) && !rc)
        rc = err_errno(err, "--log %s", log);
    close(c.stop_fd);
    return rc;
}

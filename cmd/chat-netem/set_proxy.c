/* Talking to proxies: set and status of those that have a name or a control socket. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/chat-netem/proxy.h"
#include "netem/proxy/proxy.h"

#define PATIENCE_S 5

bool tool_proxy_has(const char *name)
{
    char path[PROXY_PATH_MAX];
    return proxy_control_path(path, name, NULL) == 0 && access(path, F_OK) == 0;
}

/* ERR_NOTFOUND: nobody is there. */
static int ask(const char *path, json_t *request, json_t **answer, struct err_ctx *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {PATIENCE_S, 0};
    struct buf in = BUF_INIT(1u << 20);
    char *text = json_dumps(request, JSON_COMPACT), *at;
    ssize_t n = -1;
    json_error_t where;
    if (strlen(path) >= sizeof a.sun_path || !text) {
        free(text);
        return err_set(err, ERR_RANGE, "%s: too long", path);
    }
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int rc = fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)
                 ? err_set(err, ERR_NOTFOUND, "%s: no proxy answers (%s)", path, strerror(errno))
                 : 0;
    if (!rc && (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0 || send(fd, "\n", 1, MSG_NOSIGNAL) < 0))
        rc = err_errno(err, "%s", path);
    while (!rc && (at = buf_reserve(&in, 4096)) && (n = recv(fd, at, 4096, 0)) > 0)
        in.len += (size_t)n;
    if (fd >= 0)
        close(fd);
    *answer = rc ? NULL : json_loadb(in.data ? in.data : "", in.len, 0, &where);
    buf_release(&in);
    free(text);
    if (!rc && !*answer)
        rc = err_set(err, ERR_IO, "%s: the proxy did not answer", path);
    int code = (int)json_integer_value(json_object_get(*answer, "error"));
    if (code) {
        const char *why = json_string_value(json_object_get(*answer, "text"));
        rc = err_set(err, code < 0 ? code : ERR_IO, "%s", why ? why : "refused");
    }
    return rc;
}

int tool_set_proxy(const struct opt_set *o, struct err_ctx *err)
{
    char path[PROXY_PATH_MAX];
    json_t *answer = NULL, *request = json_pack("{s:s, s:s}", "do", "set", "what", opt_operand(o, 1));
    int rc = request ? proxy_control_path(path, opt_operand(o, 0), err)
                     : err_set(err, ERR_INVALID, "that is no text");
    rc = rc ? rc : ask(path, request, &answer, err);
    if (rc)
        err_prefix(err, "%s: ", opt_operand(o, 0));
    else if (opt_json(o)) {
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (json_object_get(answer, "number")) {
        printf("%d\n", (int)json_integer_value(json_object_get(answer, "number")));
    }
    json_decref(answer);
    json_decref(request);
    return rc;
}

int tool_status_proxies(json_t *proxies, struct err_ctx *err)
{
    char folder[PROXY_PATH_MAX], path[PROXY_PATH_MAX + 256];
    int rc = proxy_control_path(folder, NULL, err);
    DIR *d = rc ? NULL : opendir(folder);
    json_t *request = json_pack("{s:s}", "do", "status");
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        json_t *answer = NULL;
        if (n <= 6 || strcmp(e->d_name + n - 6, ".proxy"))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (ask(path, request, &answer, NULL) == 0)
            json_array_append(proxies, answer);
        json_decref(answer);
    }
    if (d)
        closedir(d);
    json_decref(request);
    return rc;
}

int tool_status_proxy(const struct opt_set *o, struct err_ctx *err)
{
    char path[PROXY_PATH_MAX];
    json_t *answer = NULL, *request = json_pack("{s:s}", "do", "status");
    int rc = proxy_control_path(path, opt_operand(o, 0), err);
    rc = rc ? rc : ask(path, request, &answer, err);
    if (!rc && opt_json(o)) {
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (!rc) {
        tool_print_proxy(answer);
    }
    json_decref(answer);
    json_decref(request);
    return rc;
}

static long long number(const json_t *o, const char *in, const char *key)
{
    return (long long)json_integer_value(json_object_get(json_object_get(o, in), key));
}

void tool_print_proxy(const json_t *p)
{
    size_t i;
    json_t *t;
    printf("%s  %s -> %s  %lld open of %lld, %lld refused by the server, %lld for lack of room; "
           "%lld bytes up, %lld down\n",
           json_string_value(json_object_get(p, "name")), json_string_value(json_object_get(p, "listen")),
           json_string_value(json_object_get(p, "to")), number(p, "connections", "open"),
           number(p, "connections", "accepted"), number(p, "connections", "refused_upstream"),
           number(p, "connections", "refused_full"), number(p, "bytes", "up"), number(p, "bytes", "down"));
    json_array_foreach(json_object_get(p, "toxics"), i, t)
        printf("  %3lld  %-48s %lld hits\n", (long long)json_integer_value(json_object_get(t, "number")),
               json_string_value(json_object_get(t, "spec")),
               (long long)json_integer_value(json_object_get(t, "hits")));
}

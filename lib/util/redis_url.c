#include "util/redis_url.h"

#include <stdlib.h>
#include <string.h>

static int copy(char *out, size_t size, const char *p, size_t n, const char *who, const char *what,
                struct err_ctx *ctx)
{
    if (n >= size)
        return err_set(ctx, ERR_INVALID, "%s: the %s is longer than %zu bytes", who, what, size - 1);
    memcpy(out, p, n);
    out[n] = 0;
    return 0;
}

int redis_url_parse(struct redis_url *out, const char *url, const char *what, struct err_ctx *ctx)
{
    static const char scheme[] = "redis://";
    *out = (struct redis_url){0};
    if (strncmp(url, scheme, sizeof scheme - 1) != 0)
        return err_set(ctx, ERR_INVALID, "%s '%s': redis://[:PASSWORD@]HOST[:PORT][/CLUSTER]", what, url);
    const char *p = url + sizeof scheme - 1, *slash = strchr(p, '/');
    const char *end = slash ? slash : p + strlen(p), *at = memchr(p, '@', (size_t)(end - p));
    int rc = 0;
    if (at) {
        const char *colon = memchr(p, ':', (size_t)(at - p));
        p = colon ? colon + 1 : p;
        rc = copy(out->password, sizeof out->password, p, (size_t)(at - p), what, "password", ctx);
        p = at + 1;
    }
    const char *colon = memchr(p, ':', (size_t)(end - p));
    rc = rc ? rc
            : copy(out->host, sizeof out->host, p, (size_t)((colon ? colon : end) - p), what, "host", ctx);
    rc = rc ? rc
            : copy(out->cluster, sizeof out->cluster, slash ? slash + 1 : "", slash ? strlen(slash + 1) : 0,
                   what, "name of the cluster", ctx);
    if (rc)
        return rc;
    char *rest = NULL;
    out->port = colon ? (int)strtol(colon + 1, &rest, 10) : 6379;
    if (!out->host[0] || out->port < 1 || out->port > 65535 || (rest && rest != end))
        return err_set(ctx, ERR_INVALID, "%s '%s': redis://[:PASSWORD@]HOST[:PORT][/CLUSTER]", what, url);
    if (!out->cluster[0])
        strcpy(out->cluster, "main");
    return 0;
}

/* redis://[:PASSWORD@]HOST[:PORT][/CLUSTER], as the bus and presence take it. */
#ifndef UTIL_REDIS_URL_H
#define UTIL_REDIS_URL_H

#include "util/err.h"

struct redis_url {
    char host[128], password[128];
    char cluster[64]; /* "main" when none is named */
    int port;
};

/* `what` begins the sentence of an error: "bus". ERR_INVALID. */
int redis_url_parse(struct redis_url *out, const char *url, const char *what, struct err_ctx *ctx);

#endif

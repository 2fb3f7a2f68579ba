/* chat-netem's proxies: `proxy`, and `set` and `status` of those that run. */
#ifndef CHAT_NETEM_PROXY_H
#define CHAT_NETEM_PROXY_H

#include <jansson.h>
#include <stdbool.h>

#include "util/opt.h"

int tool_proxy(const struct opt_set *o, struct err_ctx *err);
/* Is there a proxy's control socket with this name, or at this path? */
bool tool_proxy_has(const char *name);
int tool_set_proxy(const struct opt_set *o, struct err_ctx *err);
/* `status NAME`: of one proxy. */
int tool_status_proxy(const struct opt_set *o, struct err_ctx *err);
/* Appends what each proxy that answers says of itself (proxy_status_json). */
int tool_status_proxies(json_t *proxies, struct err_ctx *err);
void tool_print_proxy(const json_t *status);

#endif

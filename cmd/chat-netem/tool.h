/* chat-netem's parts. */
#ifndef CHAT_NETEM_TOOL_H
#define CHAT_NETEM_TOOL_H

#include "netem/tun/tun.h"
#include "util/opt.h"

/* `run`: *status is the command's own exit status. */
int tool_run(const struct opt_set *o, int *status, struct err_ctx *err);
/* Links that stay: links.h. */
int tool_up(const struct opt_set *o, struct err_ctx *err);
int tool_down(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_status(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_set(const struct opt_set *o, struct err_ctx *err);
int tool_exec(const struct opt_set *o, struct err_ctx *err);
/* --expose: a process that relays TCP from far:port to a server of the host; "PORT=HOST:PORT". */
int tool_expose(struct tun_world *w, const char *text, struct err_ctx *err);

#endif

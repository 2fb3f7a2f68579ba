/* chat-netem's commands for rules on a device that exists. */
#ifndef CHAT_NETEM_DEVICE_H
#define CHAT_NETEM_DEVICE_H

#include "util/opt.h"

/* `apply`: *status is the command's own exit status, 130 after an interruption. */
int tool_apply(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_show_dev(const struct opt_set *o, struct err_ctx *err);
int tool_clear(const struct opt_set *o, struct err_ctx *err);

#endif

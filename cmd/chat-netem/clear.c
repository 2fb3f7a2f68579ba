/* chat-netem clear: our rules come off a device, nobody else's do. */
#include <stdio.h>
#include <string.h>

#include "cmd/chat-netem/device.h"
#include "netem/kernel/kernel.h"

int tool_clear(const struct opt_set *o, struct err_ctx *err)
{
    struct kernel_device dev;
    unsigned removed = 0;
    int rc = kernel_device_find(&dev, opt_operand(o, 0), err);
    rc = rc ? rc : kernel_clear(&dev, &removed, err);
    if (rc)
        return rc;
    struct buf out = BUF_INIT(1024);
    buf_json_str(&out, dev.name, strlen(dev.name));
    if (opt_json(o))
        printf("{\"dev\":%s,\"removed\":%u}\n", buf_cstr(&out), removed);
    else if (opt_verbosity(o) >= 0 && removed)
        fprintf(stderr, "chat-netem: %u qdiscs, filters and devices taken off %s\n", removed, dev.name);
    else if (opt_verbosity(o) >= 0)
        fprintf(stderr, "chat-netem: %s has no rules of ours\n", dev.name);
    buf_release(&out);
    return 0;
}

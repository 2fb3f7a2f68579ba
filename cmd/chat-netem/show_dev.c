/* chat-netem show-dev: what of ours is on a device. */
#include <stdio.h>

#include "cmd/chat-netem/device.h"
#include "netem/kernel/kernel.h"

int tool_show_dev(const struct opt_set *o, struct err_ctx *err)
{
    struct kernel_device dev;
    struct buf out = BUF_INIT(1u << 20);
    int rc = kernel_device_find(&dev, opt_operand(o, 0), err);
    rc = rc ? rc : kernel_show(&out, &dev, opt_json(o), err);
    if (!rc)
        fputs(buf_cstr(&out), stdout);
    buf_release(&out);
    return rc;
}

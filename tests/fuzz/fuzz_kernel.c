/* netem's parameters as a kernel would tell them. */
#include <stdlib.h>
#include <string.h>

#include "netem/kernel/kernel_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct kernel_netem netem;
    struct buf line = BUF_INIT(4096);
    void *aligned = malloc(n + 1); /* as netlink aligns it */
    if (aligned && n < 65536) {
        memcpy(aligned, data, n);
        if (kernel_netem_decode(&netem, aligned, (int)n) == 0)
            kernel_netem_tc(&line, &netem);
    }
    free(aligned);
    buf_release(&line);
    return 0;
}

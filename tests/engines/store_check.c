/* store_check URL KEYS ACKED: opens the store as a server would and judges it: whole batches only, at least
 * ACKED of them. Prints "batches N epoch E new 0|1"; status 1 when something is lost or wrong. */
#include <stdlib.h>

#include "store_batches.h"

int main(int argc, char **argv)
{
    struct err_ctx ctx = {0};
    struct store *s;
    uint64_t seq[BATCH_CHATS + 1];
    const char *wrong;
    if (argc != 4) {
        fprintf(stderr, "usage: store_check URL KEYS ACKED\n");
        return 64;
    }
    struct now t = clock_now();
    struct store_config c = {.url = argv[1], .keys_dir = argv[2], .now_us = t.wall_us, .random = t.mono_ns};
    int rc = store_open(&s, &c, &ctx);
    if (rc) {
        fprintf(stderr, "store_check: %s\n", ctx.text);
        return err_exit_status(rc);
    }
    int64_t have = batches_in(s, seq, &wrong), acked = strtoll(argv[3], NULL, 10);
    if (have < 0)
        printf("wrong: %s\n", wrong);
    else
        printf("batches %" PRId64 " epoch %" PRIu64 " new %d\n", have, store_epoch(s), store_epoch_is_new(s));
    if (have >= 0 && have < acked)
        printf("lost: %" PRId64 " batches were acknowledged\n", acked);
    rc = store_close(s, &ctx);
    return have < acked || have < 0 || rc ? 1 : 0;
}

/* store_writer URL KEYS [LAST]: commits predictable batches, one "ack I" line on stdout for each that is
 * durable. */
#include <stdlib.h>

#include "store_batches.h"

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: store_writer URL KEYS [LAST]\n");
        return 64;
    }
    int rc = batches_write(argv[1], argv[2], argc > 3 ? strtoull(argv[3], NULL, 10) : 0, 1);
    return err_exit_status(rc);
}

/* Rows from files: no input may do harm, and a row that is read is written and read again the same. The first
 * byte chooses the form: JSONL file, one row, binary file. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audit/reconcile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_row(const char *line, size_t n)
{
    struct reconcile_row a, b;
    const char *why;
    if (reconcile_jsonl_row(&a, line, n, &why))
        return;
    struct buf out = BUF_INIT(1u << 20);
    reconcile_jsonl_write(&out, &a);
    BUG_ON(reconcile_jsonl_row(&b, out.data, out.len, &why));
    BUG_ON(memcmp(&a, &b, sizeof a) != 0);
    buf_release(&out);
}

static void file(const uint8_t *data, size_t size, bool bin)
{
    char path[64];
    struct reconcile_source *s = NULL;
    struct reconcile_row *rows = calloc(64, sizeof *rows);
    int fd = memfd_create("rows", MFD_CLOEXEC), rc;
    if (fd < 0 || !rows || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rc = bin ? reconcile_bin_open(&s, path, NULL) : reconcile_jsonl_open(&s, path, NULL, false, NULL);
    if (!rc) {
        long n;
        uint64_t first = 0, second = 0;
        while ((n = s->read(s, rows, 64, NULL)) > 0)
            first += (uint64_t)n;
        BUG_ON(n == 0 && s->rewind(s, NULL));
        while (n == 0 && (n = s->read(s, rows, 64, NULL)) > 0)
            second += (uint64_t)n, n = 0;
        BUG_ON(second && first != second);
        s->close(s);
    }
    free(rows);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (data[0] == 'r')
        one_row((const char *)data + 1, size - 1);
    else
        file(data + 1, size - 1, data[0] == 'b');
    return 0;
}

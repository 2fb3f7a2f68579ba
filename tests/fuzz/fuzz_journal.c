/* Journals of any content: rows or an error that names file and line, and an audit that survives both. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audit/audit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct audit *a;
    struct audit_result r;
    struct err_ctx ctx = {0};
    int fd = memfd_create("journal", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || audit_new(&a, NULL))
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = audit_add_journal(a, path, &ctx);
    if (rc && !strstr(ctx.text, path))
        abort();
    if (!rc && audit_finish(a, size & 1, &r, NULL) == 0 && r.violations < r.findings_n)
        abort();
    audit_free(a);
    close(fd);
    return 0;
}

/* Scenario files of any content, and their expectations: read, or refused in one sentence. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scenario/judge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scenario s;
    static struct judge_facts facts;
    char path[64];
    struct err_ctx ctx = {0};
    int fd = memfd_create("scenario", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = scenario_load(&s, path, NULL, &ctx);
    if (rc && (!ctx.text[0] || strchr(ctx.text, '\n')))
        abort();
    for (uint32_t i = 0; !rc && i < s.expect_n; i++) {
        struct expectation e;
        struct judgement j;
        if (judge_parse(&e, s.expect[i], &s, &ctx))
            abort(); /* it was accepted a moment ago */
        judge(&e, &facts, &j);
        if (j.verdict == JUDGED_PASS)
            abort(); /* nothing was measured */
    }
    scenario_release(&s);
    close(fd);
    return 0;
}

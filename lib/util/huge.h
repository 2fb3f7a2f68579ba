/* Memory that is large and read here and there: with pages of 2 MiB nearly every access is spared a walk of
 * the page tables, and filling it a thousand faults. Only a hint, where the kernel allows it ("madvise"). */
#ifndef UTIL_HUGE_H
#define UTIL_HUGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define HUGE_PAGE (2u << 20)

static inline void huge_hint(void *p, size_t n)
{
    uintptr_t first = ((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    uintptr_t end = ((uintptr_t)p + n) & ~(uintptr_t)(HUGE_PAGE - 1);
    if (end > first)
        madvise((void *)first, end - first, MADV_HUGEPAGE);
}

#endif

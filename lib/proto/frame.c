#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

struct shared_frame *shared_frame_new(const char *p, size_t n)
{
    struct shared_frame *f = malloc(sizeof *f + n);
    if (!f)
        return NULL;
    *f = (struct shared_frame){.refs = 1, .len = (uint32_t)n};
    memcpy(f->data, p, n);
    return f;
}

void shared_frame_ref(struct shared_frame *f)
{
    f->refs++;
}

void shared_frame_unref(struct shared_frame *f)
{
    if (f && --f->refs == 0)
        free(f);
}

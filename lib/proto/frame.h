/* An encoded message, shared by reference by all its recipients on one thread, with what a trace wants to
 * know of it. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "util/id.h"

enum frame_what { FRAME_OTHER, FRAME_MSG, FRAME_ACCEPTED };

struct shared_frame {
    uint32_t refs; /* not atomic: one thread */
    uint32_t len;
    struct id id; /* of the message it carries; zero for others */
    uint64_t chat, seq;
    uint8_t what;    /* enum frame_what */
    uint8_t catchup; /* pushed from the log, not live */
    char data[];
};

/* refs = 1; NULL: no memory. */
struct shared_frame *shared_frame_new(const char *p, size_t n);
void shared_frame_ref(struct shared_frame *f);
void shared_frame_unref(struct shared_frame *f);

#endif

/* Any bytes as a chat.v1 frame. What is read must be written and read again to the same text. */
#include <stdlib.h>

#include "proto/proto.h"

static struct proto_scratch scratch, again;
static char room[2][1 << 20];

static void check(const struct msg *m)
{
    static struct buf one, two;
    struct proto_frame f;
    struct msg back;
    one.max = two.max = 2 << 20;
    buf_reset(&one);
    buf_reset(&two);
    proto_encode(&one, m);
    again = (struct proto_scratch){room[1], sizeof room[1], 0};
    struct err_ctx ctx = {0};
    if (one.failed || proto_frame_begin(&f, one.data, one.len, &again, &ctx) ||
        proto_frame_next(&f, &back, &ctx) != 1 || proto_frame_next(&f, &back, NULL) != 0)
        abort();
    proto_frame_begin(&f, one.data, one.len, &again, &ctx);
    proto_frame_next(&f, &back, &ctx);
    proto_encode(&two, &back);
    if (one.len != two.len || memcmp(one.data, two.data, one.len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proto_frame f;
    struct msg m;
    struct err_ctx ctx = {0};
    scratch = (struct proto_scratch){room[0], sizeof room[0], 0};
    int rc = proto_frame_begin(&f, (const char *)data, size, &scratch, &ctx);
    while (!rc && (rc = proto_frame_next(&f, &m, &ctx)) == 1) {
        if (m.t != MSG_NONE)
            check(&m);
        rc = 0;
        if (f.done)
            break;
    }
    if (rc < 0 && (ctx.code != rc || !ctx.text[0]))
        abort(); /* every refusal has its sentence */
    return 0;
}

/* Any bytes as a chat.v1.bin frame. What is read must be written and read again to the same bytes, and
 * through JSON to the same message. */
#include <stdlib.h>

#include "proto/bin.h"

static struct proto_scratch scratch, again;
static char room[2][1 << 20];

static void read_back(enum proto_codec codec, const struct buf *b, struct msg *m)
{
    struct proto_frame f;
    again = (struct proto_scratch){room[1], sizeof room[1], 0};
    if (proto_frame_begin_as(&f, codec, b->data, b->len, &again, NULL) ||
        proto_frame_next(&f, m, NULL) != 1 || !f.done)
        abort();
}

static void check(const struct msg *m)
{
    static struct buf bin, json, two;
    struct msg back;
    bin.max = json.max = two.max = 2 << 20;
    buf_reset(&bin);
    buf_reset(&json);
    buf_reset(&two);
    proto_bin_encode(&bin, m);
    proto_encode(&json, m);
    if (bin.failed || json.failed)
        abort();
    read_back(PROTO_BIN, &bin, &back);
    proto_bin_encode(&two, &back);
    if (two.len != bin.len || memcmp(two.data, bin.data, bin.len) != 0)
        abort();
    read_back(PROTO_JSON, &json, &back);
    buf_reset(&two);
    proto_bin_encode(&two, &back);
    if (two.len != bin.len || memcmp(two.data, bin.data, bin.len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proto_frame f;
    struct msg m;
    struct err_ctx ctx = {0};
    scratch = (struct proto_scratch){room[0], sizeof room[0], 0};
    int rc = proto_bin_begin(&f, (const char *)data, size, &scratch, &ctx);
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

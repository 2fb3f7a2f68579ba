/* Any bytes as a datagram of another node: a node of two takes what it can read of it, and nothing else
 * happens. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/node.h"
#include "node/node_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct commit_job *commit;
static struct read_job *reads[4096];
static size_t reads_n;

static void emit(void *arg, const struct effect *e)
{
    (void)arg;
    if (e->kind == EFFECT_COMMIT)
        commit = e->commit;
    else if (e->kind == EFFECT_READ && reads_n < sizeof reads / sizeof *reads)
        reads[reads_n++] = e->read;
    else if (e->kind == EFFECT_READ)
        abort();
}

static void step(struct node *n, struct node_event e, uint64_t ms)
{
    e.now = (struct now){NS_PER_S + ms * NS_PER_MS, 1764000000000000ull + ms * 1000};
    node_step(n, &e);
    while (commit || reads_n) {
        struct commit_job *c = commit;
        commit = NULL;
        if (c) {
            struct node_event done = {.kind = NODE_COMMITTED, .now = e.now, .commit = c};
            node_step(n, &done);
        }
        if (reads_n) {
            struct node_event done = {.kind = NODE_READ_DONE, .now = e.now, .read = reads[--reads_n]};
            node_step(n, &done);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys keys;
    struct node_config c = {.features = DELIVERY_RELIABLE,
                            .limits = node_limits_default(),
                            .place = {.self = 0, .nodes = 2},
                            .keys = &keys,
                            .seed = 1,
                            .epoch = 7,
                            .beat_s = 10,
                            .emit = emit};
    struct node *n;
    if (node_new(&n, &c, NULL))
        abort();
    step(n, (struct node_event){.kind = NODE_TICK}, 0);
    /* as it came, then as one after a good header, in two halves: the first may ask for what the second
     * answers */
    step(n, (struct node_event){.kind = NODE_BUS, .data = (const char *)data, .len = size}, 1);
    struct buf b = BUF_INIT(1u << 20);
    for (int half = 0; half < 2; half++) {
        size_t from = half ? size / 2 : 0, to = half ? size : size / 2;
        buf_reset(&b);
        put_u8(&b, WIRE_VERSION);
        put_number(&b, 1, 2);
        put_u64(&b, 5);
        buf_add(&b, data + from, to - from);
        step(n, (struct node_event){.kind = NODE_BUS, .data = b.data, .len = b.len}, 2);
    }
    for (uint8_t type = WIRE_BEAT; size && type <= WIRE_REPLY; type++) {
        buf_reset(&b);
        put_u8(&b, WIRE_VERSION);
        put_number(&b, 1, 2);
        put_u64(&b, 5);
        put_u8(&b, type);
        put_u32(&b, (uint32_t)size);
        buf_add(&b, data, size);
        step(n, (struct node_event){.kind = NODE_BUS, .data = b.data, .len = b.len}, 3);
    }
    buf_release(&b);
    for (uint64_t ms = 20; ms < 4000; ms += 500)
        step(n, (struct node_event){.kind = NODE_TICK}, ms);
    node_free(n);
    return 0;
}

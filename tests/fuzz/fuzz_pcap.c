/* A capture file of any bytes: no crash, no leak, no more memory than allowed. */
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "wire/decode.h"
#include "wire/pcap/capture.h"
#include "wire/tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CEILING (1u << 20)

struct seen {
    struct chat_decoder decoder;
    uint64_t sum;
};

static void on_message(void *arg, const struct tap_message *m)
{
    struct seen *s = arg;
    struct chat_item item[CHAT_ITEMS_MAX];
    int n = chat_decode(&s->decoder, m, item, CHAT_ITEMS_MAX);
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < item[i].id.n; k++)
            s->sum += (uint8_t)item[i].id.p[k];
    for (size_t k = 0; k < m->n; k++)
        s->sum += m->p[k];
    BUG_ON(m->complete && (m->unreadable || m->cut));
    BUG_ON(m->end < m->from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct capture_file *f = NULL;
    struct capture_packet k;
    struct packet p;
    struct tap t;
    struct seen s = {0};
    struct err_ctx err = {0};
    struct tcp_config c = {.memory = CEILING, .marks = true};
    struct tap_events on = {.arg = &s, .message = on_message};
    if (capture_open_bytes(&f, data, size, "fuzz", &err) < 0)
        return 0;
    if (tap_init(&t, &c, &on, &err) == 0) {
        while (capture_next(f, &k, &err) > 0)
            if (packet_read(&p, k.link, k.p, k.n, k.wire) == PACKET_TCP) {
                tap_packet(&t, &p, k.iface, k.ts_ns, k.number);
                BUG_ON(t.tcp.used > CEILING + (64u << 10));
            }
        tap_finish(&t);
        BUG_ON(t.tcp.used != t.tcp.buckets * sizeof(void *));
    }
    tap_release(&t);
    capture_close_file(f);
    chat_decoder_release(&s.decoder);
    return 0;
}

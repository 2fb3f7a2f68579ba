/* Segments that a fuzzer writes by hand, so that it gets behind the headers: each is a command byte, a
 * sequence offset, a length and bytes. Whatever comes, no byte of a stream is told twice or out of order. */
#include <string.h>

#include "util/err.h"
#include "wire/tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CEILING (1u << 20)

struct stream {
    uint64_t end[2];
};

static void on_message(void *arg, const struct tap_message *m)
{
    uint64_t *sum = arg;
    for (size_t k = 0; k < m->n; k++)
        *sum += m->p[k];
    BUG_ON(m->complete && (m->unreadable || m->cut));
    BUG_ON(m->end < m->from);
    BUG_ON(m->end > m->flow->half[m->dir].next);
}

static void on_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why)
{
    (void)arg;
    (void)why;
    BUG_ON(from >= to || to > f->half[dir].next);
}

static void segment(struct tap *t, const uint8_t *head, const uint8_t *p, size_t n, uint64_t number)
{
    uint8_t copy[256];
    struct packet k = {.ttl = 64, .wscale = 0xff, .payload = copy};
    int dir = head[0] & 1;
    memcpy(copy, p, n);
    k.addr[dir][15] = 1;
    k.addr[!dir][15] = 2;
    k.port[dir] = 5000;
    k.port[!dir] = 80;
    k.flags = (head[0] & 2 ? PACKET_ACK : 0) | (head[0] >> 2 == 1 ? PACKET_SYN : 0) |
              (head[0] >> 2 == 2 ? PACKET_FIN : 0) | (head[0] >> 2 == 3 ? PACKET_RST : 0);
    k.seq = (head[0] & 0x80 ? 0xffffff80u : 1000u) + head[1];
    k.ack = (head[0] & 0x80 ? 0xffffff80u : 1000u) + head[2];
    k.window = head[0] & 0x40 ? 0 : 1000;
    k.payload_len = (uint32_t)n + (head[3] >> 6);
    k.captured = (uint32_t)n;
    tap_packet(t, &k, 0, number * 40000000u, number);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tap t;
    uint64_t sum = 0, number = 0;
    struct tcp_config c = {.memory = CEILING, .marks = true};
    struct tap_events on = {.arg = &sum, .message = on_message, .gap = on_gap};
    if (tap_init(&t, &c, &on, NULL) == 0) {
        while (size >= 4) {
            size_t n = data[3] & 0x3f;
            n = n < size - 4 ? n : size - 4;
            segment(&t, data, data + 4, n, ++number);
            BUG_ON(t.tcp.used > CEILING + (64u << 10));
            data += 4 + n;
            size -= 4 + n;
        }
        tap_finish(&t);
        BUG_ON(t.tcp.used != t.tcp.buckets * sizeof(void *));
    }
    tap_release(&t);
    return 0;
}

/* The streams of a capture as hex, one line per direction: "client server dir hex", gaps as "<n>". For
 * comparing with others that put TCP together. */
#include <stdio.h>
#include <stdlib.h>

#include "util/buf.h"
#include "wire/pcap/capture.h"
#include "wire/tcp.h"

static void on_open(void *arg, struct tcp_flow *f)
{
    struct buf *b = calloc(2, sizeof *b);
    (void)arg;
    for (int d = 0; b && d < 2; d++)
        buf_init(&b[d], 256 << 20);
    f->user = b;
}

static void on_data(void *arg, struct tcp_flow *f, int dir, uint64_t at, uint8_t *p, size_t n, uint64_t ts)
{
    (void)arg;
    (void)at;
    (void)ts;
    for (size_t i = 0; i < n; i++)
        buf_printf((struct buf *)f->user + dir, "%02x", p[i]);
}

static void on_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why,
                   uint64_t ts)
{
    (void)arg;
    (void)why;
    (void)ts;
    buf_printf((struct buf *)f->user + dir, "<%llu>", (unsigned long long)(to - from));
}

static void on_close(void *arg, struct tcp_flow *f)
{
    struct buf *b = f->user;
    (void)arg;
    for (int d = 0; d < 2; d++) {
        char a[2][PACKET_ADDR_TEXT + 1];
        for (int k = 0; k < 2; k++)
            a[k][packet_addr_text(a[k], f->addr[k], f->port[k])] = 0;
        if (b[d].len)
            printf("%s %s %d %s\n", a[0], a[1], d, buf_cstr(&b[d]));
        buf_release(&b[d]);
    }
    free(b);
}

int main(int argc, char **argv)
{
    struct capture_file *f;
    struct capture_packet k;
    struct packet p;
    struct tcp t;
    struct err_ctx err = {0};
    struct tcp_config c = {.memory = 256 << 20,
                           .on = {.open = on_open, .data = on_data, .gap = on_gap, .close = on_close}};
    if (argc != 2 || capture_open_file(&f, argv[1], &err) || tcp_init(&t, &c, &err)) {
        fprintf(stderr, "pcap_streams: %s\n", err.text);
        return 65;
    }
    while (capture_next(f, &k, &err) > 0)
        if (packet_read(&p, k.link, k.p, k.n, k.wire) == PACKET_TCP)
            tcp_packet(&t, &p, k.iface, k.ts_ns, k.number);
    tcp_finish(&t);
    tcp_release(&t);
    capture_close_file(f);
    return 0;
}

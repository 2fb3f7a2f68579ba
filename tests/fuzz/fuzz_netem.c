/* Packets come from any program in the namespaces, descriptions from scenario files. The first byte chooses.
 */
#include <stdlib.h>
#include <string.h>

#include "netem/link.h"
#include "netem/tun/packet_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void packet(const uint8_t *data, size_t n)
{
    struct packet p;
    if (n <= 2048 && packet_parse(&p, data, (uint32_t)n))
        BUG_ON((size_t)p.payload_at + p.payload > n);
}

/* What is accepted must also run: no window without end, no time that goes back. */
static void description(const char *text)
{
    struct netem_profile p;
    struct err_ctx ctx = {0};
    struct link l;
    int rc = netem_profile_parse(&p, text, &ctx);
    BUG_ON(rc != ctx.code);
    /* a word may name a file */
    BUG_ON(rc && rc != ERR_INVALID && rc != ERR_RANGE && rc != ERR_NOTFOUND && rc != ERR_IO);
    if (rc)
        return;
    link_init(&l, &p, 1, 1, 0);
    for (uint64_t i = 0, last_ns = 0; i < 64; i++) {
        struct link_verdict v = link_offer(&l, NETEM_UP, i * 1000000, 1500);
        BUG_ON(!v.reason && (v.deliver_ns < last_ns || v.deliver_ns < i * 1000000));
        last_ns = v.reason ? last_ns : v.deliver_ns;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n && data[0] == 'E') {
        packet(data, n);
        return 0;
    }
    char *text = malloc(n + 1);
    if (!text)
        return 0;
    memcpy(text, data, n);
    text[n] = 0;
    description(text);
    free(text);
    return 0;
}

#include "netem/tun/packet_impl.h"

#include <netinet/in.h>

#include "trace/trace.h"

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static void parse_tcp(struct packet *p, const uint8_t *at, uint32_t len)
{
    uint32_t header = len < 20 ? 0 : (uint32_t)(at[12] >> 4) * 4;
    if (header < 20 || header > len)
        return;
    p->sport = (uint16_t)be16(at);
    p->dport = (uint16_t)be16(at + 2);
    p->tcp_seq = be32(at + 4);
    p->payload = (uint16_t)(len - header);
    p->payload_at = (uint16_t)(p->payload_at + header);
    p->flags = (uint8_t)((at[13] & 0x01 ? TRACE_FLAG_FIN : 0) | (at[13] & 0x02 ? TRACE_FLAG_SYN : 0) |
                         (at[13] & 0x04 ? TRACE_FLAG_RST : 0));
    p->ack = at[13] & 0x10;
}

bool packet_parse(struct packet *p, const uint8_t *at, uint32_t len)
{
    uint32_t header = len < 20 ? 0 : (uint32_t)(at[0] & 15) * 4;
    if (header < 20 || at[0] >> 4 != 4 || header > len || be16(at + 2) != len)
        return false;
    *p = (struct packet){.src = be32(at + 12), .dst = be32(at + 16), .protocol = at[9]};
    p->payload_at = (uint16_t)header;
    p->later_fragment = be16(at + 6) & 0x1fff;
    if (p->later_fragment)
        return true;
    at += header;
    len -= header;
    switch (p->protocol) {
    case IPPROTO_TCP:
        parse_tcp(p, at, len);
        break;
    case IPPROTO_UDP:
        if (len >= 8) {
            p->sport = (uint16_t)be16(at);
            p->dport = (uint16_t)be16(at + 2);
            p->payload = (uint16_t)(len - 8);
            p->payload_at = (uint16_t)(p->payload_at + 8);
        }
        break;
    case IPPROTO_ICMP:
        if (len >= 8 && (at[0] == 8 || at[0] == 0))
            p->sport = p->dport = (uint16_t)be16(at + 4);
        break;
    }
    return true;
}

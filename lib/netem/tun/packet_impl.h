/* Inside the room: what the shuttle must know of an IPv4 packet. */
#ifndef NETEM_TUN_PACKET_IMPL_H
#define NETEM_TUN_PACKET_IMPL_H

#include <stdbool.h>
#include <stdint.h>

struct packet {
    uint32_t src, dst;              /* host order */
    uint16_t sport, dport, payload; /* payload: bytes of TCP or UDP payload */
    uint16_t payload_at;            /* where it begins */
    uint32_t tcp_seq;
    uint8_t protocol, flags;  /* flags: TRACE_FLAG_SYN, _FIN, _RST */
    bool ack, later_fragment; /* a later fragment carries no ports */
};

/* False when it is no whole IPv4 packet. Ports stay 0 where there are none; ICMP echo puts its identifier
 * into both. */
bool packet_parse(struct packet *p, const uint8_t *at, uint32_t len);

#endif

/* One captured packet, from its link header down to the TCP payload.
 *
 * Ethernet with any number of VLAN tags (802.1Q, 802.1ad), Linux cooked v1 and v2, raw IP, BSD loopback; IPv4
 * and IPv6 with extension headers. IP fragments are recognised and not put together. A capture that was
 * snapped tells payload_len (what was on the wire) and captured (what is here) apart. An IPv4 length of 0 is
 * a packet that the network card was to cut up (TSO): its length is then the frame's. A packet that says it
 * is longer than its frame was captured in part.
 *
 * Must not know: streams, files. */
#ifndef WIRE_PACKET_H
#define WIRE_PACKET_H

#include <stdbool.h>
#include <stdint.h>

/* Link types as files number them (tcpdump.org/linktypes.html). */
enum packet_link {
    PACKET_LINK_NULL = 0,
    PACKET_LINK_ETHERNET = 1,
    PACKET_LINK_RAW_BSD = 12,
    PACKET_LINK_RAW_OPENBSD = 14,
    PACKET_LINK_RAW = 101,
    PACKET_LINK_LOOP = 108,
    PACKET_LINK_COOKED = 113,
    PACKET_LINK_IPV4 = 228,
    PACKET_LINK_IPV6 = 229,
    PACKET_LINK_PDU = 252, /* Wireshark's exported PDUs: plain bytes of a layer, and whose they are */
    PACKET_LINK_COOKED2 = 276,
};
bool packet_link_known(unsigned link);

enum packet_kind {
    PACKET_TCP,
    PACKET_OTHER,    /* not TCP over IP */
    PACKET_FRAGMENT, /* TCP in an IP fragment */
    PACKET_SHORT,    /* headers are not whole: snapped */
    PACKET_BAD,      /* lengths contradict each other */
    PACKET_PDU,      /* addresses, ports, payload; no numbers: the bytes follow those before (tcp_pdu) */
};

#define PACKET_FIN 0x01
#define PACKET_SYN 0x02
#define PACKET_RST 0x04
#define PACKET_PSH 0x08
#define PACKET_ACK 0x10

struct packet {
    uint8_t addr[2][16]; /* source, destination; IPv4 as ::ffff:a.b.c.d */
    uint16_t port[2];
    uint32_t seq, ack;
    uint32_t payload_len, captured;
    uint8_t *payload; /* in the caller's bytes */
    uint16_t window, ip_id;
    uint8_t flags, ttl;
    uint8_t wscale; /* of a SYN that carries the option, else 0xff */
    bool ipv6;
};

/* n bytes at p are here, `wire` were on the wire. */
enum packet_kind packet_read(struct packet *k, unsigned link, uint8_t *p, uint32_t n, uint32_t wire);

/* "192.0.2.1:443" or "[2001:db8::1]:443"; returns the length, no NUL. */
#define PACKET_ADDR_TEXT 54
unsigned packet_addr_text(char out[PACKET_ADDR_TEXT], const uint8_t addr[16], uint16_t port);

#endif

#include "wire/packet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

bool packet_link_known(unsigned link)
{
    switch (link) {
    case PACKET_LINK_NULL:
    case PACKET_LINK_ETHERNET:
    case PACKET_LINK_RAW_BSD:
    case PACKET_LINK_RAW_OPENBSD:
    case PACKET_LINK_RAW:
    case PACKET_LINK_LOOP:
    case PACKET_LINK_COOKED:
    case PACKET_LINK_IPV4:
    case PACKET_LINK_IPV6:
    case PACKET_LINK_PDU:
    case PACKET_LINK_COOKED2:
        return true;
    default:
        return false;
    }
}

#define TYPE_IPV4  0x0800
#define TYPE_IPV6  0x86dd
#define TYPE_VLAN  0x8100
#define TYPE_QINQ  0x88a8
#define TYPE_QINQ9 0x9100

/* Where IP begins, or -1: headers cut, -2: not IP. */
static int link_header(unsigned link, const uint8_t *p, uint32_t n)
{
    uint32_t at, type;
    switch (link) {
    case PACKET_LINK_ETHERNET:
        at = 12;
        break;
    case PACKET_LINK_COOKED:
        at = 14;
        break;
    case PACKET_LINK_COOKED2:
        if (n < 20)
            return -1;
        type = be16(p);
        return type == TYPE_IPV4 || type == TYPE_IPV6 ? 20 : -2;
    case PACKET_LINK_NULL:
    case PACKET_LINK_LOOP:
        return n < 5 ? -1 : p[4] >> 4 == 4 || p[4] >> 4 == 6 ? 4 : -2;
    default:
        return 0;
    }
    for (;; at += 4) {
        if (n < at + 2)
            return -1;
        type = be16(p + at);
        if (type != TYPE_VLAN && type != TYPE_QINQ && type != TYPE_QINQ9)
            break;
    }
    return type == TYPE_IPV4 || type == TYPE_IPV6 ? (int)at + 2 : -2;
}

static void read_wscale(struct packet *k, const uint8_t *o, uint32_t n)
{
    for (uint32_t at = 0; at < n && o[at];) {
        if (o[at] == 1) {
            at++;
            continue;
        }
        if (at + 1 >= n || o[at + 1] < 2 || at + o[at + 1] > n)
            return;
        if (o[at] == 3 && o[at + 1] == 3)
            k->wscale = o[at + 2] > 14 ? 14 : o[at + 2];
        at += o[at + 1];
    }
}

/* p: the TCP header; n bytes are here, len were on the wire. */
static enum packet_kind read_tcp(struct packet *k, uint8_t *p, uint32_t n, uint32_t len)
{
    if (len < 20)
        return PACKET_BAD;
    if (n < 20)
        return PACKET_SHORT;
    uint32_t head = (uint32_t)(p[12] >> 4) * 4;
    if (head < 20 || head > len)
        return PACKET_BAD;
    k->port[0] = be16(p);
    k->port[1] = be16(p + 2);
    k->seq = be32(p + 4);
    k->ack = be32(p + 8);
    k->flags = p[13] & 0x3f;
    k->window = be16(p + 14);
    k->wscale = 0xff;
    if (k->flags & PACKET_SYN)
        read_wscale(k, p + 20, (n < head ? n : head) - 20);
    k->payload = p + (n < head ? n : head);
    k->payload_len = len - head;
    k->captured = n <= head ? 0 : n - head < k->payload_len ? n - head : k->payload_len;
    return PACKET_TCP;
}

static enum packet_kind read_ipv4(struct packet *k, uint8_t *p, uint32_t n, uint32_t wire)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (n < 20)
        return wire < 20 ? PACKET_BAD : PACKET_SHORT;
    uint32_t head = (uint32_t)(p[0] & 15) * 4, len = be16(p + 2);
    if (p[9] != 6)
        return PACKET_OTHER;
    len = len ? len : wire;
    if (head < 20 || len < head)
        return PACKET_BAD;
    memcpy(k->addr[0], mapped, 12);
    memcpy(k->addr[1], mapped, 12);
    memcpy(k->addr[0] + 12, p + 12, 4);
    memcpy(k->addr[1] + 12, p + 16, 4);
    k->ip_id = be16(p + 4);
    k->ttl = p[8];
    if (be16(p + 6) & 0x3fff)
        return PACKET_FRAGMENT;
    if (n < head)
        return PACKET_SHORT;
    return read_tcp(k, p + head, (n < len ? n : len) - head, len - head);
}

static enum packet_kind read_ipv6(struct packet *k, uint8_t *p, uint32_t n, uint32_t wire)
{
    if (n < 40)
        return wire < 40 ? PACKET_BAD : PACKET_SHORT;
    uint32_t len = be16(p + 4) ? be16(p + 4) + 40u : wire, at = 40;
    uint8_t next = p[6];
    memcpy(k->addr[0], p + 8, 16);
    memcpy(k->addr[1], p + 24, 16);
    k->ip_id = 0;
    k->ttl = p[7];
    k->ipv6 = true;
    n = n < len ? n : len;
    /* hop-by-hop, routing, fragment, authentication, destination, mobility */
    while (next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135) {
        if (n < at + 8)
            return len < at + 8 ? PACKET_BAD : PACKET_SHORT;
        uint32_t size = next == 44 ? 8 : next == 51 ? (p[at + 1] + 2u) * 4 : (p[at + 1] + 1u) * 8;
        bool piece = next == 44 && be16(p + at + 2) & 0xfff9;
        next = p[at];
        if (piece)
            return next == 6 ? PACKET_FRAGMENT : PACKET_OTHER;
        at += size;
        if (at > len)
            return PACKET_BAD;
        if (at > n)
            return PACKET_SHORT;
    }
    return next == 6 ? read_tcp(k, p + at, n - at, len - at) : PACKET_OTHER;
}

/* Tags {u16 type, u16 length, value}, big-endian, up to type 0 (epan/exported_pdu.h): what `tshark -U` writes
 * of a decrypted TLS stream. */
static enum packet_kind read_pdu(struct packet *k, uint8_t *p, uint32_t n, uint32_t wire)
{
    enum { IPV4_SRC = 20, IPV4_DST, IPV6_SRC, IPV6_DST, PORT_TYPE, SRC_PORT, DST_PORT };
    uint32_t at = 0, seen = 0;
    memset(k, 0, sizeof *k);
    for (;;) {
        if (at + 4 > n)
            return PACKET_SHORT;
        uint32_t type = be16(p + at), len = be16(p + at + 2);
        const uint8_t *v = p + at + 4;
        at += 4 + len;
        if (!type)
            break;
        if (at > n)
            return PACKET_SHORT;
        if ((type == IPV4_SRC || type == IPV4_DST) && len == 4) {
            uint8_t *a = k->addr[type == IPV4_DST];
            a[10] = a[11] = 0xff;
            memcpy(a + 12, v, 4);
        } else if ((type == IPV6_SRC || type == IPV6_DST) && len == 16) {
            memcpy(k->addr[type == IPV6_DST], v, 16);
        } else if ((type == SRC_PORT || type == DST_PORT) && len == 4) {
            k->port[type == DST_PORT] = (uint16_t)be32(v);
        } else {
            continue;
        }
        seen |= 1u << (type - IPV4_SRC);
    }
    if (at > n || !(seen & 1u << (SRC_PORT - IPV4_SRC)) || !(seen & 1u << (DST_PORT - IPV4_SRC)))
        return PACKET_OTHER;
    k->payload = p + at;
    k->captured = n - at;
    k->payload_len = wire - at;
    k->wscale = 0xff;
    return PACKET_PDU;
}

enum packet_kind packet_read(struct packet *k, unsigned link, uint8_t *p, uint32_t n, uint32_t wire)
{
    if (link == PACKET_LINK_PDU)
        return read_pdu(k, p, n < wire ? n : wire, wire);
    n = n < wire ? n : wire;
    int at = link_header(link, p, n);
    if (at < 0)
        return at == -1 && n < wire ? PACKET_SHORT : PACKET_OTHER;
    if ((uint32_t)at >= n)
        return n < wire ? PACKET_SHORT : PACKET_OTHER;
    k->ipv6 = false;
    p += at;
    switch (p[0] >> 4) {
    case 4:
        return read_ipv4(k, p, n - (uint32_t)at, wire - (uint32_t)at);
    case 6:
        return read_ipv6(k, p, n - (uint32_t)at, wire - (uint32_t)at);
    default:
        return PACKET_OTHER;
    }
}

static unsigned put_decimal(char *out, unsigned v)
{
    char d[5];
    unsigned n = 0, k = 0;
    do
        d[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        out[k++] = d[--n];
    return k;
}

unsigned packet_addr_text(char out[PACKET_ADDR_TEXT], const uint8_t addr[16], uint16_t port)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    unsigned n = 0;
    if (memcmp(addr, mapped, 12) == 0) {
        for (int i = 12; i < 16; i++) {
            n += put_decimal(out + n, addr[i]);
            out[n++] = i < 15 ? '.' : ':';
        }
        return n + put_decimal(out + n, port);
    }
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, addr, text, sizeof text);
    out[n++] = '[';
    memcpy(out + n, text, strlen(text));
    n += (unsigned)strlen(text);
    out[n++] = ']';
    out[n++] = ':';
    return n + put_decimal(out + n, port);
}

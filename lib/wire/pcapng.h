/* Writing pcapng (draft-ietf-opsawg-pcapng-03): one section, interfaces with nanoseconds, packets with
 * comments, statistics. Each call appends one block to a buf, little-endian, padded and closed; check
 * buf.failed once. Text is UTF-8; of a comment or name longer than PCAPNG_TEXT_MAX bytes the beginning is
 * kept. Must not know: files, what the packets are. */
#ifndef WIRE_PCAPNG_H
#define WIRE_PCAPNG_H

#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"

#define PCAPNG_TEXT_MAX 65535u

enum pcapng_link { /* www.tcpdump.org/linktypes.html */
                   PCAPNG_RAW_IP = 101,
                   PCAPNG_UPPER_PDU =
                       252, /* Wireshark's: tags that name a dissector and addresses, then its data */
};

/* The first block. comment, application: NULL for none. */
void pcapng_section(struct buf *b, const char *comment, const char *application);
/* Interfaces are numbered from 0 in the order of these calls; each stands before its first packet. */
void pcapng_interface(struct buf *b, enum pcapng_link link, const char *name, const char *description);

#define PCAPNG_INBOUND  1u
#define PCAPNG_OUTBOUND 2u
struct pcapng_packet {
    uint32_t interface, len, original; /* bytes here; bytes on the wire, 0: the same */
    uint32_t flags;                    /* PCAPNG_INBOUND, PCAPNG_OUTBOUND, 0: not known */
    uint64_t ts_ns;                    /* since 1970 UTC */
    uint64_t missed;                   /* packets of this interface not written since the one before */
    const void *data;
    const char *comment; /* NULL: none */
    size_t comment_len;
};
void pcapng_packet(struct buf *b, const struct pcapng_packet *p);
void pcapng_statistics(struct buf *b, uint32_t interface, uint64_t ts_ns, uint64_t received, uint64_t missed);

#endif

/* Capture files: pcap (micro- and nanoseconds, either byte order) and pcapng (several sections and
 * interfaces, of different link types), plain or packed (wire/pcap/source.h).
 *
 * Read here and not by libpcap, which stops at a second link type, reads no zstd, and can't say at which
 * offset a file is broken. libpcap compiles filters, captures live and writes (live.h).
 *
 * What is whole before a fault is given; then the fault, naming file and offset (in the unpacked bytes).
 * A record of more than CAPTURE_RECORD_MAX bytes is a fault: no link has such packets. */
#ifndef WIRE_PCAP_CAPTURE_H
#define WIRE_PCAP_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define CAPTURE_RECORD_MAX (1u << 20)
#define CAPTURE_IFACES_MAX 1024u

struct capture_packet {
    uint64_t ts_ns;  /* UTC; 0: the file has none (simple packet block) */
    uint64_t number; /* from 1, over the whole file */
    uint64_t offset;
    uint32_t n, wire;    /* bytes here, bytes on the wire */
    uint32_t link;       /* link type, LINKTYPE_* */
    uint32_t iface;      /* from 0, over the whole file */
    uint8_t *p;          /* may be changed; good until the next call */
    const char *comment; /* first opt_comment of pcapng; NULL: none. Not terminated */
    uint32_t comment_n;
    uint32_t dropped; /* epb_dropcount: lost between this packet and the one before */
};

struct capture_file;

int capture_open_file(struct capture_file **out, const char *path, struct err_ctx *ctx);
int capture_open_bytes(struct capture_file **out, const void *p, size_t n, const char *name,
                       struct err_ctx *ctx);
/* 1; 0 at the end; ERR_TRUNCATED, ERR_CORRUPT, ERR_IO, ERR_UNSUPPORTED, ERR_LIMIT with "FILE: offset N: ...".
 */
int capture_next(struct capture_file *f, struct capture_packet *k, struct err_ctx *ctx);
/* Packets that the capturing program says it lost (interface statistics). */
uint64_t capture_dropped(const struct capture_file *f);
uint64_t capture_bytes(const struct capture_file *f); /* unpacked bytes taken so far */
/* Is the file's first byte one of a capture (also packed)? For commands that take folders and captures. */
bool capture_looks_like(const char *path);
void capture_close_file(struct capture_file *f); /* NULL is fine */

#endif

/* A pcapng file (wire/pcapng.h has the blocks): one section, interfaces as they are announced. */
#ifndef WIRE_PCAP_WRITER_H
#define WIRE_PCAP_WRITER_H

#include "wire/pcap/capture.h"

struct capture_writer;

/* "-" is standard output. */
int capture_writer_open(struct capture_writer **out, const char *path, const char *about,
                        struct err_ctx *ctx);
/* Returns the number of the interface, or an error. name may be NULL. */
int capture_writer_iface(struct capture_writer *w, uint32_t link, const char *name, struct err_ctx *ctx);
/* Of *k: ts_ns, p, n, wire, comment; iface is the writer's. */
int capture_writer_put(struct capture_writer *w, uint32_t iface, const struct capture_packet *k,
                       struct err_ctx *ctx);
/* What the kernel dropped, as interface statistics. */
int capture_writer_stats(struct capture_writer *w, uint32_t iface, uint64_t ts_ns, uint64_t received,
                         uint64_t dropped, struct err_ctx *ctx);
/* Who opens the file now reads all that was put. */
int capture_writer_flush(struct capture_writer *w, struct err_ctx *ctx);
/* NULL is fine. ERR_IO, ERR_FULL: the file is not whole. */
int capture_writer_close(struct capture_writer *w, struct err_ctx *ctx);

#endif

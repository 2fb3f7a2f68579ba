/* What libpcap is for: capturing from an interface, and filters in its language, for files too. */
#ifndef WIRE_PCAP_LIVE_H
#define WIRE_PCAP_LIVE_H

#include "wire/pcap/capture.h"

struct capture_live;

/* buffer: bytes in the kernel (0: 16 MiB). ERR_PERM, ERR_NOTFOUND (no such interface), ERR_UNAVAILABLE,
 * ERR_USAGE (a filter that does not compile). filter may be NULL. */
int capture_live_open(struct capture_live **out, const char *iface, const char *filter, uint32_t snap,
                      uint64_t buffer, struct err_ctx *ctx);
/* 1 a packet; 0 none within 100 ms (flush what you have); ERR_IO. */
int capture_live_next(struct capture_live *l, struct capture_packet *k, struct err_ctx *ctx);
uint64_t capture_live_dropped(struct capture_live *l); /* by the kernel, so far */
uint32_t capture_live_link(const struct capture_live *l);
void capture_live_close(struct capture_live *l); /* NULL is fine */

struct capture_filter; /* compiled once per link type that a file has */
int capture_filter_new(struct capture_filter **out, const char *text, struct err_ctx *ctx);
/* 1 it passes, 0 it does not, ERR_USAGE: it does not compile for this link type. */
int capture_filter_pass(struct capture_filter *f, const struct capture_packet *k, struct err_ctx *ctx);
void capture_filter_free(struct capture_filter *f);

#endif

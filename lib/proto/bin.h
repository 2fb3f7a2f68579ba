/* chat.v1.bin: the messages of messages.def in compact binary. The same struct msg, limits, errors and walk
 * (proto.h) as for JSON; a property test holds the two together.
 *
 *     frame    message+                              1 to PROTO_BATCH_MAX
 *     message  varint length, varint type, field*    length: of what follows it
 *     field    varint (number << 2 | shape), value
 *     varint   LEB128: 7 bits a byte, lowest first, high bit = more; at most 64 bits, shortest form only
 *
 *     shape  value                            field types of messages.def
 *     0      varint                           U64S, INT (< 2^53), U32, BOOL (0 or 1)
 *     1      16 bytes                         ID
 *     2      varint length, bytes             STR (UTF-8), BYTES (<= 16), and the lists:
 *                                             U64S_LIST   varint*
 *                                             CLAIMS      (varint chat, varint epoch ^ epoch before it,
 *                                                          varint seq)*
 *                                             STR_LIST    (varint length, bytes)*
 *                                             LIMITS      varints, in the order of LIMITS_FIELDS
 *                                             RANGES      (varint from, varint to)*
 *                                             REPORTS     (varint chat, varint epoch, varint head, hash)*
 *                                             REFUSED     (16 bytes id, code)*
 *                                             ENTRIES     (varint epoch, varint seq, 16 bytes id, varint
 * from, varint ts, kind, body, tag)* COUNTS      (varint from, to, delivered, read, of)* where texts and
 * hashes are (varint length, bytes)
 *
 * A message's type is its place in messages.def, a field's number its place in the message, both from 1. So
 * messages and fields are only ever appended there; golden vectors (tests/unit/proto/test_bin.c) catch the
 * rest. What a newer peer may send is skipped as in JSON: unknown fields of shapes 0 to 2, limits beyond the
 * known ones; a message of unknown type yields MSG_NONE with code "#<type>". A field twice, of the wrong
 * shape, or a required one missing is ERR_INVALID. Fields may come in any order.
 *
 * Sizes: a msg with a text of 100 bytes takes 180 bytes here and 330 in JSON; an ack 8 to 20. */
#ifndef PROTO_BIN_H
#define PROTO_BIN_H

#include "proto/proto.h"

void proto_bin_encode(struct buf *out, const struct msg *m);
int proto_bin_begin(struct proto_frame *f, const char *p, size_t n, struct proto_scratch *s,
                    struct err_ctx *ctx);
int proto_bin_next(struct proto_frame *f, struct msg *m, struct err_ctx *ctx);

#endif

/* The two files of a trace writer, little-endian (this library refuses to compile elsewhere).
 *
 *   NAME.PID.N.ctr   one TRACE_HEADER_BYTES header, then the records in the order they were emitted
 *   NAME.PID.N.ring  one page: the same header, `head` and `tail`; then `capacity` slots of one record
 *
 * Record number k of a writer is record k of the .ctr and stands in ring slot k % capacity. head = records
 * ever put into the ring, tail = records known to be in the .ctr. A process that died leaves both; the
 * records from the .ctr's own count up to head are only in the ring. The live owner holds a flock on the
 * ring. */
#ifndef TRACE_FORMAT_IMPL_H
#define TRACE_FORMAT_IMPL_H

#include <stdatomic.h>

#include "trace/trace.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "trace files are little-endian");

#define TRACE_MAGIC_CTR    "chatctr1"
#define TRACE_MAGIC_RING   "chatrng1"
#define TRACE_VERSION      1
#define TRACE_HEADER_BYTES 256
#define TRACE_RING_PAGE    4096
#define TRACE_RING_MAX     (1u << 24) /* slots: 1 GiB */

#define TRACE_FILE_CLOSED  0x01 /* emitted is final: nothing more was ever emitted */
#define TRACE_FILE_TSC     0x02 /* times come from the calibrated time stamp counter */
#define TRACE_FILE_VIRTUAL 0x04 /* times are those of a simulated world */

struct trace_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint32_t record_bytes, capacity; /* capacity: ring slots */
    uint32_t pid, number;
    uint16_t node, flags;
    uint32_t writers; /* of this process so far: a missing file shows */
    uint64_t process; /* random, the same in all files of one process */
    uint64_t writer;  /* random: a .ring belongs to the .ctr with the same number */
    uint64_t seed;
    int64_t utc_offset_ns;                    /* CLOCK_REALTIME - CLOCK_MONOTONIC when opened */
    uint64_t opened_ns;                       /* CLOCK_MONOTONIC */
    uint64_t tsc_base, tsc_base_ns, tsc_mult; /* ns = tsc_base_ns + ((tsc - tsc_base) * tsc_mult >> 32) */
    uint64_t emitted, dropped;                /* records put into the ring; records a full ring refused */
    char name[32];
    char host[64];
    uint32_t sample; /* one user in so many is in it; 0: all */
    uint8_t reserved[36];
};
_Static_assert(sizeof(struct trace_header) == TRACE_HEADER_BYTES, "the header's size is part of the format");

/* The first page of a ring file. head and dropped are the emitting thread's line, tail the flusher's. */
struct trace_ring {
    struct trace_header h;
    uint8_t pad0[768];
    _Alignas(64) _Atomic uint64_t head;
    _Atomic uint64_t dropped;
    uint8_t pad1[1008];
    _Alignas(64) _Atomic uint64_t tail;
    uint8_t pad2[2040];
};
_Static_assert(sizeof(struct trace_ring) == TRACE_RING_PAGE, "the ring's slots begin on a page of their own");

/* Null when the header makes sense, else what is wrong with it. */
const char *trace_header_wrong(const struct trace_header *h, const char *magic);

#endif

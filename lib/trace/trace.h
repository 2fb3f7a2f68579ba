/* Events of messages: the record, and how a thread writes it. (Reading and judging: trace/reader.h,
 * trace/join.h.)
 *
 * One event is one 64-byte little-endian record. Each thread has a writer of its own: a ring in a file that
 * is mapped shared (<dir>/<name>.<pid>.<n>.ring, so that a process killed with SIGKILL leaves its last events
 * behind) and a flusher thread per `struct trace` that appends full parts to <name>.<pid>.<n>.ctr. Emitting
 * costs <= 20 ns, makes no system call and never blocks: what a full ring drops is counted in the file's
 * header and shown by every reader.
 *
 * Completeness is provable: a *lane* is the sequence of records of one (node, conn), numbered from 0 by
 * lane_seq; it begins with SOCKET_OPEN and ends with SOCKET_CLOSE. A reader that finds a number missing, or
 * no end, knows that absence of a record in this lane proves nothing. The header's count of emitted records
 * does the same for a whole writer.
 *
 * Must not know: any other room but util. */
#ifndef TRACE_TRACE_H
#define TRACE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/id.h"

enum hop {
#define HOP(name, text, side, arg) HOP_##name,
#include "trace/events.def"
#undef HOP
    HOP_COUNT
};

enum reason {
#define REASON(name, text) REASON_##name,
#include "trace/reasons.def"
#undef REASON
    REASON_COUNT
};

enum net {
#define NET(name, text) NET_##name,
#include "trace/nets.def"
#undef NET
    NET_COUNT
};

#define TRACE_FLAG_DOWN     0x01 /* link: from the server to the phone */
#define TRACE_FLAG_ONE_PUSH 0x01 /* fan out: legacy, each recipient is pushed to at most once */
#define TRACE_FLAG_LEFT     0x01 /* member: left */
#define TRACE_FLAG_SYN      0x02 /* link: the packet has SYN; its tcp seq is the stream's origin */
#define TRACE_FLAG_FIN      0x04
#define TRACE_FLAG_RST      0x08
#define TRACE_FLAG_DURABLE  0x10 /* server receive: this server commits before it pushes */
#define TRACE_FLAG_ONE_SEND 0x01 /* submit: legacy, this client sends an id at most once */
#define TRACE_FLAG_UNSURE                                                                                    \
    0x40 /* from a capture. receive: whether the app read it is not known; socket close:                     \
          * `arg` ns earlier it certainly was open, in between nothing says */
#define TRACE_FLAG_INFERRED 0x80 /* from a capture: follows from other packets, was not seen itself */
#define TRACE_FLAG_OUTBOX   0x02 /* submit: this client keeps it until accepted or given up */

/* Node numbers tell the writers of one run apart. */
#define TRACE_NODE_SERVER 1   /* 1..99: server nodes; a restarted server keeps its number */
#define TRACE_NODE_LINK   100 /* 100..199 */
#define TRACE_NODE_LOAD   200 /* 200..299 */
#define TRACE_NODE_RUN    300

struct trace_event {
    uint64_t ts_ns; /* CLOCK_MONOTONIC of the host; 0: filled in by trace_emit */
    struct id id;   /* message id; for link records and SOCKET_OPEN a struct trace_flow */
    uint64_t chat, user, arg;
    uint32_t conn, device; /* conn: unique per node over the whole run, never 0 for a real connection */
    uint16_t node;
    uint8_t hop, reason;
    uint8_t attempt, flags;
    uint16_t lane_seq;
};
_Static_assert(sizeof(struct trace_event) == 64, "a trace record is 64 bytes");

/* What link records and SOCKET_OPEN put into `id`: IPv4 addresses and ports in host order. For SOCKET_OPEN on
 * either side src is the client's end. For link records src is the packet's sender. */
struct trace_flow {
    uint32_t src, dst;
    uint16_t sport, dport;
    uint32_t tcp_seq;
};
_Static_assert(sizeof(struct trace_flow) == sizeof(struct id), "a flow fits where the id stands");

struct trace;        /* a process's tracing: directory, flusher */
struct trace_writer; /* one thread's ring; opaque */

struct trace_config {
    const char *dir;  /* created if missing */
    const char *name; /* "server", "link", "load" */
    uint16_t node;
    uint64_t seed;        /* into the header */
    uint32_t ring_events; /* power of two; 0: 65,536 (4 MiB) */
    /* Where a record for everybody would be too much: only those of one user in `sample` (0, 1: all), who
     * come in blocks of TRACE_BLOCK neighbours, the same in every process. A lane belongs to a user, so a
     * lane is whole or is not there; what names no user is kept. Stands in the header: readers say it. */
    uint32_t sample;
};
#define TRACE_BLOCK 4096u

/* Also sweeps *.ring files left in `dir` by dead processes of the same name into their .ctr files. */
int trace_open(struct trace **t, const struct trace_config *c, struct err_ctx *ctx);
/* Flushes all and closes; writers become invalid. NULL is fine. Returns ERR_IO/ERR_FULL if a flush ever
 * failed. */
int trace_close(struct trace *t);
/* A writer for the calling thread; owned by `t`. ERR_LIMIT past 64 writers. */
int trace_writer_new(struct trace_writer **w, struct trace *t, struct err_ctx *ctx);
/* Virtual time for simulated worlds: from now on events without a time get this one. */
void trace_set_virtual(struct trace_writer *w, uint64_t now_ns);

/* Wait until the flusher has taken all that was emitted so far: for worlds whose time is faster than its own.
 */
void trace_sync(struct trace *t);

/* Hot path: no allocation, no lock, no system call. w may be NULL (tracing off). Sets ts_ns if 0, and node.
 */
void trace_emit(struct trace_writer *w, const struct trace_event *e);

/* Are this user's events kept? False without a writer. To be asked before work is done for an event. */
bool trace_wants(const struct trace_writer *w, uint64_t user);

/* A connection's lane; lives in the connection's state. */
struct trace_lane {
    uint32_t conn;
    uint16_t next;
    uint8_t net : 7;
    uint8_t quiet : 1; /* of a user who is not in the sample: nothing is emitted */
    uint8_t device_lo; /* device & 0xff, free for the owner's use */
};
/* Emit with the lane's conn and number filled in. */
void trace_lane_emit(struct trace_writer *w, struct trace_lane *lane, const struct trace_event *e);

uint64_t trace_dropped(const struct trace *t); /* events lost to full rings so far */
uint64_t trace_emitted(const struct trace *t);

const char *hop_name(int hop);       /* "CLIENT_SUBMIT"-like identifiers in lower case: "client_submit" */
const char *hop_text(int hop);       /* "submit" */
const char *reason_text(int reason); /* "queue full" */
const char *net_name(int net);       /* "lte" */
enum net net_parse(const char *s);   /* unknown text: NET_UNKNOWN */

#endif

/* Reading what the writers of a run left: every *.ctr and *.ring of the given folders, each record once, in
 * the order of time.
 *
 * Files may be truncated, corrupt or hostile, and their writers may still be running: what can be read is
 * read, what is wrong becomes one `struct trace_problem` naming file and offset, and the writer counts as
 * incomplete, so that nothing is concluded from what it does not say. At most 2^32 - 2 records. Memory: 66
 * bytes a record here, and at most as much again for the index of trace/join.h.
 *
 * Must not know: what the records mean. */
#ifndef TRACE_READER_H
#define TRACE_READER_H

#include "trace/trace.h"

#define TRACE_NONE         UINT32_MAX /* no record */
#define TRACE_PROBLEMS_MAX 64         /* kept; more are counted only */
#define TRACE_SOURCES_MAX  65535u

struct trace_source {
    char path[256]; /* of the .ctr (or the .ring alone); longer ones keep their end */
    char name[32], host[64];
    uint16_t node;
    bool complete; /* every record this writer ever emitted is here */
    bool virtual_time;
    uint32_t pid, writers; /* writers: files that this process has */
    uint64_t process, writer, seed;
    int64_t utc_offset_ns;
    uint64_t emitted, present, dropped;
};

struct trace_problem {
    char text[384]; /* "DIR/server.17.0.ctr: offset 640: hop 99 is unknown" */
};

/* Which part of the system a node number belongs to. */
enum trace_side { TRACE_SIDE_SERVER, TRACE_SIDE_LINK, TRACE_SIDE_LOAD, TRACE_SIDE_RUN, TRACE_SIDES };
enum trace_side trace_side(uint16_t node);

struct trace_index; /* trace/join.h */

struct trace_run {
    struct trace_event *event; /* rising ts_ns; one writer's records keep their order */
    uint16_t *from;            /* of each record: its place in `source` */
    uint32_t events;
    struct trace_source *source;
    uint32_t sources;
    struct trace_problem problem[TRACE_PROBLEMS_MAX];
    uint64_t problems; /* all of them: > 0 means that input was bad and the tool's status is 65 */
    /* Per side: does a writer exist, and is every writer of every process complete? */
    bool exists[TRACE_SIDES], complete[TRACE_SIDES];
    int64_t utc_offset_ns; /* of the first source */
    uint32_t sample;       /* only one user in so many was traced (trace_config); 0: all */
    struct trace_index *index;
};

/* `dirs` may also name single files, those of rows (trace/rows.h: .jsonl, .csv) too. 0 also with problems
 * (see there); an error when a folder can't be read at all or holds no trace (ERR_NOTFOUND), or memory is
 * short. Release in any case. */
int trace_run_load(struct trace_run *r, const char *const *dirs, int dirs_n, struct err_ctx *ctx);

/* A run from memory: simulated worlds and tests. `emitted` > n declares that records are missing. */
struct trace_memory {
    uint16_t node;
    const struct trace_event *event;
    uint32_t n;
    uint64_t emitted;
    const char *name; /* for people; NULL: "memory-<n>" */
    bool utc;         /* times are since 1970: taken to the files' clock (trace_run_load_with) */
};
int trace_run_from_memory(struct trace_run *r, const struct trace_memory *part, int parts,
                          struct err_ctx *ctx);

/* Folders and files, and parts from memory beside them: what captures say (wire/pcap/evidence.h). dirs_n may
 * be 0. The parts stay the caller's and may go afterwards. */
int trace_run_load_with(struct trace_run *r, const char *const *dirs, int dirs_n,
                        const struct trace_memory *part, int parts, struct err_ctx *ctx);

void trace_run_release(struct trace_run *r);

#endif

/* The index over a run's records: who belongs together. Judging happens in judge.c. */
#ifndef TRACE_INDEX_IMPL_H
#define TRACE_INDEX_IMPL_H

#include "trace/join.h"
#include "util/clock.h"
#include "util/map.h"

/* Two ends of a lane, or two processes, see one moment up to this apart (scheduling, clock calibration). */
#define SKEW_NS (2 * NS_PER_MS)
/* What was under way this shortly before the end of the run was not observed to its end. */
#define IN_FLIGHT_NS (2 * NS_PER_S)

/* A moment that is certainly before `ns` at the other end. */
static inline uint64_t skewed_before(uint64_t ns)
{
    return ns > SKEW_NS ? ns - SKEW_NS : 0;
}

/* Records grouped by a 16-byte key: group g has rec[first[g]] .. rec[first[g + 1] - 1], in order of time. */
struct groups {
    struct id *key;
    uint32_t *first, *rec;
    uint32_t *slot; /* hash table of group numbers + 1 */
    uint32_t n, cap, slots;
    uint64_t seed;
};

/* What link.c found out about one direction of a connection: records of its flow, the stream's origin. */
struct direction {
    const uint32_t *rec;
    uint64_t reached; /* bytes that arrived without a hole */
    uint32_t n, origin;
    bool asked, found, measured;
};

struct lane {
    struct direction dir[2];         /* up, down; filled in when first asked for */
    uint64_t user, start_ns, end_ns; /* of its first and last record */
    uint64_t hole_ns;                /* the latest moment before which a record is missing; 0: no hole */
    uint32_t open, close;            /* records, or TRACE_NONE */
    uint32_t peer;                   /* the other end's lane, or TRACE_NONE */
    uint32_t flow;                   /* group in flows, or TRACE_NONE */
    uint32_t device;
    uint16_t node, next;
    uint8_t net;
    bool begun;
};

struct trace_index {
    struct groups messages, flows, lanes; /* flows: key of flow_key(); lanes: key {node, conn} */
    struct lane *lane;
    uint32_t *by_user, *server_by_user; /* client and server lanes by (user, start) */
    uint32_t by_user_n, server_by_user_n;
    bool redelivers;  /* something in this run is pushed again: one push is then not the only path */
    uint32_t *member; /* SERVER_MEMBER records by (chat, user, time) */
    uint32_t member_n;
    uint32_t *fanout; /* SERVER_FANOUT records by (chat, time) */
    uint32_t fanout_n;
    struct map chats; /* chat -> struct chat_members */
    uint32_t *life;   /* SERVER_START and SERVER_STOP records in order of time */
    uint32_t life_n;
    uint32_t *epoch; /* SERVER_EPOCH records of one chat, in order of time */
    uint32_t epoch_n;
    uint32_t *hole; /* BUS_HOLE records, in order of time */
    uint32_t hole_n;
    uint64_t server_end_ns; /* the servers' last record */
};

struct chat_members {
    uint32_t first, n;                 /* in `member` */
    uint32_t fanouts_first, fanouts_n; /* in `fanout` */
    uint64_t stable; /* 0 unknown, 1: each fan-out's count agrees with the members, 2: not */
};

void index_free(struct trace_index *x);

/* Group all records that have a key; `of` is scratch for one number per record. */
typedef bool key_fn(const struct trace_event *e, struct id *key);
int groups_build(struct groups *g, const struct trace_run *r, key_fn *key_of, uint32_t *of);
void groups_release(struct groups *g);
bool lane_key(const struct trace_event *e, struct id *key);
void lane_read(const struct trace_run *r, uint32_t number, struct lane *l);
int match_lanes(const struct trace_run *r);

/* Group number or TRACE_NONE. */
uint32_t groups_find(const struct groups *g, const struct id *key);
struct id flow_key(const struct id *flow, bool down);
/* The lane of a record with a connection, else NULL. */
struct lane *lane_of(const struct trace_run *r, const struct trace_event *e);
/* The first SOCKET_READ since that moment whose end offset is at least `offset`, or TRACE_NONE. */
uint32_t lane_read_at(const struct trace_run *r, const struct lane *l, uint64_t offset, uint64_t since_ns);
/* Nothing is missing from this moment to the lane's end. */
bool lane_complete_since(const struct lane *l, uint64_t ns);
uint64_t event_user(const struct trace_run *r, const struct trace_event *e);
bool hop_names_message(int hop);
/* The network that `user` was on at that moment, by its latest connection before (or the first after). */
enum net user_net(const struct trace_run *r, uint64_t user, uint64_t ns);

/* A server lane of that user that was open at that moment, or NULL. */
struct lane *server_lane_at(const struct trace_run *r, uint64_t user, uint64_t ns);

/* Members of `chat` at that moment, rising, into out (room for the chat's record count); returns how many. */
uint32_t members_at(const struct trace_run *r, uint64_t chat, uint64_t ns, uint64_t *out);
struct chat_members *chat_members(const struct trace_run *r, uint64_t chat);

/* How far a direction's bytes reached the far end without a hole: the end offset; false when the stream's
 * origin (SYN) was not seen on this lane's connection. */
bool link_reached(const struct trace_run *r, struct lane *client, struct lane *server, bool down,
                  uint64_t *end);
/* Walk the packets of a direction, from a moment on, that carry bytes of (from, to]: fn gets the record. */
struct byte_range {
    uint64_t from, to, since_ns;
};
typedef void link_fn(void *arg, uint32_t rec);
void link_packets(const struct trace_run *r, struct lane *client, struct lane *server, bool down,
                  struct byte_range range, link_fn *fn, void *arg);
/* The first packet since that moment, in either direction, that reset the connection, or TRACE_NONE. */
uint32_t link_reset(const struct trace_run *r, struct lane *client, struct lane *server, uint64_t since_ns);
/* Of records in order of time, the position of the first at or after that moment. */
uint32_t first_since(const struct trace_run *r, const uint32_t *rec, uint32_t n, uint64_t ns);

#endif

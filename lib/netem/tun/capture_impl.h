/* Inside the room: what both ends of a link see, as pcapng (draft-ietf-opsawg-pcapng): near.pcapng and
 * far.pcapng with nanoseconds, LINKTYPE_RAW, and the fate of each packet as its comment:
 *
 *     where it was sent:   fate=delivered air=+10.120000ms arrive=+45.120000ms radio="up"
 *                          fate=lost reason="queue full" radio="up"
 *     where it came out:   fate=arrived sent=-45.131000ms late=+0.011000ms
 *
 * Times are relative to the packet's own; `late` is what this machine added to the link's delay; `copy`,
 * `corrupted` and `reordered` are said where they apply.
 *
 * The shuttle copies a packet into a ring and goes on; a thread writes. A record waits in the ring until its
 * fate is final, so the file is in the order of time. What a full ring or a full disk takes is counted: in
 * the shared counter, in the epb_dropcount of the next packet and in the interface statistics. */
#ifndef NETEM_TUN_CAPTURE_IMPL_H
#define NETEM_TUN_CAPTURE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "trace/trace.h"

#define CAPTURE_RING (128u << 20) /* bytes; touched only as it fills */
#define CAPTURE_NONE UINT32_MAX

struct capture;

struct capture_fate {
    uint64_t depart_ns, deliver_ns; /* 0: it did not come so far */
    uint64_t sent_ns;               /* of arrivals: when it was offered */
    uint8_t reason;                 /* enum reason: NONE: delivered */
    uint8_t state;                  /* enum link_state when it was offered */
    bool arrived, copy, corrupted, reordered;
};

/* `dir` is made. `about` goes into both files; `missed` is shared with the owner. ERR_IO, ERR_PERM,
 * ERR_NOMEM. */
int capture_open(struct capture **out, const char *dir, const char *about, uint64_t *missed,
                 struct err_ctx *ctx);
/* Hot path: no system call, no lock. A packet seen at an end (0 near, 1 far). Returns where its fate goes, or
 * CAPTURE_NONE when there is no room; every other record must be settled once. */
uint32_t capture_packet(struct capture *c, unsigned end, const uint8_t *at, uint32_t len, uint64_t now_ns);
/* CAPTURE_NONE is fine. */
void capture_settle(struct capture *c, uint32_t record, const struct capture_fate *fate);
/* Writes what is left and closes; NULL is fine. ERR_IO, ERR_FULL: the files are not whole. */
int capture_close(struct capture *c);

#endif

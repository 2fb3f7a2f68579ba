/* What became of each packet: a log in shared memory that the shuttle appends to, so that anybody can ask the
 * model again. Offered at the same times, a fresh link of the same profile and seed must decide the same;
 * tun_fates_replay tells. Orders are logged too, since they change what follows. */
#ifndef NETEM_TUN_FATES_H
#define NETEM_TUN_FATES_H

#include <stdint.h>

#include "util/err.h"

enum tun_fate_kind {
    TUN_FATE_PACKET = 0,
    TUN_FATE_DETACH,
    TUN_FATE_ATTACH,
    TUN_FATE_BLACKOUT, /* until deliver_ns */
    TUN_FATE_PROFILE,  /* the network changed: replay ends here for this address, and counts what follows */
};

#define TUN_FATE_SYN       0x01 /* TCP SYN without ACK */
#define TUN_FATE_FRAGMENT  0x02 /* a later fragment: no ports, the NAT lets it pass */
#define TUN_FATE_CORRUPT   0x04
#define TUN_FATE_REORDERED 0x08
#define TUN_FATE_OPEN      255  /* as a reason: still in a drop-head queue when the log was read */
#define TUN_FATE_FINAL     0x80 /* `finally` and `handed_ns` say what really happened */

struct tun_fate {
    uint64_t at_ns;                 /* offered to the link, CLOCK_MONOTONIC */
    uint64_t depart_ns, deliver_ns; /* as the link decided then; 0 where it did not */
    uint64_t copy_ns;               /* when its duplicate is due; 0: none */
    uint64_t handed_ns;             /* given to the kernel of the other side; 0: never */
    uint32_t phone, peer;           /* host order */
    uint16_t phone_port, peer_port, bytes;
    uint8_t protocol, dir;   /* enum netem_dir */
    uint8_t kind, flags;     /* enum tun_fate_kind, TUN_FATE_* */
    uint8_t reason, finally; /* enum reason: decided when offered, and in the end */
    uint8_t zero[4];
};
_Static_assert(sizeof(struct tun_fate) == 64, "a record is a cache line");

struct tun_fates {
    uint64_t max, n, missed; /* missed: came when the log was full */
    struct tun_fate at[];
};

/* Room for `max` records, in memory that is shared with processes forked later and is touched only as it is
 * used. NULL: no memory. */
struct tun_fates *tun_fates_new(uint64_t max);
void tun_fates_free(struct tun_fates *f); /* NULL is fine */

struct tun_group;
struct tun_replay {
    uint64_t packets, differ, unknown; /* unknown: nothing to compare with (after a change of network) */
    uint64_t first;                    /* index of the first that differs */
};
/* Ask fresh links of these groups. ERR_NOMEM, ERR_NOTFOUND (an address of no group). */
int tun_fates_replay(const struct tun_fates *f, const struct tun_group *groups, uint32_t groups_n,
                     uint64_t seed, struct tun_replay *out, struct err_ctx *ctx);

#endif

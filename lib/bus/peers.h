/* Who else is there: a peer is up while something of it is heard, and new when it has started again (its
 * incarnation, a number that it drew at its start, is another one). Pure. */
#ifndef BUS_PEERS_H
#define BUS_PEERS_H

#include "bus/bus.h"
#include "util/clock.h"

#define BUS_BEAT_NS   (NS_PER_S / 2)     /* how often a node is heard at least */
#define BUS_SILENT_NS (5 * NS_PER_S / 2) /* then it counts as down */

struct bus_peer {
    uint64_t incarnation; /* 0: never heard */
    uint64_t heard_ns;
    bool up;
};

enum bus_heard { BUS_HEARD_AGAIN, BUS_HEARD_UP, BUS_HEARD_NEW };
/* Something of the peer came. UP: it was down, and is the same as before; NEW: it has lost what it knew. */
static inline enum bus_heard bus_peer_heard(struct bus_peer *p, uint64_t incarnation, uint64_t now_ns)
{
    bool was_up = p->up, same = p->incarnation == incarnation;
    *p = (struct bus_peer){incarnation, now_ns, true};
    return !same ? BUS_HEARD_NEW : was_up ? BUS_HEARD_AGAIN : BUS_HEARD_UP;
}
/* True when it has just become silent. */
static inline bool bus_peer_silent(struct bus_peer *p, uint64_t now_ns)
{
    if (!p->up || now_ns - p->heard_ns < BUS_SILENT_NS)
        return false;
    p->up = false;
    return true;
}

#endif

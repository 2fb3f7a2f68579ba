/* Inside the room: the process that carries packets from one TUN device to the other. */
#ifndef NETEM_TUN_SHUTTLE_IMPL_H
#define NETEM_TUN_SHUTTLE_IMPL_H

#include "netem/tun/tun.h"

#define TUN_GROUPS_MAX 256

/* Orders on the control socket (SOCK_SEQPACKET), each answered by a struct shuttle_answer; the shuttle sends
 * the first answer by itself when it is ready. End of file means that the owner died. */
enum shuttle_op { SHUTTLE_BLACKOUT = 1, SHUTTLE_STOP = 2, SHUTTLE_BEGIN = 3 };
struct shuttle_order {
    uint32_t op, group; /* group UINT32_MAX: all */
    uint64_t ns;
};
struct shuttle_answer {
    int rc;
    char text[512];
};

struct shuttle_config {
    const struct tun_group *groups;
    uint32_t groups_n;
    uint64_t seed;
    const char *trace_dir;
    bool calm;               /* pass everything at once until SHUTTLE_BEGIN */
    struct tun_stats *stats; /* shared with the owner: one per group, and one for packets of no group */
    int tun_fd[2];           /* near, far */
    int ns_fd[2];
    int control_fd;
};

/* Runs until told to stop or until the owner is gone, then kills what is left in the namespaces. */
void shuttle_run(const struct shuttle_config *c);

#endif

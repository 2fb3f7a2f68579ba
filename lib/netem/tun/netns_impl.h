/* Inside the room: a namespace with one TUN device, held by file descriptors alone. */
#ifndef NETEM_TUN_NETNS_IMPL_H
#define NETEM_TUN_NETNS_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct nl_sock;

#define NETNS_DEVICE_SIZE 16

struct netns {
    int ns_fd, tun_fd;  /* CLOEXEC; tun_fd does not block */
    struct nl_sock *nl; /* made in the namespace, so it speaks to it from anywhere */
    uint32_t local;     /* the address of this side, host order */
    bool near;
    char device[NETNS_DEVICE_SIZE];
};

struct netns_plan {
    bool near;
    uint32_t local;     /* the address of this side */
    uint32_t phones;    /* far: the block of addresses that this device leads to, and its prefix length */
    int phones_prefix;  /* near: not used, all of NETEM_NEAR_NET is local */
    int join_fd;        /* far: add a device to this namespace; -1: a namespace of its own */
    const char *device; /* unique in the namespace */
};

/* ERR_PERM without CAP_NET_ADMIN + CAP_SYS_ADMIN, ERR_UNAVAILABLE without TUN. On failure nothing is left. */
int netns_make(struct netns *n, const struct netns_plan *plan, struct err_ctx *ctx);
void netns_release(struct netns *n);
/* Packets that the kernel dropped at the device because nobody read it in time. */
uint64_t netns_overrun(struct netns *n);
/* A socket of the namespace, for callers outside of it. */
int netns_socket(const struct netns *n, int domain, int type, int *fd, struct err_ctx *ctx);

#endif

/* Inside the room: a namespace with one TUN device, held by file descriptors alone. */
#ifndef NETEM_TUN_NETNS_IMPL_H
#define NETEM_TUN_NETNS_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct nl_sock;

struct netns {
    int ns_fd, tun_fd;  /* CLOEXEC; tun_fd does not block */
    struct nl_sock *nl; /* made in the namespace, so it speaks to it from anywhere */
    uint32_t local;     /* the address of its TUN device, host order */
    bool near;
};

/* ERR_PERM without CAP_NET_ADMIN + CAP_SYS_ADMIN, ERR_UNAVAILABLE without TUN. On failure nothing is left. */
int netns_make(struct netns *n, bool near, uint32_t local, struct err_ctx *ctx);
void netns_release(struct netns *n);
/* Packets that the kernel dropped at the device because nobody read it in time. */
uint64_t netns_overrun(struct netns *n);
/* A socket of the namespace, for callers outside of it. */
int netns_socket(const struct netns *n, int domain, int type, int *fd, struct err_ctx *ctx);

#endif

#include "cmd/chat-netem/calibrate_pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEAR_ADDR 0xC6120001u /* 198.18.0.1 */
#define FAR_ADDR  0xC6130001u /* 198.19.0.1 */
#define PORT      9999
#define ROOM      (32 << 20) /* bytes of frames that wait for us */

static const uint8_t mac[2][6] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}; /* near, far */

static int nl_bad(int nlerr, const char *what, struct err_ctx *err)
{
    return err_set(err, nlerr == -NLE_PERM ? ERR_PERM : ERR_UNAVAILABLE, "%s: %s", what, nl_geterror(nlerr));
}

static int sysctl(const char *name, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/%s", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    ssize_t n = write(fd, value, strlen(value));
    close(fd);
    return n < 0 ? -1 : 0;
}

/* A namespace without IPv6's own packets, which the thread is in afterwards. */
static int fresh_ns(int *fd, struct err_ctx *err)
{
    if (unshare(CLONE_NEWNET) < 0)
        return errno == EPERM ? err_set(err, ERR_PERM, "making a network namespace needs root")
                              : err_set(err, ERR_UNAVAILABLE, "network namespaces: %s", strerror(errno));
    sysctl("ipv6/conf/all/disable_ipv6", "1");
    sysctl("ipv6/conf/default/disable_ipv6", "1");
    *fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? err_errno(err, "/proc/thread-self/ns/net") : 0;
}

static struct nl_addr *ipv4(uint32_t host, int prefix)
{
    uint32_t net = htonl(host);
    struct nl_addr *a = nl_addr_build(AF_INET, &net, sizeof net);
    if (a)
        nl_addr_set_prefixlen(a, prefix);
    return a;
}

static int make_veth(struct nl_sock *s, int far_ns)
{
    struct rtnl_link *near = rtnl_link_veth_alloc(), *far = near ? rtnl_link_veth_get_peer(near) : NULL;
    struct nl_addr *a[2] = {nl_addr_build(AF_LLC, mac[0], 6), nl_addr_build(AF_LLC, mac[1], 6)};
    int rc = -NLE_NOMEM;
    if (near && far && a[0] && a[1]) {
        rtnl_link_set_name(near, PAIR_NEAR);
        rtnl_link_set_addr(near, a[0]);
        rtnl_link_set_name(far, PAIR_FAR);
        rtnl_link_set_addr(far, a[1]);
        rtnl_link_set_ns_fd(far, far_ns);
        rc = rtnl_link_add(s, near, NLM_F_CREATE | NLM_F_EXCL);
    }
    nl_addr_put(a[0]);
    nl_addr_put(a[1]);
    rtnl_link_put(far);
    rtnl_link_put(near);
    return rc;
}

static int device_up(struct nl_sock *s, int index)
{
    struct rtnl_link *which = rtnl_link_alloc(), *wanted = rtnl_link_alloc();
    int rc = -NLE_NOMEM;
    if (which && wanted) {
        rtnl_link_set_ifindex(which, index);
        rtnl_link_set_flags(wanted, IFF_UP);
        rc = rtnl_link_change(s, which, wanted, 0);
    }
    rtnl_link_put(which);
    rtnl_link_put(wanted);
    return rc;
}

/* The peer's address never expires, so no ARP disturbs the rules. */
static int add_peer(struct nl_sock *s, int index, uint32_t peer, const uint8_t *peer_mac)
{
    struct rtnl_neigh *n = rtnl_neigh_alloc();
    struct nl_addr *dst = ipv4(peer, 32), *ll = nl_addr_build(AF_LLC, peer_mac, 6);
    int rc = -NLE_NOMEM;
    if (n && dst && ll) {
        rtnl_neigh_set_ifindex(n, index);
        rtnl_neigh_set_lladdr(n, ll);
        rtnl_neigh_set_state(n, NUD_PERMANENT);
        rc = rtnl_neigh_set_dst(n, dst);
        rc = rc ? rc : rtnl_neigh_add(s, n, NLM_F_CREATE);
    }
    nl_addr_put(dst);
    nl_addr_put(ll);
    rtnl_neigh_put(n);
    return rc;
}

static int add_address(struct nl_sock *s, int index, uint32_t own, uint32_t peer)
{
    struct rtnl_addr *a = rtnl_addr_alloc();
    struct nl_addr *local = ipv4(own, 32), *to = ipv4(peer, 32);
    int rc = -NLE_NOMEM;
    if (a && local && to) {
        rtnl_addr_set_ifindex(a, index);
        rc = rtnl_addr_set_local(a, local);
        rc = rc ? rc : rtnl_addr_set_peer(a, to);
        rc = rc ? rc : rtnl_addr_add(s, a, 0);
    }
    nl_addr_put(local);
    nl_addr_put(to);
    rtnl_addr_put(a);
    return rc;
}

/* In the namespace of the calling thread. */
static int configure(const char *name, uint32_t own, uint32_t peer, const uint8_t *peer_mac, int *index,
                     struct err_ctx *err)
{
    struct nl_sock *s = nl_socket_alloc();
    int rc = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;
    *index = (int)if_nametoindex(name);
    rc = rc ? rc : device_up(s, *index);
    rc = rc ? rc : add_address(s, *index, own, peer);
    rc = rc ? rc : add_peer(s, *index, peer, peer_mac);
    nl_socket_free(s);
    return rc ? nl_bad(rc, name, err) : 0;
}

/* Without a checksum, so that damage is not hidden; never fragmented. */
static int open_udp(int *fd, uint32_t own, uint32_t peer, struct err_ctx *err)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(own)};
    struct sockaddr_in to = from;
    int on = 1, room = ROOM, none = 0;
    to.sin_addr.s_addr = htonl(peer);
    *fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (*fd < 0 || bind(*fd, (struct sockaddr *)&from, sizeof from) ||
        connect(*fd, (struct sockaddr *)&to, sizeof to) ||
        setsockopt(*fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on))
        return err_errno(err, "a UDP socket");
    setsockopt(*fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &none, sizeof none); /* nobody reads it */
    return 0;
}

static int open_watch(int *fd, int index, struct err_ctx *err)
{
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
    int on = 1, room = ROOM;
    *fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (*fd < 0 || setsockopt(*fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ||
        setsockopt(*fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
        bind(*fd, (struct sockaddr *)&a, sizeof a))
        return err_errno(err, "a packet socket");
    return 0;
}

static void put_ethernet(struct pair *p)
{
    for (int d = 0; d < 2; d++) { /* up goes to the far end */
        memcpy(p->ethernet[d], mac[d == NETEM_UP], 6);
        memcpy(p->ethernet[d] + 6, mac[d != NETEM_UP], 6);
        memcpy(p->ethernet[d] + 12, "\x08\x00", 2);
    }
    uint16_t port = htons(PORT);
    memcpy(p->ports, &port, 2);
    memcpy(p->ports + 2, &port, 2);
}

int pair_make(struct pair *p, struct err_ctx *err)
{
    struct nl_sock *s = NULL;
    int index;
    *p = (struct pair)PAIR_NONE;
    put_ethernet(p);
    int rc = fresh_ns(&p->far_ns, err);
    rc = rc ? rc : fresh_ns(&p->near_ns, err);
    if (rc)
        return rc;
    s = nl_socket_alloc();
    int nlerr = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;
    nlerr = nlerr ? nlerr : make_veth(s, p->far_ns);
    nl_socket_free(s);
    if (nlerr)
        return nl_bad(nlerr, "making a veth pair", err);
    if (setns(p->far_ns, CLONE_NEWNET) < 0)
        return err_errno(err, "setns");
    rc = configure(PAIR_FAR, FAR_ADDR, NEAR_ADDR, mac[0], &index, err);
    rc = rc ? rc : open_udp(&p->out_fd[NETEM_DOWN], FAR_ADDR, NEAR_ADDR, err);
    rc = rc ? rc : open_watch(&p->watch_fd[NETEM_UP], index, err);
    if (setns(p->near_ns, CLONE_NEWNET) < 0)
        return err_errno(err, "setns");
    rc = rc ? rc : configure(PAIR_NEAR, NEAR_ADDR, FAR_ADDR, mac[1], &index, err);
    return rc ? rc : open_udp(&p->out_fd[NETEM_UP], NEAR_ADDR, FAR_ADDR, err);
}

int pair_watch(struct pair *p, const struct kernel_device *near, struct err_ctx *err)
{
    char ifb[16];
    snprintf(ifb, sizeof ifb, "netem-d%d", near->index);
    unsigned index = if_nametoindex(ifb);
    p->watch_leaving[NETEM_DOWN] = index != 0;
    return open_watch(&p->watch_fd[NETEM_DOWN], index ? (int)index : near->index, err);
}

void pair_release(struct pair *p)
{
    int fds[] = {p->near_ns, p->far_ns, p->out_fd[0], p->out_fd[1], p->watch_fd[0], p->watch_fd[1]};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

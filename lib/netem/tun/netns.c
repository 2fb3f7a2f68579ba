#include "netem/tun/netns_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/route.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/tun/tun.h"

#define READ_QUEUE                                                                                           \
    20000 /* packets the kernel keeps for the shuttle; its memory is allotted at once, 160 kB */

static int nl_failed(int nlerr, const char *what, struct err_ctx *ctx)
{
    int code = nlerr == -NLE_PERM || nlerr == -NLE_NOACCESS ? ERR_PERM : ERR_UNAVAILABLE;
    return err_set(ctx, code, "%s: %s", what, nl_geterror(nlerr));
}

static struct nl_addr *ipv4(uint32_t host, int prefix)
{
    uint32_t net = htonl(host);
    struct nl_addr *a = nl_addr_build(AF_INET, &net, sizeof net);
    if (a)
        nl_addr_set_prefixlen(a, prefix);
    return a;
}

static int link_up(struct nl_sock *nl, int index, unsigned queue, struct err_ctx *ctx)
{
    struct rtnl_link *which = rtnl_link_alloc(), *wanted = rtnl_link_alloc();
    int rc = -NLE_NOMEM;
    if (which && wanted) {
        rtnl_link_set_ifindex(which, index);
        rtnl_link_set_flags(wanted, IFF_UP);
        if (queue)
            rtnl_link_set_txqlen(wanted, queue);
        rc = rtnl_link_change(nl, which, wanted, 0);
    }
    rtnl_link_put(which);
    rtnl_link_put(wanted);
    return rc ? nl_failed(rc, "setting a device up", ctx) : 0;
}

static int add_address(struct nl_sock *nl, int index, uint32_t host, struct err_ctx *ctx)
{
    struct rtnl_addr *a = rtnl_addr_alloc();
    struct nl_addr *local = ipv4(host, 32);
    int rc = -NLE_NOMEM;
    if (a && local) {
        rtnl_addr_set_ifindex(a, index);
        rc = rtnl_addr_set_local(a, local);
        rc = rc ? rc : rtnl_addr_add(nl, a, 0);
    }
    nl_addr_put(local);
    rtnl_addr_put(a);
    return rc ? nl_failed(rc, "setting an address", ctx) : 0;
}

struct route {
    uint32_t host;
    int prefix, index;
    uint8_t table, type, scope;
    uint32_t source; /* 0: let the kernel choose */
};

static int add_route(struct nl_sock *nl, const struct route *want, struct err_ctx *ctx)
{
    struct rtnl_route *r = rtnl_route_alloc();
    struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
    struct nl_addr *to = ipv4(want->host, want->prefix), *source = ipv4(want->source, 32);
    int rc = -NLE_NOMEM;
    if (r && hop && to && source) {
        rtnl_route_nh_set_ifindex(hop, want->index);
        rtnl_route_add_nexthop(r, hop); /* takes hop */
        hop = NULL;
        rtnl_route_set_family(r, AF_INET);
        rtnl_route_set_table(r, want->table);
        rtnl_route_set_type(r, want->type);
        rtnl_route_set_scope(r, want->scope);
        rc = rtnl_route_set_dst(r, to);
        if (!rc && want->source)
            rc = rtnl_route_set_pref_src(r, source);
        rc = rc ? rc : rtnl_route_add(nl, r, 0);
    }
    if (hop)
        rtnl_route_nh_free(hop);
    nl_addr_put(to);
    nl_addr_put(source);
    rtnl_route_put(r);
    return rc ? nl_failed(rc, "setting a route", ctx) : 0;
}

/* The far side's address is on lo, so that it outlives each of the devices that lead to phones. */
static int configure(struct netns *n, const struct netns_plan *plan, struct err_ctx *ctx)
{
    int lo = (int)if_nametoindex("lo"), tun = (int)if_nametoindex(n->device);
    const struct route near_routes[] = {
        /* every phone's address is this host's: any of them can be bound */
        {NETEM_NEAR_NET, 16, lo, RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST, 0},
        {0, 0, tun, RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_LINK, n->local},
    };
    const struct route far_routes[] = {
        {plan->phones, plan->phones_prefix, tun, RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_LINK, n->local},
    };
    const struct route *routes = n->near ? near_routes : far_routes;
    int count = n->near ? 2 : 1;
    bool first = plan->join_fd < 0;
    int rc = first ? link_up(n->nl, lo, 0, ctx) : 0;
    rc = rc ? rc : link_up(n->nl, tun, READ_QUEUE, ctx);
    if (!rc && first)
        rc = add_address(n->nl, n->near ? tun : lo, n->local, ctx);
    for (int i = 0; !rc && i < count; i++)
        rc = add_route(n->nl, &routes[i], ctx);
    return rc;
}

/* Missing files are features this kernel lacks, which is as good as off. */
static int sysctl(const char *name, const char *value, struct err_ctx *ctx)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/%s", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(ctx, "%s", path);
    int rc = write(fd, value, strlen(value)) < 0 ? err_errno(ctx, "%s", path) : 0;
    close(fd);
    return rc;
}

/* What is not a phone's business: the packets of IPv6 discovery would move the links' chains. */
static int tune(struct err_ctx *ctx)
{
    static const char *const settings[][2] = {
        {"ipv6/conf/all/disable_ipv6", "1"},       {"ipv6/conf/default/disable_ipv6", "1"},
        {"ipv4/conf/all/rp_filter", "0"},          {"ipv4/conf/default/rp_filter", "0"},
        {"ipv4/ping_group_range", "0 2147483647"}, {"ipv4/ip_local_port_range", "1024 65535"},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof settings / sizeof settings[0]; i++)
        rc = sysctl(settings[i][0], settings[i][1], ctx);
    return rc;
}

static int open_tun(int *fd, const char *name, struct err_ctx *ctx)
{
    *fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0) {
        if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
            return err_set(ctx, ERR_UNAVAILABLE, "/dev/net/tun: %s (modprobe tun)", strerror(errno));
        return err_errno(ctx, "/dev/net/tun");
    }
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    return ioctl(*fd, TUNSETIFF, &r) < 0 ? err_errno(ctx, "making a TUN device") : 0;
}

struct job {
    struct netns *n;
    const struct netns_plan *plan;
    struct err_ctx *ctx;
    int rc;
};

static int enter(const struct netns_plan *plan, struct err_ctx *ctx)
{
    if (plan->join_fd >= 0)
        return setns(plan->join_fd, CLONE_NEWNET) < 0 ? err_errno(ctx, "joining a namespace") : 0;
    if (unshare(CLONE_NEWNET) == 0)
        return 0;
    return errno == EPERM ? err_set(ctx, ERR_PERM, "making a network namespace needs root")
                          : err_set(ctx, ERR_UNAVAILABLE, "network namespaces: %s", strerror(errno));
}

/* The thread moves into a namespace of its own and ends there; the descriptors keep the namespace. */
static void *make(void *arg)
{
    struct job *j = arg;
    struct netns *n = j->n;
    j->rc = enter(j->plan, j->ctx);
    if (j->rc)
        return NULL;
    n->ns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    j->rc = n->ns_fd < 0 ? err_errno(j->ctx, "/proc/thread-self/ns/net")
                         : open_tun(&n->tun_fd, n->device, j->ctx);
    if (!j->rc && j->plan->join_fd < 0)
        j->rc = tune(j->ctx);
    if (j->rc)
        return NULL;
    n->nl = nl_socket_alloc();
    int nlerr = n->nl ? nl_connect(n->nl, NETLINK_ROUTE) : -NLE_NOMEM;
    j->rc = nlerr ? nl_failed(nlerr, "netlink", j->ctx) : configure(n, j->plan, j->ctx);
    return NULL;
}

int netns_make(struct netns *n, const struct netns_plan *plan, struct err_ctx *ctx)
{
    *n = (struct netns){.ns_fd = -1, .tun_fd = -1, .near = plan->near, .local = plan->local};
    snprintf(n->device, sizeof n->device, "%s", plan->device);
    struct job j = {.n = n, .plan = plan, .ctx = ctx};
    pthread_t t;
    int e = pthread_create(&t, NULL, make, &j);
    if (e)
        return err_set(ctx, ERR_NOMEM, "starting a thread: %s", strerror(e));
    pthread_join(t, NULL);
    if (j.rc)
        netns_release(n);
    return j.rc;
}

void netns_release(struct netns *n)
{
    if (n->nl)
        nl_socket_free(n->nl);
    if (n->tun_fd >= 0)
        close(n->tun_fd);
    if (n->ns_fd >= 0)
        close(n->ns_fd);
    *n = (struct netns){.ns_fd = -1, .tun_fd = -1};
}

uint64_t netns_overrun(struct netns *n)
{
    struct rtnl_link *l = NULL;
    if (!n->nl || rtnl_link_get_kernel(n->nl, 0, n->device, &l) != 0)
        return 0;
    uint64_t dropped = rtnl_link_get_stat(l, RTNL_LINK_TX_DROPPED);
    rtnl_link_put(l);
    return dropped;
}

struct socket_job {
    int ns_fd, domain, type, fd, error;
};

static void *open_socket(void *arg)
{
    struct socket_job *j = arg;
    j->fd = setns(j->ns_fd, CLONE_NEWNET) < 0 ? -1 : socket(j->domain, j->type | SOCK_CLOEXEC, 0);
    j->error = errno;
    return NULL;
}

int netns_socket(const struct netns *n, int domain, int type, int *fd, struct err_ctx *ctx)
{
    struct socket_job j = {n->ns_fd, domain, type, -1, 0};
    pthread_t t;
    int e = pthread_create(&t, NULL, open_socket, &j);
    if (e)
        return err_set(ctx, ERR_NOMEM, "starting a thread: %s", strerror(e));
    pthread_join(t, NULL);
    errno = j.error;
    *fd = j.fd;
    return j.fd < 0 ? err_errno(ctx, "a socket in a namespace") : 0;
}

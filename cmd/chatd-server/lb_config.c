/* lb-config: what HAProxy needs to know to stand before the nodes of a cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chatd-server/commands.h"

/* HOST:PORT, the host a name, an IPv4 address or [IPv6]. */
static int check_node(const char *node, struct err_ctx *err)
{
    const char *colon = strrchr(node, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : 0;
    bool named = colon && colon > node &&
                 strspn(node, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789.-_:[]") == strlen(node);
    if (!named || port < 1 || port > 65535 || *end)
        return err_set(err, ERR_USAGE, "lb-config: '%s' is no HOST:PORT", node);
    return 0;
}

int command_lb_config(const struct opt_set *set, struct err_ctx *err)
{
    int count = opt_operands(set);
    for (int i = 0; i < count; i++) {
        int rc = check_node(opt_operand(set, i), err);
        if (rc)
            return rc;
    }
    unsigned long long most = opt_u64(set, "connections"), all = most * (unsigned)count;
    printf("# Made by chatd-server lb-config: %d nodes, each for %llu connections.\n"
           "# A connection goes to the node with the fewest; a node whose /readyz is not 200 (draining, "
           "storage full,\n"
           "# at capacity) gets no new ones and keeps those it has. Any node serves any client: nothing is "
           "sticky.\n"
           "global\n"
           "    maxconn %llu\n"
           "\n"
           "defaults\n"
           "    mode http\n"
           "    timeout connect 5s\n"
           "    timeout client 90s\n"
           "    timeout server 90s\n"
           "    # clients beat every 10 s, and a node closes who is silent for 30\n"
           "    timeout tunnel 90s\n"
           "    option redispatch\n"
           "    retries 2\n"
           "\n"
           "frontend chat\n"
           "    bind %s\n"
           "    maxconn %llu\n"
           "    default_backend nodes\n"
           "\n"
           "backend nodes\n"
           "    balance leastconn\n"
           "    option httpchk GET /readyz\n"
           "    http-check expect status 200\n"
           "    default-server check inter 1s fall 2 rise 1 maxconn %llu\n",
           count, most, all, opt_string(set, "listen"), all, most);
    for (int i = 0; i < count; i++)
        printf("    server node%d %s\n", i, opt_operand(set, i));
    return 0;
}

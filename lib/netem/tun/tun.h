/* User-space links over TUN: two network namespaces, near (phones) and far (server), and a shuttle process
 * that carries packets between them through lib/netem's link model, one radio per inner address.
 *
 * Addresses: phones 198.18.0.0/16 (every address is bindable in near), far side 198.19.0.1/32, control
 * 198.19.255.254. Namespaces are anonymous (held by file descriptors and processes only), so nothing is left
 * behind however the tool dies; children get SIGKILL when the parent dies. Needs root (ERR_PERM) and
 * /dev/net/tun (ERR_UNAVAILABLE).
 *
 * In-band control: a UDP datagram to NETEM_CONTROL port NETEM_CONTROL_PORT from a phone's address is taken by
 * the shuttle in order with that radio's data: struct netem_control. */
#ifndef NETEM_TUN_TUN_H
#define NETEM_TUN_TUN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "netem/control.h"
#include "netem/profile.h"
#include "util/err.h"

#define NETEM_NEAR_NET 0xC6120000u /* 198.18.0.0/16 */
#define NETEM_FAR_ADDR 0xC6130001u /* 198.19.0.1 */

/* A range of inner addresses that share a profile (each address still has its own radio). */
struct tun_group {
    char name[32];
    struct netem_profile profile;
    uint32_t first, count; /* host order addresses within NETEM_NEAR_NET */
};

struct tun_config {
    const struct tun_group *groups;
    uint32_t groups_n;
    uint64_t seed;
    const char *trace_dir; /* NULL: none */
    bool calm;             /* links are perfect until tun_world_begin: for setting up what is then tried */
};

struct tun_world;

/* Makes namespaces and starts the shuttle. The shuttle and what is spawned die with the calling thread (that
 * is how PR_SET_PDEATHSIG counts), so call from one that lives as long as the world. */
int tun_world_start(struct tun_world **out, const struct tun_config *c, struct err_ctx *ctx);
/* fork + enter the namespace + exec; stdin /dev/null unless inherit_stdin, stdout/stderr to the given fds (or
 * -1: inherit). The child gets PR_SET_PDEATHSIG SIGKILL. Environment gains CHAT_NETEM_LOCAL and
 * CHAT_NETEM_PEER. */
int tun_world_spawn(struct tun_world *w, bool near, char *const argv[], int out_fd, int err_fd,
                    bool inherit_stdin, pid_t *pid, struct err_ctx *ctx);
/* The links become what their profiles say; connections made before live on. Only after a calm start. */
int tun_world_begin(struct tun_world *w, struct err_ctx *ctx);
/* Live fault: everything of group `name` ("*": all) is dropped from now for `ns` (reason BLACKOUT). */
int tun_world_blackout(struct tun_world *w, const char *group, uint64_t ns, struct err_ctx *ctx);

struct tun_stats {
    uint64_t packets_up, packets_down, bytes_up, bytes_down; /* offered to the links */
    uint64_t dropped[64];                                    /* by enum reason */
    uint64_t
        overrun; /* of "*" alone: what the kernel dropped since this machine was too slow for the shuttle */
};
/* "*": all groups and what belonged to none. ERR_NOTFOUND. No link is to blame for an overrun, and a run that
 * has any proves little about links. */
int tun_world_stats(struct tun_world *w, const char *group, struct tun_stats *out);
/* A pidfd of the shuttle, the world's own: readable when it has died, and every link with it. */
int tun_world_fd(const struct tun_world *w);
/* A socket that lives in one of the namespaces, for a caller outside (CLOEXEC). */
int tun_world_socket(struct tun_world *w, bool near, int domain, int type, int *fd, struct err_ctx *ctx);
/* Ends the shuttle, kills what still runs in the namespaces, and drops them; NULL is fine. Processes spawned
 * there are the caller's to reap. */
void tun_world_stop(struct tun_world *w);

#endif

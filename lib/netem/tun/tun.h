/* User-space links over TUN: two network namespaces, near (phones) and far (server), and a shuttle process
 * that carries packets between them through lib/netem's link model, one radio per inner address.
 *
 * Addresses: phones 198.18.0.0/16 (every address is bindable in near), far side 198.19.0.1/32, control
 * 198.19.255.254. Namespaces are anonymous (held by file descriptors and processes only), so nothing is left
 * behind however the tool dies; children get SIGKILL when the parent dies. Needs root (ERR_PERM) and
 * /dev/net/tun (ERR_UNAVAILABLE).
 *
 * Several worlds of one process may share a far side (tun_config.beside): many access networks, one server.
 *
 * In-band control, struct netem_control (netem/control.h): a UDP datagram to NETEM_CONTROL_ADDR port
 * NETEM_CONTROL_PORT from a phone's address is taken by the shuttle in order with that radio's data; and the
 * shuttle tells a phone the same way (from that address and port, to that port of the phone's address) that a
 * handover took its address away. */
#ifndef NETEM_TUN_TUN_H
#define NETEM_TUN_TUN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "netem/control.h"
#include "netem/profile.h"
#include "netem/tun/fates.h"
#include "util/err.h"

#define NETEM_NEAR_NET 0xC6120000u /* 198.18.0.0/16 */
#define NETEM_FAR_ADDR 0xC6130001u /* 198.19.0.1 */
#define TUN_GROUPS_MAX 256

/* A range of inner addresses that share a profile (each address still has its own radio). */
struct tun_group {
    char name[32];
    struct netem_profile profile;
    uint32_t first, count; /* host order addresses within NETEM_NEAR_NET */
};

struct tun_world;

struct tun_config {
    const struct tun_group *groups;
    uint32_t groups_n;
    uint64_t seed;
    const char *trace_dir;   /* NULL: none */
    const char *capture_dir; /* NULL: none. DIR/near.pcapng and DIR/far.pcapng; the folder is made */
    struct tun_fates *fates; /* NULL: none. From tun_fates_new; must outlive the world */
    /* NULL: a far side of its own. Else that world's, which leads to this one's phones by a route to
     * `block`/`block_prefix` (0/0: all of NETEM_NEAR_NET); blocks of worlds that share must not overlap. */
    struct tun_world *beside;
    uint32_t block;
    int block_prefix;
    bool calm; /* links are perfect until tun_world_begin: for setting up what is then tried */
};

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

/* Live changes. `phone` is one address (host order) of the group, or 0 for all of them. ERR_NOTFOUND: no such
 * group, or the address is not its own. */
int tun_world_blackout_of(struct tun_world *w, const char *group, uint32_t phone, uint64_t ns,
                          struct err_ctx *ctx);
/* Leave and come back, as netem/control.h has it, for phones that do not say so themselves. */
int tun_world_attach(struct tun_world *w, const char *group, uint32_t phone, bool attached,
                     struct err_ctx *ctx);
/* Another network for a group: a whole description (netem/profile.h), its files relative to this process's
 * working directory. Packets under way keep the fate they have; queue, NAT mappings, order and attachment
 * live on; chains and weather begin anew from the seed. ERR_INVALID leaves everything as it was. The shuttle
 * reads the description, so packets wait while it reads a Mahimahi trace (tens of milliseconds a megabyte).
 */
int tun_world_profile(struct tun_world *w, const char *group, const char *description, struct err_ctx *ctx);

#define TUN_STATES 8 /* room for enum link_state */
struct tun_stats {
    uint64_t packets_up, packets_down, bytes_up, bytes_down; /* offered to the links */
    uint64_t dropped[64];                                    /* by enum reason */
    uint64_t duplicated, corrupted, reordered;               /* delivered so, or twice */
    uint64_t moved;          /* handovers that took an address and were told to a phone */
    uint64_t capture_missed; /* packets that a capture lacks: the disk was too slow, or full */
    /* of tun_world_look alone: radios that were heard, and how many of them are in which enum link_state */
    uint64_t radios, in_state[TUN_STATES];
    uint64_t dark, detached; /* of tun_world_look alone: groups that an order holds so, radios or none */
    uint64_t
        overrun; /* of "*" alone: what the kernel dropped since this machine was too slow for the shuttle */
};
/* "*": all groups and what belonged to none. ERR_NOTFOUND. No link is to blame for an overrun, and a run that
 * has any proves little about links. */
int tun_world_stats(struct tun_world *w, const char *group, struct tun_stats *out);
/* The same after the shuttle has counted its radios' states. */
int tun_world_look(struct tun_world *w, const char *group, struct tun_stats *out, struct err_ctx *ctx);
/* A pidfd of the shuttle, the world's own: readable when it has died, and every link with it. */
int tun_world_fd(const struct tun_world *w);
pid_t tun_world_pid(const struct tun_world *w);
/* A socket that lives in one of the namespaces, for a caller outside (CLOEXEC). */
int tun_world_socket(struct tun_world *w, bool near, int domain, int type, int *fd, struct err_ctx *ctx);
/* The namespace itself, the world's own, and the address of that side. What enters it without being spawned
 * here is killed as well when the world ends. */
int tun_world_namespace(const struct tun_world *w, bool near, uint32_t *local);
/* Ends the shuttle, kills what still runs in the namespaces, and drops them; NULL is fine. A shared far side
 * goes with the last world that uses it. Processes spawned there are the caller's to reap. ERR_IO: trace or
 * capture could not be written whole, which is logged as well; all has ended nevertheless. */
int tun_world_stop(struct tun_world *w);

#endif

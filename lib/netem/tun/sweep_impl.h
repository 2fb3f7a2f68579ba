/* Inside the room: nothing outlives the namespaces, not even what a command left running in the background.
 */
#ifndef NETEM_TUN_SWEEP_IMPL_H
#define NETEM_TUN_SWEEP_IMPL_H

#include <sys/types.h>

/* SIGKILL to every process in these network namespaces, until there is none; `spare` and the caller are let
 * be. */
void sweep_namespaces(const int *ns_fd, int n, pid_t spare);

#endif

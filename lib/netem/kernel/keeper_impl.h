/* Inside the room: the process that takes rules off when their tool has ended. */
#ifndef NETEM_KERNEL_KEEPER_IMPL_H
#define NETEM_KERNEL_KEEPER_IMPL_H

#include <sys/types.h>

#include "netem/kernel/kernel.h"

/* kernel_clear without asking a keeper. */
int kernel_take_off(const struct kernel_device *dev, unsigned *removed, struct err_ctx *ctx);

/* Ask the keeper of a device, if there is one, to take its rules off and to end; returns when it has, with
 * the number of things that it took off. */
unsigned keeper_knock(const struct kernel_device *dev);
/* The keeper's process id, or 0. */
pid_t keeper_pid(const struct kernel_device *dev);

#endif

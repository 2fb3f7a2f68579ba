/* Inside the room: names, handles and messages. */
#ifndef NETEM_KERNEL_IMPL_H
#define NETEM_KERNEL_IMPL_H

#include <linux/pkt_sched.h>

#include "netem/kernel/kernel.h"

struct nl_msg;
struct nl_sock;

#define KERNEL_COOKIE     "chat-netem"
#define KERNEL_COOKIE_HEX "636861742d6e6574656d"
#define KERNEL_ALIAS      "chat-netem "
#define KERNEL_PREF       0x4e45

/* "NE": majors that nobody counts up to. */
#define KERNEL_ROOT  0x4e450000u /* tbf that splits */
#define KERNEL_AIR   0x4e460000u /* netem below it */
#define KERNEL_GATE  0x4e470000u /* netem that takes the packet from its socket, root of netem-uN */
#define KERNEL_QUEUE 0x4e480000u /* tbf below it: rate and queue */

/* A frame with two VLAN tags: what is longer was joined by segmentation offload. */
uint32_t kernel_frame(const struct kernel_device *dev);
void kernel_ifb_name(char name[16], const struct kernel_device *dev, bool up);

/* The request as iproute2 6.1 sends it. `index`, `to_index`: of step->dev and step->to. The caller frees it.
 */
int kernel_message(struct nl_msg **out, const struct kernel_step *s, int index, int to_index);
void kernel_step_tc(struct buf *out, const struct kernel_step *s);
/* netem's words after "netem". */
void kernel_netem_tc(struct buf *out, const struct kernel_netem *n);

/* Sends and waits for the kernel's answer, a libnl error. Frees m. */
int kernel_ask(struct nl_sock *s, struct nl_msg *m);
/* 0: no such device. */
int kernel_index_of(struct nl_sock *s, const char *name);
/* A netlink error as one of ours, with a sentence. */
int kernel_nl_failed(int nlerr, const char *what, struct err_ctx *ctx);
int kernel_connect(struct nl_sock **s, struct err_ctx *ctx);

/* What is on a device. */
struct kernel_found {
    bool root_ours, root_foreign, clsact, clsact_foreign, ingress_foreign;
    bool gate, air; /* below ours */
    char root_kind[16];
    uint32_t root_handle;
    unsigned filters_ours, filters_foreign;
    int ifb[2];
    struct kernel_step step[KERNEL_STEPS_MAX]; /* read back */
    struct {
        uint64_t bytes, packets, drops, backlog;
    } stat[KERNEL_STEPS_MAX];
    unsigned steps;
    char alias[256];
};
int kernel_look(struct nl_sock *s, struct kernel_found *f, const struct kernel_device *dev,
                struct err_ctx *ctx);

/* Attributes of a netem qdisc back into its parameters. `opts`: payload of TCA_OPTIONS. */
int kernel_netem_decode(struct kernel_netem *n, const void *opts, int bytes);

#endif

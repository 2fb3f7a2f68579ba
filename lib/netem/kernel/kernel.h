/* A profile as rules of the kernel's own traffic control (sch_netem), on a device that already carries
 * traffic.
 *
 * One device is one radio. "Up" is what the device sends, "down" what it receives (swapped on request, for a
 * device of the far side):
 *
 *   up    DEV egress --u32, mirred--> IFB netem-uN: netem (1 us) > tbf (rate, queue in bytes)   only with a
 * rate DEV root: tbf (splits) > netem (delay, jitter, loss, ..., serialisation at the rate) down  DEV ingress
 * --u32, police (rate, queue in bytes), mirred--> IFB netem-dN root: tbf (splits) > netem
 *
 * Why so. A packet has to wait for the rate in a queue of bytes first and is lost on the air afterwards;
 * netem does it the other way round and counts its queue in packets. So the queue stands before netem:
 * upwards a TBF with a bucket of 10 ms, on an IFB from which the packet returns to DEV's own root;
 * downwards, where a packet cannot pass two IFBs, a policer, whose bucket of `queue` bytes refuses exactly
 * the packets that find a drop-tail queue of that size full. netem then takes the rate a second time, as the
 * time on the wire, which also keeps the order under jitter; a profile without a rate gets 100 Gbit/s there.
 * Drops upwards happen after the redirection and so are not reported to the local TCP, which would take them
 * for congestion of its own host and resend at once (tc-netem(8), jepsen/net.clj); the 1 us netem on the IFB
 * takes the packet from its socket's account, else TCP's small queues would hide the queue. The first tbf
 * splits what segmentation offload has joined, so that each packet is lost by itself. Sizes are those of IP
 * packets: the 14 bytes of an Ethernet header are taken off (stab, netem's overhead).
 *
 * What the kernel cannot do is refused, a sentence each; with `partial` it is left out. What it does
 * otherwise is a note.
 *
 * Ownership. Our qdiscs have the majors 4e45..4e48 of the right kinds, our filters carry the cookie
 * "chat-netem", our IFBs are named netem-u/dN after DEV's index. Nothing else is touched: a device with a
 * root, ingress or clsact qdisc of somebody else is refused; kernel defaults (handle 0:) step aside and come
 * back by themselves.
 *
 * Must not know: command lines. Needs CAP_NET_ADMIN in the namespace of the caller. */
#ifndef NETEM_KERNEL_H
#define NETEM_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "util/buf.h"
#include "util/err.h"

#define KERNEL_STEPS_MAX     16
#define KERNEL_SENTENCES_MAX 24

struct kernel_device {
    char name[16];
    int index;
    uint32_t mtu, header; /* bytes of the link-layer header */
};

/* netem's parameters in the kernel's own terms: shares and correlations are of UINT32_MAX. */
struct kernel_netem {
    uint32_t limit;               /* packets, never 0 */
    uint64_t delay_ns, jitter_ns; /* whole microseconds, sent as ticks of 64 ns as iproute2 6.1 does */
    bool times64;                 /* or as nanoseconds, as later ones do */
    uint32_t delay_cor, loss, loss_cor, duplicate, duplicate_cor, corrupt, corrupt_cor;
    uint32_t reorder, reorder_cor, gap;
    bool gemodel;         /* instead of loss */
    uint32_t p, r, h, k1; /* to bad, to good, kept in bad, lost in good */
    bool ecn;
    uint64_t rate;    /* bytes per second, 0: none */
    int32_t overhead; /* bytes added to each packet's size */
    uint32_t cell_size;
    int32_t cell_overhead;
    bool slot;
    int64_t slot_min_ns, slot_max_ns;
    int32_t slot_packets, slot_bytes;
    const char *distribution; /* its name in tc's words, or NULL: even */
    const int16_t *table;     /* 8192 is one jitter */
    uint32_t table_n;         /* at most 16384 */
};
struct kernel_tbf {
    uint64_t rate; /* bytes per second */
    uint32_t burst, limit;
};
struct kernel_redirect {
    bool ingress;
    uint64_t police_rate; /* bytes per second, 0: no policer */
    uint32_t police_burst, police_mtu;
};

enum kernel_op { KERNEL_IFB, KERNEL_NETEM, KERNEL_TBF, KERNEL_CLSACT, KERNEL_REDIRECT };

/* One request to the kernel, one line of tc. */
struct kernel_step {
    enum kernel_op op;
    char dev[16];            /* where; KERNEL_IFB: the name of the new device */
    char to[16];             /* KERNEL_REDIRECT: the IFB */
    uint32_t handle, parent; /* parent TC_H_ROOT: the device's root; a filter's handle: when read back */
    int32_t overhead;        /* of its size table, 0: none */
    union {
        struct kernel_netem netem;
        struct kernel_tbf tbf;
        struct kernel_redirect redirect;
    };
};

struct kernel_plan {
    struct kernel_device dev;
    struct kernel_step step[KERNEL_STEPS_MAX];
    unsigned steps;
    char refused[KERNEL_SENTENCES_MAX][160], note[KERNEL_SENTENCES_MAX][160];
    unsigned refused_n, notes;
    char profile[200]; /* as it was asked for, as far as it fits; kept in the kernel as an IFB's alias */
    struct netem_profile weather; /* its windows, when somebody is to play them */
    bool has_weather;
};

/* ERR_NOTFOUND: no such device. */
int kernel_device_find(struct kernel_device *d, const char *name, struct err_ctx *ctx);

/* Modules that a kernel may be without, and that nobody is there to play blackouts, handovers and stalls. */
enum kernel_lack { KERNEL_NO_NETEM = 1, KERNEL_NO_POLICE = 2, KERNEL_NO_WEATHER = 4 };

/* Pure. The steps for a profile, and what of it is refused or done otherwise. `description` is only recorded.
 * `lacks`: bits of enum kernel_lack, to plan without them; a refusal for what that costs. */
void kernel_plan_make(struct kernel_plan *plan, const struct netem_profile *p, const char *description,
                      const struct kernel_device *dev, bool swap, unsigned lacks);
/* The same as lines of ip and tc. */
void kernel_plan_tc(struct buf *out, const struct kernel_plan *plan);

/* Put the rules on, in place of those of ours that are there. All or nothing. ERR_BUSY: somebody else's rules
 * are on the device. ERR_UNAVAILABLE: the kernel lacks a module (said which, and what to do); *lacks (may be
 * NULL) is the bit of it, or 0 when there is no plan without it. */
int kernel_apply(const struct kernel_plan *plan, unsigned *lacks, struct err_ctx *ctx);
/* Take off what is ours. *removed: number of qdiscs, filters and devices (may be NULL). A device that is gone
 * is fine. */
int kernel_clear(const struct kernel_device *dev, unsigned *removed, struct err_ctx *ctx);
/* What is on it, read back from the kernel, as text or one JSON object. */
int kernel_show(struct buf *out, const struct kernel_device *dev, bool json, struct err_ctx *ctx);

/* --- Blackouts, handovers and stalls ---
 *
 * netem knows no time, so a process plays them: it replaces netem's parameters where a window of the link
 * model (netem/link.h: the same seed, the same windows) begins and ends. In the dark every packet that comes
 * to netem is lost; while packets are held, netem's delay is what is left of the window, renewed every 2 ms.
 */
struct kernel_weather;
/* `plan` must outlive it; `now_ns` is the link's beginning, of any monotonic clock. Speaks to the namespace
 * of the caller. */
int kernel_weather_new(struct kernel_weather **w, const struct kernel_plan *plan, uint64_t seed,
                       uint64_t now_ns, struct err_ctx *ctx);
void kernel_weather_free(struct kernel_weather *w); /* NULL is fine */
/* Makes the rules what they must be now; *next_ns: when to call again. */
int kernel_weather_step(struct kernel_weather *w, uint64_t now_ns, uint64_t *next_ns, struct err_ctx *ctx);
/* The window that the latest step is inside of, or false. */
bool kernel_weather_window(const struct kernel_weather *w, uint64_t *start_ns, uint64_t *length_ns);

/* --- Rules that end with their tool ---
 *
 * A keeper process of its own session holds a socket of ours. When we end, by whatever death, the keeper
 * takes the rules off. When the keeper is killed its spare takes its place; when both are, kernel_hold_fd
 * becomes readable and kernel_hold_renew starts others. Who dies at the same moment as both leaves rules that
 * kernel_show and kernel_clear find. A keeper listens on an abstract socket named after the device's index,
 * which its namespace keeps to itself: kernel_clear and kernel_hold knock there first, so two tools never
 * fight over a device. */
struct kernel_hold;
/* Start the keeper, before kernel_apply. Rules of an older keeper are taken off with it. */
int kernel_hold(struct kernel_hold **h, const struct kernel_device *dev, struct err_ctx *ctx);
/* After kernel_apply: the keeper plays the plan's weather from now on, and so does each that takes its place.
 * `plan` is copied, its delay tables were there when kernel_hold was called. */
int kernel_hold_weather(struct kernel_hold *h, const struct kernel_plan *plan, uint64_t seed,
                        struct err_ctx *ctx);
/* Readable when the keepers have ended. */
int kernel_hold_fd(const struct kernel_hold *h);
/* After that. 0: they were killed, there are others now. ERR_INTERRUPTED: they took the rules off because
 * somebody asked for it. */
int kernel_hold_renew(struct kernel_hold *h, struct err_ctx *ctx);
/* The rules come off; returns when they have. Frees h (NULL is fine). */
int kernel_release(struct kernel_hold *h, struct err_ctx *ctx);

#endif

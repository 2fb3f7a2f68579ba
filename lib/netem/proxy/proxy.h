/* The chaos proxy: a TCP relay that injects faults into the streams it carries, also by WebSocket frame. One
 * thread, epoll, no root. The decisions are core.h's; here are sockets, the clock and the control socket.
 *
 * Limits: connections_max connections (default: as many as descriptors allow, two each; more get a RST and
 * are counted); per direction what core.h states; a client of the control socket sends one line of at most 2
 * KiB, 16 at a time. A peer that vanished is found by keepalive after about 90 s and passed on as a RST.
 *
 * Control socket: one request a connection, a line of JSON, then the answer as JSON until the end of file:
 *   {"do":"status"}                                the object of proxy_status_json
 *   {"do":"set","what":"add SPEC"}                 {"number":K}
 *   {"do":"set","what":"remove K" | "clear"}       {}
 *   {"do":"stop"}                                  {}
 *   otherwise                                      {"error":code,"text":"sentence"}  */
#ifndef NETEM_PROXY_PROXY_H
#define NETEM_PROXY_PROXY_H

#include <stdio.h>

#include "netem/proxy/toxic.h"

#define PROXY_BUFFER_DEFAULT (1u << 20)
#define PROXY_BUFFER_MIN     (16u << 10)
#define PROXY_BUFFER_MAX     (256u << 20)

struct proxy_config {
    const char *name;
    const char *listen, *to; /* HOST:PORT, [V6]:PORT; listen port 0: any */
    const char *control;     /* path of the control socket; NULL: none */
    const char *const *toxics;
    int toxics_n;
    const struct netem_profile *profile; /* one more toxic, when it is no text; NULL: none */
    uint64_t seed;
    uint64_t buffer_max;      /* 0: PROXY_BUFFER_DEFAULT */
    uint32_t connections_max; /* 0: as many as descriptors allow */
    bool follow;              /* read along with every connection, for toxics that come later */
    FILE *log;                /* a line of JSON for each fault; NULL: none */
    const char *trace_dir;    /* SOCKET_KILL records; NULL: none */
    int stop_fd;              /* the run ends when it is readable (a signalfd, a pipe); -1: none */
};

struct proxy; /* opaque */

/* Where the control socket of a proxy with this name is: NAME.proxy in the runtime folder, which is
 * $XDG_RUNTIME_DIR/chat-netem, else /run/chat-netem, made if missing. Names are letters, digits, '-', '_',
 * '.'. A name with a '/' is a path already. NULL: the folder. ERR_USAGE, ERR_PERM when the folder is not ours
 * alone. */
#define PROXY_PATH_MAX 108
int proxy_control_path(char out[PROXY_PATH_MAX], const char *name, struct err_ctx *ctx);

/* Binds, so that clients may connect from now on. A control socket that nobody answers is replaced.
 * ERR_EXISTS: another proxy has it. ERR_BUSY: the address is in use. The strings must outlive the proxy. */
int proxy_open(struct proxy **p, const struct proxy_config *c, struct err_ctx *ctx);
uint16_t proxy_port(const struct proxy *p);
/* Sentences about what profiles ask for and a stream cannot have, a line each. */
void proxy_lacks(const struct proxy *p, struct buf *out);
/* Carries connections until told to stop. */
int proxy_run(struct proxy *p, struct err_ctx *ctx);
/* {"name","listen","to","pid","seed","connections":{...},"bytes":{...},"faults":N,"toxics":[...]} */
void proxy_status_json(const struct proxy *p, struct buf *out);
void proxy_status_text(const struct proxy *p, struct buf *out);
/* Ends all connections by RST and removes the control socket. NULL is fine. */
void proxy_close(struct proxy *p);

#endif

/* Child processes of the conductor, and looking at them from outside: /proc, and HTTP inside their network
 * namespace. Children get SIGKILL when their parent's thread dies, so nothing is left behind. */
#ifndef RUN_CHILD_H
#define RUN_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/buf.h"
#include "util/err.h"

/* fork + exec; stdin is /dev/null, stdout and stderr go to the given fds (-1: inherit), every other fd is
 * closed. *pid is a child of the caller, who reaps it. An exec that fails is reported here, not by the
 * child's status. */
int child_spawn(char *const argv[], int out_fd, int err_fd, pid_t *pid, struct err_ctx *ctx);
/* Reap without waiting: true when it has ended, *status as of waitpid. */
bool child_ended(pid_t pid, int *status);
/* Wait at most `ns`; ERR_TIMEOUT leaves it running. */
int child_wait(pid_t pid, uint64_t ns, int *status, struct err_ctx *ctx);
/* TERM, wait at most `ns`, then KILL; reaps it in any case. ERR_TIMEOUT when it needed the KILL. */
int child_stop(pid_t pid, uint64_t ns, int *status, struct err_ctx *ctx);
/* "exited with status 3", "was killed by signal 9 (Killed)" */
void child_status_text(char *out, size_t size, int status);

struct child_usage {
    uint64_t rss_bytes; /* now */
    double cpu_s;       /* user and system, so far */
};
/* False when /proc has nothing (any more). */
bool child_usage(pid_t pid, struct child_usage *u);

/* A TCP socket that lives in the network namespace of process `pid` (0: our own). The calling thread is back
 * in its own namespace afterwards. ERR_PERM, ERR_NOTFOUND. */
int child_socket(pid_t pid, struct err_ctx *ctx);
/* GET http://addr:port/path from the namespace of `pid`, the whole within `ns`. *status is the HTTP status;
 * the body is appended (buf's maximum limits it). ERR_UNAVAILABLE: nobody listens; ERR_TIMEOUT; ERR_INVALID:
 * no HTTP. */
int child_http_get(pid_t pid, uint32_t addr, uint16_t port, const char *path, uint64_t ns, int *status,
                   struct buf *body, struct err_ctx *ctx);

/* The program `name` in `folder` (NULL: beside our own executable). ERR_UNAVAILABLE when it is not there. */
int child_program(char *out, size_t size, const char *folder, const char *name, struct err_ctx *ctx);

#endif

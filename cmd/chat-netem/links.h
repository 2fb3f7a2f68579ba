/* chat-netem: links that stay. A detached keeper holds the links of one FILE; the other commands find it by
 * a socket in the runtime folder.
 *
 * Runtime folder: $XDG_RUNTIME_DIR/chat-netem, else /run/chat-netem, mode 0700. Per keeper <pid>.sock and
 * <pid>.json (what it keeps). A socket that nobody answers belonged to a keeper that died: the next command
 * says so and removes both. One request per connection: a line of JSON; the answer is JSON until the end of
 * file, {"error": code, "text": sentence} or the result. */
#ifndef CHAT_NETEM_LINKS_H
#define CHAT_NETEM_LINKS_H

#include <jansson.h>

#include "netem/tun/tun.h"
#include "util/opt.h"

#define LINKS_MAX        64
#define LINKS_EXPOSE_MAX 16
#define LINKS_NAME       32
#define LINKS_ANSWER_MAX (1u << 20)

/* One link of the file. */
struct link_spec {
    char name[LINKS_NAME];
    char profile[NETEM_DESCRIPTION_MAX];
    uint32_t block, first, count; /* its addresses: block/prefix, of which `count` from `first` are phones */
    int prefix;
};

/* A links file:
 *   {"links": {"lte": {"profile": "lte-lossy", "addresses": 1000 | "198.18.4.0/22"}, ...},
 *    "expose": ["80=127.0.0.1:8080"], "seed": 42, "trace": "DIR", "capture": "DIR"}
 * `addresses` is how many phones, or a block; default: 255. Paths are relative to the file's folder. Links
 * share the far side, 198.19.0.1. */
struct links_file {
    char path[1024], folder[1024]; /* absolute */
    char trace[1024], capture[1024];
    char expose[LINKS_EXPOSE_MAX][256];
    struct link_spec link[LINKS_MAX];
    uint32_t n, expose_n;
    uint64_t seed;
    bool seeded;
};

/* Reads and checks it all, profiles too, and makes the file's folder the working directory, as descriptions
 * are relative to it. Errors name the file and the key. */
int links_load(struct links_file *f, const char *path, struct err_ctx *err);

/* ---- keeper.c ---- */

/* How it went, in one piece: others may have inherited the pipe, so its end says nothing. */
struct keeper_ready {
    int rc;
    char text[512];
};

/* The keeper's life, after fork: starts the links, writes a keeper_ready to `ready_fd`, then serves until
 * told to end. Returns its exit status. */
int keeper_run(struct links_file *f, const char *runtime, int ready_fd);

struct kept_link {
    struct link_spec spec;
    struct tun_world *world; /* NULL: it died */
    struct tun_stats last;   /* of one that died */
    uint64_t since_ns;
};

struct keeper {
    struct links_file *file;
    struct kept_link link[LINKS_MAX];
    uint32_t n;
    int listener;
    char socket[1200], about[1200];
    bool over;
};

struct kept_link *keeper_find(struct keeper *k, const char *name);
/* keeper_answer.c: one request on a connection; it is not closed. */
void keeper_answer(struct keeper *k, int fd);
/* keeper_set.c: `what` is a list of "blackout=5s", "detach", "attach" and words of a description (files in it
 * are relative to the links file). A change that is refused changes nothing. */
int keeper_set(struct kept_link *l, const char *phone, const char *what, struct err_ctx *err);
/* A description with later words put in, each word once. ERR_RANGE: too long. Exposed for tests. */
int keeper_merge(char out[NETEM_DESCRIPTION_MAX], const char *old, const char *add, struct err_ctx *err);

/* ---- control.c: the commands' side ---- */

/* The runtime folder, made if missing. ERR_PERM when it is not ours alone. */
int control_folder(char out[1024], struct err_ctx *err);
/* Calls `each` for every keeper that answers `request`, with its answer; remains of dead keepers are removed,
 * told on stderr and counted in *dead. Stops when `each` returns non-zero, and returns that. */
typedef int control_each(void *arg, int fd, const json_t *answer, struct err_ctx *err);
int control_ask(json_t *request, control_each *each, void *arg, unsigned *dead, struct err_ctx *err);
/* Asks the keeper that has `link`; *answer is the caller's, *fd (may be NULL) stays open, *passed is a
 * descriptor that came along, or -1. ERR_NOTFOUND: no keeper has it. */
int control_ask_link(const char *link, json_t *request, json_t **answer, int *fd, int *passed,
                     struct err_ctx *err);

#endif

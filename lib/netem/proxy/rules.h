/* The toxics of a proxy, as its connections see them. Plain data, caller-owned. */
#ifndef NETEM_PROXY_RULES_H
#define NETEM_PROXY_RULES_H

#include "netem/proxy/toxic.h"

struct proxy_rules {
    uint64_t seed;
    uint64_t buffer_max; /* bytes that wait in one direction of one connection */
    bool follow;         /* follow every connection as WebSocket, also when no toxic asks for it yet */
    uint32_t used;       /* bit i: toxic[i] stands */
    uint32_t changes;    /* counts additions and removals */
    uint32_t last_number;
    struct proxy_toxic *toxic[PROXY_TOXICS_MAX]; /* owned */
};

void proxy_rules_init(struct proxy_rules *r, uint64_t seed, uint64_t buffer_max);
void proxy_rules_release(struct proxy_rules *r);
/* Parse and add. ERR_LIMIT past PROXY_TOXICS_MAX. */
int proxy_rules_add(struct proxy_rules *r, const char *spec, uint64_t now_ns, struct err_ctx *ctx);
/* The same with a profile, which is copied. */
int proxy_rules_add_profile(struct proxy_rules *r, const struct netem_profile *profile, uint64_t now_ns,
                            struct err_ctx *ctx);
/* ERR_NOTFOUND. The connections must be told (proxy_conn_tick) before the next addition. */
int proxy_rules_remove(struct proxy_rules *r, uint32_t number, struct err_ctx *ctx);
/* A number that only (seed, what) decide. */
uint64_t proxy_draw(const struct proxy_rules *r, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
bool proxy_rules_by_frame(const struct proxy_rules *r);

#endif

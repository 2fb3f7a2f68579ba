#include "netem/proxy/rules.h"

#include <stdlib.h>
#include <string.h>

#include "util/map.h"

void proxy_rules_init(struct proxy_rules *r, uint64_t seed, uint64_t buffer_max)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    r->buffer_max = buffer_max;
}

static void drop(struct proxy_rules *r, unsigned i)
{
    proxy_toxic_release(r->toxic[i]);
    free(r->toxic[i]);
    r->toxic[i] = NULL;
    r->used &= ~(1u << i);
    r->changes++;
}

void proxy_rules_release(struct proxy_rules *r)
{
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (r->used >> i & 1)
            drop(r, i);
    }
}

int proxy_rules_add(struct proxy_rules *r, const char *spec, uint64_t now_ns, struct err_ctx *ctx)
{
    if (r->used == UINT32_MAX)
        return err_set(ctx, ERR_LIMIT, "more than %d toxics", PROXY_TOXICS_MAX);
    unsigned i = (unsigned)__builtin_ctz(~r->used);
    struct proxy_toxic *t = malloc(sizeof *t);
    int rc = t ? proxy_toxic_parse(t, spec, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    if (rc) {
        free(t);
        return rc;
    }
    t->number = ++r->last_number;
    t->added_ns = now_ns;
    r->toxic[i] = t;
    r->used |= 1u << i;
    r->changes++;
    return 0;
}

int proxy_rules_remove(struct proxy_rules *r, uint32_t number, struct err_ctx *ctx)
{
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (r->used >> i & 1 && r->toxic[i]->number == number) {
            drop(r, i);
            return 0;
        }
    }
    return err_set(ctx, ERR_NOTFOUND, "there is no toxic %u", number);
}

uint64_t proxy_draw(const struct proxy_rules *r, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t what[4] = {a, b, c, d};
    return hash_bytes(what, sizeof what, r->seed);
}

bool proxy_rules_by_frame(const struct proxy_rules *r)
{
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (r->used >> i & 1 && proxy_toxic_by_frame(r->toxic[i]))
            return true;
    }
    return false;
}

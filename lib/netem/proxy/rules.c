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

static int add(struct proxy_rules *r, struct proxy_toxic *t, uint64_t now_ns, struct err_ctx *ctx)
{
    if (r->used == UINT32_MAX)
        return err_set(ctx, ERR_LIMIT, "more than %d toxics", PROXY_TOXICS_MAX);
    unsigned i = (unsigned)__builtin_ctz(~r->used);
    r->toxic[i] = malloc(sizeof *t);
    if (!r->toxic[i])
        return err_set(ctx, ERR_NOMEM, "out of memory");
    t->number = ++r->last_number;
    t->added_ns = now_ns;
    *r->toxic[i] = *t;
    r->used |= 1u << i;
    r->changes++;
    return 0;
}

int proxy_rules_add(struct proxy_rules *r, const char *spec, uint64_t now_ns, struct err_ctx *ctx)
{
    struct proxy_toxic t;
    int rc = proxy_toxic_parse(&t, spec, ctx);
    if (rc)
        return rc;
    rc = add(r, &t, now_ns, ctx);
    if (rc)
        proxy_toxic_release(&t);
    return rc;
}

int proxy_rules_add_profile(struct proxy_rules *r, const struct netem_profile *profile, uint64_t now_ns,
                            struct err_ctx *ctx)
{
    struct proxy_toxic t;
    int rc = proxy_toxic_of_profile(&t, profile, ctx);
    rc = rc ? rc : add(r, &t, now_ns, ctx);
    if (rc)
        proxy_toxic_release(&t);
    return rc;
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

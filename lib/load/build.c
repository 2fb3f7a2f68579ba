/* Phones, chats and who is in them: all from the configuration and the seed. */
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

enum stream { STREAM_POPULATION = 1u << 20, STREAM_GROUPS = 2u << 20 };

static int check(const struct load_population *p, struct err_ctx *ctx)
{
    if (!p->clients)
        return err_set(ctx, ERR_INVALID, "population %s: no clients", p->name);
    if (p->chat_size < 2 || p->chat_size > PROTO_USERS_MAX)
        return err_set(ctx, ERR_INVALID, "population %s: a chat has 2 to %u members, not %u", p->name,
                       PROTO_USERS_MAX, p->chat_size);
    if (p->clients < 2 && !p->joins)
        return err_set(ctx, ERR_INVALID, "population %s: one phone alone has nobody to chat with", p->name);
    if (!p->chats_per_client || p->chats_per_client > 1000)
        return err_set(ctx, ERR_INVALID, "population %s: 1 to 1000 chats per client, not %u", p->name,
                       p->chats_per_client);
    if (p->body_max < 1 || p->body_min > p->body_max || p->body_max > PROTO_BODY_MAX)
        return err_set(ctx, ERR_INVALID, "population %s: bodies of %u to %u bytes (1 to %u are possible)",
                       p->name, p->body_min, p->body_max, PROTO_BODY_MAX);
    if (p->addresses && p->addresses / LOAD_ADDRESS_STRIDE < p->clients)
        return err_set(ctx, ERR_INVALID, "population %s: %u addresses for %u phones (%u each)", p->name,
                       p->addresses, p->clients, LOAD_ADDRESS_STRIDE);
    return 0;
}

/* Groups of `size`; a last one that would be alone joins the one before. */
static uint32_t groups_of(uint32_t n, uint32_t size)
{
    uint32_t groups = (n + size - 1) / size;
    return n % size == 1 && groups > 1 ? groups - 1 : groups;
}

/* Phones of population `number` and of those that join it. */
static uint32_t pool_of(const struct load *l, uint32_t number)
{
    uint32_t n = l->populations_cfg[number].clients;
    while (++number < l->cfg.populations_n && l->populations_cfg[number].joins)
        n += l->populations_cfg[number].clients;
    return n;
}

static void group_up(struct load *l, uint32_t number, uint32_t *order, uint32_t *member_at)
{
    const struct population *p = &l->populations[number];
    uint32_t n = pool_of(l, number);
    for (uint32_t round = 0; round < p->cfg->chats_per_client; round++) {
        struct rng rng;
        rng_seed_stream(&rng, l->cfg.seed, STREAM_GROUPS + number * 1024 + round);
        for (uint32_t i = 0; i < n; i++)
            order[i] = p->first + i;
        for (uint32_t i = n; round && i > 1; i--) { /* Fisher-Yates */
            uint32_t j = (uint32_t)rng_below(&rng, i), t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        uint32_t groups = groups_of(n, p->cfg->chat_size);
        for (uint32_t g = 0; g < groups; g++) {
            uint32_t from = g * p->cfg->chat_size, to = g + 1 == groups ? n : from + p->cfg->chat_size;
            l->chats[l->chats_n] = (struct load_chat){.first = *member_at, .members = to - from};
            for (uint32_t i = from; i < to; i++) {
                struct load_phone *phone = &l->phones[order[i]];
                l->members[(*member_at)++] = order[i];
                phone->chats[phone->chats_n++] = (struct membership){.chat = l->chats_n, .place = i - from};
            }
            l->chats_n++;
        }
    }
}

static void one_phone(struct load *l, uint32_t i, uint16_t population)
{
    struct load_phone *p = &l->phones[i];
    p->load = l;
    p->population = population;
    rng_seed_stream(&p->rng, l->cfg.seed, i);
    const struct load_script *s = l->cfg.script;
    client_init(&p->client, &l->populations[population].client, s ? s->phone[i].user : LOAD_FIRST_USER + i,
                s ? s->phone[i].device : 1);
    habit_init(p);
}

static int build_population(struct load *l, uint32_t i, struct err_ctx *ctx)
{
    struct population *p = &l->populations[i];
    const struct load_population *c = p->cfg = &l->populations_cfg[i];
    p->load = l;
    p->client = (struct client_config){.features = c->features,
                                       .net = c->net,
                                       .retries = c->retries,
                                       .resync_window_ns = c->resync_window_ns,
                                       .on_gap = c->on_gap,
                                       .outbox_max = OUTBOX_MAX,
                                       .outbox_bytes_max = OUTBOX_BYTES_MAX};
    rng_seed_stream(&p->rng, l->cfg.seed, STREAM_POPULATION + i);
    p->awake = calloc(p->n, sizeof *p->awake);
    if (!p->awake)
        return err_set(ctx, ERR_NOMEM, "out of memory for population %s", c->name);
    for (uint32_t k = 0; k < p->n; k++) {
        one_phone(l, p->first + k, (uint16_t)i);
        p->awake[k] = p->first + k;
        l->phones[p->first + k].awake_place = k;
    }
    p->awake_n = p->n;
    return texts_init(&p->texts, c->texts, ctx);
}

static int allocate(struct load *l, uint32_t chats, uint32_t seats, uint32_t most, uint32_t **order)
{
    l->phones = calloc(l->phones_n, sizeof *l->phones);
    l->chats = calloc(chats, sizeof *l->chats);
    l->members = calloc(seats, sizeof *l->members);
    l->memberships = calloc(seats, sizeof *l->memberships);
    l->scratch.cap = PROTO_SCRATCH;
    l->scratch.data = malloc(PROTO_SCRATCH);
    *order = calloc(most, sizeof **order);
    return l->phones && l->chats && l->members && l->memberships && l->scratch.data && *order ? 0 : ERR_NOMEM;
}

int build_all(struct load *l, struct err_ctx *ctx)
{
    uint32_t chats = 0, seats = 0, most = 0, *order = NULL, member_at = 0;
    if (!l->cfg.populations_n || l->cfg.populations_n > LOAD_POPULATIONS_MAX ||
        l->cfg.faults_n > LOAD_FAULTS_MAX)
        return err_set(ctx, ERR_INVALID, "1 to %u populations and at most %u faults are possible",
                       LOAD_POPULATIONS_MAX, LOAD_FAULTS_MAX);
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        struct load_population *c = &l->populations_cfg[i];
        if (c->joins && i) {
            c->chat_size = c[-1].chat_size;
            c->chats_per_client = c[-1].chats_per_client;
        }
        int rc = l->cfg.script ? 0 : check(c, ctx);
        if (rc)
            return rc;
        if (c->clients > LOAD_PHONES_MAX - l->phones_n)
            return err_set(ctx, ERR_INVALID, "more than %u phones", LOAD_PHONES_MAX);
        l->populations[i].first = l->phones_n;
        l->populations[i].n = c->clients;
        l->phones_n += c->clients;
        uint32_t pool = pool_of(l, i);
        most = pool > most ? pool : most;
        if (l->cfg.script)
            continue;
        if (!c->joins || !i)
            chats += c->chats_per_client * groups_of(pool, c->chat_size);
        seats += c->chats_per_client * c->clients;
    }
    if (l->cfg.script) {
        chats = l->cfg.script->chats;
        seats = l->cfg.script->members;
    }
    int rc = allocate(l, chats, seats, most, &order);
    if (rc)
        err_set(ctx, rc, "out of memory for %u phones", l->phones_n);
    for (uint32_t i = 0, at = 0; i < l->cfg.populations_n && !rc; i++) {
        rc = build_population(l, i, ctx);
        if (l->cfg.script)
            continue;
        for (uint32_t k = 0; k < l->populations[i].n && !rc; k++) {
            l->phones[l->populations[i].first + k].chats = l->memberships + at;
            at += l->populations_cfg[i].chats_per_client;
        }
    }
    for (uint32_t i = 0; i < l->cfg.populations_n && !rc && !l->cfg.script; i++)
        if (!l->populations_cfg[i].joins || !i)
            group_up(l, i, order, &member_at);
    free(order);
    if (!rc && l->cfg.script)
        rc = script_build(l, ctx);
    if (rc)
        return rc;
    client_pool_init(&l->pool, seats * 2 + 1024);
    keep_init(l);
    return ledger_init(&l->ledger, l->cfg.populations_n, l->cfg.messages_max);
}

void build_release(struct load *l)
{
    keep_release(l);
    for (uint32_t i = 0; i < l->phones_n && l->phones; i++) {
        struct load_phone *p = &l->phones[i];
        press_clear(p);
        if (p->shown)
            map_release(p->shown);
        free(p->shown);
        watch_release(p);
        if (p->client.config)
            client_release(&p->client, &l->pool);
    }
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        texts_release(&l->populations[i].texts);
        free(l->populations[i].awake);
    }
    client_pool_release(&l->pool);
    if (l->said.key_size)
        map_release(&l->said);
    ledger_release(&l->ledger);
    free(l->phones);
    free(l->chats);
    free(l->members);
    free(l->memberships);
    free(l->scratch.data);
}

uint32_t phone_address(const struct load_phone *p)
{
    const struct population *pop = &p->load->populations[p->population];
    uint32_t k = (uint32_t)(p - p->load->phones) - pop->first;
    return pop->cfg->addresses ? pop->cfg->first_address + k * LOAD_ADDRESS_STRIDE + p->address : 0;
}

/* Building a script. */
#include "load/replay.h"

#include <stdlib.h>
#include <string.h>

#include "core/client.h"

static const char placeholder[] = "replayed: the source keeps no text";

void replay_init(struct replay *r)
{
    *r = (struct replay){.duration_ns = 0};
    map_init(&r->people, 8, 8, UINT32_MAX, 1);
    map_init(&r->members, 16, 8, UINT32_MAX, 1);
    map_init(&r->chats, 8, 8, UINT32_MAX, 1);
}

void replay_release(struct replay *r)
{
    for (uint32_t i = 0; i < r->script.steps && r->step; i++)
        if (r->step[i].body.p != placeholder)
            free((void *)r->step[i].body.p);
    map_release(&r->people);
    map_release(&r->members);
    map_release(&r->chats);
    free(r->person);
    free(r->step);
    free(r->chat_of);
    free((void *)r->script.phone);
    free((void *)r->script.chat);
    free((void *)r->script.member);
    *r = (struct replay){.duration_ns = 0};
}

static struct replay_person *person_of(const struct replay *r, uint64_t user)
{
    const uint64_t *place = map_get_u64(&r->people, user);
    return place ? &r->person[*place] : NULL;
}

int replay_person(struct replay *r, uint64_t user, uint32_t device, enum net net)
{
    bool fresh;
    uint64_t *place = map_put_u64(&r->people, user, &fresh);
    if (!place)
        return ERR_NOMEM;
    if (!fresh) {
        struct replay_person *p = &r->person[*place];
        p->net = p->net == NET_UNKNOWN ? (uint8_t)net : p->net;
        p->device = p->device ? p->device : device;
        r->connections_skipped += device && p->device != device;
        return 0;
    }
    if (r->persons == LOAD_PHONES_MAX)
        return ERR_LIMIT;
    if (r->persons == r->persons_cap) {
        uint32_t cap = r->persons_cap ? r->persons_cap * 2 : 64;
        struct replay_person *more = realloc(r->person, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        r->person = more;
        r->persons_cap = cap;
    }
    *place = r->persons;
    r->person[r->persons++] = (struct replay_person){.user = user, .device = device, .net = (uint8_t)net};
    return 0;
}

uint32_t replay_device(const struct replay *r, uint64_t user)
{
    const struct replay_person *p = person_of(r, user);
    return p ? p->device : 0;
}

int replay_member(struct replay *r, uint64_t chat, uint64_t user)
{
    uint64_t key[2] = {chat, user}, *count;
    bool fresh;
    int rc = replay_person(r, user, 0, NET_UNKNOWN);
    if (rc || !chat)
        return rc;
    if (!map_put(&r->members, key, &fresh))
        return ERR_NOMEM;
    if (!fresh)
        return 0;
    if (!(count = map_put_u64(&r->chats, chat, NULL)))
        return ERR_NOMEM;
    return ++*count > PROTO_USERS_MAX ? ERR_LIMIT : 0;
}

void replay_connected(struct replay *r, uint64_t user)
{
    struct replay_person *p = person_of(r, user);
    if (p)
        p->connected = true;
}

static int room_for_step(struct replay *r)
{
    if (r->script.steps < r->steps_cap)
        return 0;
    uint32_t cap = r->steps_cap ? r->steps_cap * 2 : 256;
    struct load_step *step = realloc(r->step, cap * sizeof *step);
    if (!step)
        return ERR_NOMEM;
    r->step = step;
    uint64_t *chat = realloc(r->chat_of, cap * sizeof *chat);
    if (!chat)
        return ERR_NOMEM;
    r->chat_of = chat;
    r->steps_cap = cap;
    return 0;
}

/* Owned by the step; p NULL: out of memory. */
static struct slice keep(struct slice text)
{
    char *copy = malloc(text.n);
    if (copy)
        memcpy(copy, text.p, text.n);
    return (struct slice){copy, text.n};
}

int replay_add(struct replay *r, const struct replay_act *a)
{
    bool says = a->act == LOAD_SAY || a->act == LOAD_PRESS;
    struct slice body = {placeholder, sizeof placeholder - 1};
    int rc = says ? replay_member(r, a->chat, a->user) : replay_person(r, a->user, 0, NET_UNKNOWN);
    rc = rc ? rc : room_for_step(r);
    if (rc)
        return rc;
    if (says && a->body.n)
        body = keep(a->body);
    if (!body.p)
        return ERR_NOMEM;
    r->bodies_unknown += says && !a->body.n;
    r->chat_of[r->script.steps] = a->chat;
    r->step[r->script.steps] = (struct load_step){.at_ns = a->ts_ns,
                                                  .phone = (uint32_t)(person_of(r, a->user) - r->person),
                                                  .chat = r->script.steps,
                                                  .act = (uint8_t)a->act,
                                                  .reason = (uint8_t)a->reason,
                                                  .intent = a->intent,
                                                  .id = a->id,
                                                  .body = body};
    r->script.steps++;
    if (says && id_is_v7(&a->id)) {
        uint64_t ms = id_unix_ms(&a->id);
        r->oldest_ms = r->oldest_ms && r->oldest_ms < ms ? r->oldest_ms : ms;
        r->newest_ms = r->newest_ms > ms ? r->newest_ms : ms;
    }
    return 0;
}

/* ---- finish ---- */

static int compare_people(const void *a, const void *b)
{
    const struct replay_person *x = a, *y = b;
    if (x->net != y->net)
        return x->net < y->net ? -1 : 1;
    return x->user < y->user ? -1 : x->user > y->user;
}

static int compare_steps(const void *a, const void *b)
{
    const struct load_step *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return x->chat < y->chat ? -1 : x->chat > y->chat; /* the order in which they were added */
}

static int compare_chats(const void *a, const void *b)
{
    const struct load_script_chat *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int number_phones(struct replay *r, const struct replay_options *o, struct err_ctx *ctx)
{
    struct load_script_phone *phone = calloc(r->persons + 1, sizeof *phone);
    struct replay_person *sorted = malloc((r->persons + 1) * sizeof *sorted);
    struct map taken;
    int rc = phone && sorted ? 0 : err_set(ctx, ERR_NOMEM, "%u phones: out of memory", r->persons);
    r->script.phone = phone;
    map_init(&taken, 8, 8, UINT32_MAX, 1);
    if (!rc)
        memcpy(sorted, r->person, r->persons * sizeof *sorted);
    if (!rc)
        qsort(sorted, r->persons, sizeof *sorted, compare_people);
    for (uint32_t i = 0; !rc && i < r->persons; i++) {
        const uint64_t *as = o->users ? map_get_u64(o->users, sorted[i].user) : NULL;
        bool fresh;
        if (!i || sorted[i].net != sorted[i - 1].net) {
            struct load_population *p = &r->population[r->populations++];
            snprintf(p->name, sizeof p->name, "%s", net_name(sorted[i].net));
            p->net = (enum net)sorted[i].net;
            p->features = o->features >= 0 ? (uint8_t)o->features : r->reliable ? CLIENT_RELIABLE : 0;
            p->retries = 5;
            p->resync_window_ns = 30 * 60 * NS_PER_S;
            p->body_min = p->body_max = 1;
        }
        r->population[r->populations - 1].clients++;
        person_of(r, sorted[i].user)->place = i;
        phone[i] = (struct load_script_phone){.user = as ? *as : sorted[i].user,
                                              .device = sorted[i].device ? sorted[i].device : 1,
                                              .population = (uint16_t)(r->populations - 1)};
        if (!map_put_u64(&taken, phone[i].user, &fresh))
            rc = err_set(ctx, ERR_NOMEM, "%u phones: out of memory", r->persons);
        else if (!fresh)
            rc = err_set(ctx, ERR_INVALID, "the map of users makes two people act as user %llu",
                         (unsigned long long)phone[i].user);
    }
    r->script.phones = r->persons;
    map_release(&taken);
    free(sorted);
    return rc;
}

static int number_chats(struct replay *r, struct err_ctx *ctx)
{
    uint32_t n = (uint32_t)r->chats.count, seats = 0;
    struct load_script_chat *chat = calloc(n + 1, sizeof *chat);
    uint32_t *member = calloc(r->members.count + 1, sizeof *member);
    const void *key;
    void *val;
    r->script.chat = chat;
    r->script.member = member;
    if (!chat || !member)
        return err_set(ctx, ERR_NOMEM, "%u chats: out of memory", n);
    for (size_t at = 0; map_next(&r->chats, &at, &key, &val);)
        chat[r->script.chats++] = (struct load_script_chat){.number = *(const uint64_t *)key,
                                                            .members = (uint32_t) * (uint64_t *)val};
    qsort(chat, n, sizeof *chat, compare_chats);
    for (uint32_t i = 0; i < n; i++) {
        chat[i].first = seats;
        seats += chat[i].members;
        *(uint64_t *)map_get_u64(&r->chats, chat[i].number) = i;
        chat[i].members = 0;
    }
    for (size_t at = 0; map_next(&r->members, &at, &key, &val);) {
        const uint64_t *pair = key;
        struct load_script_chat *c = &chat[*(const uint64_t *)map_get_u64(&r->chats, pair[0])];
        member[c->first + c->members++] = person_of(r, pair[1])->place;
    }
    r->script.members = seats;
    return 0;
}

static uint64_t scaled(uint64_t gap_ns, uint64_t speed_ppm)
{
    if (!speed_ppm)
        return gap_ns < REPLAY_PAUSE_NS ? gap_ns : REPLAY_PAUSE_NS;
    return (uint64_t)((double)gap_ns * 1e6 / (double)speed_ppm);
}

static int absent_at_first(struct replay *r, uint64_t begin_ns)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < r->persons; i++)
        if (!r->person[i].connected)
            rc = replay_add(r, &(struct replay_act){.ts_ns = begin_ns,
                                                    .user = r->person[i].user,
                                                    .act = LOAD_LEAVE,
                                                    .reason = REASON_CLOSED_BY_US});
    return rc;
}

int replay_finish(struct replay *r, const struct replay_options *o, struct err_ctx *ctx)
{
    uint64_t begin = UINT64_MAX, from, at = REPLAY_LEAD_NS;
    uint32_t said = 0;
    for (uint32_t i = 0; i < r->script.steps; i++) {
        begin = r->step[i].at_ns < begin ? r->step[i].at_ns : begin;
        said += r->step[i].act <= LOAD_PRESS;
    }
    if (!said)
        return err_set(ctx, ERR_INVALID, "nobody says anything in it: there is nothing to re-enact");
    int rc = absent_at_first(r, begin);
    if (rc)
        return err_set(ctx, rc, "%u phones: %s", r->persons, err_text(rc));
    rc = number_phones(r, o, ctx);
    rc = rc ? rc : number_chats(r, ctx);
    if (rc)
        return rc;
    qsort(r->step, r->script.steps, sizeof *r->step, compare_steps);
    from = begin;
    for (uint32_t i = 0; i < r->script.steps; i++) {
        struct load_step *s = &r->step[i];
        uint64_t chat = r->chat_of[s->chat];
        const uint64_t *place = chat ? map_get_u64(&r->chats, chat) : NULL;
        at += scaled(s->at_ns - from, o->speed_ppm);
        from = s->at_ns;
        s->at_ns = at;
        s->chat = place ? (uint32_t)*place : 0;
        s->phone = r->person[s->phone].place;
        r->says += s->act == LOAD_SAY;
        r->presses += s->act == LOAD_PRESS;
        r->leaves += s->act == LOAD_LEAVE;
        r->freezes += s->act == LOAD_FREEZE;
    }
    r->script.step = r->step;
    r->script.same_ids = o->same_ids;
    r->duration_ns = at + REPLAY_LEAD_NS;
    return 0;
}

#include "trace/index_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/clock.h"

bool hop_names_message(int hop)
{
    return hop != HOP_CLIENT_ACK && hop != HOP_CLIENT_READ &&
           ((hop >= HOP_CLIENT_SUBMIT && hop <= HOP_CLIENT_GIVE_UP) ||
            (hop >= HOP_SERVER_RECEIVE && hop <= HOP_SERVER_RETIRE) || hop == HOP_SERVER_STORE_FAILURE ||
            hop == HOP_BUS_PUBLISH || hop == HOP_BUS_RECEIVE);
}

static bool message_key(const struct trace_event *e, struct id *key)
{
    static const struct id zero;
    *key = e->id;
    return hop_names_message(e->hop) && !id_equal(&e->id, &zero);
}

struct id flow_key(const struct id *flow, bool down)
{
    struct trace_flow f;
    struct id key;
    memcpy(&f, flow, sizeof f);
    if (down)
        f = (struct trace_flow){.src = f.dst, .dst = f.src, .sport = f.dport, .dport = f.sport};
    f.tcp_seq = 0;
    memcpy(&key, &f, sizeof key);
    return key;
}

static bool link_key(const struct trace_event *e, struct id *key)
{
    if (e->hop != HOP_LINK_DROP && e->hop != HOP_LINK_DELIVER)
        return false;
    *key = flow_key(&e->id, e->flags & TRACE_FLAG_DOWN);
    return true;
}

/* ---- lists of records, sorted ---- */

static int compare_user_lanes(const void *a, const void *b, void *arg)
{
    const struct lane *lane = ((const struct trace_run *)arg)->index->lane;
    const struct lane *x = &lane[*(const uint32_t *)a], *y = &lane[*(const uint32_t *)b];
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

static int compare_chats(const void *a, const void *b, void *arg)
{
    const struct trace_event *ev = ((const struct trace_run *)arg)->event;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    if (ev[i].chat != ev[k].chat)
        return ev[i].chat < ev[k].chat ? -1 : 1;
    return i < k ? -1 : i > k;
}

static int compare_members(const void *a, const void *b, void *arg)
{
    const struct trace_event *ev = ((const struct trace_run *)arg)->event;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    const struct trace_event *x = &ev[i], *y = &ev[k];
    if (x->chat != y->chat)
        return x->chat < y->chat ? -1 : 1;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    return i < k ? -1 : i > k;
}

static int append(uint32_t **list, uint32_t *n, uint32_t value)
{
    /* grown at powers of two */
    if ((*n & (*n - 1)) == 0) {
        uint32_t *more = realloc(*list, (*n ? (size_t)*n * 2 : 1) * sizeof **list);
        if (!more)
            return ERR_NOMEM;
        *list = more;
    }
    (*list)[(*n)++] = value;
    return 0;
}

static int collect_lists(const struct trace_run *r)
{
    struct trace_index *x = r->index;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < r->events; i++) {
        const struct trace_event *e = &r->event[i];
        if (e->hop == HOP_SERVER_MEMBER)
            rc = append(&x->member, &x->member_n, i);
        else if (e->hop == HOP_SERVER_FANOUT)
            rc = append(&x->fanout, &x->fanout_n, i);
        else if (e->hop == HOP_SERVER_START || e->hop == HOP_SERVER_STOP)
            rc = append(&x->life, &x->life_n, i);
        else if (e->hop == HOP_SERVER_EPOCH && e->chat)
            rc = append(&x->epoch, &x->epoch_n, i);
        else if (e->hop == HOP_BUS_HOLE)
            rc = append(&x->hole, &x->hole_n, i);
        x->redelivers |= e->hop == HOP_SERVER_REDELIVER;
        if (trace_side(e->node) == TRACE_SIDE_SERVER)
            x->server_end_ns = e->ts_ns;
    }
    for (uint32_t i = 0; rc == 0 && i < x->lanes.n; i++)
        if (x->lane[i].user)
            rc = trace_side(x->lane[i].node) == TRACE_SIDE_LOAD
                     ? append(&x->by_user, &x->by_user_n, i)
                     : append(&x->server_by_user, &x->server_by_user_n, i);
    if (rc == 0 && x->by_user_n)
        qsort_r(x->by_user, x->by_user_n, sizeof *x->by_user, compare_user_lanes, (void *)r);
    if (rc == 0 && x->server_by_user_n)
        qsort_r(x->server_by_user, x->server_by_user_n, sizeof *x->by_user, compare_user_lanes, (void *)r);
    if (rc == 0 && x->member_n)
        qsort_r(x->member, x->member_n, sizeof *x->member, compare_members, (void *)r);
    if (rc == 0 && x->fanout_n)
        qsort_r(x->fanout, x->fanout_n, sizeof *x->fanout, compare_chats, (void *)r);
    return rc;
}

static int collect_chats(const struct trace_run *r)
{
    struct trace_index *x = r->index;
    bool fresh;
    for (uint32_t i = 0; i < x->member_n; i++) {
        struct chat_members *c = map_put_u64(&x->chats, r->event[x->member[i]].chat, &fresh);
        if (!c)
            return ERR_NOMEM;
        if (fresh)
            c->first = i;
        c->n++;
    }
    for (uint32_t i = 0; i < x->fanout_n; i++) {
        struct chat_members *c = map_get_u64(&x->chats, r->event[x->fanout[i]].chat);
        if (!c)
            continue;
        if (!c->fanouts_n++)
            c->fanouts_first = i;
    }
    return 0;
}

static int build(const struct trace_run *r)
{
    struct trace_index *x = r->index;
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) < 0)
        seed = 1;
    x->messages.seed = x->flows.seed = x->lanes.seed = seed;
    map_init(&x->chats, 8, sizeof(struct chat_members), UINT32_MAX, seed);
    uint32_t *scratch = malloc(((size_t)r->events + 1) * sizeof *scratch);
    int rc = scratch ? groups_build(&x->messages, r, message_key, scratch) : ERR_NOMEM;
    if (rc == 0)
        rc = groups_build(&x->flows, r, link_key, scratch);
    if (rc == 0)
        rc = groups_build(&x->lanes, r, lane_key, scratch);
    free(scratch);
    if (rc == 0 && !(x->lane = malloc(((size_t)x->lanes.n + 1) * sizeof *x->lane)))
        rc = ERR_NOMEM;
    for (uint32_t i = 0; rc == 0 && i < x->lanes.n; i++)
        lane_read(r, i, &x->lane[i]);
    if (rc == 0)
        rc = match_lanes(r);
    if (rc == 0)
        rc = collect_lists(r);
    if (rc == 0)
        rc = collect_chats(r);
    return rc;
}

int trace_join(struct trace_run *r, struct err_ctx *ctx)
{
    BUG_ON(r->index);
    r->index = calloc(1, sizeof *r->index);
    int rc = r->index ? build(r) : ERR_NOMEM;
    return rc < 0 ? err_set(ctx, rc, "joining %u records: %s", r->events, err_text(rc)) : 0;
}

void index_free(struct trace_index *x)
{
    if (!x)
        return;
    groups_release(&x->messages);
    groups_release(&x->flows);
    groups_release(&x->lanes);
    map_release(&x->chats);
    free(x->lane);
    free(x->by_user);
    free(x->server_by_user);
    free(x->member);
    free(x->fanout);
    free(x->life);
    free(x->epoch);
    free(x->hole);
    free(x);
}

/* ---- questions ---- */

/* Position of the first lane past (user, ns). */
static uint32_t lanes_past(const struct trace_index *x, const uint32_t *list, uint32_t n, uint64_t user,
                           uint64_t ns)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct lane *l = &x->lane[list[mid]];
        if (l->user < user || (l->user == user && l->start_ns <= ns))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

enum net user_net(const struct trace_run *r, uint64_t user, uint64_t ns)
{
    const struct trace_index *x = r->index;
    uint32_t at = lanes_past(x, x->by_user, x->by_user_n, user, ns);
    if (at > 0 && x->lane[x->by_user[at - 1]].user == user)
        return (enum net)x->lane[x->by_user[at - 1]].net;
    if (at < x->by_user_n && x->lane[x->by_user[at]].user == user)
        return (enum net)x->lane[x->by_user[at]].net;
    return NET_UNKNOWN;
}

struct lane *server_lane_at(const struct trace_run *r, uint64_t user, uint64_t ns)
{
    const struct trace_index *x = r->index;
    uint32_t at = lanes_past(x, x->server_by_user, x->server_by_user_n, user, ns);
    /* the latest that was open; older ones may outlive newer ones, but not by many */
    for (int tries = 0; tries < 8 && at-- > 0 && x->lane[x->server_by_user[at]].user == user; tries++)
        if (x->lane[x->server_by_user[at]].end_ns >= ns)
            return &x->lane[x->server_by_user[at]];
    return NULL;
}

struct chat_members *chat_members(const struct trace_run *r, uint64_t chat)
{
    return map_get_u64(&r->index->chats, chat);
}

uint32_t members_at(const struct trace_run *r, uint64_t chat, uint64_t ns, uint64_t *out)
{
    const struct chat_members *c = chat_members(r, chat);
    uint32_t n = 0;
    for (uint32_t i = 0; c && i < c->n; i++) {
        const struct trace_event *e = &r->event[r->index->member[c->first + i]];
        if (e->ts_ns > ns)
            continue;
        bool listed = n && out[n - 1] == e->user;
        if (listed && (e->flags & TRACE_FLAG_LEFT))
            n--;
        else if (!listed && !(e->flags & TRACE_FLAG_LEFT))
            out[n++] = e->user;
    }
    return n;
}

#include "trace/story_impl.h"

#include <stdlib.h>
#include <string.h>

void story_release(struct story *s)
{
    free(s->send);
    free(s->direct);
    free(s->recipient);
}

static bool grow(void **p, uint32_t *cap, uint32_t want, size_t size)
{
    if (want <= *cap)
        return true;
    uint32_t n = want < 16 ? 16 : want + want / 2;
    void *more = realloc(*p, (size_t)n * size);
    if (!more)
        return false;
    *p = more;
    *cap = n;
    return true;
}

static int compare_direct(const void *a, const void *b)
{
    const struct by_user *x = a, *y = b;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    return x->rec < y->rec ? -1 : x->rec > y->rec;
}

static void forget(struct story *s)
{
    *s = (struct story){.r = s->r,
                        .submit = TRACE_NONE,
                        .give_up = TRACE_NONE,
                        .accepted_seen = TRACE_NONE,
                        .received = TRACE_NONE,
                        .reject = TRACE_NONE,
                        .duplicate = TRACE_NONE,
                        .commit = TRACE_NONE,
                        .fanout = TRACE_NONE,
                        .publish = TRACE_NONE,
                        .store_failure = TRACE_NONE,
                        .first_received = TRACE_NONE,
                        .any_server = TRACE_NONE,
                        .send = s->send,
                        .direct = s->direct,
                        .recipient = s->recipient,
                        .send_cap = s->send_cap,
                        .direct_cap = s->direct_cap,
                        .recipient_cap = s->recipient_cap};
}

/* A record of the sender's side or of the server as a whole. */
static void note_common(struct story *s, const struct trace_event *e, uint32_t rec)
{
    switch ((enum hop)e->hop) {
    case HOP_CLIENT_RESEND: /* legacy: the new id's submit */
    case HOP_CLIENT_SUBMIT:
        s->submit = s->submit == TRACE_NONE ? rec : s->submit;
        s->one_send |= (e->flags & TRACE_FLAG_ONE_SEND) != 0;
        s->outbox |= (e->flags & TRACE_FLAG_OUTBOX) != 0;
        break;
    case HOP_CLIENT_SEND:
        s->send[s->sends++] = rec;
        s->attempts_max = e->attempt > s->attempts_max ? e->attempt : s->attempts_max;
        break;
    case HOP_CLIENT_GIVE_UP:
        s->give_up = rec;
        break;
    case HOP_CLIENT_ACCEPTED:
        s->accepted_seen = rec;
        break;
    case HOP_SERVER_RECEIVE:
        s->first_received = s->first_received == TRACE_NONE ? rec : s->first_received;
        s->received = rec;
        s->received_n++;
        s->durable |= (e->flags & TRACE_FLAG_DURABLE) != 0;
        break;
    case HOP_SERVER_REJECT:
        s->reject = rec;
        break;
    case HOP_SERVER_DUPLICATE:
        s->duplicate = rec;
        break;
    case HOP_SERVER_COMMIT:
        s->commit = s->commit == TRACE_NONE ? rec : s->commit;
        break;
    case HOP_SERVER_FANOUT:
        s->fanout = rec;
        s->fanouts_n++;
        *((e->flags & TRACE_FLAG_ONE_PUSH) ? &s->one_push : &s->many_push) = true;
        break;
    case HOP_BUS_PUBLISH:
        s->publish = rec;
        break;
    case HOP_SERVER_STORE_FAILURE:
        s->store_failure = rec;
        break;
    default:
        break;
    }
}

bool hop_names_recipient(int hop)
{
    return hop == HOP_CLIENT_RECEIVE || hop == HOP_CLIENT_SURFACE || hop == HOP_CLIENT_DUPLICATE ||
           hop == HOP_SERVER_PUSH || hop == HOP_SERVER_PUSH_DROP || hop == HOP_SERVER_REDELIVER ||
           hop == HOP_SERVER_SLOW_SKIP;
}

static bool says_sender(int hop)
{
    return hop == HOP_CLIENT_SUBMIT || hop == HOP_CLIENT_SEND || hop == HOP_CLIENT_RESEND ||
           hop == HOP_CLIENT_GIVE_UP || hop == HOP_SERVER_RECEIVE || hop == HOP_SERVER_FANOUT;
}

static bool says_server_had_it(int hop)
{
    return (hop >= HOP_SERVER_RECEIVE && hop <= HOP_SERVER_RETIRE) || hop == HOP_SERVER_STORE_FAILURE ||
           hop == HOP_BUS_PUBLISH || hop == HOP_BUS_RECEIVE || hop == HOP_CLIENT_ACCEPTED ||
           hop == HOP_CLIENT_RECEIVE || hop == HOP_CLIENT_SURFACE || hop == HOP_CLIENT_DUPLICATE;
}

static int read_records(struct story *s, const uint32_t *rec, uint32_t n)
{
    const struct trace_run *r = s->r;
    if (!grow((void **)&s->send, &s->send_cap, n, sizeof *s->send) ||
        !grow((void **)&s->direct, &s->direct_cap, n, sizeof *s->direct))
        return ERR_NOMEM;
    for (uint32_t k = 0; k < n; k++) {
        const struct trace_event *e = &r->event[rec[k]];
        s->chat = s->chat ? s->chat : e->chat;
        if (says_sender(e->hop) && !s->sender)
            s->sender = event_user(r, e);
        if (says_server_had_it(e->hop) && s->any_server == TRACE_NONE)
            s->any_server = rec[k];
        if (hop_names_recipient(e->hop))
            s->direct[s->directs++] = (struct by_user){event_user(r, e), rec[k]};
        else
            note_common(s, e, rec[k]);
    }
    qsort(s->direct, s->directs, sizeof *s->direct, compare_direct);
    return 0;
}

/* ---- what is provable about this message as a whole ---- */

static uint32_t distinct_attempts(const struct story *s)
{
    uint8_t seen[256] = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->sends; i++)
        n += !seen[s->r->event[s->send[i]].attempt]++;
    return n;
}

static void prove(struct story *s)
{
    const bool *complete = s->r->complete;
    /* what contradicts a client's promise to send once takes the promise away */
    if (s->sends > 1 || s->attempts_max > 1 || s->received_n > 1)
        s->one_send = false;
    bool counted = s->give_up != TRACE_NONE && s->r->event[s->give_up].arg == distinct_attempts(s);
    s->sends_known = complete[TRACE_SIDE_LOAD] || counted || (s->one_send && s->sends == 1);
    /* chats cross the edges of a sample's blocks of users; who said this left no record at all */
    s->outside = !s->sender && s->r->sample > 1 && complete[TRACE_SIDE_LOAD] && complete[TRACE_SIDE_SERVER];
    s->fanouts_known = complete[TRACE_SIDE_SERVER] || s->one_send || (s->sends_known && s->sends == 1);
}

static uint64_t membership_ns(const struct story *s)
{
    const struct trace_event *ev = s->r->event;
    uint32_t at = s->fanout != TRACE_NONE     ? s->fanout
                  : s->commit != TRACE_NONE   ? s->commit
                  : s->received != TRACE_NONE ? s->received
                  : s->submit != TRACE_NONE   ? s->submit
                  : s->sends                  ? s->send[0]
                                              : TRACE_NONE;
    return at == TRACE_NONE ? UINT64_MAX : ev[at].ts_ns;
}

static uint32_t members_without(uint64_t *user, uint32_t n, uint64_t sender)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < n; i++)
        if (user[i] != sender)
            user[out++] = user[i];
    return out;
}

/* Each fan-out of this chat in the whole run expected as many as the member records say: none is missing. */
static bool chat_is_stable(struct story *s)
{
    struct chat_members *c = chat_members(s->r, s->chat);
    if (!c)
        return false;
    if (c->stable)
        return c->stable == 1;
    const struct trace_run *r = s->r;
    uint64_t *scratch = malloc(((size_t)c->n + 1) * sizeof *scratch);
    uint32_t agreed = 0;
    c->stable = 2;
    for (uint32_t k = 0; scratch && k < c->fanouts_n; k++) {
        const struct trace_event *e = &r->event[r->index->fanout[c->fanouts_first + k]];
        if (members_without(scratch, members_at(r, e->chat, e->ts_ns, scratch), e->user) != e->arg) {
            agreed = 0;
            break;
        }
        agreed++;
    }
    free(scratch);
    c->stable = agreed ? 1 : 2;
    return agreed > 0;
}

static int find_recipients(struct story *s)
{
    const struct chat_members *c = s->chat ? chat_members(s->r, s->chat) : NULL;
    uint32_t room = (c ? c->n : 0) + s->directs, n = 0;
    if (!grow((void **)&s->recipient, &s->recipient_cap, room + 1, sizeof *s->recipient))
        return ERR_NOMEM;
    if (s->sender && c)
        n = members_without(s->recipient, members_at(s->r, s->chat, membership_ns(s), s->recipient),
                            s->sender);
    s->members_certain = s->fanout != TRACE_NONE ? s->fanouts_n == 1 && s->r->event[s->fanout].arg == n
                         : s->r->complete[TRACE_SIDE_SERVER] ? true
                                                             : c && chat_is_stable(s);
    /* merge with the users whom records name; both lists rise */
    uint32_t members = n;
    for (uint32_t k = 0, m = 0; k < s->directs; k++) {
        uint64_t u = s->direct[k].user;
        if (!u || u == s->sender || (k && s->direct[k - 1].user == u))
            continue;
        while (m < members && s->recipient[m] < u)
            m++;
        if (m == members || s->recipient[m] != u)
            s->recipient[n++] = u;
    }
    s->recipients = n;
    return 0;
}

int story_read(struct story *s, const struct trace_run *r, uint32_t message)
{
    const struct groups *g = &r->index->messages;
    s->r = r;
    forget(s);
    s->id = g->key[message];
    int rc = read_records(s, &g->rec[g->first[message]], g->first[message + 1] - g->first[message]);
    if (rc)
        return rc;
    prove(s);
    return s->outside ? 0 : find_recipients(s);
}

void story_slice(const struct story *s, uint64_t user, uint32_t *from, uint32_t *to)
{
    uint32_t lo = 0, hi = s->directs;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->direct[mid].user < user)
            lo = mid + 1;
        else
            hi = mid;
    }
    *from = lo;
    while (lo < s->directs && s->direct[lo].user == user)
        lo++;
    *to = lo;
}

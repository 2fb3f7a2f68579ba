/* The verdict on one (message, recipient). Each function either settles the pair, on records it cites, or
 * leaves it not_observed with the reason why it can't say. Absence is used only through the three questions
 * below. */
#include "trace/story_impl.h"

static void cite(struct trace_pair *p, uint32_t rec)
{
    if (rec == TRACE_NONE)
        return;
    for (uint8_t i = 0; i < p->evidence_n; i++)
        if (p->evidence[i] == rec)
            return;
    if (p->evidence_n < TRACE_EVIDENCE_MAX)
        p->evidence[p->evidence_n++] = rec;
}

static void settle(struct trace_pair *p, enum verdict v, uint8_t reason, const char *why)
{
    p->verdict = v;
    p->reason = reason;
    p->why = why;
}

static void unknown(struct trace_pair *p, const char *why)
{
    settle(p, VERDICT_NOT_OBSERVED, REASON_NONE, why);
}

static const struct trace_event *event(const struct story *s, uint32_t rec)
{
    return &s->r->event[rec];
}

static struct lane *peer(const struct story *s, const struct lane *l)
{
    return l && l->peer != TRACE_NONE ? &s->r->index->lane[l->peer] : NULL;
}

/* ---- the three questions about absence ---- */

static bool complete(const struct story *s, enum trace_side side)
{
    return s->r->complete[side];
}

/* Nothing about a push at `ns` or later is missing from the phone's side of this connection. */
static bool phone_complete(const struct story *s, const struct lane *client, uint64_t ns)
{
    return complete(s, TRACE_SIDE_LOAD) || lane_complete_since(client, ns);
}

/* Is it certain that this send never reached the server program? (No record says that it did.) */
static bool send_not_received(const struct story *s, uint32_t send)
{
    const struct trace_event *e = event(s, send);
    struct lane *client = lane_of(s->r, e), *server = peer(s, client);
    uint64_t reached;
    if (complete(s, TRACE_SIDE_SERVER))
        return true;
    if (!client)
        return false;
    if (server && lane_complete_since(server, skewed_before(e->ts_ns)))
        return true;
    return complete(s, TRACE_SIDE_LINK) && link_reached(s->r, client, server, false, &reached) &&
           reached < e->arg;
}

/* ---- small findings ---- */

/* The first start or stop of that node after this record: its process died or ended. */
static uint32_t death_after(const struct story *s, uint32_t rec)
{
    const struct trace_index *x = s->r->index;
    uint32_t lo = 0, hi = x->life_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (x->life[mid] <= rec)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < x->life_n; lo++)
        if (event(s, x->life[lo])->node == event(s, rec)->node)
            return x->life[lo];
    return TRACE_NONE;
}

static bool died(const struct story *s, uint32_t death)
{
    return death != TRACE_NONE && event(s, death)->hop == HOP_SERVER_START;
}

/* Asked only where the servers' records are complete: an end that moves with missing records would judge. */
static bool in_flight_at_end(const struct story *s, uint64_t ns)
{
    return ns + IN_FLIGHT_NS > s->r->index->server_end_ns;
}

/* A close that only the end of the run caused says nothing about what was sent right before. */
static bool cut_short(const struct story *s, const struct lane *l, uint64_t ns)
{
    const struct trace_event *c = event(s, l->close);
    return c->reason == REASON_RUN_END && c->ts_ns < ns + IN_FLIGHT_NS;
}

struct drop {
    const struct trace_run *r;
    uint64_t until_ns;
    uint32_t rec;
};

static void note_drop(void *arg, uint32_t rec)
{
    struct drop *d = arg;
    const struct trace_event *e = &d->r->event[rec];
    if (e->hop == HOP_LINK_DROP && (d->rec == TRACE_NONE || e->ts_ns <= d->until_ns))
        d->rec = rec;
}

/* The packet whose loss stopped it: the last one dropped before the phone closed under the last byte that
 * this record wrote, else under the first byte that never arrived: what comes behind that waits in the
 * sender's window. */
static uint32_t drop_under(const struct story *s, struct lane *client, struct lane *server, bool down,
                           const struct trace_event *e)
{
    uint64_t until = client->close != TRACE_NONE ? event(s, client->close)->ts_ns : UINT64_MAX;
    struct drop d = {s->r, until, TRACE_NONE};
    uint64_t reached;
    link_packets(s->r, client, server, down, (struct byte_range){e->arg - 1, e->arg, skewed_before(e->ts_ns)},
                 note_drop, &d);
    if (d.rec == TRACE_NONE && link_reached(s->r, client, server, down, &reached) && reached < e->arg)
        link_packets(s->r, client, server, down, (struct byte_range){reached, reached + 1, 0}, note_drop, &d);
    return d.rec;
}

struct delivery {
    const struct trace_run *r;
    bool found;
};

static void note_delivery(void *arg, uint32_t rec)
{
    struct delivery *d = arg;
    d->found |= d->r->event[rec].hop == HOP_LINK_DELIVER;
}

/* Did the link bring this byte to the phone on this connection? With the SYN's record missing an earlier
 * connection of the same 4-tuple would be measured: its packets all lie before this one opened. */
static bool byte_delivered(const struct story *s, struct lane *client, struct lane *server, uint64_t end)
{
    struct delivery d = {s->r, false};
    link_packets(s->r, client, server, true, (struct byte_range){end - 1, end, server->start_ns},
                 note_delivery, &d);
    return d.found;
}

static bool retrying(const struct story *s)
{
    return s->outbox || s->attempts_max > 1;
}

/* The sender's phone still holds it and will go on. */
static bool in_outbox(const struct story *s)
{
    return complete(s, TRACE_SIDE_LOAD) && retrying(s) && !s->one_send && s->give_up == TRACE_NONE &&
           s->accepted_seen == TRACE_NONE;
}

/* ---- before the server had it ---- */

static void judge_uplink(const struct story *s, struct trace_pair *p)
{
    cite(p, s->submit);
    cite(p, s->give_up);
    if (!s->sends_known) {
        unknown(p, "not every attempt of the sender is known");
        return;
    }
    uint8_t reason = s->give_up != TRACE_NONE ? event(s, s->give_up)->reason : REASON_NONE;
    if (!s->sends) {
        if (s->give_up != TRACE_NONE)
            settle(p, VERDICT_LOST_UPLINK, reason, "it never left the phone");
        else if (in_outbox(s))
            settle(p, VERDICT_PENDING, REASON_NONE, "still in the sender's outbox");
        else
            unknown(p, "no record says what the phone did with it");
        return;
    }
    for (uint32_t i = 0; i < s->sends; i++) {
        const struct trace_event *e = event(s, s->send[i]);
        struct lane *l = lane_of(s->r, e), *server = peer(s, l);
        cite(p, s->send[i]);
        if (!send_not_received(s, s->send[i])) {
            unknown(p, "the server's records of that connection have holes");
            return;
        }
        if (!l || l->close == TRACE_NONE || (s->give_up == TRACE_NONE && cut_short(s, l, e->ts_ns))) {
            unknown(p, "it is not known how the sender's connection ended");
            return;
        }
        uint32_t drop = drop_under(s, l, server, false, e);
        cite(p, drop);
        cite(p, l->close);
        if (server)
            cite(p, server->close);
        if (reason == REASON_NONE || reason == REASON_PERSON_GAVE_UP)
            reason = event(s, drop != TRACE_NONE ? drop : l->close)->reason;
    }
    if (s->give_up == TRACE_NONE && retrying(s) && !s->one_send) {
        if (in_outbox(s))
            settle(p, VERDICT_PENDING, REASON_NONE, "still in the sender's outbox");
        else
            unknown(p, "the sender may try again");
        return;
    }
    settle(p, VERDICT_LOST_UPLINK, reason, "sent, and it never reached the server");
}

/* ---- the server had it and did not fan it out ---- */

static void judge_server(const struct story *s, struct trace_pair *p)
{
    uint32_t got = s->received != TRACE_NONE ? s->received : s->reject;
    cite(p, s->submit);
    cite(p, got);
    if (got == TRACE_NONE) {
        unknown(p, "the record of its arrival at the server is missing");
        return;
    }
    if (event(s, got)->flags & TRACE_FLAG_UNSURE) {
        unknown(p, "the server's host had it; whether the server read it no capture can tell");
        return;
    }
    if (!complete(s, TRACE_SIDE_SERVER) || !s->sends_known) {
        unknown(p, "the server's or the sender's records have holes");
        return;
    }
    if (in_flight_at_end(s, event(s, got)->ts_ns)) {
        unknown(p, "the run ended while the server worked on it");
        return;
    }
    if (retrying(s) && !s->one_send && s->give_up == TRACE_NONE && s->accepted_seen == TRACE_NONE) {
        if (in_outbox(s))
            settle(p, VERDICT_PENDING, REASON_NONE, "not accepted; still in the sender's outbox");
        else
            unknown(p, "the sender may try again");
        return;
    }
    if (s->reject != TRACE_NONE && (s->received == TRACE_NONE || s->reject > s->received)) {
        cite(p, s->reject);
        settle(p, VERDICT_LOST_AT_SERVER, event(s, s->reject)->reason, "the server refused it");
        return;
    }
    uint32_t death = death_after(s, got);
    enum verdict v = s->durable ? VERDICT_LOST_BEFORE_COMMIT : VERDICT_LOST_AT_SERVER;
    if (s->store_failure != TRACE_NONE) {
        cite(p, s->store_failure);
        settle(p, v, event(s, s->store_failure)->reason, "the store failed");
    } else if (died(s, death)) {
        cite(p, death);
        settle(p, v, REASON_KILLED,
               s->durable ? "the server died before the commit" : "the server died holding it");
    } else {
        cite(p, death);
        settle(p, VERDICT_LOST_AT_SERVER, REASON_NONE, "received, and nothing was done with it");
    }
}

/* ---- legacy: one push per recipient, and that is all ---- */

/* The push went into a connection; where did it end? */
static void judge_push(const struct story *s, struct trace_pair *p, uint32_t push, uint32_t client_receive)
{
    const struct trace_event *e = event(s, push);
    struct lane *server = lane_of(s->r, e), *client = peer(s, server);
    cite(p, push);
    if (!client) {
        unknown(p, "the phone's end of that connection was not found");
        return;
    }
    p->net = client->net;
    if (client->close == TRACE_NONE || e->ts_ns < client->start_ns) {
        unknown(p, "the phone's end of that connection is not whole on record");
        return;
    }
    const struct trace_event *close = event(s, client->close);
    cite(p, client->close);
    if (close->ts_ns < e->ts_ns && close->reason != REASON_RUN_END) {
        settle(p, VERDICT_LOST_DEAD_SOCKET, close->reason,
               "the phone had left this connection before the push");
        return;
    }
    if (!phone_complete(s, client, e->ts_ns)) {
        unknown(p, "the phone's records have holes");
        return;
    }
    if (close->flags & TRACE_FLAG_UNSURE && e->ts_ns + close->arg > close->ts_ns) {
        unknown(p, "the phone left this connection without a word, before the push or after it");
        return;
    }
    if (cut_short(s, client, e->ts_ns)) {
        unknown(p, "the run ended before or while it was under way");
        return;
    }
    if (client_receive != TRACE_NONE) {
        cite(p, client_receive);
        if (event(s, client_receive)->flags & TRACE_FLAG_UNSURE) {
            unknown(p, "the phone had it; whether the app read it no capture can tell");
            return;
        }
        settle(p, VERDICT_LOST_IN_CLIENT, close->reason, "the phone received it and never showed it");
        return;
    }
    uint32_t read = lane_read_at(s->r, client, e->arg, skewed_before(e->ts_ns));
    if (read != TRACE_NONE) {
        cite(p, read);
        settle(p, VERDICT_LOST_IN_CLIENT, close->reason, "the app read its bytes and never showed it");
        return;
    }
    uint64_t reached = 0;
    bool seen = link_reached(s->r, client, server, true, &reached);
    if (seen && reached >= e->arg && byte_delivered(s, client, server, e->arg)) {
        settle(p, VERDICT_LOST_IN_CLIENT, close->reason, "the phone had its bytes, the app never read them");
        return;
    }
    if (s->r->exists[TRACE_SIDE_LINK] && !complete(s, TRACE_SIDE_LINK)) {
        unknown(p, "the link's records have holes");
        return;
    }
    if (!seen && client->flow == TRACE_NONE && close->reason == REASON_APP_KILLED) {
        settle(p, VERDICT_LOST_IN_CLIENT, close->reason, "no link in between; the app never read it");
        return;
    }
    if (client->flow != TRACE_NONE && (!seen || reached >= e->arg)) {
        unknown(p, "where the connection's stream began is not on record");
        return;
    }
    uint32_t drop = drop_under(s, client, server, true, e);
    cite(p, drop);
    settle(p, VERDICT_LOST_DOWNLINK, drop != TRACE_NONE ? event(s, drop)->reason : close->reason,
           "pushed to a live connection, its bytes never arrived");
}

static uint32_t bus_hole_after(const struct story *s, uint32_t rec)
{
    const struct trace_index *x = s->r->index;
    for (uint32_t i = 0; i < x->hole_n; i++)
        if (x->hole[i] > rec && event(s, x->hole[i])->chat == s->chat &&
            event(s, x->hole[i])->node != event(s, rec)->node)
            return x->hole[i];
    return TRACE_NONE;
}

static void judge_no_push(const struct story *s, struct trace_pair *p)
{
    if (!complete(s, TRACE_SIDE_SERVER)) {
        unknown(p, "the server's records have holes");
        return;
    }
    if (in_flight_at_end(s, event(s, s->fanout)->ts_ns)) {
        unknown(p, "the run ended during the fan-out");
        return;
    }
    uint32_t hole = s->publish != TRACE_NONE ? bus_hole_after(s, s->publish) : TRACE_NONE;
    uint32_t death = death_after(s, s->fanout);
    const struct lane *queued = server_lane_at(s->r, p->recipient, event(s, s->fanout)->ts_ns);
    if (hole != TRACE_NONE) {
        cite(p, s->publish);
        cite(p, hole);
        settle(p, VERDICT_LOST_ON_BUS, REASON_NONE, "published, and a node found a hole in its place");
    } else if (died(s, death)) {
        cite(p, death);
        settle(p, VERDICT_LOST_AT_SERVER, REASON_KILLED, "the server died before this push");
    } else if (queued && event(s, s->fanout)->flags & TRACE_FLAG_INFERRED) {
        unknown(p, "nothing was written to the recipient's connection: whether the server still had it no "
                   "capture can tell");
    } else if (queued && queued->close != TRACE_NONE) {
        const struct lane *client = peer(s, queued);
        p->net = client ? (enum net)client->net : p->net;
        cite(p, queued->close);
        settle(p, VERDICT_LOST_DEAD_SOCKET, event(s, queued->close)->reason,
               "still unwritten when the recipient's connection closed");
    } else if (queued) {
        unknown(p, "the recipient's connection has no end on record");
    } else {
        settle(p, VERDICT_LOST_IN_FANOUT, REASON_NONE, "the fan-out left this recipient out");
    }
}

static void judge_one_push(const struct story *s, struct trace_pair *p, uint32_t from, uint32_t to)
{
    uint32_t paths = 0, received = TRACE_NONE;
    bool again = s->r->index->redelivers;
    cite(p, s->submit);
    cite(p, s->fanout);
    for (uint32_t k = from; k < to; k++) {
        uint8_t hop = event(s, s->direct[k].rec)->hop;
        paths += hop == HOP_SERVER_PUSH || hop == HOP_SERVER_PUSH_DROP;
        if (hop == HOP_CLIENT_RECEIVE)
            received = s->direct[k].rec;
    }
    if (!s->fanouts_known || ((paths != s->fanouts_n || again) && !complete(s, TRACE_SIDE_SERVER))) {
        unknown(p, "there may have been another push");
        return;
    }
    if (!paths) {
        judge_no_push(s, p);
        return;
    }
    for (uint32_t k = from; k < to; k++) {
        const struct trace_event *e = event(s, s->direct[k].rec);
        if (e->hop == HOP_SERVER_PUSH_DROP) {
            cite(p, s->direct[k].rec);
            settle(p, VERDICT_LOST_IN_FANOUT, e->reason, "the server had nowhere to push it");
        } else if (e->hop == HOP_SERVER_PUSH) {
            judge_push(s, p, s->direct[k].rec, received);
            if (p->verdict == VERDICT_NOT_OBSERVED)
                return;
        }
    }
}

/* ---- reliable: the log is the queue ---- */

static uint32_t restored_without(const struct story *s)
{
    const struct trace_index *x = s->r->index;
    const struct trace_event *c = event(s, s->commit);
    for (uint32_t i = 0; i < x->epoch_n; i++) {
        const struct trace_event *e = event(s, x->epoch[i]);
        if (e->chat == s->chat && x->epoch[i] > s->commit && e->user < c->arg)
            return x->epoch[i];
    }
    return TRACE_NONE;
}

static bool server_has_it_again(const struct story *s, uint32_t since, uint32_t from, uint32_t to)
{
    for (uint32_t k = from; k < to; k++) {
        uint8_t hop = event(s, s->direct[k].rec)->hop;
        if (s->direct[k].rec > since && (hop == HOP_SERVER_PUSH || hop == HOP_SERVER_REDELIVER))
            return true;
    }
    return (s->received != TRACE_NONE && s->received > since) ||
           (s->fanout != TRACE_NONE && s->fanout > since);
}

static void judge_kept(const struct story *s, struct trace_pair *p, uint32_t from, uint32_t to)
{
    cite(p, s->submit);
    cite(p, s->commit);
    cite(p, s->duplicate);
    cite(p, s->fanout);
    if (!complete(s, TRACE_SIDE_LOAD) || !complete(s, TRACE_SIDE_SERVER)) {
        unknown(p, "it may have been shown: records of phones or server have holes");
        return;
    }
    bool committed = s->commit != TRACE_NONE || s->duplicate != TRACE_NONE;
    uint32_t restored = s->commit != TRACE_NONE ? restored_without(s) : TRACE_NONE;
    uint32_t death = s->fanout != TRACE_NONE ? death_after(s, s->fanout) : TRACE_NONE;
    if (restored != TRACE_NONE && !server_has_it_again(s, restored, from, to)) {
        cite(p, restored);
        settle(p, VERDICT_LOST_IN_RESTORE, REASON_NONE, "the restored store ends before it");
    } else if (!committed && died(s, death)) {
        cite(p, death);
        settle(p, VERDICT_LOST_AT_SERVER, REASON_KILLED, "the server died with it in memory only");
    } else {
        settle(p, VERDICT_PENDING, REASON_NONE,
               committed ? "durable; the recipient has not been reached yet" : "held for the recipient");
    }
}

/* ---- one pair ---- */

static enum net sender_net(const struct story *s)
{
    if (s->sends) {
        const struct lane *l = lane_of(s->r, event(s, s->send[s->sends - 1]));
        if (l && l->open != TRACE_NONE)
            return (enum net)l->net;
    }
    return user_net(s->r, s->sender, s->submit != TRACE_NONE ? event(s, s->submit)->ts_ns : 0);
}

static bool judge_delivered(const struct story *s, struct trace_pair *p, uint32_t from, uint32_t to)
{
    for (uint32_t k = from; k < to; k++) {
        const struct trace_event *e = event(s, s->direct[k].rec);
        if (e->hop != HOP_CLIENT_SURFACE)
            continue;
        const struct lane *l = lane_of(s->r, e);
        if (l && l->open != TRACE_NONE)
            p->net = (enum net)l->net;
        p->surface_ns = e->ts_ns;
        cite(p, s->submit);
        cite(p, s->commit);
        cite(p, s->direct[k].rec);
        settle(p, VERDICT_DELIVERED, REASON_NONE, "shown to the person");
        return true;
    }
    return false;
}

void story_judge(const struct story *s, uint64_t recipient, struct trace_pair *p)
{
    uint32_t from, to;
    *p = (struct trace_pair){.id = s->id,
                             .chat = s->chat,
                             .sender = s->sender,
                             .recipient = recipient,
                             .verdict = VERDICT_NOT_OBSERVED,
                             .submit_ns = s->submit != TRACE_NONE ? event(s, s->submit)->ts_ns : 0};
    story_slice(s, recipient, &from, &to);
    p->net = s->any_server == TRACE_NONE ? sender_net(s)
                                         : user_net(s->r, recipient, event(s, s->any_server)->ts_ns);
    if (!s->sender)
        unknown(p, "no record says who sent it");
    else if (judge_delivered(s, p, from, to))
        return;
    else if (!s->members_certain && from == to)
        unknown(p, "the records of the chat's members have holes");
    else if (s->fanouts_n && s->one_push && !s->many_push)
        judge_one_push(s, p, from, to);
    else if (s->fanouts_n || s->commit != TRACE_NONE || s->duplicate != TRACE_NONE)
        judge_kept(s, p, from, to);
    else if (from != to)
        unknown(p, "pushed or received without its fan-out on record");
    else if (s->any_server != TRACE_NONE)
        judge_server(s, p);
    else
        judge_uplink(s, p);
}

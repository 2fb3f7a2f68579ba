/* All pairs, and the figures of a run. */
#include "trace/story_impl.h"

#include <stdlib.h>
#include <string.h>

static bool each_pair(const struct story *s, trace_pair_fn *fn, void *arg)
{
    struct trace_pair p;
    for (uint32_t i = 0; i < s->recipients; i++) {
        story_judge(s, s->recipient[i], &p);
        if (!fn(arg, &p))
            return false;
    }
    return true;
}

int trace_pairs(const struct trace_run *r, trace_pair_fn *fn, void *arg)
{
    struct story s = {0};
    int rc = 0;
    bool more = true;
    for (uint32_t m = 0; rc == 0 && more && m < r->index->messages.n; m++) {
        rc = story_read(&s, r, m);
        if (rc == 0)
            more = each_pair(&s, fn, arg);
    }
    story_release(&s);
    return rc;
}

int trace_pairs_of(const struct trace_run *r, const struct id *id, trace_pair_fn *fn, void *arg)
{
    struct story s = {0};
    uint32_t m = groups_find(&r->index->messages, id);
    if (m == TRACE_NONE)
        return ERR_NOTFOUND;
    int rc = story_read(&s, r, m);
    if (rc == 0)
        each_pair(&s, fn, arg);
    story_release(&s);
    return rc;
}

/* ---- what people saw twice ---- */

struct sighting {
    uint64_t sender, intent, user, device;
};

struct seen {
    struct map intents; /* {sender, intent} of everything that was sent again by hand */
    struct sighting *at;
    size_t n, cap;
};

static int collect_intents(struct seen *seen, const struct trace_run *r)
{
    map_init(&seen->intents, 16, 8, UINT32_MAX, r->index->messages.seed);
    for (uint32_t i = 0; i < r->events; i++) {
        const struct trace_event *e = &r->event[i];
        uint64_t key[2] = {event_user(r, e), e->arg};
        if (e->hop == HOP_CLIENT_RESEND && !map_put(&seen->intents, key, NULL))
            return ERR_NOMEM;
    }
    return 0;
}

static int add_sighting(struct seen *seen, const struct sighting *s)
{
    if (seen->n == seen->cap) {
        size_t cap = seen->cap ? seen->cap * 2 : 256;
        struct sighting *more = realloc(seen->at, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        seen->at = more;
        seen->cap = cap;
    }
    seen->at[seen->n++] = *s;
    return 0;
}

/* Sightings of intents that were sent again are kept until all their ids are known; another id's repeat on
 * one device is counted at once. */
static int note_sightings(struct seen *seen, const struct story *s, uint64_t *repeats)
{
    uint64_t key[2] = {s->sender, s->submit != TRACE_NONE ? s->r->event[s->submit].arg : 0};
    bool again = s->submit != TRACE_NONE && map_get(&seen->intents, key);
    for (uint32_t k = 0; k < s->directs; k++) {
        const struct trace_event *e = &s->r->event[s->direct[k].rec];
        if (e->hop != HOP_CLIENT_SURFACE || s->direct[k].user == s->sender)
            continue;
        const struct lane *l = lane_of(s->r, e);
        uint32_t device = e->device ? e->device : l ? l->device : 0;
        if (again) {
            struct sighting at = {key[0], key[1], s->direct[k].user, device};
            if (add_sighting(seen, &at) < 0)
                return ERR_NOMEM;
            continue;
        }
        for (uint32_t j = k; j-- > 0 && s->direct[j].user == s->direct[k].user;) {
            const struct trace_event *o = &s->r->event[s->direct[j].rec];
            if (o->hop == HOP_CLIENT_SURFACE && o->device == e->device) {
                ++*repeats;
                break;
            }
        }
    }
    return 0;
}

static int compare_sightings(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sighting));
}

static uint64_t count_repeats(struct seen *seen)
{
    uint64_t n = 0;
    if (seen->n)
        qsort(seen->at, seen->n, sizeof *seen->at, compare_sightings);
    for (size_t i = 1; i < seen->n; i++)
        n += memcmp(&seen->at[i], &seen->at[i - 1], sizeof *seen->at) == 0;
    return n;
}

/* ---- the summary ---- */

struct summing {
    struct trace_summary *s;
    bool failed;
};

static bool sum_pair(void *arg, const struct trace_pair *p)
{
    struct summing *c = arg;
    struct trace_summary *s = c->s;
    s->pairs++;
    s->verdict[p->net][p->verdict]++;
    s->total[p->verdict]++;
    s->cause[p->verdict][p->reason]++;
    s->losses += verdict_is_loss(p->verdict);
    if (p->verdict != VERDICT_DELIVERED || !p->submit_ns || p->surface_ns < p->submit_ns)
        return true;
    if (!s->latency[p->net] && !(s->latency[p->net] = calloc(1, sizeof *s->latency[0]))) {
        c->failed = true;
        return false;
    }
    hist_add(s->latency[p->net], p->surface_ns - p->submit_ns);
    return true;
}

/* A drop is a connection that ended though neither the person, the app nor the run wanted it to. */
static bool is_disconnect(uint8_t reason)
{
    return reason != REASON_RUN_END && reason != REASON_CLOSED_BY_US && reason != REASON_REPLACED &&
           reason != REASON_REFUSED;
}

static void sum_lanes(struct trace_summary *s, const struct trace_run *r)
{
    const struct trace_index *x = r->index;
    for (uint32_t i = 0; i < x->lanes.n; i++) {
        const struct lane *l = &x->lane[i];
        if (trace_side(l->node) != TRACE_SIDE_LOAD || l->open == TRACE_NONE)
            continue;
        s->connected_ns[l->net] += l->end_ns - l->start_ns;
        if (l->close != TRACE_NONE && is_disconnect(r->event[l->close].reason))
            s->disconnects[l->net]++;
    }
}

int trace_summarize(struct trace_summary *s, const struct trace_run *r, struct err_ctx *ctx)
{
    memset(s, 0, sizeof *s);
    struct summing c = {.s = s};
    struct seen seen = {.at = NULL};
    struct story story = {0};
    int rc = collect_intents(&seen, r);
    for (uint32_t i = 0; i < r->events; i++)
        s->hop[r->event[i].hop]++;
    s->records = r->events;
    s->resends = s->hop[HOP_CLIENT_RESEND];
    for (uint32_t i = 0; i < r->sources; i++) {
        const struct trace_source *src = &r->source[i];
        s->dropped += src->dropped;
        s->missing += src->emitted > src->present ? src->emitted - src->present : 0;
    }
    sum_lanes(s, r);
    s->messages = r->index->messages.n;
    for (uint32_t m = 0; rc == 0 && m < r->index->messages.n; m++) {
        rc = story_read(&story, r, m);
        if (rc == 0)
            rc = note_sightings(&seen, &story, &s->duplicates_seen);
        s->outside += rc == 0 && story.outside;
        if (rc == 0 && !each_pair(&story, sum_pair, &c))
            rc = ERR_NOMEM;
    }
    s->duplicates_seen += count_repeats(&seen);
    story_release(&story);
    map_release(&seen.intents);
    free(seen.at);
    return rc < 0 ? err_set(ctx, rc, "judging %u messages: %s", r->index->messages.n, err_text(rc)) : 0;
}

void trace_summary_release(struct trace_summary *s)
{
    for (int i = 0; i < NET_COUNT; i++) {
        free(s->latency[i]);
        s->latency[i] = NULL;
    }
}

double trace_disconnects_per_hour(const struct trace_summary *s, enum net net)
{
    double hours = (double)s->connected_ns[net] / (3600.0 * NS_PER_S);
    return hours > 0 ? (double)s->disconnects[net] / hours : 0;
}

static int compare_causes(const void *a, const void *b)
{
    const struct trace_cause *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    if (x->verdict != y->verdict)
        return x->verdict < y->verdict ? -1 : 1;
    return (x->reason > y->reason) - (x->reason < y->reason);
}

int trace_top_causes(const struct trace_summary *s, struct trace_cause *out, int max)
{
    struct trace_cause all[VERDICT_COUNT * REASON_COUNT];
    int n = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        for (int q = 0; v != VERDICT_DELIVERED && q < REASON_COUNT; q++)
            if (s->cause[v][q])
                all[n++] = (struct trace_cause){(enum verdict)v, (uint8_t)q, s->cause[v][q]};
    qsort(all, (size_t)n, sizeof *all, compare_causes);
    if (n > max)
        n = max;
    memcpy(out, all, (size_t)n * sizeof *all);
    return n;
}

void trace_summary_verdicts_json(const struct trace_summary *s, struct buf *out)
{
    bool any = false;
    buf_char(out, '{');
    for (int net = 0; net < NET_COUNT; net++) {
        uint64_t sum = 0;
        for (int v = 0; v < VERDICT_COUNT; v++)
            sum += s->verdict[net][v];
        if (!sum)
            continue;
        buf_printf(out, "%s\"%s\":{", any ? "," : "", net_name(net));
        any = true;
        for (int v = 0; v < VERDICT_COUNT; v++)
            buf_printf(out, "%s\"%s\":%llu", v ? "," : "", verdict_name(v),
                       (unsigned long long)s->verdict[net][v]);
        buf_char(out, '}');
    }
    buf_char(out, '}');
}

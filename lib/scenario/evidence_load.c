/* The generator's summary: load.json. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "scenario/evidence.h"

static double quantile(const json_t *o, const char *key, bool *known)
{
    const json_t *v = json_object_get(o, key);
    *known = *known && json_is_number(v);
    return json_number_value(v);
}

static void read_times(const json_t *o, const char *key, struct judge_scope *scope, enum metric m,
                       struct report_times *t)
{
    const json_t *v = json_object_get(o, key);
    bool known = json_is_object(v);
    *t = (struct report_times){quantile(v, "p50", &known), quantile(v, "p95", &known),
                               quantile(v, "p99", &known), quantile(v, "max", &known)};
    scope->v[m] = (struct judge_value){known, {t->p50, t->p95, t->p99, t->max}};
}

static void read_counts(const json_t *o, struct judge_scope *scope, struct report_population *p)
{
    const struct {
        const char *key;
        enum metric m;
        uint64_t *to;
    } counts[] = {{"sent", METRIC_SENT, &p->sent},
                  {"accepted", METRIC_ACCEPTED_COUNT, &p->accepted},
                  {"expected", METRIC_EXPECTED, &p->expected},
                  {"delivered", METRIC_DELIVERED_COUNT, &p->delivered},
                  {"duplicates", METRIC_DUPLICATES, &p->duplicates},
                  {"reordered", METRIC_REORDERED, &p->reordered},
                  {"resends", METRIC_RESENDS, &p->resends},
                  {"duplicates_seen", METRIC_DUPLICATES_SEEN, &p->duplicates_seen},
                  {"gave_up", METRIC_GAVE_UP, &p->gave_up}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const json_t *v = json_object_get(o, counts[i].key);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            continue;
        *counts[i].to = (uint64_t)json_integer_value(v);
        judge_set(scope, counts[i].m, (double)*counts[i].to);
    }
}

/* Only a population that types, reads or watches has them. */
static void read_typing(const json_t *o, struct judge_scope *scope)
{
    static const struct {
        const char *key;
        enum metric m;
    } figures[] = {{"typing_shown", METRIC_TYPING_SHOWN},         {"typing_back", METRIC_TYPING_BACK},
                   {"typing_missed", METRIC_TYPING_MISSED},       {"receipts_shown", METRIC_RECEIPTS_SHOWN},
                   {"receipts_counted", METRIC_RECEIPTS_COUNTED}, {"receipts_false", METRIC_RECEIPTS_FALSE},
                   {"receipts_missing", METRIC_RECEIPTS_MISSING}, {"presence_shown", METRIC_PRESENCE_SHOWN}};
    struct report_times stale;
    read_times(o, "typing_stale_ms", scope, METRIC_TYPING_STALE_MS, &stale);
    read_times(o, "receipt_ms", scope, METRIC_RECEIPT_MS, &stale);
    read_times(o, "presence_stale_ms", scope, METRIC_PRESENCE_STALE_MS, &stale);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const json_t *v = json_object_get(o, figures[i].key);
        if (json_is_integer(v))
            judge_set(scope, figures[i].m, (double)json_integer_value(v));
    }
}

/* Figures of a flood (load/flood_report.c); -1 there: not known. */
static void read_flood(const json_t *o, struct judge_scope *scope)
{
    static const struct {
        const char *key;
        enum metric m;
    } figures[] = {{"connected_s", METRIC_CONNECTED_S},
                   {"mass_s", METRIC_MASS_S},
                   {"verified", METRIC_VERIFIED},
                   {"verify_bad", METRIC_VERIFY_BAD},
                   {"lost", METRIC_NOT_SURFACED},
                   {"silent_gone", METRIC_SILENT_GONE},
                   {"silent_s_max", METRIC_SILENT_S_MAX},
                   {"wrong_idle_closes", METRIC_WRONG_IDLE_CLOSES},
                   {"accepted_per_s", METRIC_ACCEPTED_PER_S},
                   {"delivered_per_s", METRIC_DELIVERED_PER_S},
                   {"resident_mib", METRIC_RESIDENT_MIB},
                   {"rss_per_phone", METRIC_PHONE_BYTES},
                   {"server_rss_per_session", METRIC_SESSION_BYTES},
                   {"server_rss_per_bare_session", METRIC_BARE_SESSION_BYTES}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const json_t *v = json_object_get(o, figures[i].key);
        if (json_is_number(v) && json_number_value(v) >= 0)
            judge_set(scope, figures[i].m, json_number_value(v));
    }
}

static void doubt(struct evidence *e, const char *name, const char *text)
{
    if (!e->doubt[0])
        snprintf(e->doubt, EVIDENCE_TEXT, "%s%s%s", name, *name ? ": " : "", text);
}

/* "inconclusive": true, or a sentence. */
static void read_health(struct evidence *e, const json_t *o, const char *name, char *out, size_t size)
{
    const json_t *v = json_object_get(o, "inconclusive");
    const char *text = json_string_value(v);
    if ((text && *text) || json_is_true(v)) {
        snprintf(out, size, "%s", text ? text : "the generator calls its result inconclusive");
        doubt(e, name, out);
    }
}

static void read_population(struct evidence *e, const json_t *o, const struct scenario_population *from,
                            struct judge_facts *facts)
{
    struct report_population *p = &e->out->load[e->out->load_n++];
    struct judge_scope *scope = judge_scope_of(facts, SCOPE_LOAD, from->name);
    const struct scenario_link *l = scenario_find_link(e->s, from->link);
    snprintf(p->name, sizeof p->name, "%s", from->name);
    snprintf(p->net, sizeof p->net, "%s", l ? l->net : "unknown");
    read_counts(o, scope, p);
    read_times(o, "latency_ms", scope, METRIC_DELIVERY_MS, &p->latency);
    read_times(o, "accept_ms", scope, METRIC_ACCEPT_MS, &p->accept);
    read_typing(o, scope);
    if (from->flood.on) {
        struct report_times server;
        read_times(o, "server_ms", scope, METRIC_SERVER_MS, &server);
        read_times(o, "served_ms", scope, METRIC_SERVED_MS, &server);
        read_times(o, "links_ms", scope, METRIC_LINKS_MS, &server);
        read_flood(o, scope);
    }
    const json_t *lag = json_object_get(o, "send_lag_ms_p99");
    if (json_is_number(lag)) {
        double limit = (double)e->s->send_lag_max / 1e6;
        p->send_lag_p99_ms = json_number_value(lag);
        scope->v[METRIC_SEND_LAG_MS] = (struct judge_value){true, {0, 0, p->send_lag_p99_ms, 0}};
        if (p->send_lag_p99_ms > limit) {
            snprintf(p->doubt, sizeof p->doubt,
                     "the generator sent up to %.0f ms late (p99; limit %.0f ms): this machine was too slow "
                     "for the load",
                     p->send_lag_p99_ms, limit);
            doubt(e, p->name, p->doubt);
        }
    }
    read_health(e, o, from->name, p->doubt, sizeof p->doubt);
}

/* What phones offered after a restore. */
static void read_recovery(const json_t *o, struct judge_facts *facts)
{
    static const struct {
        const char *key;
        int metric;
    } keys[] = {{"offered", METRIC_COPIES_OFFERED}, {"ok", METRIC_COPIES_KNOWN},
                {"came_back", METRIC_CAME_BACK},    {"forged", METRIC_FORGED},
                {"asked", METRIC_ASKED_AGAIN},      {"marked", METRIC_MARKED},
                {"discarded", METRIC_DISCARDED},    {"notices", METRIC_NOTICES}};
    if (!o)
        return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        judge_set(&facts->run, keys[i].metric, json_number_value(json_object_get(o, keys[i].key)));
    judge_set(&facts->run, METRIC_FORGED_ACCEPTED,
              json_number_value(json_object_get(o, "forged")) -
                  json_number_value(json_object_get(o, "forged_refused")) -
                  json_number_value(json_object_get(o, "forged_unanswered")));
}

int evidence_load(struct evidence *e, struct judge_facts *facts, struct err_ctx *ctx)
{
    char path[600], sentence[200];
    json_error_t why;
    snprintf(path, sizeof path, "%s/load.json", e->dir);
    json_t *o = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (!o)
        return err_set(ctx, ERR_INVALID, "%s:%d: %s", path, why.line, why.text);
    const json_t *load = json_object_get(o, "load"), *drained = json_object_get(o, "drained");
    e->drained = drained ? json_is_true(drained) : !e->doubt[0];
    for (uint32_t i = 0; i < e->s->load_n; i++)
        read_population(e, json_object_get(load, e->s->load[i].name), &e->s->load[i], facts);
    read_health(e, o, "", sentence, sizeof sentence);
    read_recovery(json_object_get(o, "recovery"), facts);
    json_decref(o);
    return 0;
}

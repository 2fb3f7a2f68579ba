/* From a scenario file, or from flood's options, to what lib/load runs. */
#include <string.h>

#include "cmd/chat-loadgen/tool.h"
#include "core/client.h"

#define TIME_MAX_NS (365 * 86400 * NS_PER_S)
#define RATE_MAX    1000000000u /* events per 1000 s: one a microsecond */

static int one_population(struct load_population *out, const struct scenario *s, uint32_t i, bool plain,
                          struct err_ctx *err)
{
    const struct scenario_population *p = &s->load[i];
    const struct scenario_link *link = p->link[0] ? scenario_find_link(s, p->link) : NULL;
    uint8_t features;
    int rc = client_features_parse(&features, p->client, err);
    if (rc) {
        err_prefix(err, "%s: load.%s.client: ", s->path, p->name);
        return rc;
    }
    uint8_t on_gap;
    rc = client_on_gap_parse(&on_gap, p->on_gap, err);
    if (rc) {
        err_prefix(err, "%s: load.%s.on_gap: ", s->path, p->name);
        return rc;
    }
    *out = (struct load_population){.net = link ? net_parse(link->net) : NET_ETHERNET,
                                    .clients = p->clients,
                                    .features = features,
                                    .rate_per_1000s = p->rate_per_1000s,
                                    .joins = p->joins[0] != 0,
                                    .chat_size = p->chat_size,
                                    .chats_per_client = p->chats_per_client,
                                    .body_min = p->body_min,
                                    .body_max = p->body_max,
                                    .texts = p->texts[0] ? p->texts : NULL,
                                    .retries = p->retries,
                                    .resync_window_ns = p->resync_window,
                                    .on_gap = on_gap,
                                    .forge_ppm = p->forge_ppm,
                                    .habits = {.background_every = p->habits.background_every,
                                               .background_for = p->habits.background_for,
                                               .kill_after = p->habits.kill_after,
                                               .network_change_every = p->habits.network_change_every,
                                               .network_change_gap = p->habits.network_change_gap,
                                               .resend_after = p->habits.resend_after,
                                               .resend_share_ppm = p->habits.resend_share_ppm,
                                               .typing_every = p->habits.typing_every,
                                               .typing_for = p->habits.typing_for,
                                               .watch = p->habits.watch,
                                               .read_after = p->habits.read_after,
                                               .storage_loss_ppm = p->habits.storage_loss_ppm}};
    _Static_assert(sizeof p->name <= sizeof out->name, "a scenario's names fit");
    memcpy(out->name, p->name, sizeof p->name);
    if (!plain)
        scenario_addresses(s, i, &out->first_address, &out->addresses);
    if (!out->addresses)
        out->first_address = 0;
    return 0;
}

/* The client's own faults; those of servers and links are the conductor's. */
static void client_faults(struct plan *p, struct load_config *c)
{
    const struct scenario *s = &p->scenario;
    for (uint32_t i = 0; i < s->faults_n; i++) {
        const struct scenario_fault *f = &s->faults[i];
        uint32_t k = 0;
        c->keep_copies |= f->what == FAULT_RESTORE;
        if (f->what != FAULT_KILL_SOCKET && f->what != FAULT_NETWORK_CHANGE)
            continue;
        while (k < s->load_n && strcmp(s->load[k].name, f->target) != 0)
            k++;
        BUG_ON(k == s->load_n || c->faults_n == SCENARIO_FAULTS_MAX); /* the scenario was checked */
        p->faults[c->faults_n++] =
            (struct load_fault){.at_ns = f->at,
                                .what = f->what == FAULT_KILL_SOCKET ? LOAD_KILL_SOCKET : LOAD_NETWORK_CHANGE,
                                .population = k,
                                .share_ppm = f->share_ppm,
                                .mid_frame = f->mid_frame};
    }
    c->faults = p->faults;
}

/* What is longer would pass the end of the clock, or what is more the width of a field. */
static int within(const struct opt_set *o, const char *name, uint64_t most, const char *words,
                  struct err_ctx *err)
{
    if (opt_u64(o, name) > most)
        return err_set(err, ERR_USAGE, "--%s: at most %s", name, words);
    return 0;
}

static int common(struct load_config *c, const struct opt_set *o, struct err_ctx *err)
{
    int rc = within(o, "setup", TIME_MAX_NS, "365d", err);
    rc = rc ? rc : within(o, "drain", TIME_MAX_NS, "365d", err);
    c->setup_ns = opt_u64(o, "setup");
    c->drain_ns = opt_u64(o, "drain");
    c->diary_sync = opt_flag(o, "journal-sync");
    return rc;
}

/* A server that had a load before knows the chats of then, with other members: take fresh numbers, unless an
 * earlier run's outboxes are to be emptied. */
static void fresh_chats(struct load_config *c)
{
    if (!c->diary)
        c->first_chat = clock_wall_us();
}

int plan_scenario(struct plan *p, struct load_config *c, const struct opt_set *o, struct err_ctx *err)
{
    struct scenario *s = &p->scenario;
    int rc = opt_given(o, "retries") ? within(o, "retries", UINT32_MAX, "4294967295 sends", err) : 0;
    rc = rc ? rc : common(c, o, err);
    rc = rc ? rc : scenario_load(s, opt_operand(o, 0), opt_string(o, "variant"), err);
    for (uint32_t i = 0; i < s->load_n && !rc; i++) {
        rc = one_population(&p->populations[i], s, i, opt_flag(o, "plain"), err);
        if (opt_given(o, "retries"))
            p->populations[i].retries = (uint32_t)opt_u64(o, "retries");
        if (!rc && opt_given(o, "on-gap"))
            rc = client_on_gap_parse(&p->populations[i].on_gap, opt_string(o, "on-gap"), err);
    }
    if (rc)
        return rc;
    c->populations = p->populations;
    c->populations_n = s->load_n;
    c->seed = opt_given(o, "seed") ? opt_seed(o) : s->seed;
    c->duration_ns = s->duration;
    if (!opt_given(o, "drain"))
        c->drain_ns = s->drain;
    c->lag_max_ns = s->send_lag_max;
    fresh_chats(c);
    client_faults(p, c);
    return 0;
}

int plan_flood(struct plan *p, struct load_config *c, const struct opt_set *o, struct err_ctx *err)
{
    const char *transport = opt_string(o, "transport");
    uint64_t sockets = opt_u64(o, "sockets"), size = opt_u64(o, "chat-size"), body = opt_u64(o, "body");
    uint8_t features;
    int rc = client_features_parse(&features, opt_string(o, "client"), err);
    if (rc) {
        err_prefix(err, "--client: ");
        return ERR_USAGE;
    }
    if (strcmp(transport, "ws"))
        return err_set(err, ERR_USAGE, "--transport '%s': ws or mux is wanted", transport);
    if (sockets < 2 || sockets > LOAD_PHONES_MAX)
        return err_set(err, ERR_USAGE, "--sockets: 2 to %u phones are possible", LOAD_PHONES_MAX);
    if (size < 2 || size > PROTO_USERS_MAX)
        return err_set(err, ERR_USAGE, "--chat-size: 2 to %u members are possible", PROTO_USERS_MAX);
    if (body < 1 || body > PROTO_BODY_MAX)
        return err_set(err, ERR_USAGE, "--body: 1 to %u bytes are possible", PROTO_BODY_MAX);
    rc = within(o, "rate", RATE_MAX, "1000000/s", err);
    rc = rc ? rc : within(o, "for", TIME_MAX_NS, "365d", err);
    rc = rc ? rc : common(c, o, err);
    if (rc)
        return rc;
    p->populations[0] = (struct load_population){.name = "flood",
                                                 .net = NET_ETHERNET,
                                                 .clients = (uint32_t)sockets,
                                                 .features = features,
                                                 .rate_per_1000s = opt_u64(o, "rate"),
                                                 .chat_size = (uint32_t)size,
                                                 .chats_per_client = 1,
                                                 .body_min = (uint32_t)(body / 10 ? body / 10 : 1),
                                                 .body_max = (uint32_t)body,
                                                 .texts = opt_string(o, "texts"),
                                                 .retries = 3,
                                                 .resync_window_ns = 1800 * NS_PER_S};
    c->populations = p->populations;
    c->populations_n = 1;
    c->seed = opt_seed(o);
    c->duration_ns = opt_u64(o, "for");
    fresh_chats(c);
    return 0;
}

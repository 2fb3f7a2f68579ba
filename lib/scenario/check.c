#include "scenario/scenario_impl.h"

#include <string.h>
#include <unistd.h>

#include "scenario/judge.h"

#define ADDRESSES_MAX (65536u - 512u)

static const char *const nets[] = {
#define NET(name, text) text,
#include "trace/nets.def"
#undef NET
};
#define NETS (sizeof nets / sizeof *nets)

static bool name_ok(const char *s)
{
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == strlen(s);
}

/* "reliable", or "legacy" with any of the fixes. */
static int check_mode(struct place *at, const char *mode, const char *const *fixes)
{
    if (strcmp(mode, "reliable") == 0 || strcmp(mode, "legacy") == 0)
        return 0;
    if (strncmp(mode, "legacy+", 7) != 0)
        return scenario_error(at, ERR_INVALID, "'%s' is neither reliable nor legacy[+fix...]", mode);
    char copy[64], *save = NULL;
    snprintf(copy, sizeof copy, "%s", mode + 7);
    for (char *fix = strtok_r(copy, "+", &save); fix; fix = strtok_r(NULL, "+", &save)) {
        size_t i = 0;
        while (fixes[i] && strcmp(fixes[i], fix) != 0)
            i++;
        if (!fixes[i])
            return scenario_error(at, ERR_INVALID, "there is no fix named '%s'", fix);
    }
    return 0;
}

/* The network that a link's name or profile speaks of. */
static const char *guess_net(const struct scenario_link *l)
{
    static const struct {
        const char *word, *net;
    } words[] = {{"wifi", "wifi"},
                 {"lte", "lte"},
                 {"4g", "lte"},
                 {"5g", "5g"},
                 {"3g", "3g"},
                 {"umts", "3g"},
                 {"hspa", "3g"},
                 {"2g", "2g"},
                 {"edge", "2g"},
                 {"gprs", "2g"},
                 {"ether", "ethernet"},
                 {"lan", "ethernet"},
                 {"satellite", "satellite"}};
    const char *texts[] = {l->profile, l->name};
    for (size_t t = 0; t < 2; t++) {
        if (strchr(texts[t], '='))
            continue; /* an inline description names no network */
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            if (strcasestr(texts[t], words[i].word))
                return words[i].net;
        }
    }
    return "unknown";
}

/* A relative file stands beside the scenario. A profile may have words behind its file:
 * "./train.json,loss=1%". */
static void beside(const char *scenario, char *file, size_t size)
{
    const char *slash = strrchr(scenario, '/');
    size_t name = strcspn(file, ",");
    char full[1024];
    if (!slash || file[0] == '/')
        return;
    int n = snprintf(full, sizeof full, "%.*s/%.*s", (int)(slash - scenario), scenario, (int)name, file);
    if (n < 0 || (size_t)n >= sizeof full || (size_t)n + strlen(file + name) >= size || access(full, R_OK))
        return;
    memmove(file + n, file + name, strlen(file + name) + 1);
    memcpy(file, full, (size_t)n);
}

/* Does it begin with a file's name? "trace=./x" does not: the profile's own words are its own business. */
static bool names_a_file(const char *profile)
{
    size_t first = strcspn(profile, ",");
    return memchr(profile, '/', first) && !memchr(profile, '=', first);
}

static int check_links(struct place *at, struct scenario *s)
{
    for (uint32_t i = 0; i < s->links_n; i++) {
        struct scenario_link *l = &s->links[i];
        size_t mark = scenario_enter(at, "links");
        scenario_enter(at, l->name);
        if (!name_ok(l->name))
            return scenario_error(at, ERR_INVALID, "the name must be letters, digits, - and _");
        if (!l->net[0])
            snprintf(l->net, sizeof l->net, "%s", guess_net(l));
        bool known = false;
        for (size_t n = 0; n < NETS; n++)
            known |= strcmp(nets[n], l->net) == 0;
        if (!known) {
            const char *near = scenario_nearest(l->net, nets, NETS);
            scenario_enter(at, "net");
            return scenario_error(at, ERR_INVALID, "'%s' is no network%s%s%s", l->net,
                                  near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        }
        if (names_a_file(l->profile))
            beside(s->path, l->profile, sizeof l->profile);
        scenario_leave(at, mark);
    }
    return 0;
}

static int check_population(struct place *at, struct scenario *s, uint32_t i)
{
    static const char *const fixes[] = {"retry", "ack", "resync", NULL};
    struct scenario_population *p = &s->load[i];
    if (!name_ok(p->name))
        return scenario_error(at, ERR_INVALID, "name: must be letters, digits, - and _");
    if (scenario_find_load(s, p->name) != p)
        return scenario_error(at, ERR_INVALID, "name: '%s' is used twice", p->name);
    if (p->link[0] && !scenario_find_link(s, p->link))
        return scenario_error(at, ERR_INVALID, "link: there is no link named '%s'", p->link);
    if (!p->clients)
        return scenario_error(at, ERR_RANGE, "clients: must be at least 1");
    if (p->chat_size < 2 || p->chat_size > 1024)
        return scenario_error(at, ERR_RANGE, "chat_size: must lie in 2..1024");
    if (p->joins[0] &&
        (!i || (strcmp(p->joins, s->load[i - 1].name) != 0 && strcmp(p->joins, s->load[i - 1].joins) != 0)))
        return scenario_error(at, ERR_INVALID, "joins: '%s' must stand before it, with those that join it",
                              p->joins);
    if (p->clients < 2 && !p->joins[0])
        return scenario_error(at, ERR_RANGE, "clients: a chat needs 2");
    if (!p->chats_per_client || p->chats_per_client > 1000)
        return scenario_error(at, ERR_RANGE, "chats_per_client: must lie in 1..1000");
    const struct scenario_habits *h = &p->habits;
    if (h->background_every && !h->background_for)
        return scenario_error(at, ERR_INVALID, "habits: background_every needs background_for");
    if (h->resend_share_ppm && !h->resend_after)
        return scenario_error(at, ERR_INVALID, "habits: resend_share needs resend_after");
    if (p->texts[0])
        beside(s->path, p->texts, sizeof p->texts);
    static const char *const gaps[] = {"offer", "discard", "ask", "keep"};
    bool known = false;
    for (size_t k = 0; k < sizeof gaps / sizeof *gaps; k++)
        known |= strcmp(p->on_gap, gaps[k]) == 0;
    if (!known)
        return scenario_error(at, ERR_INVALID, "on_gap: must be offer, discard, ask or keep");
    scenario_enter(at, "client");
    return check_mode(at, p->client, fixes);
}

static int check_flood(struct place *at, const struct scenario *s)
{
    static const struct scenario_habits none;
    const struct scenario_population *p = &s->load[0];
    if (s->load_n != 1)
        return scenario_error(at, ERR_INVALID, "load: a flood is the only population");
    if (s->faults_n)
        return scenario_error(at, ERR_INVALID, "faults: a flood has its own (churn, silent, mass)");
    if (memcmp(&p->habits, &none, sizeof none) != 0 || p->texts[0] || p->chats_per_client != 1)
        return scenario_error(at, ERR_INVALID,
                              "load: habits, texts and chats_per_client mean nothing to a flood");
    if (p->body_min < 16)
        return scenario_error(at, ERR_RANGE, "load: body: a flood's begin with 16 bytes of time");
    if (p->flood.silent > p->clients / 2)
        return scenario_error(at, ERR_RANGE, "load: flood: silent: at most half of the clients");
    return 0;
}

static int check_load(struct place *at, struct scenario *s)
{
    uint64_t addresses = 0;
    if (!s->load_n)
        return scenario_error(at, ERR_INVALID, "load: needs at least one population");
    for (uint32_t i = 0; i < s->load_n; i++) {
        size_t mark = scenario_enter(at, "load");
        scenario_enter_index(at, i);
        int rc = check_population(at, s, i);
        if (rc)
            return rc;
        scenario_leave(at, mark);
        if (s->load[i].flood.on)
            return check_flood(at, s);
        if (s->load[i].link[0])
            addresses += (uint64_t)s->load[i].clients * SCENARIO_ADDRESS_STRIDE;
    }
    if (addresses > ADDRESSES_MAX)
        return scenario_error(at, ERR_LIMIT, "load: at most %u clients fit on links together",
                              ADDRESSES_MAX / SCENARIO_ADDRESS_STRIDE);
    return 0;
}

/* "server", or one of several nodes: "server-2". */
static int check_server_target(struct place *at, const struct scenario *s, struct scenario_fault *f)
{
    unsigned node = 0;
    char end = 0;
    if (!f->target[0])
        memcpy(f->target, "server", sizeof "server");
    if (strcmp(f->target, "server") == 0)
        return 0;
    if (sscanf(f->target, "server-%u%c", &node, &end) != 1 || !node || node > s->server_nodes)
        return s->server_nodes > 1
                   ? scenario_error(at, ERR_INVALID, "must be \"server\", or \"server-1\" to \"server-%u\"",
                                    s->server_nodes)
                   : scenario_error(at, ERR_INVALID, "must be \"server\"");
    bool one = f->what == FAULT_KILL_SERVER || f->what == FAULT_POWER_CUT || f->what == FAULT_DISK_FULL ||
               f->what == FAULT_SYNC_FAILS || (f->what == FAULT_REDIS && strcmp(f->set, "cut") == 0);
    if (!one)
        return scenario_error(at, ERR_INVALID, "%s%s%s concerns all nodes, not %s", fault_name(f->what),
                              f->set[0] ? " " : "", f->set, f->target);
    f->node = node;
    return 0;
}

static bool one_of(const char *word, const char *const *list)
{
    while (*list && strcmp(*list, word) != 0)
        list++;
    return *list != NULL;
}

static int check_store_fault(struct place *at, const struct scenario *s, const struct scenario_fault *f)
{
    static const char *const ways[] = {"", "restore", "cp", "blind", "sudden", NULL};
    static const char *const failures[] = {"kill", "stop", "cut", NULL};
    static const char *const damages[] = {"truncate", "flip", "missing-sst", "torn-wal", NULL};
    bool backed = f->duration != 0;
    for (const struct scenario_fault *other = s->faults; other < f; other++)
        backed |= other->what == FAULT_BACKUP && other->at < f->at;
    if (f->what == FAULT_RESTORE && !one_of(f->set, ways))
        return scenario_error(at, ERR_INVALID, "set: must be restore, cp, blind or sudden");
    if (f->what == FAULT_RESTORE && !backed)
        return scenario_error(at, ERR_INVALID, "restore needs a backup before it, or the key for");
    if (f->what == FAULT_REDIS && !one_of(f->set, failures))
        return scenario_error(at, ERR_INVALID, "set: must be kill, stop or cut");
    if (f->what == FAULT_REDIS && !s->server_redis)
        return scenario_error(at, ERR_INVALID, "there is none: server.redis is not true");
    if (f->what == FAULT_CORRUPT && !one_of(f->set, damages))
        return scenario_error(at, ERR_INVALID, "set: must be truncate, flip, missing-sst or torn-wal");
    bool alone = f->what == FAULT_TOXIC || f->what == FAULT_BACKUP || f->what == FAULT_RESTORE ||
                 f->what == FAULT_CORRUPT;
    if (alone && s->server_nodes > 1)
        return scenario_error(at, ERR_INVALID, "%s is for one server, and server.nodes is %u",
                              fault_name(f->what), s->server_nodes);
    return 0;
}

static int check_fault(struct place *at, const struct scenario *s, struct scenario_fault *f)
{
    if (f->at >= s->duration)
        return scenario_error(at, ERR_RANGE, "at: lies after the load's end");
    for (const struct scenario_fault *other = s->faults; other < f; other++) {
        if (strcmp(other->name, f->name) == 0)
            return scenario_error(at, ERR_INVALID, "name: '%s' is used twice", f->name);
    }
    scenario_enter(at, "target");
    int rc = 0;
    switch (f->what) {
    case FAULT_KILL_SOCKET:
    case FAULT_NETWORK_CHANGE: {
        const struct scenario_population *p = scenario_find_load(s, f->target);
        if (!p)
            return scenario_error(at, ERR_INVALID, "there is no population named '%s'", f->target);
        if (f->what == FAULT_NETWORK_CHANGE && !p->link[0])
            return scenario_error(at, ERR_INVALID, "'%s' has no link to change", f->target);
        return 0;
    }
    case FAULT_BLACKOUT:
    case FAULT_LINK:
    case FAULT_DETACH:
        if (strcmp(f->target, "*") != 0 && !scenario_find_link(s, f->target))
            return scenario_error(at, ERR_INVALID, "there is no link named '%s'", f->target);
        return 0;
    case FAULT_REMOVE_MEMBER:
        if (!scenario_find_load(s, f->target))
            return scenario_error(at, ERR_INVALID, "there is no population named '%s'", f->target);
        return 0;
    case FAULT_CLOCK_JUMP:
        if (strcmp(f->target, "server") != 0 && strcmp(f->target, "phones") != 0)
            return scenario_error(at, ERR_INVALID, "must be \"server\" or \"phones\"");
        return 0;
    case FAULT_DO_COUNT:
        BUG_ON("no fault");
        return 0;
    case FAULT_KILL_SERVER:
    case FAULT_TOXIC:
    case FAULT_POWER_CUT:
    case FAULT_RESTORE:
    case FAULT_DISK_FULL:
    case FAULT_SYNC_FAILS:
    case FAULT_BACKUP:
    case FAULT_CORRUPT:
    case FAULT_REDIS:
        rc = check_server_target(at, s, f);
    }
    return rc ? rc : check_store_fault(at, s, f);
}

static int check_faults(struct place *at, struct scenario *s)
{
    for (uint32_t i = 0; i < s->faults_n; i++) {
        size_t mark = scenario_enter(at, "faults");
        scenario_enter_index(at, i);
        int rc = check_fault(at, s, &s->faults[i]);
        if (rc)
            return rc;
        scenario_leave(at, mark);
    }
    return 0;
}

static int check_expect(struct place *at, const struct scenario *s)
{
    for (uint32_t i = 0; i < s->expect_n; i++) {
        struct expectation e;
        struct err_ctx ctx = {0};
        int rc = judge_parse(&e, s->expect[i], s, &ctx);
        if (rc) {
            scenario_enter(at, "expect");
            scenario_enter_index(at, i);
            return scenario_error(at, rc, "%s", ctx.text);
        }
    }
    return 0;
}

static int check_nodes(struct place *at, const struct scenario *s)
{
    size_t mark = scenario_enter(at, "server.nodes");
    if (!s->server_nodes || s->server_nodes > SCENARIO_NODES_MAX)
        return scenario_error(at, ERR_RANGE, "must lie in 1..%d", SCENARIO_NODES_MAX);
    if (s->server_nodes > 1 && !s->server_redis)
        return scenario_error(at, ERR_INVALID,
                              "several nodes are joined by a Redis: server.redis must be true");
    if (s->server_nodes > 1 && strcmp(s->server_delivery, "reliable") != 0)
        return scenario_error(at, ERR_INVALID,
                              "several nodes deliver reliably only, and server.delivery is %s",
                              s->server_delivery);
    if (s->server_nodes > 1 && (strstr(s->server_args, "--bus ") || strstr(s->server_args, "--node")))
        return scenario_error(at, ERR_INVALID,
                              "--bus, --node and --nodes follow from it; server.args repeats them");
    if (s->server_nodes > 1 && s->load[0].flood.on)
        return scenario_error(at, ERR_INVALID, "a flood speaks to one node");
    scenario_leave(at, mark);
    return 0;
}

int scenario_check(struct place *at, struct scenario *s)
{
    static const char *const fixes[] = {"retry", "durable", "ack", "resync", NULL};
    if (!name_ok(s->name))
        return scenario_error(at, ERR_INVALID, "name: must be letters, digits, - and _");
    if (!s->duration)
        return scenario_error(at, ERR_RANGE, "duration: must be more than 0");
    int rc = check_links(at, s);
    rc = rc ? rc : check_load(at, s);
    rc = rc ? rc : check_nodes(at, s);
    rc = rc ? rc : check_faults(at, s);
    if (rc)
        return rc;
    size_t mark = scenario_enter(at, "server.delivery");
    rc = check_mode(at, s->server_delivery, fixes);
    if (rc)
        return rc;
    scenario_leave(at, mark);
    return check_expect(at, s);
}

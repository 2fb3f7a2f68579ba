#include "scenario/scenario.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "scenario/judge.h"
#include "scenario/scenario_impl.h"
#include "util/clock.h"
#include "util/units.h"

#define NEAR_NET        0xC6120000u /* 198.18.0.0/16 */
#define ADDRESSES_FIRST 256u

static const struct {
    const char *name;
    int number;
} signals[] = {{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"STOP", SIGSTOP}, {"INT", SIGINT},
               {"QUIT", SIGQUIT}, {"ABRT", SIGABRT}, {"SEGV", SIGSEGV}};

#define TEXT(st, k, m)                                                                                       \
    {                                                                                                        \
        k, FIELD_TEXT, offsetof(struct st, m), sizeof((struct st *)0)->m, false, NULL                        \
    }
#define NUMBER(st, k, type, m)                                                                               \
    {                                                                                                        \
        k, type, offsetof(struct st, m), sizeof((struct st *)0)->m, false, NULL                              \
    }
#define REQUIRED(st, k, ty, m)                                                                               \
    {                                                                                                        \
        k, ty, offsetof(struct st, m), sizeof((struct st *)0)->m, true, NULL                                 \
    }
#define CUSTOM(k, need, f)                                                                                   \
    {                                                                                                        \
        k, FIELD_CUSTOM, 0, 0, need, f                                                                       \
    }
#define FIELDS_END                                                                                           \
    {                                                                                                        \
        NULL, FIELD_TEXT, 0, 0, false, NULL                                                                  \
    }

static int read_body(struct place *at, void *out, const json_t *v)
{
    struct scenario_population *p = out;
    const json_t *lo = json_array_get(v, 0), *hi = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(lo) || !json_is_integer(hi))
        return scenario_error(at, ERR_INVALID, "must be [smallest, largest] in bytes");
    json_int_t a = json_integer_value(lo), b = json_integer_value(hi);
    if (a < 1 || b < a || b > 65536)
        return scenario_error(at, ERR_RANGE, "needs 1 <= smallest <= largest <= 65536");
    p->body_min = (uint32_t)a;
    p->body_max = (uint32_t)b;
    return 0;
}

static int read_habits(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {
        NUMBER(scenario_habits, "background_every", FIELD_DURATION, background_every),
        NUMBER(scenario_habits, "background_for", FIELD_DURATION, background_for),
        NUMBER(scenario_habits, "kill_after", FIELD_DURATION, kill_after),
        NUMBER(scenario_habits, "network_change_every", FIELD_DURATION, network_change_every),
        NUMBER(scenario_habits, "network_change_gap", FIELD_DURATION, network_change_gap),
        NUMBER(scenario_habits, "resend_after", FIELD_DURATION, resend_after),
        NUMBER(scenario_habits, "resend_share", FIELD_SHARE, resend_share_ppm),
        NUMBER(scenario_habits, "typing_every", FIELD_DURATION, typing_every),
        NUMBER(scenario_habits, "typing_for", FIELD_DURATION, typing_for),
        NUMBER(scenario_habits, "watch", FIELD_U32, watch),
        NUMBER(scenario_habits, "read_after", FIELD_DURATION, read_after),
        NUMBER(scenario_habits, "storage_loss", FIELD_SHARE, storage_loss_ppm),
        FIELDS_END};
    return scenario_read_object(at, v, fields, NULL, &((struct scenario_population *)out)->habits);
}

static int read_flood(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {NUMBER(scenario_flood, "churn", FIELD_RATE, churn_per_1000s),
                                          NUMBER(scenario_flood, "silent", FIELD_U32, silent),
                                          NUMBER(scenario_flood, "mass", FIELD_SHARE, mass_ppm),
                                          NUMBER(scenario_flood, "trace_sample", FIELD_U32, trace_sample),
                                          NUMBER(scenario_flood, "dark", FIELD_DURATION, dark),
                                          NUMBER(scenario_flood, "ramp", FIELD_DURATION, ramp),
                                          NUMBER(scenario_flood, "settle", FIELD_DURATION, settle),
                                          NUMBER(scenario_flood, "setup", FIELD_DURATION, setup),
                                          FIELDS_END};
    struct scenario_flood *f = &((struct scenario_population *)out)->flood;
    *f = (struct scenario_flood){
        .on = true, .dark = 3 * NS_PER_S, .ramp = 10 * NS_PER_S, .setup = 120 * NS_PER_S};
    return scenario_read_object(at, v, fields, NULL, f);
}

static int read_population(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {
        REQUIRED(scenario_population, "name", FIELD_TEXT, name),
        TEXT(scenario_population, "link", link),
        REQUIRED(scenario_population, "clients", FIELD_U32, clients),
        TEXT(scenario_population, "client", client),
        REQUIRED(scenario_population, "rate", FIELD_RATE, rate_per_1000s),
        TEXT(scenario_population, "joins", joins),
        NUMBER(scenario_population, "chat_size", FIELD_U32, chat_size),
        NUMBER(scenario_population, "chats_per_client", FIELD_U32, chats_per_client),
        CUSTOM("body", false, read_body),
        TEXT(scenario_population, "texts", texts),
        NUMBER(scenario_population, "retries", FIELD_U32, retries),
        NUMBER(scenario_population, "resync", FIELD_DURATION, resync_window),
        TEXT(scenario_population, "on_gap", on_gap),
        NUMBER(scenario_population, "forge", FIELD_SHARE, forge_ppm),
        CUSTOM("habits", false, read_habits),
        CUSTOM("flood", false, read_flood),
        FIELDS_END};
    struct scenario_population *p = out;
    *p = (struct scenario_population){.client = "reliable",
                                      .chat_size = 6,
                                      .chats_per_client = 1,
                                      .body_min = 20,
                                      .body_max = 200,
                                      .retries = 3,
                                      .on_gap = "offer",
                                      .resync_window = 1800 * NS_PER_S};
    return scenario_read_object(at, v, fields, NULL, p);
}

static int read_do(struct place *at, void *out, const json_t *v)
{
    struct scenario_fault *f = out;
    const char *s = json_string_value(v);
    if (s && fault_by_name(&f->what, s))
        return 0;
    return scenario_error(
        at, ERR_INVALID,
        "must be one of kill-socket, kill-server, blackout, network-change, link, detach, toxic, "
        "power-cut, restore, disk-full, sync-fails, clock-jump, remove-member, backup, corrupt, redis");
}

static int read_when(struct place *at, void *out, const json_t *v)
{
    const char *s = json_string_value(v);
    if (!s || strcmp(s, "mid-frame") != 0)
        return scenario_error(at, ERR_INVALID, "must be \"mid-frame\"");
    ((struct scenario_fault *)out)->mid_frame = true;
    return 0;
}

static int read_signal(struct place *at, void *out, const json_t *v)
{
    const char *s = json_string_value(v);
    for (size_t i = 0; s && i < sizeof signals / sizeof *signals; i++) {
        if (strcmp(s, signals[i].name) == 0) {
            ((struct scenario_fault *)out)->signal = signals[i].number;
            return 0;
        }
    }
    return scenario_error(at, ERR_INVALID, "must be one of KILL, TERM, STOP, INT, QUIT, ABRT, SEGV");
}

/* A duration that may be negative. */
static int read_by(struct place *at, void *out, const json_t *v)
{
    const char *text = json_string_value(v);
    uint64_t ns;
    bool back = text && *text == '-';
    if (!text || units_duration(&ns, text + back, NULL) || ns > INT64_MAX)
        return scenario_error(at, ERR_INVALID, "must be a duration like \"5s\" or \"-5s\"");
    ((struct scenario_fault *)out)->by = back ? -(int64_t)ns : (int64_t)ns;
    return 0;
}

/* Keys that mean nothing for this kind of fault are refused: a fault that does less than it says would pass
 * unseen. */
static int check_fault_keys(struct place *at, const struct scenario_fault *f, const json_t *v)
{
    static const struct {
        const char *key;
        unsigned kinds;
    } keys[] = {{"share", 1u << FAULT_KILL_SOCKET | 1u << FAULT_NETWORK_CHANGE | 1u << FAULT_BLACKOUT |
                              1u << FAULT_DETACH | 1u << FAULT_REMOVE_MEMBER},
                {"when", 1u << FAULT_KILL_SOCKET},
                {"signal", 1u << FAULT_KILL_SERVER},
                {"restart", 1u << FAULT_KILL_SERVER | 1u << FAULT_POWER_CUT | 1u << FAULT_RESTORE |
                                1u << FAULT_SYNC_FAILS},
                {"by", 1u << FAULT_CLOCK_JUMP},
                {"set", 1u << FAULT_LINK | 1u << FAULT_TOXIC | 1u << FAULT_RESTORE | 1u << FAULT_CORRUPT |
                            1u << FAULT_REDIS},
                {"for", 1u << FAULT_TOXIC | 1u << FAULT_BLACKOUT | 1u << FAULT_LINK | 1u << FAULT_DETACH |
                            1u << FAULT_RESTORE | 1u << FAULT_DISK_FULL | 1u << FAULT_REMOVE_MEMBER |
                            1u << FAULT_REDIS}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (json_object_get(v, keys[i].key) && !(keys[i].kinds >> f->what & 1))
            return scenario_error(at, ERR_INVALID, "%s means nothing for %s", keys[i].key,
                                  fault_name(f->what));
    }
    bool lasts = f->what == FAULT_BLACKOUT || f->what == FAULT_DETACH || f->what == FAULT_DISK_FULL ||
                 f->what == FAULT_REDIS;
    if (f->what == FAULT_CLOCK_JUMP && !f->by)
        return scenario_error(at, ERR_INVALID, "clock-jump lacks the key by");
    if (lasts && !f->duration)
        return scenario_error(at, ERR_INVALID, "%s lacks the key for", fault_name(f->what));
    if ((f->what == FAULT_LINK || f->what == FAULT_TOXIC || f->what == FAULT_CORRUPT ||
         f->what == FAULT_REDIS) &&
        !f->set[0])
        return scenario_error(at, ERR_INVALID, "%s lacks the key set", fault_name(f->what));
    return 0;
}

static int read_fault(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {TEXT(scenario_fault, "name", name),
                                          REQUIRED(scenario_fault, "at", FIELD_DURATION, at),
                                          CUSTOM("do", true, read_do),
                                          TEXT(scenario_fault, "target", target),
                                          NUMBER(scenario_fault, "share", FIELD_SHARE, share_ppm),
                                          CUSTOM("when", false, read_when),
                                          CUSTOM("signal", false, read_signal),
                                          NUMBER(scenario_fault, "restart", FIELD_DURATION, restart),
                                          NUMBER(scenario_fault, "for", FIELD_DURATION, duration),
                                          CUSTOM("by", false, read_by),
                                          TEXT(scenario_fault, "set", set),
                                          FIELDS_END};
    struct scenario_fault *f = out;
    *f = (struct scenario_fault){.share_ppm = 1000000, .signal = SIGKILL};
    int rc = scenario_read_object(at, v, fields, NULL, f);
    return rc ? rc : check_fault_keys(at, f, v);
}

/* An array of objects, each read by `one`. */
static int read_list(struct place *at, const json_t *v, void *items, size_t item_size, size_t max,
                     uint32_t *n, int (*one)(struct place *, void *, const json_t *))
{
    if (!json_is_array(v))
        return scenario_error(at, ERR_INVALID, "must be an array");
    if (json_array_size(v) > max)
        return scenario_error(at, ERR_LIMIT, "has more than %zu elements", max);
    size_t i;
    json_t *e;
    json_array_foreach(v, i, e)
    {
        size_t mark = scenario_enter_index(at, i);
        int rc = one(at, (char *)items + i * item_size, e);
        scenario_leave(at, mark);
        if (rc)
            return rc;
    }
    *n = (uint32_t)json_array_size(v);
    return 0;
}

static int read_load(struct place *at, void *out, const json_t *v)
{
    struct scenario *s = out;
    return read_list(at, v, s->load, sizeof *s->load, SCENARIO_POPULATIONS_MAX, &s->load_n, read_population);
}

static int read_faults(struct place *at, void *out, const json_t *v)
{
    struct scenario *s = out;
    int rc = read_list(at, v, s->faults, sizeof *s->faults, SCENARIO_FAULTS_MAX, &s->faults_n, read_fault);
    for (uint32_t i = 0; !rc && i < s->faults_n; i++) {
        if (!s->faults[i].name[0])
            snprintf(s->faults[i].name, sizeof s->faults[i].name, "fault-%u", i);
    }
    return rc;
}

static int read_link(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {REQUIRED(scenario_link, "profile", FIELD_TEXT, profile),
                                          TEXT(scenario_link, "net", net), FIELDS_END};
    return scenario_read_object(at, v, fields, NULL, out);
}

static int read_links(struct place *at, void *out, const json_t *v)
{
    struct scenario *s = out;
    if (!json_is_object(v))
        return scenario_error(at, ERR_INVALID, "must be an object: {\"lte\": {\"profile\": \"lte-lossy\"}}");
    if (json_object_size(v) > SCENARIO_LINKS_MAX)
        return scenario_error(at, ERR_LIMIT, "has more than %d links", SCENARIO_LINKS_MAX);
    const char *key;
    json_t *e;
    json_object_foreach((json_t *)v, key, e)
    {
        struct scenario_link *l = &s->links[s->links_n++];
        size_t mark = scenario_enter(at, key);
        int rc = strlen(key) >= sizeof l->name ? scenario_error(at, ERR_LIMIT, "the name is too long")
                                               : read_link(at, l, e);
        scenario_leave(at, mark);
        if (rc)
            return rc;
        memcpy(l->name, key, strlen(key) + 1);
    }
    return 0;
}

static int read_redis(struct place *at, void *out, const json_t *v)
{
    if (!json_is_boolean(v))
        return scenario_error(at, ERR_INVALID, "must be true or false");
    ((struct scenario *)out)->server_redis = json_is_true(v);
    return 0;
}

static int read_server(struct place *at, void *out, const json_t *v)
{
    static const struct field fields[] = {
        TEXT(scenario, "delivery", server_delivery), TEXT(scenario, "args", server_args),
        CUSTOM("redis", false, read_redis), NUMBER(scenario, "nodes", FIELD_U32, server_nodes), FIELDS_END};
    return scenario_read_object(at, v, fields, NULL, out);
}

static int read_expect(struct place *at, void *out, const json_t *v)
{
    struct scenario *s = out;
    if (!json_is_array(v) || json_array_size(v) > SCENARIO_EXPECT_MAX)
        return scenario_error(at, ERR_INVALID, "must be an array of at most %d strings", SCENARIO_EXPECT_MAX);
    size_t i;
    json_t *e;
    json_array_foreach(v, i, e)
    {
        const char *text = json_string_value(e);
        if (!text) {
            scenario_enter_index(at, i);
            return scenario_error(at, ERR_INVALID, "must be a string");
        }
        s->expect[s->expect_n] = strdup(text);
        if (!s->expect[s->expect_n])
            return err_set(at->ctx, ERR_NOMEM, "out of memory");
        s->expect_n++;
    }
    return 0;
}

static int read_variants(struct place *at, void *out, const json_t *v)
{
    struct scenario *s = out;
    if (!json_is_object(v) || json_object_size(v) > SCENARIO_VARIANTS_MAX)
        return scenario_error(at, ERR_INVALID, "must be an object of at most %d variants",
                              SCENARIO_VARIANTS_MAX);
    const char *key;
    json_t *e;
    json_object_foreach((json_t *)v, key, e)
    {
        const char *why = json_string_value(json_object_get(e, "why"));
        snprintf(s->variants[s->variants_n].why, sizeof s->variants[0].why, "%s", why ? why : "");
        if (strlen(key) >= SCENARIO_NAME || !*key || strchr(key, '/')) {
            scenario_enter(at, key);
            return scenario_error(at, ERR_INVALID, "is no name for a variant");
        }
        memcpy(s->variants[s->variants_n++].name, key, strlen(key) + 1);
    }
    return 0;
}

int scenario_read(struct place *at, const json_t *root, struct scenario *s)
{
    static const struct field fields[] = {REQUIRED(scenario, "name", FIELD_TEXT, name),
                                          TEXT(scenario, "why", why),
                                          NUMBER(scenario, "incident", FIELD_INT, incident),
                                          NUMBER(scenario, "seed", FIELD_U64, seed),
                                          REQUIRED(scenario, "duration", FIELD_DURATION, duration),
                                          NUMBER(scenario, "drain", FIELD_DURATION, drain),
                                          NUMBER(scenario, "send_lag_max", FIELD_DURATION, send_lag_max),
                                          CUSTOM("server", false, read_server),
                                          CUSTOM("links", false, read_links),
                                          CUSTOM("load", true, read_load),
                                          CUSTOM("faults", false, read_faults),
                                          CUSTOM("expect", false, read_expect),
                                          CUSTOM("variants", false, read_variants),
                                          FIELDS_END};
    s->seed = 1;
    s->drain = 60 * NS_PER_S;
    s->send_lag_max = 250 * NS_PER_MS;
    s->server_nodes = 1;
    memcpy(s->server_delivery, "reliable", sizeof "reliable");
    return scenario_read_object(at, root, fields, NULL, s);
}

/* "before+3g": the next name of a list into `one`; false at its end. */
static bool next_variant(const char **list, char one[SCENARIO_NAME])
{
    size_t n = strcspn(*list, "+");
    if (!**list)
        return false;
    memcpy(one, *list, n);
    one[n] = 0;
    *list += n + ((*list)[n] == '+');
    return true;
}

static int apply_variants(struct place *at, json_t *root, const char *names)
{
    char one[SCENARIO_NAME];
    int rc = 0;
    if (strlen(names) >= SCENARIO_NAME)
        return scenario_error(at, ERR_LIMIT, "variant %.40s...: is longer than %d bytes", names,
                              SCENARIO_NAME - 1);
    while (!rc && next_variant(&names, one))
        rc = scenario_apply_variant(at, root, one);
    return rc;
}

static void note_variants(struct scenario *s, const char *names)
{
    char one[SCENARIO_NAME];
    size_t n = 0;
    snprintf(s->variant, sizeof s->variant, "%s", names);
    while (next_variant(&names, one)) {
        for (uint32_t i = 0; i < s->variants_n; i++) {
            if (strcmp(s->variants[i].name, one) == 0 && s->variants[i].why[0] && n < sizeof s->variant_why)
                n += (size_t)snprintf(s->variant_why + n, sizeof s->variant_why - n, "%s%s", n ? "; " : "",
                                      s->variants[i].why);
        }
    }
}

/* One parse of `root` as variant `name` (NULL: as it stands). */
static int load_as(struct scenario *s, const char *path, const json_t *root, const char *name,
                   struct err_ctx *ctx)
{
    struct place at = {.file = path, .ctx = ctx};
    memset(s, 0, sizeof *s);
    json_t *copy = json_deep_copy(root);
    int rc = copy ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
    if (!rc && name)
        rc = apply_variants(&at, copy, name);
    if (!rc)
        rc = scenario_read(&at, copy, s);
    if (!rc) {
        snprintf(s->path, sizeof s->path, "%s", path);
        if (name)
            note_variants(s, name);
        at.path[0] = 0;
        rc = scenario_check(&at, s);
    }
    if (rc && name && rc != ERR_NOTFOUND && ctx && !strstr(ctx->text, "variants."))
        err_prefix(ctx, "variant %s: ", name);
    json_decref(copy);
    if (rc)
        scenario_release(s);
    return rc;
}

/* Sentences quote the file, which may hold anything; they stay one line. */
static void one_line(struct err_ctx *ctx)
{
    for (char *p = ctx ? ctx->text : NULL; p && *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
}

int scenario_load(struct scenario *s, const char *path, const char *variant, struct err_ctx *ctx)
{
    memset(s, 0, sizeof *s);
    if (strlen(path) >= sizeof s->path)
        return err_set(ctx, ERR_LIMIT, "%s: the path is too long", path);
    if (access(path, R_OK) != 0)
        return err_errno(ctx, "%s", path);
    json_error_t e;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!root) {
        int bad = err_set(ctx, ERR_INVALID, "%s:%d:%d: %s", path, e.line, e.column, e.text);
        one_line(ctx);
        return bad;
    }
    int rc = load_as(s, path, root, NULL, ctx);
    struct scenario *other = rc ? NULL : malloc(sizeof *other);
    if (!rc && !other)
        rc = err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; !rc && i < s->variants_n; i++) {
        rc = load_as(other, path, root, s->variants[i].name, ctx);
        if (!rc)
            scenario_release(other);
    }
    free(other);
    if (variant && !rc) {
        scenario_release(s);
        rc = load_as(s, path, root, variant, ctx);
    }
    json_decref(root);
    if (rc) {
        scenario_release(s);
        one_line(ctx);
    }
    return rc;
}

void scenario_release(struct scenario *s)
{
    for (uint32_t i = 0; i < SCENARIO_EXPECT_MAX; i++)
        free(s->expect[i]);
    memset(s, 0, sizeof *s);
}

const struct scenario_link *scenario_find_link(const struct scenario *s, const char *name)
{
    for (uint32_t i = 0; i < s->links_n; i++) {
        if (strcmp(s->links[i].name, name) == 0)
            return &s->links[i];
    }
    return NULL;
}

const struct scenario_population *scenario_find_load(const struct scenario *s, const char *name)
{
    for (uint32_t i = 0; i < s->load_n; i++) {
        if (strcmp(s->load[i].name, name) == 0)
            return &s->load[i];
    }
    return NULL;
}

void scenario_addresses(const struct scenario *s, uint32_t population, uint32_t *first, uint32_t *count)
{
    uint32_t at = NEAR_NET + ADDRESSES_FIRST;
    for (uint32_t i = 0; i < population; i++) {
        if (s->load[i].link[0])
            at += s->load[i].clients * SCENARIO_ADDRESS_STRIDE;
    }
    *first = at;
    *count = s->load[population].link[0] ? s->load[population].clients * SCENARIO_ADDRESS_STRIDE : 0;
}

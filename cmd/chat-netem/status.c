/* chat-netem status: the links that are up, a line each, and what they lost and why. */
#include <string.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/proxy.h"
#include "cmd/chat-netem/tool.h"

#define COLUMNS 6

struct row {
    char cell[COLUMNS][64];
    char lost[256];
};

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* "up", or how many radios are in which state: "98 up, 2 blackout". */
static void state_text(char *out, size_t cap, const json_t *link)
{
    const json_t *states = json_object_get(link, "radio_states");
    const char *name = json_string_value(json_object_get(link, "state"));
    const char *told = json_string_value(json_object_get(link, "told"));
    json_t *value;
    size_t n = 0;
    bool up = strcmp(name, "up") == 0;
    snprintf(out, cap, "%s", up && told ? told : name);
    if (!up || !json_object_size(states))
        return;
    bool alone = json_object_size(states) == 1;
    json_object_foreach((json_t *)(uintptr_t)states, name, value)
    {
        if (alone)
            snprintf(out, cap, "%s", name);
        else if (n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%lld %s", n ? ", " : "",
                                  (long long)json_integer_value(value), name);
    }
}

/* "2.1 %: loss 201, queue full 12" */
static void lost_text(char *out, size_t cap, const json_t *link, int64_t packets)
{
    const json_t *dropped = json_object_get(link, "dropped");
    const char *name;
    json_t *value;
    int64_t sum = 0;
    size_t n = 0;
    json_object_foreach((json_t *)(uintptr_t)dropped, name, value) sum += json_integer_value(value);
    n += (size_t)snprintf(out, cap, "%.2f %%", packets ? 100.0 * (double)sum / (double)packets : 0.0);
    json_object_foreach((json_t *)(uintptr_t)dropped, name, value)
    {
        if (n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%s %lld", n && strchr(out, ':') ? ", " : ": ", name,
                                  (long long)json_integer_value(value));
    }
    if (number(link, "overrun") && n < cap)
        n += (size_t)snprintf(out + n, cap - n, "; this machine was too slow for %lld",
                              (long long)number(link, "overrun"));
    if (number(link, "capture_missed") && n < cap)
        snprintf(out + n, cap - n, "; the capture lacks %lld", (long long)number(link, "capture_missed"));
}

static void fill(struct row *r, const json_t *link)
{
    const json_t *up = json_object_get(link, "up"), *down = json_object_get(link, "down");
    int64_t sent = number(up, "packets"), got = number(down, "packets");
    snprintf(r->cell[0], sizeof r->cell[0], "%s", json_string_value(json_object_get(link, "name")));
    snprintf(r->cell[1], sizeof r->cell[1], "%s", json_string_value(json_object_get(link, "profile")));
    if (strlen(r->cell[1]) > 40)
        strcpy(r->cell[1] + 37, "...");
    state_text(r->cell[2], sizeof r->cell[2], link);
    snprintf(r->cell[3], sizeof r->cell[3], "%lld/%lld", (long long)number(link, "radios"),
             (long long)number(link, "phones"));
    snprintf(r->cell[4], sizeof r->cell[4], "%lld", (long long)sent);
    snprintf(r->cell[5], sizeof r->cell[5], "%lld", (long long)got);
    lost_text(r->lost, sizeof r->lost, link, sent + got);
}

static void print_table(const json_t *links)
{
    static const struct row head = {{"LINK", "NETWORK", "STATE", "RADIOS", "UP", "DOWN"}, "LOST"};
    static const bool right[COLUMNS] = {[3] = true, [4] = true, [5] = true};
    static struct row rows[LINKS_MAX * 16 + 1];
    int wide[COLUMNS] = {0};
    size_t n = 1, i;
    json_t *o;
    rows[0] = head;
    json_array_foreach(links, i, o) if (n < sizeof rows / sizeof *rows) fill(&rows[n++], o);
    for (size_t r = 0; r < n; r++)
        for (int c = 0; c < COLUMNS; c++)
            if ((int)strlen(rows[r].cell[c]) > wide[c])
                wide[c] = (int)strlen(rows[r].cell[c]);
    for (size_t r = 0; r < n; r++) {
        for (int c = 0; c < COLUMNS; c++)
            printf("%*s  ", right[c] ? wide[c] : -wide[c], rows[r].cell[c]);
        printf("%s\n", rows[r].lost);
    }
}

static int add_links(void *arg, int fd, const json_t *answer, struct err_ctx *err)
{
    (void)fd;
    (void)err;
    json_array_extend(arg, json_object_get(answer, "links"));
    return 0;
}

int tool_status(const struct opt_set *o, int *status, struct err_ctx *err)
{
    json_t *ask = json_pack("{s:s}", "do", "status"), *links = json_array(), *proxies = json_array();
    unsigned dead = 0;
    size_t i;
    json_t *one;
    int rc = control_ask(ask, add_links, links, &dead, err);
    rc = rc ? rc : tool_status_proxies(proxies, err);
    if (!rc && opt_json(o)) {
        json_t *out =
            json_pack("{s:O, s:O, s:i}", "links", links, "proxies", proxies, "dead_keepers", (int)dead);
        json_dumpf(out, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(out);
    } else if (!rc && json_array_size(links)) {
        print_table(links);
    } else if (!rc && !json_array_size(proxies) && opt_verbosity(o) >= 0) {
        fputs("chat-netem: no link is up\n", stderr);
    }
    if (!rc && !opt_json(o))
        json_array_foreach(proxies, i, one) tool_print_proxy(one);
    *status = dead ? 1 : 0;
    json_array_foreach(links, i, one) if (strcmp(json_string_value(json_object_get(one, "state")), "up") !=
                                          0) *status = 1;
    json_decref(ask);
    json_decref(links);
    json_decref(proxies);
    return rc;
}

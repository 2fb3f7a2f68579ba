/* pairs: each (message, recipient) with its verdict and why. */
#include <stdio.h>
#include <string.h>

#include "cmd/chat-trace/tool.h"

struct pairs {
    bool wanted[VERDICT_COUNT], json;
    uint64_t left, more, losses, unknown;
};

static void print(const struct trace_pair *p, bool json)
{
    char id[ID_TEXT];
    id_format(&p->id, id);
    if (json) {
        printf(
            "{\"id\":\"%s\",\"chat\":\"%llu\",\"sender\":\"%llu\",\"recipient\":\"%llu\",\"network\":\"%s\","
            "\"verdict\":\"%s\",\"reason\":\"%s\",\"why\":\"%s\"}\n",
            id, (unsigned long long)p->chat, (unsigned long long)p->sender, (unsigned long long)p->recipient,
            net_name((int)p->net), verdict_name((int)p->verdict), reason_text(p->reason), p->why);
        return;
    }
    printf("%s chat %llu, from %llu to %llu, %s: %s%s%s; %s\n", id, (unsigned long long)p->chat,
           (unsigned long long)p->sender, (unsigned long long)p->recipient, net_name((int)p->net),
           verdict_text((int)p->verdict), p->reason ? ", " : "", p->reason ? reason_text(p->reason) : "",
           p->why);
}

static bool on_pair(void *arg, const struct trace_pair *p)
{
    struct pairs *all = arg;
    if (!all->wanted[p->verdict])
        return true;
    all->losses += verdict_is_loss((int)p->verdict);
    all->unknown += p->verdict == VERDICT_NOT_OBSERVED;
    if (all->left) {
        all->left--;
        print(p, all->json);
    } else {
        all->more++;
    }
    return true;
}

static int choose(struct pairs *all, const char *names, struct err_ctx *err)
{
    for (const char *p = names; p && *p;) {
        size_t n = strcspn(p, ",");
        int v = 0;
        while (v < VERDICT_COUNT && (strlen(verdict_name(v)) != n || memcmp(verdict_name(v), p, n)))
            v++;
        if (v == VERDICT_COUNT)
            return err_set(err, ERR_USAGE, "--verdict: '%.*s' is no verdict (lost_uplink, not_observed...)",
                           (int)n, p);
        all->wanted[v] = true;
        p += n + (p[n] == ',');
    }
    for (int v = 0; !names && v < VERDICT_COUNT; v++)
        all->wanted[v] = v != VERDICT_DELIVERED;
    return 0;
}

int tool_pairs(const struct trace_run *r, const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct pairs all = {.json = opt_json(o), .left = opt_u64(o, "number")};
    int rc = choose(&all, opt_string(o, "verdict"), err);
    rc = rc ? rc : trace_pairs(r, on_pair, &all);
    if (rc)
        return rc;
    if (all.more)
        fprintf(stderr, "%llu more\n", (unsigned long long)all.more);
    *status = all.losses ? 1 : all.unknown ? 2 : 0;
    return 0;
}

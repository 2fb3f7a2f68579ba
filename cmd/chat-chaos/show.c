/* What a scenario would do, before it is done. */
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-chaos/tool.h"
#include "netem/profile.h"
#include "scenario/judge.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/units.h"

static const char *duration(uint64_t ns)
{
    static char text[4][32];
    static int turn;
    char *t = text[turn++ & 3];
    units_show_duration(t, ns);
    return t;
}

static void indented(struct buf *out, const char *text)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        buf_printf(out, "      %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

static int links(struct buf *out, const struct scenario *s, struct err_ctx *ctx)
{
    struct buf profile = BUF_INIT(1u << 16);
    int rc = 0;
    if (!s->links_n)
        buf_str(out, "\nno links: everything runs on loopback\n");
    else
        buf_str(out, "\nlinks\n");
    for (uint32_t i = 0; i < s->links_n && !rc; i++) {
        buf_printf(out, "  %s (net %s)\n", s->links[i].name, s->links[i].net);
        buf_reset(&profile);
        rc = netem_profile_show(&profile, s->links[i].profile, false, ctx);
        if (rc)
            err_prefix(ctx, "%s: links.%s.profile: ", s->path, s->links[i].name);
        else
            indented(out, buf_cstr(&profile));
    }
    buf_release(&profile);
    return rc;
}

static void habits(struct buf *out, const struct scenario_habits *h)
{
    if (h->background_every)
        buf_printf(out, "      in the background every %s for %s", duration(h->background_every),
                   duration(h->background_for));
    if (h->background_every && h->kill_after)
        buf_printf(out, ", where the socket dies after %s", duration(h->kill_after));
    buf_str(out, h->background_every ? "\n" : "");
    if (h->network_change_every)
        buf_printf(out, "      changes network every %s, %s without any\n", duration(h->network_change_every),
                   duration(h->network_change_gap));
    if (h->resend_share_ppm)
        buf_printf(out, "      %.4g%% press \"send again\" after %s\n", h->resend_share_ppm / 1e4,
                   duration(h->resend_after));
    if (h->typing_every)
        buf_printf(out, "      types every %s for %s and sends nothing\n", duration(h->typing_every),
                   duration(h->typing_for));
    if (h->watch)
        buf_printf(out, "      watches the presence of up to %u others\n", h->watch);
    if (h->read_after)
        buf_printf(out, "      reads what is shown after %s, and watches who has read\n",
                   duration(h->read_after));
    if (h->storage_loss_ppm)
        buf_printf(out, "      %.4g%% of returns find the phone's storage lost\n", h->storage_loss_ppm / 1e4);
}

static void load(struct buf *out, const struct scenario *s)
{
    buf_printf(out, "\nload, for %s and then at most %s to drain\n", duration(s->duration),
               duration(s->drain));
    for (uint32_t i = 0; i < s->load_n; i++) {
        const struct scenario_population *p = &s->load[i];
        double rate = (double)p->rate_per_1000s / 1000, seconds = (double)s->duration / 1e9;
        buf_printf(out, "  %s: %u %s phones on %s, %.6g messages/s of %u..%u bytes, chats of %u, %u each\n",
                   p->name, p->clients, p->client, *p->link ? p->link : "loopback", rate, p->body_min,
                   p->body_max, p->chat_size, p->chats_per_client);
        buf_printf(out, "      about %.0f messages, %.0f (message, recipient) pairs\n", rate * seconds,
                   rate * seconds * (p->chat_size - 1));
        habits(out, &p->habits);
    }
}

static void fault(struct buf *out, const struct scenario_fault *f)
{
    char text[320];
    fault_describe(text, sizeof text, f);
    buf_printf(out, "  at %-6s %s: %s\n", duration(f->at), f->name, text);
}

static void rest(struct buf *out, const struct scenario *s)
{
    buf_printf(out, "\nserver: %s%s%s%s", s->server_delivery, *s->server_args ? ", " : "", s->server_args,
               s->server_redis ? ", presence in redis" : "");
    if (s->server_nodes > 1)
        buf_printf(out, ", %u nodes joined by it", s->server_nodes);
    buf_str(out, "\n");
    buf_str(out, s->faults_n ? "\nfaults\n" : "\nno faults beyond links and habits\n");
    for (uint32_t i = 0; i < s->faults_n; i++)
        fault(out, &s->faults[i]);
    buf_str(out, s->expect_n ? "\nexpected\n" : "\nnothing is expected: the verdict will be unknown\n");
    for (uint32_t i = 0; i < s->expect_n; i++)
        buf_printf(out, "  %s\n", s->expect[i]);
    buf_str(out, s->variants_n ? "\nvariants\n" : "");
    for (uint32_t i = 0; i < s->variants_n; i++)
        buf_printf(out, "  %-14s %s\n", s->variants[i].name, s->variants[i].why);
}

int tool_show(const struct opt_set *set, struct err_ctx *ctx)
{
    char path[1024];
    struct buf out = BUF_INIT(1u << 20);
    struct scenario *s = malloc(sizeof *s);
    int rc =
        s ? tool_find(path, sizeof path, opt_operand(set, 0), ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    const char *const *variants;
    int n = opt_list(set, "variant", &variants);
    if (!rc && n > 1)
        rc = err_set(ctx, ERR_USAGE, "show takes one --variant");
    rc = rc ? rc : scenario_load(s, path, n ? variants[0] : NULL, ctx);
    if (!rc) {
        buf_printf(&out, "%s%s%s (%s), seed %llu\n", s->name, n ? " / " : "", s->variant, path,
                   (unsigned long long)s->seed);
        if (*s->why)
            buf_printf(&out, "%s\n", s->why);
        rc = links(&out, s, ctx);
        load(&out, s);
        rest(&out, s);
        scenario_release(s);
    }
    if (!rc)
        fputs(buf_cstr(&out), stdout);
    buf_release(&out);
    free(s);
    return rc;
}

/* The effective values of a profile, each with its source. */
#include "netem/profile_impl.h"

#include <string.h>

/* One value; a default that is zero says nothing, so it is left out of the table. */
static void show_key(struct buf *out, const struct netem_profile *p, const struct netem_sources *from,
                     unsigned k, unsigned dir, bool json)
{
    const struct netem_key *key = &netem_keys[k];
    const char *prefix = !key->each_way ? "" : dir == NETEM_UP ? "up." : "down.";
    const char *source = from->of[dir][k];
    const void *field = netem_key_field(p, k, dir);
    struct buf value = BUF_INIT(NETEM_DESCRIPTION_MAX * 4);
    char word[40];
    if (!source && !json && !(k == KEY_queue && (p->dir[dir].rate_bps || p->dir[dir].trace)))
        return;
    snprintf(word, sizeof word, "%s%s", prefix, key->word);
    netem_value_show(&value, field, key->type);
    if (!json) {
        buf_printf(out, "%-20s %-28s %s\n", word, buf_cstr(&value), source ? source : "default");
        buf_release(&value);
        return;
    }
    buf_char(out, ',');
    buf_json_str(out, word, strlen(word));
    buf_str(out, ":{\"value\":");
    buf_json_str(out, value.data, value.len);
    buf_str(out, ",\"source\":");
    buf_json_str(out, source ? source : "default", strlen(source ? source : "default"));
    buf_char(out, '}');
    out->failed |= value.failed;
    buf_release(&value);
}

int netem_profile_show(struct buf *out, const char *description, bool json, struct err_ctx *ctx)
{
    struct netem_profile p;
    struct netem_sources from = {0};
    int rc = netem_describe(&p, &from, description, ctx);
    if (rc)
        return rc;
    if (json) {
        buf_str(out, "{\"profile\":");
        buf_json_str(out, p.name, strlen(p.name));
    } else {
        buf_printf(out, "%s\n", p.name);
    }
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        show_key(out, &p, &from, k, NETEM_UP, json);
        if (netem_keys[k].each_way)
            show_key(out, &p, &from, k, NETEM_DOWN, json);
    }
    if (json)
        buf_str(out, "}\n");
    else
        for (int driver = NETEM_DRIVER_MODEL; driver <= NETEM_DRIVER_PROXY; driver++)
            netem_profile_lacks(&p, driver, out);
    return out->failed ? err_set(ctx, ERR_LIMIT, "the profile's text is too long") : 0;
}

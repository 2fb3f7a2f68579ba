#include "netem/proxy/toxic.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/units.h"

enum {
#define PARAM(name, word, type, field, arg, help) PARAM_##name,
#include "netem/proxy/toxics.def"
    PARAMS
};

enum type {
    TYPE_TIME,
    TYPE_RATE,
    TYPE_SIZE,
    TYPE_COUNT,
    TYPE_SHARE,
    TYPE_ID,
    TYPE_AT,
    TYPE_DIR,
    TYPE_HOW,
    TYPE_SIDE,
    TYPE_OF
};

static const struct param {
    const char *word, *arg, *help;
    enum type type;
    size_t offset;
} params[PARAMS] = {
#define PARAM(name, word, type, field, arg, help)                                                            \
    {word, arg, help, TYPE_##type, offsetof(struct proxy_toxic, field)},
#include "netem/proxy/toxics.def"
};

#define W(name) (1u << PARAM_##name)
#define W_WHO   (W(DIR) | W(SHARE) | W(CONN) | W(TIMES))
#define W_TIME  (W(AFTER) | W(FOR) | W(EVERY))
#define W_FRAME (W(NTH) | W(EACH) | W(PROB) | W(ID) | W(OF))
#define W_PLACE (W_FRAME | W(BYTES) | W(AT))

static const struct kind {
    const char *word, *help;
    uint32_t takes, needs;
} kinds[] = {
#define KIND(name, word, takes, needs, help) {word, help, (takes) | W_WHO, needs},
#include "netem/proxy/toxics.def"
};
#define KINDS (sizeof kinds / sizeof *kinds)

const char *proxy_kind_word(enum proxy_kind k)
{
    return (size_t)k < KINDS ? kinds[k].word : "profile";
}

bool proxy_toxic_by_frame(const struct proxy_toxic *t)
{
    return t->nth || t->each || t->prob_ppm || t->has_id;
}

/* --- values ------------------------------------------------------------------------------------------- */

/* Which of "a|b|c"; -1: none. */
static int choice(const char *list, const char *value)
{
    size_t n = strlen(value);
    for (int i = 0; *list; i++) {
        size_t len = strcspn(list, "|");
        if (len == n && !memcmp(list, value, n))
            return i;
        list += len + (list[len] == '|');
    }
    return -1;
}

static int take_choice(const struct param *p, void *field, const char *value, struct err_ctx *ctx)
{
    int i = choice(p->arg, value);
    if (i < 0)
        return err_set(ctx, ERR_INVALID, "%s: '%s' is none of %s", p->word, value, p->arg);
    if (p->type == TYPE_DIR || p->type == TYPE_SIDE)
        *(uint8_t *)field = (uint8_t)(i + 1); /* first, second, both */
    else if (p->type == TYPE_HOW)
        *(enum proxy_how *)field = (enum proxy_how)i;
    else
        *(enum proxy_of *)field = (enum proxy_of)i;
    return 0;
}

static int take_place(struct proxy_place *at, const char *value, struct err_ctx *ctx)
{
    uint32_t ppm;
    int rc;
    at->share = strchr(value, '%') != NULL;
    if (!at->share)
        return units_size(&at->n, value, ctx);
    rc = units_share(&ppm, value, ctx);
    at->n = ppm;
    return rc;
}

static int take_count(uint64_t *n, const char *value, struct err_ctx *ctx)
{
    int rc = units_u64(n, value, ctx);
    return !rc && !*n ? err_set(ctx, ERR_RANGE, "counting begins at 1") : rc;
}

static void failure_table(uint8_t *back, const void *needle, size_t n)
{
    const uint8_t *s = needle;
    back[0] = 0;
    for (size_t i = 1, k = 0; i < n; i++) {
        while (k && s[i] != s[k])
            k = back[k - 1];
        k += s[i] == s[k];
        back[i] = (uint8_t)k;
    }
}

static int take_id(struct proxy_toxic *t, const char *value, struct err_ctx *ctx)
{
    if (id_parse(&t->id, value, strlen(value)))
        return err_set(ctx, ERR_INVALID, "'%s' is no UUID", value);
    t->has_id = true;
    id_format(&t->id, t->id_text);
    failure_table(t->text_back, t->id_text, ID_TEXT);
    failure_table(t->raw_back, t->id.b, ID_BYTES);
    return 0;
}

static int take_value(struct proxy_toxic *t, const struct param *p, const char *value, struct err_ctx *ctx)
{
    void *field = (char *)t + p->offset;
    int rc = 0;
    switch (p->type) {
    case TYPE_TIME:
        rc = units_duration(field, value, ctx);
        break;
    case TYPE_RATE:
        rc = units_bitrate(field, value, ctx);
        break;
    case TYPE_SIZE:
        rc = units_size(field, value, ctx);
        break;
    case TYPE_COUNT:
        rc = take_count(field, value, ctx);
        break;
    case TYPE_SHARE:
        rc = units_share(field, value, ctx);
        break;
    case TYPE_ID:
        rc = take_id(t, value, ctx);
        break;
    case TYPE_AT:
        rc = take_place(field, value, ctx);
        break;
    case TYPE_DIR:
    case TYPE_HOW:
    case TYPE_SIDE:
    case TYPE_OF:
        return take_choice(p, field, value, ctx);
    }
    return rc ? err_prefix(ctx, "%s: ", p->word) : 0;
}

/* --- a SPEC ------------------------------------------------------------------------------------------- */

static const char *word_list(char *out, size_t cap, uint32_t words)
{
    size_t n = 0;
    out[0] = 0;
    for (unsigned i = 0; i < PARAMS; i++) {
        if (words >> i & 1 && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", params[i].word);
    }
    return out;
}

/* One "word=value"; *seen gathers the words. */
static int take_word(struct proxy_toxic *t, uint32_t *seen, char *word, struct err_ctx *ctx)
{
    const struct kind *k = &kinds[t->kind];
    char list[256], *value = strchr(word, '=');
    unsigned i = 0;
    if (value)
        *value++ = 0;
    while (i < PARAMS && strcmp(params[i].word, word))
        i++;
    if (i == PARAMS || !(k->takes >> i & 1))
        return err_set(ctx, ERR_INVALID, "'%s' is no word of %s, which takes %s", word, k->word,
                       word_list(list, sizeof list, k->takes));
    if (!value || !*value)
        return err_set(ctx, ERR_INVALID, "%s has no value (%s=%s)", word, word, params[i].arg);
    if (*seen >> i & 1)
        return err_set(ctx, ERR_INVALID, "%s stands twice", word);
    *seen |= 1u << i;
    return take_value(t, &params[i], value, ctx);
}

/* What the single words cannot know. */
static int check(struct proxy_toxic *t, uint32_t seen, struct err_ctx *ctx)
{
    const struct kind *k = &kinds[t->kind];
    char list[256];
    int triggers = !!t->nth + !!t->each + !!t->prob_ppm + t->has_id + (t->bytes && t->kind != PROXY_LIMIT);
    if (k->needs && !(seen & k->needs & ~(W(AT) | W(OF))))
        return err_set(ctx, ERR_INVALID, "%s needs one of %s", k->word,
                       word_list(list, sizeof list, k->needs & ~(W(AT) | W(OF))));
    if (triggers > 1)
        return err_set(ctx, ERR_INVALID, "only one of nth, each, prob, id, bytes can say where");
    if (seen & (W(AT) | W(OF)) && !proxy_toxic_by_frame(t))
        return err_set(ctx, ERR_INVALID, "%s needs a frame: nth, each, prob or id",
                       seen & W(AT) ? "at" : "of");
    if (t->every_ns && proxy_toxic_by_place(t))
        return err_set(ctx, ERR_INVALID, "every is about time; a place in the stream comes once");
    if (t->every_ns && (!t->for_ns || t->every_ns < t->for_ns))
        return err_set(ctx, ERR_INVALID, "every must be at least `for`, which it needs");
    if ((seen & W(BYTES) && !t->bytes) || (seen & W(RATE) && !t->rate_bps) || (seen & W(SIZE) && !t->size))
        return err_set(ctx, ERR_RANGE, "bytes, rate and size begin at 1");
    if (seen & W(VARY) && t->vary >= t->size)
        return err_set(ctx, ERR_RANGE, "vary must be less than size");
    if (t->delay_ns > 3600000000000ull || t->jitter_ns > t->delay_ns)
        return err_set(ctx, ERR_RANGE,
                       t->jitter_ns > t->delay_ns ? "jitter is more than delay" : "delay is more than 1h");
    if (t->kind == PROXY_DUPLICATE && t->copies > 16)
        return err_set(ctx, ERR_RANGE, "copies: at most 16");
    if (t->has_id && !t->times)
        t->times = 1;
    return 0;
}

static int parse_words(struct proxy_toxic *t, char *text, struct err_ctx *ctx)
{
    uint32_t seen = 0;
    char *words = strchr(text, ':'), *next;
    if (words)
        *words++ = 0;
    unsigned k = 0;
    while (k < KINDS && strcmp(kinds[k].word, text))
        k++;
    if (k == KINDS) {
        char list[256] = "";
        for (unsigned i = 0; i < KINDS; i++) {
            strcat(list, i ? ", " : "");
            strcat(list, kinds[i].word);
        }
        return err_set(ctx, ERR_INVALID, "'%s' is no toxic: %s, or profile=PROFILE", text, list);
    }
    t->kind = (enum proxy_kind)k;
    for (; words; words = next) {
        next = strchr(words, ',');
        if (next)
            *next++ = 0;
        int rc = take_word(t, &seen, words, ctx);
        if (rc)
            return rc;
    }
    return check(t, seen, ctx);
}

static void defaults(struct proxy_toxic *t)
{
    memset(t, 0, sizeof *t);
    t->ways = 3;
    t->side = PROXY_SIDE_CLIENT | PROXY_SIDE_SERVER;
    t->share_ppm = 1000000;
    t->at = (struct proxy_place){true, 500000};
}

int proxy_toxic_of_profile(struct proxy_toxic *t, const struct netem_profile *profile, struct err_ctx *ctx)
{
    defaults(t);
    t->kind = PROXY_PROFILE;
    snprintf(t->spec, sizeof t->spec, "profile=%s", profile->name);
    t->profile = malloc(sizeof *t->profile);
    if (!t->profile)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    *t->profile = *profile;
    return 0;
}

int proxy_toxic_parse(struct proxy_toxic *t, const char *spec, struct err_ctx *ctx)
{
    char text[PROXY_SPEC_MAX];
    int rc;
    defaults(t);
    if (strlen(spec) >= PROXY_SPEC_MAX)
        return err_set(ctx, ERR_LIMIT, "a toxic of more than %d characters", PROXY_SPEC_MAX - 1);
    strcpy(t->spec, spec);
    if (!strncmp(spec, "profile=", 8)) {
        t->kind = PROXY_PROFILE;
        t->profile = malloc(sizeof *t->profile);
        rc = t->profile ? netem_profile_parse(t->profile, spec + 8, ctx)
                        : err_set(ctx, ERR_NOMEM, "out of memory");
    } else {
        strcpy(text, spec);
        rc = parse_words(t, text, ctx);
    }
    if (!rc)
        return 0;
    proxy_toxic_release(t);
    return err_prefix(ctx, "toxic '%s': ", spec);
}

void proxy_toxic_release(struct proxy_toxic *t)
{
    free(t->profile);
    t->profile = NULL;
}

void proxy_toxic_help(struct buf *out)
{
    char list[256];
    for (size_t i = 0; i < KINDS; i++)
        buf_printf(out, "%-15s %s (%s)\n", kinds[i].word, kinds[i].help,
                   word_list(list, sizeof list, kinds[i].takes & ~W_WHO));
    buf_str(out, "profile=PROFILE a link profile, as far as a stream can have it\n");
    for (unsigned i = 0; i < PARAMS; i++) {
        snprintf(list, sizeof list, "%s=%s", params[i].word, params[i].arg);
        buf_printf(out, "  %-27s %s\n", list, params[i].help);
    }
}

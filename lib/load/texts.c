#include "load/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/utf8.h"

static const char *const words[] = {"ok",
                                    "see",
                                    "you",
                                    "at",
                                    "the",
                                    "station",
                                    "in",
                                    "ten",
                                    "minutes",
                                    "can",
                                    "someone",
                                    "bring",
                                    "coffee",
                                    "please",
                                    "did",
                                    "it",
                                    "arrive",
                                    "again",
                                    "no",
                                    "signal",
                                    "here",
                                    "train",
                                    "late",
                                    "meeting",
                                    "moved",
                                    "to",
                                    "room",
                                    "4.2",
                                    "thanks!",
                                    "really?",
                                    "grüße",
                                    "schön",
                                    "café",
                                    "naïve",
                                    "mañana",
                                    "привет",
                                    "поезд",
                                    "сегодня",
                                    "γειά",
                                    "καλημέρα",
                                    "你好",
                                    "明天见",
                                    "ありがとう",
                                    "電車",
                                    "안녕하세요",
                                    "مرحبا",
                                    "שלום",
                                    "नमस्ते",
                                    "🙂",
                                    "😂👍",
                                    "🎉",
                                    "❤️",
                                    "👩‍👩‍👧",
                                    "🇫🇷",
                                    "...",
                                    "\"quoted\"",
                                    "back\\slash",
                                    "<b>",
                                    "https://example.org/a?b=c&d",
                                    "1+1=2"};

static bool valid(const char *p, size_t n)
{
    struct utf8 u = {0};
    return utf8_feed(&u, p, n) && utf8_whole(&u);
}

static int split(struct texts *t, const char *path, size_t n, struct err_ctx *ctx)
{
    uint32_t lines = 1, number = 0;
    for (size_t i = 0; i < n; i++)
        lines += t->data[i] == '\n';
    t->lines = calloc(lines, sizeof *t->lines);
    if (!t->lines)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    for (char *p = t->data, *end = t->data + n; p < end;) {
        char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((eol ? eol : end) - p);
        number++;
        if (len && p[len - 1] == '\r')
            len--;
        if (len > PROTO_BODY_MAX)
            return err_set(ctx, ERR_INVALID, "%s:%u: longer than %u bytes", path, number, PROTO_BODY_MAX);
        if (!valid(p, len))
            return err_set(ctx, ERR_INVALID, "%s:%u: no UTF-8", path, number);
        if (len)
            t->lines[t->n++] = (struct slice){p, len};
        p = eol ? eol + 1 : end;
    }
    return t->n ? 0 : err_set(ctx, ERR_INVALID, "%s: no text in it", path);
}

int texts_init(struct texts *t, const char *path, struct err_ctx *ctx)
{
    *t = (struct texts){0};
    if (!path || !*path)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return err_errno(ctx, "%s", path);
    int rc = 0;
    size_t n = 0;
    t->data = malloc(TEXTS_FILE_MAX + 1);
    if (t->data)
        n = fread(t->data, 1, TEXTS_FILE_MAX + 1, f);
    if (!t->data)
        rc = err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    else if (ferror(f))
        rc = err_errno(ctx, "%s", path);
    else if (n > TEXTS_FILE_MAX)
        rc = err_set(ctx, ERR_LIMIT, "%s: larger than %u bytes", path, TEXTS_FILE_MAX);
    fclose(f);
    if (!rc) {
        char *fit = realloc(t->data, n + 1);
        if (fit)
            t->data = fit;
        rc = split(t, path, n, ctx);
    }
    if (rc)
        texts_release(t);
    return rc;
}

void texts_release(struct texts *t)
{
    free(t->data);
    free(t->lines);
    *t = (struct texts){0};
}

struct slice texts_pick(const struct texts *t, struct rng *r, uint32_t min, uint32_t max, char *out)
{
    if (t->n)
        return t->lines[rng_below(r, t->n)];
    if (max > PROTO_BODY_MAX)
        max = PROTO_BODY_MAX;
    size_t want = rng_between(r, min < 1 ? 1 : min, max < 1 ? 1 : max), n = 0;
    while (n < want) {
        const char *w = words[rng_below(r, sizeof words / sizeof words[0])];
        size_t len = strlen(w);
        if (n && n + 1 < want)
            out[n++] = ' ';
        if (n + len > want) { /* what is left is too short for this word */
            while (n < want)
                out[n++] = '.';
            break;
        }
        memcpy(out + n, w, len);
        n += len;
    }
    return (struct slice){out, n};
}

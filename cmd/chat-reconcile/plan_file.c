/* Reading a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/plan.h"

#define LINE_MAX_BYTES (4u << 20)

void plan_release(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->item[i].from_text);
        free(p->item[i].to_text);
    }
    free(p->item);
    free(p->truth);
    free(p->target);
    *p = (struct plan){0};
}

void plan_reverse(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct plan_item *x = &p->item[i];
        struct reconcile_row row = x->from;
        char *text = x->from_text;
        bool has = x->has_from;
        x->from = x->to;
        x->from_text = x->to_text;
        x->has_from = x->has_to;
        x->to = row;
        x->to_text = text;
        x->has_to = has;
    }
    for (size_t i = 0; i < p->n / 2; i++) {
        struct plan_item x = p->item[i];
        p->item[i] = p->item[p->n - 1 - i];
        p->item[p->n - 1 - i] = x;
    }
}

/* "from", "to" and "beside": an object that is a row, or null. */
static bool take_row(const json_t *item, const char *name, bool *has, struct reconcile_row *row, char **text)
{
    const char *why;
    const json_t *v = json_object_get(item, name);
    *has = json_is_object(v);
    if (!*has)
        return !v || json_is_null(v);
    char *t = json_dumps(v, JSON_COMPACT);
    bool good = t && !reconcile_jsonl_row(row, t, strlen(t), &why);
    if (text)
        *text = t;
    else
        free(t);
    return good;
}

static const char *take_item(struct plan *p, const json_t *j)
{
    struct reconcile_row beside;
    bool has_beside;
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 256;
        struct plan_item *item = cap > PLAN_ITEMS_MAX ? NULL : realloc(p->item, cap * sizeof *item);
        if (!item)
            return "more items than memory holds";
        p->item = item;
        p->cap = cap;
    }
    struct plan_item *x = &p->item[p->n++];
    *x = (struct plan_item){.n = (uint64_t)json_integer_value(json_object_get(j, "n"))};
    if (!take_row(j, "from", &x->has_from, &x->from, &x->from_text) ||
        !take_row(j, "to", &x->has_to, &x->to, &x->to_text) ||
        !take_row(j, "beside", &has_beside, &beside, NULL))
        return "from, to or beside is no row";
    if (x->n != p->n)
        return "its number is not the next";
    const char *cannot = json_string_value(json_object_get(j, "cannot"));
    if (cannot) {
        x->state = ITEM_CANNOT;
        snprintf(x->why, sizeof x->why, "%s", cannot);
    } else if (!x->has_from && !x->has_to) {
        return "it neither takes nor gives anything";
    } else if (x->has_from && x->has_to && !id_equal(&x->from.id, &x->to.id)) {
        return "from and to are different messages";
    }
    x->copy = has_beside;
    x->twin = x->has_from && has_beside && reconcile_same(&x->from, &beside, 0xff);
    return NULL;
}

static const char *take_head(struct plan *p, const json_t *j)
{
    const char *truth = json_string_value(json_object_get(j, "truth")),
               *target = json_string_value(json_object_get(j, "target"));
    if (json_integer_value(json_object_get(j, "plan")) != 1 || !truth || !target)
        return "is no plan";
    p->truth = strdup(truth);
    p->target = strdup(target);
    return p->truth && p->target ? NULL : "out of memory";
}

int plan_read(struct plan *p, const char *path, struct err_ctx *err)
{
    size_t cap = 0;
    ssize_t n;
    char *line = NULL;
    const char *why = NULL;
    unsigned long at = 0;
    unsigned long long offset = 0;
    bool ended = false;
    FILE *f = fopen(path, "re");
    *p = (struct plan){0};
    if (!f)
        return err_errno(err, "%s", path);
    while (!why && (n = getline(&line, &cap, f)) > 0) {
        at++;
        json_t *j = (size_t)n > LINE_MAX_BYTES || line[n - 1] != '\n'
                        ? NULL
                        : json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(j))
            why = "is no JSON object, or cut off";
        else if (ended)
            why = "something follows the end";
        else if (at == 1)
            why = take_head(p, j);
        else if (json_object_get(j, "end"))
            why = (ended = true) && json_integer_value(json_object_get(j, "end")) == (json_int_t)p->n
                      ? NULL
                      : "the number of items is another";
        else
            why = take_item(p, j);
        json_decref(j);
        offset += why ? 0 : (unsigned long long)n;
    }
    int bad = !why && ferror(f) ? err_errno(err, "%s", path) : 0;
    free(line);
    fclose(f);
    if (bad) {
        plan_release(p);
        return bad;
    }
    if (!why && !ended)
        why = "its end is missing: it is not whole";
    if (why) {
        plan_release(p);
        return err_set(err, ERR_CORRUPT, "%s:%lu: offset %llu: %s", path, at, offset, why);
    }
    return 0;
}

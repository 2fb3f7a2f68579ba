/* How captures alone judge what full traces judge: pcap_agree TRACE_DIR CAPTURE... prints "full captures
 * pairs" lines, then "lost N agree N not_observed N wrong N unseen N invented N" over the pairs that the full
 * trace calls lost; unseen: the message is in no capture; invented: lost by the captures alone. With
 * PCAP_AGREE_LIST set, each that differs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "trace/join.h"
#include "util/map.h"
#include "wire/pcap/evidence.h"

struct key {
    struct id id;
    uint64_t recipient;
};

static struct map full;
static uint64_t table[VERDICT_COUNT][VERDICT_COUNT + 1];
static const struct trace_run *captures;
static bool list;

static bool remember(void *arg, const struct trace_pair *p)
{
    struct key k = {p->id, p->recipient};
    uint64_t *v = map_put(&full, &k, NULL);
    (void)arg;
    if (v)
        *v = (uint64_t)p->verdict + 1;
    return v != NULL;
}

static bool compare(void *arg, const struct trace_pair *p)
{
    struct key k = {p->id, p->recipient};
    uint64_t *v = map_get(&full, &k);
    char id[ID_TEXT + 1];
    (void)arg;
    if (!v || *v > VERDICT_COUNT)
        return true;
    table[*v - 1][p->verdict]++;
    if (list && *v - 1 != (uint64_t)p->verdict)
        printf("# %s %" PRIu64 " %s %s: %s\n", id_str(&p->id, id), p->recipient, verdict_name((int)*v - 1),
               verdict_name(p->verdict), p->why);
    *v += 100;
    return true;
}

int main(int argc, char **argv)
{
    struct trace_run r = {0};
    struct err_ctx err = {0};
    struct evidence *e = NULL;
    const struct trace_memory *part;
    const bool want[TRACE_SIDES] = {
        [TRACE_SIDE_SERVER] = true, [TRACE_SIDE_LINK] = true, [TRACE_SIDE_LOAD] = true};
    const char *dir = argc > 2 ? argv[1] : NULL;
    list = getenv("PCAP_AGREE_LIST");
    map_init(&full, sizeof(struct key), 8, UINT32_MAX, 1);
    int rc = !dir ? ERR_USAGE : trace_run_load(&r, &dir, 1, &err);
    rc = rc ? rc : trace_join(&r, &err);
    rc = rc ? rc : trace_pairs(&r, remember, NULL);
    trace_run_release(&r);
    rc = rc ? rc : evidence_new(&e, NULL, 512 << 20, &err);
    for (int i = 2; !rc && i < argc; i++)
        rc = evidence_read(e, argv[i], &err);
    rc = rc ? rc : evidence_finish(e, want, &err);
    if (!rc) {
        int n = evidence_parts(e, &part);
        rc = trace_run_load_with(&r, NULL, 0, part, n, &err);
    }
    rc = rc ? rc : trace_join(&r, &err);
    captures = &r;
    rc = rc ? rc : trace_pairs(&r, compare, NULL);
    if (rc) {
        fprintf(stderr, "pcap_agree: %s\n", err.text);
        return 1;
    }
    size_t at = 0;
    const void *key;
    void *val;
    while (map_next(&full, &at, &key, &val))
        if (*(uint64_t *)val <= VERDICT_COUNT)
            table[*(uint64_t *)val - 1][VERDICT_COUNT]++;
    uint64_t lost = 0, agree = 0, silent = 0, wrong = 0, unseen = 0, invented = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        for (int w = 0; w <= VERDICT_COUNT; w++) {
            if (!table[v][w])
                continue;
            printf("%-20s %-20s %8" PRIu64 "\n", verdict_name(v),
                   w < VERDICT_COUNT ? verdict_name(w) : "(unseen)", table[v][w]);
            if (!verdict_is_loss(v)) {
                invented += w < VERDICT_COUNT && verdict_is_loss(w) ? table[v][w] : 0;
                continue;
            }
            lost += table[v][w];
            *(w == VERDICT_COUNT          ? &unseen
              : w == v                    ? &agree
              : w == VERDICT_NOT_OBSERVED ? &silent
                                          : &wrong) += table[v][w];
        }
    printf("lost %" PRIu64 " agree %" PRIu64 " not_observed %" PRIu64 " wrong %" PRIu64 " unseen %" PRIu64
           " invented %" PRIu64 "\n",
           lost, agree, silent, wrong, unseen, invented);
    evidence_free(e);
    trace_run_release(&r);
    map_release(&full);
    return 0;
}

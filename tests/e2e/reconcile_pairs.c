/* What chat-trace says of each (message, recipient), a line each: "ID RECIPIENT VERDICT". reconcile_pairs DIR
 */
#include <inttypes.h>
#include <stdio.h>

#include "trace/join.h"

static bool print(void *arg, const struct trace_pair *p)
{
    char id[ID_TEXT + 1];
    (void)arg;
    printf("%s %" PRIu64 " %s\n", id_str(&p->id, id), p->recipient, verdict_name(p->verdict));
    return true;
}

int main(int argc, char **argv)
{
    struct trace_run r = {0};
    struct err_ctx err = {0};
    const char *dir = argc == 2 ? argv[1] : NULL;
    int rc = dir ? trace_run_load(&r, &dir, 1, &err) : err_set(&err, ERR_USAGE, "reconcile_pairs DIR");
    rc = rc ? rc : trace_join(&r, &err);
    rc = rc ? rc : trace_pairs(&r, print, NULL);
    if (rc)
        fprintf(stderr, "reconcile_pairs: %s\n", err.text);
    trace_run_release(&r);
    return rc ? err_exit_status(rc) : 0;
}

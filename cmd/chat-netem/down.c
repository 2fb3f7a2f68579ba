/* chat-netem down: ends one link, or all. */
#include <stdio.h>
#include <sysexits.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/tool.h"

struct ended {
    json_t *names;
    json_int_t missed;
};

static int add_ended(void *arg, int fd, const json_t *answer, struct err_ctx *err)
{
    struct ended *e = arg;
    (void)fd;
    (void)err;
    json_array_extend(e->names, json_object_get(answer, "down"));
    e->missed += json_integer_value(json_object_get(answer, "missed"));
    return 0;
}

int tool_down(const struct opt_set *o, int *status, struct err_ctx *err)
{
    const char *name = opt_operands(o) ? opt_operand(o, 0) : NULL;
    json_t *ask = json_pack("{s:s, s:s*}", "do", "down", "link", name);
    json_t *names = json_array();
    struct ended ended = {.names = names};
    unsigned dead = 0;
    int rc = control_ask(ask, add_ended, &ended, &dead, err);
    if (!rc && name && !json_array_size(names))
        rc = err_set(err, ERR_NOTFOUND, "no link '%s' is up", name);
    if (!rc && opt_json(o)) {
        json_t *out = json_pack("{s:O, s:i, s:I}", "down", names, "dead_keepers", (int)dead, "capture_missed",
                                ended.missed);
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(out);
    } else if (!rc && opt_verbosity(o) >= 0) {
        size_t i;
        json_t *n;
        json_array_foreach(names, i, n)
            fprintf(stderr, "%s%s", i ? ", " : "chat-netem: down: ", json_string_value(n));
        fputs(json_array_size(names) ? "\n" : "chat-netem: no link is up\n", stderr);
    }
    if (!rc && ended.missed)
        fprintf(stderr, "chat-netem: captures or traces lack %lld packets: the disk was too slow, or full\n",
                (long long)ended.missed);
    *status = dead ? 1 : ended.missed ? EX_IOERR : 0;
    json_decref(ask);
    json_decref(names);
    return rc;
}

/* What the main() of a tool does: parse, run, say the error in one line, end with its status. The library
 * neither prints nor ends a program, so this is here. */
#ifndef CMD_TOOL_MAIN_H
#define CMD_TOOL_MAIN_H

#include <stdio.h>

#include "util/opt.h"

/* *status counts when run gives 0. config: name of the option that names a configuration file; NULL: none. */
typedef int tool_run(struct opt_set *o, int *status, struct err_ctx *err);

static inline int tool_main(const struct opt_tool *tool, const char *config, tool_run *run, int argc,
                            char **argv)
{
    struct opt_set *set = NULL;
    struct err_ctx err = {0};
    struct buf answer = BUF_INIT(1u << 20);
    int status = 0, rc = opt_parse(&set, tool, argc, argv, config, &answer, &err);
    if (!rc && answer.len)
        fputs(buf_cstr(&answer), stdout);
    else if (!rc)
        rc = run(set, &status, &err);
    if ((fflush(stdout) || ferror(stdout)) && !rc)
        rc = err_errno(&err, "standard output");
    if (rc)
        fprintf(stderr, "%s: %s\n", tool->name, err.text[0] ? err.text : err_text(rc));
    buf_release(&answer);
    opt_free(set);
    return rc ? err_exit_status(rc) : status;
}

#endif

/* chat-netem exec: a command inside a link that is up. It becomes the command, so that status and signals are
 * the command's own. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/tool.h"

/* Inside, and known to be there: from now on the end of the link is ours too. */
static int enter(int ns, int keeper, struct err_ctx *err)
{
    char word[3];
    if (ns < 0 || setns(ns, CLONE_NEWNET))
        return err_errno(err, "entering the link");
    if (send(keeper, "in\n", 3, MSG_NOSIGNAL) != 3 || recv(keeper, word, sizeof word, MSG_WAITALL) != 3)
        return err_set(err, ERR_IO, "the link's keeper died");
    return 0;
}

int tool_exec(const struct opt_set *o, struct err_ctx *err)
{
    const char *link = opt_operand(o, 0);
    bool far = strcmp(opt_string(o, "side"), "far") == 0;
    json_t *answer = NULL;
    int keeper = -1, ns = -1;
    char **argv = opt_rest(o);
    if (!argv || !argv[0])
        return err_set(err, ERR_USAGE, "exec: the command is missing: chat-netem exec LINK -- CMD...");
    json_t *ask = json_pack("{s:s, s:s, s:b}", "do", "exec", "link", link, "far", far);
    int rc = control_ask_link(link, ask, &answer, &keeper, &ns, err);
    json_decref(ask);
    rc = rc ? rc : enter(ns, keeper, err);
    if (rc)
        return rc;
    setenv("CHAT_NETEM_LINK", link, 1);
    setenv("CHAT_NETEM_LOCAL", json_string_value(json_object_get(answer, "local")), 1);
    setenv("CHAT_NETEM_PEER", json_string_value(json_object_get(answer, "peer")), 1);
    json_decref(answer);
    execvp(argv[0], argv);
    return err_errno(err, "%s", argv[0]);
}

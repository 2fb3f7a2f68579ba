/* chat-netem set: changes a link that is up. */
#include <string.h>

#include "cmd/chat-netem/links.h"
#include "cmd/chat-netem/tool.h"

int tool_set(const struct opt_set *o, struct err_ctx *err)
{
    char link[LINKS_NAME + 24];
    json_t *answer = NULL;
    if (snprintf(link, sizeof link, "%s", opt_operand(o, 0)) >= (int)sizeof link)
        return err_set(err, ERR_NOTFOUND, "no link '%.60s...' is up", opt_operand(o, 0));
    char *slash = strchr(link, '/');
    if (slash)
        *slash = 0;
    json_t *ask = json_pack("{s:s, s:s, s:s, s:s*}", "do", "set", "link", link, "what", opt_operand(o, 1),
                            "phone", slash ? slash + 1 : NULL);
    if (!ask)
        return err_set(err, ERR_INVALID, "'%.60s' is no text", opt_operand(o, 1));
    int rc = control_ask_link(link, ask, &answer, NULL, NULL, err);
    if (rc)
        err_prefix(err, "%s: ", opt_operand(o, 0));
    else if (opt_json(o))
        json_dumpf(answer, stdout, JSON_COMPACT);
    if (!rc && opt_json(o))
        putchar('\n');
    json_decref(answer);
    json_decref(ask);
    return rc;
}

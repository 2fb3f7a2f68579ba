/* A scenario to start from. JSON has no comments, so the file explains itself where "why" is allowed, and the
 * rest is said on stderr. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-chaos/tool.h"
#include "report/report.h"
#include "scenario/scenario.h"

static const char body[] =
    "    \"why\": \"What hurts, whom, and how it shows. Say here what the expectations prove.\",\n"
    "    \"seed\": 1,\n"
    "    \"duration\": \"20s\",\n"
    "    \"drain\": \"20s\",\n"
    "    \"server\": { \"delivery\": \"reliable\" },\n"
    "    \"links\": {\n"
    "        \"lte\": { \"profile\": \"lte-lossy\" },\n"
    "        \"wifi\": { \"profile\": \"wifi\" }\n"
    "    },\n"
    "    \"load\": [\n"
    "        {\n"
    "            \"name\": \"mobile\", \"link\": \"lte\", \"clients\": 60, \"client\": \"reliable\", "
    "\"rate\": \"30/s\",\n"
    "            \"chat_size\": 6, \"chats_per_client\": 1, \"body\": [20, 200],\n"
    "            \"habits\": { \"background_every\": \"60s\", \"background_for\": \"4s\", \"kill_after\": "
    "\"3s\",\n"
    "                        \"network_change_every\": \"60s\", \"network_change_gap\": \"400ms\",\n"
    "                        \"resend_after\": \"8s\", \"resend_share\": \"30%\" }\n"
    "        },\n"
    "        { \"name\": \"home\", \"link\": \"wifi\", \"clients\": 30, \"client\": \"reliable\", \"rate\": "
    "\"15/s\" }\n"
    "    ],\n"
    "    \"faults\": [\n"
    "        { \"name\": \"cut\", \"at\": \"5s\", \"do\": \"kill-socket\", \"target\": \"mobile\", "
    "\"share\": 0.2, \"when\": \"mid-frame\" },\n"
    "        { \"name\": \"tunnel\", \"at\": \"9s\", \"do\": \"blackout\", \"target\": \"lte\", \"for\": "
    "\"2s\" },\n"
    "        { \"name\": \"crash\", \"at\": \"14s\", \"do\": \"kill-server\", \"signal\": \"KILL\", "
    "\"restart\": \"1s\" }\n"
    "    ],\n"
    "    \"expect\": [\n"
    "        \"delivered(mobile) >= 99.99%\",\n"
    "        \"delivered(home) - delivered(mobile) < 0.1%\",\n"
    "        \"duplicates == 0\",\n"
    "        \"lost == 0\",\n"
    "        \"audit_violations == 0\",\n"
    "        \"p95(delivery_ms{home}) < 2000\"\n"
    "    ],\n"
    "    \"variants\": {\n"
    "        \"before\": {\n"
    "            \"why\": \"fire and forget, to see what the fixes are worth; null removes a fault\",\n"
    "            \"server.delivery\": \"legacy\", \"load.*.client\": \"legacy\", \"faults.crash\": null,\n"
    "            \"expect\": [\"delivered(mobile) < 99.5%\"]\n"
    "        }\n"
    "    }\n"
    "}\n";

int tool_new(const struct opt_set *set, struct err_ctx *ctx)
{
    const char *name = opt_operand(set, 0);
    char path[256];
    if (!*name || strlen(name) >= SCENARIO_NAME ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != strlen(name))
        return err_set(ctx, ERR_USAGE, "'%s': a name has letters, digits, - and _, at most %d of them", name,
                       SCENARIO_NAME - 1);
    snprintf(path, sizeof path, "%s.json", name);
    if (access(path, F_OK) == 0)
        return err_set(ctx, ERR_EXISTS, "%s exists already", path);
    struct buf b = BUF_INIT(1u << 16);
    buf_printf(&b, "{\n    \"name\": \"%s\",\n%s", name, body);
    int rc = report_write(path, &b, ctx);
    buf_release(&b);
    if (!rc) {
        printf("%s\n", path);
        if (opt_verbosity(set) >= 0)
            fprintf(stderr, "chat-chaos show %s says what it does; sudo chat-chaos run %s does it\n", path,
                    path);
    }
    return rc;
}

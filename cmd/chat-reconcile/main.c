/* chat-reconcile: which copy lacks what, and how to make it whole. */
#include <string.h>

#include "cmd/chat-reconcile/tool.h"
#include "cmd/tool_main.h"

static const struct opt options[] = {
#include "cmd/chat-reconcile/options.def"
    OPT_END};

static const struct opt_command commands[] = {
    {"check", "SRC SRC...", "compare copies with the first one", 2, -1},
    {"plan", "SRC TARGET", "write down what would make TARGET like SRC, for review", 2, 2},
    {"apply", "PLAN", "carry out a plan; only tells, without --yes", 1, 1},
    {"undo", "PLAN", "take a plan back; only tells, without --yes", 1, 1},
    {"verify", "PLAN", "is everything as the plan wants it?", 1, 1},
    {"export", "SRC", "write a source's rows in order, as JSONL or in a binary form", 1, 1},
    {"status", "server:URL", "how far a restored server is with what it asks its clients for", 1, 1},
    {0}};

static const struct opt_tool tool = {
    .name = "chat-reconcile",
    .summary = "finds what copies of chat logs lack, and puts it back",
    .description = "SRC is store:rocksdb:DIR, backup:DIR, server:http://HOST:PORT, jsonl:FILE, bin:FILE "
                   "(logs: they should hold "
                   "everything), journal:DIR or "
                   "trace:DIR (witnesses: what phones sent, were promised and were shown; what they did not "
                   "see is no loss). "
                   "The first is the truth. Differences are classified as lost, duplicate, reordered, "
                   "phantom, zombie, diverged and "
                   "unconfirmed; what was sent and never promised is told apart (never_accepted), and is no "
                   "difference.\n\n"
                   "Exit status of check: 0 equal, 1 they differ, 2 no difference but something could not be "
                   "read; 65 when a source "
                   "is damaged, with file and offset. Of apply, undo and verify: 1 something is left to do, "
                   "2 something did not fit "
                   "the plan any more. Of status: 1 it is still asking, 2 it stopped before everybody had "
                   "answered.",
    .commands = commands,
    .options = options,
    .examples = "chat-reconcile check store:rocksdb:chatd-data/store backup:backups/latest\n"
                "chat-reconcile check journal:phones store:rocksdb:chatd-data/store\n"
                "chat-reconcile plan store:rocksdb:old-store store:rocksdb:data/store -o plan.jsonl\n"
                "chat-reconcile apply plan.jsonl --yes\n"
                "chat-reconcile check server:http://127.0.0.1:8080 backup:backups/latest\n"
                "chat-reconcile status server:http://127.0.0.1:8080 --watch\n"
                "chat-reconcile export store:rocksdb:chatd-data/store --format bin -o a.bin"};

static int run(struct opt_set *o, int *status, struct err_ctx *err)
{
    static int (*const run_it[])(const struct opt_set *o, int *status, struct err_ctx *err) = {
        tool_check, tool_plan, tool_apply, tool_undo, tool_verify, tool_export, tool_status};
    size_t i = 0;
    while (strcmp(commands[i].name, opt_command(o)) != 0)
        i++;
    return run_it[i](o, status, err);
}

int main(int argc, char **argv)
{
    return tool_main(&tool, NULL, run, argc, argv);
}

/* SRC operands. */
#include <string.h>

#include "cmd/chat-reconcile/tool.h"
#include "shard/shard.h"

static const char *after(const char *url, const char *scheme)
{
    size_t n = strlen(scheme);
    return strncmp(url, scheme, n) == 0 && url[n] ? url + n : NULL;
}

int tool_source(struct reconcile_source **out, const char *url, const struct opt_set *o, bool sorted,
                struct err_ctx *err)
{
    static const char *const later[] = {"mongodb:", "store:mongodb:", "search:"};
    const char *rest;
    if ((rest = after(url, "jsonl:")))
        return reconcile_jsonl_open(out, rest, shard_of_chat, sorted, err);
    if ((rest = after(url, "bin:")))
        return reconcile_bin_open(out, rest, err);
    if ((rest = after(url, "journal:")))
        return reconcile_journal_open(out, rest, shard_of_chat, err);
    if ((rest = after(url, "trace:")))
        return source_trace_open(out, rest, err);
    if ((rest = after(url, "store:rocksdb:")) || (rest = after(url, "backup:")))
        return source_store_open(out, url, rest, err);
    if ((rest = after(url, "server:")))
        return source_server_open(out, url, rest, o, err);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (after(url, later[i]))
            return err_set(err, ERR_UNSUPPORTED,
                           "%s: chat-reconcile cannot read %s yet; export it to JSONL rows", url, later[i]);
    return err_set(err, ERR_USAGE,
                   "'%s' is no source: store:rocksdb:DIR, backup:DIR, server:http://HOST:PORT, journal:DIR, "
                   "trace:DIR, jsonl:FILE or bin:FILE",
                   url);
}

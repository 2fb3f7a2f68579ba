/* Where other systems keep what a chat message says: id, chat, sequence, acknowledged id. A dialect is a JSON
 * file, so that nobody needs us to read their messages:
 *
 *   { "name": "mattermost", "about": "...", "framing": "json",
 *     "messages": [
 *       { "from": "server", "when": { "/event": "posted" }, "role": "push", "t": "/event",
 *         "id": "/data/post#/id", "chat": "/broadcast/channel_id", "seq": "/seq", "sender": "..." } ] }
 *
 * framing: "json" (one value a message), "lines" (one value a line), "socket.io" (Engine.IO and Socket.IO
 * prefixes, then a JSON array). from: "client", "server"; left out: either. when: pointers and what they must
 * point to: a text, a number, or true for "anything". The first entry that fits an item is taken; an item
 * that fits none is listed without fields. Pointers are RFC 6901. "#" goes into a string that itself holds
 * JSON: "/data/post#/id". With framing socket.io "@type", "@namespace" and "@ack" are the parts of the
 * prefix. role: "send", "push", "accept", "ack", or left out. t: a pointer, or "=text" for a fixed one. ack:
 * the id that is acknowledged.
 *
 * Dialects that come with the tool (dialects/NAME.json) are found by name. Limits: DIALECT_MESSAGES_MAX
 * entries, DIALECT_WHEN_MAX conditions each, pointers of DIALECT_POINTER_MAX bytes. Unknown keys are errors.
 *
 * Must not know: streams, what is done with the fields. */
#ifndef WIRE_DIALECT_H
#define WIRE_DIALECT_H

#include "util/err.h"
#include "wire/chat.h"

#define DIALECT_MESSAGES_MAX 64
#define DIALECT_WHEN_MAX     4
#define DIALECT_POINTER_MAX  127

struct dialect;

/* A file, or the name of a dialect that is built in. ERR_INVALID, ERR_NOTFOUND with the offending key. */
int dialect_load(struct dialect **out, const char *path, struct err_ctx *ctx);
int dialect_parse(struct dialect **out, const char *text, size_t n, const char *name, struct err_ctx *ctx);
void dialect_free(struct dialect *d); /* NULL is fine */
const char *dialect_name(const struct dialect *d);
/* Names of those built in, one by one; NULL past the last. */
const char *dialect_builtin(int i);

/* As chat_scan_json does. Texts point into p, or into the dialect's own room (strings inside strings), and
 * are good until the next call. */
int dialect_scan(struct dialect *d, bool from_client, const char *p, size_t n, struct chat_item *out,
                 int max);

#endif

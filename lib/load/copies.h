/* What phones keep of their chats: each entry they were shown, said or made, with its tag, so that they can
 * bring back what the server loses. One copy of an entry is shared by all phones that hold it (a server gives
 * all the same); a phone holds 8 bytes of it and 32 in the index of ids.
 *
 * Must not know: sockets, clients. */
#ifndef LOAD_COPIES_H
#define LOAD_COPIES_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/proto.h"
#include "util/map.h"

struct copy;
/* Those of one phone in one chat, by seq. */
struct copy_list {
    struct copy **at;
    uint32_t n, cap;
};
struct copies {
    struct map entries; /* (chat, epoch, seq) -> struct copy * */
    struct map ids;     /* (owner, id) -> 1 */
};

void copies_init(struct copies *c);
void copies_release(struct copies *c);
/* Without memory it is not kept. */
void copies_keep(struct copies *c, struct copy_list *l, uint64_t owner, const struct msg *m);
/* The first (or last) with from <= seq <= to. */
bool copies_find(const struct copy_list *l, uint64_t from, uint64_t to, bool last, struct msg *out);
bool copies_held(const struct copies *c, uint64_t owner, const struct id *id);
/* The phone loses them. */
void copies_forget(struct copies *c, struct copy_list *l, uint64_t owner);

#endif

/* Who is typing where, until when. Kept per (chat, user) with its time, so that it can be asked for: who
 * comes back is told what holds now, never what was said while it was away.
 *
 * Limits: TYPING_MAX entries, of more the oldest are dropped; TYPING_CHAT_MAX a chat, more are not taken (a
 * screen shows three). 32 bytes an entry. Chats and users are numbers > 0 of the owner's. */
#ifndef PRESENCE_TYPING_H
#define PRESENCE_TYPING_H

#include <stdbool.h>
#include <stdint.h>

#include "util/map.h"
#include "util/slab.h"

#define TYPING_MAX      65536u
#define TYPING_CHAT_MAX 16u
/* After a refresh: within 10 s it is no longer shown, also where a timer comes late. */
#define TYPING_FOR_US   9500000ull
#define TYPING_AGAIN_MS 1000u /* a refresh that comes sooner is not passed on */

struct typing {
    struct slab entries;
    struct map chats;        /* chat -> first entry */
    uint32_t oldest, newest; /* by refresh */
    bool keeps;              /* nothing expires: the service as it was (a queue of events that is replayed) */
};

void typing_init(struct typing *t, uint64_t seed);
void typing_release(struct typing *t);

enum typing_result { TYPING_TOLD /* tell the chat */, TYPING_SOON /* told a moment ago */, TYPING_DROPPED };
/* The user typed; it holds until `until_us`. A time before one that is known changes nothing. */
enum typing_result typing_set(struct typing *t, uint32_t chat, uint32_t user, uint64_t until_us,
                              uint64_t now_ms);
/* The user's message has come, or they are gone; true: they were typing. */
bool typing_clear(struct typing *t, uint32_t chat, uint32_t user);
/* Until when, 0: not typing at `now_us`. */
uint64_t typing_until(const struct typing *t, uint32_t chat, uint32_t user, uint64_t now_us);
/* Who types in a chat at `now_us`; at most TYPING_CHAT_MAX. Returns how many. */
struct typist {
    uint32_t user;
    uint64_t until_us;
};
uint32_t typing_in(const struct typing *t, uint32_t chat, uint64_t now_us,
                   struct typist out[TYPING_CHAT_MAX]);
/* Drop what is over, the oldest first; at most `some`. */
uint32_t typing_expire(struct typing *t, uint64_t now_us, uint32_t some);

#endif

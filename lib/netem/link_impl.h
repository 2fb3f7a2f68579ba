/* Inside the room: a link's weather (link_weather.c), its service (link_serve.c) and its fates (link.c). */
#ifndef NETEM_LINK_IMPL_H
#define NETEM_LINK_IMPL_H

#include "netem/link.h"
#include "util/clock.h"

enum link_which {
    LINK_WINDOW_BLACKOUT = 1,
    LINK_WINDOW_HANDOVER = 2,
    LINK_WINDOW_STALL = 3,
    LINK_WINDOW_CELL = 4
};

/* splitmix64 (Steele, Lea & Flood 2014): 8 bytes of state per direction instead of the 32 of util/rng.h. */
static inline uint32_t link_draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static inline uint64_t link_window_end(const struct link_window *w)
{
    return w->start_ns + w->length_us * NS_PER_US;
}

static inline bool link_window_holds(const struct link_window *w, uint64_t t_ns)
{
    return t_ns >= w->start_ns && t_ns < link_window_end(w);
}

/* All windows as of a link that begins now. */
void link_weather_init(struct link *l, uint64_t now_ns);
/* Another profile: what it does not change goes on. */
void link_weather_change(struct link *l, const struct netem_profile *before, uint64_t now_ns);
/* Whether `t`, which may lie ahead of `now` by the wait in the queue, is inside a window. */
bool link_inside(const struct link *l, enum link_which which, uint64_t t_ns);
/* Window `number` takes the phone's address with it. */
bool link_window_loses(const struct link *l, enum link_which which, uint32_t number);
/* When packets are neither stalled nor handed from cell to cell: `t` or later. */
uint64_t link_held_until(const struct link *l, uint64_t t_ns);
/* How much of [from, to) packets are held. */
uint64_t link_held_time(const struct link *l, uint64_t from_ns, uint64_t to_ns);
/* When the first hold begins that ends after `t`. */
uint64_t link_hold_after(const struct link *l, uint64_t t_ns);
/* When a service of `need_ns` that starts at `start` is done, if it is held in between. */
uint64_t link_held_serve(const struct link *l, uint64_t start_ns, uint64_t need_ns);

/* When the radio can send; it wakes if it must. */
uint64_t link_radio_ready(struct link *l, enum netem_dir dir, uint64_t now_ns);
/* The same without waking, for packets that are already in the queue. */
uint64_t link_radio_awake(const struct link *l, enum netem_dir dir, uint64_t now_ns);
/* When a packet that is ready then can begin, behind all that was served. */
uint64_t link_service_start(const struct link *l, enum netem_dir dir, uint64_t ready_ns);
/* Serve it: when its last byte is sent. */
uint64_t link_service(struct link *l, enum netem_dir dir, uint64_t ready_ns, uint32_t bytes);
bool link_queue_full(const struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes);
void link_service_reset(struct link *l, uint64_t now_ns);

/* What happens on the air. */
struct link_verdict link_on_air(struct link *l, enum netem_dir dir, uint64_t depart_ns, uint32_t bytes);

#endif

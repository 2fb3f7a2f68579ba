/* What the checker is told, at each step, and the notes from which a violation's story is made. */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "core/client.h"
#include "sim/sim_impl.h"

int watch_new(struct sim *s, struct err_ctx *ctx);
void watch_free(struct sim *s);
/* After phones_new: which devices there are. */
void watch_devices(struct sim *s);
/* The node queues a frame for a connection. */
void watch_sent(struct sim *s, const struct load_socket *c, const struct shared_frame *f);
void watch_committed(struct sim *s, struct store *store, const struct store_batch *b);
/* The server has opened its store. */
struct sim_server;
int watch_opened(struct sim *s, struct sim_server *v, struct err_ctx *ctx);
void watch_restored(struct sim *s, bool blind);
/* From lib/load: what a phone's client did, before it is carried out; and that it lost its storage. */
void watch_phone(void *arg, const struct client *c, const struct client_effect *e);
void watch_time(struct sim *s); /* after each event */
void watch_arrived(struct sim *s, uint64_t user);
void watch_heard(struct sim *s, uint64_t user, uint64_t sent_ns);
void watch_here(void *arg, uint64_t user, bool there);
void watch_forgot(void *arg, uint64_t user, uint32_t device);
/* Something that concerns everybody: "server killed". */
void watch_note(struct sim *s, const char *what, uint64_t arg);
bool watch_converged(struct sim *s);
bool watch_receipts_settled(struct sim *s);
void watch_finish(struct sim *s);
void watch_result(const struct sim *s, struct sim_result *out);

#endif

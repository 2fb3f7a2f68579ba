/* What the checker is told, at each step. */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "core/client.h"
#include "sim/sim_impl.h"

int watch_new(struct sim *s, struct err_ctx *ctx);
void watch_free(struct sim *s);
void watch_sent(struct sim *s, struct load_socket *c, const struct shared_frame *f);
/* The node has read a frame; who speaks is known from hello on. */
void watch_heard(struct sim *s, struct load_socket *c, const char *p, size_t n);
void watch_closed(struct sim *s, struct load_socket *c);
void watch_committed(struct sim *s, const struct store_batch *b);
/* From lib/load: what a phone's client did, before it is done; and that it lost its storage. */
void watch_phone(void *arg, const struct client *c, const struct client_effect *e);
void watch_forgot(void *arg, uint64_t user, uint32_t device);
int watch_opened(struct sim *s, struct err_ctx *ctx);
void watch_result(const struct sim *s, struct sim_result *out);

#endif

/* The checker's ears. */
#include "sim/watch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int watch_new(struct sim *s, struct err_ctx *ctx)
{
    (void)s;
    (void)ctx;
    return 0;
}
void watch_free(struct sim *s)
{
    (void)s;
}
void watch_sent(struct sim *s, struct load_socket *c, const struct shared_frame *f)
{
    (void)s, (void)c, (void)f;
}
void watch_heard(struct sim *s, struct load_socket *c, const char *p, size_t n)
{
    (void)s, (void)c, (void)p, (void)n;
}
void watch_closed(struct sim *s, struct load_socket *c)
{
    (void)s, (void)c;
}
void watch_committed(struct sim *s, const struct store_batch *b)
{
    (void)s, (void)b;
}
void watch_phone(void *arg, const struct client *c, const struct client_effect *e)
{
    (void)arg, (void)c, (void)e;
}
void watch_forgot(void *arg, uint64_t user, uint32_t device)
{
    (void)arg, (void)user, (void)device;
}
int watch_opened(struct sim *s, struct err_ctx *ctx)
{
    (void)s, (void)ctx;
    return 0;
}
void watch_result(const struct sim *s, struct sim_result *out)
{
    (void)s, (void)out;
}
bool sim_failed(const struct sim *s)
{
    (void)s;
    return false;
}
void sim_story(const struct sim *s, struct buf *out)
{
    (void)s, (void)out;
}

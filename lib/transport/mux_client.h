/* The client's end of chat.mux.v1 for load generators and tests: records are collected and go out as one
 * WebSocket message each time mux_client_flush is called, or when 64 KiB are together. What is on the wire,
 * and the rule for session numbers, is in mux.h.
 *
 * All on the loop's thread. A callback may call anything here but mux_client_free. Must not know: phones. */
#ifndef TRANSPORT_MUX_CLIENT_H
#define TRANSPORT_MUX_CLIENT_H

#include "transport/mux.h"
#include "transport/ws_client.h"

struct mux_client;

struct mux_client_ops {
    void (*ready)(void *arg,
                  uint32_t credit); /* OPEN 0 was answered: sessions may begin with so much credit */
    void (*data)(void *arg, uint32_t session, const char *p, size_t n);
    void (*closed)(void *arg, uint32_t session, int code);
    /* The connection is over, and all sessions with it; free it later. */
    void (*over)(void *arg, int code, enum reason reason);
    /* May be NULL. A hint, a few records ahead: this session's turn comes soon, its memory may be fetched. */
    void (*soon)(void *arg, uint32_t session);
};

struct mux_client_config {
    struct ev_loop *loop;
    uint32_t server_ip, source_ip;
    uint16_t server_port;
    const char *path, *token;
    struct rng *rng;
    const struct mux_client_ops *ops;
    void *arg;
};

int mux_client_new(struct mux_client **out, const struct mux_client_config *c, struct err_ctx *ctx);
void mux_client_free(struct mux_client *c); /* NULL is fine */

void mux_client_open(struct mux_client *c, uint32_t session, uint64_t user);
void mux_client_data(struct mux_client *c, uint32_t session, const void *p, size_t n);
void mux_client_credit(struct mux_client *c, uint32_t session, uint32_t bytes);
void mux_client_cut(struct mux_client *c, uint32_t session, uint64_t bytes);
void mux_client_close(struct mux_client *c, uint32_t session, int code);
void mux_client_beats(struct mux_client *c, uint32_t first, const uint8_t *bitmap, size_t n);
/* False: the socket has more than it takes, call again later (or nothing is left to be called for). */
bool mux_client_flush(struct mux_client *c);
/* Collected and not yet taken by the kernel. */
size_t mux_client_queued(const struct mux_client *c);
/* The client's port, which names the connection (mux_flow), and how many sessions were opened on it. */
uint16_t mux_client_port(const struct mux_client *c);
uint32_t mux_client_opens(const struct mux_client *c);

#endif

/* chat.mux.v1: many sessions over one WebSocket connection. The records, for both ends.
 *
 * A binary WebSocket message holds whole records, one behind the other:
 *
 *     u32 session, u8 op, u24 length, payload          big-endian; at most MUX_PAYLOAD_MAX bytes of payload
 *
 *     op        payload                        client -> server                     server -> client
 *     1 OPEN    session 0: token (JWT)         first record of all                  session 0: u32 credit
 *               others: u64 user               a new session, which speaks for user
 *     2 DATA    one frame of chat.v1.bin       as on a socket of its own            the same
 *     3 CREDIT  u32 bytes                      the server may send so much more
 *     4 CUT     u64 bytes                      its stream broke there
 *     5 CLOSE   u16 code, text                 a close frame                        the session is over
 *     6 BEATS   bitmap, lowest bit first       session + i beats, for each bit i
 *
 * Session 0 is the connection. Its token must have the role operator: such a connection may speak for every
 * user, until the token expires; a hello in one of its sessions may then leave its token empty. (With a token
 * in it, that one counts.) A refusal is the WebSocket's own close: 4101, 4102.
 *
 * Others are 1 to MUX_SESSIONS_MAX - 1, given by the client, best without holes. A session ends with exactly
 * one CLOSE from the server, whoever ended it, and only after that its number is free again: so nothing of
 * the old one can be mistaken for the new one. Records to a session that is not open are passed over.
 *
 * DATA from the server counts against the session's credit, which begins at what the answer to OPEN 0 says;
 * a frame goes out while any credit is left, so one frame may overdraw it. Without credit the session's
 * frames wait at the server (where the node sees that it is slow, and reads the log later instead of queueing
 * more), and all others go on. The server takes all that comes and needs no credit the other way.
 *
 * CUT says where a simulated stream broke: after `bytes` of the client's DATA payloads. What lies beyond the
 * last whole frame was torn and is nobody's. The server treats the session as reset.
 *
 * Must not know: WebSocket, sessions of the node, stores. */
#ifndef TRANSPORT_MUX_H
#define TRANSPORT_MUX_H

#include <stddef.h>
#include <stdint.h>

#include "trace/trace.h"
#include "util/buf.h"
#include "util/err.h"

#define MUX_SUBPROTOCOL  "chat.mux.v1"
#define MUX_HEADER       8u
#define MUX_PAYLOAD_MAX  (1u << 20)
#define MUX_SESSIONS_MAX (1u << 24) /* of one connection */
#define MUX_CREDIT_START (64u << 10)
#define MUX_CREDIT_MAX   (1u << 30)
#define MUX_AHEAD        6 /* records that either end looks ahead, to have their sessions fetched */

enum mux_op { MUX_OPEN = 1, MUX_DATA, MUX_CREDIT, MUX_CUT, MUX_CLOSE, MUX_BEATS };

struct mux_record {
    uint32_t session, len;
    enum mux_op op;
    const char *payload;
};

static inline uint64_t mux_get(const char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}
static inline void mux_set(char *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = bytes; i--; v >>= 8)
        p[i] = (char)v;
}
static inline void mux_header(char out[MUX_HEADER], uint32_t session, enum mux_op op, size_t len)
{
    mux_set(out, session, 4);
    out[4] = (char)op;
    mux_set(out + 5, len, 3);
}

/* The record at *p; *p moves behind it. 1; 0 at the end; ERR_TRUNCATED, ERR_LIMIT (payload), ERR_INVALID (op,
 * session number, or a payload of the wrong length for its op). Payloads point into the message. */
int mux_next(const char **p, const char *end, struct mux_record *r);
/* Append a record. */
void mux_put(struct buf *out, uint32_t session, enum mux_op op, const void *payload, size_t len);

/* How a session is named where sockets are named by their addresses: `opens` counts the OPENs of this
 * connection up to this one (both ends count the same), `port` is the client's port of the connection. */
static inline struct trace_flow mux_flow(uint32_t session, uint32_t opens, uint16_t port)
{
    return (struct trace_flow){.src = 10u << 24 | session, .sport = (uint16_t)opens, .dport = port};
}

#endif

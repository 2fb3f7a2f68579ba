/* WebSocket (RFC 6455) as pure functions over bytes: frames, messages, and the opening handshake.
 *
 * The parser takes the byte stream in pieces of any size and gives whole messages; control frames between the
 * fragments of a message come out at once. A message that lies whole in one piece is not copied; the parser
 * holds memory only while a message (or a control frame) is incomplete. permessage-deflate is never offered.
 *
 * Must not know: sockets, chats. */
#ifndef WIRE_WS_H
#define WIRE_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"
#include "wire/utf8.h"

#define WS_HEADER_MAX  14
#define WS_CONTROL_MAX 125
#define WS_KEY_TEXT    24 /* base64 of 16 bytes */
#define WS_ACCEPT_TEXT 28 /* base64 of a SHA-1 */
#define WS_UPGRADE_MAX 8192

enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10,
};

/* Close codes of RFC 6455 section 7.4.1 that we use ourselves. */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_NONE = 1005, /* never sent: a close frame without a code came */
    WS_CLOSE_NOT_UTF8 = 1007,
    WS_CLOSE_TOO_BIG = 1009,
};

struct ws_header {
    bool fin, masked;
    uint8_t rsv, opcode; /* rsv: 3 bits, RSV1 = 4 */
    uint8_t mask[4];
    uint64_t len; /* of the payload */
};

/* Bytes of the header at p (2..14), 0 when it is cut, ERR_INVALID for a length with the highest bit set or
 * not in its shortest form (section 5.2). Nothing else is judged. */
int ws_header_parse(struct ws_header *h, const void *p, size_t n);
/* Returns the bytes written. */
size_t ws_header_encode(uint8_t out[WS_HEADER_MAX], const struct ws_header *h);
/* XOR with the mask; `phase` = index of p[0] within the payload. */
void ws_mask(void *p, size_t n, const uint8_t mask[4], size_t phase);
/* Append a whole frame; mask NULL: unmasked (server), else copied and masked (client). */
void ws_frame(struct buf *out, enum ws_opcode opcode, const void *p, size_t n, const uint8_t *mask);
/* The payload of a close frame: code and at most 123 bytes of text (cut at a character). Returns its length.
 */
size_t ws_close_payload(uint8_t out[WS_CONTROL_MAX], int code, const char *text);
/* May this code stand in a close frame (section 7.4)? */
bool ws_close_code_ok(int code);

enum ws_peer_role {
    WS_FROM_CLIENT, /* frames must be masked */
    WS_FROM_SERVER, /* must not */
    WS_FROM_ANYONE, /* captures */
};

struct ws_parser {
    struct buf held; /* payload of an incomplete message, then of an incomplete control frame */
    uint64_t offset; /* bytes of the stream taken so far */
    uint64_t message_start;
    uint64_t left;       /* payload bytes of the current frame still to come */
    uint64_t frame_len;  /* payload bytes of the current frame */
    size_t message_held; /* bytes of `held` that belong to the message */
    struct ws_header h;
    uint8_t head[WS_HEADER_MAX], head_n;
    uint8_t role, message_opcode; /* 0: no message open */
    bool in_payload, closed, rsv1_allowed, message_rsv1;
    struct utf8 utf8;
    int close_code; /* after an error: what to send (1002, 1007, 1009) */
};

struct ws_message {
    enum ws_opcode opcode; /* TEXT, BINARY, CLOSE, PING, PONG */
    bool rsv1;             /* compressed (only when rsv1_allowed); then the text was not checked */
    char *p;               /* good until the next call or the reuse of the piece */
    size_t n;
    int close_code;      /* CLOSE: code or WS_CLOSE_NONE; p, n are then the reason */
    uint64_t start, end; /* its place in the byte stream: from its first header to behind its last byte */
};

/* message_max: bytes of one message; more is ERR_LIMIT with close code 1009, before memory is taken for it.
 */
void ws_parser_init(struct ws_parser *w, enum ws_peer_role role, uint32_t message_max);
void ws_parser_release(struct ws_parser *w);
/* Take from the piece at *p, *n (both advance; the bytes are unmasked in place). 1: *m is a message; call
 * again for more. 0: the piece is used up. Else ERR_INVALID (close_code 1002 or 1007), ERR_LIMIT (1009) or
 * ERR_NOMEM, with a sentence; the parser is then spent. After a CLOSE the rest of the stream is swallowed
 * (section 5.5.1).
 */
int ws_parser_next(struct ws_parser *w, char **p, size_t *n, struct ws_message *m, struct err_ctx *ctx);
/* Is a message or frame incomplete? */
bool ws_parser_midway(const struct ws_parser *w);

/* --- opening handshake (section 4) --- */

/* Sec-WebSocket-Accept of a key; NUL-terminated. Keys of more than 64 bytes are cut. */
void ws_accept(char out[WS_ACCEPT_TEXT + 1], const char *key, size_t n);
/* base64 of 16 random bytes; NUL-terminated. */
void ws_key(char out[WS_KEY_TEXT + 1], const uint8_t random[16]);
/* The client's request; subprotocol and extra (whole header lines) may be NULL. */
void ws_upgrade_request(struct buf *out, const char *host, const char *path, const char *key,
                        const char *subprotocol, const char *extra);
/* The server's answer; subprotocol may be NULL. */
void ws_upgrade_response(struct buf *out, const char *key, size_t key_n, const char *subprotocol);

/* What the client must check. Returns the bytes of the answer (frames follow), 0 when it is not whole yet,
 * ERR_UNAVAILABLE for a status other than 101 (*status has it), ERR_INVALID, ERR_LIMIT past WS_UPGRADE_MAX.
 * subprotocol: the one asked for, or NULL; another one, or none, is ERR_INVALID. */
int ws_upgrade_check(const char *p, size_t n, const char *key, const char *subprotocol, int *status,
                     struct err_ctx *ctx);

struct ws_request { /* pointers into the request; NULL, 0 when absent */
    const char *path, *host, *key, *protocols;
    size_t path_n, host_n, key_n, protocols_n;
};
/* What the server must check. Returns as ws_upgrade_check does. */
int ws_upgrade_parse(struct ws_request *r, const char *p, size_t n, struct err_ctx *ctx);
/* Is `name` one of the comma-separated words (case matters not)? */
bool ws_list_has(const char *list, size_t n, const char *name);

#endif

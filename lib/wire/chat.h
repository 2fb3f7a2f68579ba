/* What the messages inside a WebSocket message say: kind, id, chat, sequence, acknowledged id.
 *
 * Without a dialect this is chat.v1: JSON (one object, or an array of them), chat.v1.bin and chat.mux.v1. A
 * dialect (wire/dialect.h) says where other systems keep these. Nothing is copied and no tree is built: a
 * scanner walks the text once. Text that is not JSON yields nothing; what is cut is read as far as it goes.
 *
 * Must not know: frames, streams. */
#ifndef WIRE_CHAT_H
#define WIRE_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHAT_ITEMS_MAX 64

struct chat_text { /* as it stands in the payload: of a JSON string what lies between the quotes */
    const char *p;
    uint32_t n;
};

struct chat_item {
    struct chat_text t;    /* "send", "msg"... */
    struct chat_text id;   /* of the message */
    struct chat_text chat; /* room, channel */
    struct chat_text from; /* sender, where it says */
    struct chat_text ack;  /* the id that this one acknowledges */
    uint64_t seq;
    bool has_seq;
    uint8_t role;        /* enum chat_role */
    uint32_t session;    /* of a mux record; 0: none */
    struct chat_text at; /* the object */
};

/* What an item means for a message's way. */
enum chat_role {
    CHAT_OTHER,
    CHAT_SEND,   /* a client sends it */
    CHAT_PUSH,   /* the server gives it to a recipient */
    CHAT_ACCEPT, /* the server says that it has it */
    CHAT_ACK,    /* a client says that it has it */
};

/* chat.v1 text. Returns how many items were filled in (at most `max`). */
int chat_scan_json(const char *p, size_t n, struct chat_item *out, int max);

/* ---- for dialects: a walk over one JSON value ---- */

struct scan_at {
    const char *p, *end;
};
/* Blanks are skipped. */
void scan_blank(struct scan_at *j);
/* Past a string whose opening quote is at p; its raw inside in *s. False: cut or none. */
bool scan_string(struct scan_at *j, struct chat_text *s);
/* Past any value; *s is its raw text (inside of a string). False: cut or none. */
bool scan_value(struct scan_at *j, struct chat_text *s, char *type);
bool scan_u64(struct chat_text s, uint64_t *v);

#endif

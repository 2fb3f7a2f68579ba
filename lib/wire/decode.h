/* From a WebSocket message to the chat messages in it, by the connection's subprotocol: chat.v1 (JSON),
 * chat.v1.bin, chat.mux.v1, or what a dialect says. Where the handshake was not captured, text is tried as
 * JSON and binary as chat.v1.bin.
 *
 * Items point into the message or into the decoder, and are good until its next call. */
#ifndef WIRE_DECODE_H
#define WIRE_DECODE_H

#include "proto/proto.h"
#include "wire/chat.h"
#include "wire/tap.h"

struct dialect;

struct chat_decoder {
    struct dialect *dialect;      /* the caller's; NULL: chat.v1 */
    struct proto_scratch scratch; /* taken when first needed */
    uint64_t bad;                 /* messages of the binary codecs that could not be read */
    struct {
        char id[37], chat[21], from[21];
    } text[CHAT_ITEMS_MAX];
};

/* Fills at most `max` (<= CHAT_ITEMS_MAX) items; returns how many. Control frames have none. */
int chat_decode(struct chat_decoder *d, const struct tap_message *m, struct chat_item *out, int max);
void chat_decoder_release(struct chat_decoder *d);

#endif

/* WebSocket messages as rows: jsonl, tsv, text. */
#ifndef CHAT_TRACE_ROWS_H
#define CHAT_TRACE_ROWS_H

#include "cmd/chat-trace/out.h"
#include "wire/chat.h"
#include "wire/tap.h"

enum rows_form { ROWS_TEXT, ROWS_JSONL, ROWS_TSV };

struct rows {
    struct out *out;
    enum rows_form form;
    bool payload;
    uint64_t written, lost; /* lost: rows too long to be printed */
};

/* Addresses as text, kept as tap_conn.user; optional, about 120 bytes a connection. */
struct rows_conn {
    char addr[2][PACKET_ADDR_TEXT];
    uint8_t n[2];
};
void rows_open(struct tcp_flow *f);
void rows_close(struct tcp_flow *f);
void rows_put(struct rows *r, const struct tap_message *m, const struct chat_item *item, int items);

#endif

/* Any bytes as a WebSocket stream or a handshake. First byte: role and size of the pieces. The events of the
 * stream must be the same in one piece and in many. */
#include <stdlib.h>
#include <string.h>

#include "wire/ws.h"

static uint64_t read_all(enum ws_peer_role role, const uint8_t *data, size_t size, size_t step,
                         int *close_code)
{
    struct ws_parser w;
    struct ws_message m;
    struct err_ctx ctx = {0};
    uint64_t sum = 0;
    int rc = 0;
    ws_parser_init(&w, role, 300);
    for (size_t at = 0; at < size && rc >= 0; at += step) {
        size_t n = size - at < step ? size - at : step;
        char *piece = malloc(n), *p = piece;
        memcpy(piece, data + at, n);
        while ((rc = ws_parser_next(&w, &p, &n, &m, &ctx)) == 1) {
            sum = sum * 31 + (uint64_t)m.opcode + m.n + m.start * 7 + m.end;
            for (size_t i = 0; i < m.n; i++)
                sum = sum * 31 + (uint8_t)m.p[i];
            if (m.end > w.offset || m.start >= m.end)
                abort();
        }
        free(piece);
        if ((rc < 0 && (!w.close_code || !ctx.text[0])) || (rc == 0 && n))
            abort();
    }
    *close_code = w.close_code;
    ws_parser_release(&w);
    return sum;
}

static void handshake(const uint8_t *data, size_t size)
{
    struct ws_request r;
    int status;
    int q = ws_upgrade_parse(&r, (const char *)data, size, NULL);
    int a = ws_upgrade_check((const char *)data, size, "dGhlIHNhbXBsZSBub25jZQ==", "chat.v1", &status, NULL);
    if (q > (int)size || a > (int)size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int one, many;
    if (size < 2)
        return 0;
    enum ws_peer_role role = (enum ws_peer_role)(data[0] % 3);
    size_t step = 1 + data[0] / 3 % 16;
    if (read_all(role, data + 1, size - 1, size, &one) != read_all(role, data + 1, size - 1, step, &many) ||
        one != many)
        abort();
    handshake(data + 1, size - 1);
    return 0;
}

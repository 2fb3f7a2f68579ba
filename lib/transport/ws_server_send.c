/* The send queues, and one frame of what is pending. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/ws_server_impl.h"
#include "util/clock.h"
#include "wire/ws.h"

static struct send_node *node_take(struct ws_server *s)
{
    struct send_node *n = s->node_pool;
    if (!n)
        return malloc(sizeof *n);
    s->node_pool = n->next;
    s->nodes_free--;
    return n;
}

static void node_give(struct ws_server *s, struct send_node *n)
{
    shared_frame_unref(n->frame);
    if (s->nodes_free >= WS_NODES_KEPT) {
        free(n);
        return;
    }
    n->next = s->node_pool;
    s->node_pool = n;
    s->nodes_free++;
}

void ws_nodes_free(struct ws_server *s)
{
    while (s->node_pool) {
        struct send_node *n = s->node_pool;
        s->node_pool = n->next;
        free(n);
    }
}

void ws_queue_drop(struct ws_conn *c)
{
    while (c->head) {
        struct send_node *n = c->head;
        c->head = n->next;
        node_give(c->s, n);
    }
    c->tail = &c->head;
    c->queue_msgs = 0;
    c->queue_bytes = 0;
    link_remove(&c->dirty);
}

int ws_send(struct ws_conn *c, struct shared_frame *f, uint64_t cookie)
{
    struct ws_server *s = c->s;
    if (c->state != CONN_OPEN)
        return ERR_UNAVAILABLE;
    if (c->queue_msgs >= s->cfg.queue_msgs_max ||
        c->queue_bytes + c->blocked_bytes + f->len > s->cfg.queue_bytes_max) {
        c->full = true;
        return ERR_LIMIT;
    }
    struct send_node *n = node_take(s);
    if (!n)
        return ERR_NOMEM;
    *n = (struct send_node){.frame = f, .cookie = cookie};
    shared_frame_ref(f);
    *c->tail = n;
    c->tail = &n->next;
    c->queue_msgs++;
    c->queue_bytes += f->len;
    ws_turn_want(c);
    return 0;
}

uint64_t ws_queued_bytes(const struct ws_conn *c)
{
    return c->queue_bytes + c->blocked_bytes;
}

void ws_check_drained(struct ws_conn *c)
{
    struct ws_server *s = c->s;
    if (!c->full || c->state != CONN_OPEN || ws_queued_bytes(c) > s->cfg.queue_bytes_max / 2 ||
        c->queue_msgs > s->cfg.queue_msgs_max / 2)
        return;
    c->full = false;
    if (s->cfg.ops->drained)
        s->cfg.ops->drained(s->cfg.arg, c->arg);
}

/* The scratch buffer grows to the largest object ever sent (at most queue_bytes_max) and stays. */
static bool scratch_fits(struct ws_server *s, size_t n)
{
    if (n <= s->scratch_cap)
        return true;
    unsigned char *bigger = realloc(s->scratch, LWS_PRE + n);
    if (!bigger)
        return false;
    s->scratch = bigger;
    s->scratch_cap = n;
    return true;
}

/* Binary: objects tell their own length and stand one behind the other; a mux block is a frame by itself. */
static unsigned char *pack_binary(struct ws_conn *c, uint32_t *objects, size_t *payload_len)
{
    struct ws_server *s = c->s;
    const struct send_node *n = c->head;
    uint32_t most = c->protocol == WS_MUX ? 1 : s->cfg.frame_objects_max;
    if (!scratch_fits(s, n->frame->len))
        return NULL;
    size_t len = 0;
    for (*objects = 0; n && *objects < most; n = n->next, ++*objects) {
        if (*objects && len + n->frame->len > WS_FRAME_BYTES)
            break;
        memcpy(s->scratch + LWS_PRE + len, n->frame->data, n->frame->len);
        len += n->frame->len;
    }
    *payload_len = len;
    return s->scratch + LWS_PRE;
}

/* Pack the head of the queue: the payload's place and length, and how many nodes it took. NULL: no memory. */
static unsigned char *pack(struct ws_conn *c, uint32_t *objects, size_t *payload_len)
{
    struct ws_server *s = c->s;
    const struct send_node *n = c->head;
    if (!scratch_fits(s, (size_t)n->frame->len + 2))
        return NULL;
    char *out = (char *)s->scratch + LWS_PRE;
    size_t len = 1; /* room for the bracket that a second object would need */
    *objects = 0;
    for (; n && *objects < s->cfg.frame_objects_max; n = n->next) {
        if (*objects && len + 1 + n->frame->len + 1 > WS_FRAME_BYTES)
            break;
        if (*objects)
            out[len++] = ',';
        memcpy(out + len, n->frame->data, n->frame->len);
        len += n->frame->len;
        ++*objects;
    }
    if (*objects == 1) {
        *payload_len = len - 1;
        return s->scratch + LWS_PRE + 1;
    }
    out[0] = '[';
    out[len++] = ']';
    *payload_len = len;
    return s->scratch + LWS_PRE;
}

/* A whole frame past lws, whose own way to the same send(2) costs 0.4 us, a twentieth of a delivery. What the
 * socket does not take is lws's to keep and to write, as bytes without meaning (that is what LWS_WRITE_HTTP
 * says of them), before anything else it may have to say. With bytes of that kind still there it has to be
 * lws's way. There are LWS_PRE bytes before the payload. Negative: the connection is dead. */
static int put_frame(struct ws_conn *c, unsigned char *payload, size_t len, bool text)
{
    if (lws_partial_buffered(c->wsi))
        return lws_write(c->wsi, payload, len, text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY);
    struct ws_header h = {.fin = true, .opcode = text ? WS_TEXT : WS_BINARY, .len = len};
    uint8_t head[WS_HEADER_MAX];
    size_t n = ws_header_encode(head, &h), whole = n + len;
    unsigned char *at = payload - n;
    memcpy(at, head, n);
    ssize_t r = send(c->fd, at, whole, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r == (ssize_t)whole)
        return 0;
    if (r < 0 && errno != EAGAIN && errno != EINTR)
        return -1;
    size_t took = r > 0 ? (size_t)r : 0;
    return lws_write(c->wsi, at + took, whole - took, LWS_WRITE_HTTP);
}

/* Hot path: no allocation but lws's own copy of what a congested socket does not take. */
void ws_flush(struct ws_conn *c)
{
    struct ws_server *s = c->s;
    uint32_t objects;
    if (!c->head || c->blocked || (c->state != CONN_OPEN && c->state != CONN_CLOSING))
        return;
    ws_offset_recount(c);
    size_t len;
    bool text = c->protocol == WS_JSON;
    unsigned char *payload = text ? pack(c, &objects, &len) : pack_binary(c, &objects, &len);
    if (!payload) { /* what can't be sent now never can: the object is larger than memory */
        ws_abort(c);
        return;
    }
    if (put_frame(c, payload, len, text) < 0) {
        c->state = CONN_DEAD;
        shutdown(c->fd, SHUT_RDWR); /* lws reads the end and closes */
        return;
    }
    uint32_t bytes = ws_header_bytes(len) + (uint32_t)len;
    c->written += bytes;
    c->blocked = lws_partial_buffered(c->wsi);
    c->blocked_bytes = c->blocked ? bytes : 0;
    s->turns.frames++;
    s->turns.objects += objects;
    for (uint32_t i = 0; i < objects && c->head; i++) {
        struct send_node *n = c->head;
        c->head = n->next;
        if (!c->head)
            c->tail = &c->head;
        c->queue_msgs--;
        c->queue_bytes -= n->frame->len;
        if (n->cookie && s->cfg.ops->written)
            s->cfg.ops->written(s->cfg.arg, c->arg, n->cookie, c->written, objects);
        node_give(s, n);
    }
    if (c->head && !c->blocked && link_empty(&c->dirty))
        link_append(&s->dirty, &c->dirty);
    ws_check_drained(c);
}

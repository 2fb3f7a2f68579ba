/* HTTP/1.1 beside the WebSockets: requests go up with an id, replies come down now or later. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/ws_server_impl.h"
#include "util/clock.h"

static const char *status_text(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 206:
        return "Partial Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 409:
        return "Conflict";
    case 410:
        return "Gone";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 415:
        return "Unsupported Media Type";
    case 422:
        return "Unprocessable Content";
    case 426:
        return "Upgrade Required";
    case 429:
        return "Too Many Requests";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    default:
        return status < 400 ? "OK" : "Error";
    }
}

/* Head and body in one block behind LWS_PRE; NULL: no memory. */
static unsigned char *compose(int status, const char *type, const char *extra, const char *body, size_t n,
                              bool head_only, bool close_after, size_t *len)
{
    char head[512];
    int h =
        snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
                 status, status_text(status), type, n, extra, close_after ? "Connection: close\r\n" : "");
    size_t body_len = head_only ? 0 : n;
    if (h < 0 || (size_t)h >= sizeof head)
        return NULL;
    unsigned char *out = malloc(LWS_PRE + (size_t)h + body_len);
    if (!out)
        return NULL;
    memcpy(out + LWS_PRE, head, (size_t)h);
    if (body_len)
        memcpy(out + LWS_PRE + h, body, body_len);
    *len = (size_t)h + body_len;
    return out;
}

/* A whole reply at once, for requests that never reach the owner. */
static int reply_now(struct lws *wsi, int status, const char *extra, const char *text)
{
    size_t len;
    unsigned char *out = compose(status, "text/plain", extra, text, strlen(text), false, true, &len);
    int rc = out ? lws_write(wsi, out + LWS_PRE, len, LWS_WRITE_HTTP_HEADERS) : -1;
    free(out);
    return rc < 0 ? -1 : 0;
}

/* A comma-separated list (RFC 9110 section 5.6.1) has this member. */
static bool list_has(const char *list, const char *want, bool fold)
{
    size_t len = strlen(want);
    while (*list) {
        list += strspn(list, " \t,");
        size_t n = strcspn(list, " \t,");
        if (n == len && (fold ? strncasecmp(list, want, n) : strncmp(list, want, n)) == 0)
            return true;
        list += n;
    }
    return false;
}

static const char *header(struct lws *wsi, enum lws_token_indexes token, char *out, size_t cap)
{
    if (lws_hdr_copy(wsi, out, (int)cap, token) < 0)
        out[0] = 0;
    return out;
}

/* 0: go on with the upgrade; 1: refused, the reply is on its way; -1: hang up. lws would drop the connection
 * without a word where the handshake is wrong, so all of it is checked here. */
int ws_http_confirm_upgrade(struct ws_conn *c, const char *to)
{
    char v[256];
    struct lws *wsi = c->wsi;
    if (c->refused)
        return reply_now(wsi, 503, "Retry-After: 1\r\n", "too many connections\n") ? -1 : 1;
    if (strcasecmp(to, "websocket") != 0)
        return reply_now(wsi, 400, "", "only websocket upgrades are known here\n") ? -1 : 1;
    if (strcmp(header(wsi, WSI_TOKEN_VERSION, v, sizeof v), "13") != 0)
        return reply_now(wsi, 426, "Sec-WebSocket-Version: 13\r\n", "WebSocket version 13 is needed\n") ? -1
                                                                                                        : 1;
    bool known = false;
    header(wsi, WSI_TOKEN_PROTOCOL, v, 128);
    for (int i = 0; i < WS_PROTOCOLS; i++)
        known |= list_has(v, ws_protocol_names[i], false);
    if (!known)
        return reply_now(wsi, 400, "", "subprotocol " WS_NAMES " is required\n") ? -1 : 1;
    if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) <= 0 || lws_hdr_total_length(wsi, WSI_TOKEN_HOST) <= 0 ||
        lws_hdr_total_length(wsi, WSI_TOKEN_KEY) != 24 ||
        !list_has(header(wsi, WSI_TOKEN_CONNECTION, v, 128), "upgrade", true))
        return reply_now(wsi, 400, "", "incomplete WebSocket handshake\n") ? -1 : 1;
    return 0;
}

static const char *method_name(int m)
{
    static const char *const names[] = {"GET",   "POST",   "OPTIONS", "PUT",
                                        "PATCH", "DELETE", "CONNECT", "HEAD"};
    return m >= 0 && m < (int)(sizeof names / sizeof *names) ? names[m] : "";
}

/* lws keeps the query cut at '&' and with its %XX decoded; it is put together again. */
static void copy_query(struct lws *wsi, char *out, size_t cap)
{
    size_t len = 0;
    for (int i = 0, n; (n = lws_hdr_fragment_length(wsi, WSI_TOKEN_HTTP_URI_ARGS, i)) > 0; i++) {
        if (len + (size_t)n + 2 > cap)
            break;
        if (i)
            out[len++] = '&';
        n = lws_hdr_copy_fragment(wsi, out + len, (int)(cap - len), WSI_TOKEN_HTTP_URI_ARGS, i);
        if (n < 0)
            break;
        len += (size_t)n;
    }
    out[len] = 0;
}

static struct http_request *request_new(struct lws *wsi, const char *path, size_t n)
{
    size_t q = (size_t)lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_URI_ARGS); /* separators included */
    size_t a = (size_t)lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_AUTHORIZATION);
    struct http_request *r = calloc(1, sizeof *r + n + q + a + 4);
    if (!r)
        return NULL;
    r->path = r->text;
    r->query = r->path + n + 1;
    r->authorization = r->query + q + 2;
    memcpy(r->path, path, n);
    copy_query(wsi, r->query, q + 2);
    if (a)
        lws_hdr_copy(wsi, r->authorization, (int)a + 1, WSI_TOKEN_HTTP_AUTHORIZATION);
    return r;
}

static void set_reply(struct ws_conn *c, int status, const char *type, const char *body, size_t n)
{
    struct http_request *r = c->http;
    link_remove(&c->deadline);
    r->reply = compose(status, type, "", body, n, r->head, r->close_after, &r->reply_len);
    if (r->paused) {
        r->paused = false;
        lws_rx_flow_control(c->wsi, 1);
    }
    lws_callback_on_writable(c->wsi);
}

static void set_error(struct ws_conn *c, int status, const char *text)
{
    set_reply(c, status, "text/plain", text, strlen(text));
}

static int dispatch(struct ws_conn *c)
{
    struct ws_server *s = c->s;
    struct http_request *r = c->http;
    struct ws_conn **slot;
    lws_set_timeout(c->wsi, NO_PENDING_TIMEOUT, 0);
    r->id = ++s->request_next;
    if (!s->cfg.ops->http) {
        set_error(c, 404, "not found\n");
        return 0;
    }
    slot = map_put_u64(&s->requests, r->id, NULL);
    if (!slot)
        return -1;
    *slot = c;
    r->deadline_ns = c->deadline_ns = clock_mono_ns() + WS_REPLY_NS;
    link_append(&s->replying, &c->deadline);
    ws_arm_deadline(s);
    s->cfg.ops->http(s->cfg.arg, &(struct ws_http_request){.conn = c,
                                                           .method = r->method,
                                                           .path = r->path,
                                                           .query = r->query,
                                                           .authorization = r->authorization});
    /* Waiting for a reply lws does not read but goes on being told that it could: it would spin. */
    if (c->http && !c->http->reply) {
        c->http->paused = true;
        lws_rx_flow_control(c->wsi, 0);
    }
    return 0;
}

int ws_http_begin(struct ws_conn *c, const char *path, size_t n)
{
    struct lws *wsi = c->wsi;
    char v[64], *uri;
    int uri_len, m = lws_http_get_uri_and_method(wsi, &uri, &uri_len);
    ws_http_drop(c);
    struct http_request *r = c->http = request_new(wsi, path, n);
    if (!r)
        return -1;
    r->method = method_name(m);
    r->head = m == LWSHUMETH_HEAD;
    r->post = m == LWSHUMETH_POST || m == LWSHUMETH_PUT || m == LWSHUMETH_PATCH;
    header(wsi, WSI_TOKEN_HTTP, v, sizeof v);
    bool old = strcmp(v, "HTTP/1.1") != 0;
    header(wsi, WSI_TOKEN_CONNECTION, v, sizeof v);
    r->close_after = old ? strcasecmp(v, "keep-alive") != 0 : strcasecmp(v, "close") == 0;
    bool sized = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) > 0;
    unsigned long long body =
        sized ? strtoull(header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, v, sizeof v), NULL, 10) : 0;
    bool chunked = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) > 0;
    if (chunked || body > WS_BODY_MAX || c->refused || (r->post && !sized))
        r->close_after = true; /* lws could not find the next request */
    if (c->refused)
        set_error(c, 503, "too many connections\n");
    else if (chunked)
        set_error(c, 411, "a body needs Content-Length\n");
    else if (body > WS_BODY_MAX)
        set_error(c, 413, "body too long\n");
    else if (body || (sized && m == LWSHUMETH_POST))
        return 0; /* lws tells when the body is through */
    else
        return dispatch(c);
    return 0;
}

int ws_http_body(struct ws_conn *c, size_t n)
{
    if (c->http)
        c->http->body_bytes += (uint32_t)n;
    return !c->http || c->http->body_bytes > 4 * WS_BODY_MAX ? -1 : 0;
}

int ws_http_body_end(struct ws_conn *c)
{
    return !c->http || c->http->reply || c->http->id ? 0 : dispatch(c);
}

int ws_http_writeable(struct ws_conn *c)
{
    struct http_request *r = c->http;
    if (!r || (!r->reply && !r->reply_len))
        return r && r->id && link_empty(&c->deadline) ? -1 : 0; /* -1: there was no memory for the reply */
    int rc = lws_write(c->wsi, r->reply + LWS_PRE, r->reply_len, LWS_WRITE_HTTP_HEADERS);
    bool close_after = r->close_after;
    ws_http_drop(c);
    if (rc < 0 || close_after)
        return -1;
    return lws_http_transaction_completed(c->wsi) ? -1 : 0;
}

void ws_http_drop(struct ws_conn *c)
{
    struct http_request *r = c->http;
    if (!r)
        return;
    map_del_u64(&c->s->requests, r->id);
    link_remove(&c->deadline);
    free(r->reply);
    free(r);
    c->http = NULL;
}

void ws_http_expire(struct ws_server *s, uint64_t now_ns)
{
    while (!link_empty(&s->replying)) {
        struct ws_conn *c = link_owner(s->replying.next, struct ws_conn, deadline);
        if (c->deadline_ns > now_ns)
            return;
        c->http->close_after = true;
        set_error(c, 504, "no answer in time\n");
        map_del_u64(&s->requests, c->http->id);
    }
}

uint64_t ws_http_id(const struct ws_conn *c)
{
    return c->http ? c->http->id : 0;
}

struct ws_conn *ws_http_alive(struct ws_server *s, uint64_t id)
{
    return map_get_ptr(&s->requests, id);
}

void ws_http_reply(struct ws_conn *c, int status, const char *content_type, const char *body, size_t n)
{
    if (!c->http || !c->http->id || c->http->reply)
        return;
    set_reply(c, status, content_type, body, n);
    map_del_u64(&c->s->requests, c->http->id);
}

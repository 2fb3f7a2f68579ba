#include "transport/ws_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/ws_server_impl.h"
#include "util/clock.h"
#include "util/log.h"

/* lws's errors are mostly about what a client sent; they are no errors of this program. */
static void lws_says(int level, const char *line)
{
    int n = (int)strcspn(line, "\n");
    if (level == LLL_ERR)
        log_warn("libwebsockets: %.*s", n, line);
    else
        log_info("libwebsockets: %.*s", n, line);
}

static void set_lws_log(void)
{
    lws_set_log_level(LLL_ERR | LLL_WARN, lws_says);
}

struct ws_conn *ws_conn_of(struct lws *wsi)
{
    return lws_get_opaque_user_data(wsi);
}

static void conn_free(struct ws_conn *c)
{
    ws_conn_gone(c);
    ws_http_drop(c);
    link_remove(&c->all);
    link_remove(&c->dirty);
    link_remove(&c->deadline);
    c->s->sockets--;
    free(c);
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct ws_conn *c;
    struct lws_process_html_args *args;
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_ADD_HEADERS: /* the end of lws's read buffer, and so its beginning */
        c = ws_conn_of(wsi);
        args = in;
        if (c)
            c->s->service_buf = (unsigned char *)args->p + args->max_len - WS_SERVICE_BYTES;
        return 0;
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        c = ws_conn_of(wsi);
        return c ? ws_http_confirm_upgrade(c, in) : -1;
    case LWS_CALLBACK_HTTP:
        c = ws_conn_of(wsi);
        return c ? ws_http_begin(c, in, len) : -1;
    case LWS_CALLBACK_HTTP_BODY:
        c = ws_conn_of(wsi);
        return c ? ws_http_body(c, len) : -1;
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        c = ws_conn_of(wsi);
        return c ? ws_http_body_end(c) : -1;
    case LWS_CALLBACK_HTTP_WRITEABLE:
        c = ws_conn_of(wsi);
        return c ? ws_http_writeable(c) : -1;
    case LWS_CALLBACK_ESTABLISHED:
        c = ws_conn_of(wsi);
        return c ? ws_conn_established(c, wsi) : -1;
    case LWS_CALLBACK_RECEIVE:
        return ws_conn_receive(ws_conn_of(wsi), in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return ws_conn_writeable(ws_conn_of(wsi));
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return ws_conn_peer_close(ws_conn_of(wsi), in, len);
    case LWS_CALLBACK_CLOSED:
        ws_conn_gone(ws_conn_of(wsi));
        return 0;
    case LWS_CALLBACK_RAW_ADOPT: /* CONNECT would turn the connection into a raw socket */
    case LWS_CALLBACK_RAW_RX:
        return -1;
    case LWS_CALLBACK_WSI_DESTROY:
        c = ws_conn_of(wsi);
        if (c)
            conn_free(c);
        return 0;
    default:
        return 0;
    }
}

static void adopt(struct ws_server *s, int fd, const struct sockaddr *peer, socklen_t peer_len)
{
    struct sockaddr_in local;
    socklen_t n = sizeof local;
    int on = 1;
    struct ws_conn *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->s = s;
    c->fd = fd;
    c->tail = &c->head;
    link_init(&c->dirty);
    link_init(&c->deadline);
    memcpy(&c->peer, peer, peer_len < sizeof c->peer ? peer_len : sizeof c->peer);
    if (getsockname(fd, (struct sockaddr *)&local, &n) == 0 && local.sin_family == AF_INET)
        c->local_ip = ntohl(local.sin_addr.s_addr);
    c->local_port = (uint16_t)s->port;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->refused = s->sockets >= s->cfg.conns_max;
    c->wsi = lws_adopt_socket_vhost(s->vhost, fd);
    if (!c->wsi) { /* lws has closed the socket */
        free(c);
        return;
    }
    lws_set_opaque_user_data(c->wsi, c);
    link_append(&s->all, &c->all);
    s->sockets++;
}

static void resume_accepting(struct ev_loop *loop, ev_timer *w, int events)
{
    struct ws_server *s = w->data;
    (void)events;
    if (s->listen_fd >= 0)
        ev_io_start(loop, &s->accepting);
}

static void on_accept(struct ev_loop *loop, ev_io *w, int events)
{
    struct ws_server *s = w->data;
    (void)events;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_in6 peer;
        socklen_t n = sizeof peer;
        int fd = accept4(s->listen_fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                log_warn("port %d: accepting pauses for 100 ms: %s", s->port, strerror(errno));
                ev_io_stop(loop, w);
                ev_timer_set(&s->accept_timer, 0.1, 0);
                ev_timer_start(loop, &s->accept_timer);
            }
            return;
        }
        if (s->sockets >= s->cfg.conns_max + WS_REFUSED_MAX)
            close(fd);
        else
            adopt(s, fd, (struct sockaddr *)&peer, n);
    }
}

/* The next deadline of either list; both are in order. */
void ws_arm_deadline(struct ws_server *s)
{
    uint64_t next = UINT64_MAX, now = clock_mono_ns();
    struct link *lists[] = {&s->closing, &s->replying};
    for (int i = 0; i < 2; i++)
        if (!link_empty(lists[i])) {
            uint64_t t = link_owner(lists[i]->next, struct ws_conn, deadline)->deadline_ns;
            next = t < next ? t : next;
        }
    ev_timer_stop(s->cfg.loop, &s->deadline_timer);
    if (next == UINT64_MAX)
        return;
    ev_now_update(s->cfg.loop);
    ev_timer_set(&s->deadline_timer, next > now ? (double)(next - now) * 1e-9 + 1e-3 : 0, 0);
    ev_timer_start(s->cfg.loop, &s->deadline_timer);
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int events)
{
    struct ws_server *s = w->data;
    uint64_t now = clock_mono_ns();
    (void)loop;
    (void)events;
    while (!link_empty(&s->closing)) {
        struct ws_conn *c = link_owner(s->closing.next, struct ws_conn, deadline);
        if (c->deadline_ns > now)
            break;
        link_remove(&c->deadline);
        ws_abort(c);
    }
    ws_http_expire(s, now);
    ws_arm_deadline(s);
}

/* "127.0.0.1:80", "[::1]:80", ":80" (any) -> a listening socket. */
static int listen_on(struct ws_server *s, struct err_ctx *ctx)
{
    const char *text = s->cfg.listen, *colon = strrchr(text, ':');
    char host[256];
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *ai;
    int on = 1, off = 0, rc;
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (!colon || n >= sizeof host)
        return err_set(ctx, ERR_INVALID, "cannot listen on '%s': want ADDRESS:PORT", text);
    bool bracket = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracket ? n - 2 : n), text + bracket);
    rc = getaddrinfo(n ? host : NULL, colon + 1, &hints, &ai);
    if (rc)
        return err_set(ctx, ERR_INVALID, "cannot listen on '%s': %s", text, gai_strerror(rc));
    s->listen_fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->listen_fd >= 0) {
        setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (s->cfg.share)
            setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
        if (ai->ai_family == AF_INET6)
            setsockopt(s->listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    rc = s->listen_fd < 0 || bind(s->listen_fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
         listen(s->listen_fd, SOMAXCONN) < 0;
    int why = errno;
    freeaddrinfo(ai);
    if (!rc) {
        struct sockaddr_in6 bound;
        socklen_t len = sizeof bound;
        getsockname(s->listen_fd, (struct sockaddr *)&bound, &len);
        s->port = ntohs(bound.sin6_port); /* at the same place in both families */
        return 0;
    }
    int code = why == EADDRINUSE ? ERR_BUSY : why == EACCES || why == EPERM ? ERR_PERM : ERR_IO;
    return err_set(ctx, code, "cannot listen on %s: %s", text, strerror(why));
}

const char *const ws_protocol_names[WS_PROTOCOLS] = {
    [WS_JSON] = "chat.v1", [WS_BIN] = "chat.v1.bin", [WS_MUX] = "chat.mux.v1"};

/* tx_packet_size: never split what the socket would take */
#define PROTOCOL(text, bytes)                                                                                \
    {                                                                                                        \
        .name = text, .callback = on_lws, .rx_buffer_size = bytes, .tx_packet_size = 16 * 1024 * 1024        \
    }
static const struct lws_protocols protocols[] = {PROTOCOL("chat.v1", WS_READ_BYTES),
                                                 PROTOCOL("chat.v1.bin", WS_READ_BYTES),
                                                 PROTOCOL("chat.mux.v1", WS_READ_BYTES_MUX),
                                                 {0}};

enum ws_protocol ws_protocol(const struct ws_conn *c)
{
    return (enum ws_protocol)c->protocol;
}

static int start_lws(struct ws_server *s, struct err_ctx *ctx)
{
    static pthread_once_t log_once = PTHREAD_ONCE_INIT;
    static pthread_mutex_t creating = PTHREAD_MUTEX_INITIALIZER; /* lws loads its libev plugin into globals */
    static const lws_retry_bo_t no_checks = {0}; /* lws neither pings nor gives up on its own */
    void *loops[] = {s->cfg.loop};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .options = LWS_SERVER_OPTION_LIBEV | LWS_SERVER_OPTION_VALIDATE_UTF8,
        .foreign_loops = loops,
        .pt_serv_buf_size = WS_SERVICE_BYTES,
        .max_http_header_data2 = WS_HEADER_BYTES,
        .retry_and_idle_policy = &no_checks,
        .keepalive_timeout = 60,
        .timeout_secs = 20,
        .user = s,
    };
    pthread_once(&log_once, set_lws_log);
    pthread_mutex_lock(&creating);
    s->lws = lws_create_context(&info);
    pthread_mutex_unlock(&creating);
    s->vhost = s->lws ? lws_get_vhost_by_name(s->lws, "default") : NULL;
    if (!s->vhost)
        return err_set(
            ctx, ERR_UNAVAILABLE,
            "libwebsockets does not start (is its libev plugin, libwebsockets-evlib-ev, installed?)");
    return 0;
}

static void start_watchers(struct ws_server *s)
{
    struct ev_loop *loop = s->cfg.loop;
    ev_io_init(&s->accepting, on_accept, s->listen_fd, EV_READ);
    ev_timer_init(&s->deadline_timer, on_deadline, 0, 0);
    ev_timer_init(&s->accept_timer, resume_accepting, 0, 0);
    s->accepting.data = s->deadline_timer.data = s->accept_timer.data = s;
    ev_io_start(loop, &s->accepting);
    ws_turn_start(s);
}

int ws_server_new(struct ws_server **out, const struct ws_server_config *c, struct err_ctx *ctx)
{
    struct ws_server *s = calloc(1, sizeof *s);
    int rc;
    *out = NULL;
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    s->cfg = *c;
    if (!c->frame_objects_max || c->frame_objects_max > WS_FRAME_OBJECTS)
        s->cfg.frame_objects_max = WS_FRAME_OBJECTS;
    s->listen_fd = -1;
    link_init(&s->all);
    link_init(&s->dirty);
    link_init(&s->held);
    link_init(&s->closing);
    link_init(&s->replying);
    map_init(&s->requests, 8, 8, (size_t)c->conns_max + WS_REFUSED_MAX, 0);
    s->scratch_cap = WS_FRAME_BYTES + 16;
    s->scratch = malloc(LWS_PRE + s->scratch_cap);
    rc = s->scratch ? listen_on(s, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = start_lws(s, ctx);
    if (rc) {
        ws_server_free(s);
        return rc;
    }
    start_watchers(s);
    *out = s;
    return 0;
}

int ws_server_port(const struct ws_server *s)
{
    return s->port;
}

uint32_t ws_server_conns(const struct ws_server *s)
{
    return s->open;
}

void ws_server_stop_accepting(struct ws_server *s)
{
    if (s->listen_fd < 0)
        return;
    ev_io_stop(s->cfg.loop, &s->accepting);
    ev_timer_stop(s->cfg.loop, &s->accept_timer);
    close(s->listen_fd);
    s->listen_fd = -1;
}

void ws_server_free(struct ws_server *s)
{
    if (!s)
        return;
    ws_server_stop_accepting(s);
    for (struct link *l = s->all.next; l != &s->all; l = l->next)
        ws_conn_say_bye(link_owner(l, struct ws_conn, all), 1001);
    s->freeing = true;
    ws_turn_stop(s);
    ev_timer_stop(s->cfg.loop, &s->deadline_timer);
    if (s->lws)
        lws_context_destroy(s->lws);
    ev_timer_stop(s->cfg.loop, &s->deadline_timer); /* a last callback may have armed it again */
    ws_nodes_free(s);
    map_release(&s->requests);
    free(s->scratch);
    free(s);
}

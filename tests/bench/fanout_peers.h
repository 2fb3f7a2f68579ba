/* The peers of bench_fanout: how each is started, how a member logs in, how a message is published, and how
 * the stream that comes back is taken apart. All use the same sockets, loop and clock; only these few
 * functions differ. A message's text begins with "@@", 16 hex digits (when it was meant to be sent, ns) and 8
 * (its number). */
#ifndef BENCH_FANOUT_PEERS_H
#define BENCH_FANOUT_PEERS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/keys.h"
#include "proto/proto.h"
#include "util/clock.h"
#include "util/rng.h"
#include "wire/ws.h"

#define BODY_MAX 4096
#define STAMP    26 /* "@@" and the two numbers */

struct member;
struct peer;

struct bench {
    const struct peer *peer;
    const char *folder, *server, *server_args, *ws_folder;
    const char *place; /* "apart" from the generator or "free"; NULL: as suits the peer */
    int port, members, body;
    pid_t pid;
    struct keys keys;
    struct rng rng;
    struct proto_scratch scratch;
    struct member *all; /* [0] publishes */
};

struct member {
    int fd, number;
    bool waits_out;    /* EPOLLOUT is asked for */
    uint32_t next;     /* number of the message that should come next */
    uint64_t seq;      /* chat.v1: of the last message */
    uint64_t acked_ns; /* when it acknowledged last */
    uint8_t doublings; /* of the wait before it acknowledges */
    bool ack_due;
    struct member *ack_next; /* of those due in the same millisecond */
    struct buf rest, out;
};

struct peer {
    const char *name, *needs, *what;
    bool keeps;   /* stores each message before it fans it out */
    bool threads; /* several threads fan out */
    /* The child: exec the server. */
    void (*exec)(struct bench *b, const char *port);
    /* Log in and subscribe; the socket still blocks. */
    void (*login)(struct bench *b, struct member *m);
    /* Append a request that publishes `body` to m->out. */
    void (*publish)(struct bench *b, struct member *m, const char *body, size_t n);
    /* Take whole frames from p, n; returns the bytes used. Calls got(). */
    size_t (*take)(struct bench *b, struct member *m, char *p, size_t n);
    /* Append an acknowledgement of all that came, when our clients would; NULL: none, or at once. */
    void (*ack)(struct bench *b, struct member *m);
};

/* One message reached one member. In bench_fanout.c. */
static void got(struct bench *b, struct member *m, const char *body);

static void die(const char *what)
{
    fprintf(stderr, "bench_fanout: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void say(int fd, const void *p, size_t n)
{
    if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("send");
}

/* Read until `end` appears. */
static void await(int fd, const char *end)
{
    char text[8192];
    size_t n = 0;
    while (n < sizeof text - 1) {
        ssize_t r = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (r <= 0)
            die("login");
        n += (size_t)r;
        if (memmem(text, n, end, strlen(end)))
            return;
    }
    die("login: too much talk");
}

static const uint8_t mask[4] = {0x5a, 0xa5, 0x3c, 0xc3};

static void upgrade(int fd, const char *subprotocol)
{
    struct buf request = BUF_INIT(4096);
    char key[WS_KEY_TEXT + 1];
    ws_key(key, (const uint8_t *)"0123456789abcdef");
    ws_upgrade_request(&request, "127.0.0.1", "/", key, subprotocol, NULL);
    say(fd, request.data, request.len);
    buf_release(&request);
    await(fd, "\r\n\r\n");
}

/* Each stamp in a piece of text. */
static void take_stamps(struct bench *b, struct member *m, const char *p, size_t n)
{
    for (const char *end = p + n; (p = memmem(p, (size_t)(end - p), "@@", 2)); p += STAMP)
        got(b, m, p);
}

/* ---- chat.v1 ---- */

static void exec_chatd(struct bench *b, const char *port)
{
    char command[4096];
    snprintf(command, sizeof command,
             "exec %s --listen 127.0.0.1:%s --data %s/data --keys %s/keys --rate 0 --in-flight 60000 %s",
             b->server, port, b->folder, b->folder, b->server_args);
    execl("/bin/sh", "sh", "-c", command, NULL);
}

static void put(struct buf *out, enum proto_codec codec, const struct msg *m)
{
    struct buf text = BUF_INIT(1 << 20);
    proto_encode_as(&text, codec, m);
    ws_frame(out, codec == PROTO_JSON ? WS_TEXT : WS_BINARY, text.data, text.len, mask);
    buf_release(&text);
}

static void login_as(struct bench *b, struct member *m, enum proto_codec codec)
{
    uint64_t users[PROTO_USERS_MAX];
    struct buf jwt = BUF_INIT(4096), out = BUF_INIT(1 << 20);
    uint64_t now = clock_wall_us() / 1000000;
    struct token t = {.user = (uint64_t)m->number + 1, .issued_s = now, .expires_s = now + 86400};
    upgrade(m->fd, codec == PROTO_JSON ? "chat.v1" : "chat.v1.bin");
    if (token_mint(&b->keys, &t, &jwt))
        die("token");
    put(&out, codec, &(struct msg){.t = MSG_HELLO, .token = {jwt.data, jwt.len}, .device = 1});
    say(m->fd, out.data, out.len);
    await(m->fd, codec == PROTO_JSON ? "\"welcome\"" : "\x0c"); /* its number in the binary codec */
    if (m->number == 0) {
        for (int i = 0; i <= b->members; i++)
            users[i] = (uint64_t)i + 1;
        buf_reset(&out);
        put(&out, codec,
            &(struct msg){.t = MSG_CREATE, .chat = 17, .users = users, .users_n = (uint32_t)b->members + 1});
        say(m->fd, out.data, out.len);
        await(m->fd, "create");
    }
    buf_release(&jwt);
    buf_release(&out);
}

static void login_json(struct bench *b, struct member *m)
{
    login_as(b, m, PROTO_JSON);
}

static void login_bin(struct bench *b, struct member *m)
{
    login_as(b, m, PROTO_BIN);
}

static void publish_as(struct bench *b, struct member *m, const char *body, size_t n, enum proto_codec codec)
{
    put(&m->out, codec,
        &(struct msg){.t = MSG_SEND,
                      .id = id_new(clock_wall_us() / 1000, &b->rng),
                      .chat = 17,
                      .kind = SLICE("text"),
                      .body = {body, n}});
}

static void publish_json(struct bench *b, struct member *m, const char *body, size_t n)
{
    publish_as(b, m, body, n, PROTO_JSON);
}

static void publish_bin(struct bench *b, struct member *m, const char *body, size_t n)
{
    publish_as(b, m, body, n, PROTO_BIN);
}

static void ack_json(struct bench *b, struct member *m)
{
    (void)b;
    char text[128];
    int n = snprintf(text, sizeof text, "{\"t\":\"ack\",\"chat\":\"17\",\"seq\":%llu}",
                     (unsigned long long)m->seq);
    ws_frame(&m->out, WS_TEXT, text, (size_t)n, mask);
}

static void ack_bin(struct bench *b, struct member *m)
{
    (void)b;
    put(&m->out, PROTO_BIN, &(struct msg){.t = MSG_ACK, .chat = 17, .seq = m->seq});
}

/* The payload of the whole frame at p; 0 when it is not whole. */
static size_t ws_whole(char *p, size_t n, char **payload, size_t *len)
{
    struct ws_header h;
    int head = ws_header_parse(&h, p, n);
    if (head < 0)
        die("a frame that is none");
    if (!head || n < (size_t)head + h.len)
        return 0;
    if (h.opcode == WS_CLOSE)
        die("the server closed");
    *payload = p + head;
    *len = h.len;
    return (size_t)head + h.len;
}

static size_t take_json(struct bench *b, struct member *m, char *p, size_t n)
{
    size_t used = 0, one, len;
    for (char *text; (one = ws_whole(p + used, n - used, &text, &len)); used += one) {
        char *end = text + len, *at = text, *seq;
        while ((at = memmem(at, (size_t)(end - at), "\"msg\"", 5))) {
            if (!(seq = memmem(at, (size_t)(end - at), "\"seq\":", 6)) ||
                !(at = memmem(seq, (size_t)(end - seq), "@@", 2)))
                break;
            m->seq = strtoull(seq + 6, NULL, 10);
            got(b, m, at);
        }
    }
    return used;
}

static size_t take_bin(struct bench *b, struct member *m, char *p, size_t n)
{
    size_t used = 0, one, len;
    for (char *at; (one = ws_whole(p + used, n - used, &at, &len)); used += one) {
        struct proto_frame f;
        struct msg msg;
        if (proto_frame_begin_as(&f, PROTO_BIN, at, len, &b->scratch, NULL))
            die("a frame that can't be read");
        while (proto_frame_next(&f, &msg, NULL) == 1)
            if (msg.t == MSG_MSG) {
                m->seq = msg.seq;
                got(b, m, msg.body.p);
            }
    }
    return used;
}

/* ---- npm ws ---- */

static void exec_ws(struct bench *b, const char *port)
{
    char script[512], path[512];
    snprintf(path, sizeof path, "%s/node_modules", b->ws_folder);
    setenv("NODE_PATH", path, 1);
    snprintf(script, sizeof script,
             "const {WebSocketServer} = require('ws');"
             "const s = new WebSocketServer({host: '127.0.0.1', port: %s, perMessageDeflate: false});"
             "s.on('connection', c => c.on('message', m => {"
             "for (const o of s.clients) if (o !== c && o.readyState === 1) o.send(m);}));",
             port);
    execlp("node", "node", "-e", script, NULL);
}

static void login_ws(struct bench *b, struct member *m)
{
    (void)b;
    upgrade(m->fd, NULL);
}

static void publish_ws(struct bench *b, struct member *m, const char *body, size_t n)
{
    (void)b;
    ws_frame(&m->out, WS_BINARY, body, n, mask);
}

static size_t take_ws(struct bench *b, struct member *m, char *p, size_t n)
{
    size_t used = 0, one, len;
    for (char *text; (one = ws_whole(p + used, n - used, &text, &len)); used += one)
        take_stamps(b, m, text, len);
    return used;
}

/* ---- MQTT 3.1.1, QoS 1 ---- */

static void exec_mosquitto(struct bench *b, const char *port)
{
    char path[512];
    snprintf(path, sizeof path, "%s/mosquitto.conf", b->folder);
    FILE *f = fopen(path, "w");
    if (!f)
        die(path);
    fprintf(f,
            "listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 100000\n",
            port);
    fclose(f);
    execlp("mosquitto", "mosquitto", "-c", path, NULL);
}

static void login_mqtt(struct bench *b, struct member *m)
{
    (void)b;
    char id[16];
    uint8_t hello[64] = {0x10, 0, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60};
    int n = snprintf(id, sizeof id, "m%d", m->number);
    hello[1] = (uint8_t)(12 + n);
    hello[13] = (uint8_t)n;
    memcpy(hello + 14, id, (size_t)n);
    say(m->fd, hello, 14 + (size_t)n);
    await(m->fd, "\x20\x02");
    if (m->number) {
        say(m->fd, "\x82\x06\x00\x01\x00\x01g\x01", 8);
        await(m->fd, "\x90\x03");
    }
}

static void publish_mqtt(struct bench *b, struct member *m, const char *body, size_t n)
{
    (void)b;
    static uint16_t id;
    size_t left = 2 + 1 + 2 + n;
    id = id == 65535 ? 1 : id + 1;
    buf_char(&m->out, 0x32);
    for (; left >= 128; left /= 128)
        buf_char(&m->out, (char)(left % 128 | 128));
    buf_char(&m->out, (char)left);
    buf_add(&m->out, "\x00\x01g", 3);
    buf_char(&m->out, (char)(id >> 8));
    buf_char(&m->out, (char)id);
    buf_add(&m->out, body, n);
}

static size_t take_mqtt(struct bench *b, struct member *m, char *p, size_t n)
{
    size_t used = 0;
    while (n - used >= 2) {
        const uint8_t *at = (const uint8_t *)p + used;
        size_t len = 0, head = 1;
        int shift = 0;
        do {
            if (used + head >= n)
                return used;
            len |= (size_t)(at[head] & 127) << shift;
            shift += 7;
        } while (at[head++] & 128);
        if (n - used < head + len)
            return used;
        if ((at[0] & 0xf6) == 0x32) { /* PUBLISH, QoS 1: topic "g", packet id, payload */
            const uint8_t answer[] = {0x40, 2, at[head + 3], at[head + 4]};
            buf_add(&m->out, answer, 4);
            got(b, m, (const char *)at + head + 5);
        }
        used += head + len;
    }
    return used;
}

/* ---- NATS ---- */

static void exec_nats(struct bench *b, const char *port)
{
    (void)b;
    execlp("nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, "-l", "/dev/null", NULL);
}

static void login_nats(struct bench *b, struct member *m)
{
    (void)b;
    const char *hello = m->number ? "CONNECT {\"verbose\":false}\r\nSUB g 1\r\nPING\r\n"
                                  : "CONNECT {\"verbose\":false}\r\nPING\r\n";
    await(m->fd, "\r\n");
    say(m->fd, hello, strlen(hello));
    await(m->fd, "PONG");
}

static void publish_nats(struct bench *b, struct member *m, const char *body, size_t n)
{
    (void)b;
    buf_printf(&m->out, "PUB g %zu\r\n%.*s\r\n", n, (int)n, body);
}

static size_t take_nats(struct bench *b, struct member *m, char *p, size_t n)
{
    size_t used = 0;
    for (char *eol; (eol = memchr(p + used, '\n', n - used));) {
        char *line = p + used;
        size_t head = (size_t)(eol - line) + 1, len = 0;
        if (!memcmp(line, "MSG ", 4)) {
            char *space = eol;
            while (space[-1] != ' ')
                space--;
            len = strtoul(space, NULL, 10) + 2;
            if (n - used < head + len)
                break;
            got(b, m, line + head);
        } else if (!memcmp(line, "PING", 4)) {
            buf_str(&m->out, "PONG\r\n");
        } else if (line[0] == '-') {
            die("NATS says an error");
        }
        used += head + len;
    }
    return used;
}

/* ---- Redis ---- */

static void exec_redis(struct bench *b, const char *port)
{
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir",
           b->folder, "--loglevel", "warning", NULL);
}

static void login_redis(struct bench *b, struct member *m)
{
    (void)b;
    if (!m->number)
        return;
    say(m->fd, "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\ng\r\n", 30);
    await(m->fd, ":1\r\n");
}

static void publish_redis(struct bench *b, struct member *m, const char *body, size_t n)
{
    (void)b;
    buf_printf(&m->out, "*3\r\n$7\r\nPUBLISH\r\n$1\r\ng\r\n$%zu\r\n%.*s\r\n", n, (int)n, body);
}

static size_t take_redis(struct bench *b, struct member *m, char *p, size_t n)
{
    static const char head[] = "*3\r\n$7\r\nmessage\r\n$1\r\ng\r\n$";
    size_t used = 0, head_n = sizeof head - 1;
    if (!m->number)
        return n; /* how many got it */
    while (n - used > head_n) {
        char *at = p + used, *eol = memchr(at + head_n, '\n', n - used - head_n);
        if (memcmp(at, head, head_n) != 0)
            die("Redis says something else");
        if (!eol)
            break;
        size_t len = strtoul(at + head_n, NULL, 10), whole = (size_t)(eol + 1 - at) + len + 2;
        if (n - used < whole)
            break;
        got(b, m, eol + 1);
        used += whole;
    }
    return used;
}

static const struct peer peers[] = {
    {"chatd", "", "chat.v1, fsync before fan-out, acks", true, false, exec_chatd, login_json, publish_json,
     take_json, ack_json},
    {"chatd-bin", "", "chat.v1.bin, fsync before fan-out, acks", true, false, exec_chatd, login_bin,
     publish_bin, take_bin, ack_bin},
    {"mosquitto", "mosquitto", "MQTT QoS 1, in memory", false, false, exec_mosquitto, login_mqtt,
     publish_mqtt, take_mqtt, NULL},
    {"ws", "node", "npm ws broadcast, keeps nothing", false, false, exec_ws, login_ws, publish_ws, take_ws,
     NULL},
    {"nats", "nats-server", "NATS core, keeps nothing", false, true, exec_nats, login_nats, publish_nats,
     take_nats, NULL},
    {"redis", "redis-server", "Redis pub/sub, keeps nothing", false, false, exec_redis, login_redis,
     publish_redis, take_redis, NULL},
};

#endif

/* Writes the trace folder of a small made-up run with the real writer, for tests/e2e/test_trace:
 *   test_trace_world DIR legacy|reliable|blind
 * Users 7 (lte) sends to 8 (wifi) and 9 (lte) in chat 17, on a link. legacy loses messages in each way a
 * legacy run does; reliable loses none; blind is the legacy run whose phones left no record. Prints "NAME ID"
 * for each message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace/trace.h"
#include "util/clock.h"
#include "util/rng.h"

#define SERVER_IP 0xC6130001u

enum part { SERVER, LINK, LOAD, PARTS };

struct end {
    struct trace_lane up, down; /* the phone's lane, the server's lane */
    uint64_t user, sent, pushed;
    uint32_t ip;
    uint16_t port;
};

static struct trace *trace[PARTS];
static struct trace_writer *writer[PARTS];
static uint64_t now = 1000 * NS_PER_MS;
static struct rng rng;
static uint32_t conns;
static bool reliable, blind;

static void tell(enum part p, struct trace_lane *lane, struct trace_event e)
{
    if (p == LOAD && blind)
        return;
    e.ts_ns = now += NS_PER_MS;
    if (lane)
        trace_lane_emit(writer[p], lane, &e);
    else
        trace_emit(writer[p], &e);
}

static void packet(const struct end *w, bool down, uint64_t offset, uint64_t bytes, uint8_t flags,
                   uint8_t drop)
{
    struct trace_flow f = {w->ip, SERVER_IP, w->port, 8080, 1000 + (uint32_t)offset};
    if (down)
        f = (struct trace_flow){SERVER_IP, w->ip, 8080, w->port, 1000 + (uint32_t)offset};
    struct trace_event e = {.arg = bytes,
                            .hop = drop ? HOP_LINK_DROP : HOP_LINK_DELIVER,
                            .reason = drop,
                            .flags = flags | (down ? TRACE_FLAG_DOWN : 0)};
    memcpy(&e.id, &f, sizeof f);
    tell(LINK, NULL, e);
}

static void connect_phone(struct end *w, uint64_t user, enum net net)
{
    *w = (struct end){.user = user, .ip = 0xC6120000u + (uint32_t)user, .port = (uint16_t)(2000 + ++conns)};
    w->up.conn = w->down.conn = conns;
    for (int down = 0; down < 2; down++)
        packet(w, down, 0, 0, TRACE_FLAG_SYN, 0);
    for (int down = 0; down < 2; down++)
        packet(w, down, 1, 100, 0, 0);
    w->sent = w->pushed = 100;
    struct trace_flow f = {w->ip, SERVER_IP, w->port, 8080, 0};
    struct trace_event e = {.user = user, .device = 1, .arg = 100, .hop = HOP_SOCKET_OPEN, .reason = net};
    memcpy(&e.id, &f, sizeof f);
    tell(LOAD, &w->up, e);
    tell(SERVER, &w->down, e);
}

static void phone_leaves(struct end *w, uint8_t reason)
{
    tell(LOAD, &w->up, (struct trace_event){.user = w->user, .hop = HOP_SOCKET_CLOSE, .reason = reason});
}

static void server_closes(struct end *w, uint8_t reason)
{
    tell(SERVER, &w->down, (struct trace_event){.user = w->user, .hop = HOP_SOCKET_CLOSE, .reason = reason});
}

static struct id submit(const char *name, uint64_t intent, bool by_hand)
{
    char text[ID_TEXT + 1];
    struct id id = id_new(now / NS_PER_MS, &rng);
    printf("%s %s\n", name, id_str(&id, text));
    tell(LOAD, NULL,
         (struct trace_event){.id = id,
                              .chat = 17,
                              .user = 7,
                              .arg = intent,
                              .hop = by_hand ? HOP_CLIENT_RESEND : HOP_CLIENT_SUBMIT,
                              .flags = reliable ? TRACE_FLAG_OUTBOX : TRACE_FLAG_ONE_SEND});
    return id;
}

static void send_up(struct end *w, struct id id, uint8_t drop)
{
    packet(w, false, w->sent + 1, 200, 0, drop);
    w->sent += 200;
    tell(LOAD, &w->up,
         (struct trace_event){
             .id = id, .chat = 17, .user = 7, .attempt = 1, .arg = w->sent, .hop = HOP_CLIENT_SEND});
}

static void server_has(struct end *w, struct id id, uint64_t seq)
{
    tell(SERVER, &w->down,
         (struct trace_event){.id = id,
                              .chat = 17,
                              .user = 7,
                              .arg = w->sent,
                              .hop = HOP_SERVER_RECEIVE,
                              .flags = reliable ? TRACE_FLAG_DURABLE : 0});
    if (reliable)
        tell(SERVER, NULL,
             (struct trace_event){.id = id, .chat = 17, .user = 7, .arg = seq, .hop = HOP_SERVER_COMMIT});
    tell(SERVER, NULL,
         (struct trace_event){.id = id,
                              .chat = 17,
                              .user = 7,
                              .arg = 2,
                              .hop = HOP_SERVER_FANOUT,
                              .flags = reliable ? 0 : TRACE_FLAG_ONE_PUSH});
}

static void push(struct end *w, struct id id, uint8_t drop, bool show)
{
    packet(w, true, w->pushed + 1, 150, 0, drop);
    w->pushed += 150;
    tell(SERVER, &w->down,
         (struct trace_event){
             .id = id, .chat = 17, .user = w->user, .device = 1, .arg = w->pushed, .hop = HOP_SERVER_PUSH});
    if (!show)
        return;
    now += 30 * NS_PER_MS;
    tell(LOAD, &w->up, (struct trace_event){.user = w->user, .arg = w->pushed, .hop = HOP_SOCKET_READ});
    tell(LOAD, &w->up,
         (struct trace_event){.id = id, .chat = 17, .user = w->user, .device = 1, .hop = HOP_CLIENT_RECEIVE});
    tell(LOAD, &w->up,
         (struct trace_event){.id = id, .chat = 17, .user = w->user, .device = 1, .hop = HOP_CLIENT_SURFACE});
}

/* 5 messages whose fate differs, then one that the person sends twice. */
static void play(struct end *a, struct end *b, struct end *c)
{
    struct id id = submit("shown", 1, false);
    send_up(a, id, 0);
    server_has(a, id, 1);
    push(b, id, 0, true);
    push(c, id, 0, true);

    id = submit("dead", 2, false); /* to 9, who has left */
    phone_leaves(c, REASON_NETWORK_CHANGED);
    send_up(a, id, 0);
    server_has(a, id, 2);
    push(b, id, 0, true);
    push(c, id, REASON_DETACHED, false);
    server_closes(c, REASON_REPLACED);
    connect_phone(c, 9, NET_LTE);
    if (reliable)
        push(c, id, 0, true);

    id = submit("down", 3, false); /* to 9, in a blackout */
    send_up(a, id, 0);
    server_has(a, id, 3);
    push(b, id, 0, true);
    push(c, id, REASON_BLACKOUT, false);
    now += 8000 * NS_PER_MS;
    phone_leaves(c, REASON_TIMED_OUT);
    server_closes(c, REASON_TIMED_OUT);
    connect_phone(c, 9, NET_LTE);
    if (reliable)
        push(c, id, 0, true);

    id = submit("up", 4, false); /* the sender's connection dies under it */
    if (!reliable) {
        send_up(a, id, REASON_HANDOVER);
        phone_leaves(a, REASON_RESET);
        server_closes(a, REASON_TIMED_OUT);
        connect_phone(a, 7, NET_LTE);
    } else {
        send_up(a, id, 0);
        server_has(a, id, 4);
        push(b, id, 0, true);
        push(c, id, 0, true);
    }
    for (int again = 0; again < 2;
         again++) { /* the person sees no tick and sends it again: 8 and 9 see it twice */
        if (again && reliable)
            break;
        id = submit(again ? "again" : "first", 5, again);
        send_up(a, id, 0);
        server_has(a, id, 5 + (uint64_t)again);
        push(b, id, 0, true);
        push(c, id, 0, true);
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"server", "link", "load"};
    static const uint16_t nodes[] = {TRACE_NODE_SERVER, TRACE_NODE_LINK, TRACE_NODE_LOAD};
    struct err_ctx err = {0};
    struct end a, b, c;
    if (argc != 3)
        return 64;
    reliable = strcmp(argv[2], "reliable") == 0;
    blind = strcmp(argv[2], "blind") == 0;
    rng_seed(&rng, 7);
    for (int p = 0; p < PARTS; p++) {
        struct trace_config config = {.dir = argv[1], .name = names[p], .node = nodes[p], .seed = 7};
        if (trace_open(&trace[p], &config, &err) || trace_writer_new(&writer[p], trace[p], &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
    }
    tell(SERVER, NULL, (struct trace_event){.hop = HOP_SERVER_START});
    for (uint64_t user = 7; user <= 9; user++)
        tell(SERVER, NULL, (struct trace_event){.chat = 17, .user = user, .hop = HOP_SERVER_MEMBER});
    connect_phone(&a, 7, NET_LTE);
    connect_phone(&b, 8, NET_WIFI);
    connect_phone(&c, 9, NET_LTE);
    play(&a, &b, &c);
    now += 20000 * NS_PER_MS;
    struct end *all[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        phone_leaves(all[i], REASON_RUN_END);
        server_closes(all[i], REASON_CLOSED_BY_PEER);
    }
    tell(SERVER, NULL, (struct trace_event){.hop = HOP_SERVER_STOP});
    int rc = 0;
    for (int p = 0; p < PARTS; p++)
        rc |= trace_close(trace[p]);
    return rc ? 1 : 0;
}

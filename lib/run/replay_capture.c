/* Captures as the source: who says hello on which connection, what they send with its text, when it ends. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "run/replay.h"
#include "util/units.h"
#include "wire/pcap/capture.h"
#include "wire/tap.h"

#define MEMORY (128u << 20)

struct client_conn { /* tap_conn.user */
    uint64_t user;
};

struct listening {
    struct replay *r;
    struct tap tap;
    struct proto_scratch scratch;
    struct map said; /* ids that were sent already: the rest are retries */
    struct map seen; /* users that said hello before */
    uint64_t intents, first_ns;
    int rc;
};

static void add(struct listening *l, const struct replay_act *a)
{
    if (!l->rc)
        l->rc = replay_add(l->r, a);
}

/* A token's own words; whether it is right is the server's business. */
static uint64_t user_of(struct slice token, uint32_t *device)
{
    char text[2048];
    const char *from = memchr(token.p, '.', token.n);
    const char *to = from ? memchr(from + 1, '.', token.n - (size_t)(from + 1 - token.p)) : NULL;
    long n = to ? base64url_decode(text, sizeof text, from + 1, (size_t)(to - from - 1)) : -1;
    json_t *claims = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
    const char *sub = json_string_value(json_object_get(claims, "sub"));
    json_int_t own = json_integer_value(json_object_get(claims, "device"));
    uint64_t user = 0;
    if (!sub || units_u64(&user, sub, NULL))
        user = 0;
    if (!*device && own > 0 && own <= UINT32_MAX)
        *device = (uint32_t)own;
    json_decref(claims);
    return user;
}

static void hello(struct listening *l, struct tap_conn *c, const struct msg *m, uint64_t ts_ns)
{
    uint32_t device = m->device;
    uint64_t user = user_of(m->token, &device);
    char net[16];
    bool fresh;
    if (!user || c->user || !map_put_u64(&l->seen, user, &fresh))
        return;
    snprintf(net, sizeof net, "%.*s", (int)(m->net.n < sizeof net ? m->net.n : sizeof net - 1),
             m->net.n ? m->net.p : "");
    l->rc = replay_person(l->r, user, device ? device : 1, net_parse(net));
    if (l->rc || replay_device(l->r, user) != (device ? device : 1))
        return;
    struct client_conn *cc = calloc(1, sizeof *cc);
    if (!cc) {
        l->rc = ERR_NOMEM;
        return;
    }
    cc->user = user;
    c->user = cc;
    if (!l->first_ns)
        replay_connected(l->r, user); /* before anybody said anything */
    else
        add(l, &(struct replay_act){.ts_ns = ts_ns, .user = user, .act = LOAD_RETURN});
}

static void said(struct listening *l, uint64_t user, const struct msg *m, uint64_t ts_ns)
{
    bool fresh;
    if (!map_put(&l->said, &m->id, &fresh)) {
        l->rc = ERR_NOMEM;
        return;
    }
    if (!fresh || !slice_is(m->kind, "text"))
        return;
    l->first_ns = l->first_ns ? l->first_ns : ts_ns;
    add(l, &(struct replay_act){.ts_ns = ts_ns,
                                .user = user,
                                .chat = m->chat,
                                .intent = ++l->intents,
                                .act = LOAD_SAY,
                                .id = m->id,
                                .body = m->body});
}

static void understand(struct listening *l, struct tap_conn *c, const struct msg *m, uint64_t ts_ns)
{
    const struct client_conn *cc = c->user;
    if (m->t == MSG_HELLO)
        hello(l, c, m, ts_ns);
    if (!cc)
        return;
    if (m->t == MSG_SEND)
        said(l, cc->user, m, ts_ns);
    else if ((m->t == MSG_MSG || m->t == MSG_ACCEPTED) && m->chat)
        l->rc = replay_member(l->r, m->chat, cc->user);
    for (uint32_t i = 0; m->t == MSG_CREATE && i < m->users_n && !l->rc; i++)
        l->rc = replay_member(l->r, m->chat, m->users[i]);
    if (m->t == MSG_CREATE && !l->rc)
        l->rc = replay_member(l->r, m->chat, cc->user);
}

static void on_message(void *arg, const struct tap_message *t)
{
    struct listening *l = arg;
    struct tap_conn *c = tap_conn(t->flow);
    struct proto_frame f;
    struct msg m;
    bool text = t->opcode == WS_TEXT;
    if (l->rc || !t->complete || (!text && t->opcode != WS_BINARY))
        return;
    if (proto_frame_begin_as(&f, text ? PROTO_JSON : PROTO_BIN, (const char *)t->p, t->n, &l->scratch, NULL))
        return;
    while (!l->rc && proto_frame_next(&f, &m, NULL) == 1)
        understand(l, c, &m, t->ts_ns);
}

static void on_close(void *arg, struct tcp_flow *f)
{
    struct listening *l = arg;
    struct tap_conn *c = tap_conn(f);
    const struct client_conn *cc = c->user;
    uint64_t ns = f->rst_ns ? f->rst_ns : f->fin_ns[0] > f->fin_ns[1] ? f->fin_ns[0] : f->fin_ns[1];
    if (cc && ns && l->first_ns && ns >= l->first_ns)
        add(l, &(struct replay_act){.ts_ns = ns,
                                    .user = cc->user,
                                    .act = LOAD_LEAVE,
                                    .reason = f->rst_ns ? REASON_RESET : REASON_CLOSED_BY_PEER});
    free(c->user);
    c->user = NULL;
}

static int read_file(struct listening *l, const char *path, uint32_t point, uint64_t *problems,
                     struct err_ctx *ctx)
{
    struct capture_file *file = NULL;
    struct capture_packet k;
    struct packet p;
    int rc = capture_open_file(&file, path, ctx);
    while (rc >= 0 && !l->rc && (rc = capture_next(file, &k, ctx)) > 0)
        if (packet_link_known(k.link) && packet_read(&p, k.link, k.p, k.n, k.wire) == PACKET_TCP)
            tap_packet(&l->tap, &p, point + k.iface, k.ts_ns, k.number);
    bool opened = file != NULL;
    capture_close_file(file);
    if (rc < 0 && opened) { /* what is whole before the fault counts */
        ++*problems;
        rc = 0;
    }
    return rc < 0 ? rc : 0;
}

int replay_from_captures(struct replay *r, const char *const *paths, int n, const struct replay_options *o,
                         uint64_t *problems, struct err_ctx *ctx)
{
    struct listening l = {.r = r, .scratch = {.cap = PROTO_SCRATCH, .data = malloc(PROTO_SCRATCH)}};
    struct tcp_config tc = {.memory = MEMORY};
    struct tap_events on = {.arg = &l, .message = on_message, .close = on_close};
    map_init(&l.said, sizeof(struct id), 8, UINT32_MAX, 1);
    map_init(&l.seen, 8, 8, UINT32_MAX, 1);
    r->reliable = true; /* what phones keep does not show on the wire */
    int rc = l.scratch.data ? tap_init(&l.tap, &tc, &on, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    for (int i = 0; i < n && !rc; i++)
        rc = read_file(&l, paths[i], (uint32_t)i * CAPTURE_IFACES_MAX, problems, ctx);
    if (l.scratch.data) {
        tap_finish(&l.tap);
        *problems += l.tap.count.incomplete;
        tap_release(&l.tap);
    }
    map_release(&l.said);
    map_release(&l.seen);
    free(l.scratch.data);
    if (!rc && l.rc)
        rc = err_set(ctx, l.rc, "reading what to re-enact: %s", err_text(l.rc));
    return rc ? rc : replay_finish(r, o, ctx);
}

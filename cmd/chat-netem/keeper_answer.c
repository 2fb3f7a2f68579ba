/* What a keeper answers: one request, one answer. It is not on the packets' way, so it may take its time. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "netem/link.h"
#include "util/clock.h"

#define PATIENCE_S  2
#define REQUEST_MAX 8192

static void address_text(char out[20], uint32_t a)
{
    snprintf(out, 20, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}

static const char *const states[TUN_STATES] = {
    [LINK_UP] = "up",
    [LINK_STALLED] = "stalled",
    [LINK_HANDOVER] = "handover",
    [LINK_HANDOVER_LOSES] = "handover, new address",
    [LINK_BLACKOUT] = "blackout",
    [LINK_BLACKOUT_LOSES] = "blackout, new address",
    [LINK_CELL] = "cell change",
    [LINK_DETACHED] = "detached",
};

static json_t *states_of(const struct tun_stats *s)
{
    json_t *o = json_object();
    for (int i = 0; i < TUN_STATES; i++)
        if (s->in_state[i])
            json_object_set_new(o, states[i] ? states[i] : "other", json_integer((json_int_t)s->in_state[i]));
    return o;
}

static json_t *dropped_of(const struct tun_stats *s)
{
    json_t *o = json_object();
    for (int i = 0; i < REASON_COUNT; i++)
        if (s->dropped[i])
            json_object_set_new(o, reason_text(i), json_integer((json_int_t)s->dropped[i]));
    return o;
}

/* What an order holds the whole link in, which no radio may have been heard to show. */
static const char *told(const struct tun_stats *s)
{
    return states[s->detached ? LINK_DETACHED : s->dark ? LINK_BLACKOUT : LINK_UP];
}

static json_t *about_link(const struct keeper *k, struct kept_link *l)
{
    struct tun_stats s = l->last;
    char address[20], block[32];
    if (l->world) {
        tun_world_look(l->world, "*", &s, NULL);
        tun_world_stats(l->world, "*", &s);
    }
    address_text(address, l->spec.block);
    snprintf(block, sizeof block, "%s/%d", address, l->spec.prefix);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:o, s:{s:I,s:I}, s:{s:I,s:I}, s:o, s:I, s:I, s:I, s:I, s:I, "
        "s:I, "
        "s:I, "
        "s:I, s:I, s:s, s:f}",
        "name", l->spec.name, "profile", l->spec.profile, "state", l->world ? "up" : "died", "told", told(&s),
        "addresses", block, "phones", (int)l->spec.count, "radios", (json_int_t)s.radios, "radio_states",
        states_of(&s), "up", "packets", (json_int_t)s.packets_up, "bytes", (json_int_t)s.bytes_up, "down",
        "packets", (json_int_t)s.packets_down, "bytes", (json_int_t)s.bytes_down, "dropped", dropped_of(&s),
        "duplicated", (json_int_t)s.duplicated, "corrupted", (json_int_t)s.corrupted, "reordered",
        (json_int_t)s.reordered, "moved", (json_int_t)s.moved, "overrun", (json_int_t)s.overrun,
        "capture_missed", (json_int_t)s.capture_missed, "seed", (json_int_t)k->file->seed, "keeper",
        (json_int_t)getpid(), "pid", (json_int_t)(l->world ? tun_world_pid(l->world) : 0), "file",
        k->file->path, "age_s", (double)(clock_mono_ns() - l->since_ns) / 1e9);
}

static json_t *status(struct keeper *k)
{
    json_t *links = json_array();
    for (uint32_t i = 0; i < k->n; i++)
        json_array_append_new(links, about_link(k, &k->link[i]));
    return json_pack("{s:o}", "links", links);
}

static json_t *refusal(int rc, const struct err_ctx *err)
{
    return json_pack("{s:i, s:s}", "error", rc, "text", err->text);
}

/* Ends its world; packets that its capture lacks. */
static json_int_t end_link(struct kept_link *l)
{
    struct tun_stats s = l->last;
    if (l->world)
        tun_world_stats(l->world, "*", &s);
    return tun_world_stop(l->world) && !s.capture_missed ? 1 : (json_int_t)s.capture_missed;
}

static json_t *take_down(struct keeper *k, struct kept_link *l)
{
    json_t *names = json_array();
    json_int_t missed = 0;
    if (!l) {
        for (uint32_t i = 0; i < k->n; i++)
            json_array_append_new(names, json_pack("s", k->link[i].spec.name));
        for (uint32_t i = 0; i < k->n; i++)
            missed += end_link(&k->link[i]);
        k->n = 0;
    } else {
        json_array_append_new(names, json_pack("s", l->spec.name));
        missed = end_link(l);
        memmove(l, l + 1, (size_t)(&k->link[k->n] - (l + 1)) * sizeof *l);
        k->n--;
    }
    k->over = k->n == 0;
    if (k->over) { /* before the answer: who reads it finds nothing left */
        unlink(k->socket);
        unlink(k->about);
    }
    return json_pack("{s:o, s:I}", "down", names, "missed", missed);
}

/* The namespace as a descriptor. Whoever takes it must say so from inside: only then do we know that our
 * death, or the link's, finds him there. */
static void let_in(struct kept_link *l, bool near, int fd)
{
    uint32_t local, peer;
    char text[2][20], line[200], word[4];
    int ns = tun_world_namespace(l->world, near, &local);
    tun_world_namespace(l->world, !near, &peer);
    address_text(text[0], local);
    address_text(text[1], peer);
    int n = snprintf(line, sizeof line, "{\"local\":\"%s\",\"peer\":\"%s\"}\n", text[0], text[1]);
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof ns)];
    } control = {
        .head = {.cmsg_len = CMSG_LEN(sizeof ns), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &ns, sizeof ns);
    struct iovec v = {line, (size_t)n};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (sendmsg(fd, &m, MSG_NOSIGNAL) == n && recv(fd, word, 3, MSG_WAITALL) == 3)
        send(fd, "ok\n", 3, MSG_NOSIGNAL);
}

/* NULL: it was answered already. */
static json_t *act(struct keeper *k, const json_t *request, int fd)
{
    struct err_ctx err = {0};
    const char *what = json_string_value(json_object_get(request, "do"));
    const char *name = json_string_value(json_object_get(request, "link"));
    struct kept_link *l = name ? keeper_find(k, name) : NULL;
    what = what ? what : "";
    if (strcmp(what, "status") == 0)
        return status(k);
    if (name && !l)
        return refusal(err_set(&err, ERR_NOTFOUND, "no link '%s' here", name), &err);
    if (strcmp(what, "down") == 0)
        return take_down(k, l);
    if (!l || !l->world)
        return refusal(err_set(&err, ERR_UNAVAILABLE, "link '%s' died", name ? name : ""), &err);
    if (strcmp(what, "exec") == 0) {
        let_in(l, !json_is_true(json_object_get(request, "far")), fd);
        return NULL;
    }
    if (strcmp(what, "set") != 0)
        return refusal(err_set(&err, ERR_INVALID, "'%.40s' is no request", what), &err);
    const char *words = json_string_value(json_object_get(request, "what"));
    int rc = keeper_set(l, json_string_value(json_object_get(request, "phone")), words ? words : "", &err);
    return rc ? refusal(rc, &err) : json_pack("{s:s}", "profile", l->spec.profile);
}

static json_t *read_request(int fd)
{
    char line[REQUEST_MAX];
    size_t n = 0;
    json_error_t where;
    while (n < sizeof line && (!n || !memchr(line, '\n', n))) {
        ssize_t got = recv(fd, line + n, sizeof line - n, 0);
        if (got <= 0)
            return NULL;
        n += (size_t)got;
    }
    return json_loadb(line, n, JSON_DISABLE_EOF_CHECK, &where);
}

void keeper_answer(struct keeper *k, int fd)
{
    struct timeval limit = {PATIENCE_S, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    json_t *request = read_request(fd), *answer = NULL;
    if (!request)
        return;
    answer = act(k, request, fd);
    char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    for (size_t at = 0, n = text ? strlen(text) : 0; at < n;) {
        ssize_t sent = send(fd, text + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    free(text);
    json_decref(answer);
    json_decref(request);
}

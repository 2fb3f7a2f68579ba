/* status: how far a server that was put back from a backup is with asking its clients. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/chat-reconcile/server.h"
#include "cmd/chat-reconcile/tool.h"
#include "util/clock.h"

struct summary {
    const char *state;
    uint64_t since, until, chats, whole, incomplete, users, users_answered, asked, answered, entries,
        accepted, known, epochs;
    const json_t *refused;
};

static bool take(struct summary *s, const json_t *j)
{
    const json_t *chats = json_object_get(j, "chats"), *users = json_object_get(j, "users"),
                 *clients = json_object_get(j, "clients"), *offers = json_object_get(j, "offers");
    s->state = json_string_value(json_object_get(j, "state"));
    s->refused = json_object_get(offers, "refused");
    return s->state && json_is_object(s->refused) && server_u64(j, "since", &s->since) &&
           server_u64(j, "until", &s->until) && server_u64(j, "epochs_begun", &s->epochs) &&
           server_u64(chats, "total", &s->chats) && server_u64(chats, "whole", &s->whole) &&
           server_u64(chats, "incomplete", &s->incomplete) && server_u64(users, "total", &s->users) &&
           server_u64(users, "answered", &s->users_answered) && server_u64(clients, "asked", &s->asked) &&
           server_u64(clients, "answered", &s->answered) && server_u64(offers, "entries", &s->entries) &&
           server_u64(offers, "accepted", &s->accepted) && server_u64(offers, "known", &s->known);
}

static const char *meaning(const char *state)
{
    static const char *const means[][2] = {
        {"none", "it never was restored"},
        {"asking", "clients are being asked for what is missing"},
        {"whole", "every member was asked: what nobody held stays missing"},
        {"closed", "the deadline came before some members: what only they hold is missing"}};
    for (size_t i = 0; i < sizeof means / sizeof *means; i++)
        if (!strcmp(state, means[i][0]))
            return means[i][1];
    return "a state that this program does not know";
}

static void utc(char out[24], uint64_t us)
{
    time_t t = (time_t)(us / 1000000);
    struct tm tm;
    out[0] = 0;
    if (gmtime_r(&t, &tm))
        strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void print_text(const struct summary *s)
{
    char from[24], to[24];
    const char *code;
    json_t *n;
    printf("state    %s: %s\n", s->state, meaning(s->state));
    if (s->since || s->until) {
        utc(from, s->since);
        utc(to, s->until);
        printf("window   %s to %s\n", from, to);
    }
    printf("chats    %" PRIu64 ": %" PRIu64 " whole, %" PRIu64 " incomplete\n", s->chats, s->whole,
           s->incomplete);
    printf("users    %" PRIu64 " of %" PRIu64 " have answered\n", s->users_answered, s->users);
    printf("clients  %" PRIu64 " asked, %" PRIu64 " answered\n", s->asked, s->answered);
    printf("offers   %" PRIu64 " copies: %" PRIu64 " accepted, %" PRIu64 " known", s->entries, s->accepted,
           s->known);
    json_object_foreach((json_t *)s->refused, code, n) if (json_integer_value(n))
        printf(", %" JSON_INTEGER_FORMAT " refused as %s", json_integer_value(n), code);
    printf("\n");
    if (s->epochs)
        printf("epochs   %" PRIu64 " begun, since a client proved that the store was a copy\n", s->epochs);
    fflush(stdout);
}

/* One answer, printed when it is another than the last one (*before, taken over). */
static int look(struct server_conn *c, const struct opt_set *o, char **before, int *status,
                struct err_ctx *err)
{
    struct summary s;
    json_t *j;
    int rc = server_get(c, "/reconcile", &j, err);
    if (rc)
        return rc;
    char *text = json_dumps(j, JSON_COMPACT);
    if (!text || !take(&s, j))
        rc = err_set(err, ERR_CORRUPT, "%s: its summary lacks a field: another version?", opt_operand(o, 0));
    else {
        *status = !strcmp(s.state, "asking") ? 1 : !strcmp(s.state, "closed") ? 2 : 0;
        if (!*before || strcmp(*before, text) != 0) {
            if (*before && !opt_json(o))
                putchar('\n');
            if (opt_json(o))
                puts(text);
            else
                print_text(&s);
            fflush(stdout);
        }
        free(*before);
        *before = text;
        text = NULL;
    }
    free(text);
    json_decref(j);
    return rc;
}

int tool_status(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct server_conn *c;
    const char *url = opt_operand(o, 0);
    char *before = NULL;
    uint64_t every = opt_u64(o, "every");
    if (strncmp(url, "server:", 7) != 0)
        return err_set(err, ERR_USAGE, "%s: status is asked of server:http://HOST:PORT", url);
    tool_watch_signals();
    int rc = server_conn_open(&c, url + 7, o, err);
    if (rc)
        return rc;
    while (!(rc = look(c, o, &before, status, err)) && *status == 1 && opt_flag(o, "watch")) {
        nanosleep(
            &(struct timespec){.tv_sec = (time_t)(every / NS_PER_S), .tv_nsec = (long)(every % NS_PER_S)},
            NULL);
        if (tool_interrupted) {
            rc = err_set(err, ERR_INTERRUPTED, "interrupted; it is still asking");
            break;
        }
    }
    free(before);
    server_conn_close(c);
    return rc;
}

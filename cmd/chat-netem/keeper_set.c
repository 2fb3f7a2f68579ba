/* Live changes: "blackout=5s", "detach", "attach", and words of a description. */
#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-netem/links.h"
#include "util/units.h"

/* A part of a description ends at ',' or '+'. */
static size_t part_len(const char *part)
{
    return strcspn(part, ",+");
}

/* Whether `part` sets the same as `word=...`: loss also sets up.loss. */
static bool is_superseded(const char *part, const char *word, size_t n)
{
    if (strncmp(part, word, n) == 0 && part[n] == '=')
        return true;
    if (strncmp(part, "up.", 3) == 0)
        part += 3;
    else if (strncmp(part, "down.", 5) == 0)
        part += 5;
    else
        return false;
    return strncmp(part, word, n) == 0 && part[n] == '=';
}

static bool is_set_by(const char *part, const char *add)
{
    if (part_len(part) <= strcspn(part, "="))
        return false;
    for (; *add; add += part_len(add), add += *add != 0) {
        size_t n = strcspn(add, "=");
        if (n < part_len(add) && is_superseded(part, add, n))
            return true;
    }
    return false;
}

int keeper_merge(char out[NETEM_DESCRIPTION_MAX], const char *old, const char *add, struct err_ctx *err)
{
    size_t n = 0, first = part_len(add);
    char text[2 * NETEM_DESCRIPTION_MAX + 2];
    if (strlen(add) >= NETEM_DESCRIPTION_MAX || strlen(old) >= NETEM_DESCRIPTION_MAX)
        return err_set(err, ERR_RANGE, "a description is longer than %d bytes", NETEM_DESCRIPTION_MAX - 1);
    /* a name or a file at its beginning: all anew */
    bool anew = *add && *add != '+' && strcspn(add, "=") >= first;
    for (const char *part = old; !anew && *part;) {
        size_t len = part_len(part);
        if (len && !is_set_by(part, add)) {
            if (n)
                text[n++] = part[-1];
            memcpy(text + n, part, len);
            n += len;
        }
        part += len + (part[len] != 0);
    }
    if (n && *add && *add != '+')
        text[n++] = ',';
    strcpy(text + n, n || *add != '+' ? add : add + 1);
    if (strlen(text) >= NETEM_DESCRIPTION_MAX)
        return err_set(err, ERR_RANGE, "a description is longer than %d bytes", NETEM_DESCRIPTION_MAX - 1);
    strcpy(out, text);
    return 0;
}

static int phone_address(uint32_t *out, const struct kept_link *l, const char *phone, struct err_ctx *err)
{
    struct in_addr a;
    *out = 0;
    if (!phone)
        return 0;
    if (inet_pton(AF_INET, phone, &a) != 1)
        return err_set(err, ERR_INVALID, "'%.40s' is no address", phone);
    *out = ntohl(a.s_addr);
    if (*out - l->spec.first >= l->spec.count)
        return err_set(err, ERR_NOTFOUND, "%s is no phone of link '%s'", phone, l->spec.name);
    return 0;
}

struct orders {
    uint64_t blackout_ns;
    bool blackout, detach, attach;
    char words[NETEM_DESCRIPTION_MAX];
};

static int sort_out(struct orders *o, char *text, struct err_ctx *err)
{
    for (char *save, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        if (strcmp(part, "detach") == 0)
            o->detach = true;
        else if (strcmp(part, "attach") == 0)
            o->attach = true;
        else if (strncmp(part, "blackout=", 9) != 0)
            strcat(strcat(o->words, *o->words ? "," : ""), part);
        else if (units_duration(&o->blackout_ns, part + 9, err))
            return err_prefix(err, "blackout: ");
        else
            o->blackout = true;
    }
    return o->detach && o->attach ? err_set(err, ERR_INVALID, "detach and attach exclude each other") : 0;
}

static int describe(struct kept_link *l, const char *words, struct err_ctx *err)
{
    char whole[NETEM_DESCRIPTION_MAX];
    int rc = keeper_merge(whole, l->spec.profile, words, err);
    rc = rc ? rc : tun_world_profile(l->world, l->spec.name, whole, err);
    if (!rc)
        strcpy(l->spec.profile, whole);
    return rc;
}

int keeper_set(struct kept_link *l, const char *phone, const char *what, struct err_ctx *err)
{
    char text[NETEM_DESCRIPTION_MAX];
    struct orders o = {0};
    uint32_t address;
    int rc = phone_address(&address, l, phone, err);
    if (!rc && strlen(what) >= sizeof text)
        rc = err_set(err, ERR_RANGE, "longer than %zu bytes", sizeof text - 1);
    if (rc)
        return rc;
    strcpy(text, what);
    rc = sort_out(&o, text, err);
    if (!rc && !*o.words && !o.blackout && !o.detach && !o.attach)
        rc = err_set(err, ERR_INVALID,
                     "nothing to change: blackout=TIME, detach, attach or a network is wanted");
    if (!rc && *o.words && address)
        rc = err_set(err, ERR_UNSUPPORTED, "one phone alone can be told blackout=, detach and attach");
    /* what may be refused comes first, so that a refused change changes nothing */
    if (!rc && *o.words)
        rc = describe(l, o.words, err);
    if (!rc && o.blackout)
        rc = tun_world_blackout_of(l->world, l->spec.name, address, o.blackout_ns, err);
    if (!rc && (o.detach || o.attach))
        rc = tun_world_attach(l->world, l->spec.name, address, o.attach, err);
    return rc;
}

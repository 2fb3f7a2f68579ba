/* token: what a user logs in with. */
#include <stdio.h>
#include <string.h>

#include "cmd/chatd-server/commands.h"
#include "crypto/keys.h"
#include "util/clock.h"

int command_token(const struct opt_set *set, struct err_ctx *err)
{
    struct keys keys;
    if (!opt_given(set, "user"))
        return err_set(err, ERR_USAGE, "token: --user is missing");
    int rc = keys_open(&keys, opt_string(set, "keys"), true, err);
    if (rc)
        return rc;
    const char *role = opt_string(set, "role");
    uint64_t now = clock_wall_us() / 1000000;
    struct token t = {.user = opt_u64(set, "user"),
                      .device = (uint32_t)opt_u64(set, "device"),
                      .role = !strcmp(role, "operator")    ? ROLE_OPERATOR
                              : !strcmp(role, "moderator") ? ROLE_MODERATOR
                                                           : ROLE_USER,
                      .issued_s = now,
                      .expires_s = now + opt_u64(set, "ttl") / NS_PER_S};
    struct buf out = BUF_INIT(4096);
    rc = token_mint(&keys, &t, &out);
    if (!rc)
        puts(buf_cstr(&out));
    buf_release(&out);
    keys_wipe(&keys);
    return rc ? err_set(err, rc, "cannot make the token") : 0;
}

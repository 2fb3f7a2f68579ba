/* restore: a backup becomes the store, in a new epoch. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chatd-server/commands.h"
#include "crypto/keys.h"
#include "store/store_impl.h"
#include "util/clock.h"

/* The epoch begins before the folder gets its name: there is no moment at which a server could open it as the
 * old one. */
static int begin_epoch(const char *dir, const char *keys_dir, uint64_t *epoch, struct err_ctx *err)
{
    char url[4200];
    struct store *s = NULL;
    struct store_config c = {.url = url, .keys_dir = keys_dir, .now_us = clock_wall_us(), .restored = true};
    snprintf(url, sizeof url, "rocksdb:%s", dir);
    crypto_random(&c.random, sizeof c.random);
    int rc = store_open(&s, &c, err);
    if (rc)
        return rc;
    *epoch = store_epoch(s);
    return store_close(s, err);
}

int command_restore(const struct opt_set *o, struct err_ctx *err)
{
    char dir[4096], part[4112];
    const char *from = opt_string(o, "from"), *data = opt_string(o, "data"),
               *keys_dir = opt_string(o, "keys");
    struct backup_info info = {0};
    struct keys keys;
    uint64_t epoch = 0;
    if (!from)
        return err_set(err, ERR_USAGE, "restore: --from is missing");
    snprintf(dir, sizeof dir, "%s/store", data);
    snprintf(part, sizeof part, "%s.part", dir);
    if (access(dir, F_OK) == 0)
        return err_set(err, ERR_EXISTS,
                       "%s: a store is there; stop its server and move the folder away first (keep it: "
                       "chat-reconcile can still find messages in it)",
                       dir);
    int rc = backup_verify(&info, from, NULL, err);
    rc = rc ? rc : keys_open(&keys, keys_dir, true, err);
    if (rc)
        return rc;
    keys_wipe(&keys);
    if (mkdir(data, 0750) < 0 && errno != EEXIST)
        return err_errno(err, "%s", data);
    if (access(part, F_OK) == 0)
        backup_remove(part, NULL);
    rc = backup_copy(from, part, err);
    rc = rc ? rc : begin_epoch(part, keys_dir, &epoch, err);
    if (!rc && rename(part, dir) < 0)
        rc = err_errno(err, "%s", dir);
    rc = rc ? rc : sync_folder(data, err);
    if (rc) {
        backup_remove(part, NULL);
        return rc;
    }
    if (opt_json(o))
        printf("{\"restored\":\"%s\",\"commit\":%" PRIu64 ",\"epoch\":\"%" PRIu64
               "\",\"backup_epoch\":\"%" PRIu64 "\"}\n",
               dir, info.commit, epoch, info.epoch);
    else
        printf("%s: %" PRIu64 " entries; a new epoch %" PRIu64 " begins\n", dir, info.commit, epoch);
    return 0;
}

/* The commands beside serve, and backups.
 *
 * A backup is a folder with the store's files and `BACKUP`, which lists them with size and hash.
 *
 *     chatd backup 1
 *     made_us 1764000000000000
 *     epoch 48121
 *     commit 5000
 *     file 000012.sst 4096 <hash, 32 hex digits>
 *     ...
 *     check <16 hex digits over all lines before>
 */
#ifndef CHATD_SERVER_COMMANDS_H
#define CHATD_SERVER_COMMANDS_H

#include "util/opt.h"

#define BACKUP_LIST      "BACKUP"
#define BACKUP_LAST      "last-backup" /* in --data: where the newest backup of it was put */
#define BACKUP_LIST_MAX  (16u << 20)
#define BACKUP_FILES_MAX 65536u

struct backup_info {
    uint64_t made_us, epoch, commit, files, bytes;
    bool listed; /* there is a list: files were compared with it */
};

int command_serve(const struct opt_set *o, struct err_ctx *err);
int command_token(const struct opt_set *o, struct err_ctx *err);
int command_backup(const struct opt_set *o, struct err_ctx *err);
int command_verify(const struct opt_set *o, struct err_ctx *err);
int command_restore(const struct opt_set *o, struct err_ctx *err);
int command_lb_config(const struct opt_set *o, struct err_ctx *err);
int command_repair(const struct opt_set *o, struct err_ctx *err);

/* rc back; for ERR_CORRUPT, the sentence goes on with what to do about a damaged store, and from which
 * backup. */
int damage_remedy(int rc, const char *data, struct err_ctx *err);

/* Every listed file against its hash, then every row: its check sum, and the log without a hole. The sentence
 * names file or row. A folder without a list (a copy, a store) has its rows checked alone. keys_dir: does the
 * store hold all that its mark says? NULL: not asked (a backup may be older). */
int backup_verify(struct backup_info *out, const char *dir, const char *keys_dir, struct err_ctx *err);
/* The store in `dir` into the new folder `to`, beside a server that writes, and its list; synced. */
int backup_make(struct backup_info *out, const char *dir, const char *to, struct err_ctx *err);
/* The listed files, or all of a store's, of `from` into the new folder `to`; synced. */
int backup_copy(const char *from, const char *to, struct err_ctx *err);
int backup_list_read(struct backup_info *out, const char *dir,
                     int (*file)(void *arg, const char *name, uint64_t bytes, const char *hash,
                                 struct err_ctx *err),
                     void *arg, struct err_ctx *err);
/* Removes a folder and the files in it. */
int backup_remove(const char *dir, struct err_ctx *err);
/* Files that make up a store: *.sst *.log MANIFEST-* CURRENT IDENTITY OPTIONS-*. */
bool backup_is_store_file(const char *name);

/* A file's hash as 32 hex digits. */
int backup_hash(char out[33], int fd, uint64_t *bytes, const char *path, struct err_ctx *err);

#endif

/* Where scenarios are, and what they are. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chat-chaos/tool.h"
#include "scenario/scenario.h"
#include "util/buf.h"

#define ROOTS 3

/* ./scenarios, ../scenarios beside the executable (a build folder), and the installed ones. */
static void roots(char out[ROOTS][512])
{
    char self[400] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(out[0], sizeof out[0], "scenarios");
    snprintf(out[1], sizeof out[1], "%s/../scenarios", self);
    snprintf(out[2], sizeof out[2], "%s/../share/chatd/scenarios", self);
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* "01-mobile-loss" is also known as "mobile-loss". */
static bool named(const char *folder, const char *what)
{
    size_t digits = strspn(folder, "0123456789");
    return strcmp(folder, what) == 0 || (folder[digits] == '-' && strcmp(folder + digits + 1, what) == 0);
}

int tool_find(char *out, size_t size, const char *what, struct err_ctx *ctx)
{
    char root[ROOTS][512];
    struct stat st;
    if (stat(what, &st) == 0 && S_ISDIR(st.st_mode)) {
        snprintf(out, size, "%s/scenario.json", what);
        return is_file(out) ? 0 : err_set(ctx, ERR_NOTFOUND, "%s: holds no scenario.json", what);
    }
    if (is_file(what) || strchr(what, '/')) {
        snprintf(out, size, "%s", what);
        return is_file(what) ? 0 : err_set(ctx, ERR_NOTFOUND, "%s: no such file", what);
    }
    roots(root);
    for (int i = 0; i < ROOTS; i++) {
        DIR *d = opendir(root[i]);
        bool found = false;
        for (struct dirent *e; d && !found && (e = readdir(d));) {
            snprintf(out, size, "%s/%s/scenario.json", root[i], e->d_name);
            found = named(e->d_name, what) && is_file(out);
        }
        if (d)
            closedir(d);
        if (found)
            return 0;
    }
    return err_set(ctx, ERR_NOTFOUND, "%s: no such scenario; chat-chaos list shows those that are found",
                   what);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* One line, or one object. A file that can't be read is an error of the whole list, but the others are shown.
 */
static int list_one(struct buf *out, const char *path, bool json, unsigned *n, struct err_ctx *ctx)
{
    struct scenario *s = malloc(sizeof *s);
    int rc = s ? scenario_load(s, path, NULL, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    if (rc) {
        free(s);
        return rc;
    }
    if (json) {
        buf_str(out, (*n)++ ? ",{\"name\":" : "{\"name\":");
        buf_json_str(out, s->name, strlen(s->name));
        buf_str(out, ",\"file\":");
        buf_json_str(out, path, strlen(path));
        buf_str(out, ",\"why\":");
        buf_json_str(out, s->why, strlen(s->why));
        buf_str(out, ",\"variants\":[");
        for (uint32_t i = 0; i < s->variants_n; i++) {
            buf_str(out, i ? "," : "");
            buf_json_str(out, s->variants[i].name, strlen(s->variants[i].name));
        }
        buf_str(out, "]}");
    } else {
        (*n)++;
        buf_printf(out, "%-20s %s\n", s->name, path);
        for (uint32_t i = 0; i < s->variants_n; i++)
            buf_printf(out, "%s%s", i ? ", " : "    variants: ", s->variants[i].name);
        buf_str(out, s->variants_n ? "\n" : "");
    }
    scenario_release(s);
    free(s);
    return 0;
}

int tool_list(const struct opt_set *set, struct err_ctx *ctx)
{
    char root[ROOTS][512], seen[ROOTS][4096];
    struct buf out = BUF_INIT(1u << 20);
    unsigned n = 0;
    int rc = 0;
    roots(root);
    if (opt_json(set))
        buf_str(&out, "{\"scenarios\":[");
    for (int i = 0; i < ROOTS; i++) {
        struct dirent **names;
        bool again = !realpath(root[i], seen[i]);
        for (int k = 0; k < i && !again; k++)
            again = strcmp(seen[i], seen[k]) == 0;
        int count = again ? 0 : scandir(root[i], &names, NULL, by_name);
        if (!again && count < 0)
            continue;
        for (int k = 0; k < count; k++) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s/scenario.json", root[i], names[k]->d_name);
            if (is_file(path)) {
                int one = list_one(&out, path, opt_json(set), &n, ctx);
                rc = rc ? rc : one;
            }
            free(names[k]);
        }
        if (count > 0)
            free(names);
    }
    buf_str(&out, opt_json(set) ? "]}\n" : "");
    fputs(buf_cstr(&out), stdout);
    buf_release(&out);
    if (!rc && n == 0)
        rc = err_set(ctx, ERR_NOTFOUND, "no scenario found in ./scenarios, nor beside this program");
    return rc;
}

#include "util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static const struct {
    const char *name, *text;
    int status;
} table[ERR_INDEX_COUNT] = {
    [ERR_INDEX_OK] = {"ok", "no error", 0},
#define E(n, t, s) [ERR_INDEX_##n] = {#n, t, s},
#include "util/errors.def"
#undef E
};

static int index_of(int code)
{
    int i = -code;
    return i > 0 && i < ERR_INDEX_COUNT ? i : 0;
}

int err_set(struct err_ctx *ctx, int code, const char *fmt, ...)
{
    if (ctx) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(ctx->text, sizeof ctx->text, fmt, ap);
        va_end(ap);
        ctx->code = code;
    }
    return code;
}

int err_prefix(struct err_ctx *ctx, const char *fmt, ...)
{
    if (!ctx)
        return 0;
    char old[sizeof ctx->text];
    memcpy(old, ctx->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(ctx->text, sizeof ctx->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof ctx->text - 1) {
        size_t room = sizeof ctx->text - (size_t)n - 1, len = strnlen(old, room);
        memcpy(ctx->text + n, old, len);
        ctx->text[(size_t)n + len] = 0;
    }
    return ctx->code;
}

int err_errno(struct err_ctx *ctx, const char *fmt, ...)
{
    int e = errno, code;
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        code = ERR_FULL;
        break;
    case EACCES:
    case EPERM:
        code = ERR_PERM;
        break;
    case ENOENT:
        code = ERR_NOTFOUND;
        break;
    case ENOMEM:
        code = ERR_NOMEM;
        break;
    default:
        code = ERR_IO;
    }
    if (ctx) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(ctx->text, sizeof ctx->text, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof ctx->text)
            snprintf(ctx->text + n, sizeof ctx->text - (size_t)n, ": %s", strerror(e));
        ctx->code = code;
    }
    return code;
}

const char *err_name(int code)
{
    return table[index_of(code)].name;
}

const char *err_text(int code)
{
    return table[index_of(code)].text;
}

int err_exit_status(int code)
{
    return code == 0 ? 0 : index_of(code) ? table[index_of(code)].status : 70;
}

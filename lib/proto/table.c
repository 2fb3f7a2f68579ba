#include "proto/bin.h"
#include "proto/table_impl.h"

#include <string.h>

#define M(NAME, text, dir) static const struct field fields_##NAME[] = {
#define F(field, json, type, req)                                                                            \
    {json, ",\"" json "\":", sizeof json - 1, TYPE_##type, req, offsetof(struct msg, field), MSG_HAS(field)},
#define END                                                                                                  \
    {                                                                                                        \
        0                                                                                                    \
    }                                                                                                        \
    }                                                                                                        \
    ;
/* clang-format off */
#include "proto/messages.def"
/* clang-format on */
#undef M
#undef F
#undef END

const struct message proto_messages[MSG_TYPE_COUNT] = {
    [MSG_NONE] = {"", NULL, false, 0},
#define C2S  true
#define S2C  false
#define BOTH true
#define M(NAME, text, dir)                                                                                   \
    [MSG_##NAME] = {text, fields_##NAME, dir, sizeof fields_##NAME / sizeof *fields_##NAME - 1},
#define F(...)
#define END
#include "proto/messages.def"
#undef M
#undef F
#undef END
};

static const struct message *message(enum msg_type t)
{
    return &proto_messages[(unsigned)t < MSG_TYPE_COUNT ? t : MSG_NONE];
}

const char *msg_type_name(enum msg_type t)
{
    return message(t)->name;
}

bool msg_from_client(enum msg_type t)
{
    return message(t)->from_client;
}

int proto_frame_begin_as(struct proto_frame *f, enum proto_codec codec, const char *p, size_t n,
                         struct proto_scratch *s, struct err_ctx *ctx)
{
    return codec == PROTO_BIN ? proto_bin_begin(f, p, n, s, ctx) : proto_frame_begin(f, p, n, s, ctx);
}

void proto_encode_as(struct buf *out, enum proto_codec codec, const struct msg *m)
{
    if (codec == PROTO_BIN)
        proto_bin_encode(out, m);
    else
        proto_encode(out, m);
}

struct slice slice_of(const char *s)
{
    return (struct slice){s, s ? strlen(s) : 0};
}

bool slice_is(struct slice s, const char *text)
{
    return s.n == strlen(text) && (!s.n || memcmp(s.p, text, s.n) == 0);
}

static const struct {
    const char *code, *text;
    bool retry;
} errors[PROTO_ERROR_COUNT] = {
#define P(NAME, code, retry, text) [PROTO_##NAME] = {code, text, retry},
#include "proto/errors.def"
#undef P
};

static unsigned known(enum proto_error e)
{
    BUG_ON((unsigned)e >= PROTO_ERROR_COUNT);
    return (unsigned)e;
}

const char *proto_error_code(enum proto_error e)
{
    return errors[known(e)].code;
}

const char *proto_error_text(enum proto_error e)
{
    return errors[known(e)].text;
}

bool proto_error_retryable(enum proto_error e)
{
    return errors[known(e)].retry;
}

const char *close_code_text(int code)
{
    switch (code) {
#define CLOSE(NAME, number, text)                                                                            \
    case number:                                                                                             \
        return text;
#include "proto/errors.def"
#undef CLOSE
    default:
        return "";
    }
}

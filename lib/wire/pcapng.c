#include "wire/pcapng.h"

enum { SECTION = 0x0A0D0D0A, INTERFACE = 1, STATISTICS = 5, PACKET = 6 };
enum { OPT_COMMENT = 1, SHB_USERAPPL = 4, IF_NAME = 2, IF_DESCRIPTION = 3, IF_TSRESOL = 9 };
enum { EPB_FLAGS = 2, EPB_DROPCOUNT = 4, ISB_IFRECV = 4, ISB_IFDROP = 5 };

static void put32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_padded(struct buf *b, const void *at, size_t n)
{
    static const char zero[4];
    buf_add(b, at, n);
    buf_add(b, zero, (4 - n % 4) % 4);
}

static void put_option(struct buf *b, uint16_t code, const void *at, size_t n)
{
    uint16_t head[2] = {code, (uint16_t)n};
    buf_add(b, head, sizeof head);
    put_padded(b, at, n);
}

/* The beginning of a text that is too long, up to a whole character. */
static size_t fitting(const char *s, size_t n)
{
    if (n <= PCAPNG_TEXT_MAX)
        return n;
    for (n = PCAPNG_TEXT_MAX; n && ((uint8_t)s[n] & 0xc0) == 0x80;)
        n--;
    return n;
}

static void put_text(struct buf *b, uint16_t code, const char *s)
{
    if (s && *s)
        put_option(b, code, s, fitting(s, strlen(s)));
}

/* A block's length stands at both its ends. */
static size_t block_begin(struct buf *b, uint32_t type)
{
    size_t at = b->len;
    put32(b, type);
    put32(b, 0);
    return at;
}

static void block_end(struct buf *b, size_t at)
{
    put32(b, 0); /* no more options */
    uint32_t n = (uint32_t)(b->len - at + 4);
    put32(b, n);
    if (!b->failed)
        memcpy(b->data + at + 4, &n, sizeof n);
}

static void put_time(struct buf *b, uint64_t ns)
{
    put32(b, (uint32_t)(ns >> 32));
    put32(b, (uint32_t)ns);
}

void pcapng_section(struct buf *b, const char *comment, const char *application)
{
    size_t at = block_begin(b, SECTION);
    uint16_t version[2] = {1, 0};
    int64_t length = -1; /* not known beforehand */
    put32(b, 0x1A2B3C4D);
    buf_add(b, version, sizeof version);
    buf_add(b, &length, sizeof length);
    put_text(b, OPT_COMMENT, comment);
    put_text(b, SHB_USERAPPL, application);
    block_end(b, at);
}

void pcapng_interface(struct buf *b, enum pcapng_link link, const char *name, const char *description)
{
    size_t at = block_begin(b, INTERFACE);
    uint16_t type[2] = {(uint16_t)link, 0};
    uint8_t nano = 9;
    buf_add(b, type, sizeof type);
    put32(b, 0); /* no limit of a packet's bytes */
    put_text(b, IF_NAME, name);
    put_text(b, IF_DESCRIPTION, description);
    put_option(b, IF_TSRESOL, &nano, 1);
    block_end(b, at);
}

void pcapng_packet(struct buf *b, const struct pcapng_packet *p)
{
    size_t at = block_begin(b, PACKET);
    put32(b, p->interface);
    put_time(b, p->ts_ns);
    put32(b, p->len);
    put32(b, p->original ? p->original : p->len);
    put_padded(b, p->data, p->len);
    if (p->comment)
        put_option(b, OPT_COMMENT, p->comment, fitting(p->comment, p->comment_len));
    if (p->flags)
        put_option(b, EPB_FLAGS, &p->flags, sizeof p->flags);
    if (p->missed)
        put_option(b, EPB_DROPCOUNT, &p->missed, sizeof p->missed);
    block_end(b, at);
}

void pcapng_statistics(struct buf *b, uint32_t interface, uint64_t ts_ns, uint64_t received, uint64_t missed)
{
    size_t at = block_begin(b, STATISTICS);
    put32(b, interface);
    put_time(b, ts_ns);
    put_option(b, ISB_IFRECV, &received, sizeof received);
    put_option(b, ISB_IFDROP, &missed, sizeof missed);
    block_end(b, at);
}

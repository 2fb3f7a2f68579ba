#include "wire/pcap/capture.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire/pcap/source.h"

#define BLOCK_SECTION   0x0a0d0d0au
#define BLOCK_INTERFACE 1u
#define BLOCK_PACKET    2u /* obsolete */
#define BLOCK_SIMPLE    3u
#define BLOCK_STATS     5u
#define BLOCK_ENHANCED  6u
#define BYTE_ORDER_MARK 0x1a2b3c4du

struct iface {
    uint32_t link, snap;
    uint64_t per_s; /* ticks in a second */
    int64_t offset_s;
    uint64_t dropped;
};

struct capture_file {
    struct source *source;
    char *name;
    const uint8_t *block; /* of the source */
    size_t block_at, block_n;
    uint8_t *record; /* a record that lies across blocks, or must be changed */
    uint64_t taken;  /* bytes */
    uint64_t packets;
    int rc; /* the end or the error, once reached */
    struct err_ctx err;
    bool ng, swapped, nano, padded;
    /* pcap */
    uint32_t link;
    /* pcapng */
    struct iface *iface;
    uint32_t ifaces, section; /* section: number of its first interface */
};

static uint32_t u32(const struct capture_file *f, const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return f->swapped ? __builtin_bswap32(v) : v;
}

static uint16_t u16(const struct capture_file *f, const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return f->swapped ? __builtin_bswap16(v) : v;
}

static int fault(struct capture_file *f, int code, uint64_t at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int fault(struct capture_file *f, int code, uint64_t at, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return f->rc = err_set(&f->err, code, "%s: offset %llu%s: %s", f->name, (unsigned long long)at,
                           source_packed(f->source) ? " of the unpacked data" : "", text);
}

/* n bytes that lie together, good until the next call; they may be changed. 1; 0: nothing is left; else an
 * error (a part of them is missing, or the source's own). */
static int get(struct capture_file *f, size_t n, uint8_t **out)
{
    size_t have = 0;
    if (f->block_n - f->block_at >= n) {
        *out = (uint8_t *)f->block + f->block_at; /* the source's blocks are ours until its next call */
        f->block_at += n;
        f->taken += n;
        return 1;
    }
    while (have < n) {
        size_t left = f->block_n - f->block_at, k = left < n - have ? left : n - have;
        if (k)
            memcpy(f->record + have, f->block + f->block_at, k);
        have += k;
        f->block_at += k;
        f->taken += k;
        if (have == n)
            break;
        struct err_ctx err = {0};
        int rc = source_next(f->source, &f->block, &f->block_n, &err);
        f->block_at = 0;
        if (rc <= 0) {
            f->block_n = 0;
            if (rc < 0)
                return fault(f, rc, f->taken, "%s", err.text);
            if (!have)
                return 0;
            return fault(f, ERR_TRUNCATED, f->taken - have,
                         "the file ends inside a record (%zu of %zu bytes are there)", have, n);
        }
    }
    *out = f->record;
    return 1;
}

/* The bytes must be there: the end is a fault too. `at`: where their record began. */
static int need(struct capture_file *f, size_t n, uint64_t at, uint8_t **out)
{
    int rc = n ? get(f, n, out) : 1;
    if (rc == 0 || rc == ERR_TRUNCATED)
        return f->rc == ERR_TRUNCATED && source_packed(f->source) && rc < 0 && f->err.text[0]
                   ? rc
                   : fault(f, ERR_TRUNCATED, at, "the file ends inside a record");
    return rc;
}

/* ---- pcap ---- */

static int open_pcap(struct capture_file *f, const uint8_t *h)
{
    uint32_t magic;
    memcpy(&magic, h, 4);
    for (int turn = 0; turn < 2; turn++, magic = __builtin_bswap32(magic)) {
        f->swapped = turn;
        f->nano = magic == 0xa1b23c4du;
        f->padded = magic == 0xa1b2cd34u; /* eight more bytes per record */
        if (magic == 0xa1b2c3d4u || f->nano || f->padded) {
            f->link = u32(f, h + 20) & 0x0fffffff;
            return 0;
        }
    }
    return fault(f, ERR_INVALID, 0, "neither pcap nor pcapng");
}

static int next_pcap(struct capture_file *f, struct capture_packet *k)
{
    uint64_t at = f->taken;
    uint8_t *h;
    int rc = get(f, f->padded ? 24 : 16, &h);
    if (rc <= 0)
        return rc;
    uint64_t sec = u32(f, h), frac = u32(f, h + 4);
    uint32_t n = u32(f, h + 8), wire = u32(f, h + 12);
    if (n > CAPTURE_RECORD_MAX)
        return fault(f, ERR_CORRUPT, at, "a packet of %u bytes", n);
    if (frac > (f->nano ? 999999999u : 999999u) && frac > 2000000000u)
        return fault(f, ERR_CORRUPT, at, "a time that is none");
    if ((rc = need(f, n, at, &k->p)) <= 0)
        return rc;
    k->ts_ns = sec * 1000000000 + (f->nano ? frac : frac * 1000);
    k->n = n;
    k->wire = wire > n ? wire : n;
    k->link = f->link;
    k->iface = 0;
    k->offset = at;
    return 1;
}

/* ---- pcapng ---- */

struct option {
    uint16_t code, n;
    const uint8_t *p;
};

/* Walk options; false at their end (or at what is none). */
static bool next_option(const struct capture_file *f, const uint8_t **p, size_t *n, struct option *o)
{
    if (*n < 4)
        return false;
    o->code = u16(f, *p);
    o->n = u16(f, *p + 2);
    o->p = *p + 4;
    size_t size = 4 + ((size_t)o->n + 3) / 4 * 4;
    if (!o->code || size > *n)
        return false;
    *p += size;
    *n -= size;
    return true;
}

static int add_iface(struct capture_file *f, const uint8_t *p, size_t n, uint64_t at)
{
    struct option o;
    if (n < 8)
        return fault(f, ERR_CORRUPT, at, "an interface block of %zu bytes", n);
    if (f->ifaces >= CAPTURE_IFACES_MAX)
        return fault(f, ERR_LIMIT, at, "more than %u interfaces", CAPTURE_IFACES_MAX);
    struct iface *i = &f->iface[f->ifaces++];
    *i = (struct iface){.link = u16(f, p), .snap = u32(f, p + 4), .per_s = 1000000};
    p += 8;
    n -= 8;
    while (next_option(f, &p, &n, &o)) {
        if (o.code == 9 && o.n >= 1) { /* if_tsresol */
            unsigned e = o.p[0] & 0x7f;
            if (o.p[0] & 0x80 ? e > 40 : e > 12)
                return fault(f, ERR_UNSUPPORTED, at, "a clock of 2^-%u or 10^-%u s", e, e);
            i->per_s = 1;
            for (unsigned q = 0; q < e; q++)
                i->per_s *= o.p[0] & 0x80 ? 2 : 10;
        } else if (o.code == 14 && o.n >= 8) { /* if_tsoffset */
            uint64_t v;
            memcpy(&v, o.p, 8);
            i->offset_s = (int64_t)(f->swapped ? __builtin_bswap64(v) : v);
        }
    }
    return 0;
}

static uint64_t time_ns(const struct iface *i, uint64_t ticks)
{
    uint64_t s = ticks / i->per_s;
    unsigned __int128 rest = (unsigned __int128)(ticks % i->per_s) * 1000000000u / i->per_s;
    return (s + (uint64_t)i->offset_s) * 1000000000u + (uint64_t)rest;
}

static int take_packet(struct capture_file *f, struct capture_packet *k, uint32_t type, uint8_t *p, size_t n,
                       uint64_t at)
{
    size_t head = type == BLOCK_SIMPLE ? 4 : 20;
    if (n < head)
        return fault(f, ERR_CORRUPT, at, "a packet block of %zu bytes", n);
    uint32_t iface = type == BLOCK_SIMPLE ? 0 : type == BLOCK_PACKET ? u16(f, p) : u32(f, p);
    if (iface >= f->ifaces - f->section)
        return fault(f, ERR_CORRUPT, at, "a packet of interface %u, which is not described", iface);
    k->iface = f->section + iface;
    const struct iface *i = &f->iface[k->iface];
    if (type == BLOCK_SIMPLE) {
        k->wire = u32(f, p);
        k->n = k->wire < n - 4 ? k->wire : (uint32_t)(n - 4);
        if (i->snap && k->n > i->snap)
            k->n = i->snap;
    } else {
        k->ts_ns = time_ns(i, (uint64_t)u32(f, p + 4) << 32 | u32(f, p + 8));
        k->n = u32(f, p + 12);
        k->wire = u32(f, p + 16);
        if (k->n > n - head)
            return fault(f, ERR_CORRUPT, at, "a packet of %u bytes in a block of %zu", k->n, n);
        if (type == BLOCK_PACKET && u16(f, p + 2) != 0xffff)
            k->dropped = u16(f, p + 2);
    }
    k->wire = k->wire > k->n ? k->wire : k->n;
    k->p = p + head;
    k->link = i->link;
    k->offset = at;
    size_t used = head + ((size_t)k->n + 3) / 4 * 4;
    const uint8_t *rest = used < n ? p + used : p + n;
    size_t rest_n = used < n ? n - used : 0;
    struct option o;
    while (type == BLOCK_ENHANCED && next_option(f, &rest, &rest_n, &o)) {
        if (o.code == 1 && !k->comment) {
            k->comment = (const char *)o.p;
            k->comment_n = o.n;
        } else if (o.code == 4 && o.n >= 8) {
            k->dropped = u32(f, o.p + (f->swapped ? 4 : 0));
        }
    }
    return 1;
}

static void take_stats(struct capture_file *f, const uint8_t *p, size_t n)
{
    struct option o;
    if (n < 12)
        return;
    uint32_t iface = u32(f, p);
    p += 12;
    n -= 12;
    while (iface < f->ifaces - f->section && next_option(f, &p, &n, &o))
        if ((o.code == 5 || o.code == 7) && o.n >= 8) { /* isb_ifdrop, isb_osdrop */
            uint64_t v;
            memcpy(&v, o.p, 8);
            f->iface[f->section + iface].dropped += f->swapped ? __builtin_bswap64(v) : v;
        }
}

static int begin_section(struct capture_file *f, const uint8_t *p, uint64_t at)
{
    uint32_t mark;
    memcpy(&mark, p, 4);
    if (mark != BYTE_ORDER_MARK && mark != __builtin_bswap32(BYTE_ORDER_MARK))
        return fault(f, ERR_CORRUPT, at, "a section of no byte order");
    f->swapped = mark != BYTE_ORDER_MARK;
    f->section = f->ifaces;
    return 0;
}

/* One block. 1: *k is a packet; 2: something else; 0: the end. */
static int next_block(struct capture_file *f, struct capture_packet *k)
{
    uint64_t at = f->taken;
    uint8_t *h, *p;
    int rc = get(f, 8, &h);
    if (rc <= 0)
        return rc;
    uint32_t type, size;
    memcpy(&type, h, 4);
    memcpy(&size, h + 4, 4);
    bool section = type == BLOCK_SECTION; /* the same in both byte orders */
    uint8_t mark[4];
    if (section) {
        if ((rc = need(f, 4, at, &p)) <= 0)
            return rc;
        memcpy(mark, p, 4);
        if ((rc = begin_section(f, mark, at)) < 0)
            return rc;
    }
    type = f->swapped ? __builtin_bswap32(type) : type;
    size = f->swapped ? __builtin_bswap32(size) : size;
    uint32_t least = section ? 28 : 12;
    if (size < least || size % 4 || size > CAPTURE_RECORD_MAX)
        return fault(f, ERR_CORRUPT, at, "a block of %u bytes", size);
    size_t n = size - (section ? 12 : 8);
    if ((rc = need(f, n, at, &p)) <= 0)
        return rc;
    if (u32(f, p + n - 4) != size)
        return fault(f, ERR_CORRUPT, at, "a block whose two lengths differ");
    n -= 4;
    if (type == BLOCK_ENHANCED || type == BLOCK_PACKET || type == BLOCK_SIMPLE)
        return take_packet(f, k, type, p, n, at);
    if (type == BLOCK_INTERFACE && (rc = add_iface(f, p, n, at)) < 0)
        return rc;
    if (type == BLOCK_STATS)
        take_stats(f, p, n);
    return 2;
}

/* ---- both ---- */

static int begin(struct capture_file *f)
{
    uint8_t *h, magic[24];
    int rc = get(f, 4, &h);
    if (rc == 0 || rc == ERR_TRUNCATED)
        return fault(f, ERR_TRUNCATED, 0, "the file is empty or ends inside its header");
    if (rc < 0)
        return rc;
    memcpy(magic, h, 4);
    uint32_t first;
    memcpy(&first, magic, 4);
    f->ng = first == BLOCK_SECTION;
    if (f->ng) { /* it is a block like the others */
        f->iface = calloc(CAPTURE_IFACES_MAX, sizeof *f->iface);
        if (!f->iface)
            return fault(f, ERR_NOMEM, 0, "out of memory");
        f->block_at -= 4;
        f->taken -= 4;
        return 0;
    }
    uint32_t turned = __builtin_bswap32(first);
    if ((first & 0xffff0000u) != 0xa1b20000u && (turned & 0xffff0000u) != 0xa1b20000u)
        return fault(f, ERR_INVALID, 0, "neither pcap nor pcapng");
    if ((rc = need(f, 20, 0, &h)) <= 0)
        return rc;
    memcpy(magic + 4, h, 20);
    return open_pcap(f, magic);
}

static int open_source(struct capture_file **out, struct source *s, const char *name, struct err_ctx *ctx)
{
    struct capture_file *f = calloc(1, sizeof *f);
    if (f) {
        f->source = s;
        f->name = strdup(name);
        f->record = malloc(CAPTURE_RECORD_MAX);
    }
    int rc = f && f->name && f->record ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", name);
    if (rc == 0 && (rc = begin(f)) < 0)
        err_set(ctx, rc, "%s", f->err.text);
    if (rc < 0) {
        if (f)
            capture_close_file(f);
        else
            source_close(s);
        return rc;
    }
    *out = f;
    return 0;
}

int capture_open_file(struct capture_file **out, const char *path, struct err_ctx *ctx)
{
    struct source *s;
    *out = NULL;
    int rc = source_open(&s, path, ctx);
    return rc < 0 ? rc : open_source(out, s, strcmp(path, "-") ? path : "standard input", ctx);
}

int capture_open_bytes(struct capture_file **out, const void *p, size_t n, const char *name,
                       struct err_ctx *ctx)
{
    struct source *s;
    *out = NULL;
    int rc = source_open_memory(&s, p, n, ctx);
    return rc < 0 ? rc : open_source(out, s, name, ctx);
}

int capture_next(struct capture_file *f, struct capture_packet *k, struct err_ctx *ctx)
{
    int rc = f->rc;
    k->comment = NULL;
    k->comment_n = k->dropped = 0;
    k->ts_ns = 0;
    while (rc == 0 && !f->err.code) {
        rc = f->ng ? next_block(f, k) : next_pcap(f, k);
        if (rc == 1)
            k->number = ++f->packets;
        if (rc == 2)
            rc = 0;
        else
            break;
    }
    return rc < 0 ? err_set(ctx, rc, "%s", f->err.text) : rc;
}

uint64_t capture_dropped(const struct capture_file *f)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->ifaces; i++)
        n += f->iface[i].dropped;
    return n;
}

uint64_t capture_bytes(const struct capture_file *f)
{
    return f->taken;
}

bool capture_looks_like(const char *path)
{
    static const uint8_t magics[][4] = {{0x0a, 0x0d, 0x0d, 0x0a}, {0xa1, 0xb2, 0xc3, 0xd4},
                                        {0xd4, 0xc3, 0xb2, 0xa1}, {0xa1, 0xb2, 0x3c, 0x4d},
                                        {0x4d, 0x3c, 0xb2, 0xa1}, {0xa1, 0xb2, 0xcd, 0x34},
                                        {0x34, 0xcd, 0xb2, 0xa1}, {0x28, 0xb5, 0x2f, 0xfd}};
    uint8_t h[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, h, 4);
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; n == 4 && i < sizeof magics / sizeof *magics; i++)
        if (!memcmp(h, magics[i], 4))
            return true;
    return n >= 2 && h[0] == 0x1f && h[1] == 0x8b;
}

void capture_close_file(struct capture_file *f)
{
    if (!f)
        return;
    source_close(f->source);
    free(f->iface);
    free(f->record);
    free(f->name);
    free(f);
}

#include "netem/tun/capture_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "netem/link.h"
#include "netem/tun/held_impl.h"
#include "util/buf.h"
#include "util/clock.h"
#include "wire/pcapng.h"

#define ALIGN       64
#define CHUNK       (256 << 10) /* bytes collected for one write */
#define IDLE_NS     5000000     /* how long the thread sleeps when nothing is ready */
#define WRITER_NICE (-15)       /* what is captured on a busy machine is about that machine, too */
#define WRAP_LEN    UINT32_MAX  /* this record only fills the ring's end */

struct record {
    uint32_t settled, len;  /* settled: written last by the shuttle, read first by the thread */
    uint64_t ts_ns, missed; /* missed at this end before it */
    struct capture_fate fate;
    uint8_t end;
    uint8_t data[];
};

struct capture_file {
    int fd, error;
    struct buf out;
    uint64_t written, missed, told; /* packets; missed: by the shuttle alone; told: in epb_dropcount */
};

struct capture {
    uint8_t *ring;
    uint64_t head, tail; /* bytes ever put in and taken out */
    struct capture_file file[2];
    uint64_t *missed; /* shared counter */
    uint64_t wall_ns; /* what to add to a monotonic time */
    bool stop;
    pthread_t thread;
};

/* ---- the shuttle's side ---- */

static void miss(struct capture *c, unsigned end)
{
    __atomic_store_n(&c->file[end].missed, c->file[end].missed + 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(c->missed, 1, __ATOMIC_RELAXED);
}

uint32_t capture_packet(struct capture *c, unsigned end, const uint8_t *at, uint32_t len, uint64_t now_ns)
{
    uint64_t size = (sizeof(struct record) + len + ALIGN - 1) / ALIGN * ALIGN;
    uint64_t place = c->head % CAPTURE_RING, left = CAPTURE_RING - place;
    uint64_t skip = left < size ? left : 0;
    if (c->head + skip + size - __atomic_load_n(&c->tail, __ATOMIC_ACQUIRE) > CAPTURE_RING) {
        miss(c, end);
        return CAPTURE_NONE;
    }
    if (skip) {
        struct record *wrap = (struct record *)(c->ring + place);
        wrap->len = WRAP_LEN;
        wrap->settled = 1;
        place = 0;
    }
    struct record *r = (struct record *)(c->ring + place);
    r->settled = 0;
    r->len = len;
    r->ts_ns = now_ns;
    r->missed = c->file[end].missed;
    r->end = (uint8_t)end;
    memcpy(r->data, at, len);
    __atomic_store_n(&c->head, c->head + skip + size, __ATOMIC_RELEASE);
    return (uint32_t)place;
}

void capture_settle(struct capture *c, uint32_t record, const struct capture_fate *fate)
{
    if (record == CAPTURE_NONE)
        return;
    struct record *r = (struct record *)(c->ring + record);
    r->fate = *fate;
    __atomic_store_n(&r->settled, 1, __ATOMIC_RELEASE);
}

/* ---- pcapng ---- */

static int put_ms(char *out, size_t cap, const char *word, char sign, uint64_t ns)
{
    return snprintf(out, cap, " %s=%c%llu.%06llums", word, sign, ns / NS_PER_MS, ns % NS_PER_MS);
}

static uint64_t after(uint64_t t, uint64_t from)
{
    return t > from ? t - from : 0;
}

/* The comment of a packet; `cap` is ample. */
static size_t comment(char *out, size_t cap, const struct record *r)
{
    static const char *const states[LINK_STATE_COUNT] = {
        [LINK_UP] = "up",
        [LINK_STALLED] = "stalled",
        [LINK_HANDOVER] = "handover",
        [LINK_HANDOVER_LOSES] = "handover, loses its address",
        [LINK_CELL] = "handover between cells",
        [LINK_BLACKOUT] = "blackout",
        [LINK_BLACKOUT_LOSES] = "blackout, loses its address",
        [LINK_DETACHED] = "detached"};
    const struct capture_fate *f = &r->fate;
    size_t n;
    if (f->arrived) {
        n = (size_t)snprintf(out, cap, "fate=arrived");
        n += (size_t)put_ms(out + n, cap - n, "sent", '-', after(r->ts_ns, f->sent_ns));
        n += (size_t)put_ms(out + n, cap - n, "late", '+', after(r->ts_ns, f->deliver_ns));
    } else if (f->reason) {
        n = (size_t)snprintf(out, cap, "fate=lost reason=\"%s\"", reason_text(f->reason));
        if (f->depart_ns)
            n += (size_t)put_ms(out + n, cap - n, "air", '+', after(f->depart_ns, r->ts_ns));
    } else {
        n = (size_t)snprintf(out, cap, "fate=delivered");
        n += (size_t)put_ms(out + n, cap - n, "air", '+', after(f->depart_ns, r->ts_ns));
        n += (size_t)put_ms(out + n, cap - n, "arrive", '+', after(f->deliver_ns, r->ts_ns));
    }
    if (!f->arrived)
        n += (size_t)snprintf(out + n, cap - n, " radio=\"%s\"", states[f->state]);
    return n + (size_t)snprintf(out + n, cap - n, "%s%s%s", f->copy ? " copy" : "",
                                f->corrupted ? " corrupted" : "", f->reordered ? " reordered" : "");
}

static void put_packet(struct capture *c, const struct record *r)
{
    struct capture_file *f = &c->file[r->end];
    char text[256];
    struct pcapng_packet p = {.ts_ns = r->ts_ns + c->wall_ns,
                              .data = r->data,
                              .len = r->len,
                              .flags = r->fate.arrived ? PCAPNG_INBOUND : PCAPNG_OUTBOUND,
                              .missed = r->missed - f->told,
                              .comment = text,
                              .comment_len = comment(text, sizeof text, r)};
    pcapng_packet(&f->out, &p);
    f->told = r->missed;
    f->written++;
}

/* ---- the thread ---- */

static void flush_file(struct capture_file *f)
{
    size_t at = 0;
    while (at < f->out.len && !f->error) {
        ssize_t n = write(f->fd, f->out.data + at, f->out.len - at);
        if (n < 0 && errno != EINTR)
            f->error = errno;
        at += n > 0 ? (size_t)n : 0;
    }
    if (f->out.failed && !f->error)
        f->error = ENOMEM;
    buf_reset(&f->out);
}

/* Write what is settled, in order; false when nothing was ready. */
static bool drain(struct capture *c)
{
    uint64_t tail = c->tail, head = __atomic_load_n(&c->head, __ATOMIC_ACQUIRE), start = tail;
    while (tail < head && c->file[0].out.len < CHUNK && c->file[1].out.len < CHUNK) {
        struct record *r = (struct record *)(c->ring + tail % CAPTURE_RING);
        if (!__atomic_load_n(&r->settled, __ATOMIC_ACQUIRE))
            break;
        if (r->len == WRAP_LEN) {
            tail += CAPTURE_RING - tail % CAPTURE_RING;
            continue;
        }
        if (c->file[r->end]
                .error) /* a file that can't be written takes no more, and says how many it lacks */
            __atomic_fetch_add(c->missed, 1, __ATOMIC_RELAXED);
        else
            put_packet(c, r);
        tail += (sizeof *r + r->len + ALIGN - 1) / ALIGN * ALIGN;
    }
    __atomic_store_n(&c->tail, tail, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++)
        flush_file(&c->file[i]);
    return tail != start;
}

static void *write_all(void *arg)
{
    struct capture *c = arg;
    setpriority(PRIO_PROCESS, 0, WRITER_NICE); /* of this thread alone; it may not be allowed */
    for (;;) {
        bool last = __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE);
        if (drain(c))
            continue;
        if (last)
            return NULL;
        nanosleep(&(struct timespec){0, IDLE_NS}, NULL);
    }
}

static int open_file(struct capture_file *f, const char *dir, const char *name, const char *about,
                     struct err_ctx *ctx)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s.pcapng", dir, name) >= (int)sizeof path)
        return err_set(ctx, ERR_RANGE, "%.100s...: the path is too long", dir);
    f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (f->fd < 0)
        return err_errno(ctx, "%s", path);
    pcapng_section(&f->out, about, "chat-netem");
    pcapng_interface(&f->out, PCAPNG_RAW_IP, name, NULL);
    flush_file(f);
    errno = f->error;
    return f->error ? err_errno(ctx, "%s", path) : 0;
}

int capture_open(struct capture **out, const char *dir, const char *about, uint64_t *missed,
                 struct err_ctx *ctx)
{
    struct capture *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(ctx, ERR_NOMEM, "no memory for a capture");
    c->missed = missed;
    c->wall_ns = clock_wall_us() * NS_PER_US - clock_mono_ns();
    c->ring = map_zeroed(CAPTURE_RING);
    for (int i = 0; i < 2; i++) {
        c->file[i].fd = -1;
        buf_init(&c->file[i].out, 2 * CHUNK);
    }
    int rc = c->ring ? 0 : err_set(ctx, ERR_NOMEM, "no memory for a capture");
    if (!rc && mkdir(dir, 0755) && errno != EEXIST)
        rc = err_errno(ctx, "%s", dir);
    rc = rc ? rc : open_file(&c->file[0], dir, "near", about, ctx);
    rc = rc ? rc : open_file(&c->file[1], dir, "far", about, ctx);
    if (!rc && pthread_create(&c->thread, NULL, write_all, c))
        rc = err_set(ctx, ERR_NOMEM, "no thread for a capture");
    if (!rc) {
        *out = c;
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        if (c->file[i].fd >= 0)
            close(c->file[i].fd);
        buf_release(&c->file[i].out);
    }
    free(c);
    return rc;
}

int capture_close(struct capture *c)
{
    int rc = 0;
    if (!c)
        return 0;
    __atomic_store_n(&c->stop, true, __ATOMIC_RELEASE);
    pthread_join(c->thread, NULL);
    for (int i = 0; i < 2; i++) {
        struct capture_file *f = &c->file[i];
        pcapng_statistics(&f->out, 0, clock_mono_ns() + c->wall_ns, f->written + f->missed, f->missed);
        flush_file(f);
        if (close(f->fd) && !f->error)
            f->error = errno;
        if (f->error)
            rc = f->error == ENOSPC || f->error == EDQUOT ? ERR_FULL : ERR_IO;
        buf_release(&f->out);
    }
    free(c);
    return rc;
}

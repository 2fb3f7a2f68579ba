/* top on an interface: the packets go to a temporary capture, which each view reads whole; so a view says
 * what `funnel` would say of that capture. Past CAPTURE_BYTES_MAX it begins anew, and says so. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-trace/top_capture.h"
#include "util/clock.h"
#include "wire/pcap/live.h"
#include "wire/pcap/writer.h"

#define CAPTURE_BYTES_MAX (512u << 20)
#define SNAP              0x40000
#define KERNEL_BYTES      (64u << 20) /* has to last while a view is made */

struct top_capture {
    struct capture_live *live;
    struct capture_writer *writer;
    const char *iface;
    char path[256];
    uint64_t bytes, packets;
};

static int begin(struct top_capture *c, struct err_ctx *err)
{
    int rc = capture_writer_open(&c->writer, c->path, "chat-trace top", err);
    c->bytes = c->packets = 0;
    rc = rc ? rc : capture_writer_iface(c->writer, capture_live_link(c->live), c->iface, err);
    return rc < 0 ? rc : 0;
}

int top_capture_open(struct top_capture **out, const char *iface, const char *filter, struct err_ctx *err)
{
    const char *tmp = getenv("TMPDIR");
    struct top_capture *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_set(err, ERR_NOMEM, "out of memory");
    c->iface = iface;
    int rc = capture_live_open(&c->live, iface, filter, SNAP, KERNEL_BYTES, err);
    if (!rc) {
        snprintf(c->path, sizeof c->path, "%s/chat-trace-top-XXXXXX.pcapng", tmp && *tmp ? tmp : "/tmp");
        int fd = mkstemps(c->path, 7);
        if (fd < 0) {
            rc = err_errno(err, "%s", c->path);
            c->path[0] = 0;
        } else {
            close(fd);
        }
    }
    rc = rc ? rc : begin(c, err);
    if (rc)
        top_capture_close(c);
    else
        *out = c;
    return rc;
}

int top_capture_until(struct top_capture *c, uint64_t ns, const volatile sig_atomic_t *interrupted,
                      bool *anew, struct err_ctx *err)
{
    struct capture_packet k;
    int rc = 0;
    *anew = c->bytes > CAPTURE_BYTES_MAX;
    if (*anew) {
        rc = capture_writer_close(c->writer, err);
        c->writer = NULL;
        rc = rc ? rc : begin(c, err);
    }
    while (rc >= 0 && !*interrupted && clock_mono_ns() < ns) {
        rc = capture_live_next(c->live, &k, err);
        if (rc > 0) {
            c->packets++;
            c->bytes += k.n;
            rc = capture_writer_put(c->writer, 0, &k, err);
        }
    }
    if (rc >= 0)
        rc = capture_writer_stats(c->writer, 0, clock_wall_us() * 1000, c->packets,
                                  capture_live_dropped(c->live), err);
    if (rc >= 0)
        rc = capture_writer_flush(c->writer, err);
    return rc < 0 ? rc : 0;
}

const char *top_capture_path(const struct top_capture *c)
{
    return c->path;
}

void top_capture_close(struct top_capture *c)
{
    if (!c)
        return;
    capture_writer_close(c->writer, NULL);
    capture_live_close(c->live);
    if (c->path[0])
        unlink(c->path);
    free(c);
}

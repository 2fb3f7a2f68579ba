#include "wire/pcap/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/pcapng.h"

struct capture_writer {
    FILE *file;
    char *path;
    struct buf block;
    uint32_t ifaces;
};

static int put(struct capture_writer *w, struct err_ctx *ctx)
{
    struct buf *b = &w->block;
    int rc = b->failed ? err_set(ctx, ERR_NOMEM, "%s: out of memory", w->path)
             : fwrite(b->data, 1, b->len, w->file) != b->len ? err_errno(ctx, "%s", w->path)
                                                             : 0;
    buf_reset(b);
    return rc;
}

int capture_writer_open(struct capture_writer **out, const char *path, const char *about, struct err_ctx *ctx)
{
    struct capture_writer *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    }
    buf_init(&w->block, CAPTURE_RECORD_MAX + (128u << 10));
    w->file = strcmp(path, "-") ? fopen(path, "we") : stdout;
    int rc = w->file ? 0 : err_errno(ctx, "%s", path);
    if (rc == 0) {
        pcapng_section(&w->block, NULL, about);
        rc = put(w, ctx);
    }
    if (rc < 0)
        capture_writer_close(w, NULL);
    else
        *out = w;
    return rc;
}

int capture_writer_iface(struct capture_writer *w, uint32_t link, const char *name, struct err_ctx *ctx)
{
    pcapng_interface(&w->block, (enum pcapng_link)link, name, NULL);
    int rc = put(w, ctx);
    return rc < 0 ? rc : (int)w->ifaces++;
}

int capture_writer_put(struct capture_writer *w, uint32_t iface, const struct capture_packet *k,
                       struct err_ctx *ctx)
{
    struct pcapng_packet p = {.interface = iface,
                              .len = k->n,
                              .original = k->wire,
                              .ts_ns = k->ts_ns,
                              .missed = k->dropped,
                              .data = k->p,
                              .comment = k->comment,
                              .comment_len = k->comment_n};
    pcapng_packet(&w->block, &p);
    return put(w, ctx);
}

int capture_writer_stats(struct capture_writer *w, uint32_t iface, uint64_t ts_ns, uint64_t received,
                         uint64_t dropped, struct err_ctx *ctx)
{
    pcapng_statistics(&w->block, iface, ts_ns, received, dropped);
    return put(w, ctx);
}

int capture_writer_flush(struct capture_writer *w, struct err_ctx *ctx)
{
    return fflush(w->file) ? err_errno(ctx, "%s", w->path) : 0;
}

int capture_writer_close(struct capture_writer *w, struct err_ctx *ctx)
{
    int rc = 0;
    if (!w)
        return 0;
    if (w->file && (w->file == stdout ? fflush(w->file) : fclose(w->file)) != 0)
        rc = err_errno(ctx, "%s", w->path);
    buf_release(&w->block);
    free(w->path);
    free(w);
    return rc;
}

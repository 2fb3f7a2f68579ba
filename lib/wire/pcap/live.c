#include "wire/pcap/live.h"

#include <pcap/pcap.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS     100
#define BUFFER      (16 << 20)
#define FILTERS_MAX 8

struct capture_live {
    pcap_t *pcap;
    uint64_t packets;
    uint32_t link;
    char name[64];
};

/* libpcap's numbers of link types differ from those in files where systems disagree. */
static uint32_t link_of_dlt(int dlt)
{
    return dlt == DLT_RAW ? 101 : (uint32_t)dlt;
}

static int dlt_of_link(uint32_t link)
{
    return link == 101 ? DLT_RAW : (int)link;
}

static int code_of(int rc)
{
    return rc == PCAP_ERROR_PERM_DENIED || rc == PCAP_ERROR_PROMISC_PERM_DENIED ? ERR_PERM
           : rc == PCAP_ERROR_NO_SUCH_DEVICE                                    ? ERR_NOTFOUND
           : rc == PCAP_ERROR_IFACE_NOT_UP                                      ? ERR_UNAVAILABLE
                                                                                : ERR_IO;
}

static int set_filter(struct capture_live *l, const char *filter, struct err_ctx *ctx)
{
    struct bpf_program prog;
    if (!filter)
        return 0;
    if (pcap_compile(l->pcap, &prog, filter, 1, PCAP_NETMASK_UNKNOWN) < 0)
        return err_set(ctx, ERR_USAGE, "filter '%s': %s", filter, pcap_geterr(l->pcap));
    int rc = pcap_setfilter(l->pcap, &prog);
    pcap_freecode(&prog);
    return rc < 0 ? err_set(ctx, ERR_IO, "%s: %s", l->name, pcap_geterr(l->pcap)) : 0;
}

static int start(struct capture_live *l, const char *iface, uint32_t snap, uint64_t buffer,
                 struct err_ctx *ctx)
{
    char text[PCAP_ERRBUF_SIZE] = "";
    snprintf(l->name, sizeof l->name, "%s", iface);
    l->pcap = pcap_create(iface, text);
    if (!l->pcap)
        return err_set(ctx, ERR_IO, "%s: %s", iface, text);
    pcap_set_snaplen(l->pcap, (int)snap);
    pcap_set_buffer_size(l->pcap, (int)buffer);
    pcap_set_timeout(l->pcap, WAIT_MS);
    int nano = pcap_set_tstamp_precision(l->pcap, PCAP_TSTAMP_PRECISION_NANO);
    int rc = pcap_activate(l->pcap);
    if (rc < 0) {
        const char *why = pcap_geterr(l->pcap);
        return err_set(ctx, code_of(rc), "%s: %s%s", iface, why && *why ? why : pcap_statustostr(rc),
                       code_of(rc) == ERR_PERM ? " (capturing needs CAP_NET_RAW)" : "");
    }
    if (pcap_setnonblock(l->pcap, 1, text) < 0)
        return err_set(ctx, ERR_IO, "%s: %s", iface, text);
    l->link = link_of_dlt(pcap_datalink(l->pcap));
    if (nano < 0 || pcap_get_tstamp_precision(l->pcap) != PCAP_TSTAMP_PRECISION_NANO)
        return err_set(ctx, ERR_UNAVAILABLE, "%s: no time stamps in nanoseconds", iface);
    return 0;
}

int capture_live_open(struct capture_live **out, const char *iface, const char *filter, uint32_t snap,
                      uint64_t buffer, struct err_ctx *ctx)
{
    struct capture_live *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    int rc = start(l, iface, snap, buffer ? buffer : BUFFER, ctx);
    rc = rc ? rc : set_filter(l, filter, ctx);
    if (rc < 0)
        capture_live_close(l);
    else
        *out = l;
    return rc;
}

int capture_live_next(struct capture_live *l, struct capture_packet *k, struct err_ctx *ctx)
{
    struct pcap_pkthdr *h;
    const u_char *p;
    int rc = pcap_next_ex(l->pcap, &h, &p);
    if (rc == 0) { /* libpcap itself would wait for ever where no packet comes */
        struct pollfd fd = {.fd = pcap_get_selectable_fd(l->pcap), .events = POLLIN};
        poll(&fd, 1, WAIT_MS);
        rc = pcap_next_ex(l->pcap, &h, &p);
    }
    if (rc == 0 || rc == PCAP_ERROR_BREAK)
        return 0;
    if (rc < 0)
        return err_set(ctx, ERR_IO, "%s: %s", l->name, pcap_geterr(l->pcap));
    *k = (struct capture_packet){.ts_ns = (uint64_t)h->ts.tv_sec * 1000000000 + (uint64_t)h->ts.tv_usec,
                                 .number = ++l->packets,
                                 .n = h->caplen,
                                 .wire = h->len,
                                 .link = l->link,
                                 /* one copy of a ring's slot, which is ours until the next call */
                                 .p = (uint8_t *)p};
    return 1;
}

uint64_t capture_live_dropped(struct capture_live *l)
{
    struct pcap_stat s;
    return pcap_stats(l->pcap, &s) == 0 ? (uint64_t)s.ps_drop + s.ps_ifdrop : 0;
}

uint32_t capture_live_link(const struct capture_live *l)
{
    return l->link;
}

void capture_live_close(struct capture_live *l)
{
    if (!l)
        return;
    if (l->pcap)
        pcap_close(l->pcap);
    free(l);
}

/* ---- filters for files ---- */

struct capture_filter {
    char *text;
    struct {
        uint32_t link;
        struct bpf_program prog;
    } at[FILTERS_MAX];
    unsigned n;
};

static int compile(struct capture_filter *f, uint32_t link, struct err_ctx *ctx)
{
    if (f->n == FILTERS_MAX)
        return err_set(ctx, ERR_LIMIT, "a filter for more than %d link types", FILTERS_MAX);
    pcap_t *dead = pcap_open_dead(dlt_of_link(link), CAPTURE_RECORD_MAX);
    if (!dead)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    int rc = pcap_compile(dead, &f->at[f->n].prog, f->text, 1, PCAP_NETMASK_UNKNOWN) < 0
                 ? err_set(ctx, ERR_USAGE, "filter '%s': %s", f->text, pcap_geterr(dead))
                 : 0;
    pcap_close(dead);
    if (rc == 0)
        f->at[f->n++].link = link;
    return rc;
}

int capture_filter_new(struct capture_filter **out, const char *text, struct err_ctx *ctx)
{
    struct capture_filter *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f || !(f->text = strdup(text))) {
        free(f);
        return err_set(ctx, ERR_NOMEM, "out of memory");
    }
    int rc = compile(f, 1, ctx); /* a fault in it shows before the file is opened */
    if (rc < 0)
        capture_filter_free(f);
    else
        *out = f;
    return rc;
}

int capture_filter_pass(struct capture_filter *f, const struct capture_packet *k, struct err_ctx *ctx)
{
    unsigned i = 0;
    while (i < f->n && f->at[i].link != k->link)
        i++;
    if (i == f->n) {
        int rc = compile(f, k->link, ctx);
        if (rc < 0)
            return rc;
    }
    struct pcap_pkthdr h = {.caplen = k->n, .len = k->wire};
    return pcap_offline_filter(&f->at[i].prog, &h, k->p) != 0;
}

void capture_filter_free(struct capture_filter *f)
{
    for (unsigned i = 0; f && i < f->n; i++)
        pcap_freecode(&f->at[i].prog);
    if (f)
        free(f->text);
    free(f);
}

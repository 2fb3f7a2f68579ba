/* Descriptions of networks come from command lines and scenario files, profile files, traces and delay tables
 * from anywhere. The first byte chooses: J a profile file, T a trace, D a delay table, else a description.
 * What is accepted must also run: no time that goes back, no window without end. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "netem/link.h"
#include "util/clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct netem_profile *p, const struct link_verdict *v, uint64_t now, uint32_t bytes)
{
    if (v->reason)
        return;
    BUG_ON(v->depart_ns < now || v->deliver_ns < v->depart_ns);
    BUG_ON(v->copy_ns && v->copy_ns < v->depart_ns);
    BUG_ON(v->corrupt && v->corrupt_bit >= bytes * 8);
    BUG_ON(v->reordered && !p->dir[0].reorder_ppm && !p->dir[1].reorder_ppm);
}

static void head_drop(const struct netem_profile *p)
{
    struct link l;
    struct link_head h;
    struct link_waiting ring[8];
    struct link_verdict v;
    uint32_t open = 0;
    link_init(&l, p, 1, 1, NS_PER_S);
    link_head_init(&h, &l, NETEM_UP, ring, 8);
    for (uint64_t i = 0; i < 40; i++) {
        uint64_t now = NS_PER_S + i * NS_PER_MS;
        while (link_head_next(&h, now, &v))
            open--;
        link_head_offer(&h, now, 1500);
        open++;
        while (link_head_next(&h, now, &v))
            open--;
        BUG_ON(open > 8);
    }
    while (open) {
        uint64_t due = link_head_due(&h);
        BUG_ON(due == UINT64_MAX || !link_head_next(&h, due, &v));
        open--;
    }
    BUG_ON(link_head_due(&h) != UINT64_MAX);
}

static void run(const struct netem_profile *p)
{
    struct link l;
    uint64_t now = NS_PER_S;
    link_init(&l, p, 1, 1, now);
    for (uint64_t i = 0; i < 64; i++) {
        uint32_t bytes = 1 + (uint32_t)(i * 977 % 1500);
        struct link_verdict v = link_offer(&l, i & 1, now, bytes);
        check(p, &v, now, bytes);
        BUG_ON(link_state(&l, now) >= LINK_STATE_COUNT);
        BUG_ON(link_state_until(&l, now) <= now);
        now += i % 8 ? NS_PER_MS : 3 * NS_PER_S;
    }
    if (p->dir[NETEM_UP].queue_head)
        head_drop(p);
    struct buf out = BUF_INIT(1u << 16);
    for (int d = NETEM_DRIVER_MODEL; d <= NETEM_DRIVER_PROXY; d++)
        netem_profile_lacks(p, d, &out);
    buf_release(&out);
}

static void read_description(const char *text)
{
    struct netem_profile p;
    struct err_ctx ctx = {0};
    struct buf out = BUF_INIT(1u << 20);
    int rc = netem_profile_parse(&p, text, &ctx);
    BUG_ON(rc != ctx.code);
    BUG_ON(rc && rc != ERR_INVALID && rc != ERR_RANGE && rc != ERR_NOTFOUND && rc != ERR_LIMIT);
    if (!rc) {
        run(&p);
        BUG_ON(netem_profile_show(&out, text, true, NULL));
    }
    buf_release(&out);
}

/* A file that is nowhere but here. */
static void in_file(const uint8_t *data, size_t n, const char *before, const char *after)
{
    char text[128];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, data, n) == (ssize_t)n) {
        snprintf(text, sizeof text, "%s/proc/self/fd/%d%s", before, fd, after);
        read_description(text);
    }
    close(fd);
}

static bool names_file(const char *text)
{
    for (const char *part = text; part; part = strpbrk(part, ",+") ? strpbrk(part, ",+") + 1 : NULL)
        if (part[strcspn(part, ",+=/")] == '/')
            return true;
    return strstr(text, ".json") || strstr(text, "trace=") || strstr(text, "table:");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n && data[0] == 'J') {
        in_file(data + 1, n - 1, "", "");
    } else if (n && data[0] == 'T') {
        in_file(data + 1, n - 1, "delay=5ms,queue_drop=head,trace=", ",queue=9kB");
    } else if (n && data[0] == 'D') {
        in_file(data + 1, n - 1, "delay=5ms,jitter=9ms,dist=table:", ",jitter_corr=5%");
    } else {
        char *text = malloc(n + 1);
        if (!text)
            return 0;
        memcpy(text, data, n);
        text[n] = 0;
        if (!names_file(text)) /* none but ours */
            read_description(text);
        free(text);
    }
    return 0;
}

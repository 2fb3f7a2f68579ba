/* pcap: WebSocket messages out of captures, or of an interface. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-trace/rows.h"
#include "cmd/chat-trace/tool.h"
#include "util/clock.h"
#include "wire/decode.h"
#include "wire/dialect.h"
#include "wire/pcap/live.h"
#include "wire/pcap/writer.h"

#define MEM_MIN   (48u << 20) /* below this there is hardly room for connections */
#define MEM_FIXED (36u << 20) /* program, libraries, blocks of input and output */

struct listing {
    struct tap tap;
    struct chat_decoder decoder;
    struct rows rows;
    struct capture_filter *filter;
    struct capture_writer *writer;
    uint32_t point, writer_ifaces;
    uint64_t last_ns;
    uint64_t packets, filtered, other, fragments, cut_short, bad, unknown_link, dropped, bytes;
    uint64_t ends[TCP_ENDS], tls_ends[TCP_ENDS];
    bool quiet_rows; /* only the summary */
};

static volatile sig_atomic_t interrupted;
static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void on_message(void *arg, const struct tap_message *m)
{
    struct listing *l = arg;
    struct chat_item item[CHAT_ITEMS_MAX];
    if (l->quiet_rows)
        return;
    int n = chat_decode(&l->decoder, m, item, CHAT_ITEMS_MAX);
    rows_put(&l->rows, m, item, n);
}

static void on_open(void *arg, struct tcp_flow *f)
{
    (void)arg;
    rows_open(f);
}

static void on_close(void *arg, struct tcp_flow *f)
{
    struct listing *l = arg;
    rows_close(f);
    if (tap_conn(f)->kind == TAP_WEBSOCKET)
        l->ends[f->end]++;
    if (tap_conn(f)->kind == TAP_TLS)
        l->tls_ends[f->end]++;
}

static void take_packet(struct listing *l, const struct capture_packet *k)
{
    struct packet p;
    if (!packet_link_known(k->link)) {
        l->unknown_link++;
        return;
    }
    switch (packet_read(&p, k->link, k->p, k->n, k->wire)) {
    case PACKET_TCP:
        tap_packet(&l->tap, &p, l->point + k->iface, k->ts_ns, k->number);
        break;
    case PACKET_PDU:
        tcp_pdu(&l->tap.tcp, &p, l->point + k->iface, k->ts_ns, k->number);
        break;
    case PACKET_OTHER:
        l->other++;
        break;
    case PACKET_FRAGMENT:
        l->fragments++;
        break;
    case PACKET_SHORT:
        l->cut_short++;
        break;
    case PACKET_BAD:
        l->bad++;
        break;
    }
}

static int copy_out(struct listing *l, const struct capture_packet *k, struct err_ctx *err)
{
    while (l->writer_ifaces <= k->iface) { /* a later interface of the same file */
        int rc = capture_writer_iface(l->writer, k->link, NULL, err);
        if (rc < 0)
            return rc;
        l->writer_ifaces++;
    }
    return capture_writer_put(l->writer, k->iface, k, err);
}

/* 1: go on. */
static int offer(struct listing *l, const struct capture_packet *k, struct err_ctx *err)
{
    l->packets++;
    l->bytes += k->n;
    l->dropped += k->dropped;
    int rc = l->filter ? capture_filter_pass(l->filter, k, err) : 1;
    if (rc <= 0) {
        l->filtered += rc == 0;
        return rc < 0 ? rc : 1;
    }
    if (l->writer && (rc = copy_out(l, k, err)) < 0)
        return rc;
    take_packet(l, k);
    return 1;
}

static int read_file(struct listing *l, const char *path, struct err_ctx *err)
{
    struct capture_file *f = NULL;
    struct capture_packet k;
    int rc = capture_open_file(&f, path, err);
    bool first = true;
    while (rc >= 0 && !interrupted && (rc = capture_next(f, &k, err)) > 0) {
        /* files that follow each other are one capture; one that goes back in time was taken elsewhere */
        if (first && k.ts_ns < l->last_ns) {
            tap_finish(&l->tap);
            l->point += CAPTURE_IFACES_MAX;
        }
        first = false;
        if (k.ts_ns > l->last_ns)
            l->last_ns = k.ts_ns;
        rc = offer(l, &k, err);
        if (!(k.number & 0xffff) && l->rows.out && out_failed(l->rows.out))
            break;
    }
    if (f)
        l->dropped += capture_dropped(f);
    capture_close_file(f);
    return rc < 0 ? rc : 0;
}

static int read_live(struct listing *l, const struct opt_set *o, struct err_ctx *err)
{
    struct capture_live *live = NULL;
    struct capture_packet k;
    const char *iface = opt_string(o, "interface");
    uint64_t limit = opt_u64(o, "for"), end = limit ? clock_mono_ns() + limit : UINT64_MAX;
    int rc = capture_live_open(&live, iface, opt_string(o, "filter"), 0x40000, 0, err);
    if (rc == 0 && l->writer)
        rc = capture_writer_iface(l->writer, capture_live_link(live), iface, err);
    l->writer_ifaces = 1;
    if (rc >= 0 && opt_verbosity(o) >= 0)
        fprintf(stderr, "chat-trace: capturing on %s; Ctrl-C ends it\n", iface);
    while (rc >= 0 && !interrupted && clock_mono_ns() < end) {
        rc = capture_live_next(live, &k, err);
        if (rc > 0)
            rc = offer(l, &k, err);
        else if (l->rows.out)
            out_flush(l->rows.out);
        if (l->rows.out && out_failed(l->rows.out))
            break;
    }
    if (live)
        l->dropped += capture_live_dropped(live);
    if (rc >= 0 && l->writer)
        rc = capture_writer_stats(l->writer, 0, clock_wall_us() * 1000, l->packets, l->dropped, err);
    capture_live_close(live);
    return rc < 0 ? rc : 0;
}

/* ---- what it came to ---- */

struct figure {
    const char *name, *text; /* text NULL: only in JSON */
    uint64_t value;
    bool hole; /* makes the result inconclusive */
};

static int figures(const struct listing *l, struct figure *f)
{
    const struct tap_counts *t = &l->tap.count;
    const struct tcp_counts *c = &l->tap.tcp.count;
    const struct figure all[] = {
        {"packets", "packets", l->packets, false},
        {"filtered", "filtered out", l->filtered, false},
        {"not_tcp", "not TCP", l->other, false},
        {"connections", "TCP connections", c->flows, false},
        {"websocket", "WebSocket", t->conns[TAP_WEBSOCKET], false},
        {"tls", "TLS (not read)", t->conns[TAP_TLS], false},
        {"tls_fin", "of them closed", l->tls_ends[TCP_END_FIN], false},
        {"tls_rst", "of them reset", l->tls_ends[TCP_END_RST], false},
        {"tls_open", "of them open at the end", l->tls_ends[TCP_END_OPEN], false},
        {"http", "HTTP", t->conns[TAP_HTTP], false},
        {"messages", "messages", t->messages, false},
        {"retransmitted_packets", "retransmitted packets", c->again_packets, false},
        {"late_packets", "packets out of order", c->late_packets, false},
        {"duplicate_packets", "packets captured twice", c->copies, false},
        {"guessed", "connections without handshake", t->guesses, false},
        {"resyncs", "streams found again after a gap", t->resyncs, false},
        {"incomplete", "messages with holes", t->incomplete, true},
        {"cut", "messages longer than is kept", t->cut, true},
        {"unreadable", "messages whose compression can't be undone", t->unreadable, true},
        {"bombs", "compression bombs", t->bombs, true},
        {"bad_frames", "frames that are none", t->bad_frames, true},
        {"bad_binary", "binary messages that are none", l->decoder.bad, true},
        {"missed_bytes", "bytes that the capture missed", c->missed_bytes, true},
        {"unacked_bytes", "bytes never captured and never acknowledged", c->unacked_bytes, false},
        {"snapped_bytes", "bytes snapped off", c->snapped_bytes, true},
        {"evicted", "connections evicted (--mem)", c->evicted, true},
        {"limit_bytes", "bytes let go (--mem)", c->limit_bytes, true},
        {"no_memory", "allocations that failed", c->no_memory, true},
        {"conflicts", "segments that contradict earlier ones", c->conflicts, false},
        {"out_of_window", "segments outside of any window", c->out_of_window, false},
        {"fragments", "IP fragments (not put together)", l->fragments, true},
        {"short_headers", "packets with cut headers", l->cut_short, true},
        {"bad_headers", "packets that contradict themselves", l->bad, false},
        {"unknown_link", "packets of unknown link types", l->unknown_link, true},
        {"dropped", "packets dropped while capturing", l->dropped, true},
        {"rows_lost", "rows too long to print", l->rows.lost, true},
        {"ended_fin", NULL, l->ends[TCP_END_FIN], false},
        {"ended_rst", NULL, l->ends[TCP_END_RST], false},
        {"ended_reused", NULL, l->ends[TCP_END_REUSED], false},
        {"still_open", NULL, l->ends[TCP_END_OPEN], false},
        {"memory_bytes_max", NULL, l->tap.tcp.used_max, false},
    };
    memcpy(f, all, sizeof all);
    return sizeof all / sizeof *all;
}

static bool summarize(const struct listing *l, const struct opt_set *o)
{
    struct figure f[64];
    int n = figures(l, f);
    bool hole = false;
    for (int i = 0; i < n; i++)
        hole |= f[i].hole && f[i].value;
    if (opt_json(o)) {
        putchar('{');
        for (int i = 0; i < n; i++)
            printf("%s\"%s\":%" PRIu64, i ? "," : "", f[i].name, f[i].value);
        puts("}");
        return hole;
    }
    if (opt_verbosity(o) < 0)
        return hole;
    for (int i = 0; i < n; i++)
        if (f[i].text && (f[i].value || i == 0))
            fprintf(stderr, "%12" PRIu64 "  %s\n", f[i].value, f[i].text);
    if (!l->tap.count.conns[TAP_WEBSOCKET])
        fputs("no WebSocket connection in it\n", stderr);
    if (l->tap.count.conns[TAP_TLS])
        fputs("TLS is recognised, not decrypted: with its key log, tshark can write the plain bytes "
              "(chat-trace "
              "--man says how)\n",
              stderr);
    return hole;
}

static int prepare(struct listing *l, const struct opt_set *o, struct err_ctx *err)
{
    const char *form = opt_string(o, "to"), *filter = opt_string(o, "filter"), *copy = opt_string(o, "write");
    uint64_t mem = opt_u64(o, "mem");
    if (mem < MEM_MIN)
        return err_set(err, ERR_USAGE, "--mem: at least 48MiB");
    if (opt_string(o, "dialect")) {
        int bad = dialect_load(&l->decoder.dialect, opt_string(o, "dialect"), err);
        if (bad)
            return bad;
    }
    struct tcp_config c = {.memory = (size_t)(mem - MEM_FIXED)};
    struct tap_events on = {.arg = l, .open = on_open, .message = on_message, .close = on_close};
    int rc = tap_init(&l->tap, &c, &on, err);
    l->quiet_rows = opt_json(o);
    l->rows.payload = opt_flag(o, "payload");
    l->rows.form = !strcmp(form, "jsonl") ? ROWS_JSONL : !strcmp(form, "tsv") ? ROWS_TSV : ROWS_TEXT;
    if (!rc && !l->quiet_rows)
        rc = out_open(&l->rows.out, STDOUT_FILENO, err);
    if (!rc && filter && !opt_given(o, "interface"))
        rc = capture_filter_new(&l->filter, filter, err);
    if (!rc && copy)
        rc = capture_writer_open(&l->writer, copy, "chat-trace " CHAT_VERSION, err);
    return rc;
}

static int read_all(struct listing *l, const struct opt_set *o, struct err_ctx *err)
{
    const char *const *path;
    int n = opt_list(o, "read", &path), rc = 0;
    if (opt_given(o, "interface"))
        return read_live(l, o, err);
    for (int i = 0; !rc && i < n; i++)
        rc = read_file(l, path[i], err);
    for (int i = 0; !rc && i < opt_operands(o); i++)
        rc = read_file(l, opt_operand(o, i), err);
    return rc;
}

int tool_pcap(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct listing l = {0};
    const char *const *path;
    int files = opt_list(o, "read", &path) + opt_operands(o);
    if (!!files == opt_given(o, "interface"))
        return err_set(err, ERR_USAGE, "pcap: -r FILE... or -i IFACE");
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    int rc = prepare(&l, o, err);
    if (!rc) {
        rc = read_all(&l, o, err);
        tap_finish(&l.tap);
    }
    struct err_ctx later = {0};
    int closed = l.rows.out ? out_close(l.rows.out, &later) : 0;
    int wrote = capture_writer_close(l.writer, closed ? NULL : &later);
    if (!rc && (closed || wrote))
        rc = err_set(err, closed ? closed : wrote, "%s", later.text);
    bool hole = (l.packets || opt_given(o, "interface")) && summarize(&l, o);
    *status = interrupted && !opt_given(o, "interface") ? err_exit_status(ERR_INTERRUPTED) : hole ? 2 : 0;
    capture_filter_free(l.filter);
    chat_decoder_release(&l.decoder);
    dialect_free(l.decoder.dialect);
    tap_release(&l.tap);
    return rc;
}

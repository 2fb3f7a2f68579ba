/* TUN links do what the model says, for each packet: logged arrivals asked again of fresh links, and captures
 * read by a small reader of our own. Needs root and /dev/net/tun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/link.h"
#include "netem/tun/tun.h"
#include "util/clock.h"

#define PHONE   (NETEM_NEAR_NET + 1)
#define PORT    6000
#define WAIT_NS (10 * NS_PER_S)

static struct tun_world *world;
static struct tun_fates *fates;
static struct tun_group group;
static int near_fd = -1, far_fd = -1;

static bool can_run(void)
{
    return geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0;
}

static struct sockaddr_in at(uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(host), .sin_port = htons(port)};
}

static int bound(struct tun_world *w, bool near, uint32_t host, uint16_t port)
{
    int fd = -1, size = 16 << 20;
    struct sockaddr_in a = at(host, port);
    assert_int_equal(tun_world_socket(w, near, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, &fd, NULL), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void begin(const char *profile, uint32_t phones, const char *capture)
{
    struct err_ctx err = {0};
    group = (struct tun_group){.name = "x", .first = PHONE, .count = phones};
    fates = tun_fates_new(1 << 18);
    struct tun_config c = {
        .groups = &group, .groups_n = 1, .seed = 7, .fates = fates, .capture_dir = capture};
    if (netem_profile_parse(&group.profile, profile, &err) || tun_world_start(&world, &c, &err))
        fail_msg("%s", err.text);
    near_fd = bound(world, true, PHONE, PORT);
    far_fd = bound(world, false, NETEM_FAR_ADDR, PORT);
}

static void end(void)
{
    tun_world_stop(world);
    tun_fates_free(fates);
    close(near_fd);
    close(far_fd);
    world = NULL;
}

static void throw(int fd, uint32_t host, const void *data, size_t n)
{
    struct sockaddr_in a = at(host, PORT);
    assert_int_equal(sendto(fd, data, n, 0, (struct sockaddr *)&a, sizeof a), n);
}

static uint32_t drain(int fd)
{
    char got[2048];
    uint32_t n = 0;
    while (recv(fd, got, sizeof got, 0) >= 0)
        n++;
    return n;
}

/* Both ways, in clumps, so that queues fill and empty. */
static void traffic(int n)
{
    char data[1200] = "";
    for (int i = 0; i < n; i++) {
        throw(near_fd, NETEM_FAR_ADDR, data, 40 + (size_t)(i * 37 % 1100));
        throw(far_fd, PHONE, data, 40 + (size_t)(i * 53 % 1100));
        if (i % 20 == 19)
            poll(NULL, 0, 4);
        drain(near_fd);
        drain(far_fd);
    }
}

/* Until everything that was offered has come to its end. */
static void await_ends(void)
{
    for (uint64_t until = clock_mono_ns() + WAIT_NS; clock_mono_ns() < until;) {
        uint64_t n = __atomic_load_n(&fates->n, __ATOMIC_ACQUIRE), open = 0;
        for (uint64_t i = 0; i < n; i++)
            open += fates->at[i].kind == TUN_FATE_PACKET && !(fates->at[i].flags & TUN_FATE_FINAL);
        if (!open)
            return;
        poll(NULL, 0, 2);
    }
    fail_msg("packets are still under way");
}

static void agree(uint64_t at_least)
{
    struct tun_replay r;
    assert_int_equal(tun_fates_replay(fates, &group, 1, 7, &r, NULL), 0);
    if (r.differ)
        fail_msg("%llu of %llu packets differ, first %llu", (unsigned long long)r.differ,
                 (unsigned long long)r.packets, (unsigned long long)r.first);
    assert_int_equal(r.unknown, 0);
    assert_true(r.packets >= at_least);
    assert_int_equal(fates->missed, 0);
}

static uint64_t sum(const struct tun_stats *s)
{
    uint64_t n = 0;
    for (int i = 0; i < REASON_COUNT; i++)
        n += s->dropped[i];
    return n;
}

static void test_every_fate_is_the_models(void **state)
{
    static const char *const profiles[] = {
        "none",
        "lte-lossy",
        "rate=8mbit,delay=10ms,jitter=4ms,loss=5%,burst=3,queue=20kB",
        "rate=5mbit,delay=10ms,loss=3%,queue=15kB,queue_drop=head,nat_idle=60s",
        "delay=8ms,jitter=3ms,duplicate=5%,corrupt=5%,reorder=10%",
        "rate=4mbit,delay=5ms,blackout_every=200ms,blackout_for=50ms..80ms,handover_every=300ms,handover_for="
        "60ms,"
        "handover_loses=50%,nat_idle=1s,stall_every=150ms,stall_for=30ms",
    };
    (void)state;
    if (!can_run())
        skip();
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        begin(profiles[i], 1, NULL);
        traffic(1500);
        await_ends();
        agree(2900);
        struct tun_stats s;
        tun_world_stats(world, "*", &s);
        uint64_t handed = 0;
        for (uint64_t k = 0; k < fates->n; k++) {
            const struct tun_fate *f = &fates->at[k];
            handed += f->handed_ns != 0;
            if (f->handed_ns)
                assert_true(f->handed_ns >= f->deliver_ns);
        }
        assert_int_equal(handed + sum(&s), s.packets_up + s.packets_down);
        if (strstr(profiles[i], "duplicate")) {
            assert_true(s.duplicated > 50 && s.corrupted > 50 && s.reordered > 50);
        }
        if (strstr(profiles[i], "queue=1"))
            assert_true(s.dropped[REASON_QUEUE_FULL] > 0);
        end();
    }
}

static void test_a_replay_notices_what_is_wrong(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    struct tun_replay r;
    begin("delay=1ms,loss=10%", 1, NULL);
    traffic(200);
    await_ends();
    assert_int_equal(tun_fates_replay(fates, &group, 1, 8, &r, NULL), 0); /* another seed */
    assert_true(r.differ > 10);
    fates->at[5].deliver_ns++;
    assert_int_equal(tun_fates_replay(fates, &group, 1, 7, &r, NULL), 0);
    assert_int_equal(r.differ, 1);
    assert_int_equal(r.first, 5);
    end();
}

static void test_orders_are_part_of_the_log(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    begin("rate=2mbit,delay=20ms,queue=30kB,queue_drop=head", 1, NULL);
    traffic(100);
    assert_int_equal(tun_world_attach(world, "x", PHONE, false, NULL), 0);
    traffic(20);
    assert_int_equal(tun_world_attach(world, "x", 0, true, NULL), 0);
    traffic(20);
    assert_int_equal(tun_world_blackout_of(world, "x", PHONE, 50 * NS_PER_MS, NULL), 0);
    assert_int_equal(tun_world_blackout_of(world, "x", PHONE + 1, NS_PER_S, NULL), ERR_NOTFOUND);
    traffic(100);
    await_ends();
    agree(400);
    struct tun_stats s;
    tun_world_stats(world, "x", &s);
    assert_true(s.dropped[REASON_DETACHED] >= 40);
    assert_true(s.dropped[REASON_BLACKOUT] > 0);
    end();
}

/* More packets than a drop-head queue has places for. */
static void test_a_drop_head_queue_gives_up_its_oldest_when_it_has_no_place(void **state)
{
    enum { SENT = 9000, PLACES = 8192 };
    struct tun_stats s = {0};
    (void)state;
    if (!can_run())
        skip();
    begin("up.rate=1kbit,up.queue=10MB,up.queue_drop=head", 1, NULL);
    for (int i = 0; i < SENT; i++)
        throw(near_fd, NETEM_FAR_ADDR, &i, sizeof i);
    for (uint64_t until = clock_mono_ns() + WAIT_NS; s.packets_up < SENT && clock_mono_ns() < until;)
        tun_world_stats(world, "*", &s);
    assert_int_equal(s.packets_up, SENT);
    tun_world_profile(world, "x", "none", NULL); /* what waits is offered anew, and arrives */
    uint32_t got = 0;
    int last = -1;
    /* one may be on the air already: then there is one more than places */
    for (uint64_t until = clock_mono_ns() + WAIT_NS; last < SENT - 1 && clock_mono_ns() < until;) {
        int i;
        poll(&(struct pollfd){far_fd, POLLIN, 0}, 1, 50);
        for (; recv(far_fd, &i, sizeof i, 0) == sizeof i; got++) {
            assert_true(i > last);
            last = i;
        }
    }
    tun_world_stats(world, "*", &s);
    assert_int_equal(last, SENT - 1);
    assert_int_equal(got + s.dropped[REASON_QUEUE_FULL], SENT);
    assert_true(got >= PLACES - 1);
    end();
}

static void test_a_live_change_of_network_loses_no_packet_under_way(void **state)
{
    char data[100] = "";
    (void)state;
    if (!can_run())
        skip();
    begin("rate=1mbit,delay=50ms,queue=100kB,queue_drop=head", 1, NULL);
    for (int i = 0; i < 100; i++)
        throw(near_fd, NETEM_FAR_ADDR, data, sizeof data);
    struct err_ctx err = {0};
    assert_int_equal(tun_world_profile(world, "x", "loss=nonsense", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "nonsense"));
    assert_int_equal(tun_world_profile(world, "x", "delay=1ms", &err), 0);
    uint32_t got = 0;
    for (uint64_t until = clock_mono_ns() + WAIT_NS; got < 100 && clock_mono_ns() < until;) {
        poll(&(struct pollfd){far_fd, POLLIN, 0}, 1, 50);
        got += drain(far_fd);
    }
    assert_int_equal(got, 100);
    assert_int_equal(tun_world_profile(world, "x", "loss=100%", &err), 0);
    throw(near_fd, NETEM_FAR_ADDR, data, 10);
    struct tun_stats s = {0};
    for (uint64_t until = clock_mono_ns() + WAIT_NS; !s.dropped[REASON_LOSS] && clock_mono_ns() < until;)
        tun_world_look(world, "x", &s, NULL);
    assert_int_equal(s.dropped[REASON_LOSS], 1);
    assert_int_equal(s.radios, 1);
    assert_int_equal(s.in_state[LINK_UP], 1);
    end();
}

static void test_a_phone_is_told_that_a_handover_took_its_address(void **state)
{
    struct netem_control c;
    (void)state;
    if (!can_run())
        skip();
    begin("handover_every=150ms,handover_for=20ms,handover_loses=100%,nat_idle=60s", 1, NULL);
    int modem = bound(world, true, PHONE, NETEM_CONTROL_PORT);
    throw(near_fd, NETEM_FAR_ADDR, "hi", 2); /* a radio begins with its first packet */
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    assert_int_equal(poll(&(struct pollfd){modem, POLLIN, 0}, 1, (int)(WAIT_NS / NS_PER_MS)), 1);
    assert_int_equal(recvfrom(modem, &c, sizeof c, 0, (struct sockaddr *)&from, &n), sizeof c);
    assert_memory_equal(c.magic, "nctl", 4);
    assert_int_equal(c.op, NETEM_MOVED);
    assert_int_equal(ntohl(from.sin_addr.s_addr), NETEM_CONTROL_ADDR);
    close(modem);
    struct tun_stats s = {0};
    for (uint64_t until = clock_mono_ns() + WAIT_NS; s.moved < 2 && clock_mono_ns() < until;)
        tun_world_stats(world, "*", &s); /* nobody listens now, which must not look like traffic */
    assert_true(s.moved >= 2);
    assert_int_equal(s.packets_up, 1);
    end();
}

static void test_a_thousand_radios_have_their_own_fates(void **state)
{
    enum { PHONES = 1000, EACH = 20 };
    static uint32_t got[PHONES + 1];
    static char pattern[PHONES + 1][EACH + 1];
    int fds[PHONES + 1];
    (void)state;
    if (!can_run())
        skip();
    begin("delay=5ms,loss=30%", PHONES + 1, NULL);
    for (int i = 1; i <= PHONES; i++)
        fds[i] = bound(world, true, PHONE + (uint32_t)i, PORT);
    for (int k = 0; k < EACH; k++)
        for (int i = 1; i <= PHONES; i++)
            throw(fds[i], NETEM_FAR_ADDR, &k, sizeof k);
    await_ends();
    agree(PHONES * EACH);
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    memset(got, 0, sizeof got);
    for (int k; recvfrom(far_fd, &k, sizeof k, 0, (struct sockaddr *)&from, &n) == sizeof k;) {
        uint32_t i = ntohl(from.sin_addr.s_addr) - PHONE;
        assert_true(i >= 1 && i <= PHONES && k < EACH);
        pattern[i][k] = 1;
        got[i]++;
    }
    struct tun_stats s;
    tun_world_look(world, "x", &s, NULL);
    assert_int_equal(s.overrun, 0);
    assert_int_equal(s.radios, PHONES);
    uint64_t arrived = 0;
    uint32_t alike = 0;
    for (int i = 1; i <= PHONES; i++) {
        arrived += got[i];
        alike += i > 1 && memcmp(pattern[i], pattern[i - 1], EACH) == 0;
        close(fds[i]);
    }
    assert_int_equal(arrived + s.dropped[REASON_LOSS], PHONES * EACH);
    assert_true(arrived > 13600 && arrived < 14400); /* 14,000 +- 65 */
    assert_true(alike < 20);
    end();
}

static void test_links_that_share_a_far_side_keep_to_themselves(void **state)
{
    struct tun_world *other;
    char data[64];
    (void)state;
    if (!can_run())
        skip();
    struct tun_group g = {.name = "y", .first = NETEM_NEAR_NET + 0x101, .count = 255};
    struct tun_config c = {.groups = &g, .groups_n = 1, .seed = 7};
    begin("none", 1, NULL);
    tun_world_stop(world); /* a first world with a block of its own, then one beside it */
    close(near_fd);
    close(far_fd);
    group.count = 255;
    struct tun_config first = {
        .groups = &group, .groups_n = 1, .seed = 7, .block = NETEM_NEAR_NET, .block_prefix = 24};
    assert_int_equal(tun_world_start(&world, &first, NULL), 0);
    c.beside = world;
    c.block = NETEM_NEAR_NET + 0x100;
    c.block_prefix = 24;
    assert_int_equal(netem_profile_parse(&g.profile, "delay=30ms", NULL), 0);
    assert_int_equal(tun_world_start(&other, &c, NULL), 0);
    near_fd = bound(world, true, PHONE, PORT);
    int near_other = bound(other, true, g.first, PORT);
    far_fd = bound(world, false, NETEM_FAR_ADDR, PORT);
    throw(near_other, NETEM_FAR_ADDR, "slow", 4);
    throw(near_fd, NETEM_FAR_ADDR, "fast", 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(poll(&(struct pollfd){far_fd, POLLIN, 0}, 1, 5000), 1);
        assert_int_equal(recv(far_fd, data, sizeof data, 0), 4);
        assert_memory_equal(data, i ? "slow" : "fast", 4);
    }
    tun_world_stop(world); /* the far side stays with the other */
    world = NULL;
    throw(near_other, NETEM_FAR_ADDR, "stay", 4);
    assert_int_equal(poll(&(struct pollfd){far_fd, POLLIN, 0}, 1, 5000), 1);
    throw(far_fd, g.first, "back", 4);
    assert_int_equal(poll(&(struct pollfd){near_other, POLLIN, 0}, 1, 5000), 1);
    tun_world_stop(other);
    close(near_other);
    end();
}

/* ---- pcapng ---- */

struct seen {
    uint32_t packets, arrived, delivered, lost, copies, corrupted, unsorted;
    uint64_t drops; /* of the statistics block */
    bool statistics;
};

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static const char *option(const uint8_t *p, const uint8_t *end, uint16_t code, char *out, size_t cap)
{
    while (p + 4 <= end) {
        uint16_t head[2];
        memcpy(head, p, 4);
        if (!head[0])
            break;
        if (head[0] == code) {
            size_t n = head[1] < cap - 1 ? head[1] : cap - 1;
            memcpy(out, p + 4, n);
            out[n] = 0;
            return out;
        }
        p += 4 + (head[1] + 3u) / 4 * 4;
    }
    return NULL;
}

/* One file, block by block, lengths checked at both ends. */
static void read_capture(struct seen *s, const char *path)
{
    static uint8_t file[16 << 20];
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    size_t n = fread(file, 1, sizeof file, f), at = 0;
    fclose(f);
    uint64_t last = 0;
    *s = (struct seen){0};
    assert_true(n > 28 && u32(file) == 0x0A0D0D0A && u32(file + 8) == 0x1A2B3C4D);
    while (at < n) {
        uint32_t type = u32(file + at), len = u32(file + at + 4);
        char text[300];
        assert_true(len >= 12 && len % 4 == 0 && at + len <= n && u32(file + at + len - 4) == len);
        const uint8_t *b = file + at + 8, *close = file + at + len - 4;
        if (type == 1)
            assert_int_equal(b[0] | b[1] << 8, 101);
        if (type == 5) {
            s->statistics = true;
            if (option(b + 12, close, 5, text, sizeof text))
                memcpy(&s->drops, text, 8);
        }
        if (type == 6) {
            uint64_t ts = (uint64_t)u32(b + 4) << 32 | u32(b + 8);
            uint32_t cap = u32(b + 12);
            assert_non_null(option(b + 20 + (cap + 3) / 4 * 4, close, 1, text, sizeof text));
            bool whole = !strstr(text, "fate=arrived") || !strstr(text, " corrupted");
            assert_true(!whole || (b[20] >> 4 == 4 && (b[22] << 8 | b[23]) == (int)cap)); /* IPv4 */
            s->packets++;
            s->unsorted += ts < last;
            last = ts;
            s->arrived += strncmp(text, "fate=arrived sent=-", 19) == 0;
            s->delivered += strncmp(text, "fate=delivered air=+", 20) == 0;
            s->lost += strncmp(text, "fate=lost reason=\"", 18) == 0;
            s->copies += strstr(text, " copy") != NULL;
            s->corrupted += strstr(text, "fate=arrived") && strstr(text, " corrupted");
        }
        at += len;
    }
}

static void test_a_capture_tells_each_packets_fate_at_both_ends(void **state)
{
    char dir[] = "/tmp/test-capture-XXXXXX", path[64], command[64];
    struct seen near, far;
    struct tun_stats s;
    (void)state;
    if (!can_run())
        skip();
    assert_non_null(mkdtemp(dir));
    begin("rate=20mbit,delay=8ms,jitter=3ms,duplicate=4%,corrupt=4%,loss=6%,queue=20kB", 1, dir);
    traffic(2000);
    await_ends();
    poll(NULL, 0, 100); /* copies have no record in the log */
    tun_world_stats(world, "*", &s);
    end();
    snprintf(path, sizeof path, "%s/near.pcapng", dir);
    read_capture(&near, path);
    snprintf(path, sizeof path, "%s/far.pcapng", dir);
    read_capture(&far, path);
    assert_int_equal(s.capture_missed, 0);
    assert_int_equal(near.delivered + near.lost, s.packets_up);
    assert_int_equal(far.delivered + far.lost, s.packets_down);
    assert_int_equal(near.lost + far.lost, sum(&s));
    assert_int_equal(far.arrived + near.arrived, near.delivered + far.delivered + s.duplicated);
    assert_int_equal(far.copies + near.copies, s.duplicated);
    assert_int_equal(far.corrupted + near.corrupted, s.corrupted);
    assert_true(s.duplicated > 20 && s.corrupted > 20 && near.lost > 20);
    assert_int_equal(near.unsorted + far.unsorted, 0);
    assert_true(near.statistics && far.statistics && !near.drops && !far.drops);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fate_is_the_models),
        cmocka_unit_test(test_a_replay_notices_what_is_wrong),
        cmocka_unit_test(test_orders_are_part_of_the_log),
        cmocka_unit_test(test_a_drop_head_queue_gives_up_its_oldest_when_it_has_no_place),
        cmocka_unit_test(test_a_live_change_of_network_loses_no_packet_under_way),
        cmocka_unit_test(test_a_phone_is_told_that_a_handover_took_its_address),
        cmocka_unit_test(test_a_thousand_radios_have_their_own_fates),
        cmocka_unit_test(test_links_that_share_a_far_side_keep_to_themselves),
        cmocka_unit_test(test_a_capture_tells_each_packets_fate_at_both_ends),
    };
    return cmocka_run_group_tests_name("tun model", tests, NULL, NULL);
}

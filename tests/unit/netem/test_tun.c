/* Links over TUN, judged by plain sockets on both sides and by the trace that stays. Needs root and
 * /dev/net/tun. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "netem/link.h"
#include "netem/tun/tun.h"
#include "trace/reader.h"
#include "util/clock.h"

#define PHONE_A  (NETEM_NEAR_NET + 1)
#define PHONE_B  (NETEM_NEAR_NET + 0x101)
#define STRANGER (NETEM_NEAR_NET + 0x909)
#define WAIT_NS  (5 * NS_PER_S)

static struct tun_world *world;
static char trace_dir[] = "/tmp/test-tun-XXXXXX";

static bool can_run(void)
{
    return geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0;
}

static struct sockaddr_in at(uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(host), .sin_port = htons(port)};
}

static int bound(bool near, int type, uint32_t host, uint16_t port)
{
    int fd = -1, one = 1;
    struct sockaddr_in a = at(host, port);
    assert_int_equal(tun_world_socket(world, near, AF_INET, type, &fd, NULL), 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void throw(int fd, uint32_t host, uint16_t port, const void *data, size_t n)
{
    struct sockaddr_in a = at(host, port);
    assert_int_equal(sendto(fd, data, n, 0, (struct sockaddr *)&a, sizeof a), n);
}

static void order(int fd, enum netem_control_op op)
{
    struct netem_control c = {"nctl", (uint8_t)op, {0}};
    throw(fd, NETEM_CONTROL_ADDR, NETEM_CONTROL_PORT, &c, sizeof c);
}

/* The datagram that comes next is `text`. */
static void expect(int fd, const char *text)
{
    char got[64] = "";
    struct pollfd p = {fd, POLLIN, 0};
    assert_int_equal(poll(&p, 1, (int)(WAIT_NS / NS_PER_MS)), 1);
    assert_true(recv(fd, got, sizeof got - 1, 0) > 0);
    assert_string_equal(got, text);
}

static void await_drops(const char *group, enum reason why, uint64_t n)
{
    struct tun_stats s;
    uint64_t end = clock_mono_ns() + WAIT_NS;
    do {
        assert_int_equal(tun_world_stats(world, group, &s), 0);
    } while (s.dropped[why] < n && clock_mono_ns() < end);
    assert_int_equal(s.dropped[why], n);
}

static int start(void **state)
{
    (void)state;
    struct tun_group groups[2] = {{.name = "a", .first = PHONE_A, .count = 2},
                                  {.name = "b", .first = PHONE_B, .count = 1}};
    struct tun_config c = {.groups = groups, .groups_n = 2, .seed = 1, .trace_dir = trace_dir};
    struct err_ctx err = {0};
    if (!can_run())
        return 0;
    if (!mkdtemp(trace_dir) || netem_profile_parse(&groups[0].profile, "delay=20ms", &err) ||
        netem_profile_parse(&groups[1].profile, "nat_idle=150ms", &err) ||
        tun_world_start(&world, &c, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int end(void **state)
{
    (void)state;
    char command[64];
    if (!can_run())
        return 0;
    snprintf(command, sizeof command, "rm -r %s", trace_dir);
    return system(command);
}

static void test_packets_arrive_after_their_delay_and_in_order(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int phone = bound(true, SOCK_DGRAM, PHONE_A, 5000),
        server = bound(false, SOCK_DGRAM, NETEM_FAR_ADDR, 6000);
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        uint64_t began = clock_mono_ns();
        throw(phone, NETEM_FAR_ADDR, 6000, "one", 3);
        throw(phone, NETEM_FAR_ADDR, 6000, "two", 3);
        expect(server, "one");
        uint64_t took = clock_mono_ns() - began;
        expect(server, "two");
        throw(server, PHONE_A, 5000, "down", 4);
        expect(phone, "down");
        assert_true(took >= 20 * NS_PER_MS);
        best = took < best ? took : best;
    }
    assert_true(best < 21 * NS_PER_MS); /* a busy machine may be late, not always */
    close(phone);
    close(server);
}

static void test_a_phone_tells_its_link_in_band_that_it_leaves(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int phone = bound(true, SOCK_DGRAM, PHONE_A, 5001),
        server = bound(false, SOCK_DGRAM, NETEM_FAR_ADDR, 6001);
    throw(phone, NETEM_FAR_ADDR, 6001, "before", 6); /* on the air already when the phone leaves */
    order(phone, NETEM_DETACH);
    throw(phone, NETEM_FAR_ADDR, 6001, "gone", 4);
    expect(server, "before");
    throw(server, PHONE_A, 5001, "gone", 4);
    await_drops("a", REASON_DETACHED, 2);
    order(phone, NETEM_ATTACH);
    throw(phone, NETEM_FAR_ADDR, 6001, "back", 4);
    expect(server, "back");
    throw(server, PHONE_A, 5001, "back", 4);
    expect(phone, "back");
    close(phone);
    close(server);
}

static void test_a_blackout_meets_one_group_and_ends(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int a = bound(true, SOCK_DGRAM, PHONE_A + 1, 5002), b = bound(true, SOCK_DGRAM, PHONE_B, 5002),
        server = bound(false, SOCK_DGRAM, NETEM_FAR_ADDR, 6002);
    assert_int_equal(tun_world_blackout(world, "c", NS_PER_S, NULL), ERR_NOTFOUND);
    assert_int_equal(tun_world_blackout(world, "a", 200 * NS_PER_MS, NULL), 0);
    throw(a, NETEM_FAR_ADDR, 6002, "dark", 4); /* also for a radio that was not heard before */
    throw(b, NETEM_FAR_ADDR, 6002, "light", 5);
    expect(server, "light");
    await_drops("a", REASON_BLACKOUT, 1);
    await_drops("b", REASON_BLACKOUT, 0);
    struct pollfd p = {server, POLLIN, 0};
    for (uint64_t until = clock_mono_ns() + WAIT_NS; poll(&p, 1, 20) == 0 && clock_mono_ns() < until;)
        throw(a, NETEM_FAR_ADDR, 6002, "dawn", 4);
    expect(server, "dawn");
    close(a);
    close(b);
    close(server);
}

static void test_addresses_of_no_group_have_no_route(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int phone = bound(true, SOCK_DGRAM, STRANGER, 5003);
    throw(phone, NETEM_FAR_ADDR, 6003, "hello", 5);
    await_drops("*", REASON_NO_ROUTE, 1);
    close(phone);
}

static void test_a_silent_connection_dies_in_the_nat(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int listener = bound(false, SOCK_STREAM, NETEM_FAR_ADDR, 6004),
        phone = bound(true, SOCK_STREAM, PHONE_B, 5004);
    struct sockaddr_in to = at(NETEM_FAR_ADDR, 6004);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(connect(phone, (struct sockaddr *)&to, sizeof to), 0);
    int server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(send(phone, "hi", 2, 0), 2);
    expect(server, "hi");
    poll(NULL, 0, 200); /* the silence is what is tested */
    assert_int_equal(send(server, "?", 1, 0), 1);
    struct tun_stats s;
    for (uint64_t until = clock_mono_ns() + WAIT_NS; clock_mono_ns() < until;) {
        tun_world_stats(world, "b", &s);
        if (s.dropped[REASON_NAT_EXPIRED])
            break;
    }
    assert_true(s.dropped[REASON_NAT_EXPIRED] >= 1);
    struct linger hard = {1, 0};
    setsockopt(server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    setsockopt(phone, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(phone);
    close(server);
    close(listener);
}

/* A background process of the command writes its pid; it and the command end with the world. */
static void test_nothing_outlives_the_world_and_the_trace_is_whole(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    int out[2];
    char text[128] = "", stat[64], where = 'R';
    pid_t pid;
    char *argv[] = {"sh", "-c",
                    "setsid sleep 1000 >/dev/null 2>&1 & echo $! $CHAT_NETEM_LOCAL $CHAT_NETEM_PEER", NULL};
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(tun_world_spawn(world, true, argv, out[1], -1, false, &pid, NULL), 0);
    close(out[1]);
    for (ssize_t n = 0, got; (got = read(out[0], text + n, sizeof text - 1 - (size_t)n)) > 0;)
        n += got;
    close(out[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    int left = atoi(text);
    assert_true(left > 1);
    assert_non_null(strstr(text, " 198.18.0.1 198.19.0.1\n"));
    tun_world_stop(world);
    snprintf(stat, sizeof stat, "/proc/%d/stat", left);
    FILE *f = fopen(stat, "re");
    if (f) {
        assert_int_equal(fscanf(f, "%*d %*s %c", &where), 1);
        fclose(f);
    }
    assert_true(!f || where == 'Z' || where == 'X');

    const char *dirs[] = {trace_dir};
    struct trace_run run;
    uint32_t states[LINK_DETACHED + 1] = {0}, drops[REASON_COUNT] = {0}, syn = 0, payload = 0;
    assert_int_equal(trace_run_load(&run, dirs, 1, NULL), 0);
    assert_int_equal(run.problems, 0);
    assert_true(run.complete[TRACE_SIDE_LINK]);
    for (uint32_t i = 0; i < run.events; i++) {
        const struct trace_event *e = &run.event[i];
        struct trace_flow flow;
        memcpy(&flow, &e->id, sizeof flow);
        assert_int_equal(e->node, TRACE_NODE_LINK);
        if (e->hop == HOP_LINK_STATE) {
            states[e->arg]++;
            continue;
        }
        assert_int_equal(e->user, e->flags & TRACE_FLAG_DOWN ? flow.dst : flow.src);
        if (e->hop == HOP_LINK_DROP)
            drops[e->reason]++;
        if (e->hop != HOP_LINK_DELIVER)
            continue;
        syn += e->flags & TRACE_FLAG_SYN && flow.sport == 5004 && flow.dport == 6004;
        payload += e->arg == 2 && !(e->flags & TRACE_FLAG_DOWN) && flow.sport == 5004;
    }
    assert_int_equal(states[LINK_DETACHED], 1);
    assert_int_equal(states[LINK_BLACKOUT], 2); /* of both radios of the group */
    assert_int_equal(states[LINK_UP], 3);       /* ends of the three */
    assert_int_equal(drops[REASON_DETACHED], 2);
    assert_int_equal(drops[REASON_NO_ROUTE], 1);
    assert_true(drops[REASON_BLACKOUT] >= 1);
    assert_true(drops[REASON_NAT_EXPIRED] >= 1);
    assert_int_equal(syn, 1);
    assert_int_equal(payload, 1);
    trace_run_release(&run);
}

static void test_a_calm_start_is_perfect_until_the_weather_begins(void **state)
{
    (void)state;
    if (!can_run())
        skip();
    struct tun_group g = {.name = "x", .first = PHONE_A, .count = 1};
    struct tun_config c = {.groups = &g, .groups_n = 1, .seed = 1, .calm = true};
    assert_int_equal(netem_profile_parse(&g.profile, "up.delay=5ms,down.loss=100%,nat_idle=60s", NULL), 0);
    assert_int_equal(tun_world_start(&world, &c, NULL), 0);
    int phone = bound(true, SOCK_DGRAM, PHONE_A, 5005),
        server = bound(false, SOCK_DGRAM, NETEM_FAR_ADDR, 6005);
    int stream = bound(true, SOCK_STREAM, PHONE_A, 5006),
        listener = bound(false, SOCK_STREAM, NETEM_FAR_ADDR, 6006);
    struct sockaddr_in to = at(NETEM_FAR_ADDR, 6006);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(connect(stream, (struct sockaddr *)&to, sizeof to), 0);
    int accepted = accept(listener, NULL, NULL);
    throw(phone, NETEM_FAR_ADDR, 6005, "ask", 3);
    expect(server, "ask");
    throw(server, PHONE_A, 5005, "answer", 6);
    expect(phone, "answer");
    order(phone, NETEM_DETACH);
    throw(phone, NETEM_FAR_ADDR, 6005, "gone", 4);
    await_drops("x", REASON_DETACHED, 1);
    order(phone, NETEM_ATTACH);
    /* a new connection after the NAT forgot the first one */
    close(accepted);
    close(stream);
    stream = bound(true, SOCK_STREAM, PHONE_A, 5007);
    assert_int_equal(connect(stream, (struct sockaddr *)&to, sizeof to), 0);
    accepted = accept(listener, NULL, NULL);
    assert_int_equal(tun_world_begin(world, NULL), 0);
    assert_int_equal(send(stream, "alive", 5, 0), 5); /* the NAT still knows it */
    expect(accepted, "alive");
    throw(server, PHONE_A, 5005, "lost", 4);
    struct tun_stats s = {0};
    for (uint64_t until = clock_mono_ns() + WAIT_NS; !s.dropped[REASON_LOSS] && clock_mono_ns() < until;)
        tun_world_stats(world, "x", &s);
    assert_true(s.dropped[REASON_LOSS] > 0);
    tun_world_stop(world);
    const int fds[] = {phone, server, stream, listener, accepted};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
}

static void test_groups_must_fit_the_range(void **state)
{
    (void)state;
    struct tun_group g = {.name = "x", .first = NETEM_FAR_ADDR, .count = 1};
    struct tun_config c = {.groups = &g, .groups_n = 1};
    struct tun_world *w;
    struct err_ctx err = {0};
    assert_int_equal(tun_world_start(&w, &c, &err), ERR_RANGE);
    c.groups_n = 0;
    assert_int_equal(tun_world_start(&w, &c, &err), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_must_fit_the_range),
        cmocka_unit_test(test_packets_arrive_after_their_delay_and_in_order),
        cmocka_unit_test(test_a_phone_tells_its_link_in_band_that_it_leaves),
        cmocka_unit_test(test_a_blackout_meets_one_group_and_ends),
        cmocka_unit_test(test_addresses_of_no_group_have_no_route),
        cmocka_unit_test(test_a_silent_connection_dies_in_the_nat),
        cmocka_unit_test(test_nothing_outlives_the_world_and_the_trace_is_whole),
        cmocka_unit_test(test_a_calm_start_is_perfect_until_the_weather_begins),
    };
    return cmocka_run_group_tests_name("tun", tests, start, end);
}

/* Every parameter: our netlink messages are those that iproute2's tc sends when it is given the line that we
 * print. tc runs in a network namespace of its own and is watched by ptrace; what the kernel answers does not
 * matter, so no sch_netem is needed. Only the sequence number and our port are not compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netem/kernel/kernel_impl.h"

#define BYTES_MAX 65536

static char folder[64];
static bool times64; /* what this tc sends */

static ssize_t fetch(pid_t pid, uint64_t from, void *to, size_t n)
{
    struct iovec here = {to, n}, there = {(void *)(uintptr_t)from, n};
    return process_vm_readv(pid, &here, 1, &there, 1, 0);
}

/* The request inside of a sendmsg, if it is one that changes something. */
static size_t request_of(pid_t pid, uint64_t msghdr, uint8_t *out)
{
    struct msghdr m;
    struct iovec v;
    if (fetch(pid, msghdr, &m, sizeof m) != sizeof m || m.msg_iovlen < 1 ||
        fetch(pid, (uintptr_t)m.msg_iov, &v, sizeof v) != sizeof v || v.iov_len > BYTES_MAX ||
        fetch(pid, (uintptr_t)v.iov_base, out, v.iov_len) != (ssize_t)v.iov_len)
        return 0;
    const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)out;
    bool changes = h->nlmsg_type == RTM_NEWQDISC || h->nlmsg_type == RTM_NEWTFILTER ||
                   (h->nlmsg_type == RTM_NEWLINK && h->nlmsg_flags & NLM_F_CREATE);
    return changes && h->nlmsg_len <= v.iov_len ? h->nlmsg_len : 0;
}

static void become(char *line)
{
    char *argv[128];
    int n = 0;
    for (char *save, *w = strtok_r(line, " \n", &save); w && n < 127; w = strtok_r(NULL, " \n", &save))
        argv[n++] = w;
    argv[n] = NULL;
    int null = open("/dev/null", O_WRONLY);
    if (!getenv("TALK"))
        dup2(null, 2);
    dup2(null, 1);
    setenv("TC_LIB_DIR", folder, 1);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    execvp(argv[0], argv);
    _exit(127);
}

/* Run a line of tc or ip, return the request it sends; 0: it sent none. */
static size_t watch(const char *text, uint8_t *out)
{
    char line[4096];
    uint8_t request[BYTES_MAX];
    size_t found = 0;
    int status;
    snprintf(line, sizeof line, "%s", text);
    pid_t pid = fork();
    if (pid == 0)
        become(line);
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    while (WIFSTOPPED(status)) {
        struct __ptrace_syscall_info info;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
            ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0 &&
            info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_sendmsg) {
            size_t n = request_of(pid, info.entry.args[1], request);
            if (n) {
                memcpy(out, request, n);
                found = n;
            }
        }
        int sig = WSTOPSIG(status) & 0x80 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (ptrace(PTRACE_SYSCALL, pid, 0, sig) < 0 || waitpid(pid, &status, 0) < 0)
            break;
    }
    return found;
}

static void put_table(const char *name, const int16_t *at, unsigned n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s.dist", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "%d%c", at[i], i % 8 == 7 ? '\n' : ' ');
    fclose(f);
}

static void same_as_tc(const struct kernel_step *s)
{
    static uint8_t theirs[BYTES_MAX];
    struct buf line = BUF_INIT(4096);
    struct nl_msg *m;
    kernel_step_tc(&line, s);
    size_t n = watch(buf_cstr(&line), theirs);
    if (!n)
        fail_msg("no request: %s", buf_cstr(&line));
    assert_int_equal(kernel_message(&m, s, 1, 1), 0);
    struct nlmsghdr *ours = nlmsg_hdr(m), *h = (struct nlmsghdr *)(void *)theirs;
    ours->nlmsg_seq = h->nlmsg_seq;
    ours->nlmsg_pid = h->nlmsg_pid;
    if (n != ours->nlmsg_len)
        print_message("%s\n%zu bytes of tc's, %u of ours\n", buf_cstr(&line), n, ours->nlmsg_len);
    for (size_t i = 0; i < n && i < ours->nlmsg_len; i++)
        if (theirs[i] != ((uint8_t *)ours)[i]) {
            print_message("%s\nfirst difference at byte %zu\n", buf_cstr(&line), i);
            break;
        }
    assert_int_equal(n, ours->nlmsg_len);
    assert_memory_equal(theirs, ours, n);
    nlmsg_free(m);
    buf_release(&line);
}

/* What the kernel is told is read back as what was meant. */
static void same_again(const struct kernel_step *s)
{
    struct kernel_netem back, want = s->netem;
    struct nlattr *attr[TCA_MAX + 1];
    struct nl_msg *m;
    assert_int_equal(kernel_message(&m, s, 1, 1), 0);
    assert_int_equal(nlmsg_parse(nlmsg_hdr(m), sizeof(struct tcmsg), attr, TCA_MAX, NULL), 0);
    assert_int_equal(kernel_netem_decode(&back, nla_data(attr[TCA_OPTIONS]), nla_len(attr[TCA_OPTIONS])), 0);
    want.table = NULL; /* the kernel does not tell it */
    want.distribution = NULL;
    want.table_n = 0;
    want.times64 = false;
    struct buf asked = BUF_INIT(4096), told = BUF_INIT(4096);
    kernel_netem_tc(&asked, &want);
    kernel_netem_tc(&told, &back);
    assert_string_equal(buf_cstr(&told), buf_cstr(&asked));
    buf_release(&asked);
    buf_release(&told);
    nlmsg_free(m);
}

static void netem_as_tc(struct kernel_netem n)
{
    struct kernel_step s = {.op = KERNEL_NETEM, .dev = "lo", .handle = KERNEL_AIR, .parent = TC_H_ROOT};
    n.limit = n.limit ? n.limit : 1000;
    n.times64 = times64;
    s.netem = n;
    same_as_tc(&s);
    same_again(&s);
    s.parent = KERNEL_ROOT | 1;
    s.overhead = -14;
    same_as_tc(&s);
}

#define SHARE(x) ((uint32_t)((x)*4294967295.0 + 0.5))
#define MS       1000000ull

static void test_limit(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.limit = 1});
    netem_as_tc((struct kernel_netem){.limit = 1000});
    netem_as_tc((struct kernel_netem){.limit = 1000000});
}

static void test_delay_jitter_and_correlation(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.delay_ns = 40 * MS});
    netem_as_tc((struct kernel_netem){.delay_ns = 1000});
    netem_as_tc((struct kernel_netem){.delay_ns = 60000 * MS});
    netem_as_tc((struct kernel_netem){.delay_ns = 40 * MS, .jitter_ns = 5 * MS});
    netem_as_tc((struct kernel_netem){.delay_ns = 40 * MS, .jitter_ns = 1234000});
    netem_as_tc((struct kernel_netem){.delay_ns = 40 * MS, .jitter_ns = 5 * MS, .delay_cor = SHARE(0.25)});
    netem_as_tc((struct kernel_netem){.delay_ns = 40 * MS, .jitter_ns = 5 * MS, .delay_cor = UINT32_MAX});
}

static void test_distribution_tables(void **state)
{
    static int16_t at[16000];
    (void)state;
    for (int i = 0; i < 16000; i++)
        at[i] = (int16_t)(i * 3 - 24576);
    put_table("small", at, 64);
    put_table("large", at, 16000);
    struct kernel_netem n = {.delay_ns = 40 * MS, .jitter_ns = 5 * MS, .table = at};
    n.distribution = "small";
    n.table_n = 64;
    netem_as_tc(n);
    n.distribution = "large"; /* the kernel takes 16384, tc's message ends before */
    n.table_n = 16000;
    n.delay_cor = SHARE(0.5);
    netem_as_tc(n);
}

static void test_independent_and_correlated_loss(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.loss = SHARE(0.02)});
    netem_as_tc((struct kernel_netem){.loss = SHARE(0.000001)});
    netem_as_tc((struct kernel_netem){.loss = 1});
    netem_as_tc((struct kernel_netem){.loss = UINT32_MAX});
    netem_as_tc((struct kernel_netem){.loss = SHARE(0.02), .loss_cor = SHARE(0.25)});
    netem_as_tc((struct kernel_netem){.loss = SHARE(0.02), .ecn = true});
}

static void test_gemodel(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.gemodel = true, .p = SHARE(0.01), .r = SHARE(0.1)});
    netem_as_tc((struct kernel_netem){.gemodel = true, .p = SHARE(0.0033), .r = SHARE(1 / 3.0)});
    netem_as_tc((struct kernel_netem){
        .gemodel = true, .p = 4285283, .r = 1073741824, .h = SHARE(0.7), .k1 = SHARE(0.001)});
    netem_as_tc((struct kernel_netem){.gemodel = true, .p = UINT32_MAX, .r = UINT32_MAX, .h = UINT32_MAX});
    netem_as_tc((struct kernel_netem){.gemodel = true, .p = SHARE(0.01), .r = SHARE(0.1), .ecn = true});
}

static void test_duplicates_and_corruption(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.duplicate = SHARE(0.01)});
    /* tc 6.1 forgets a duplicate's correlation unless there is another one */
    netem_as_tc((struct kernel_netem){.delay_ns = 10 * MS,
                                      .jitter_ns = MS,
                                      .delay_cor = SHARE(0.1),
                                      .duplicate = SHARE(0.01),
                                      .duplicate_cor = SHARE(0.5)});
    netem_as_tc((struct kernel_netem){.corrupt = SHARE(0.001)});
    netem_as_tc((struct kernel_netem){.corrupt = SHARE(0.001), .corrupt_cor = SHARE(0.3)});
}

static void test_reordering(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.delay_ns = 10 * MS, .reorder = SHARE(0.25), .gap = 1});
    netem_as_tc((struct kernel_netem){.delay_ns = 10 * MS, .reorder = SHARE(0.25), .gap = 5});
    netem_as_tc((struct kernel_netem){
        .delay_ns = 10 * MS, .reorder = SHARE(0.25), .reorder_cor = SHARE(0.5), .gap = 5});
}

static void test_rate_in_32_and_64_bits_with_overhead_and_cells(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.rate = 125});
    netem_as_tc((struct kernel_netem){.rate = 1500000});
    netem_as_tc((struct kernel_netem){.rate = 1500000, .overhead = -14});
    netem_as_tc((struct kernel_netem){.rate = 4294967295ull});
    netem_as_tc((struct kernel_netem){.rate = 12500000000ull, .overhead = -14});
    netem_as_tc((struct kernel_netem){.rate = 1500000, .overhead = 20, .cell_size = 48, .cell_overhead = 5});
}

static void test_slots(void **state)
{
    (void)state;
    netem_as_tc((struct kernel_netem){.slot = true, .slot_min_ns = 800000, .slot_max_ns = 1000000});
    netem_as_tc((struct kernel_netem){.slot = true,
                                      .slot_min_ns = 800000,
                                      .slot_max_ns = 10000000,
                                      .slot_packets = 32,
                                      .slot_bytes = 64000});
}

static void test_everything_at_once(void **state)
{
    static const int16_t at[] = {-8192, -4096, 0, 4096, 8192, 16384};
    (void)state;
    put_table("six", at, 6);
    netem_as_tc((struct kernel_netem){.limit = 4321,
                                      .delay_ns = 35 * MS,
                                      .jitter_ns = 15 * MS,
                                      .delay_cor = SHARE(0.25),
                                      .distribution = "six",
                                      .table = at,
                                      .table_n = 6,
                                      .gemodel = true,
                                      .p = 21911050,
                                      .r = 1073741824,
                                      .k1 = SHARE(0.0001),
                                      .duplicate = SHARE(0.01),
                                      .duplicate_cor = SHARE(0.02),
                                      .corrupt = SHARE(0.001),
                                      .corrupt_cor = SHARE(0.002),
                                      .reorder = SHARE(0.05),
                                      .reorder_cor = SHARE(0.5),
                                      .gap = 4,
                                      .rate = 1500000,
                                      .overhead = -14});
}

static void test_tbf(void **state)
{
    static const struct kernel_tbf of[] = {{1500000, 1522, 300000},
                                           {125, 1522, 32000},
                                           {2500, 1522, 32000},
                                           {12500000000ull, 1522, 1000000},
                                           {536870911, 65558, 4000000}};
    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        struct kernel_step s = {.op = KERNEL_TBF, .dev = "lo", .handle = KERNEL_ROOT, .parent = TC_H_ROOT};
        s.tbf = of[i];
        same_as_tc(&s);
        s.parent = KERNEL_GATE | 1;
        s.overhead = -14;
        same_as_tc(&s);
    }
}

static void test_redirection_with_and_without_a_policer(void **state)
{
    static const struct kernel_redirect of[] = {{false, 0, 0, 0},
                                                {true, 0, 0, 0},
                                                {true, 1500000, 300000, 70000},
                                                {true, 2500, 32000, 70000},
                                                {true, 12500000000ull, 30000000, 70000}};
    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        struct kernel_step s = {.op = KERNEL_REDIRECT, .dev = "lo", .to = "lo"};
        s.redirect = of[i];
        same_as_tc(&s);
    }
}

static void test_clsact_and_ifb(void **state)
{
    struct kernel_step s = {
        .op = KERNEL_CLSACT, .dev = "lo", .handle = TC_H_MAKE(TC_H_CLSACT, 0), .parent = TC_H_CLSACT};
    (void)state;
    same_as_tc(&s);
    same_as_tc(&(struct kernel_step){.op = KERNEL_IFB, .dev = "netem-u12"});
}

/* Whole plans, whatever they consist of: each line that --dry-run prints. */
static void test_every_named_profile(void **state)
{
    static struct kernel_plan plan;
    const struct kernel_device dev = {.name = "lo", .index = 1, .mtu = 1500, .header = 14};
    struct netem_profile p;
    const char *name, *summary;
    (void)state;
    for (unsigned i = 0; netem_profile_list(i, &name, &summary); i++) {
        assert_int_equal(netem_profile_parse(&p, name, NULL), 0);
        kernel_plan_make(&plan, &p, name, &dev, false, 0);
        for (unsigned k = 0; k < plan.steps; k++) {
            struct kernel_step *s = &plan.step[k];
            if (s->op != KERNEL_IFB) { /* the IFBs are not there */
                strcpy(s->dev, "lo");
                strcpy(s->to, "lo");
            }
            if (s->op == KERNEL_NETEM && s->netem.table)
                put_table(s->netem.distribution, s->netem.table, s->netem.table_n);
            if (s->op == KERNEL_NETEM)
                s->netem.times64 = times64;
            same_as_tc(s);
        }
    }
}

static int setup(void **state)
{
    (void)state;
    uint8_t request[BYTES_MAX];
    strcpy(folder, "/tmp/netem-tables.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    times64 = watch("tc qdisc add dev lo root netem delay 1s", request) >
              36 + 12 + 4 + sizeof(struct tc_netem_qopt);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_delay_jitter_and_correlation),
        cmocka_unit_test(test_distribution_tables),
        cmocka_unit_test(test_independent_and_correlated_loss),
        cmocka_unit_test(test_gemodel),
        cmocka_unit_test(test_duplicates_and_corruption),
        cmocka_unit_test(test_reordering),
        cmocka_unit_test(test_rate_in_32_and_64_bits_with_overhead_and_cells),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_everything_at_once),
        cmocka_unit_test(test_tbf),
        cmocka_unit_test(test_redirection_with_and_without_a_policer),
        cmocka_unit_test(test_clsact_and_ifb),
        cmocka_unit_test(test_every_named_profile),
    };
    if (unshare(CLONE_NEWNET) < 0) {
        printf("1..1\nok 1 - tc's bytes # SKIP needs root for a network namespace\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* The option table: parser, help, man page, completion, file and environment agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/opt.h"

/* clang-format off */
static const struct opt options[] = {
    OPT("listen", 'l', STRING, "ADDR:PORT", "127.0.0.1:8080", "where to accept clients", "serve", true, false)
    OPT("threads", 't', U64, "N", "1", "how many loops run", "serve", true, false)
    OPT("config", 0, STRING, "FILE", NULL, "read this JSON file first", "serve", false, false)
    OPT("fsync-max", 0, DURATION, "TIME", "10ms", "longest wait for a batch before it is written, whatever its size, "
        "so that a quiet server answers fast as well", "serve", true, true)
    OPT("retain", 0, SIZE, "SIZE", "64MiB", "how much stays hot", "serve", true, true)
    OPT("rate", 'r', RATE, "RATE", "100/s", "messages per second", "serve", true, true)
    OPT("share", 0, SHARE, "SHARE", "2%", "part of the clients", "serve", true, true)
    OPT("delivery", 0, STRING, "reliable|legacy", "reliable", "how messages go out", "serve", true, true)
    OPT("toxic", 0, LIST, "SPEC", NULL, "add a fault", "serve", true, true)
    OPT("trace", 0, FLAG, NULL, NULL, "write traces", NULL, true, true)
    OPT("to", 0, STRING, "DIR", NULL, "folder of the backup", "backup", false, false)
    OPT("to", 0, STRING, "URL", NULL, "server to replay to", "replay", false, false)
    OPT_END};
/* clang-format on */

static const struct opt_command commands[] = {{"serve", NULL, "run the server", 0, 0},
                                              {"backup", "DIR...", "write a backup", 1, -1},
                                              {"replay", "FILE", "replay a file", 1, 1},
                                              {"run", "PROFILE -- CMD...", "run a command", 1, 1},
                                              {0}};

static const struct opt_tool tool = {.name = "chat-test",
                                     .summary = "a tool for tests",
                                     .description = "First paragraph - with a dash.\n\n.second 'paragraph'.",
                                     .commands = commands,
                                     .default_first = true,
                                     .options = options,
                                     .env_prefix = "CHATTEST_",
                                     .examples = "chat-test serve --listen :1\n  chat-test backup d\n"};

static struct err_ctx ctx;
static struct buf answer;

static int parse_with(struct opt_set **s, const struct opt_tool *t, const char *const *words)
{
    static char *argv[32];
    int argc = 1;
    argv[0] = (char *)"tool";
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    argv[argc] = NULL;
    memset(&ctx, 0, sizeof ctx);
    buf_reset(&answer);
    return opt_parse(s, t, argc, argv, "config", &answer, &ctx);
}
#define PARSE(s, ...) parse_with(s, &tool, (const char *const[]){__VA_ARGS__, NULL})

static struct opt_set *parsed(const char *const *words)
{
    struct opt_set *s = NULL;
    if (parse_with(&s, &tool, words))
        fail_msg("%s", ctx.text);
    assert_non_null(s);
    return s;
}
#define PARSED(...) parsed((const char *const[]){__VA_ARGS__, NULL})
#define NOTHING     parsed((const char *const[]){NULL})

#define REFUSED(sentence, ...)                                                                               \
    do {                                                                                                     \
        struct opt_set *s_ = NULL;                                                                           \
        assert_int_equal(PARSE(&s_, __VA_ARGS__), ERR_USAGE);                                                \
        assert_null(s_);                                                                                     \
        assert_string_equal(ctx.text, sentence);                                                             \
    } while (0)

static void write_config(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static char dir[] = "/tmp/test_opt.XXXXXX", path[64];

static int setup(void **state)
{
    (void)state;
    buf_init(&answer, 1 << 20);
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/c.json", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_release(&answer);
    unlink(path);
    return rmdir(dir);
}

static void test_defaults_hold_when_nothing_is_given(void **state)
{
    (void)state;
    struct opt_set *s = NOTHING;
    const char *const *list;
    assert_string_equal(opt_command(s), "serve");
    assert_string_equal(opt_string(s, "listen"), "127.0.0.1:8080");
    assert_int_equal(opt_u64(s, "threads"), 1);
    assert_int_equal(opt_u64(s, "fsync-max"), 10000000);
    assert_int_equal(opt_u64(s, "retain"), 64 << 20);
    assert_int_equal(opt_u64(s, "rate"), 100000);
    assert_int_equal(opt_u64(s, "share"), 20000);
    assert_int_equal(opt_list(s, "toxic", &list), 0);
    assert_false(opt_flag(s, "trace"));
    assert_null(opt_string(s, "config"));
    assert_false(opt_given(s, "listen"));
    assert_string_equal(opt_source(s, "listen"), "default");
    assert_int_equal(opt_verbosity(s), 0);
    assert_false(opt_json(s));
    assert_true(opt_seed(s) < 1ull << 53);
    opt_free(s);
}

static void test_every_way_to_write_an_option(void **state)
{
    (void)state;
    const char *const *list;
    struct opt_set *s = PARSED("-l", "a:1", "--threads=2", "-r5/m", "-vv", "--trace", "--toxic", "a",
                               "--toxic=b", "serve", "--json", "--seed", "42");
    assert_string_equal(opt_string(s, "listen"), "a:1");
    assert_int_equal(opt_u64(s, "threads"), 2);
    assert_int_equal(opt_u64(s, "rate"), 83);
    assert_int_equal(opt_list(s, "toxic", &list), 2);
    assert_string_equal(list[1], "b");
    assert_true(opt_flag(s, "trace"));
    assert_true(opt_json(s));
    assert_int_equal(opt_verbosity(s), 2);
    assert_int_equal(opt_seed(s), 42);
    assert_string_equal(opt_source(s, "threads"), "flag");
    opt_free(s);
    s = PARSED("--trace", "--no-trace", "-qv");
    assert_false(opt_flag(s, "trace"));
    assert_int_equal(opt_verbosity(s), -1);
    opt_free(s);
    s = PARSED("backup", "a", "--", "--to", "-x");
    assert_int_equal(opt_operands(s), 3);
    assert_string_equal(opt_operand(s, 1), "--to");
    assert_null(opt_rest(s));
    opt_free(s);
    s = PARSED("run", "lte", "--", "sh", "-c", "--help");
    assert_int_equal(opt_operands(s), 1);
    assert_string_equal(opt_rest(s)[2], "--help");
    assert_null(opt_rest(s)[3]);
    opt_free(s);
    s = PARSED("replay", "-", "--to", "x");
    assert_string_equal(opt_operand(s, 0), "-");
    assert_string_equal(opt_string(s, "to"), "x");
    opt_free(s);
}

static void test_refusals_say_what_is_wrong(void **state)
{
    (void)state;
    REFUSED("unknown option '--lisen'; did you mean '--listen'?", "--lisen", "x");
    REFUSED("unknown option '--lsiten'; did you mean '--listen'?", "--lsiten=x");
    REFUSED("unknown option '--zzzzzz'", "--zzzzzz");
    REFUSED("unknown option '-Z'", "-vZ");
    REFUSED("unknown option '--no-listen'; did you mean '--listen'?", "--no-listen");
    REFUSED("unknown command 'bakup'; did you mean 'backup'?", "bakup");
    REFUSED("--threads: '5x' is no number", "--threads", "5x");
    REFUSED("-t: '' is no number", "-t", "");
    REFUSED("--fsync-max: '5' is no duration (10ms, 5s, 3m, 1d)", "--fsync-max=5");
    REFUSED("--listen needs a value: --listen ADDR:PORT", "--listen");
    REFUSED("--listen needs a value: --listen ADDR:PORT", "--listen", "--trace");
    REFUSED("--delivery: 'legcy' is none of reliable|legacy; did you mean 'legacy'?", "--delivery", "legcy");
    REFUSED("--trace: 'maybe' is neither true nor false", "--trace=maybe");
    REFUSED("'--listen' is an option of serve, not of backup", "backup", "d", "--listen", "x");
    REFUSED("backup needs DIR...", "backup");
    REFUSED("replay: unexpected argument 'b'", "replay", "a", "b");
    REFUSED("--color: 'blue' is none of auto|always|never", "--color=blue");
}

static void test_tools_without_commands(void **state)
{
    (void)state;
    static const struct opt_command one[] = {{NULL, "FILE...", "x", 1, 2}, {0}};
    struct opt_tool t = tool;
    struct opt_set *s = NULL;
    t.commands = one;
    assert_int_equal(parse_with(&s, &t, (const char *const[]){"a", "b", NULL}), 0);
    assert_string_equal(opt_command(s), "");
    assert_string_equal(opt_operand(s, 1), "b");
    opt_free(s);
    assert_int_equal(parse_with(&s, &t, (const char *const[]){NULL}), ERR_USAGE);
    assert_string_equal(ctx.text, "chat-test needs FILE...");
    t.commands = NULL;
    assert_int_equal(parse_with(&s, &t, (const char *const[]){"a", NULL}), ERR_USAGE);
    assert_string_equal(ctx.text, "unexpected argument 'a'");
    t.commands = commands;
    t.default_first = false;
    assert_int_equal(parse_with(&s, &t, (const char *const[]){NULL}), ERR_USAGE);
    assert_string_equal(ctx.text, "a command is missing; see --help");
}

static void test_flag_beats_environment_beats_file_beats_default(void **state)
{
    (void)state;
    write_config(path,
                 "{\"listen\": \"file:1\", \"threads\": 3, \"fsync-max\": \"1s\", \"toxic\": [\"x\", \"y\"], "
                 "\"trace\": true, \"share\": 0.5, \"rate\": 7}");
    setenv("CHATTEST_LISTEN", "env:1", 1);
    setenv("CHATTEST_THREADS", "4", 1);
    setenv("CHATTEST_CONFIG", path, 1);
    struct opt_set *s = PARSED("--threads", "5");
    const char *const *list;
    assert_int_equal(opt_u64(s, "threads"), 5);
    assert_string_equal(opt_string(s, "listen"), "env:1");
    assert_string_equal(opt_source(s, "listen"), "environment");
    assert_int_equal(opt_u64(s, "fsync-max"), 1000000000);
    assert_string_equal(opt_source(s, "fsync-max"), "file");
    assert_int_equal(opt_list(s, "toxic", &list), 2);
    assert_true(opt_flag(s, "trace"));
    assert_int_equal(opt_u64(s, "share"), 500000);
    assert_int_equal(opt_u64(s, "rate"), 7000);
    assert_string_equal(opt_source(s, "retain"), "default");
    opt_free(s);
    setenv("CHATTEST_TOXIC", "p,q,r", 1);
    setenv("CHATTEST_TRACE", "no", 1);
    s = PARSED("--toxic", "z");
    assert_int_equal(opt_list(s, "toxic", &list), 1);
    assert_false(opt_flag(s, "trace"));
    opt_free(s);
    s = NOTHING;
    assert_int_equal(opt_list(s, "toxic", &list), 3);
    assert_string_equal(list[2], "r");
    opt_free(s);
    setenv("CHATTEST_THREADS", "many", 1);
    REFUSED("CHATTEST_THREADS: 'many' is no number", "serve");
    unsetenv("CHATTEST_TOXIC");
    unsetenv("CHATTEST_TRACE");
    unsetenv("CHATTEST_THREADS");
    unsetenv("CHATTEST_CONFIG");
    unsetenv("CHATTEST_LISTEN");
}

static void test_faults_in_the_file_name_file_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *json, *sentence;
    } cases[] = {
        {"{\"lissten\": \"x\"}", "unknown key 'lissten'; did you mean 'listen'?"},
        {"{\"config\": \"x\"}", "'config' cannot stand in a config file"},
        {"{\"threads\": \"x\"}", "threads: 'x' is no number"},
        {"{\"threads\": -1}", "threads: '-1' is no number"},
        {"{\"threads\": true}", "threads: must be a number or a string"},
        {"{\"trace\": 1}", "trace: must be true or false"},
        {"{\"listen\": 8080}", "listen: must be a string"},
        {"{\"toxic\": [\"a\", 1]}", "toxic[1]: must be a string"},
        {"{\"fsync-max\": 10}", "fsync-max: '10' is no duration (10ms, 5s, 3m, 1d)"},
        {"{\"delivery\": \"fast\"}", "delivery: 'fast' is none of reliable|legacy"},
        {"[]", "must hold one JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct opt_set *s = NULL;
        char want[256];
        write_config(path, cases[i].json);
        snprintf(want, sizeof want, "%s: %s", path, cases[i].sentence);
        assert_int_equal(PARSE(&s, "--config", path), ERR_INVALID);
        assert_string_equal(ctx.text, want);
    }
    struct opt_set *s = NULL;
    write_config(path, "{\"threads\": 1,\n \"threads\": 2}");
    assert_int_equal(PARSE(&s, "--config", path), ERR_INVALID);
    assert_non_null(strstr(ctx.text, "c.json:2:"));
    assert_non_null(strstr(ctx.text, "duplicate"));
    assert_int_equal(PARSE(&s, "--config", "/nonexistent/c.json"), ERR_NOTFOUND);
    assert_int_equal(PARSE(&s, "--config", dir), ERR_INVALID);
}

static void test_printed_config_reads_back_the_same(void **state)
{
    (void)state;
    struct opt_set *s =
        PARSED("--listen", "a\"b\\:1", "--fsync-max", "1234567ns", "--rate", "0.5/s", "--share", "1.25%",
               "--toxic", "a", "--toxic", "b", "--trace", "--retain", "1025");
    struct buf one = BUF_INIT(1 << 16), two = BUF_INIT(1 << 16);
    opt_print_config(s, &one);
    opt_free(s);
    write_config(path, buf_cstr(&one));
    s = PARSED("--config", path);
    assert_string_equal(opt_source(s, "retain"), "file");
    assert_int_equal(opt_u64(s, "fsync-max"), 1234567);
    assert_int_equal(opt_u64(s, "share"), 12500);
    opt_print_config(s, &two);
    assert_string_equal(buf_cstr(&one), buf_cstr(&two));
    assert_non_null(strstr(buf_cstr(&one), "\"rate\": \"0.5/s\""));
    opt_free(s);
    buf_release(&one);
    buf_release(&two);
}

static void test_reload_changes_only_what_may_change(void **state)
{
    (void)state;
    struct opt_set *fresh = NULL;
    struct buf ignored = BUF_INIT(4096);
    const char *const *list;
    write_config(path, "{\"threads\": 3, \"rate\": \"1/s\", \"delivery\": \"legacy\", \"toxic\": [\"a\"]}");
    struct opt_set *s = PARSED("--config", path, "--share", "3%", "serve");
    write_config(
        path,
        "{\"threads\": 4, \"rate\": \"2/s\", \"share\": \"9%\", \"listen\": \"other:1\", \"trace\": false}");
    assert_int_equal(opt_reload(&fresh, s, &ignored, &ctx), 0);
    assert_string_equal(buf_cstr(&ignored), "listen, threads");
    assert_int_equal(opt_u64(fresh, "threads"), 3);
    assert_string_equal(opt_string(fresh, "listen"), "127.0.0.1:8080");
    assert_int_equal(opt_u64(fresh, "rate"), 2000);
    assert_int_equal(opt_u64(fresh, "share"), 30000);
    assert_string_equal(opt_string(fresh, "delivery"), "reliable");
    assert_int_equal(opt_list(fresh, "toxic", &list), 0);
    assert_string_equal(opt_command(fresh), "serve");
    opt_free(fresh);
    write_config(path, "{\"threads\": ");
    assert_int_equal(opt_reload(&fresh, s, &ignored, &ctx), ERR_INVALID);
    assert_null(fresh);
    opt_free(s);
    buf_release(&ignored);
}

static const char *ask(const char *question)
{
    struct opt_set *s = NULL;
    assert_int_equal(PARSE(&s, question), 0);
    assert_null(s);
    return buf_cstr(&answer);
}

static void expect_all(const char *text, const char *before)
{
    char word[128];
    for (const struct opt *o = options; o->name; o++) {
        snprintf(word, sizeof word, "%s%s", before, o->name);
        if (strcmp(before, "\\-\\-") == 0) { /* roff writes each dash escaped */
            char *to = word;
            for (const char *p = "--", *q = o->name; *p || *q;) {
                char c = *p ? *p++ : *q++;
                if (c == '-')
                    *to++ = '\\';
                *to++ = c;
            }
            *to = 0;
        }
        if (!strstr(text, word))
            fail_msg("%s is not in:\n%s", word, text);
    }
}

static void test_help_man_and_completion_name_every_option(void **state)
{
    (void)state;
    expect_all(ask("--help"), "--");
    expect_all(ask("--man"), "\\-\\-");
    expect_all(ask("--completion"), "--");
    for (const struct opt *o = options; o->name; o++) {
        char words[64];
        strncpy(words, o->help, 12);
        words[12] = 0;
        assert_non_null(strstr(ask("--help"), words));
        assert_true(!o->def || strstr(buf_cstr(&answer), o->def));
    }
    for (const struct opt_command *c = commands; c->help; c++) {
        assert_non_null(strstr(ask("--help"), c->help));
        assert_non_null(strstr(ask("--man"), c->name));
        assert_non_null(strstr(ask("--completion"), c->name));
    }
    assert_non_null(strstr(ask("--version"), "chat-test "));
    assert_non_null(strstr(ask("-h"), "Examples:\n  chat-test serve"));
}

static void test_help_fits_the_width(void **state)
{
    (void)state;
    const int widths[] = {80, 100};
    for (int i = 0; i < 2; i++) {
        setenv("COLUMNS", i ? "300" : "20", 1);
        for (const char *p = ask("--help"), *end; *p; p = end + 1) {
            end = strchr(p, '\n');
            assert_non_null(end);
            assert_true(end - p <= widths[i]);
            assert_true(end == p || end[-1] != ' ');
        }
    }
    unsetenv("COLUMNS");
}

static void test_help_of_a_command_shows_its_options_only(void **state)
{
    (void)state;
    struct opt_set *s = NULL;
    assert_int_equal(PARSE(&s, "backup", "--help"), 0);
    assert_non_null(strstr(buf_cstr(&answer), "Usage: chat-test backup DIR... [OPTION]...\n"));
    assert_non_null(strstr(buf_cstr(&answer), "--to DIR"));
    assert_non_null(strstr(buf_cstr(&answer), "--trace"));
    assert_null(strstr(buf_cstr(&answer), "--listen"));
    assert_int_equal(PARSE(&s, "--bad", "--help"), 0); /* help is answered whatever else is wrong */
    assert_non_null(strstr(buf_cstr(&answer), "Usage: chat-test COMMAND"));
}

static void run(const char *command, const char *input, char *out, size_t cap)
{
    char script[128], line[256];
    snprintf(script, sizeof script, "%s/script", dir);
    write_config(script, input);
    snprintf(line, sizeof line, "%s %s 2>&1", command, script);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    size_t n = fread(out, 1, cap - 1, p);
    out[n] = 0;
    pclose(p);
    unlink(script);
}

static void test_bash_completes(void **state)
{
    (void)state;
    struct buf script = BUF_INIT(1 << 20);
    char out[4096];
    buf_str(&script, ask("--completion"));
    buf_str(&script,
            "try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _chat_test; echo \"${COMPREPLY[*]}\"; }\n"
            "try chat-test ba\ntry chat-test serve --li\ntry chat-test backup --li\n"
            "try chat-test --delivery l\ntry chat-test replay --t\n");
    run("bash", buf_cstr(&script), out, sizeof out);
    assert_string_equal(out, "backup\n--listen\n\nlegacy\n--trace --to\n");
    buf_release(&script);
}

static void test_man_page_formats_without_warnings(void **state)
{
    (void)state;
    char out[65536];
    if (system("command -v groff >/dev/null 2>&1"))
        skip();
    run("groff -man -ww -Tascii -z", ask("--man"), out, sizeof out);
    assert_string_equal(out, "");
    run("groff -man -Tascii -P-c -P-b -P-u", ask("--man"), out, sizeof out);
    assert_non_null(strstr(out, "First paragraph - with a dash."));
    assert_non_null(strstr(out, ".second 'paragraph'."));
    assert_non_null(strstr(out, "CHATTEST_FSYNC_MAX"));
}

static void test_color_follows_flag_and_no_color(void **state)
{
    (void)state;
    struct opt_set *s = PARSED("--color=always");
    assert_true(opt_color(s, 0));
    opt_free(s);
    s = PARSED("--color", "never");
    assert_false(opt_color(s, 0));
    opt_free(s);
    s = NOTHING;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_false(opt_color(s, fds[1]));
    close(fds[0]);
    close(fds[1]);
    opt_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_hold_when_nothing_is_given),
        cmocka_unit_test(test_every_way_to_write_an_option),
        cmocka_unit_test(test_refusals_say_what_is_wrong),
        cmocka_unit_test(test_tools_without_commands),
        cmocka_unit_test(test_flag_beats_environment_beats_file_beats_default),
        cmocka_unit_test(test_faults_in_the_file_name_file_and_key),
        cmocka_unit_test(test_printed_config_reads_back_the_same),
        cmocka_unit_test(test_reload_changes_only_what_may_change),
        cmocka_unit_test(test_help_man_and_completion_name_every_option),
        cmocka_unit_test(test_help_fits_the_width),
        cmocka_unit_test(test_help_of_a_command_shows_its_options_only),
        cmocka_unit_test(test_bash_completes),
        cmocka_unit_test(test_man_page_formats_without_warnings),
        cmocka_unit_test(test_color_follows_flag_and_no_color),
    };
    return cmocka_run_group_tests_name("opt", tests, setup, teardown);
}

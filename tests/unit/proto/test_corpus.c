/* What the fuzzers of both codecs begin with: a message that no file holds is one they hardly ever build. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/bin.h"

static char room[PROTO_SCRATCH];

static void note(enum proto_codec codec, const char *p, size_t n, bool seen[])
{
    struct proto_scratch scratch = {room, sizeof room, 0};
    struct proto_frame f;
    struct msg m;
    int rc = proto_frame_begin_as(&f, codec, p, n, &scratch, NULL);
    while (!rc && proto_frame_next(&f, &m, NULL) == 1) {
        seen[m.t] = true;
        if (f.done)
            break;
    }
}

static void assert_whole(enum proto_codec codec, const char *folder)
{
    bool seen[MSG_TYPE_COUNT] = {0};
    static char text[64 << 10];
    struct dirent *e;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while ((e = readdir(d))) {
        char path[512];
        FILE *f;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] == '.' || !(f = fopen(path, "re")))
            continue;
        size_t n = fread(text, 1, sizeof text, f);
        fclose(f);
        note(codec, text, n, seen);
    }
    closedir(d);
    for (int t = 1; t < MSG_TYPE_COUNT; t++)
        if (!seen[t])
            fail_msg("%s: no file holds a %s", folder, msg_type_name((enum msg_type)t));
}

static void test_every_message_stands_in_the_corpus_of_json(void **state)
{
    (void)state;
    assert_whole(PROTO_JSON, "tests/fuzz/corpus/proto");
}

static void test_every_message_stands_in_the_corpus_of_the_binary_codec(void **state)
{
    (void)state;
    assert_whole(PROTO_BIN, "tests/fuzz/corpus/bin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_stands_in_the_corpus_of_json),
        cmocka_unit_test(test_every_message_stands_in_the_corpus_of_the_binary_codec),
    };
    return cmocka_run_group_tests_name("corpus", tests, NULL, NULL);
}

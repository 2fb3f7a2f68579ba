#include "report/report.h"

#include <inttypes.h>
#include <string.h>

/* Attribute text: XML 1.0 knows no control characters, not even escaped. */
static void attribute(struct buf *out, const char *s)
{
    char c[2] = {0};
    for (; *s; s++) {
        c[0] = (unsigned char)*s < 0x20 ? ' ' : *s;
        buf_html(out, c);
    }
}

static void test_case(struct buf *out, const struct report_run *r, const struct report_expect *e)
{
    buf_str(out, "    <testcase classname=\"");
    attribute(out, r->scenario);
    buf_str(out, "\" name=\"");
    attribute(out, e->text);
    buf_str(out, "\"");
    if (strcmp(e->verdict, "pass") == 0) {
        buf_str(out, "/>\n");
        return;
    }
    bool failed = strcmp(e->verdict, "fail") == 0;
    buf_str(out, failed ? ">\n      <failure message=\"" : ">\n      <error message=\"unknown: ");
    attribute(out, *e->why ? e->why : e->value);
    buf_str(out, "\"/>\n    </testcase>\n");
}

/* An unknown answer is an error, not a skip: skipped tests look green. */
void report_junit(struct buf *out, const struct report_run *const *runs, uint32_t n)
{
    buf_str(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (uint32_t i = 0; i < n; i++) {
        const struct report_run *r = runs[i];
        uint32_t failed = 0, errors = 0;
        for (uint32_t k = 0; k < r->expect_n; k++) {
            failed += strcmp(r->expect[k].verdict, "fail") == 0;
            errors += strcmp(r->expect[k].verdict, "unknown") == 0;
        }
        buf_str(out, "  <testsuite name=\"");
        attribute(out, r->scenario);
        if (*r->variant) {
            buf_str(out, "/");
            attribute(out, r->variant);
        }
        buf_printf(out, "\" tests=\"%u\" failures=\"%u\" errors=\"%u\" time=\"%.3f\">\n", r->expect_n, failed,
                   errors, r->seconds);
        buf_printf(out,
                   "    <properties>\n      <property name=\"seed\" value=\"%" PRIu64
                   "\"/>\n      <property name=\"commit\" value=\"",
                   r->seed);
        attribute(out, r->commit);
        buf_str(out, "\"/>\n    </properties>\n");
        for (uint32_t k = 0; k < r->expect_n; k++)
            test_case(out, r, &r->expect[k]);
        buf_str(out, "  </testsuite>\n");
    }
    buf_str(out, "</testsuites>\n");
}

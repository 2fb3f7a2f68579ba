/* Any text as a SPEC of a toxic: taken, or refused with a sentence that quotes it. */
#include <stdlib.h>
#include <string.h>

#include "netem/proxy/toxic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_toxic t;
    struct err_ctx ctx = {0};
    char text[2048];
    if (size >= sizeof text || memchr(data, 0, size) || memchr(data, '/', size)) /* no files */
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (strstr(text, "trace") || strstr(text, "table") || strstr(text, ".json"))
        return 0;
    int rc = proxy_toxic_parse(&t, text, &ctx);
    if (rc && !ctx.text[0])
        abort();
    if (!rc && (t.share_ppm > 1000000 || t.ways > 3 || (proxy_toxic_by_frame(&t) && t.bytes) ||
                strcmp(t.spec, text)))
        abort();
    if (!rc)
        proxy_toxic_release(&t);
    return 0;
}

#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static log_sink *current_sink;
static void *sink_arg;
static enum log_level max_level = LOG_INFO;

void log_set(log_sink *sink, void *arg, enum log_level level)
{
    current_sink = sink;
    sink_arg = arg;
    max_level = level;
}

void log_at(enum log_level level, const char *fmt, ...)
{
    if (!current_sink || level > max_level)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    current_sink(sink_arg, level, line);
}

void log_to_stderr(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    struct timespec t;
    struct tm tm;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(stderr, "%s.%03ldZ %s %s\n", stamp, t.tv_nsec / 1000000, names[level], line);
}

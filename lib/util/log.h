/* Leveled log lines to a sink that the program sets; the library itself never prints. Default sink: none. */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

typedef void log_sink(void *arg, enum log_level level, const char *line);

void log_set(log_sink *sink, void *arg, enum log_level level);
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A sink for programs: "2026-01-02T03:04:05.678Z WARN text" on stderr. */
void log_to_stderr(void *arg, enum log_level level, const char *line);

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

#endif
